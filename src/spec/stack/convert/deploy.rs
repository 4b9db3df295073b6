//! A service's `deploy` section: how many tasks, where, with what, and how they are restarted and updated.

use super::super::yaml::Node;
use super::Converter;
use crate::spec::*;

impl Converter<'_> {
    pub(super) fn mode(&mut self, path: &str, deploy: Option<&Node>) -> ServiceMode {
        let mode = deploy.and_then(|deploy| deploy.string("mode"));
        let replicas = deploy.and_then(|deploy| deploy.count("replicas"));
        let is_global = matches!(mode.as_deref(), Some("global" | "global-job"));
        if let (true, Some(_), Some(node)) = (is_global, replicas, deploy.and_then(|deploy| deploy.get("replicas"))) {
            self.report.problem(
                node.place,
                &format!("{path}.deploy"),
                "replicas can only be used with a replicated mode",
            );
        }
        let replicas = replicas.unwrap_or(1);
        match mode.as_deref() {
            Some("global") => ServiceMode::Global,
            Some("global-job") => ServiceMode::GlobalJob,
            Some("replicated-job") => {
                ServiceMode::ReplicatedJob { max_concurrent: replicas, total_completions: replicas }
            }
            _ => ServiceMode::Replicated { replicas },
        }
    }

    /// `deploy.restart_policy`, or the older `restart`.
    pub(super) fn restart(&mut self, path: &str, service: &Node, deploy: Option<&Node>) -> RestartPolicy {
        if let Some(policy) = deploy.and_then(|deploy| deploy.get("restart_policy")) {
            let condition = policy.get("condition");
            let is_job = self.mode(path, deploy).is_job() || service.get("x-schedule").is_some();
            if let Some(any) = condition.filter(|condition| is_job && condition.as_text() == "any") {
                let path = format!("{path}.deploy.restart_policy.condition");
                let message = "a job's task that has completed is not run again: any means on-failure here";
                self.report.warn(any.place, &path, message);
            }
            return RestartPolicy {
                condition: match condition.map(Node::as_text) {
                    Some("none") => RestartCondition::None,
                    Some("on-failure") => RestartCondition::OnFailure,
                    _ => RestartCondition::Any,
                },
                delay: policy.duration("delay"),
                max_attempts: policy.count("max_attempts"),
                window: policy.duration("window"),
            };
        }
        let Some(restart) = service.get("restart") else { return RestartPolicy::default() };
        let path = format!("{path}.restart");
        self.report.warn(restart.place, &path, "read as deploy.restart_policy: write that instead");
        let (word, attempts) =
            restart.as_text().split_once(':').map_or((restart.as_text(), None), |(w, n)| (w, Some(n)));
        let attempts_read = attempts.map(str::parse::<u64>).transpose();
        let condition = match (word, &attempts_read) {
            ("" | "no", Ok(None)) => RestartCondition::None,
            ("always" | "unless-stopped", Ok(None)) => RestartCondition::Any,
            ("on-failure", Ok(_)) => RestartCondition::OnFailure,
            _ => {
                let message = format!("{:?} is none of no, always, unless-stopped, on-failure[:N]", restart.as_text());
                self.report.problem(restart.place, &path, message);
                RestartCondition::Any
            }
        };
        RestartPolicy { condition, max_attempts: attempts_read.ok().flatten(), ..RestartPolicy::default() }
    }

    pub(super) fn resources(&mut self, path: &str, service: &Node, deploy: Option<&Node>) -> Resources {
        let resources = deploy.and_then(|deploy| deploy.get("resources"));
        let part = |name| resources.and_then(|resources| resources.get(name));
        let cpus = |node: Option<&Node>| {
            node.and_then(|node| node.get("cpus")).and_then(|cpus| quantity::parse_nano_cpus(cpus.as_text()).ok())
        };
        let (limits, reservations) = (part("limits"), part("reservations"));
        Resources {
            limits: ResourceLimits {
                nano_cpus: cpus(limits).unwrap_or(0),
                memory_bytes: limits.and_then(|limits| limits.bytes("memory")).unwrap_or(0),
                pids: limits.and_then(|limits| limits.count("pids")).unwrap_or(0),
            },
            reservations: ResourceReservations {
                nano_cpus: cpus(reservations).unwrap_or(0),
                memory_bytes: reservations.and_then(|reservations| reservations.bytes("memory")).unwrap_or(0),
                generic: [self.generic(path, reservations), self.devices(path, service, reservations)].concat(),
            },
        }
    }

    /// Devices by request, as generic resources: vendors' descriptions on a node are what it has of them.
    fn devices(&mut self, path: &str, service: &Node, reservations: Option<&Node>) -> Vec<GenericResource> {
        let reserved = reservations.and_then(|reservations| reservations.get("devices"));
        let places = [("deploy.resources.reservations.devices", reserved), ("gpus", service.get("gpus"))];
        let mut devices = Vec::new();
        for (key, requests) in places {
            for request in requests.map_or(&[][..], Node::items) {
                match device_request(request) {
                    Ok(wanted) => devices.extend(wanted),
                    Err(why) => self.report.problem(request.place, &format!("{path}.{key}"), why),
                }
            }
        }
        devices
    }

    fn generic(&mut self, path: &str, reservations: Option<&Node>) -> Vec<GenericResource> {
        let mut generic = Vec::new();
        let items = reservations.and_then(|reservations| reservations.get("generic_resources"));
        for item in items.map_or(&[][..], Node::items) {
            let discrete = item.get("discrete_resource_spec");
            match discrete.and_then(|discrete| Some((discrete.string("kind")?, discrete.count("value")?))) {
                Some((kind, value)) => generic.push(GenericResource::Discrete { kind, value }),
                None => {
                    let path = format!("{path}.deploy.resources.reservations.generic_resources");
                    self.report.problem(item.place, &path, "needs discrete_resource_spec with kind and value");
                }
            }
        }
        generic
    }
}

/// The names that vendors' tools give to their GPUs in the Container Device Interface.
const GPUS: [(&str, &str); 3] = [("nvidia", "nvidia.com/gpu"), ("amd", "amd.com/gpu"), ("intel", "intel.com/gpu")];

fn device_request(request: &Node) -> Result<Vec<GenericResource>, String> {
    let (driver, ids) = (request.string("driver"), request.strings("device_ids"));
    let named = |kind: &str, name: &str| GenericResource::Named { kind: kind.to_owned(), value: name.to_owned() };
    let count = request.string("count");
    if count.is_some() && !ids.is_empty() {
        return Err("count and device_ids cannot both be given".into());
    }
    if driver.as_deref() == Some("cdi") {
        let whole = |id: &String| {
            id.split_once('=').filter(|(kind, _)| kind.contains('/')).map(|(kind, name)| named(kind, name))
        };
        let devices: Option<Vec<GenericResource>> = ids.iter().map(whole).collect();
        let devices = devices.filter(|devices| !devices.is_empty());
        return devices.ok_or_else(|| "the driver cdi wants device_ids such as vendor.com/class=name".into());
    }
    let kind = match driver.as_deref() {
        Some(kind) if kind.contains('/') => kind.to_owned(),
        Some(driver) => match GPUS.iter().find(|(name, _)| *name == driver) {
            Some((_, kind)) => (*kind).to_owned(),
            None => {
                return Err(format!(
                    "driver {driver:?} is not known: write nvidia, amd, intel, cdi, or a kind such as vendor.com/class"
                ));
            }
        },
        None => "nvidia.com/gpu".to_owned(),
    };
    if !ids.is_empty() {
        return Ok(ids.iter().map(|id| named(&kind, id)).collect());
    }
    match count.as_deref() {
        None | Some("all" | "-1") => Ok(vec![GenericResource::All { kind }]),
        Some(number) => match number.parse() {
            Ok(value) if value > 0 => Ok(vec![GenericResource::Discrete { kind, value }]),
            _ => Err(format!("count {number:?}: a number of devices is wanted, or all")),
        },
    }
}

pub(super) fn placement(deploy: Option<&Node>) -> Placement {
    let Some(placement) = deploy.and_then(|deploy| deploy.get("placement")) else { return Placement::default() };
    let preferences = placement.get("preferences").map_or(&[][..], Node::items);
    Placement {
        constraints: placement.strings("constraints"),
        spread: preferences.iter().filter_map(|preference| preference.string("spread")).collect(),
        max_replicas: placement.count("max_replicas_per_node").unwrap_or(0),
        platforms: Vec::new(),
    }
}

pub(super) fn update(deploy: Option<&Node>, key: &str) -> UpdateConfig {
    let default = UpdateConfig::default();
    let Some(config) = deploy.and_then(|deploy| deploy.get(key)) else { return default };
    UpdateConfig {
        parallelism: config.count("parallelism").unwrap_or(default.parallelism),
        delay: config.duration("delay").unwrap_or(default.delay),
        failure_action: match config.string("failure_action").as_deref() {
            Some("continue") => FailureAction::Continue,
            Some("rollback") => FailureAction::Rollback,
            _ => FailureAction::Pause,
        },
        monitor: config.duration("monitor"),
        max_failure_ratio: match config.get("max_failure_ratio").map(|node| &node.value) {
            Some(super::Value::Float(ratio)) => *ratio as f32,
            _ => default.max_failure_ratio,
        },
        order: match config.string("order").as_deref() {
            Some("start-first") => UpdateOrder::StartFirst,
            _ => UpdateOrder::StopFirst,
        },
    }
}
