//! `flok info`.

use std::fmt::Write;

use bollard::models::SystemInfo;
use clap::Args;

use crate::api::client::Client;
use crate::cli::output::{Format, print};
use crate::spec::quantity::format_size;

#[derive(Debug, Args)]
pub struct Info {
    /// How to print: table, json, or a template such as '{{.Name}}'
    #[arg(long, short, value_name = "FORMAT", value_parser = Format::parse, default_value = "table", hide_default_value = true)]
    format: Format,
}

impl Info {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let info = client.docker().info().await.map_err(|error| client.explain(error))?;
        print(&self.format.show(&info, || render(&info))?)
    }
}

fn render(info: &SystemInfo) -> String {
    let mut out = String::new();
    let mut line = |key: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            writeln!(out, "{:<18}{value}", format!("{key}:")).expect("a String takes all that is written");
        }
    };
    line("Name", info.name.clone());
    line("ID", info.id.clone());
    line("Version", info.server_version.clone());
    line("Running tasks", info.containers_running.map(|count| count.to_string()));
    line("Images", info.images.map(|count| count.to_string()));
    if let Some(swarm) = &info.swarm {
        line("Swarm", swarm.local_node_state.map(|state| state.to_string()));
        line("Swarm error", swarm.error.clone());
        line("Is manager", swarm.control_available.map(|manager| manager.to_string()));
        line("Node address", swarm.node_addr.clone());
        line("Managers", swarm.managers.filter(|count| *count > 0).map(|count| count.to_string()));
        line("Nodes", swarm.nodes.filter(|count| *count > 0).map(|count| count.to_string()));
    }
    line("Data directory", info.docker_root_dir.clone());
    line("Operating system", info.operating_system.clone());
    line("Kernel", info.kernel_version.clone());
    line("Architecture", info.architecture.clone());
    line("Cgroup version", info.cgroup_version.map(|version| version.to_string()));
    line("CPUs", info.ncpu.map(|count| count.to_string()));
    line("Memory", info.mem_total.and_then(|bytes| u64::try_from(bytes).ok()).map(format_size));
    line("Labels", info.labels.as_ref().map(|labels| labels.join(", ")));
    out
}
