//! Members: admitting, changing and removing them, and the swarm's decisions about them.

use super::{At, check_version, not_found};
use crate::spec::*;
use crate::state::{Node, NodeHealth, RaftMember, RaftStanding, Refusal, State};

impl State {
    /// A new member as given, or a known one that joins again with the same key: then the token it showed decides its
    /// role, its description is renewed, and what the operator set stays.
    pub(super) fn admit_node(&mut self, node: &Node, at: At) -> Result<(), Refusal> {
        node.spec.validate()?;
        let level = self.feature_level();
        if node.description.feature_level < level {
            return Err(Refusal::Precondition(format!(
                "node {} knows feature levels up to {}, the swarm is at {level}: upgrade flok on it, then join",
                node.name(),
                node.description.feature_level
            )));
        }
        let admitted = match self.nodes.get(&node.id) {
            None => {
                self.check_raft_id(node.id, node.raft)?;
                Node { meta: at.created(), ..node.clone() }
            }
            Some(known) => {
                self.check_demotion(known, node.spec.role)?;
                let mut known = known.as_ref().clone();
                known.spec.role = node.spec.role;
                known.public_key = node.public_key;
                known.description = node.description.clone();
                if matches!(known.health, NodeHealth::Left { .. }) {
                    known.health = NodeHealth::Unknown;
                }
                at.changed(&mut known.meta);
                known
            }
        };
        self.put_node(admitted);
        self.membership_changed(at);
        Ok(())
    }

    pub(super) fn update_node(&mut self, id: NodeId, version: Version, spec: &NodeSpec, at: At) -> Result<(), Refusal> {
        let node = self.nodes.get(&id).ok_or_else(|| not_found("node", id))?;
        check_version(node.meta.version, version)?;
        spec.validate()?;
        self.check_demotion(node, spec.role)?;
        let mut node = node.as_ref().clone();
        let role_changed = node.spec.role != spec.role;
        node.spec = spec.clone();
        at.changed(&mut node.meta);
        self.put_node(node);
        if role_changed {
            self.membership_changed(at);
        }
        Ok(())
    }

    /// Its tasks are final with it; whoever wants them runs them elsewhere.
    pub(super) fn remove_node(&mut self, id: NodeId, force: bool, at: At) -> Result<(), Refusal> {
        let node = self.nodes.get(&id).ok_or_else(|| not_found("node", id))?;
        let gone = matches!(node.health, NodeHealth::Down { .. } | NodeHealth::Left { .. });
        if !gone && node.is_manager() && self.has_manager_beside(id) {
            let name = node.name();
            return Err(Refusal::Precondition(format!(
                "node {name} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before \
                 removal: flok node demote {name}"
            )));
        }
        if !gone && !force {
            return Err(Refusal::Precondition(format!(
                "node {} is not down and can't be removed: drain it and let it leave first, or use --force",
                node.name()
            )));
        }
        if node.is_manager() && !self.has_manager_beside(id) {
            return Err(Refusal::Precondition(format!(
                "node {} is the last manager of the swarm: promote another node first",
                node.name()
            )));
        }
        self.check_vote(node)?;
        let tasks: Vec<TaskId> = self.tasks_of_node(id).filter(|t| t.outcome.is_none()).map(|t| t.id).collect();
        for task in tasks {
            self.orphan(task, "node was removed", at);
        }
        self.nodes.remove(&id);
        self.membership_changed(at);
        Ok(())
    }

    pub(super) fn set_node_health(
        &mut self,
        id: NodeId,
        health: NodeHealth,
        flaps: u32,
        at: At,
    ) -> Result<(), Refusal> {
        self.change_node(id, at, |node| {
            node.health = health;
            node.flaps = flaps;
        })
    }

    pub(super) fn describe_node(&mut self, id: NodeId, description: &NodeDescription, at: At) -> Result<(), Refusal> {
        let node = self.nodes.get(&id).ok_or_else(|| not_found("node", id))?;
        let address = |d: &NodeDescription| (d.addr, d.transport_port, d.probe_port);
        let moved = address(&node.description) != address(description);
        self.change_node(id, at, |node| node.description = description.clone())?;
        if moved {
            self.membership_changed(at);
        }
        Ok(())
    }

    pub(super) fn set_raft(&mut self, id: NodeId, raft: Option<RaftMember>, at: At) -> Result<(), Refusal> {
        if !self.nodes.contains_key(&id) {
            return Err(not_found("node", id));
        }
        self.check_raft_id(id, raft)?;
        self.change_node(id, at, |node| node.raft = raft)
    }

    /// A raft id that no node ever had.
    pub fn next_raft_id(&self) -> u64 {
        self.last_raft_id + 1
    }

    fn check_raft_id(&self, id: NodeId, raft: Option<RaftMember>) -> Result<(), Refusal> {
        let Some(raft) = raft else { return Ok(()) };
        let own = self.nodes.get(&id).and_then(|node| node.raft).map(|own| own.raft_id);
        if own != Some(raft.raft_id) && raft.raft_id <= self.last_raft_id {
            return Err(Refusal::Precondition(format!("raft id {} was given before", raft.raft_id)));
        }
        Ok(())
    }

    /// A voter that is alive is not cut out of the log: it would count towards the quorum, and perhaps lead, while
    /// nobody listens to it any more. The others first take its place; one with a verdict counts for nothing already.
    fn check_vote(&self, node: &Node) -> Result<(), Refusal> {
        if node.raft.is_none_or(|raft| raft.standing != RaftStanding::Voter) {
            return Ok(());
        }
        let name = node.name();
        match node.health {
            NodeHealth::Down { .. } => Ok(()),
            NodeHealth::Left { .. } => Err(Refusal::Precondition(format!(
                "node {name} has left and still votes in the swarm's log: another manager takes its place, try again in a \
                 moment"
            ))),
            _ => Err(Refusal::Precondition(format!(
                "node {name} votes in the swarm's log: demote it first (flok node demote {name}), or let it leave"
            ))),
        }
    }

    fn check_demotion(&self, node: &Node, to: Role) -> Result<(), Refusal> {
        if node.is_manager() && to == Role::Worker && !self.has_manager_beside(node.id) {
            return Err(Refusal::Precondition(
                "attempting to demote the last manager of the swarm: promote another node first".into(),
            ));
        }
        Ok(())
    }

    /// Another manager that the swarm does not know to be gone.
    fn has_manager_beside(&self, id: NodeId) -> bool {
        let gone = |node: &Node| matches!(node.health, NodeHealth::Down { .. } | NodeHealth::Left { .. });
        self.nodes().any(|node| node.id != id && node.is_manager() && !gone(node))
    }

    fn change_node(&mut self, id: NodeId, at: At, change: impl FnOnce(&mut Node)) -> Result<(), Refusal> {
        let mut node = self.nodes.get(&id).ok_or_else(|| not_found("node", id))?.as_ref().clone();
        change(&mut node);
        at.changed(&mut node.meta);
        self.put_node(node);
        Ok(())
    }
}
