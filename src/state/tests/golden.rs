//! The bytes of feature level 1, kept in `tests/golden`: a change of a type, of the order of an enum or of the codec's
//! settings shows here before it makes logs and snapshots of older builds unreadable.
//!
//! A new command or object is a new line. After a wanted change, behind a new feature level and format,
//! `FLOK_BLESS=1 cargo nextest run --lib golden` writes the files anew.

use std::fmt::{Debug, Write};
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::sample;
use crate::gossip::Statement;
use crate::spec::*;
use crate::state::*;

/// The golden bytes by name, a line each; written first where `FLOK_BLESS` is set.
fn golden(file: &str, lines: &[(&str, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if std::env::var_os("FLOK_BLESS").is_some() {
        let text: String = lines.iter().map(|(name, bytes)| format!("{name} {}\n", hex(bytes))).collect();
        std::fs::write(&path, text).expect("the golden file can be written");
    }
    let text = std::fs::read_to_string(&path).expect("the golden file is there");
    text.lines()
        .map(|line| {
            let (name, hex) = line.split_once(' ').expect("a name and bytes");
            (name.to_owned(), unhex(hex))
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16).expect("a hexadecimal digit")).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("two digits")).collect()
}

fn check(file: &str, written: &[(&str, Vec<u8>)]) -> Vec<Vec<u8>> {
    let golden = golden(file, written);
    for ((name, bytes), (golden_name, golden_bytes)) in written.iter().zip(&golden) {
        assert_eq!(name, golden_name, "{file}: lines are in the order of the samples");
        assert_eq!(hex(bytes), hex(golden_bytes), "{file}: the bytes of {name} changed");
    }
    assert_eq!(written.len(), golden.len(), "{file}: a sample has no golden bytes, or the reverse");
    golden.into_iter().map(|(_, bytes)| bytes).collect()
}

#[test]
fn log_entries_keep_their_bytes() {
    let proposal = Proposal { client: ClientId(0x1234_5678), sequence: 300, answered_below: 290 };
    let at = UnixMs(1_700_000_000_000);
    let entries: Vec<(&str, Entry)> =
        sample::commands().into_iter().map(|(name, command)| (name, Entry { proposal, at, command })).collect();
    let written: Vec<_> = entries.iter().map(|(name, entry)| (*name, entry.to_bytes())).collect();
    for (bytes, (_, entry)) in check("entries.hex", &written).iter().zip(&entries) {
        assert_eq!(&Entry::from_bytes(bytes).unwrap(), entry);
    }
}

#[test]
fn objects_keep_their_bytes() {
    fn object<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> Vec<u8> {
        let bytes = codec::encode(value);
        assert_eq!(&codec::decode::<T>(&bytes).unwrap(), value);
        bytes
    }
    let state = sample::state();
    let home = VolumeHome { service: ServiceId(11), slot: Slot::Replica(1), volume: "data".into(), node: NodeId(1) };
    check(
        "objects.hex",
        &[
            ("Swarm", object(&sample::swarm())),
            ("Node", object(&sample::node())),
            ("Service", object(&sample::service())),
            ("Task", object(&sample::task())),
            ("Network", object(state.network(NetworkId(1)).unwrap().as_ref())),
            ("Secret", object(state.secret(SecretId(1)).unwrap().as_ref())),
            ("Config", object(state.config(ConfigId(1)).unwrap().as_ref())),
            ("VolumeHome", object(&home)),
            ("RegistryCredentials", object(state.credentials(ServiceId(11)).unwrap().as_ref())),
            ("Refusals", object(&refusals())),
        ],
    );
}

#[test]
fn a_snapshot_keeps_its_bytes() {
    let state = sample::state();
    let golden = check("snapshot.hex", &[("State", snapshot::encode(&state))]);
    assert_eq!(snapshot::decode(&golden[0]).unwrap(), state);
}

/// A node's record is read by managers of other builds, while an upgrade goes through the swarm.
#[test]
fn a_gossip_record_keeps_its_bytes() {
    let statement = Statement { instance: 77, record: sample::record() };
    let golden = check("record.hex", &[("Statement", codec::encode(&statement))]);
    assert_eq!(codec::decode::<Statement>(&golden[0]).unwrap(), statement);
}

/// Answers are part of the state, since sessions keep them.
fn refusals() -> Vec<Applied> {
    vec![
        Ok(Reply::Done),
        Ok(Reply::Plan { applied: 2, refused: 1 }),
        Err(Refusal::NotFound("a".into())),
        Err(Refusal::AlreadyExists("b".into())),
        Err(Refusal::OutOfSequence),
        Err(Refusal::Invalid("c".into())),
        Err(Refusal::Precondition("d".into())),
        Err(Refusal::Unsupported { need: FeatureLevel(2), have: FeatureLevel(1) }),
        Err(Refusal::AnswerForgotten),
        Err(Refusal::NotImplemented("e".into())),
    ]
}
