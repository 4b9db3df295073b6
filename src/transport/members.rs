//! Who may speak: the member list as the log (or a manager's stream) gives it, and the decision about each connection.
//!
//! One [`Roster`] is shared by the swarm task, the connections and the streams. It is asked for every inbound stream
//! and for every message, so a removed node is cut off with the next word it says, whatever its connections do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{PoisonError, RwLock};

use libp2p::PeerId;
use serde::{Deserialize, Serialize};

use super::certificate::{Certificate, CertificateError};
use super::clock;
use super::identity::{self, Identity, PublicKey};
use super::protocol::Protocol;
use crate::spec::{NodeId, Role, SwarmId, Version};

/// A member of the swarm, as much of it as transport needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub node: NodeId,
    pub public_key: PublicKey,
    pub role: Role,
    /// Holds the log, as voter or standby.
    pub log_holder: bool,
    /// Where its transport listens.
    pub addr: SocketAddr,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemberList {
    /// Version zero with no members: no list is held, certificates decide.
    pub version: Version,
    pub members: Vec<Member>,
}

/// A verified correspondent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    pub node: NodeId,
    pub role: Role,
    pub log_holder: bool,
}

/// Why a certificate did not admit its holder.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotAdmitted {
    #[error("its certificate does not count")]
    Certificate(#[from] CertificateError),
    #[error("the member list of version {list}, newer than its certificate, does not hold it")]
    NoMember { list: Version },
}

#[derive(Debug)]
pub(super) struct Roster {
    local: NodeId,
    swarm: SwarmId,
    ca: PublicKey,
    inner: RwLock<Inner>,
}

#[derive(Debug)]
struct Inner {
    version: Version,
    local_role: Role,
    members: BTreeMap<NodeId, Member>,
    nodes: BTreeMap<PeerId, NodeId>,
    /// Admitted by a certificate newer than the list; forgotten when the list has caught up with it.
    guests: BTreeMap<NodeId, (Version, Member)>,
}

impl Roster {
    pub(super) fn new(identity: &Identity, certificate: &Certificate, ca: PublicKey, list: MemberList) -> Roster {
        let inner = Inner {
            version: Version(0),
            local_role: certificate.role,
            members: BTreeMap::new(),
            nodes: BTreeMap::new(),
            guests: BTreeMap::new(),
        };
        let roster = Roster { local: identity.node(), swarm: certificate.swarm, ca, inner: RwLock::new(inner) };
        roster.replace(list);
        roster
    }

    /// Takes a list, unless it is older than the one held. Members whose id or key does not hold are left out.
    pub(super) fn replace(&self, list: MemberList) -> bool {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if list.version < inner.version {
            return false;
        }
        inner.version = list.version;
        inner.members.clear();
        for member in list.members {
            if identity::node_id(&member.public_key) == member.node {
                inner.members.insert(member.node, member);
            }
        }
        if let Some(local) = inner.members.get(&self.local) {
            inner.local_role = local.role;
        }
        let Inner { guests, members, .. } = &mut *inner;
        guests.retain(|node, (issued, _)| *issued > list.version && !members.contains_key(node));
        inner.index();
        true
    }

    /// Admits the holder of a certificate which is newer than the list, at the address it is known to have.
    ///
    /// Expiry binds only where no list is held: a swarm that was switched off for a year has a list, and comes back.
    pub(super) fn admit(&self, certificate: &Certificate, addr: SocketAddr) -> Result<(), NotAdmitted> {
        certificate.verify(&self.ca)?;
        if certificate.swarm != self.swarm {
            return Err(CertificateError::WrongSwarm(certificate.swarm).into());
        }
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if inner.members.contains_key(&certificate.node) {
            return Ok(());
        }
        if inner.members.is_empty() {
            certificate.check_time(clock::unix_now())?;
        } else if certificate.membership_version <= inner.version {
            return Err(NotAdmitted::NoMember { list: inner.version });
        }
        let guest = Member {
            node: certificate.node,
            public_key: certificate.public_key,
            role: certificate.role,
            log_holder: false,
            addr,
        };
        inner.guests.insert(guest.node, (certificate.membership_version, guest));
        inner.index();
        Ok(())
    }

    pub(super) fn swarm(&self) -> SwarmId {
        self.swarm
    }

    pub(super) fn ca(&self) -> PublicKey {
        self.ca
    }

    pub(super) fn local_role(&self) -> Role {
        self.read(|inner| inner.local_role)
    }

    pub(super) fn sender(&self, peer: &PeerId) -> Option<Sender> {
        self.read(|inner| inner.by_peer(peer).map(Sender::from))
    }

    /// Who is at the other end and may speak `protocol` to this node.
    pub(super) fn speaker(&self, peer: &PeerId, protocol: Protocol) -> Option<Sender> {
        self.read(|inner| {
            let member = inner.by_peer(peer)?;
            protocol.permits(member.role, inner.local_role).then(|| Sender::from(member))
        })
    }

    /// Whether this node may speak `protocol` to another.
    pub(super) fn may_address(&self, node: NodeId, protocol: Protocol) -> bool {
        self.read(|inner| inner.member(node).is_some_and(|member| protocol.permits(inner.local_role, member.role)))
    }

    pub(super) fn member(&self, node: NodeId) -> Option<Member> {
        self.read(|inner| inner.member(node).cloned())
    }

    pub(super) fn managers(&self) -> Vec<SocketAddr> {
        self.read(|inner| inner.members.values().filter(|m| m.role == Role::Manager).map(|m| m.addr).collect())
    }

    fn read<T>(&self, look: impl FnOnce(&Inner) -> T) -> T {
        look(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inner {
    fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node).or_else(|| self.guests.get(&node).map(|(_, guest)| guest))
    }

    fn by_peer(&self, peer: &PeerId) -> Option<&Member> {
        self.member(*self.nodes.get(peer)?)
    }

    fn index(&mut self) {
        let guests = self.guests.values().map(|(_, guest)| guest);
        let all = self.members.values().chain(guests);
        self.nodes = all.filter_map(|m| Some((identity::peer_id(&m.public_key)?, m.node))).collect();
    }
}

impl From<&Member> for Sender {
    fn from(member: &Member) -> Sender {
        Sender { node: member.node, role: member.role, log_holder: member.log_holder }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::spec::UnixMs;
    use crate::transport::certificate::{Authority, Subject};

    struct Swarm {
        ca: Authority,
        roster: Roster,
    }

    fn key(seed: u8) -> Identity {
        Identity::from_secret(&[seed; 32])
    }

    fn member(seed: u8, role: Role) -> Member {
        let key = key(seed);
        Member {
            node: key.node(),
            public_key: key.public_key(),
            role,
            log_holder: role == Role::Manager,
            addr: ([127, 0, 0, 1], 1000 + u16::from(seed)).into(),
        }
    }

    fn list(version: u64, members: &[Member]) -> MemberList {
        MemberList { version: Version(version), members: members.to_vec() }
    }

    fn certificate(ca: &Authority, seed: u8, version: u64, now: UnixMs) -> Certificate {
        let subject =
            Subject { public_key: key(seed).public_key(), role: Role::Manager, membership_version: Version(version) };
        ca.issue(subject, now, Duration::from_secs(24 * 3600))
    }

    /// Node 1, a manager, with `list`.
    fn swarm(list: MemberList) -> Swarm {
        let ca = Authority::from_secret(SwarmId(1), &[99; 32]);
        let own = certificate(&ca, 1, 1, clock::unix_now());
        let roster = Roster::new(&key(1), &own, ca.public_key(), list);
        Swarm { ca, roster }
    }

    fn speaks(roster: &Roster, seed: u8, protocol: Protocol) -> bool {
        roster.speaker(&key(seed).peer(), protocol).is_some()
    }

    #[test]
    fn a_member_speaks_as_its_role_allows_and_a_stranger_not_at_all() {
        let members = [member(1, Role::Manager), member(2, Role::Manager), member(3, Role::Worker)];
        let Swarm { roster, .. } = swarm(list(5, &members));
        assert!(speaks(&roster, 2, Protocol::Raft));
        assert!(!speaks(&roster, 3, Protocol::Raft));
        assert!(speaks(&roster, 3, Protocol::Dispatch));
        assert!(Protocol::ALL.into_iter().all(|protocol| !speaks(&roster, 4, protocol)));
    }

    #[test]
    fn an_older_list_does_not_bring_a_removed_node_back() {
        let both = [member(1, Role::Manager), member(2, Role::Manager)];
        let Swarm { roster, .. } = swarm(list(5, &both));
        assert!(roster.replace(list(6, &both[..1])));
        assert!(!roster.replace(list(5, &both)));
        assert!(!speaks(&roster, 2, Protocol::Raft));
    }

    #[test]
    fn a_key_that_does_not_match_its_node_is_left_out() {
        let forged = Member { public_key: key(3).public_key(), ..member(2, Role::Manager) };
        let Swarm { roster, .. } = swarm(list(5, &[member(1, Role::Manager), forged]));
        assert!(!speaks(&roster, 2, Protocol::Raft) && !speaks(&roster, 3, Protocol::Raft));
    }

    #[test]
    fn a_lagging_node_admits_by_a_newer_certificate_until_its_list_is_newer_still() {
        let Swarm { ca, roster } = swarm(list(5, &[member(1, Role::Manager)]));
        let addr = ([127, 0, 0, 1], 7).into();
        let now = clock::unix_now();
        assert!(roster.admit(&certificate(&ca, 2, 5, now), addr).is_err(), "the list would hold it");
        roster.admit(&certificate(&ca, 2, 6, now), addr).unwrap();
        assert!(speaks(&roster, 2, Protocol::Raft));
        roster.replace(list(6, &[member(1, Role::Manager)]));
        assert!(!speaks(&roster, 2, Protocol::Raft));
    }

    #[test]
    fn expiry_binds_only_where_no_list_is_held() {
        let addr = ([127, 0, 0, 1], 7).into();
        let long_ago = UnixMs(1_000_000_000);
        let Swarm { ca, roster } = swarm(list(5, &[member(1, Role::Manager)]));
        assert!(roster.admit(&certificate(&ca, 2, 6, long_ago), addr).is_ok());
        let Swarm { ca, roster } = swarm(MemberList::default());
        assert!(roster.admit(&certificate(&ca, 2, 6, long_ago), addr).is_err());
        assert!(roster.admit(&certificate(&ca, 2, 6, clock::unix_now()), addr).is_ok());
    }

    #[test]
    fn a_certificate_of_another_ca_admits_nobody() {
        let Swarm { roster, .. } = swarm(MemberList::default());
        let other = Authority::from_secret(SwarmId(1), &[98; 32]);
        let addr = ([127, 0, 0, 1], 7).into();
        assert!(roster.admit(&certificate(&other, 2, 6, clock::unix_now()), addr).is_err());
    }
}
