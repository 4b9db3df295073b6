//! Who is let into the swarm: the log decides, any manager that holds it answers.

#[cfg(test)]
mod tests;

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::roster::member_list;
use crate::consensus::{Consensus, ProposeError};
use crate::node::clock;
use crate::spec::*;
use crate::state::{self, Command, Meta, Node, NodeHealth, State, Swarm};
use crate::transport::{Admission, Admitted, Authority, Candidate, Certificate, Refusal, Subject};

/// Renews and issues membership certificates, and admits.
pub struct Doorkeeper {
    pub log: watch::Receiver<Option<Consensus>>,
}

impl Admission for Doorkeeper {
    fn admit(&self, candidate: Candidate) -> BoxFuture<'_, Result<Admitted, Refusal>> {
        async move {
            let log = self.log.borrow().clone();
            match log {
                Some(log) => admit(&log, candidate).await,
                None => Err(Refusal::NotAManager { managers: Vec::new() }),
            }
        }
        .boxed()
    }
}

async fn admit(log: &Consensus, candidate: Candidate) -> Result<Admitted, Refusal> {
    let read = log.read().await.map_err(|error| Refusal::NoQuorum(error.to_string()))?;
    let swarm = read.swarm().ok_or_else(|| Refusal::TryAgain("it has no state yet".into()))?;
    let secret = &candidate.secret;
    let role = secret.role(&swarm.worker_token, &swarm.manager_token).ok_or(Refusal::WrongToken)?;
    let offered = candidate.request.description.feature_level;
    if offered < swarm.feature_level {
        return Err(Refusal::VersionTooOld { needed: swarm.feature_level, offered });
    }
    refuse_taken_name(&read, &candidate)?;
    // Before anything is written: a node without its tunnels is none.
    let data_path_port = swarm.spec.data_path_port;
    if candidate.request.data_path_port != data_path_port {
        return Err(Refusal::DataPathPort(data_path_port));
    }
    refuse_cut_off(&read, &candidate)?;

    let node = Box::new(new_node(&candidate, role));
    let id = node.id;
    match log.propose(Command::AdmitNode { node }).await {
        Ok(Ok(_)) => {}
        Ok(Err(state::Refusal::AlreadyExists(name))) => return Err(Refusal::AlreadyAMember(name)),
        Ok(Err(refusal)) => return Err(Refusal::TryAgain(refusal.to_string())),
        Err(error @ ProposeError::NoQuorum { .. }) => return Err(Refusal::NoQuorum(error.to_string())),
        Err(error) => return Err(Refusal::TryAgain(error.to_string())),
    }
    let state = log.state();
    let swarm = state.swarm().ok_or_else(|| Refusal::TryAgain("its state is gone".into()))?;
    let member = state.node(id).ok_or_else(|| Refusal::TryAgain("the node was removed again".into()))?;
    Ok(Admitted {
        swarm: swarm.id,
        ca_public_key: swarm.ca_public_key,
        certificate: certificate(swarm, member, clock::unix())
            .ok_or_else(|| Refusal::TryAgain("the CA's key is damaged".into()))?,
        role: member.spec.role,
        members: member_list(&state),
        payload: Vec::new(),
    })
}

/// Two machines that share a key are one node to the swarm: the second is refused while the first is up.
fn refuse_taken_name(state: &State, candidate: &Candidate) -> Result<(), Refusal> {
    let known = state.node(candidate.node);
    match known {
        Some(node) if node.health == NodeHealth::Up && node.description.addr != addr_of(candidate) => {
            Err(Refusal::AlreadyAMember(format!("{} at {}", node.name(), node.description.addr)))
        }
        _ => Ok(()),
    }
}

/// A network's routes would take from the newcomer what it reaches today.
fn refuse_cut_off(state: &State, candidate: &Candidate) -> Result<(), Refusal> {
    for reached in &candidate.request.reaches {
        if let Some((subnet, network)) = state.overlapping(reached) {
            let network = state.network(network).map_or_else(|| network.to_string(), |found| found.spec.name.clone());
            return Err(Refusal::CutOff { reached: *reached, network, subnet });
        }
    }
    Ok(())
}

fn addr_of(candidate: &Candidate) -> std::net::IpAddr {
    let told = candidate.request.description.addr;
    if told.is_unspecified() { candidate.remote } else { told }
}

fn new_node(candidate: &Candidate, role: Role) -> Node {
    let mut description = candidate.request.description.clone();
    description.addr = addr_of(candidate);
    let now = clock::unix();
    Node {
        id: candidate.node,
        meta: Meta { version: Version(0), created_at: now, updated_at: now },
        spec: NodeSpec { name: None, labels: Labels::new(), role, availability: candidate.request.availability },
        public_key: candidate.public_key,
        description,
        raft: None,
        health: NodeHealth::Unknown,
        flaps: 0,
    }
}

/// The next certificate of a member, where it is due: at the start, whenever its role changed, and in time before the one
/// it has expires. `held` is the role of that one, and when it is to be renewed.
pub fn renewal(state: &State, id: NodeId, held: Option<(Role, UnixMs)>, now: UnixMs) -> Option<Certificate> {
    let (swarm, node) = (state.swarm()?, state.node(id)?);
    if held.is_some_and(|(role, at)| role == node.spec.role && now < at) {
        return None;
    }
    certificate(swarm, node, now)
}

/// A certificate for a member as the log has it.
pub fn certificate(swarm: &Swarm, node: &Node, now: UnixMs) -> Option<Certificate> {
    let secret: [u8; 32] = swarm.ca_secret_key.0.as_slice().try_into().ok()?;
    let authority = Authority::from_secret(swarm.id, &secret);
    let subject =
        Subject { public_key: node.public_key, role: node.spec.role, membership_version: swarm.membership_version };
    Some(authority.issue(subject, now, swarm.spec.cert_expiry))
}

/// How long a join may take from the joiner's side.
pub const JOIN_DEADLINE: Duration = Duration::from_secs(20);
