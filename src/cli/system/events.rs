//! `flok events`.

use std::collections::BTreeMap;

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use clap::Args;
use futures::StreamExt;
use jiff::Timestamp;

use crate::api::client::Client;
use crate::cli::key_value;
use crate::cli::list::filters;
use crate::cli::output::{Format, JsonArg, now, print};
use crate::spec::quantity::parse_duration;

/// Show what happens in the swarm and on this node, as it happens
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok events
  flok events --since 10m --filter type=service
  flok events --since 1h --until 0s --format '{{.Action}} {{.Actor.Attributes.name}}'

Each daemon keeps its latest events in memory: what was told before it started, and long ago, is gone.")]
pub struct Events {
    /// Also what was told since a time (2026-01-31T12:00:00Z), or within a duration (10m)
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<String>,
    /// End at a time, or with a duration after now for one that is past (0s: what was told so far)
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<String>,
    /// Only what matches: type=service, event=create, scope=swarm, service=, node=, container=, label=...; repeat it
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = key_value)]
    filter: Vec<(String, String)>,
    /// How to print: json for an object on each line, or a template such as '{{.Action}}'
    #[arg(long, value_name = "FORMAT", value_parser = JsonArg::parse)]
    format: Option<Format>,
}

/// Unix seconds, with a fraction.
fn time(text: &str) -> Result<String, String> {
    let seconds = |at: Timestamp| format!("{}.{:09}", at.as_second(), at.subsec_nanosecond());
    match (parse_duration(text), text.parse::<Timestamp>()) {
        (Ok(ago), _) => now().checked_sub(ago).map(seconds).map_err(|_| "that time is too far away".into()),
        (_, Ok(at)) => Ok(seconds(at)),
        _ if text.parse::<u64>().is_ok() => Ok(text.into()),
        _ => Err("write a duration (10m) or a time (2026-01-31T12:00:00Z)".into()),
    }
}

impl Events {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let options = EventsOptions { since: self.since, until: self.until, filters: Some(filters(&self.filter)) };
        let mut events = Box::pin(client.docker().events(Some(options)));
        while let Some(event) = events.next().await {
            let event = event.map_err(|error| client.explain(error))?;
            match self.format {
                None => print(&line(&event))?,
                Some(Format::Json) => print(&format!("{}\n", serde_json::to_string(&event)?))?,
                Some(format) => print(&format.show(&event, String::new)?)?,
            }
        }
        Ok(())
    }
}

/// `2026-01-31T12:00:00.5Z service create ID (name=web)`.
fn line(event: &EventMessage) -> String {
    let at = event.time_nano.and_then(|nanos| Timestamp::from_nanosecond(i128::from(nanos)).ok());
    let kind = event.typ.map(|kind| kind.to_string()).unwrap_or_default();
    let action = event.action.as_deref().unwrap_or_default();
    let actor = event.actor.clone().unwrap_or_default();
    let attributes: BTreeMap<_, _> = actor.attributes.unwrap_or_default().into_iter().collect();
    let attributes: Vec<String> = attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let attributes = if attributes.is_empty() { String::new() } else { format!(" ({})", attributes.join(", ")) };
    let at = at.map(|at| at.to_string()).unwrap_or_default();
    format!("{at} {kind} {action} {}{attributes}\n", actor.id.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use bollard::models::{EventActor, EventMessageTypeEnum};

    use super::*;

    #[test]
    fn an_event_is_a_line_with_its_attributes_in_order() {
        let attributes = [("name", "web"), ("image", "web:1")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let event = EventMessage {
            typ: Some(EventMessageTypeEnum::SERVICE),
            action: Some("create".into()),
            actor: Some(EventActor { id: Some("id1".into()), attributes: Some(attributes.into()) }),
            time_nano: Some(1_500_000_000),
            ..EventMessage::default()
        };
        assert_eq!(line(&event), "1970-01-01T00:00:01.5Z service create id1 (image=web:1, name=web)\n");
    }

    #[test]
    fn times_are_durations_dates_or_seconds() {
        assert_eq!(time("1970-01-01T00:01:00Z").unwrap(), "60.000000000");
        assert_eq!(time("1700000000").unwrap(), "1700000000");
        assert!(time("10m").is_ok() && time("tomorrow").is_err());
    }
}
