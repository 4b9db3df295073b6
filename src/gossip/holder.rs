//! One key, one holder. A node's data directory may be restored from a copy, or cloned while the original lives on.
//!
//! A restored node finds, in the echo of its own record, a self that is newer, and takes a higher incarnation. Two live
//! holders would do that in turn for ever: records of one instance, then of another, then of the first again. That
//! return tells a manager that both live; it keeps the one that was there first, and refuses and names the other.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::{NodeRecord, RecordVersion};
use crate::spec::{MonoMs, NodeId};

/// An instance heard within this time is taken to be alive still.
pub const HOLDER_MEMORY: Duration = Duration::from_secs(120);
/// A refused instance stays refused for this long after it was last heard.
pub const REFUSED_FOR: Duration = Duration::from_secs(600);
/// Instances remembered for one key.
const MAX_INSTANCES: usize = 8;

/// What a manager sends a node back of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    pub version: RecordVersion,
    /// Which instance wrote that record.
    pub instance: u64,
    /// Instances that may not hold this key, and who does.
    pub refused: Vec<Refused>,
}

/// A second live holder of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub node: NodeId,
    pub instance: u64,
    /// Where the refused one says it is.
    pub hostname: String,
    pub addr: IpAddr,
    /// The one that keeps the key.
    pub holder_hostname: String,
    pub holder_addr: IpAddr,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused { node, hostname, addr, holder_hostname, holder_addr, .. } = self;
        write!(
            f,
            "{hostname} ({addr}) uses the key of node {node}, which {holder_hostname} ({holder_addr}) holds and uses: a \
             data directory was copied. Empty the copy's data directory and join it again as a node of its own"
        )
    }
}

/// Which instances of each node were heard.
#[derive(Debug, Default)]
pub(super) struct Holders {
    /// Lately, in order of first hearing.
    by_node: BTreeMap<NodeId, Vec<Instance>>,
    /// Who wrote the record in the table, however long ago.
    writers: BTreeMap<NodeId, u64>,
}

#[derive(Debug)]
struct Instance {
    id: u64,
    heard: MonoMs,
    refused: Option<Refused>,
}

impl Holders {
    /// Admits a record of `instance`, or refuses it as a second holder's. `held` is the record in the table.
    pub(super) fn admit(
        &mut self,
        held: Option<&NodeRecord>,
        instance: u64,
        record: &NodeRecord,
        now: MonoMs,
    ) -> Result<(), Refused> {
        let instances = self.by_node.entry(record.node).or_default();
        instances.retain(|one| now - one.heard <= if one.refused.is_some() { REFUSED_FOR } else { HOLDER_MEMORY });
        let Some(at) = instances.iter().position(|one| one.id == instance) else {
            if held.is_none_or(|held| record.version > held.version) {
                instances.push(Instance { id: instance, heard: now, refused: None });
                let excess = instances.len().saturating_sub(MAX_INSTANCES);
                instances.drain(..excess);
            }
            return Ok(());
        };
        if let Some(refused) = &instances[at].refused {
            let refused = refused.clone();
            instances[at].heard = now;
            return Err(refused);
        }
        instances[at].heard = now;
        // An earlier instance writes on, in a later incarnation than the newcomer's record: so it lives.
        if let Some(newcomer) = held.filter(|held| held.version.incarnation < record.version.incarnation) {
            for later in instances[at + 1..].iter_mut().filter(|one| one.refused.is_none()) {
                later.refused = Some(Refused {
                    node: record.node,
                    instance: later.id,
                    hostname: newcomer.description.hostname.clone(),
                    addr: newcomer.description.addr,
                    holder_hostname: record.description.hostname.clone(),
                    holder_addr: record.description.addr,
                });
            }
        }
        Ok(())
    }

    /// `instance` wrote the record that is in the table now.
    pub(super) fn wrote(&mut self, node: NodeId, instance: u64) {
        self.writers.insert(node, instance);
    }

    pub(super) fn echo(&self, node: NodeId, version: RecordVersion) -> Option<Echo> {
        let instance = *self.writers.get(&node)?;
        let known = self.by_node.get(&node).into_iter().flatten();
        Some(Echo { version, instance, refused: known.filter_map(|one| one.refused.clone()).collect() })
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.by_node.remove(&node);
        self.writers.remove(&node);
    }
}
