//! What a daemon's parts are given, and what they ask of the world.

use flok::consensus::wire::{Request, Response};
use flok::dispatcher::Update;
use flok::gossip::{Echo, RepairAnswer, RepairRequest, SignedRecord};
use flok::membership::{AlarmReport, Reply, WatchList};
use flok::spec::{MonoMs, NodeId, Now, UnixMs};
use rand::rngs::StdRng;

use crate::check::Checker;
use crate::worker::Done;

/// Virtual milliseconds since the world began.
pub type Ms = u64;

pub struct Context<'a> {
    pub now: Ms,
    /// The host's own clocks.
    pub clocks: Now,
    /// Of the daemon, from start to stop; never used twice.
    pub life: u64,
    pub rng: &'a mut StdRng,
    pub check: &'a mut Checker,
    pub effects: Vec<Effect>,
}

impl Context<'_> {
    pub fn mono(&self) -> MonoMs {
        self.clocks.mono
    }

    pub fn unix(&self) -> UnixMs {
        self.clocks.unix
    }

    pub fn send(&mut self, to: NodeId, message: Message) {
        self.effects.push(Effect::Send { to, message });
    }
}

#[derive(Debug)]
pub enum Effect {
    Send {
        to: NodeId,
        message: Message,
    },
    /// The log's disk has work.
    DiskBusy,
    /// The executor finishes something for the worker later.
    Execute {
        after: Ms,
        done: Done,
    },
    /// A process ends by itself.
    Exit {
        after: Ms,
        task: flok::spec::TaskId,
        pid: u32,
        code: i32,
    },
}

/// What travels between nodes.
#[derive(Debug, Clone)]
pub enum Message {
    Raft(Vec<u8>),
    Snapshot {
        life: u64,
        raft_id: u64,
        message: Vec<u8>,
        data: Vec<u8>,
    },
    SnapshotTaken {
        life: u64,
        raft_id: u64,
    },
    Request {
        life: u64,
        sequence: u64,
        request: Request,
    },
    Response {
        life: u64,
        sequence: u64,
        response: Response,
    },
    Record(SignedRecord),
    Repair {
        life: u64,
        request: RepairRequest,
    },
    RepairAnswer {
        life: u64,
        answer: RepairAnswer,
    },
    Alarm(AlarmReport),
    Probe {
        suspicion: u64,
    },
    Echo(Reply),
    /// The host is there and nobody listens.
    NobodyListens,
    /// A node without the log asks for its view.
    Follow {
        session: u64,
    },
    Downlink {
        session: u64,
        number: u64,
        news: Downlink,
    },
}

#[derive(Debug, Clone)]
pub enum Downlink {
    Update(Box<Update>),
    Watch(WatchList),
    Pulse {
        quorum: bool,
        echo: Option<Echo>,
    },
    /// The manager cannot serve, or serves no more.
    End,
}

/// How a message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// May be lost, doubled, delayed, overtaken.
    Datagram,
    /// The same, in a simulator that is harsher than a stream; what is lost is sent again by whoever needs it.
    Message,
    /// In order; lost only with its connection.
    Stream,
}

impl Message {
    pub fn lane(&self) -> Lane {
        match self {
            Message::Probe { .. } | Message::Echo(_) | Message::NobodyListens => Lane::Datagram,
            Message::Follow { .. } | Message::Downlink { .. } => Lane::Stream,
            _ => Lane::Message,
        }
    }
}
