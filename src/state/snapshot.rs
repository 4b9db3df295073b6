//! The whole state as bytes: what a new or lagging log holder is sent, and what a restart begins from.
//!
//! Layout: a magic word, the format's number, the feature level, the contents' length, the SHA-256 of all of these and of
//! the contents, then the contents. Format and level are read first, so that a build which knows less says so instead of misreading; the
//! checksum is verified before anything is decoded. Indices are derived again on reading.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::codec::{self, CodecError};
use super::object::*;
use super::session::{SessionRecord, Sessions};
use super::store::State;
use crate::spec::*;

const MAGIC: [u8; 8] = *b"flokSNAP";

/// The format that [`encode`] writes. Another one comes with a feature level that every member knows, and the types of
/// the older one then stay beside the new ones until no log can hold it.
const FORMAT: u32 = 1;

/// Behind magic, format, level and length.
const CHECKSUM_AT: usize = 8 + 4 + 4 + 8;
const HEADER_BYTES: usize = CHECKSUM_AT + 32;

/// Bytes that are no snapshot this build can read. No state was made.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("this is no flok snapshot")]
    NotASnapshot,
    #[error("the snapshot is cut off: it has {have} of {need} bytes; fetch it again, or start from another copy")]
    Truncated { have: u64, need: u64 },
    #[error("the snapshot has {0} bytes behind its end; fetch it again, or start from another copy")]
    TrailingBytes(u64),
    #[error("the snapshot is damaged: its checksum does not match; fetch it again, or start from another copy")]
    Damaged,
    #[error(
        "the snapshot has format {0}, and this build of flok reads formats up to {FORMAT}: upgrade flok on this node"
    )]
    Format(u32),
    #[error(transparent)]
    BeyondBuild(#[from] super::BeyondBuild),
    #[error("the snapshot's checksum matches, but it cannot be read")]
    Malformed(#[from] CodecError),
}

/// Everything of a [`State`] but its indices, as written. Objects are borrowed when writing and owned when reading.
#[derive(Serialize, Deserialize)]
struct Contents<'a> {
    applied: u64,
    last_raft_id: u64,
    swarm: Option<Cow<'a, Swarm>>,
    nodes: Vec<Cow<'a, Node>>,
    services: Vec<Cow<'a, Service>>,
    task_specs: Vec<(ServiceId, Version, Cow<'a, TaskSpec>)>,
    tasks: Vec<Cow<'a, Task>>,
    networks: Vec<Cow<'a, Network>>,
    secrets: Vec<Cow<'a, Secret>>,
    configs: Vec<Cow<'a, Config>>,
    volume_homes: Vec<VolumeHome>,
    credentials: Vec<Cow<'a, RegistryCredentials>>,
    sessions: Vec<SessionRecord>,
}

/// `state` as a snapshot.
pub fn encode(state: &State) -> Vec<u8> {
    let contents = contents(state);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + contents.len());
    bytes.extend(MAGIC);
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend(state.feature_level().0.to_le_bytes());
    bytes.extend((contents.len() as u64).to_le_bytes());
    let checksum = checksum(&bytes, &contents);
    bytes.extend(checksum);
    bytes.extend(contents);
    bytes
}

/// The state that a snapshot holds.
pub fn decode(bytes: &[u8]) -> Result<State, SnapshotError> {
    let contents = verified(bytes)?;
    Ok(restore(codec::decode_large(contents)?))
}

/// Two states with equal fingerprints are equal: the SHA-256 of all that a snapshot holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl State {
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Sha256::digest(contents(self)).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// The contents behind a header that has been checked.
fn verified(bytes: &[u8]) -> Result<&[u8], SnapshotError> {
    if !bytes.starts_with(&MAGIC) {
        return Err(SnapshotError::NotASnapshot);
    }
    let Some((header, contents)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Err(SnapshotError::Truncated { have: bytes.len() as u64, need: HEADER_BYTES as u64 });
    };
    let format = u32::from_le_bytes(field(header, 8));
    if format != FORMAT {
        return Err(SnapshotError::Format(format));
    }
    let level = FeatureLevel(u32::from_le_bytes(field(header, 12)));
    if level > FEATURE_LEVEL {
        return Err(super::BeyondBuild { level }.into());
    }
    let (have, need) = (contents.len() as u64, u64::from_le_bytes(field(header, 16)));
    match have.cmp(&need) {
        std::cmp::Ordering::Less => {
            let header = HEADER_BYTES as u64;
            return Err(SnapshotError::Truncated { have: have + header, need: need.saturating_add(header) });
        }
        std::cmp::Ordering::Greater => return Err(SnapshotError::TrailingBytes(have - need)),
        std::cmp::Ordering::Equal => {}
    }
    if checksum(&header[..CHECKSUM_AT], contents) != field::<32>(header, CHECKSUM_AT) {
        return Err(SnapshotError::Damaged);
    }
    Ok(contents)
}

fn checksum(before: &[u8], contents: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(before).chain_update(contents).finalize().into()
}

fn field<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    header[at..at + N].try_into().expect("the header is longer than its fields")
}

fn contents(state: &State) -> Vec<u8> {
    fn borrowed<'a, T: Clone>(objects: impl Iterator<Item = &'a Arc<T>>) -> Vec<Cow<'a, T>> {
        objects.map(|object| Cow::Borrowed(object.as_ref())).collect()
    }
    let homes = state.volume_homes.iter().map(|((service, slot, volume), node)| VolumeHome {
        service: *service,
        slot: *slot,
        volume: volume.clone(),
        node: *node,
    });
    let specs = state.task_specs.iter().map(|((service, version), spec)| {
        let spec: &TaskSpec = spec;
        (*service, *version, Cow::Borrowed(spec))
    });
    codec::encode(&Contents {
        applied: state.applied,
        last_raft_id: state.last_raft_id,
        swarm: state.swarm.as_deref().map(Cow::Borrowed),
        nodes: borrowed(state.nodes.values()),
        services: borrowed(state.services.values()),
        task_specs: specs.collect(),
        tasks: borrowed(state.tasks.values()),
        networks: borrowed(state.networks.values()),
        secrets: borrowed(state.secrets.values()),
        configs: borrowed(state.configs.values()),
        volume_homes: homes.collect(),
        credentials: borrowed(state.credentials.values()),
        sessions: state.sessions.to_records(),
    })
}

fn restore(contents: Contents<'_>) -> State {
    let mut state = State {
        applied: contents.applied,
        last_raft_id: contents.last_raft_id,
        swarm: contents.swarm.map(|swarm| Arc::new(swarm.into_owned())),
        sessions: Sessions::from_records(contents.sessions),
        ..State::default()
    };
    contents.nodes.into_iter().for_each(|node| state.put_node(node.into_owned()));
    contents.services.into_iter().for_each(|service| state.put_service(service.into_owned()));
    for (service, version, spec) in contents.task_specs {
        state.task_specs.insert((service, version), Arc::new(spec.into_owned()));
    }
    contents.tasks.into_iter().for_each(|task| state.put_task(task.into_owned()));
    contents.networks.into_iter().for_each(|network| state.put_network(network.into_owned()));
    contents.secrets.into_iter().for_each(|secret| state.put_secret(secret.into_owned()));
    contents.configs.into_iter().for_each(|config| state.put_config(config.into_owned()));
    for home in contents.volume_homes {
        state.volume_homes.insert((home.service, home.slot, home.volume), home.node);
    }
    for credentials in contents.credentials {
        state.credentials.insert(credentials.service, Arc::new(credentials.into_owned()));
    }
    state
}
