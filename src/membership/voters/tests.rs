use super::*;
use crate::spec::{Incarnation, MonoMs, NodeSpec, Role};
use crate::state::fixture::{Fixture, node};

/// A Raft group that does at once what the plan says, with every standby caught up at the next step.
struct Bench {
    fixture: Fixture,
    me: NodeId,
    lagging: BTreeSet<NodeId>,
    suspects: BTreeSet<NodeId>,
    /// Not heard by Raft, and no verdict yet.
    silent: BTreeSet<NodeId>,
    /// Heard by Raft in spite of a verdict.
    heard: BTreeSet<NodeId>,
    strangers: bool,
}

impl Bench {
    fn new(managers: u128) -> Bench {
        let fixture = Fixture::nodes(managers);
        let (lagging, suspects, silent, heard) = Default::default();
        Bench { fixture, me: node(1), lagging, suspects, silent, heard, strangers: false }
    }

    /// As new, and settled.
    fn settled(managers: u128) -> Bench {
        let mut bench = Bench::new(managers);
        bench.settle();
        bench
    }

    fn plan(&self) -> Option<VoterStep> {
        let held = self.fixture.state.nodes().filter_map(|node| Some((node.id, node.raft?.raft_id)));
        let progress = |id| MemberProgress {
            matched: if self.lagging.contains(&id) { 0 } else { 1000 },
            recently_active: self.heard.contains(&id) || !self.is_down(id) && !self.silent.contains(&id),
        };
        let progress =
            RaftProgress { committed: 1000, members: held.map(|(id, raft_id)| (raft_id, progress(id))).collect() };
        let now = Now { mono: MonoMs(0), unix: self.fixture.now };
        plan(&Circumstances {
            strangers: self.strangers,
            me: self.me,
            state: &self.fixture.state,
            suspects: &self.suspects,
            progress: &progress,
            now,
        })
    }

    /// Carries out steps until there are none; how many it took.
    fn settle(&mut self) -> usize {
        for step in 0..40 {
            match self.plan() {
                None => return step,
                Some(VoterStep::Change(change)) => self.apply(&change),
                Some(VoterStep::HandOver { to }) => {
                    assert!(self.voters().contains(&to) && to != self.me && !self.is_down(to), "{to} cannot lead");
                    self.me = to;
                }
            }
        }
        panic!("it does not settle: {:?}", self.plan());
    }

    fn apply(&mut self, change: &[(NodeId, Option<RaftMember>)]) {
        let live_before = self.voters().iter().filter(|id| !self.is_down(**id)).count();
        assert!(live_before * 2 > self.voters().len(), "nothing is decided without a quorum");
        let index = self.fixture.state.applied() + 1;
        self.fixture.state.apply_raft_membership(index, change);
        let live = self.voters().iter().filter(|id| !self.is_down(**id)).count();
        assert!(live * 2 > self.voters().len(), "{change:?} costs the quorum");
        assert!(self.holders().len() <= MAX_LOG_HOLDERS);
    }

    fn is_down(&self, id: NodeId) -> bool {
        matches!(self.fixture.state.node(id).unwrap().health, NodeHealth::Down { .. })
    }

    fn kill(&mut self, number: u128) {
        let since = self.fixture.now;
        self.fixture.health(node(number), NodeHealth::Down { incarnation: Incarnation(1), since });
    }

    fn holders(&self) -> BTreeSet<NodeId> {
        self.fixture.state.nodes().filter(|node| node.raft.is_some()).map(|node| node.id).collect()
    }

    fn voters(&self) -> BTreeSet<NodeId> {
        let votes = |node: &&std::sync::Arc<Node>| node.raft.is_some_and(|raft| raft.standing == RaftStanding::Voter);
        self.fixture.state.nodes().filter(votes).map(|node| node.id).collect()
    }

    fn set_zone(&mut self, number: u128, zone: &str) {
        self.fixture.update_node(node(number), |spec: &mut NodeSpec| {
            spec.labels.insert("zone".into(), zone.into());
        });
    }
}

fn nodes(numbers: impl IntoIterator<Item = u128>) -> BTreeSet<NodeId> {
    numbers.into_iter().map(node).collect()
}

#[test]
fn as_many_vote_as_there_are_managers_for_and_nine_hold_the_log() {
    for (managers, voters, holders) in
        [(1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 3, 4), (5, 5, 5), (6, 5, 6), (7, 7, 7), (9, 7, 9), (12, 7, 9)]
    {
        let bench = Bench::settled(managers);
        assert_eq!((bench.voters().len(), bench.holders().len()), (voters, holders), "{managers} managers");
    }
}

#[test]
fn a_newcomer_votes_only_when_it_is_caught_up() {
    let mut bench = Bench::new(3);
    bench.lagging = nodes([3]);
    bench.settle();
    assert_eq!(bench.voters(), nodes([1]), "two of three managers are not made two voters");
    bench.lagging.clear();
    bench.settle();
    assert_eq!(bench.voters(), nodes([1, 2, 3]));
}

#[test]
fn a_dead_voter_is_replaced_by_a_standby_at_once() {
    let mut bench = Bench::settled(4);
    let standby = *bench.holders().difference(&bench.voters()).next().unwrap();
    let dead = *bench.voters().iter().find(|id| **id != bench.me).unwrap();
    bench.kill(dead.0);
    assert_eq!(bench.settle(), 1, "one joint change");
    assert!(bench.voters().contains(&standby) && !bench.voters().contains(&dead));
}

#[test]
fn a_dead_voter_without_a_substitute_is_demoted_after_thirty_seconds() {
    let mut bench = Bench::settled(5);
    bench.kill(5);
    assert_eq!(bench.plan(), None);
    bench.fixture.later(DEMOTE_AFTER);
    bench.settle();
    assert_eq!((bench.voters().len(), bench.holders().len()), (3, 5));
    assert!(!bench.voters().contains(&node(5)));
}

#[test]
fn managers_lost_one_after_another_leave_a_working_pair() {
    let mut bench = Bench::settled(7);
    for number in [7, 6, 5, 4, 3] {
        bench.kill(number);
        bench.settle();
        bench.fixture.later(DEMOTE_AFTER);
        bench.settle();
    }
    let live = bench.voters().iter().filter(|id| !bench.is_down(**id)).count();
    assert_eq!(live, 2, "and they are a quorum: {:?}", bench.voters());
}

#[test]
fn a_voter_that_comes_back_is_a_voter_again() {
    let mut bench = Bench::settled(5);
    bench.kill(5);
    bench.fixture.later(DEMOTE_AFTER);
    bench.settle();
    bench.fixture.health(node(5), NodeHealth::Up);
    bench.settle();
    assert_eq!(bench.voters().len(), 5);
}

#[test]
fn suspects_and_returning_nodes_are_not_promoted() {
    let mut bench = Bench::settled(4);
    let standby = *bench.holders().difference(&bench.voters()).next().unwrap();
    bench.suspects.insert(standby);
    let dead = *bench.voters().iter().find(|id| **id != bench.me).unwrap();
    bench.kill(dead.0);
    assert_eq!(bench.plan(), None);
}

#[test]
fn voters_that_go_together_keep_the_log_until_the_others_have_taken_over() {
    let mut bench = Bench::settled(5);
    let gone: Vec<NodeId> = bench.voters().into_iter().filter(|id| *id != bench.me).take(2).collect();
    for node in &gone {
        bench.fixture.update_node(*node, |spec| spec.role = Role::Worker);
    }
    let Some(VoterStep::Change(members)) = bench.plan() else { panic!("they are to vote no more") };
    for node in &gone {
        let wanted = members.iter().find(|(id, _)| id == node).map(|(_, raft)| raft.map(|raft| raft.standing));
        assert_eq!(wanted, Some(Some(RaftStanding::Standby)), "the old voters decide, too, until the change is over");
    }
    bench.settle();
    assert!(gone.iter().all(|node| !bench.holders().contains(node)));
}

#[test]
fn voters_are_not_made_fewer_on_the_strength_of_one_that_is_not_heard() {
    let mut bench = Bench::settled(3);
    bench.silent = nodes([2]);
    bench.fixture.update_node(node(3), |spec| spec.role = Role::Worker);
    assert_eq!(bench.plan(), None, "of the two that were left one may be gone, and with it the quorum");
    bench.silent.clear();
    bench.settle();
    assert_eq!(bench.voters(), nodes([1, 2]));
}

#[test]
fn a_manager_made_a_worker_gives_up_the_log() {
    let mut bench = Bench::settled(4);
    bench.fixture.update_node(node(2), |spec| spec.role = Role::Worker);
    bench.settle();
    assert_eq!((bench.holders(), bench.voters()), (nodes([1, 3, 4]), nodes([1, 3, 4])));
}

#[test]
fn of_two_managers_one_can_be_demoted() {
    let mut bench = Bench::settled(2);
    bench.fixture.update_node(node(2), |spec| spec.role = Role::Worker);
    bench.settle();
    assert_eq!(bench.holders(), nodes([1]));
}

#[test]
fn a_leader_that_is_demoted_hands_over_first() {
    let mut bench = Bench::settled(3);
    bench.fixture.update_node(node(1), |spec| spec.role = Role::Worker);
    assert_eq!(bench.plan(), Some(VoterStep::HandOver { to: node(2) }));
    bench.settle();
    assert_eq!(bench.voters(), nodes([2, 3]));
}

#[test]
fn a_demoted_leader_hands_over_to_a_voter_that_raft_hears_whatever_the_verdict_on_it() {
    for (demoted, wanted) in [(true, Some(VoterStep::HandOver { to: node(2) })), (false, None)] {
        let mut bench = Bench::settled(3);
        if demoted {
            bench.fixture.update_node(node(1), |spec| spec.role = Role::Worker);
        }
        bench.kill(2);
        bench.heard = nodes([2]);
        let gone = NodeHealth::Left { since: bench.fixture.now };
        bench.fixture.health(node(3), gone);
        let planned = bench.plan().filter(|step| matches!(step, VoterStep::HandOver { .. }));
        assert_eq!(planned, wanted, "a leader that hears its members waits for the verdict's end");
    }
}

#[test]
fn leaders_that_are_demoted_together_do_not_hand_over_to_each_other() {
    let mut bench = Bench::settled(5);
    for demoted in [1, 2] {
        bench.fixture.update_node(node(demoted), |spec| spec.role = Role::Worker);
    }
    assert_eq!(bench.plan(), Some(VoterStep::HandOver { to: node(3) }));
    bench.me = node(2);
    assert_eq!(bench.plan(), Some(VoterStep::HandOver { to: node(3) }));
    bench.settle();
    assert_eq!(bench.voters(), nodes([3, 4, 5]));
}

#[test]
fn the_only_voter_makes_others_vote_before_it_goes() {
    let mut bench = Bench::new(3);
    bench.lagging = nodes([2, 3]);
    bench.settle();
    bench.lagging = nodes([3]);
    let gone = NodeHealth::Left { since: bench.fixture.now };
    bench.fixture.health(node(1), gone);
    let raft_id = bench.fixture.state.node(node(2)).unwrap().raft.unwrap().raft_id;
    let voter = RaftMember { raft_id, standing: RaftStanding::Voter };
    assert_eq!(bench.plan(), Some(VoterStep::Change(vec![(node(2), Some(voter))])), "there is nobody to hand over to");
    bench.settle();
    assert_eq!((bench.me, bench.voters(), bench.holders()), (node(2), nodes([2]), nodes([2, 3])));
}

#[test]
fn a_last_voter_that_goes_is_followed_even_by_a_node_that_is_held_down() {
    let mut bench = Bench::new(2);
    bench.lagging = nodes([2]);
    bench.settle();
    bench.lagging.clear();
    let (now, until) = (bench.fixture.now, bench.fixture.now + DEMOTE_AFTER);
    bench.fixture.health(node(2), NodeHealth::HeldDown { until });
    assert_eq!(bench.plan(), None, "it waits for the hold-down while it can");
    bench.fixture.health(node(1), NodeHealth::Left { since: now });
    bench.settle();
    assert_eq!((bench.me, bench.voters()), (node(2), nodes([2])));
}

#[test]
fn voters_are_spread_over_zones() {
    let mut bench = Bench::new(6);
    for (number, zone) in [(1, "a"), (2, "a"), (3, "a"), (4, "a"), (5, "b"), (6, "c")] {
        bench.set_zone(number, zone);
    }
    // Four managers live: three votes.
    bench.kill(2);
    bench.kill(3);
    bench.settle();
    assert_eq!(bench.voters(), nodes([1, 5, 6]));
}

#[test]
fn a_new_zone_gets_a_voter_by_one_exchange() {
    let mut bench = Bench::settled(4);
    let standby = *bench.holders().difference(&bench.voters()).next().unwrap();
    for number in 1..=4 {
        bench.set_zone(number, if node(number) == standby { "b" } else { "a" });
    }
    assert_eq!(bench.settle(), 1);
    assert!(bench.voters().contains(&standby) && bench.voters().contains(&bench.me));
}

#[test]
fn a_long_dead_standby_makes_room_for_a_living_manager() {
    let mut bench = Bench::settled(10);
    let without = *nodes(1..=10).difference(&bench.holders()).next().unwrap();
    let standby = *bench.holders().difference(&bench.voters()).next().unwrap();
    bench.kill(standby.0);
    assert_eq!(bench.plan(), None);
    bench.fixture.later(DEMOTE_AFTER);
    bench.settle();
    assert!(bench.holders().contains(&without) && !bench.holders().contains(&standby));
}

#[test]
fn a_raft_id_is_never_used_twice() {
    let mut bench = Bench::settled(2);
    let raft_id = |bench: &Bench| bench.fixture.state.node(node(2)).unwrap().raft.unwrap().raft_id;
    let first = raft_id(&bench);
    bench.fixture.update_node(node(2), |spec| spec.role = Role::Worker);
    bench.settle();
    bench.fixture.update_node(node(2), |spec| spec.role = Role::Manager);
    bench.settle();
    assert!(raft_id(&bench) > first);
}

#[test]
fn a_removed_node_that_still_holds_the_log_loses_it() {
    let mut bench = Bench::settled(5);
    bench.strangers = true;
    assert_eq!(bench.plan(), Some(VoterStep::Change(Vec::new())), "Raft takes it away with any change");
}
