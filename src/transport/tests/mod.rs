//! Transports of one process on loopback: what members can say to one another, and what nobody else can.

mod joining;
mod strangers;
mod talking;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::spec::{Role, SwarmId, UnixMs, Version};

/// Far more than anything here takes: a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

fn authority() -> Authority {
    Authority::from_secret(SwarmId(77), &[200; 32])
}

fn identity(seed: u8) -> Identity {
    Identity::from_secret(&[seed; 32])
}

fn certificate(seed: u8, role: Role, version: u64) -> Certificate {
    let subject = Subject { public_key: identity(seed).public_key(), role, membership_version: Version(version) };
    authority().issue(subject, clock::unix_now(), Duration::from_secs(3600))
}

/// One node's transport, with its arrivals.
struct Node {
    seed: u8,
    role: Role,
    transport: Transport,
    incoming: mpsc::Receiver<Incoming>,
}

impl Node {
    async fn start(seed: u8, role: Role) -> Node {
        Node::start_with(seed, role, MemberList::default(), None).await
    }

    async fn start_with(seed: u8, role: Role, members: MemberList, admission: Option<Arc<dyn Admission>>) -> Node {
        let config = Config {
            identity: identity(seed),
            listen: ([127, 0, 0, 1], 0).into(),
            advertise: None,
            ca_public_key: authority().public_key(),
            certificate: certificate(seed, role, 1),
            members,
            admission,
        };
        let (transport, incoming) = Transport::start(config).await.unwrap();
        Node { seed, role, transport, incoming }
    }

    fn id(&self) -> NodeId {
        self.transport.local_node()
    }

    fn member(&self) -> Member {
        Member {
            node: self.id(),
            public_key: identity(self.seed).public_key(),
            role: self.role,
            log_holder: self.role == Role::Manager,
            addr: self.transport.local_addr(),
        }
    }

    async fn next(&mut self) -> Incoming {
        timeout(PATIENCE, self.incoming.recv()).await.expect("something arrives").expect("the transport runs")
    }

    /// The next arrival that `pick` wants; others are dropped.
    async fn until<T>(&mut self, mut pick: impl FnMut(Incoming) -> Option<T>) -> T {
        loop {
            if let Some(picked) = pick(self.next().await) {
                return picked;
            }
        }
    }

    async fn is_connected_to(&self, other: &Node) {
        let mut connected = self.transport.connected();
        timeout(PATIENCE, connected.wait_for(|nodes| nodes.contains(&other.id()))).await.unwrap().unwrap();
    }

    async fn is_disconnected_from(&self, other: &Node) {
        let mut connected = self.transport.connected();
        timeout(PATIENCE, connected.wait_for(|nodes| !nodes.contains(&other.id()))).await.unwrap().unwrap();
    }

    /// Answers every request with itself from now on.
    fn echo(mut self) -> Transport {
        let transport = self.transport.clone();
        tokio::spawn(async move {
            while let Some(incoming) = self.incoming.recv().await {
                if let Incoming::Request { request, reply, .. } = incoming {
                    reply.answer(request);
                }
            }
        });
        transport
    }

    async fn ask(&self, other: NodeId, protocol: Protocol) -> Result<Bytes, TransportError> {
        self.transport.request(other, protocol, Bytes::from_static(b"hello"), PATIENCE).await
    }
}

fn list(version: u64, nodes: &[&Node]) -> MemberList {
    MemberList { version: Version(version), members: nodes.iter().map(|node| node.member()).collect() }
}

/// Gives all of them the list of all of them.
fn acquaint(version: u64, nodes: &[&Node]) {
    for node in nodes {
        assert!(node.transport.set_members(list(version, nodes)));
    }
}

async fn managers(seeds: &[u8]) -> Vec<Node> {
    let mut nodes = Vec::new();
    for seed in seeds {
        nodes.push(Node::start(*seed, Role::Manager).await);
    }
    acquaint(1, &nodes.iter().collect::<Vec<_>>());
    nodes
}

/// Publishes until somebody has heard it: subscriptions travel on their own.
async fn gossip_reaches(from: &Node, to: &mut Node) {
    let author = from.id();
    let transport = from.transport.clone();
    let publishing = tokio::spawn(async move {
        for round in 0u32.. {
            transport.publish(Bytes::copy_from_slice(&round.to_be_bytes()));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    to.until(|incoming| matches!(incoming, Incoming::Gossip { author: a, .. } if a.node == author).then_some(())).await;
    publishing.abort();
}

fn nobody() -> BTreeSet<NodeId> {
    BTreeSet::new()
}

fn long_ago() -> UnixMs {
    UnixMs(1_000_000_000)
}
