//! The schedule of a job, as `service create` and `service update` say it: labels, which the daemon reads.

use bollard::models::ServiceSpec;
use clap::Args;

use super::runs::has_schedule;

use crate::spec::{SCHEDULE_LABEL, Schedule};

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Schedule")]
pub struct ScheduleArgs {
    /// When the job runs: "MINUTE HOUR DAY MONTH WEEKDAY", @hourly, @daily, "@every 10m"; none: --schedule ""
    #[arg(long, value_name = "CRON", value_parser = cron)]
    schedule: Option<String>,
    /// IANA time zone that the schedule is read in [default: UTC]
    #[arg(long, value_name = "ZONE", value_parser = field("time-zone"))]
    schedule_time_zone: Option<String>,
    /// How late a run may begin before it counts as missed [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = field("window"))]
    schedule_window: Option<String>,
    /// What a run does while an earlier one goes on [default: forbid]
    #[arg(long, value_name = "WORD", value_parser = ["allow", "forbid", "replace"])]
    schedule_concurrency: Option<String>,
    /// How many runs that ended are kept, with their logs [default: 5]
    #[arg(long, value_name = "COUNT", value_parser = field("history"))]
    schedule_history: Option<String>,
    /// Let nothing become due
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    schedule_suspend: Option<bool>,
}

/// Checked here, and read by the daemon.
fn cron(text: &str) -> Result<String, String> {
    if !text.trim().is_empty() {
        Schedule::new(text).rule()?;
    }
    Ok(text.to_owned())
}

/// The same for another field.
fn field(name: &'static str) -> impl Fn(&str) -> Result<String, String> + Clone + Send + Sync + 'static {
    move |text| {
        let mut schedule = Schedule::new("@daily");
        schedule.set(name, text)?;
        schedule.rule().map(|_| text.to_owned())
    }
}

impl ScheduleArgs {
    pub fn is_given(&self) -> bool {
        self.schedule.as_ref().is_some_and(|cron| !cron.trim().is_empty())
    }

    /// The error names the flag that changes a schedule where there is none.
    pub fn apply(self, spec: &mut ServiceSpec) -> anyhow::Result<()> {
        let will_have = self.is_given() || self.schedule.is_none() && has_schedule(spec);
        let labels = spec.labels.get_or_insert_default();
        let fields = [
            ("time-zone", self.schedule_time_zone),
            ("window", self.schedule_window),
            ("concurrency", self.schedule_concurrency),
            ("history", self.schedule_history),
            ("suspend", self.schedule_suspend.map(|suspend| suspend.to_string())),
        ];
        let fields = fields.into_iter().filter_map(|(field, text)| Some((format!("{SCHEDULE_LABEL}.{field}"), text?)));
        let fields: Vec<(String, String)> = fields.collect();
        if let Some((label, _)) = fields.first().filter(|_| !will_have) {
            let flag = label.replace(SCHEDULE_LABEL, "schedule").replace('.', "-");
            anyhow::bail!("--{flag} needs a --schedule: the service has none");
        }
        labels.extend(fields);
        match self.schedule {
            Some(cron) if cron.trim().is_empty() => {
                labels.retain(|label, _| label != SCHEDULE_LABEL && !label.starts_with(&format!("{SCHEDULE_LABEL}.")));
            }
            Some(cron) => drop(labels.insert(SCHEDULE_LABEL.to_owned(), cron)),
            None => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_a_schedule_that_is_not_there_is_told_by_its_flag() {
        let suspend = || ScheduleArgs { schedule_suspend: Some(true), ..ScheduleArgs::default() };
        let told = suspend().apply(&mut ServiceSpec::default()).unwrap_err().to_string();
        assert_eq!(told, "--schedule-suspend needs a --schedule: the service has none");
        let scheduled = |value: serde_json::Value| serde_json::from_value::<ServiceSpec>(value).unwrap();
        let mut own = scheduled(serde_json::json!({"Labels": {"flok.schedule": "@daily"}}));
        suspend().apply(&mut own).unwrap();
        assert_eq!(own.labels.as_ref().unwrap()["flok.schedule.suspend"], "true");
        let labels = serde_json::json!({"ContainerSpec": {"Labels": {"flok.schedule": "@daily"}}});
        suspend().apply(&mut scheduled(serde_json::json!({"TaskTemplate": labels}))).unwrap();
        let end = ScheduleArgs { schedule: Some(String::new()), ..suspend() };
        assert!(end.apply(&mut own).is_err(), "it ends with the same command");
    }
}
