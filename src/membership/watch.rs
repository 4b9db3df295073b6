//! Whom a node is to watch, as the managers tell it: computed from the log by any of them, and sent to workers on
//! their stream.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Rings;
use crate::gossip::Table;
use crate::spec::{Incarnation, NodeId, Version};
use crate::state::{NodeHealth, State};

/// Whom one node watches. Sent whole; the newer membership version wins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WatchList {
    pub membership_version: Version,
    pub watched: BTreeMap<NodeId, Watched>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// Where it answers probes.
    pub addr: SocketAddr,
    /// The life it was in when the list was made; its echoes tell of later ones.
    pub incarnation: Incarnation,
    /// Admitted but not heard yet: it may still be starting, so its first answer is waited for longer.
    pub starting: bool,
}

impl WatchList {
    pub fn for_observer(observer: NodeId, rings: &Rings, state: &State, table: &Table) -> WatchList {
        let watched = rings.subjects_of(observer).iter().filter_map(|subject| {
            let node = state.node(*subject)?;
            let incarnation = table.get(*subject).map_or(Incarnation(0), |held| held.record.version.incarnation);
            let starting = node.health == NodeHealth::Unknown;
            Some((*subject, Watched { addr: node.probe_addr(), incarnation, starting }))
        });
        WatchList {
            membership_version: state.swarm().map_or(Version(0), |swarm| swarm.membership_version),
            watched: watched.collect(),
        }
    }
}
