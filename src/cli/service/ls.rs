//! `flok service ls`.

use std::collections::{BTreeMap, HashMap};

use bollard::models::Service;
use bollard::query_parameters::ListServicesOptions;
use clap::Args;
use futures::{StreamExt, stream};

use super::runs::{is_scheduled, next};
use crate::api::client::{Client, ClientError};
use crate::api::model::runs::ServiceRuns;
use crate::cli::list::ListArgs;
use crate::cli::output::Table;
use crate::cli::tasks::{ports, service_name, without_digest};

/// Requests under way.
const AT_ONCE: usize = 8;

/// List services
#[derive(Debug, Args)]
pub struct Ls {
    #[command(flatten)]
    list: ListArgs,
}

impl Ls {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        list(client, self.list.filters(), &self.list).await
    }
}

/// Prints the services that match.
pub async fn list(client: &Client, filters: HashMap<String, Vec<String>>, args: &ListArgs) -> anyhow::Result<()> {
    let options = ListServicesOptions { filters: Some(filters), status: Some(!args.quiet) };
    let services = client.docker().list_services(Some(options)).await.map_err(|error| client.explain(error))?;
    if args.quiet {
        return args.show_ids(services.iter().map(|service| service.id.as_ref()));
    }
    let runs = next_runs(client, &services).await?;
    args.show(&table(services, &runs, args.no_trunc))
}

/// By the ids of those that have a schedule.
pub async fn next_runs(client: &Client, services: &[Service]) -> anyhow::Result<BTreeMap<String, String>> {
    let scheduled = services.iter().filter(|service| is_scheduled(service)).filter_map(|service| service.id.clone());
    let asked = scheduled.map(|id| async move {
        let runs: Result<ServiceRuns, ClientError> = client.get(&format!("/services/{id}/runs")).await;
        match runs {
            Ok(runs) => Ok(Some((id, next(&runs)))),
            // It was removed meanwhile.
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    });
    let all: Vec<Result<Option<_>, ClientError>> = stream::iter(asked).buffered(AT_ONCE).collect().await;
    let all: Vec<Option<_>> = all.into_iter().collect::<Result<_, _>>()?;
    Ok(all.into_iter().flatten().collect())
}

const COLUMNS: [(&str, &str); 7] = [
    ("ID", "ID"),
    ("Name", "NAME"),
    ("Mode", "MODE"),
    ("Replicas", "REPLICAS"),
    ("Image", "IMAGE"),
    ("Ports", "PORTS"),
    ("NextRun", "NEXT RUN"),
];

/// `runs`: when services with a schedule run next. Where there is none, the table has Docker's columns alone.
fn table(mut services: Vec<Service>, runs: &BTreeMap<String, String>, full: bool) -> Table {
    let (columns, hidden) = COLUMNS.split_at(if runs.is_empty() { COLUMNS.len() - 1 } else { COLUMNS.len() });
    let mut table = Table::with_hidden(columns, hidden);
    services.sort_by_key(service_name);
    for service in services {
        let image =
            service.spec.as_ref().and_then(|spec| spec.task_template.as_ref()?.container_spec.as_ref()?.image.clone());
        let image = image.unwrap_or_default();
        let published = service.endpoint.as_ref().and_then(|endpoint| endpoint.ports.as_deref()).unwrap_or_default();
        // As in Docker's list: ports of the nodes' own stand with the tasks.
        let ingress: Vec<_> =
            published.iter().filter(|port| !ports(std::slice::from_ref(port)).starts_with(':')).cloned().collect();
        let id = service.id.clone().unwrap_or_default();
        table.row([
            if full { id } else { id.chars().take(12).collect() },
            service_name(&service),
            mode(&service).into(),
            replicas(&service),
            if full { image } else { without_digest(&image) },
            ports(&ingress),
            service.id.as_ref().and_then(|id| runs.get(id)).cloned().unwrap_or_default(),
        ]);
    }
    table
}

pub(super) fn mode(service: &Service) -> &'static str {
    match service.spec.as_ref().and_then(|spec| spec.mode.as_ref()) {
        Some(mode) if mode.global.is_some() => "global",
        Some(mode) if mode.replicated_job.is_some() => "replicated job",
        Some(mode) if mode.global_job.is_some() => "global job",
        _ => "replicated",
    }
}

/// `2/3`, with the limit a node where there is one, and for jobs what is completed.
fn replicas(service: &Service) -> String {
    let status = service.service_status.clone().unwrap_or_default();
    let (running, desired) = (status.running_tasks.unwrap_or(0), status.desired_tasks.unwrap_or(0));
    let spec = service.spec.as_ref();
    let placement = spec.and_then(|spec| spec.task_template.as_ref()?.placement.as_ref());
    let most = placement.and_then(|placement| placement.max_replicas).filter(|most| *most > 0);
    let job = spec.and_then(|spec| spec.mode.as_ref()?.replicated_job.as_ref());
    let is_global_job = spec.and_then(|spec| spec.mode.as_ref()?.global_job.as_ref()).is_some();
    let completed = status.completed_tasks.unwrap_or(0);
    let suffix = match (job.and_then(|job| job.total_completions), most) {
        (Some(total), _) => format!(" ({completed}/{total} completed)"),
        (None, _) if is_global_job => format!(" ({completed}/{} completed)", desired + completed),
        (None, Some(most)) => format!(" (max {most} per node)"),
        (None, None) => String::new(),
    };
    format!("{running}/{desired}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Format;

    #[test]
    fn services_are_listed_as_docker_lists_them() {
        let service = |id: &str, name: &str, mode: serde_json::Value| {
            serde_json::from_value::<Service>(serde_json::json!({
                "ID": id,
                "Spec": {"Name": name, "Mode": mode, "TaskTemplate": {
                    "ContainerSpec": {"Image": "localhost:5000/whoami:1"}, "Placement": {"MaxReplicas": 2}}},
                "Endpoint": {"Ports": [
                    {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"},
                    {"Protocol": "tcp", "TargetPort": 81, "PublishedPort": 8081, "PublishMode": "host"}]},
                "ServiceStatus": {"RunningTasks": 2, "DesiredTasks": 3, "CompletedTasks": 0},
            }))
            .unwrap()
        };
        let replicated = serde_json::json!({"Replicated": {"Replicas": 3}});
        let services = vec![
            service("bbbbbbbbbbbbbbbbbbbbbbbbb", "web", replicated),
            service("a", "agent", serde_json::json!({"Global": {}})),
        ];
        let expected = "\
ID             NAME    MODE         REPLICAS               IMAGE                     PORTS
a              agent   global       2/3 (max 2 per node)   localhost:5000/whoami:1   *:8080->80/tcp
bbbbbbbbbbbb   web     replicated   2/3 (max 2 per node)   localhost:5000/whoami:1   *:8080->80/tcp
";
        assert_eq!(table(services.clone(), &BTreeMap::new(), false).render(Format::Table).unwrap(), expected);
        let runs = [("a".to_owned(), "2026-01-01 03:30:00 UTC".to_owned())].into();
        let with_runs = table(services, &runs, false);
        let text = with_runs.render(Format::Table).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].ends_with("NEXT RUN") && lines[1].ends_with("03:30:00 UTC") && lines[2].ends_with("/tcp"),
            "{text}"
        );
        assert!(with_runs.render(Format::Json).unwrap().contains("\"NextRun\":\"2026-01-01 03:30:00 UTC\""));
    }
}
