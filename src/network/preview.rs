//! The plan of any node, from what that node knows, for whoever has no kernel: the simulator holds the plans of all nodes
//! against each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::parts::{Parts, Touched};
use super::plan::{Inputs, Numbers};
use super::plane::SwarmView;
use super::pool::Subnet;
use super::records::Record;
use super::skeleton::Skeleton;
use super::state::{Interface, KernelState};
use super::tasks::NetworkConfig;
use super::wiring::{place, wired};
use crate::spec::{Attachment, TaskId};

/// Of an overlay over Ethernet; what is planned else does not depend on it.
const MTU: u32 = 1450;

/// What a node's kernel is to hold.
#[derive(Debug, Clone)]
pub struct Preview {
    pub state: KernelState,
    /// The host's ends of its tasks' interfaces.
    pub interfaces: BTreeMap<Interface, TaskId>,
}

/// The plan of a node that knows `view` and has these tasks, each with its places on the networks. Their host-local
/// addresses are of `local`, in their order; `None` where there are more of them.
pub fn preview(view: &SwarmView, local: Subnet, places: &BTreeMap<TaskId, Vec<Attachment>>) -> Option<Preview> {
    let config = NetworkConfig { dir: PathBuf::new(), subnet: local };
    let mut given = BTreeSet::new();
    let mut tasks = BTreeMap::new();
    for (task, attachments) in places {
        let address = local.pick(given.len() as u32, &given)?;
        given.insert(address);
        let mut record = Record::new(*task, address, Vec::new(), attachments.clone());
        place(&mut record, &view.networks);
        tasks.insert(*task, wired(&config, &record, true).task);
    }
    let mut numbers = Numbers::default();
    numbers.follow(&view.members);
    let inputs = Inputs {
        skeleton: Skeleton { subnet: local, overlay: view.overlay },
        local: view.overlay.map(|overlay| overlay.address),
        mtu: MTU,
        ipv6: true,
        members: &view.members,
        numbers: &numbers,
        networks: &view.networks,
        tasks: &tasks,
        taken: &BTreeSet::new(),
    };
    let mut parts = Parts::default();
    parts.follow(&inputs, &Touched { all: true, ..Touched::default() }, &KernelState::default());
    let interfaces = tasks.iter().map(|(id, task)| (task.interface, *id)).collect();
    Some(Preview { state: parts.whole(), interfaces })
}
