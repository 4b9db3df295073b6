//! Identifiers and counters. An id is 128 bits, shown as 25 base-36 characters, the form Docker Swarm's users know.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The beginning of an id of any kind, as Docker's tools show it.
pub fn short_id(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Characters of an id in text.
pub const ID_LEN: usize = 25;

/// A text that is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id: an id is 25 characters of 0-9 and a-z")]
pub struct InvalidId(pub String);

fn format_id(value: u128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [b'0'; ID_LEN];
    let mut rest = value;
    for digit in text.iter_mut().rev() {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(rest % 36) as usize];
        rest /= 36;
    }
    f.pad(std::str::from_utf8(&text).expect("base-36 digits are ASCII"))
}

fn parse_id(text: &str) -> Result<u128, InvalidId> {
    let invalid = || InvalidId(text.chars().take(64).collect());
    if text.len() != ID_LEN {
        return Err(invalid());
    }
    text.bytes().try_fold(0u128, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'z' => byte - b'a' + 10,
            _ => return Err(invalid()),
        };
        value.checked_mul(36).and_then(|v| v.checked_add(u128::from(digit))).ok_or_else(invalid)
    })
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                format_id(self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse_id(text).map($name)
            }
        }

        // Text in JSON, the number in binary formats.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_u128(self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
                } else {
                    u128::deserialize(deserializer).map($name)
                }
            }
        }
    };
}

id!(/// A swarm, for its whole life.
    SwarmId);
id!(/// A node: the first 128 bits of the SHA-256 of its ed25519 public key, so an id proves a key.
    NodeId);
id!(ServiceId);
id!(/// One run of one container; never used again.
    TaskId);
id!(NetworkId);
id!(SecretId);
id!(ConfigId);
id!(/// One process that proposes commands: a daemon's life, from start to stop.
    ClientId);

/// The log index at which an object was last changed; what compare-and-set compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Version(pub u64);

/// Which data of a secret or config: counted from 1 in each of them. 0 in a reference: not chosen yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct DataVersion(pub u64);

/// Which life of a node a record or an alarm speaks of; persisted before its first use, so it only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// What `apply` does and which formats are written. Raised by a command, once every member supports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct FeatureLevel(pub u32);

/// The highest feature level this build knows.
pub const FEATURE_LEVEL: FeatureLevel = FeatureLevel(1);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for DataVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for FeatureLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_its_text() {
        for value in [0, 1, 35, 36, u128::MAX, 0x1234_5678_9abc_def0] {
            let id = TaskId(value);
            assert_eq!(id.to_string().len(), ID_LEN);
            assert_eq!(id.to_string().parse::<TaskId>(), Ok(id));
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "abc", "ABCDEFGHIJKLMNOPQRSTUVWXY", "zzzzzzzzzzzzzzzzzzzzzzzzz", "0000000000000000000000000é"]
        {
            assert!(text.parse::<TaskId>().is_err(), "{text}");
        }
    }
}
