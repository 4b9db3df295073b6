//! How nodes talk: identity, membership certificates and join tokens, and streams and gossip over libp2p (TCP, noise,
//! yamux), among members alone.
//!
//! - [`Identity`] is a node's key; [`Certificate`] what the swarm's CA says of it; [`JoinToken`] an invitation.
//! - [`join`] makes a stranger a member; it is the one thing a stranger may speak about.
//! - [`Transport`] is the handle: requests, one-way messages, streams and gossip to and from members, by [`Protocol`].
//!   What arrives comes as [`Incoming`], its sender verified against the member list.
//!
//! One task owns the libp2p swarm (`driver`); everything else reaches it by bounded queues or by shared wishes. Whether a
//! node lives is not decided here: the failure detector has its own datagrams, and says when to redial.

mod byte_stream;
mod certificate;
mod clock;
mod counters;
mod driver;
mod gossip;
mod handle;
mod identity;
pub mod join;
mod lanes;
mod links;
mod members;
pub mod probe;
mod protocol;
mod requests;
mod serve;
mod streams;
mod swarm;
#[cfg(test)]
mod tests;
mod token;
mod wire;

pub use byte_stream::ByteStream;
pub use certificate::{Authority, Certificate, CertificateError, Subject, ca_hash};
pub use counters::{Counters, TrafficCount};
pub use gossip::MAX_GOSSIP_BYTES;
pub use handle::{Config, Transport};
pub use identity::{Identity, PublicKey, node_id, verify};
pub use join::{Admission, Admitted, Candidate, JoinError, JoinRequest, Refusal};
pub use lanes::Unsent;
pub use members::{Member, MemberList, Sender};
pub use protocol::Protocol;
pub use serve::{Incoming, Reply};
pub use swarm::check_listen_addr;
pub use token::{JoinToken, TokenError, TokenSecret};
pub use wire::{MessageReader, MessageStream, MessageWriter, StreamError};

use std::net::SocketAddr;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::spec::NodeId;

/// Why a conversation did not come about or broke off. Whether the other side acted on a request whose answer did not
/// arrive is not known.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("cannot listen on {addr}: {reason}")]
    Listen { addr: SocketAddr, reason: String },
    #[error("node {0} is no member of this swarm, as far as this node knows")]
    NotAMember(NodeId),
    #[error("this node may not speak {} to node {node}: their roles do not allow it", protocol.as_str())]
    NotPermitted { node: NodeId, protocol: Protocol },
    #[error("node {node} cannot be reached: {reason}")]
    Unreachable { node: NodeId, reason: String },
    #[error("node {node} did not take {}: {reason}", protocol.as_str())]
    Refused { node: NodeId, protocol: Protocol, reason: String },
    #[error("node {node} did not answer within {} s", deadline.as_secs_f64())]
    TimedOut { node: NodeId, protocol: Protocol, deadline: Duration },
    #[error("the conversation with node {node} broke off")]
    Broken { node: NodeId, source: StreamError },
    #[error("too many streams wait for a connection to node {0}")]
    Busy(NodeId),
    #[error("the transport is stopped")]
    Stopped,
}

/// A raw stream, and the token that says that its connection was given up.
type Opened = (libp2p::Stream, CancellationToken);
