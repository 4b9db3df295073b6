//! What `service create` and `service update` can both say of a service, and how each word changes the spec.

use std::time::Duration;

use bollard::models::*;
use clap::Args;

use crate::api::client::Client;
use crate::cli::key_value;
use crate::spec::quantity::{parse_duration, parse_nano_cpus, parse_size};

/// Flags that set one value.
#[derive(Debug, Clone, Default, Args)]
pub struct Values {
    /// Number of tasks of a replicated service
    #[arg(long, value_name = "COUNT")]
    replicas: Option<u32>,
    /// Most tasks on one node; 0: no limit
    #[arg(long, value_name = "COUNT")]
    replicas_max_per_node: Option<u32>,
    /// Most CPUs of a task
    #[arg(long, value_name = "CPUS", value_parser = parse_nano_cpus)]
    limit_cpu: Option<u64>,
    /// Most memory of a task
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    limit_memory: Option<u64>,
    /// CPUs a node must have free for a task
    #[arg(long, value_name = "CPUS", value_parser = parse_nano_cpus)]
    reserve_cpu: Option<u64>,
    /// Memory a node must have free for a task
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    reserve_memory: Option<u64>,
    /// When a task that ended is replaced
    #[arg(long, value_parser = ["none", "on-failure", "any"])]
    restart_condition: Option<String>,
    /// Time before a task is replaced
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    restart_delay: Option<Duration>,
    /// Most restarts before the service gives up; 0: no limit
    #[arg(long, value_name = "COUNT")]
    restart_max_attempts: Option<u32>,
    /// Time in which restarts are counted; 0: all are
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    restart_window: Option<Duration>,
    /// Most tasks of a job at a time
    #[arg(long, value_name = "COUNT")]
    max_concurrent: Option<u32>,
    #[command(flatten)]
    rollout: super::rollout::RolloutArgs,
    /// User in the container: name or uid[:group or gid]
    #[arg(long, short)]
    user: Option<String>,
    /// Working directory in the container
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// Hostname in the container
    #[arg(long)]
    hostname: Option<String>,
    /// Signal that stops the container
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Time between that signal and SIGKILL
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    stop_grace_period: Option<Duration>,
    /// Make the container's root file system read-only
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    read_only: Option<bool>,
    /// How the service's name is answered: with one virtual address, or with the tasks' own in turn
    #[arg(long, value_parser = ["vip", "dnsrr"])]
    endpoint_mode: Option<String>,
    // A heading counts for all that follows.
    #[command(flatten)]
    container: super::container::ContainerArgs,
    #[command(flatten)]
    health: super::health::HealthArgs,
    #[command(flatten)]
    pub(super) schedule: super::schedule::ScheduleArgs,
}

impl Values {
    /// What only the daemon can say of them.
    pub async fn check(&self, client: &Client) -> anyhow::Result<()> {
        self.container.check(client).await
    }

    pub fn apply(self, spec: &mut ServiceSpec) -> anyhow::Result<()> {
        if let Some(replicas) = self.replicas {
            let mode = spec.mode.get_or_insert_default();
            if mode.global.is_some() || mode.global_job.is_some() {
                anyhow::bail!(
                    "--replicas can only be used with a replicated service: this one has a task on every node"
                );
            }
            match &mut mode.replicated_job {
                Some(job) => job.total_completions = Some(i64::from(replicas)),
                None => mode.replicated.get_or_insert_default().replicas = Some(i64::from(replicas)),
            }
        }
        if let Some(most) = self.max_concurrent {
            let mode = spec.mode.get_or_insert_default();
            let job = mode.replicated_job.as_mut();
            job.ok_or_else(|| anyhow::anyhow!("--max-concurrent can only be used with a replicated-job"))?
                .max_concurrent = Some(i64::from(most));
        }
        self.rollout.apply(spec);
        self.container.apply(spec);
        self.schedule.apply(spec)?;
        if let Some(mode) = &self.endpoint_mode {
            spec.endpoint_spec.get_or_insert_default().mode = Some(match mode.as_str() {
                "dnsrr" => EndpointSpecModeEnum::DNSRR,
                _ => EndpointSpecModeEnum::VIP,
            });
        }
        let task = spec.task_template.get_or_insert_default();
        if let Some(most) = self.replicas_max_per_node {
            task.placement.get_or_insert_default().max_replicas = Some(i64::from(most));
        }
        if self.limit_cpu.is_some() || self.limit_memory.is_some() {
            let limits = task.resources.get_or_insert_default().limits.get_or_insert_default();
            set(&mut limits.nano_cpus, self.limit_cpu.map(signed));
            set(&mut limits.memory_bytes, self.limit_memory.map(signed));
        }
        if self.reserve_cpu.is_some() || self.reserve_memory.is_some() {
            let reservations = task.resources.get_or_insert_default().reservations.get_or_insert_default();
            set(&mut reservations.nano_cpus, self.reserve_cpu.map(signed));
            set(&mut reservations.memory_bytes, self.reserve_memory.map(signed));
        }
        let restart = (self.restart_condition, self.restart_delay, self.restart_max_attempts, self.restart_window);
        if restart != (None, None, None, None) {
            let policy = task.restart_policy.get_or_insert_default();
            set(
                &mut policy.condition,
                restart.0.as_deref().map(|condition| match condition {
                    "none" => TaskSpecRestartPolicyConditionEnum::NONE,
                    "on-failure" => TaskSpecRestartPolicyConditionEnum::ON_FAILURE,
                    _ => TaskSpecRestartPolicyConditionEnum::ANY,
                }),
            );
            set(&mut policy.delay, restart.1.map(nanos));
            set(&mut policy.max_attempts, restart.2.map(i64::from));
            set(&mut policy.window, restart.3.map(nanos));
        }
        let container = task.container_spec.get_or_insert_default();
        set(&mut container.user, self.user);
        set(&mut container.dir, self.workdir);
        set(&mut container.hostname, self.hostname);
        set(&mut container.stop_signal, self.stop_signal);
        set(&mut container.stop_grace_period, self.stop_grace_period.map(nanos));
        set(&mut container.read_only, self.read_only);
        self.health.apply(container);
        Ok(())
    }
}

pub(super) fn set<T>(field: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *field = value;
    }
}

pub(super) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// `NAME`, or `name=NAME,alias=A,alias=B,driver-opt=KEY=VALUE`.
pub fn network(text: &str) -> Result<NetworkAttachmentConfig, String> {
    let mut network = NetworkAttachmentConfig::default();
    if !text.contains('=') {
        network.target = Some(text.to_owned());
    } else {
        for part in text.split(',') {
            match part.split_once('=').unwrap_or((part, "")) {
                ("name", value) => network.target = Some(value.into()),
                ("alias", value) => network.aliases.get_or_insert_default().push(value.into()),
                ("driver-opt", value) => {
                    let (key, value) = key_value(value)?;
                    network.driver_opts.get_or_insert_default().insert(key, value);
                }
                (other, _) => return Err(format!("{other:?} is none of name, alias, driver-opt")),
            }
        }
    }
    match network.target.as_deref() {
        None | Some("") => Err("there is no name of a network".into()),
        Some(_) => Ok(network),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_read_in_both_forms() {
        assert_eq!(network("back").unwrap().target.as_deref(), Some("back"));
        let long = network("name=back,alias=db,alias=store,driver-opt=a=b").unwrap();
        assert_eq!(long.aliases, Some(vec!["db".into(), "store".into()]));
        assert_eq!(long.driver_opts.unwrap()["a"], "b");
        for text in ["", "alias=db", "name=", "what=1,name=back"] {
            assert!(network(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_global_service_has_no_replicas() {
        let mut spec = ServiceSpec::default();
        spec.mode.get_or_insert_default().global = Some(Default::default());
        let values = Values { replicas: Some(2), ..Values::default() };
        assert!(values.apply(&mut spec).is_err());
    }
}
