//! The store on a backend that loses, tears and refuses writes.

mod faulty;

use std::sync::atomic::Ordering;

use raft::eraftpb::ConfState;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::spec::{NodeId, SwarmId};
use faulty::{Crash, FaultyDisk};

fn key() -> SealingKey {
    SealingKey::new([7; 32])
}

fn rng(seed: u64) -> Box<StdRng> {
    Box::new(StdRng::seed_from_u64(seed))
}

fn identity() -> LogIdentity {
    LogIdentity { swarm: SwarmId(7), node: NodeId(1), raft_id: 1 }
}

fn meta(index: u64, term: u64) -> SnapshotMetadata {
    let mut meta = SnapshotMetadata::default();
    (meta.index, meta.term) = (index, term);
    meta.set_conf_state(ConfState::from((vec![1], Vec::new())));
    meta
}

fn hard_state(term: u64, commit: u64) -> HardState {
    let mut hard_state = HardState::default();
    (hard_state.term, hard_state.commit) = (term, commit);
    hard_state
}

fn entry(index: u64, term: u64) -> Entry {
    let mut entry = Entry::default();
    (entry.index, entry.term) = (index, term);
    entry.data = format!("the secret of entry {index}").into_bytes();
    entry
}

fn write(from: u64, to: u64, term: u64, commit: u64) -> Write {
    let entries = (from..=to).map(|index| entry(index, term)).collect();
    Write { number: to, snapshot: None, entries, hard_state: hard_state(term, commit) }
}

fn create(disk: &FaultyDisk) -> LogStore {
    let first = First::Snapshot { meta: meta(1, 1), data: b"genesis".to_vec(), hard_state: hard_state(1, 1) };
    LogStore::create_on(disk.clone(), &key(), identity(), first, rng(1)).unwrap()
}

fn reopen(disk: &FaultyDisk) -> Result<(LogStore, Recovered), StoreError> {
    let mut store = LogStore::open_on(disk.clone(), &key(), &identity(), rng(2))?;
    let recovered = store.recover()?;
    Ok((store, recovered))
}

fn indices(recovered: &Recovered) -> Vec<u64> {
    recovered.entries.iter().map(|entry| entry.index).collect()
}

#[test]
fn what_was_written_is_recovered() {
    let disk = FaultyDisk::default();
    let mut store = create(&disk);
    store.write(&[write(2, 5, 2, 2), write(6, 6, 2, 5)]).unwrap();
    drop(store);
    let (_, recovered) = reopen(&disk).unwrap();
    assert_eq!(recovered.entries, (2..=6).map(|index| entry(index, 2)).collect::<Vec<_>>());
    assert_eq!(recovered.hard_state, hard_state(2, 5));
    assert_eq!(recovered.compacted, (1, 1));
    assert_eq!(recovered.snapshot, Some((meta(1, 1), b"genesis".to_vec())));
}

#[test]
fn a_new_members_log_is_empty() {
    let disk = FaultyDisk::default();
    drop(LogStore::create_on(disk.clone(), &key(), identity(), First::Empty, rng(1)).unwrap());
    let (_, recovered) = reopen(&disk).unwrap();
    assert_eq!((recovered.last(), recovered.snapshot), (0, None));
}

#[test]
fn a_new_leaders_entries_replace_the_suffix() {
    let disk = FaultyDisk::default();
    let mut store = create(&disk);
    store.write(&[write(2, 9, 2, 3)]).unwrap();
    store.write(&[write(5, 6, 3, 4)]).unwrap();
    store.write(&[write(7, 7, 3, 6)]).unwrap();
    drop(store);
    let (_, recovered) = reopen(&disk).unwrap();
    let terms: Vec<u64> = recovered.entries.iter().map(|entry| entry.term).collect();
    assert_eq!((indices(&recovered), terms), ((2..=7).collect(), vec![2, 2, 2, 3, 3, 3]));
}

#[test]
fn a_snapshot_of_ones_own_keeps_the_tail() {
    let disk = FaultyDisk::default();
    let mut store = create(&disk);
    store.write(&[write(2, 20, 2, 18)]).unwrap();
    let data: Vec<u8> = (0..CHUNK_BYTES * 2 + 5).map(|byte| byte as u8).collect();
    store.save_snapshot(&meta(18, 2), &data, (12, 2)).unwrap();
    store.save_snapshot(&meta(15, 2), b"too late", (12, 2)).unwrap();
    assert_eq!(store.snapshot(18).unwrap(), Some(data.clone()));
    assert_eq!(store.snapshot(15).unwrap(), None);
    drop(store);
    let (_, recovered) = reopen(&disk).unwrap();
    assert_eq!((recovered.compacted, indices(&recovered)), ((12, 2), (13..=20).collect()));
    assert_eq!(recovered.snapshot, Some((meta(18, 2), data)));
}

#[test]
fn a_leaders_snapshot_replaces_the_log() {
    let disk = FaultyDisk::default();
    let mut store = create(&disk);
    store.write(&[write(2, 20, 2, 18)]).unwrap();
    let mut installed = write(31, 32, 4, 30);
    installed.snapshot = Some((meta(30, 4), b"theirs".to_vec()));
    store.write(&[installed]).unwrap();
    drop(store);
    let (_, recovered) = reopen(&disk).unwrap();
    assert_eq!((recovered.compacted, indices(&recovered)), ((30, 4), vec![31, 32]));
    assert_eq!(recovered.snapshot, Some((meta(30, 4), b"theirs".to_vec())));
}

#[test]
fn nothing_is_readable_on_the_disk() {
    let disk = FaultyDisk::default();
    let mut store = create(&disk);
    store.write(&[write(2, 5, 2, 2)]).unwrap();
    drop(store);
    for text in ["the secret of entry", "genesis"] {
        assert!(!disk.contains(text.as_bytes()), "{text}");
    }
}

#[test]
fn another_nodes_swarms_builds_or_keys_log_is_named_as_such() {
    let disk = FaultyDisk::default();
    drop(create(&disk));
    let open =
        |key: &SealingKey, expected: &LogIdentity| LogStore::open_on(disk.clone(), key, expected, rng(3)).unwrap_err();
    let other_swarm = LogIdentity { swarm: SwarmId(8), ..identity() };
    assert!(matches!(open(&key(), &other_swarm), StoreError::OtherSwarm { .. }));
    let other_node = LogIdentity { node: NodeId(2), ..identity() };
    assert!(matches!(open(&key(), &other_node), StoreError::OtherNode { .. }));
    assert!(matches!(open(&SealingKey::new([8; 32]), &identity()), StoreError::WrongKey));

    let (mut store, _) = reopen(&disk).unwrap();
    store.set_feature_level(FeatureLevel(FEATURE_LEVEL.0 + 1)).unwrap();
    drop(store);
    assert!(matches!(open(&key(), &identity()), StoreError::NewerFeatureLevel { .. }));

    let mut sealer = Sealer::new(&key(), rng(4));
    let mut newer = Header::new(identity(), &mut sealer).to_bytes();
    newer[8] += 1;
    assert!(matches!(Header::from_bytes(&newer), Err(StoreError::NewerFormat { found: 2, known: 1 })));
}

#[test]
fn records_that_changed_places_are_seen() {
    let disk = FaultyDisk::default();
    let mut store = create(&disk);
    store.write(&[write(2, 5, 2, 2)]).unwrap();
    let txn = store.db.begin_write().unwrap();
    {
        let mut log = txn.open_table(LOG).unwrap();
        let third = log.get(3).unwrap().unwrap().value().to_vec();
        log.insert(4, third.as_slice()).unwrap();
    }
    txn.commit().unwrap();
    drop(store);
    assert!(matches!(reopen(&disk), Err(StoreError::Corrupt { what }) if what == "entry 4"));
}

#[test]
fn a_log_with_a_hole_or_short_of_its_commit_index_is_refused() {
    let remove = |index: u64| {
        let disk = FaultyDisk::default();
        let mut store = create(&disk);
        store.write(&[write(2, 5, 2, 5)]).unwrap();
        let txn = store.db.begin_write().unwrap();
        txn.open_table(LOG).unwrap().remove(index).unwrap();
        txn.commit().unwrap();
        drop(store);
        reopen(&disk).unwrap_err()
    };
    for index in 2..=5 {
        let error = remove(index);
        assert!(matches!(error, StoreError::LostEntries { .. }), "without entry {index}: {error}");
        assert!(error.to_string().contains("join the swarm again as a new member"));
    }
}

#[test]
fn damage_and_truncation_are_errors_and_never_a_shorter_log() {
    let disk = FaultyDisk::default();
    let mut store = create(&disk);
    store.write(&[write(2, 50, 2, 50)]).unwrap();
    drop(store);
    let whole = disk.image();
    let mut refused = 0;
    for part in 0..64 {
        let mut damaged = whole.clone();
        let from = whole.len() / 64 * part;
        for byte in &mut damaged[from..from + 512] {
            *byte ^= 0x55;
        }
        // What redb has no use for may be damaged without harm.
        match reopen(&FaultyDisk::holding(damaged)) {
            Ok((_, recovered)) => assert_eq!(recovered.last(), 50, "part {part}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0);
    for keep in [0, 1, 100, 4096, whole.len() / 2] {
        assert!(reopen(&FaultyDisk::holding(whole[..keep].to_vec())).is_err(), "cut to {keep} bytes");
    }
}

/// At every single operation of the disk in a life of writes: the power goes, with what was not synced lost, kept or torn.
#[test]
fn a_power_cut_at_any_moment_loses_nothing_that_was_answered() {
    let life = |store: &mut LogStore, answered: &mut (u64, u64)| -> Result<(), StoreError> {
        for round in 0..4 {
            let from = 2 + round * 3;
            store.write(&[write(from, from + 2, 2 + round, from)])?;
            *answered = (from + 2, from);
        }
        store.save_snapshot(&meta(10, 4), &[9; 5000], (8, 4))?;
        store.write(&[write(12, 15, 7, 12)])?;
        *answered = (15, 12);
        Ok(())
    };
    let total = {
        let disk = FaultyDisk::default();
        let mut store = create(&disk);
        let before = disk.operations.load(Ordering::Relaxed);
        life(&mut store, &mut (0, 0)).unwrap();
        disk.operations.load(Ordering::Relaxed) - before
    };
    assert!(total > 20);
    for crash in [Crash::LoseUnsynced, Crash::KeepUnsynced, Crash::Tear] {
        for at in 0..total {
            let disk = FaultyDisk::default();
            let mut store = create(&disk);
            let mut answered = (1, 1);
            disk.fail_after(at);
            let result = life(&mut store, &mut answered);
            assert!(result.is_err(), "{crash:?} at {at}: the failure is told");
            drop(store);
            let after = FaultyDisk::holding(disk.after_crash(crash, at));
            let (_, recovered) = reopen(&after).unwrap_or_else(|error| panic!("{crash:?} at {at}: {error}"));
            assert!(recovered.last() >= answered.0, "{crash:?} at {at}");
            assert!(recovered.hard_state.commit >= answered.1, "{crash:?} at {at}");
        }
    }
}

#[test]
fn a_full_disk_is_named_and_loses_nothing() {
    let disk = FaultyDisk::default();
    let mut store = create(&disk);
    store.write(&[write(2, 5, 2, 5)]).unwrap();
    disk.full.store(true, Ordering::Relaxed);
    let error = store.write(&[write(6, 200, 2, 5)]).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull), "{error}");
    drop(store);
    disk.full.store(false, Ordering::Relaxed);
    let (mut store, recovered) = reopen(&disk).unwrap();
    assert_eq!(recovered.last(), 5);
    store.write(&[write(6, 200, 2, 5)]).unwrap();
}

#[test]
fn a_file_appears_whole_and_is_not_shared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.redb");
    std::fs::write(path.with_extension("unfinished"), b"of an earlier attempt").unwrap();
    let first = First::Snapshot { meta: meta(1, 1), data: Vec::new(), hard_state: hard_state(1, 1) };
    let store = LogStore::create(&path, &key(), identity(), first, rng(1)).unwrap();
    assert!(matches!(LogStore::open(&path, &key(), &identity(), rng(2)), Err(StoreError::InUse)));
    drop(store);
    LogStore::open(&path, &key(), &identity(), rng(2)).unwrap();
    assert!(!path.with_extension("unfinished").exists());
}
