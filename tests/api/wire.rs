//! Bytes of other machines: of nodes, whether they are members or not, and of registries. They are read or refused, and take
//! no more memory than they are worth.

use std::fs;

use bolero::generator::produce;
use bolero::{TypeGenerator, check};
use flok::consensus::wire::{MembershipContext, Request, Response};
use flok::gossip::{RepairAnswer, RepairRequest, SignedRecord, Statement};
use flok::membership::AlarmReport;
use flok::runtime::images::manifest;
use flok::spec::Platform;
use flok::state::codec::{MAX_DECODE_BYTES, decode, encode};
use flok::state::{Entry, snapshot};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::memory::spent;
use super::mutation::{changes, mutated};

/// What the codec takes for one text whose length lies, and a few lists within each other.
const MOST_BYTES: i64 = MAX_DECODE_BYTES as i64 + (16 << 20);
/// Of what a byte on the wire stands for, in memory.
const BYTES_A_BYTE: i64 = 1024;

/// Reads in bounded memory; what is read is written and read as the same.
fn taken<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let (read, spent) = spent(|| decode::<T>(bytes));
    let allowed = MOST_BYTES + i64::try_from(bytes.len()).unwrap() * BYTES_A_BYTE;
    assert!(spent.all_bytes < allowed, "{}: {spent:?} for {} bytes", std::any::type_name::<T>(), bytes.len());
    if let Ok(value) = read {
        let written = encode(&value);
        let again: T = decode(&written).unwrap_or_else(|error| panic!("{}: {error}", std::any::type_name::<T>()));
        assert_eq!(encode(&again), written);
    }
}

/// As every message between nodes.
fn taken_as_everything(bytes: &[u8]) {
    taken::<SignedRecord>(bytes);
    taken::<Statement>(bytes);
    taken::<RepairRequest>(bytes);
    taken::<RepairAnswer>(bytes);
    taken::<AlarmReport>(bytes);
    taken::<Request>(bytes);
    taken::<Response>(bytes);
    let (_, spent) = spent(|| {
        let _ = MembershipContext::from_bytes(bytes);
        let _ = snapshot::decode(bytes);
        Entry::from_bytes(bytes).map(|entry| assert!(Entry::from_bytes(&entry.to_bytes()).is_ok()))
    });
    assert!(spent.most_bytes < MOST_BYTES + i64::try_from(bytes.len()).unwrap() * BYTES_A_BYTE, "{spent:?}");
}

/// The golden bytes: a record, an entry of each kind, objects, and a snapshot.
fn good() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let read = |file: &str| fs::read_to_string(format!("{folder}/{file}.hex")).unwrap();
    let files = ["record", "entries", "objects", "snapshot"].map(read).join("\n");
    let bytes = |hex: &str| {
        let digits =
            hex.as_bytes().chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap());
        digits.collect::<Vec<u8>>()
    };
    let mut found: Vec<Vec<u8>> =
        files.lines().filter_map(|line| line.split_whitespace().next_back()).map(bytes).collect();
    let record = SignedRecord { bytes: found[0].clone(), signature: vec![1; 64], public_key: [2; 32] };
    found.push(encode(&RepairAnswer { records: vec![record.clone()], wanted: Vec::new(), resume: None }));
    found.push(encode(&record));
    found
}

#[derive(Debug, Clone, TypeGenerator)]
struct Damage {
    place: u16,
    change: Damaged,
}

#[derive(Debug, Clone, TypeGenerator)]
enum Damaged {
    Byte(u8),
    Cut,
    Remove(u8),
    /// As lengths are written: a mark, then so many bytes of it.
    Length(#[generator(251u8..=255)] u8, u64),
    Repeat(u8),
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for Damage { place, change } in damages {
        let at = usize::from(*place) % (bytes.len() + 1);
        let part = |length: u8| at..(at + usize::from(length)).min(bytes.len());
        match change {
            Damaged::Byte(byte) => bytes.iter_mut().skip(at).take(1).for_each(|old| *old = *byte),
            Damaged::Cut => bytes.truncate(at),
            Damaged::Remove(length) => _ = bytes.drain(part(*length)),
            Damaged::Length(mark, length) => _ = bytes.splice(at..at, [&[*mark][..], &length.to_le_bytes()].concat()),
            Damaged::Repeat(length) => {
                let again = bytes[part(*length)].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
    bytes
}

#[test]
fn the_good_bytes_are_good() {
    let good = good();
    assert!(decode::<Statement>(&good[0]).is_ok() && decode::<SignedRecord>(&good[good.len() - 1]).is_ok());
    assert!(good.iter().any(|bytes| snapshot::decode(bytes).is_ok()));
    assert!(good.iter().filter(|bytes| Entry::from_bytes(bytes).is_ok()).count() > 5);
}

#[test]
fn messages_that_are_nearly_right_are_read_or_refused() {
    let good = good();
    let damages = produce::<Vec<Damage>>().with().len(1usize..6);
    check!().with_iterations(2000).with_generator((produce::<u8>(), damages)).for_each(|(message, damages)| {
        taken_as_everything(&damaged(good[usize::from(*message) % good.len()].clone(), damages));
    });
}

#[test]
fn messages_of_any_bytes_are_read_or_refused() {
    check!().with_iterations(1000).for_each(taken_as_everything);
}

fn read_as_documents(bytes: &[u8]) {
    let platform = Platform { os: "linux".into(), architecture: "x86_64".into() };
    match manifest::parse(bytes) {
        Ok(manifest::Document::Index(index)) => _ = manifest::choose(&index, &platform),
        Ok(manifest::Document::Manifest(manifest)) => assert!(manifest.layers().len() <= manifest::MAX_LAYERS),
        Err(why) => assert!(!why.is_empty()),
    }
    let _ = manifest::configuration(bytes, 1);
}

#[test]
fn documents_of_a_registry_are_read_or_refused() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let descriptor = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 7,
        "platform": {"os": "linux", "architecture": "amd64", "variant": "v1"}});
    let documents = [
        json!({"schemaVersion": 2, "manifests": [descriptor]}),
        json!({"schemaVersion": 2, "config": descriptor, "layers": [descriptor]}),
        json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [digest]},
            "config": {"Cmd": ["a"], "Env": ["A=1"], "ExposedPorts": {"80/tcp": {}}}, "history": [{"created_by": "x"}]}),
    ];
    check!().with_iterations(500).with_generator((produce::<u8>(), changes())).for_each(|(document, changes)| {
        let document = documents[usize::from(*document) % documents.len()].clone();
        read_as_documents(mutated(document, changes).to_string().as_bytes());
    });
}

#[test]
fn documents_of_any_bytes_are_read_or_refused() {
    check!().with_iterations(500).for_each(read_as_documents);
}
