//! The probe thread's loop: wait, drain, and at each interval judge and send.

#![expect(
    clippy::disallowed_methods,
    reason = "the probe thread is a clock: it reads the monotonic one to pace itself"
)]

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rand::rngs::{StdRng, SysRng};
use rand::{RngExt, SeedableRng};

use super::packet::{Authenticator, Kind, PACKET_LEN, Packet};
use super::priority::{self, Priority};
use super::socket::{Asker, EchoSocket};
use super::{Command, Config, Echo, INTERVAL, Judge, Peer, ProbeError};
use crate::spec::{Incarnation, MonoMs, NodeId};

/// Probes to one peer whose echo is still welcome.
const UNDER_WAY: usize = 32;
/// Datagrams read from one socket before the others get their turn.
const DRAIN_BATCH: usize = 256;

pub(super) struct Prober<J: Judge> {
    node: NodeId,
    incarnation: Incarnation,
    own_key: Authenticator,
    epoch: Instant,
    listen: SocketAddr,
    socket: EchoSocket,
    judge: J,
    inbox: Receiver<Command<J::Orders>>,
    progress: Arc<AtomicU64>,
    peers: BTreeMap<NodeId, Watched>,
    rng: StdRng,
}

struct Watched {
    peer: Peer,
    key: Authenticator,
    /// `None` until the network lets it be made.
    socket: Option<UdpSocket>,
    nonces: VecDeque<u64>,
}

/// What a socket had to say.
enum Heard {
    Packet(Packet),
    Refused,
    /// Something that is no packet of ours.
    Noise,
}

impl<J: Judge> Prober<J> {
    pub(super) fn new(
        config: Config,
        socket: EchoSocket,
        judge: J,
        inbox: Receiver<Command<J::Orders>>,
        progress: Arc<AtomicU64>,
    ) -> Result<Prober<J>, ProbeError> {
        let rng = StdRng::try_from_rng(&mut SysRng).map_err(|_| ProbeError::Random)?;
        let Config { node, incarnation, key, listen, epoch } = config;
        let peers = BTreeMap::new();
        Ok(Prober { node, incarnation, own_key: key.mac(), epoch, listen, socket, judge, inbox, progress, peers, rng })
    }

    pub(super) fn run(mut self) {
        match priority::raise() {
            Priority::RoundRobin => {}
            lower => tracing::warn!(
                priority = ?lower,
                "probes have no real-time priority here: on a busy machine this node may look slow to others. Allow it \
                 with CAP_SYS_NICE, and on cgroup v1 with a cpu.rt_runtime_us above 0"
            ),
        }
        let mut next_tick = Instant::now();
        while self.obey() {
            self.wait(next_tick.saturating_duration_since(Instant::now()));
            self.drain();
            let now = Instant::now();
            if now < next_tick {
                continue;
            }
            self.judge.handle_tick(self.mono(now));
            self.probe_all();
            next_tick += INTERVAL;
            if next_tick < now {
                next_tick = now + INTERVAL;
            }
        }
    }

    /// Carries out what was ordered; false when it is time to stop.
    fn obey(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(Command::Watch { peers, orders }) => {
                    self.watch(peers);
                    self.judge.handle_orders(orders);
                }
                Ok(Command::Identify { incarnation, key }) => {
                    self.incarnation = incarnation;
                    self.own_key = key.mac();
                }
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    /// A peer that stays as it is keeps its socket and the probes under way.
    fn watch(&mut self, peers: Vec<Peer>) {
        let mut before = std::mem::take(&mut self.peers);
        for peer in peers.into_iter().filter(|peer| peer.node != self.node) {
            let watched = before.remove(&peer.node).filter(|watched| watched.peer == peer).unwrap_or_else(|| Watched {
                key: peer.key.mac(),
                socket: None,
                nonces: VecDeque::new(),
                peer: peer.clone(),
            });
            self.peers.insert(peer.node, watched);
        }
    }

    fn wait(&self, timeout: Duration) {
        let sockets = self.peers.values().filter_map(|watched| watched.socket.as_ref()).map(AsFd::as_fd);
        let sockets = sockets.chain([self.socket.as_fd()]);
        let mut fds: Vec<PollFd<'_>> = sockets.map(|socket| PollFd::new(socket, PollFlags::POLLIN)).collect();
        // Rounded up: waking a little early would spin until the tick.
        let timeout = PollTimeout::try_from(timeout + Duration::from_micros(999)).unwrap_or(PollTimeout::ZERO);
        if let Err(error) = poll(&mut fds, timeout)
            && error != nix::errno::Errno::EINTR
        {
            // Cannot happen with sockets that are open; if it does, keep the pace rather than spin.
            std::thread::sleep(INTERVAL);
        }
    }

    fn drain(&mut self) {
        let mut buffer = [0; PACKET_LEN + 1];
        for _ in 0..DRAIN_BATCH {
            let Ok((length, asker)) = self.socket.receive(&mut buffer) else { break };
            self.answer(&buffer[..length], &asker);
        }
        for (node, watched) in &mut self.peers {
            for _ in 0..DRAIN_BATCH {
                match watched.receive(&mut buffer) {
                    None => break,
                    Some(Heard::Noise) => {}
                    Some(Heard::Refused) => self.judge.handle_refused(*node),
                    Some(Heard::Packet(packet)) => {
                        if let Some(echo) = watched.admit(&packet, self.node) {
                            self.judge.handle_echo(*node, echo);
                        }
                    }
                }
            }
        }
    }

    /// Answers a probe of this node; silent to everything else.
    fn answer(&mut self, bytes: &[u8], asker: &Asker) {
        let Some(probe) = Packet::open(bytes, &self.own_key) else { return };
        if probe.kind != Kind::Probe || probe.to != self.node {
            return;
        }
        let echo = Packet {
            kind: Kind::Echo,
            from: self.node,
            to: probe.from,
            incarnation: self.incarnation,
            progress: self.progress.load(Ordering::Relaxed),
            ..probe
        };
        // A lost echo is a lost datagram: the prober asks again.
        _ = self.socket.reply(&echo.seal(&self.own_key), asker);
        if probe.suspicion != 0 {
            self.judge.handle_suspected(probe.from);
        }
    }

    fn probe_all(&mut self) {
        for (node, watched) in &mut self.peers {
            let nonce = self.rng.random();
            let packet = Packet {
                kind: Kind::Probe,
                from: self.node,
                to: *node,
                nonce,
                suspicion: self.judge.suspicion_of(*node),
                incarnation: Incarnation(0),
                progress: 0,
            };
            if watched.send(&packet, self.listen) {
                self.judge.handle_refused(*node);
            }
        }
    }

    fn mono(&self, now: Instant) -> MonoMs {
        MonoMs(0) + now.saturating_duration_since(self.epoch)
    }
}

impl Watched {
    /// Sends a probe; true if an earlier one turns out to have been refused. A socket that the network has turned
    /// against (its address or route is gone) is made anew for the next.
    fn send(&mut self, probe: &Packet, listen: SocketAddr) -> bool {
        if self.nonces.len() == UNDER_WAY {
            self.nonces.pop_front();
        }
        self.nonces.push_back(probe.nonce);
        if self.socket.is_none() {
            self.socket = connect(listen, self.peer.addr).ok();
        }
        let Some(socket) = &self.socket else { return false };
        let bytes = probe.seal(&self.key);
        match socket.send(&bytes) {
            Ok(_) => false,
            // The error was of an earlier probe; this one is not sent yet.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                _ = socket.send(&bytes);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(_) => {
                self.socket = None;
                false
            }
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> Option<Heard> {
        match self.socket.as_ref()?.recv(buffer) {
            Ok(length) => Some(Packet::open(&buffer[..length], &self.key).map_or(Heard::Noise, Heard::Packet)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Some(Heard::Refused),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            // An unreachable network: read it away, it counts as silence.
            Err(_) => Some(Heard::Noise),
        }
    }

    /// An echo counts once, and only for a probe under way.
    fn admit(&mut self, packet: &Packet, me: NodeId) -> Option<Echo> {
        if packet.kind != Kind::Echo || packet.from != self.peer.node || packet.to != me {
            return None;
        }
        let at = self.nonces.iter().position(|nonce| *nonce == packet.nonce)?;
        self.nonces.remove(at);
        Some(Echo { incarnation: packet.incarnation, progress: packet.progress, quotes: packet.suspicion })
    }
}

/// A socket of its own for each peer, from the address that this node answers on if it has named one.
fn connect(listen: SocketAddr, peer: SocketAddr) -> io::Result<UdpSocket> {
    let mut local = listen;
    if listen.is_ipv4() != peer.is_ipv4() {
        local = if peer.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    }
    local.set_port(0);
    let socket = UdpSocket::bind(local)?;
    socket.connect(peer)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
