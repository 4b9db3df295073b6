//! The thread that keeps the kernel as planned: it takes in what changed, plans anew, and carries out the difference to
//! what the kernel holds. It reads the kernel at its start, when something of ours was touched by another, and from time
//! to time; in between it knows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;

use tokio::sync::{oneshot, watch};

use super::conditions::{Sources, Troubles};
use super::doctor::Examined;
use super::inbox::{Closing, Inbox};
use super::keeper::Keeper;
use super::kernel::veth;
use super::plan::LocalTask;
use super::skeleton::Overlay;
use super::{NetworkError, bell, pool};
use crate::dispatcher::Networks;
use crate::spec::{Condition, NodeId, Protocol, TaskId};

/// What the room knows of the swarm. The default is a node in none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SwarmView {
    pub overlay: Option<Overlay>,
    /// Where the others are reached, by datagrams.
    pub members: BTreeMap<NodeId, IpAddr>,
    pub networks: Networks,
}

/// A task, and how it is wired should its interface be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wired {
    pub task: LocalTask,
    pub wire: veth::Wire,
}

/// What is answered.
pub enum Question {
    Task(TaskId, Option<Box<Wired>>, oneshot::Sender<Result<(), NetworkError>>),
    /// Nothing new; answered when all before it is in force.
    Settle(oneshot::Sender<Result<(), NetworkError>>),
    /// What should be and what is; nothing is changed for it.
    Examine(oneshot::Sender<Result<Box<Examined>, NetworkError>>),
}

/// Talks to the thread, which ends with it.
pub struct Plane {
    inbox: Closing,
    /// Which ports of services are another process' on this node.
    taken: watch::Receiver<BTreeSet<(Protocol, u16)>>,
    /// The overlay's, for tasks.
    mtu: watch::Receiver<Option<u32>>,
    sources: Sources,
    conditions: watch::Receiver<Vec<Condition>>,
}

impl Plane {
    /// Returns once the kernel is as planned for `tasks`.
    pub async fn start(subnet: pool::Subnet, tasks: BTreeMap<TaskId, Wired>) -> Result<Plane, NetworkError> {
        let inbox = Arc::new(Inbox::default());
        let told = Closing(Arc::clone(&inbox));
        let (ready_in, ready) = oneshot::channel();
        let (taken_in, taken) = watch::channel(BTreeSet::new());
        let (mtu_in, mtu) = watch::channel(None);
        let (proxied_in, proxied) = watch::channel(BTreeSet::new());
        let (troubles_in, troubles) = watch::channel(Troubles::default());
        let (conditions_in, conditions) = watch::channel(Vec::new());
        let start = move || {
            let outputs = Outputs { taken: taken_in, mtu: mtu_in, proxied: proxied_in, troubles: troubles_in };
            match Keeper::start(subnet, tasks, outputs) {
                Ok(keeper) => {
                    let _ = ready_in.send(Ok(keeper.ports()));
                    keeper.run(&told.0);
                }
                Err(error) => drop(ready_in.send(Err(error))),
            }
        };
        thread::Builder::new().name("flok-network".into()).spawn(start).map_err(NetworkError::NetlinkSocket)?;
        let inbox = Closing(inbox);
        let ports = ready.await.unwrap_or(Err(NetworkError::Stopped))?;
        bell::hang(&inbox.0, ports)?;
        tokio::spawn(super::proxy::run(proxied));
        let sources = Sources { taken: taken.clone(), troubles };
        tokio::spawn(super::conditions::run(sources.clone(), conditions_in));
        Ok(Plane { inbox, taken, mtu, sources, conditions })
    }

    /// Returns once the kernel has the change.
    pub async fn set(&self, task: TaskId, wired: Option<Wired>) -> Result<(), NetworkError> {
        self.inbox.0.ask(|done| Question::Task(task, wired.map(Box::new), done)).await
    }

    pub async fn settled(&self) -> Result<(), NetworkError> {
        self.inbox.0.ask(Question::Settle).await
    }

    pub async fn examine(&self) -> Result<Box<Examined>, NetworkError> {
        self.inbox.0.ask(Question::Examine).await
    }

    /// The newest counts. Never blocks.
    pub fn set_swarm(&self, view: SwarmView) {
        self.inbox.0.set_swarm(view);
    }

    pub fn taken(&self) -> watch::Receiver<BTreeSet<(Protocol, u16)>> {
        self.taken.clone()
    }

    pub fn conditions(&self) -> watch::Receiver<Vec<Condition>> {
        self.conditions.clone()
    }

    /// As they are now, looked at anew.
    pub async fn look(&self) -> Vec<Condition> {
        self.sources.clone().look().await
    }

    pub fn mtu(&self) -> watch::Receiver<Option<u32>> {
        self.mtu.clone()
    }
}

/// What the thread tells.
pub struct Outputs {
    pub taken: watch::Sender<BTreeSet<(Protocol, u16)>>,
    pub mtu: watch::Sender<Option<u32>>,
    /// Ports that answer on `[::1]`.
    pub proxied: watch::Sender<BTreeSet<(Protocol, u16)>>,
    pub troubles: watch::Sender<Troubles>,
}
