//! What nodes speak about: the protocols, who may speak each, and how large a message may be.

use libp2p::StreamProtocol;
use serde::{Deserialize, Serialize};

use crate::spec::Role;

/// A subject of conversation between two nodes; each has its own streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// Raft messages.
    Raft,
    /// Commands and reads on their way to the leader.
    Forward,
    /// What a node must know: assignments, secrets, endpoints.
    Dispatch,
    /// Gossip's repair: digests and records.
    Repair,
    /// Alarms and refutations of the failure detector.
    Alarm,
    /// Member lists and certificate renewal.
    Members,
    /// Snapshots and images, on a connection of their own.
    Bulk,
    /// Joining: the one thing a stranger may speak about.
    Join,
    /// Task logs.
    Logs,
    /// How a node's network stands.
    Doctor,
    /// A manager's requests about what is on the node, as bytes.
    Call,
}

/// Which of the connections to a node carries a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    Main,
    Bulk,
}

impl Protocol {
    pub const ALL: [Protocol; 11] = [
        Protocol::Raft,
        Protocol::Forward,
        Protocol::Dispatch,
        Protocol::Repair,
        Protocol::Alarm,
        Protocol::Members,
        Protocol::Bulk,
        Protocol::Join,
        Protocol::Logs,
        Protocol::Doctor,
        Protocol::Call,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Raft => "/flok/raft/1",
            Protocol::Forward => "/flok/forward/1",
            Protocol::Dispatch => "/flok/dispatch/1",
            Protocol::Repair => "/flok/repair/1",
            Protocol::Alarm => "/flok/alarm/1",
            Protocol::Members => "/flok/members/1",
            Protocol::Bulk => "/flok/bulk/1",
            Protocol::Join => "/flok/join/1",
            Protocol::Logs => "/flok/logs/1",
            Protocol::Doctor => "/flok/doctor/1",
            Protocol::Call => "/flok/call/1",
        }
    }

    /// Most bytes of one message. Raft's entries and messages are bounded below this by consensus; a snapshot goes in
    /// pieces.
    pub const fn max_message_bytes(self) -> usize {
        match self {
            Protocol::Raft => 16 << 20,
            Protocol::Forward | Protocol::Dispatch | Protocol::Repair | Protocol::Members => 8 << 20,
            Protocol::Join => 8 << 20,
            Protocol::Bulk => 4 << 20,
            Protocol::Alarm | Protocol::Call => 64 << 10,
            Protocol::Logs | Protocol::Doctor => 1 << 20,
        }
    }

    /// Whether a node in the role `from` may address one in the role `to`.
    ///
    /// Raft asks for managers, not for log holders by name: a holder that lags does not know yet who else holds the
    /// log, and the one that it lags behind may be the only one who can tell it. A worker never holds it.
    pub fn permits(self, from: Role, to: Role) -> bool {
        let managers = (from == Role::Manager, to == Role::Manager);
        match self {
            Protocol::Join => true,
            Protocol::Bulk => true,
            Protocol::Raft | Protocol::Forward => managers == (true, true),
            Protocol::Dispatch => managers.1,
            Protocol::Call => managers.0,
            Protocol::Repair | Protocol::Alarm | Protocol::Members | Protocol::Logs | Protocol::Doctor => {
                managers != (false, false)
            }
        }
    }

    pub(super) fn lane(self) -> Lane {
        match self {
            Protocol::Bulk | Protocol::Logs | Protocol::Call => Lane::Bulk,
            _ => Lane::Main,
        }
    }

    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// What a stream is opened for: a protocol, or to say that the connection it is on is the peers' main one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    Link,
    Of(Protocol),
}

const LINK: &str = "/flok/link/1";

impl Topic {
    pub(super) fn name(self) -> StreamProtocol {
        StreamProtocol::new(match self {
            Topic::Link => LINK,
            Topic::Of(protocol) => protocol.as_str(),
        })
    }

    pub(super) fn from_name(name: &StreamProtocol) -> Option<Topic> {
        if name.as_ref() == LINK {
            return Some(Topic::Link);
        }
        Protocol::ALL.into_iter().find(|p| p.as_str() == name.as_ref()).map(Topic::Of)
    }
}

/// How a stream of a protocol is used; its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Messages one way, in order.
    Send = 1,
    /// One request, one answer, and again.
    Ask = 2,
    /// Both sides as they like.
    Open = 3,
}

impl Mode {
    pub(super) fn from_byte(byte: u8) -> Option<Mode> {
        [Mode::Send, Mode::Ask, Mode::Open].into_iter().find(|mode| *mode as u8 == byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_found_by_its_name() {
        for protocol in Protocol::ALL {
            assert_eq!(Topic::from_name(&Topic::Of(protocol).name()), Some(Topic::Of(protocol)));
            assert_eq!(Protocol::ALL[protocol.index()], protocol);
        }
        assert_eq!(Topic::from_name(&Topic::Link.name()), Some(Topic::Link));
        assert_eq!(Topic::from_name(&StreamProtocol::new("/meshsub/1.1.0")), None);
    }

    #[test]
    fn a_worker_speaks_neither_raft_nor_commands() {
        for protocol in [Protocol::Raft, Protocol::Forward] {
            assert!(protocol.permits(Role::Manager, Role::Manager));
            assert!(!protocol.permits(Role::Worker, Role::Manager));
            assert!(!protocol.permits(Role::Manager, Role::Worker));
        }
    }

    #[test]
    fn workers_get_their_assignments_from_managers_alone() {
        assert!(Protocol::Dispatch.permits(Role::Worker, Role::Manager));
        assert!(!Protocol::Dispatch.permits(Role::Worker, Role::Worker));
        assert!(!Protocol::Alarm.permits(Role::Worker, Role::Worker));
    }

    #[test]
    fn managers_call_any_node_and_workers_call_none() {
        for to in [Role::Manager, Role::Worker] {
            assert!(Protocol::Call.permits(Role::Manager, to));
            assert!(!Protocol::Call.permits(Role::Worker, to));
        }
    }
}
