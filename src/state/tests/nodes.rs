use super::words;
use crate::spec::*;
use crate::state::fixture::*;
use crate::state::*;

fn membership(swarm: &Fixture) -> Version {
    swarm.state.swarm().unwrap().membership_version
}

fn down() -> NodeHealth {
    NodeHealth::Down { incarnation: Incarnation(1), since: UnixMs(5) }
}

#[test]
fn a_node_that_joins_again_keeps_what_its_operator_set() {
    let mut swarm = Fixture::nodes(2);
    swarm.update_node(node(2), |spec| {
        spec.labels.insert("zone".into(), "a".into());
    });
    swarm.health(node(2), NodeHealth::Left { since: UnixMs(3) });
    let before = membership(&swarm);
    let mut again = a_node(2);
    again.spec.role = Role::Worker;
    again.description.hostname = "renamed".into();
    swarm.command(Command::AdmitNode { node: Box::new(again) });
    let joined = swarm.state.node(node(2)).unwrap();
    assert_eq!(joined.spec.labels["zone"], "a");
    assert_eq!((joined.spec.role, joined.name()), (Role::Worker, "renamed"));
    assert_eq!(joined.health, NodeHealth::Unknown);
    assert!(membership(&swarm) > before);
}

#[test]
fn a_node_that_knows_less_than_the_swarm_is_not_admitted() {
    let mut swarm = Fixture::nodes(1);
    let mut old = a_node(2);
    old.description.feature_level = FeatureLevel(0);
    assert!(words(swarm.try_command(Command::AdmitNode { node: Box::new(old) })).contains("upgrade flok on it"));
}

#[test]
fn the_last_manager_stays_a_manager_and_a_member() {
    let mut swarm = Fixture::nodes(2);
    swarm.update_node(node(2), |spec| spec.role = Role::Worker);
    let version = swarm.state.node(node(1)).unwrap().meta.version;
    let spec = NodeSpec { role: Role::Worker, ..a_node(1).spec };
    let demoted = swarm.try_command(Command::UpdateNode { id: node(1), version, spec });
    assert!(words(demoted).contains("last manager"));
    assert!(words(swarm.try_command(Command::RemoveNode { id: node(1), force: true })).contains("last manager"));
    let mut again = a_node(1);
    again.spec.role = Role::Worker;
    assert!(words(swarm.try_command(Command::AdmitNode { node: Box::new(again) })).contains("last manager"));
}

#[test]
fn only_a_change_of_role_or_address_changes_the_membership() {
    let mut swarm = Fixture::nodes(2);
    let first = membership(&swarm);
    swarm.update_node(node(2), |spec| spec.availability = Availability::Drain);
    swarm.health(node(2), down());
    assert_eq!(membership(&swarm), first);
    swarm.update_node(node(2), |spec| spec.role = Role::Worker);
    let demoted = membership(&swarm);
    assert!(demoted > first);
    let description = NodeDescription { addr: "10.99.9.9".parse().unwrap(), ..a_node(2).description };
    swarm.change(Change::DescribeNode { node: node(2), description: Box::new(description) });
    assert!(membership(&swarm) >= demoted && membership(&swarm).0 == swarm.state.applied());
}

#[test]
fn a_node_that_is_up_is_removed_only_by_force_and_a_manager_not_at_all() {
    let mut swarm = Fixture::nodes(3);
    for force in [false, true] {
        let refused = words(swarm.try_command(Command::RemoveNode { id: node(2), force }));
        assert!(
            refused.contains("must be demoted to worker") && refused.contains("flok node demote node-2"),
            "{refused}"
        );
    }
    swarm.update_node(node(2), |spec| spec.role = Role::Worker);
    let remove = |force| Command::RemoveNode { id: node(2), force };
    let refused = words(swarm.try_command(remove(false)));
    assert!(refused.contains("node-2 is not down and can't be removed"), "{refused}");
    swarm.command(remove(true));
    assert!(swarm.state.node(node(2)).is_none());
    swarm.health(node(3), down());
    swarm.command(Command::RemoveNode { id: node(3), force: false });
    assert_eq!(words(swarm.try_command(remove(true))), format!("node {} not found", node(2)));
}

#[test]
fn a_node_that_votes_is_removed_only_when_it_is_down() {
    let mut swarm = Fixture::nodes(3);
    let voter = RaftMember { raft_id: 2, standing: RaftStanding::Voter };
    let index = swarm.state.applied() + 1;
    swarm.state.apply_raft_membership(index, &[(node(2), Some(voter))]);
    let remove = Command::RemoveNode { id: node(2), force: true };
    // Demoted, and its vote is not taken from it yet.
    swarm.update_node(node(2), |spec| spec.role = Role::Worker);
    let refused = words(swarm.try_command(remove.clone()));
    assert!(refused.contains("node-2 votes") && refused.contains("flok node demote node-2"), "{refused}");
    swarm.health(node(2), NodeHealth::Left { since: UnixMs(3) });
    let refused = words(swarm.try_command(remove.clone()));
    assert!(refused.contains("node-2 has left and still votes"), "{refused}");
    swarm.health(node(2), down());
    swarm.command(remove);
}

#[test]
fn managers_that_are_gone_do_not_make_another_the_last_but_one() {
    let mut swarm = Fixture::nodes(2);
    swarm.health(node(2), down());
    let version = swarm.state.node(node(1)).unwrap().meta.version;
    let spec = NodeSpec { role: Role::Worker, ..a_node(1).spec };
    let demoted = swarm.try_command(Command::UpdateNode { id: node(1), version, spec });
    assert!(words(demoted).contains("last manager"));
    swarm.command(Command::RemoveNode { id: node(2), force: false });
}

#[test]
fn the_tasks_of_a_removed_node_are_orphaned() {
    let mut swarm = Fixture::nodes(2);
    let web = swarm.service("web", 3, |_| {});
    let running = swarm.running(web, 1, node(2));
    let failed = swarm.running(web, 2, node(2));
    swarm.finish(failed, TaskState::Failed);
    let leaving = swarm.running(web, 3, node(2));
    swarm.set_desired(leaving, DesiredState::Remove);
    swarm.update_node(node(2), |spec| spec.role = Role::Worker);
    let before = membership(&swarm);
    swarm.command(Command::RemoveNode { id: node(2), force: true });
    let state_of = |id| swarm.state.task(id).and_then(|task| task.outcome.as_ref()).map(|outcome| outcome.state);
    assert_eq!(state_of(running), Some(TaskState::Orphaned));
    assert_eq!(state_of(failed), Some(TaskState::Failed));
    assert!(swarm.state.task(leaving).is_none());
    assert!(membership(&swarm) > before);
}

#[test]
fn a_raft_id_is_given_once() {
    let mut swarm = Fixture::nodes(2);
    let member = |raft_id| Some(RaftMember { raft_id, standing: RaftStanding::Standby });
    let next = swarm.state.next_raft_id();
    swarm.change(Change::SetRaft { node: node(2), raft: member(next) });
    swarm.change(Change::SetRaft { node: node(2), raft: None });
    let again = Change::SetRaft { node: node(2), raft: member(next) };
    let refused = swarm.state.apply_change(&again, UnixMs(1)).unwrap_err();
    assert!(refused.to_string().contains("given before"));
    assert_eq!(swarm.state.next_raft_id(), next + 1);
}

#[test]
fn a_committed_raft_membership_is_taken_as_it_is() {
    let mut swarm = Fixture::nodes(2);
    let member = RaftMember { raft_id: 8, standing: RaftStanding::Voter };
    let index = swarm.state.applied() + 1;
    swarm.state.apply_raft_membership(index, &[(node(2), Some(member)), (node(1), None), (node(9), Some(member))]);
    assert_eq!(swarm.state.node(node(2)).unwrap().raft, Some(member));
    assert_eq!(swarm.state.node(node(2)).unwrap().meta.version, Version(index));
    assert_eq!(swarm.state.node(node(1)).unwrap().raft, None);
    assert_eq!((swarm.state.applied(), swarm.state.next_raft_id()), (index, 9));
}
