//! Joining: how a stranger becomes a member. The one conversation that a non-member's connection may have.
//!
//! 1. The joiner says which version it speaks; the member answers with the CA's public key and its own certificate.
//! 2. The joiner checks that the key is the one its token was made for, that the certificate is the CA's and belongs to
//!    the very key the connection is encrypted with, and that the clocks agree. Nothing was revealed so far.
//! 3. It sends the token's secret and what it is; the member's [`Admission`] decides, and answers with a certificate for
//!    the joiner's key, the member list and what else the node needs.
//!
//! A member whose peer does not know it yet shows its certificate in the same way ([`present`]).

mod client;
mod server;

pub(super) use client::present;
pub use client::{Greeting, greet, join};
pub(super) use server::Doorkeeper;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::certificate::{Certificate, CertificateError};
use super::identity::PublicKey;
use super::members::MemberList;
use super::token::TokenSecret;
use super::wire::StreamError;
use crate::spec::{Availability, FeatureLevel, NodeDescription, NodeId, Role, Subnet, SwarmId, UnixMs};

/// Of this conversation. The first message of each side keeps its encoding for ever, so that versions can tell each
/// other that they do not match.
const VERSION: u32 = 2;

/// Clocks may differ by so much: certificates and people's timestamps rest on them, failure detection does not.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(300);

/// What a joiner tells about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinRequest {
    pub description: NodeDescription,
    pub availability: Availability,
    /// The UDP port for the tunnels between nodes that it has found free; 0 where it found none.
    pub data_path_port: u16,
    /// Blocks of addresses that mean something to it already.
    pub reaches: Vec<Subnet>,
}

/// A stranger at the door, its key proven by the connection.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub node: NodeId,
    pub public_key: PublicKey,
    /// Where the connection comes from.
    pub remote: IpAddr,
    pub secret: TokenSecret,
    pub request: JoinRequest,
}

/// What a new member gets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Admitted {
    pub swarm: SwarmId,
    pub ca_public_key: PublicKey,
    /// For the joiner's key.
    pub certificate: Certificate,
    pub role: Role,
    pub members: MemberList,
    /// What else the node wants to know; transport does not look into it.
    pub payload: Vec<u8>,
}

/// Decides who is let in. Implemented by the node, over the log.
///
/// A joiner whose answer got lost asks again with the same key and token: it is to be given the same answer.
pub trait Admission: Send + Sync + 'static {
    fn admit(&self, candidate: Candidate) -> BoxFuture<'_, Result<Admitted, Refusal>>;
}

/// Why a swarm does not let a node in. Nothing was changed in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    #[error(
        "the join token is not valid (any more): `flok swarm join-token worker` or `manager` on a manager prints the present one"
    )]
    WrongToken,
    #[error("the node belongs to another swarm, {0}: run `flok swarm leave --force` on it first")]
    WrongSwarm(SwarmId),
    #[error("the clocks differ by {} s, at most {} s are allowed: set this machine's clock (NTP) and try again", .0.as_secs(), MAX_CLOCK_SKEW.as_secs())]
    ClockOff(Duration),
    #[error("this node is already part of the swarm, as {0}")]
    AlreadyAMember(String),
    #[error("the swarm is at feature level {needed}, this flok knows up to {offered}: install a newer version here")]
    VersionTooOld { needed: FeatureLevel, offered: FeatureLevel },
    #[error(
        "this flok speaks version {offered} of the join protocol, the swarm version {spoken}: install the swarm's version here"
    )]
    ProtocolVersion { spoken: u32, offered: u32 },
    #[error("the swarm has no quorum of managers now and cannot take a new node: {0}")]
    NoQuorum(String),
    #[error("the node asked is no manager")]
    NotAManager { managers: Vec<SocketAddr> },
    #[error("the swarm could not take the node now: {0}. Try again")]
    TryAgain(String),
    /// The joiner looks whether it is free, and asks again.
    #[error("the swarm's nodes need UDP port {0} for the tunnels between them")]
    DataPathPort(u16),
    #[error(
        "this machine reaches {reached} outside of the swarm, and the swarm's network {network} has {subnet}, which would cut it \
         off: make that network anew with another --subnet, or the swarm with another --default-addr-pool"
    )]
    CutOff { reached: Subnet, network: String, subnet: Subnet },
}

/// Why a join failed. The joiner has not changed anything; where the answer got lost the swarm may have admitted it, and
/// joining again with the same data directory gets the same answer.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("no address to join at was given: name a manager's, as `flok swarm join-token` prints it")]
    NoAddress,
    #[error("{addr} cannot be reached: {reason}. Is a flok daemon of the swarm listening there?")]
    Unreachable { addr: SocketAddr, reason: String },
    #[error("{addr} did not answer within {} s", after.as_secs())]
    TimedOut { addr: SocketAddr, after: Duration },
    #[error(
        "{addr} is not of the swarm that the join token was made for: check the address, or get that swarm's token"
    )]
    WrongSwarm { addr: SocketAddr },
    #[error("{addr} could not prove that it is a member of the swarm")]
    NotProven { addr: SocketAddr, source: CertificateError },
    #[error("the clocks of this machine and of {addr} differ by {} s, at most {} s are allowed: set them (NTP) and try again", skew.as_secs(), MAX_CLOCK_SKEW.as_secs())]
    ClockOff { addr: SocketAddr, skew: Duration },
    #[error("{addr} is a member that this node may not trust: {reason}")]
    NotAdmitted { addr: SocketAddr, reason: String },
    #[error("{refusal}")]
    Refused { addr: SocketAddr, refusal: Refusal },
    #[error("the conversation with {addr} broke off")]
    Broken { addr: SocketAddr, source: StreamError },
    #[error("{addr} answered something else than was asked: is it a flok daemon of this version?")]
    Unexpected { addr: SocketAddr },
}

/// The first message of the side that dialed.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    version: u32,
}

/// The first answer.
#[derive(Debug, Serialize, Deserialize)]
enum Welcome {
    Member { ca_public_key: PublicKey, certificate: Certificate, now: UnixMs },
    Refused(Refusal),
}

#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Join {
        secret: TokenSecret,
        request: Box<JoinRequest>,
    },
    /// A member shows its certificate to one that does not list it yet, and says where it listens.
    Present {
        certificate: Certificate,
        addr: SocketAddr,
    },
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Admitted(Box<Admitted>),
    Known,
    Refused(Refusal),
    NotKnown(String),
    /// The certificate is older than a member list that does not hold its owner: the node was removed.
    NoMember,
}

/// Why showing its certificate did not help a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotRecognised {
    #[error("it was removed from the swarm")]
    Removed,
    #[error("{0}")]
    Other(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::codec;

    #[test]
    fn the_first_messages_keep_their_bytes() {
        assert_eq!(codec::encode(&Hello { version: 1 }), [1]);
        let refused = Welcome::Refused(Refusal::ProtocolVersion { spoken: 2, offered: 1 });
        assert_eq!(codec::encode(&refused), [1, 5, 2, 1]);
    }

    /// Reads the bytes, and what was read once more.
    fn read<T: Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) {
        if let Ok(value) = codec::decode::<T>(bytes) {
            let written = codec::encode(&value);
            assert_eq!(codec::encode(&codec::decode::<T>(&written).unwrap()), written);
        }
    }

    #[test]
    fn what_strangers_say_is_read_or_refused() {
        bolero::check!().with_iterations(2000).for_each(|bytes: &[u8]| {
            read::<Hello>(bytes);
            read::<Welcome>(bytes);
            read::<Request>(bytes);
            read::<Answer>(bytes);
            // Past the first byte, which says what it is.
            for kind in 0..4 {
                let bytes = [&[kind], bytes].concat();
                read::<Welcome>(&bytes);
                read::<Request>(&bytes);
                read::<Answer>(&bytes);
            }
        });
    }
}
