use super::sample;
use crate::spec::*;
use crate::state::fixture::*;
use crate::state::watch::{Difference, ObjectChange, changes};
use crate::state::*;

#[test]
fn a_snapshot_brings_back_the_whole_state() {
    let state = sample::state();
    let restored = snapshot::decode(&snapshot::encode(&state)).unwrap();
    assert_eq!(restored, state);
    assert_eq!(restored.fingerprint(), state.fingerprint());
}

#[test]
fn a_restored_state_still_knows_its_retries() {
    let mut swarm = Fixture::nodes(1);
    let proposal = Proposal { client: ClientId(2), sequence: 1, answered_below: 0 };
    let removal = Entry { proposal, at: UnixMs(1), command: Command::RemoveService { id: ServiceId(1) } };
    let answer = swarm.state.apply(swarm.state.applied() + 1, &removal).unwrap();
    let mut restored = snapshot::decode(&snapshot::encode(&swarm.state)).unwrap();
    assert_eq!(restored.apply(restored.applied() + 1, &removal).unwrap(), answer);
}

#[test]
fn every_cut_and_every_flipped_bit_is_noticed() {
    let bytes = snapshot::encode(&sample::state());
    for length in 0..bytes.len() {
        assert!(snapshot::decode(&bytes[..length]).is_err(), "cut to {length}");
    }
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 0x10;
        assert!(snapshot::decode(&altered).is_err(), "altered at {at}");
    }
    let long = [bytes.as_slice(), &[0]].concat();
    assert!(matches!(snapshot::decode(&long), Err(SnapshotError::TrailingBytes(1))));
}

#[test]
fn damage_and_age_are_told_apart() {
    let bytes = snapshot::encode(&sample::state());
    let altered = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        snapshot::decode(&bytes).unwrap_err()
    };
    assert!(matches!(snapshot::decode(b"hello"), Err(SnapshotError::NotASnapshot)));
    assert!(matches!(snapshot::decode(&bytes[..100]), Err(SnapshotError::Truncated { have: 100, .. })));
    assert!(matches!(altered(bytes.len() - 1, !bytes[bytes.len() - 1]), SnapshotError::Damaged));
    assert!(altered(8, 9).to_string().contains("upgrade flok"));
    assert!(matches!(altered(12, 9), SnapshotError::BeyondBuild(_)));
}

#[test]
fn a_fingerprint_tells_states_apart() {
    let mut swarm = Fixture::nodes(2);
    let before = swarm.state.fingerprint();
    assert_eq!(before, swarm.state.clone().fingerprint());
    swarm.health(node(2), NodeHealth::Left { since: UnixMs(1) });
    assert_ne!(before, swarm.state.fingerprint());
    assert_eq!(before.to_string().len(), 64);
}

#[test]
fn changes_name_what_was_made_changed_and_removed() {
    let mut swarm = Fixture::nodes(2);
    let web = swarm.service("web", 1, |_| {});
    let task = swarm.pending(web, 1);
    let old = swarm.state.clone();
    assert_eq!(changes(&old, &old), []);
    let other = swarm.service("other", 1, |_| {});
    swarm.health(node(2), NodeHealth::Unknown);
    swarm.change(Change::ForgetTask { task });
    let kinds: Vec<_> = changes(&old, &swarm.state)
        .iter()
        .map(|change| {
            let kind = match change {
                ObjectChange::Node(Difference::Updated { old, new }) => {
                    assert_eq!((old.health, new.health), (NodeHealth::Up, NodeHealth::Unknown));
                    "updated"
                }
                ObjectChange::Service(Difference::Created(_)) => "created",
                ObjectChange::Task(Difference::Removed(_)) => "removed",
                _ => "unexpected",
            };
            (change.id(), kind)
        })
        .collect();
    assert_eq!(
        kinds,
        [
            (ObjectId::Node(node(2)), "updated"),
            (ObjectId::Service(other), "created"),
            (ObjectId::Task(task), "removed"),
        ]
    );
    assert!(matches!(&changes(&State::default(), &old)[0], ObjectChange::Swarm(Difference::Created(_))));
}
