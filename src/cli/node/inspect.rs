//! `flok node inspect`.

use std::fmt::Write;

use bollard::models::Node;
use clap::Args;

use super::{display_name, fetch};
use crate::api::client::Client;
use crate::cli::output::{JsonArg, print};
use crate::spec::quantity::format_size;

/// Show nodes in full
#[derive(Debug, Args)]
pub struct Inspect {
    /// For people instead of as JSON
    #[arg(long, conflicts_with = "format")]
    pretty: bool,
    #[command(flatten)]
    format: JsonArg,
    /// Names, ids or "self"
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

impl Inspect {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let mut nodes = Vec::new();
        for name in &self.nodes {
            nodes.push(fetch(client, name).await?.0);
        }
        if self.pretty {
            print(&nodes.iter().map(pretty).collect::<Vec<_>>().join("\n"))
        } else {
            self.format.show(&nodes)
        }
    }
}

fn pretty(node: &Node) -> String {
    let mut out = String::new();
    let mut line = |key: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            writeln!(out, "{:<22}{value}", format!("{key}:")).expect("a String takes all that is written");
        }
    };
    let (spec, status, description) = (node.spec.as_ref(), node.status.as_ref(), node.description.as_ref());
    line("ID", node.id.clone());
    line("Hostname", Some(display_name(node)));
    line("Joined at", node.created_at.clone());
    line("Role", spec.and_then(|spec| spec.role).map(|role| role.to_string()));
    line("Status", status.and_then(|status| status.state).map(|state| state.to_string()));
    line("Message", status.and_then(|status| status.message.clone()));
    line("Availability", spec.and_then(|spec| spec.availability).map(|availability| availability.to_string()));
    line("Address", status.and_then(|status| status.addr.clone()));
    if let Some(manager) = &node.manager_status {
        line("Manager address", manager.addr.clone());
        line("Reachability", manager.reachability.map(|reachability| reachability.to_string()));
        line("Leader", Some(if manager.leader == Some(true) { "yes" } else { "no" }.into()));
    }
    let platform = description.and_then(|description| description.platform.as_ref());
    let word = |word: &Option<String>| word.clone().unwrap_or_default();
    line("Platform", platform.map(|platform| format!("{}/{}", word(&platform.os), word(&platform.architecture))));
    let resources = description.and_then(|description| description.resources.as_ref());
    let bytes = resources.and_then(|resources| resources.memory_bytes).and_then(|bytes| u64::try_from(bytes).ok());
    line("CPUs", resources.and_then(|resources| resources.nano_cpus).map(|nano| format!("{}", nano as f64 / 1e9)));
    line("Memory", bytes.map(format_size));
    let engine = description.and_then(|description| description.engine.as_ref());
    line("Engine version", engine.and_then(|engine| engine.engine_version.clone()));
    for (title, labels) in [
        ("Labels", spec.and_then(|spec| spec.labels.as_ref())),
        ("Engine labels", engine.and_then(|engine| engine.labels.as_ref())),
    ] {
        let mut labels: Vec<String> =
            labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
        labels.sort();
        line(title, Some(labels.join(", ")));
    }
    out
}
