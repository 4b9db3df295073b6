//! Machines on a virtual network with virtual disks, in one thread, from one seed.

mod world;

use super::*;
use world::{Faults, World};

#[test]
fn a_lone_voter_leads_without_waiting() {
    let mut world = World::new(1, &[1]);
    world.settle();
    assert!(world.machine(1).leads());
    world.propose(b"a");
    world.settle();
    assert_eq!(world.applied(1), [b"a"]);
}

#[test]
fn a_lone_voters_term_is_durable_before_a_learner_hears_of_it() {
    let mut world = World::new(1, &[1]);
    world.settle();
    world.add(2);
    world.change(&[MemberChange::Learner(2)]);
    world.settle();
    world.crash(1);
    world.restart(1);
    world.hold_disk(1, true);
    world.ticks(30);
    assert!(world.machine(1).leads(), "it need not wait for anybody's vote");
    assert_eq!(world.sent_by(1), 0, "its first term's messages wait for its disk");
    world.hold_disk(1, false);
    world.ticks(5);
    assert!(world.sent_by(1) > 0);
}

#[test]
fn three_nodes_elect_one_leader_within_a_second() {
    for seed in 0..20 {
        let mut world = World::new(seed, &[1, 2, 3]);
        world.ticks(20);
        assert_eq!(world.leaders().len(), 1, "seed {seed}");
    }
}

#[test]
fn entries_are_applied_everywhere_in_one_order() {
    let mut world = World::new(1, &[1, 2, 3]);
    world.ticks(30);
    for number in 0..100u8 {
        world.propose(&[number]);
    }
    world.ticks(10);
    let expected: Vec<Vec<u8>> = (0..100u8).map(|number| vec![number]).collect();
    for id in 1..=3 {
        assert_eq!(world.applied(id), expected);
    }
}

#[test]
fn a_follower_acknowledges_only_what_its_disk_has() {
    let mut world = World::new(1, &[1, 2, 3]);
    world.ticks(30);
    let leader = world.leaders()[0];
    for id in (1..=3).filter(|id| *id != leader) {
        world.hold_disk(id, true);
    }
    world.propose(b"a");
    world.ticks(5);
    assert!(world.applied(leader).is_empty(), "no majority has it on disk");
    for id in 1..=3 {
        world.hold_disk(id, false);
    }
    world.ticks(5);
    assert_eq!(world.applied(leader), [b"a"]);
}

#[test]
fn a_slow_disk_does_not_unseat_its_leader() {
    let mut world = World::new(1, &[1, 2, 3]);
    world.ticks(30);
    let leader = world.leaders()[0];
    world.hold_disk(leader, true);
    world.propose(b"a");
    world.ticks(60);
    assert_eq!(world.leaders(), [leader], "heartbeats never wait for the disk");
}

#[test]
fn a_dead_leader_is_replaced_within_a_second_and_nothing_is_lost() {
    for seed in 0..20 {
        let mut world = World::new(seed, &[1, 2, 3]);
        world.ticks(40);
        world.propose(b"a");
        world.ticks(5);
        let leader = world.leaders()[0];
        world.crash(leader);
        world.ticks(20);
        let successors = world.leaders();
        assert_eq!(successors.len(), 1, "seed {seed}");
        world.propose(b"b");
        world.ticks(5);
        world.restart(leader);
        world.ticks(10);
        assert_eq!(world.applied(leader), [b"a", b"b"], "seed {seed}");
        assert_eq!(world.leaders(), successors, "a returning node disturbs nobody (seed {seed})");
    }
}

#[test]
fn a_cut_off_leader_steps_down_and_says_who_is_missing() {
    let mut world = World::new(1, &[1, 2, 3]);
    world.ticks(30);
    let leader = world.leaders()[0];
    assert!(world.machine(leader).status().has_quorum);
    world.cut(leader);
    world.ticks(25);
    let status = world.machine(leader).status();
    assert!(!status.has_quorum);
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    assert_eq!(status.missing, others);
    assert_eq!(world.machine(leader).term(), world.term_when_cut(), "pre-vote keeps its term from growing");
}

#[test]
fn leadership_moves_on_request() {
    let mut world = World::new(1, &[1, 2, 3]);
    world.ticks(30);
    let leader = world.leaders()[0];
    world.with(leader, |machine| machine.handle_transfer(None).unwrap());
    world.ticks(3);
    let leaders = world.leaders();
    assert_eq!(leaders.len(), 1);
    assert_ne!(leaders[0], leader);
}

#[test]
fn members_grow_from_three_to_five_and_shrink_to_three_others() {
    let mut world = World::new(3, &[1, 2, 3]);
    world.ticks(30);
    world.propose(b"a");
    world.add(4);
    world.add(5);
    world.change(&[MemberChange::Learner(4), MemberChange::Learner(5)]);
    world.ticks(20);
    assert_eq!(world.applied(5), [b"a"], "a learner is brought up to date");
    world.change(&[MemberChange::Voter(4), MemberChange::Voter(5)]);
    world.ticks(20);
    assert_eq!(world.voters(5), [1, 2, 3, 4, 5]);
    let leader = world.leaders()[0];
    let gone: Vec<u64> = (1..=5).filter(|id| *id != leader).take(2).collect();
    world.change(&[MemberChange::Remove(gone[0]), MemberChange::Remove(gone[1])]);
    world.ticks(20);
    for id in &gone {
        world.crash(*id);
    }
    world.propose(b"b");
    world.ticks(5);
    assert_eq!(world.voters(leader).len(), 3);
    assert_eq!(world.applied(leader), [b"a", b"b"]);
}

#[test]
fn a_leaders_death_in_a_joint_configuration_leaves_nobody_in_it() {
    for seed in 0..10 {
        let mut world = World::new(seed, &[1, 2, 3]);
        world.ticks(30);
        world.add(4);
        world.change(&[MemberChange::Learner(4)]);
        world.ticks(20);
        let leader = world.leaders()[0];
        let demoted = (1..=3).find(|id| *id != leader).unwrap();
        world.change(&[MemberChange::Voter(4), MemberChange::Learner(demoted)]);
        // Far enough for the entry to be committed, not for the way out.
        world.steps(seed as usize % 8);
        world.crash(leader);
        world.ticks(60);
        world.restart(leader);
        world.ticks(30);
        for id in 1..=4 {
            assert!(!world.machine(id).status().joint, "seed {seed}, node {id}");
        }
    }
}

#[test]
fn a_leader_that_a_change_takes_out_steps_down_with_writes_under_way() {
    for (seed, out) in (0..20).flat_map(|seed| [(seed, true), (seed, false)]) {
        let mut world = World::new(seed, &[1, 2, 3]);
        world.ticks(30);
        let leader = world.leaders()[0];
        world.change(&[if out { MemberChange::Remove(leader) } else { MemberChange::Learner(leader) }]);
        // Its disk knows of the change, and of none of what comes after it.
        world.steps(seed as usize % 6);
        world.hold_disk(leader, true);
        for number in 0..4u8 {
            let _ = world.with(leader, |machine| machine.handle_proposals(vec![vec![number]]));
            world.steps(2);
        }
        world.hold_disk(leader, false);
        world.ticks(60);
        let leaders = world.leaders();
        assert_eq!(leaders.len(), 1, "seed {seed}");
        assert_ne!(leaders[0], leader, "seed {seed}");
        world.propose(b"after");
        world.ticks(10);
        assert_eq!(world.applied(leaders[0]).last().map(Vec::as_slice), Some(&b"after"[..]), "seed {seed}");
    }
}

#[test]
fn membership_changes_are_refused_while_another_is_under_way_and_when_senseless() {
    let mut world = World::new(1, &[1, 2, 3]);
    world.ticks(30);
    let leader = world.leaders()[0];
    let remove_all = [MemberChange::Remove(1), MemberChange::Remove(2), MemberChange::Remove(3)];
    let result = world.with(leader, |machine| machine.handle_membership(&remove_all, Vec::new()));
    assert_eq!(result, Err(Refused::Invalid));
    let result = world.with(leader, |machine| {
        machine.handle_membership(&[MemberChange::Learner(4)], Vec::new()).unwrap();
        machine.handle_membership(&[MemberChange::Learner(5)], Vec::new())
    });
    assert_eq!(result, Err(Refused::Busy));
}

#[test]
fn a_membership_takes_effect_only_when_the_disk_knows_that_it_is_committed() {
    let mut world = World::new(1, &[1, 2, 3]);
    world.ticks(30);
    let leader = world.leaders()[0];
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    world.change(&[MemberChange::Learner(9)]);
    world.ticks(10);
    world.crash(follower);
    assert!(world.disk(follower).hard_state.commit >= world.last_membership_index());
}

#[test]
fn a_snapshot_waits_for_the_membership_change_that_waits_for_the_disk() {
    let mut world = World::new(1, &[1, 2, 3]);
    world.ticks(30);
    let leader = world.leaders()[0];
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    world.change(&[MemberChange::Learner(9)]);
    let has_change = |world: &World| {
        let last = world.disk(follower).entries.last();
        last.is_some_and(|entry| entry.get_entry_type() != EntryType::EntryNormal)
    };
    while !has_change(&world) {
        world.steps(1);
    }
    // From here on its disk stands still, so that it cannot note that the change is committed.
    world.hold_disk(follower, true);
    world.ticks(3);
    assert!(world.machine(follower).status().learners.is_empty(), "the change waits");

    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgSnapshot);
    (message.to, message.from, message.term) = (follower, leader, world.machine(leader).term());
    let meta = message.mut_snapshot().mut_metadata();
    (meta.index, meta.term) = (world.machine(leader).log().last() + 5, world.machine(leader).term());
    *meta.mut_conf_state() = ConfState::from((vec![1, 2, 3], vec![9]));
    let bytes = message.write_to_bytes().unwrap();
    let send = |world: &mut World| {
        world.with(follower, |machine| machine.handle_snapshot(PeerMessage::parse(&bytes).unwrap(), vec![0]))
    };
    assert!(matches!(send(&mut world), Err(crate::consensus::MessageError::Dropped(_))));
    world.hold_disk(follower, false);
    world.ticks(1);
    assert_eq!(world.machine(follower).status().learners, [9]);
    assert!(send(&mut world).is_ok());
}

#[test]
fn a_follower_that_was_away_for_long_catches_up_by_a_snapshot() {
    let mut world = World::new(1, &[1, 2, 3]);
    world.ticks(30);
    let leader = world.leaders()[0];
    let away = (1..=3).find(|id| *id != leader).unwrap();
    world.crash(away);
    for number in 0..50u8 {
        world.propose(&[number]);
        world.ticks(1);
    }
    world.snapshot(leader);
    world.restart(away);
    world.ticks(20);
    assert_eq!(world.applied(away).len(), 50);
    assert!(world.disk(away).compacted.0 > 40, "it came as a snapshot");
    world.crash(away);
    world.restart(away);
    world.ticks(10);
    assert_eq!(world.applied(away).len(), 50);
}

#[test]
fn a_snapshot_that_does_not_arrive_is_sent_again() {
    let mut world = World::new(1, &[1, 2, 3]);
    world.ticks(30);
    let leader = world.leaders()[0];
    let away = (1..=3).find(|id| *id != leader).unwrap();
    world.crash(away);
    world.propose(b"a");
    world.ticks(5);
    world.snapshot(leader);
    world.lose_snapshots(2);
    world.restart(away);
    world.ticks(60);
    assert_eq!(world.applied(away), [b"a"]);
}

#[test]
fn a_log_that_forgot_what_it_acknowledged_stops_its_node() {
    let mut world = World::new(1, &[1, 2, 3]);
    world.ticks(30);
    let old = world.disk(2).clone();
    for number in 0..10u8 {
        world.propose(&[number]);
    }
    world.ticks(10);
    world.crash(2);
    let leader_is_alive = world.leaders().len() == 1;
    assert!(leader_is_alive, "this seed's leader is another node");
    world.restore_disk(2, old);
    world.restart(2);
    world.ticks(10);
    assert!(matches!(world.failure(2), Some(crate::consensus::MessageError::LostEntries { .. })));
}

#[test]
fn a_fresh_read_waits_for_what_was_committed_before_it() {
    let mut world = World::new(1, &[1, 2, 3]);
    world.ticks(30);
    world.propose(b"a");
    world.ticks(5);
    let leader = world.leaders()[0];
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    world.with(follower, |machine| machine.handle_read(b"read-1".to_vec()));
    world.ticks(5);
    let index = world.read_answer(follower, b"read-1").expect("a leader with a committed term answers");
    assert!(index >= world.machine(leader).log().last());
}

#[test]
fn what_no_peer_sends_is_dropped() {
    let mut world = World::new(1, &[1, 2, 3]);
    world.ticks(30);
    let leader = world.leaders()[0];
    for kind in
        [MessageType::MsgHup, MessageType::MsgPropose, MessageType::MsgTransferLeader, MessageType::MsgReadIndex]
    {
        let mut message = Message::default();
        message.set_msg_type(kind);
        (message.to, message.from, message.term) = (leader, leader % 3 + 1, 1);
        let bytes = message.write_to_bytes().unwrap();
        let result = world.with(leader, |machine| machine.handle_message(PeerMessage::parse(&bytes).unwrap()));
        assert!(result.is_err(), "{kind:?}");
    }
    assert!(PeerMessage::parse(b"no protobuf").is_err());
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let mut world = World::new(seed, &[1, 2, 3]);
        world.faults = Faults::HARSH;
        world.random_life(400);
        world.trace
    };
    assert_eq!(run(11), run(11));
    assert_ne!(run(11), run(12));
}

/// Loss, duplication, reordering, crashes with unwritten writes lost, snapshots and membership changes: the world itself
/// asserts one leader a term and one history.
#[test]
fn no_fault_makes_two_histories() {
    for seed in 0..25 {
        let mut world = World::new(seed, &[1, 2, 3]);
        world.faults = Faults::HARSH;
        world.random_life(600);
        world.faults = Faults::NONE;
        world.restart_all();
        world.ticks(120);
        world.propose(b"the end");
        world.ticks(20);
        let leader = world.leaders()[0];
        let history = world.applied(leader).to_vec();
        assert_eq!(history.last().unwrap(), b"the end", "seed {seed}");
        for id in world.voters(leader) {
            assert_eq!(world.applied(id), history, "seed {seed}, node {id}");
        }
    }
}
