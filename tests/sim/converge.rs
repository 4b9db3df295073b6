//! Whether the swarm is as it should be: what is wanted runs, on real (fake) processes, and nothing else does.

use std::collections::{BTreeMap, BTreeSet};

use flok::spec::constraint::Constraint;
use flok::spec::*;
use flok::state::{CronStatus, Node, NodeHealth, Service, State, Task, UpdateState};

use crate::world::{World, clocks};

/// From a schedule's point to the entry in which it is dealt with.
const POINT_WITHIN: std::time::Duration = std::time::Duration::from_secs(3);

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

    /// With a leader, a point is dealt with at once, or waits for a run to end.
    fn overdue(&self, cron: &CronStatus) -> Option<String> {
        let now = clocks(self.now, &self.hosts[self.leader()?]).unix;
        let overdue = cron.next.is_none_or(|next| now - next > POINT_WITHIN);
        (overdue && cron.open.is_empty()).then(|| format!("a run is overdue at {now:?}: {cron:?}"))
    }

    fn unsettled_service(
        &self,
        state: &State,
        service: &Service,
        wanted: &mut BTreeSet<(NodeId, TaskId)>,
    ) -> Option<String> {
        let live: Vec<_> = state.tasks_of_service(service.id).filter(|task| task.is_live()).collect();
        if service.is_held() {
            let runs = |task: &&std::sync::Arc<Task>| task.assigned_at.is_some();
            wanted.extend(live.into_iter().filter(runs).filter_map(|task| Some((task.node?, task.id))));
            let message = || "it waits, and nothing that it depends on is missing".to_owned();
            return (!may_wait(state, service)).then(message);
        }
        // A port of the host is there once a node.
        let room = if service.spec.endpoint.ports.is_empty() { usize::MAX } else { takers(state) };
        // A task waits for the node that has its data, be it held down, or gone for good.
        // So does one of a spec that was never released, once the update away from it is paused.
        let paused = matches!(
            service.update.as_ref().map(|update| update.state),
            Some(UpdateState::Paused | UpdateState::RollbackPaused)
        );
        let unstarted = |task: &Task| paused && service.holds_back(task.spec_version);
        let waits = |task: &Task| task.assigned_at.is_none() && (unstarted(task) || waits_for_its_data(state, task));
        let free = live.len() <= room && !live.iter().any(|task| waits(task));
        let update = service.update.as_ref().map(|update| update.state).filter(|_| free);
        if matches!(update, Some(UpdateState::Updating | UpdateState::RollbackStarted)) {
            return Some(format!("is being updated: {:?}", service.update));
        }
        if let Some(cron) = &service.cron {
            // Runs go on for ever: what one wants, or has not stopped yet, is as it should be.
            let there = state.tasks_of_service(service.id).filter(|task| task.outcome.is_none());
            wanted.extend(there.filter_map(|task| Some((task.node?, task.id))));
            return match &service.spec.schedule {
                Some(schedule) if !schedule.suspend => {
                    let why = self.workload.suspends.then(|| "its schedule is to be suspended".to_owned());
                    why.or_else(|| self.overdue(cron))
                }
                // One waits for a node that fits.
                _ if service.spec.mode.is_global() && eligible(state, service).is_empty() => None,
                _ => (!cron.open.is_empty()).then(|| format!("runs go on: {:?}", cron.open)),
            };
        }
        if let Some(job) = service.job {
            let done: Vec<_> = state.tasks_of_service(service.id).filter(|task| job.counts(task)).collect();
            let is_done = match service.spec.mode {
                ServiceMode::ReplicatedJob { total_completions, .. } => done.len() as u64 == total_completions,
                _ => eligible(state, service).is_subset(&done.iter().filter_map(|task| task.node).collect()),
            };
            return (!is_done || !live.is_empty()).then(|| format!("{} done, {} live", done.len(), live.len()));
        }
        if let ServiceMode::Replicated { replicas } = service.spec.mode {
            if live.len() as u64 != replicas {
                return Some(format!("{} live tasks, not {replicas}", live.len()));
            }
        } else {
            let has: BTreeSet<NodeId> = live.iter().filter_map(|task| task.node).collect();
            let wants = eligible(state, service);
            if has != wants || live.len() != wants.len() {
                return Some(format!("has tasks on {has:?}, and is to have one on each of {wants:?}"));
            }
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

/// Something that the service depends on cannot come to it: it is gone, a user has to look at it, it has no place, or it waits
/// itself.
fn may_wait(state: &State, service: &Service) -> bool {
    service.spec.depends_on.iter().any(|one| {
        let Some(other) = state.service_by_name(&one.service) else { return one.required };
        let update = other.update.as_ref().map(|update| update.state);
        let paused = matches!(update, Some(UpdateState::Paused | UpdateState::RollbackPaused));
        let mut live = state.tasks_of_service(other.id).filter(|task| task.is_live());
        let without_place = live.any(|task| task.assigned_at.is_none());
        // By its schedule, whenever that is.
        let by_schedule = other.cron.is_some();
        (paused && one.required) || without_place || by_schedule || (other.is_held() && may_wait(state, other))
    })
}

/// Each node that a global service is to have a task on.
fn eligible(state: &State, service: &Service) -> BTreeSet<NodeId> {
    let constraints: Vec<Constraint> =
        service.spec.task.placement.constraints.iter().map(|text| text.parse().expect("it was checked")).collect();
    let fits = |node: &Node| constraints.iter().all(|constraint| constraint.matches(&node.facts()));
    state.nodes().filter(|node| node.takes_tasks() && fits(node)).map(|node| node.id).collect()
}

/// How many nodes take tasks.
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
