//! What `service create` and `service update` can say of how updates and rollbacks go.

use std::time::Duration;

use bollard::models::*;
use clap::Args;

use super::edit::{nanos, set};
use crate::spec::quantity::parse_duration;

#[derive(Debug, Clone, Default, Args)]
pub struct RolloutArgs {
    /// Tasks replaced at once by an update; 0: all
    #[arg(long, value_name = "COUNT")]
    update_parallelism: Option<u32>,
    /// Time between two steps of an update
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    update_delay: Option<Duration>,
    /// Whether the old task stops or the new one starts first
    #[arg(long, value_parser = ["stop-first", "start-first"])]
    update_order: Option<String>,
    /// What follows when too many new tasks fail
    #[arg(long, value_parser = ["pause", "continue", "rollback"])]
    update_failure_action: Option<String>,
    /// How long a new task is watched for failure
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    update_monitor: Option<Duration>,
    /// Share of the tasks that may fail, from 0 to 1
    #[arg(long, value_name = "RATIO")]
    update_max_failure_ratio: Option<f64>,
    /// Tasks replaced at once by a rollback; 0: all
    #[arg(long, value_name = "COUNT")]
    rollback_parallelism: Option<u32>,
    /// Time between two steps of a rollback
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    rollback_delay: Option<Duration>,
    /// The order of a rollback
    #[arg(long, value_parser = ["stop-first", "start-first"])]
    rollback_order: Option<String>,
    /// What follows when too many tasks of a rollback fail
    #[arg(long, value_parser = ["pause", "continue"])]
    rollback_failure_action: Option<String>,
    /// How long a task of a rollback is watched for failure
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    rollback_monitor: Option<Duration>,
    /// Share of a rollback's tasks that may fail, from 0 to 1
    #[arg(long, value_name = "RATIO")]
    rollback_max_failure_ratio: Option<f64>,
}

impl RolloutArgs {
    pub fn apply(self, spec: &mut ServiceSpec) {
        let mut update = spec.update_config.take().unwrap_or_default();
        set(&mut update.parallelism, self.update_parallelism.map(i64::from));
        set(&mut update.delay, self.update_delay.map(nanos));
        set(&mut update.order, self.update_order.and_then(|order| order.parse().ok()));
        set(&mut update.failure_action, self.update_failure_action.and_then(|action| action.parse().ok()));
        set(&mut update.monitor, self.update_monitor.map(nanos));
        set(&mut update.max_failure_ratio, self.update_max_failure_ratio);
        spec.update_config = Some(update).filter(|config| *config != ServiceSpecUpdateConfig::default());

        let mut rollback = spec.rollback_config.take().unwrap_or_default();
        set(&mut rollback.parallelism, self.rollback_parallelism.map(i64::from));
        set(&mut rollback.delay, self.rollback_delay.map(nanos));
        set(&mut rollback.order, self.rollback_order.and_then(|order| order.parse().ok()));
        set(&mut rollback.failure_action, self.rollback_failure_action.and_then(|action| action.parse().ok()));
        set(&mut rollback.monitor, self.rollback_monitor.map(nanos));
        set(&mut rollback.max_failure_ratio, self.rollback_max_failure_ratio);
        spec.rollback_config = Some(rollback).filter(|config| *config != ServiceSpecRollbackConfig::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_changes_its_own_half_and_nothing_else() {
        let mut spec = ServiceSpec::default();
        RolloutArgs::default().apply(&mut spec);
        assert_eq!((&spec.update_config, &spec.rollback_config), (&None, &None));
        let args = RolloutArgs {
            update_order: Some("start-first".into()),
            update_failure_action: Some("rollback".into()),
            rollback_failure_action: Some("continue".into()),
            ..RolloutArgs::default()
        };
        args.apply(&mut spec);
        RolloutArgs { update_parallelism: Some(2), ..RolloutArgs::default() }.apply(&mut spec);
        let (update, rollback) = (spec.update_config.unwrap(), spec.rollback_config.unwrap());
        assert_eq!(update.order, Some(ServiceSpecUpdateConfigOrderEnum::START_FIRST));
        assert_eq!(update.failure_action, Some(ServiceSpecUpdateConfigFailureActionEnum::ROLLBACK));
        assert_eq!(update.parallelism, Some(2));
        assert_eq!(rollback.failure_action, Some(ServiceSpecRollbackConfigFailureActionEnum::CONTINUE));
        assert_eq!(rollback.order, None);
    }
}
