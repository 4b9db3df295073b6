//! Whether the swarm is as it should be: what is wanted runs, on real (fake) processes, and nothing else does.

use std::collections::{BTreeMap, BTreeSet};

use flok::spec::*;
use flok::state::{NodeHealth, Service, State, Task, UpdateState};

use crate::world::World;

impl World {
    /// The first thing found that is not as it should be.
    pub fn unsettled(&self) -> Option<String> {
        self.unsettled_log().or_else(|| self.unsettled_nodes()).or_else(|| self.unsettled_tasks())
    }

    fn unsettled_log(&self) -> Option<String> {
        let Some(leader) = self.leader() else { return Some("nobody leads".into()) };
        let newest = self.check.reference.applied();
        for at in self.log_holders() {
            let log = self.hosts[at].daemon.as_ref().and_then(|daemon| daemon.log.as_ref()).expect("it holds the log");
            if log.state().applied() + 3 < newest {
                return Some(format!("{} has applied {} of {newest}", self.hosts[at].node, log.state().applied()));
            }
        }
        let leads = self.hosts[leader].daemon.as_ref()?.log.as_ref()?;
        let status = leads.replica.machine().status();
        if status.joint {
            return Some("a membership change is under way".into());
        }
        let voters = status.voters.len();
        let state = &self.check.reference;
        let manages = |at: &usize| state.node(self.hosts[*at].node).is_some_and(|node| node.is_manager());
        let managers = self.members().into_iter().filter(manages).count();
        let wanted = match managers {
            0..=2 => managers,
            more => ((more - 1) | 1).min(7),
        };
        (voters != wanted).then(|| format!("{voters} voters, not {wanted}, of {managers} managers"))
    }

    fn unsettled_nodes(&self) -> Option<String> {
        let state = &self.check.reference;
        for at in self.members() {
            let host = &self.hosts[at];
            let Some(node) = state.node(host.node) else { return Some(format!("{} is no member", host.node)) };
            if host.daemon.is_none() {
                return Some(format!("{} has no daemon", host.node));
            }
            if !matches!(node.health, NodeHealth::Up | NodeHealth::HeldDown { .. }) {
                return Some(format!("{} is {:?}", host.node, node.health));
            }
        }
        let known: BTreeSet<NodeId> = self.members().into_iter().map(|at| self.hosts[at].node).collect();
        let stranger = state.nodes().find(|node| !known.contains(&node.id));
        stranger.map(|node| format!("{} is still a member", node.id))
    }

    fn unsettled_tasks(&self) -> Option<String> {
        let state = &self.check.reference;
        let mut wanted: BTreeSet<(NodeId, TaskId)> = BTreeSet::new();
        for service in state.services() {
            if let Some(why) = self.unsettled_service(state, service, &mut wanted) {
                return Some(format!("service {} ({:?}): {why}", service.spec.name, service.spec.mode));
            }
        }
        let mut running: BTreeSet<(NodeId, TaskId)> = BTreeSet::new();
        let mut ports: BTreeMap<(NodeId, u16), TaskId> = BTreeMap::new();
        for at in self.members() {
            let host = &self.hosts[at];
            running.extend(host.runtime.running().map(|task| (host.node, task)));
            for (task, port) in host.runtime.bound_ports() {
                if let Some(other) = ports.insert((host.node, port.published), task) {
                    return Some(format!("port {} of {} is bound by {task} and {other}", port.published, host.node));
                }
            }
        }
        let surplus = running.difference(&wanted).next();
        surplus.map(|(node, task)| format!("{task} runs on {node}, and nobody wants it: {:?}", state.task(*task)))
    }

    fn unsettled_service(
        &self,
        state: &State,
        service: &Service,
        wanted: &mut BTreeSet<(NodeId, TaskId)>,
    ) -> Option<String> {
        let live: Vec<_> = state.tasks_of_service(service.id).filter(|task| task.is_live()).collect();
        // A port of the host is there once a node.
        let room = if service.spec.endpoint.ports.is_empty() { usize::MAX } else { takers(state) };
        // A task waits for the node that has its data, be it held down, or gone for good.
        let waits = |task: &Task| task.assigned_at.is_none() && waits_for_its_data(state, task);
        let free = live.len() <= room && !live.iter().any(|task| waits(task));
        let update = service.update.as_ref().map(|update| update.state).filter(|_| free);
        if matches!(update, Some(UpdateState::Updating | UpdateState::RollbackStarted)) {
            return Some(format!("is being updated: {:?}", service.update));
        }
        if let Some(job) = service.job {
            let total = match service.spec.mode {
                ServiceMode::ReplicatedJob { total_completions, .. } => total_completions as usize,
                _ => takers(state),
            };
            let done = state.tasks_of_service(service.id).filter(|task| job.counts(task)).count();
            return (done < total || !live.is_empty()).then(|| format!("{done} of {total} done, {} live", live.len()));
        }
        let count = match service.spec.mode {
            ServiceMode::Replicated { replicas } => replicas as usize,
            _ => takers(state),
        };
        if live.len() != count {
            return Some(format!("{} live tasks, not {count}", live.len()));
        }
        let waiting = live.iter().filter(|task| task.assigned_at.is_none() && !task.pending_reason.is_empty()).count();
        let may_wait = waiting == live.len().saturating_sub(room);
        for task in live.into_iter().filter(|task| (!may_wait || task.assigned_at.is_some()) && !waits(task)) {
            let at = task.node.and_then(|node| self.host_of(node));
            let runs = at.is_some_and(|at| self.hosts[at].runtime.running().any(|running| running == task.id));
            if !runs {
                let report = self.leader().and_then(|leader| {
                    let daemon = self.hosts[leader].daemon.as_ref()?;
                    daemon.exchange.table().report(task.node?, task.id).cloned()
                });
                return Some(format!("{task:?} does not run; reported {report:?}"));
            }
            wanted.insert((task.node.expect("it runs somewhere"), task.id));
        }
        None
    }
}

/// Nodes that have a global service's task: all that take any, and those held down that had one.
fn takers(state: &State) -> usize {
    state.nodes().filter(|node| node.takes_tasks()).count()
}

fn waits_for_its_data(state: &State, task: &Task) -> bool {
    let Some(spec) = state.task_spec(task.service, task.spec_version) else { return false };
    let home = |volume: &str| state.volume_home(task.service, task.slot, volume);
    let homes: Vec<NodeId> = spec.named_local_volumes().filter_map(home).collect();
    let away = |home: &NodeId| state.node(*home).is_none_or(|node| !node.takes_tasks());
    spec.volume_policy == VolumePolicy::Wait && homes.iter().any(away)
}
