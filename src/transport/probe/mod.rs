//! Probes: small authenticated datagrams that ask a node whether it lives, and answer when asked.
//!
//! They have an OS thread of their own, at real-time priority where that is allowed, since a probe that waits behind
//! work accuses the innocent. The thread sends a probe to each peer every [`INTERVAL`] from a connected socket (so that
//! a refusal reaches it), answers the probes of others, and before each judgement drains all its sockets. What it
//! hears it hands to a [`Judge`], on the same thread; the judge, not this room, knows what silence means.
//!
//! # Keys
//! Datagrams carry an HMAC-SHA256 under the key of the node that is probed: [`ProbeKey::of_node`] derives it from a secret
//! that all managers have in the log. A worker is given its own key and those of whom it watches, and no others. So
//! those who watch a node could answer in its name, and nobody else can; nobody at all can make a node look dead
//! this way. A subject need not know its observers: it answers whoever has its key, so a change of observers never
//! leaves a probe unanswered. Replays are idle: an echo must quote the nonce of a probe under way.

mod packet;
mod priority;
mod socket;
mod thread;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use packet::ProbeKey;
pub use priority::Priority;

use crate::spec::{Incarnation, MonoMs, NodeId};

/// Between two probes of a peer, and between two judgements.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// Who decides what replies and silence mean. Called on the probe thread, so it must not block.
pub trait Judge: Send + 'static {
    /// What comes with a new list of peers.
    type Orders: Send + 'static;

    fn handle_orders(&mut self, orders: Self::Orders);
    /// An answer to a probe of ours, which quotes the suspicion that the probe carried.
    fn handle_echo(&mut self, from: NodeId, echo: Echo);
    /// The peer's host says that nobody listens.
    fn handle_refused(&mut self, from: NodeId);
    /// `observer` suspects this node. It is being answered, which refutes; streams to it may want redialling.
    fn handle_suspected(&mut self, observer: NodeId);
    /// Everything that had arrived was handed over: judge.
    fn handle_tick(&mut self, now: MonoMs);
    /// What the next probe to `peer` carries; 0 for none.
    fn suspicion_of(&self, peer: NodeId) -> u64;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    pub incarnation: Incarnation,
    /// The subject's main runtime's progress counter.
    pub progress: u64,
    pub quotes: u64,
}

/// A node to be probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub node: NodeId,
    pub addr: SocketAddr,
    /// The peer's own.
    pub key: ProbeKey,
}

#[derive(Debug)]
pub struct Config {
    pub node: NodeId,
    pub incarnation: Incarnation,
    /// This node's own key.
    pub key: ProbeKey,
    /// Where to answer. Probes of others leave from this address too, if it is one and not all of them.
    pub listen: SocketAddr,
    /// What [`MonoMs`] counts from.
    pub epoch: Instant,
}

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("cannot answer probes on UDP {addr}: is the port taken? Choose another with --listen-addr")]
    Listen { addr: SocketAddr, source: io::Error },
    #[error("cannot start the probe thread")]
    Thread(#[source] io::Error),
    #[error("the system's random generator failed")]
    Random,
}

/// The running probe thread. It ends when this is dropped or stopped.
#[derive(Debug)]
pub struct Probe<O> {
    commands: mpsc::Sender<Command<O>>,
    local_addr: SocketAddr,
    progress: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Command<O> {
    Watch { peers: Vec<Peer>, orders: O },
    Identify { incarnation: Incarnation, key: ProbeKey },
    Stop,
}

impl<O: Send + 'static> Probe<O> {
    pub fn start<J: Judge<Orders = O>>(config: Config, judge: J) -> Result<Probe<O>, ProbeError> {
        let addr = config.listen;
        let listen = |source| ProbeError::Listen { addr, source };
        let socket = socket::EchoSocket::bind(addr).map_err(listen)?;
        let local_addr = socket.local_addr().map_err(listen)?;
        let (commands, inbox) = mpsc::channel();
        let progress = Arc::new(AtomicU64::new(0));
        let prober = thread::Prober::new(config, socket, judge, inbox, Arc::clone(&progress))?;
        let thread = std::thread::Builder::new().name("flok-probe".into());
        let thread = thread.spawn(move || prober.run()).map_err(ProbeError::Thread)?;
        Ok(Probe { commands, local_addr, progress, thread: Some(thread) })
    }

    /// Replaces whom to probe, and gives the judge its orders with the same stroke. In force within [`INTERVAL`].
    pub fn watch(&self, peers: Vec<Peer>, orders: O) {
        self.send(Command::Watch { peers, orders });
    }

    /// This node took a higher incarnation, or was given another key.
    pub fn identify(&self, incarnation: Incarnation, key: ProbeKey) {
        self.send(Command::Identify { incarnation, key });
    }

    /// The main runtime adds to it several times a second; echoes carry it, and observers notice when it stands still.
    pub fn progress(&self) -> &Arc<AtomicU64> {
        &self.progress
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Ends the thread, and waits for it, for at most about [`INTERVAL`].
    pub fn stop(mut self) {
        self.send(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the probe thread had panicked");
        }
    }

    fn send(&self, command: Command<O>) {
        // Fails only when the thread has panicked, which `stop` reports.
        _ = self.commands.send(command);
    }
}

#[cfg(test)]
mod tests;
