//! Lists of tasks, for `service ps`, `stack ps` and `node ps`.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{EndpointPortConfig, Service, Task, TaskState};
use bollard::query_parameters::{ListNodesOptions, ListServicesOptions, ListTasksOptions};
use clap::Args;
use jiff::Timestamp;

use super::list::ListArgs;
use super::node::display_name;
use super::output::{Table, ago, now, shortened};
use crate::api::client::Client;
use crate::spec::image::ImageReference;

/// What every list of tasks takes.
#[derive(Debug, Args)]
pub struct PsArgs {
    #[command(flatten)]
    list: ListArgs,
    /// Print the ids of services and nodes in place of their names
    #[arg(long)]
    no_resolve: bool,
}

/// Names for the ids that tasks carry.
#[derive(Debug, Default)]
struct Names {
    services: BTreeMap<String, String>,
    nodes: BTreeMap<String, String>,
}

/// Tasks whose `key` is one of `values`.
pub async fn list(client: &Client, key: &str, values: Vec<String>, args: &PsArgs) -> anyhow::Result<()> {
    let PsArgs { list: args, no_resolve } = args;
    let mut filters = args.filters();
    filters.entry(key.to_string()).or_default().extend(values);
    let tasks = fetch(client, filters).await?;
    let names = if *no_resolve { Names::default() } else { names(client).await? };
    let tasks = sorted(tasks, &names);
    if args.quiet {
        return args.show_ids(tasks.iter().map(|task| task.id.as_ref()));
    }
    args.show(&table(&tasks, &names, args.no_trunc, now()))
}

pub async fn fetch(client: &Client, filters: HashMap<String, Vec<String>>) -> anyhow::Result<Vec<Task>> {
    let options = ListTasksOptions { filters: Some(filters) };
    Ok(client.docker().list_tasks(Some(options)).await.map_err(|error| client.explain(error))?)
}

/// `web.1`, as the commands on one task take it.
pub async fn running_names(client: &Client) -> anyhow::Result<Vec<String>> {
    let tasks = fetch(client, HashMap::from([("desired-state".into(), vec!["running".into()])])).await?;
    let names = names(client).await?;
    Ok(tasks.iter().filter(|task| runs(task)).map(|task| names.slot(task)).collect())
}

fn runs(task: &Task) -> bool {
    task.status.as_ref().and_then(|status| status.state) == Some(TaskState::RUNNING)
}

async fn names(client: &Client) -> anyhow::Result<Names> {
    let docker = client.docker();
    let services = docker.list_services(None::<ListServicesOptions>).await.map_err(|error| client.explain(error))?;
    let nodes = docker.list_nodes(None::<ListNodesOptions>).await.map_err(|error| client.explain(error))?;
    Ok(Names {
        services: services
            .iter()
            .map(|service| (service.id.clone().unwrap_or_default(), service_name(service)))
            .collect(),
        nodes: nodes.iter().map(|node| (node.id.clone().unwrap_or_default(), display_name(node))).collect(),
    })
}

pub fn service_name(service: &Service) -> String {
    service.spec.as_ref().and_then(|spec| spec.name.clone()).unwrap_or_default()
}

impl Names {
    fn service<'a>(&'a self, task: &'a Task) -> &'a str {
        let id = task.service_id.as_deref().unwrap_or_default();
        self.services.get(id).map_or(id, String::as_str)
    }

    fn node<'a>(&'a self, task: &'a Task) -> &'a str {
        let id = task.node_id.as_deref().unwrap_or_default();
        self.nodes.get(id).map_or(id, String::as_str)
    }

    /// `web.1`, or for a global service `web.<node id>`.
    fn slot(&self, task: &Task) -> String {
        let slot = task.slot.map(|slot| slot.to_string());
        format!("{}.{}", self.service(task), slot.or_else(|| task.node_id.clone()).unwrap_or_default())
    }
}

/// By service and slot, in each slot the newest first.
fn sorted(mut tasks: Vec<Task>, names: &Names) -> Vec<Task> {
    let time = |task: &Task| task.created_at.clone().unwrap_or_default();
    tasks.sort_by(|a, b| {
        let key = |task: &Task| {
            (names.service(task).to_string(), task.slot, task.slot.is_none().then(|| task.node_id.clone()))
        };
        key(a).cmp(&key(b)).then_with(|| time(b).cmp(&time(a))).then_with(|| b.id.cmp(&a.id))
    });
    tasks
}

fn table(tasks: &[Task], names: &Names, full: bool, now: Timestamp) -> Table {
    let mut table = Table::new(&[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Image", "IMAGE"),
        ("Node", "NODE"),
        ("DesiredState", "DESIRED STATE"),
        ("CurrentState", "CURRENT STATE"),
        ("Error", "ERROR"),
        ("Ports", "PORTS"),
    ]);
    let mut previous = String::new();
    for task in tasks {
        let slot = names.slot(task);
        let name = if slot == previous { format!(" \\_ {slot}") } else { slot.clone() };
        previous = slot;
        let status = task.status.as_ref();
        let error = status.and_then(|status| status.err.clone()).filter(|error| !error.is_empty());
        let error = error.map(|error| format!("{:?}", if full { error } else { shortened(&error, 60) }));
        let id = task.id.clone().unwrap_or_default();
        table.row([
            if full { id } else { id.chars().take(12).collect() },
            name,
            image(task, full),
            names.node(task).to_string(),
            task.desired_state.map(|state| super::node::capitalized(&state.to_string())).unwrap_or_default(),
            current_state(task, now),
            error.unwrap_or_default(),
            ports(status.and_then(|status| status.port_status.as_ref()?.ports.as_deref()).unwrap_or_default()),
        ]);
    }
    table
}

fn image(task: &Task, full: bool) -> String {
    let spec = task.spec.as_ref().and_then(|spec| spec.container_spec.as_ref());
    let image = spec.and_then(|spec| spec.image.clone()).unwrap_or_default();
    if full { image } else { without_digest(&image) }
}

/// An image as people call it.
pub fn without_digest(image: &str) -> String {
    match image.parse::<ImageReference>() {
        Ok(mut parsed) if parsed.tag.is_some() => {
            parsed.digest = None;
            parsed.familiar()
        }
        Ok(parsed) => parsed.familiar(),
        Err(_) => image.to_string(),
    }
}

/// `Running 5 seconds ago`; what a task on its way waits for stands beside it.
fn current_state(task: &Task, now: Timestamp) -> String {
    let Some(status) = &task.status else { return String::new() };
    let state = status.state.map(|state| state.to_string()).unwrap_or_default();
    let doing = match (status.state, &status.message) {
        (Some(TaskState::ACCEPTED | TaskState::PREPARING | TaskState::READY | TaskState::STARTING), Some(message))
            if !message.is_empty() && *message != state =>
        {
            format!(" ({message})")
        }
        _ => String::new(),
    };
    let age = status.timestamp.as_deref().map(|time| ago(now, time).to_lowercase()).unwrap_or_default();
    format!("{}{doing} {age}", super::node::capitalized(&state)).trim_end().to_string()
}

/// `*:8080->80/tcp` in ingress mode; on the node alone, without the star. Ports that follow one another on both sides
/// stand together: `*:8000-8010->80-90/tcp`.
pub fn ports(ports: &[EndpointPortConfig]) -> String {
    let mut runs: Vec<(&EndpointPortConfig, i64)> = Vec::new();
    for port in ports {
        match runs.last_mut() {
            Some((first, more)) if follows(first, *more, port) => *more += 1,
            _ => runs.push((port, 0)),
        }
    }
    runs.into_iter().map(|(first, more)| run(first, more)).collect::<Vec<_>>().join(",")
}

/// Whether `port` is the one behind `more` others that follow `first`.
fn follows(first: &EndpointPortConfig, more: i64, port: &EndpointPortConfig) -> bool {
    let next = |of: Option<i64>, is: Option<i64>| of.filter(|port| *port > 0).map(|port| port + more + 1) == is;
    (first.publish_mode, first.protocol) == (port.publish_mode, port.protocol)
        && first.published_port.is_some_and(|port| port > 0)
        && next(first.published_port, port.published_port)
        && next(first.target_port, port.target_port)
}

fn run(first: &EndpointPortConfig, more: i64) -> String {
    use bollard::models::EndpointPortConfigPublishModeEnum as Mode;
    let range = |from: i64| if more == 0 { from.to_string() } else { format!("{from}-{}", from + more) };
    let star = if first.publish_mode == Some(Mode::HOST) { "" } else { "*" };
    let published = first.published_port.filter(|port| *port > 0).map(range).unwrap_or_default();
    let protocol = first.protocol.map_or_else(|| "tcp".into(), |protocol| protocol.to_string());
    format!("{star}:{published}->{}/{protocol}", range(first.target_port.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Format;

    fn task(id: &str, slot: i64, created: &str, state: &str, err: &str) -> Task {
        serde_json::from_value(serde_json::json!({
            "ID": id,
            "CreatedAt": created,
            "ServiceID": "s1",
            "NodeID": "n1",
            "Slot": slot,
            "DesiredState": "running",
            "Spec": {"ContainerSpec": {"Image": "docker.io/library/redis:7@sha256:38a203e1986cf79639cfb9b2e1d6e773de84002feea2d4eb006b52004ee8502d"}},
            "Status": {
                "State": state, "Message": "pulling 42%", "Err": err, "Timestamp": "2026-01-01T00:00:00Z",
                "PortStatus": {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"}]},
            },
        }))
        .unwrap()
    }

    #[test]
    fn tasks_that_run_are_those_whose_containers_do() {
        let runs = |state: &str| runs(&task("t", 1, "", state, ""));
        assert!(runs("running") && !runs("pending") && !runs("rejected"));
    }

    #[test]
    fn tasks_are_listed_by_slot_with_their_history() {
        let names = Names {
            services: [("s1".to_string(), "web".to_string())].into(),
            nodes: [("n1".to_string(), "host".to_string())].into(),
        };
        let tasks = vec![
            task("old", 1, "2026-01-01T00:00:00Z", "failed", "task: non-zero exit (1)"),
            task("two", 2, "2026-01-01T00:00:00Z", "preparing", ""),
            task("new", 1, "2026-01-01T00:00:05Z", "running", ""),
        ];
        let now = "2026-01-01T00:00:10Z".parse().unwrap();
        let text = table(&sorted(tasks, &names), &names, false, now).render(Format::Table).unwrap();
        let expected = "\
ID    NAME        IMAGE     NODE   DESIRED STATE   CURRENT STATE                            ERROR                       PORTS
new   web.1       redis:7   host   Running         Running 10 seconds ago                                               :8080->80/tcp
old    \\_ web.1   redis:7   host   Running         Failed 10 seconds ago                    \"task: non-zero exit (1)\"   :8080->80/tcp
two   web.2       redis:7   host   Running         Preparing (pulling 42%) 10 seconds ago                               :8080->80/tcp
";
        assert_eq!(text, expected);
        let unresolved = table(&[task("new", 1, "", "running", "")], &Names::default(), false, now).text();
        let row: Vec<&str> = unresolved.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row[..4], ["new", "s1.1", "redis:7", "n1"]);
    }
}
