//! What `service create` and `service update` can say of the containers' health check.

use std::time::Duration;

use bollard::models::{HealthConfig, TaskSpecContainerSpec};
use clap::Args;

use super::edit::{nanos, set};
use crate::spec::quantity::parse_duration;

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Health check")]
pub struct HealthArgs {
    /// Command that says whether a container is healthy, run by its shell
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between two checks [default: the image's, or 30s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    health_interval: Option<Duration>,
    /// How long one check may take [default: the image's, or 30s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    health_timeout: Option<Duration>,
    /// Failures in a row until a container is unhealthy [default: the image's, or 3]
    #[arg(long, value_name = "COUNT")]
    health_retries: Option<u32>,
    /// Time for the container to start, in which failures do not count
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    health_start_period: Option<Duration>,
    /// Time between two checks while it starts [default: the image's, or 5s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    health_start_interval: Option<Duration>,
    /// Check nothing, whatever the image says
    #[arg(long, conflicts_with_all = ["health_cmd", "health_interval", "health_timeout", "health_retries",
        "health_start_period", "health_start_interval"])]
    no_healthcheck: bool,
}

impl HealthArgs {
    pub fn apply(self, container: &mut TaskSpecContainerSpec) {
        if self.no_healthcheck {
            let test = Some(vec!["NONE".to_owned()]);
            container.health_check = Some(HealthConfig { test, ..HealthConfig::default() });
            return;
        }
        let mut check = container.health_check.take().unwrap_or_default();
        if check.test.as_ref().is_some_and(|test| test.first().is_some_and(|word| word == "NONE")) {
            let given =
                [self.health_interval, self.health_timeout, self.health_start_period, self.health_start_interval];
            let given = given.iter().any(Option::is_some) || self.health_retries.is_some();
            // One that was turned off comes back as the image's, unless it is given a command.
            check.test = check.test.filter(|_| !given);
        }
        set(&mut check.test, self.health_cmd.map(|command| vec!["CMD-SHELL".to_owned(), command]));
        set(&mut check.interval, self.health_interval.map(nanos));
        set(&mut check.timeout, self.health_timeout.map(nanos));
        set(&mut check.retries, self.health_retries.map(i64::from));
        set(&mut check.start_period, self.health_start_period.map(nanos));
        set(&mut check.start_interval, self.health_start_interval.map(nanos));
        container.health_check = Some(check).filter(|check| *check != HealthConfig::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_run_by_the_shell_and_the_rest_stays() {
        let mut container = TaskSpecContainerSpec::default();
        HealthArgs { health_retries: Some(2), ..HealthArgs::default() }.apply(&mut container);
        HealthArgs { health_cmd: Some("curl x".into()), ..HealthArgs::default() }.apply(&mut container);
        let check = container.health_check.clone().unwrap();
        assert_eq!(check.test, Some(vec!["CMD-SHELL".to_owned(), "curl x".to_owned()]));
        assert_eq!(check.retries, Some(2));
        HealthArgs { no_healthcheck: true, ..HealthArgs::default() }.apply(&mut container);
        assert_eq!(container.health_check.clone().unwrap().test, Some(vec!["NONE".to_owned()]));
        HealthArgs::default().apply(&mut container);
        assert_eq!(container.health_check.unwrap().test, Some(vec!["NONE".to_owned()]));
    }

    #[test]
    fn without_a_word_of_it_there_is_none() {
        let mut container = TaskSpecContainerSpec::default();
        HealthArgs::default().apply(&mut container);
        assert_eq!(container.health_check, None);
    }
}
