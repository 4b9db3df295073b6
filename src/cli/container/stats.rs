//! `flok stats`.

use std::io::IsTerminal;
use std::time::Duration;

use bollard::models::{ContainerStatsResponse, ContainerSummary};
use bollard::query_parameters::{ListContainersOptions, StatsOptions};
use clap::Args;
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};

use super::find;
use crate::api::client::Client;
use crate::cli::output::{Format, FormatArg, Table, print};

/// Show what tasks use of CPU, memory, network and disks
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok stats                               all of this node's
  flok stats web.1 web.2
  flok stats --no-stream db
  flok stats --no-stream --format '{{.Name}}: {{.MemUsage}}' web")]
pub struct Stats {
    /// Show one measurement and end
    #[arg(long)]
    no_stream: bool,
    /// Print names and ids in full, as is done anyway
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    format: FormatArg,
    /// Tasks, containers or services; none: all that run on the node that is asked
    #[arg(value_name = "TASK")]
    names: Vec<String>,
}

impl Stats {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let (mut names, mut containers) = self.containers(client).await?;
        loop {
            // Each takes a second: the difference between two looks.
            let options = StatsOptions { stream: false, one_shot: false };
            let asked = containers.iter().map(|container| {
                let mut stream = client.docker().stats(container, Some(options.clone())).boxed();
                async move { stream.try_next().await }
            });
            let mut table = Table::with_hidden(&COLUMNS, &HIDDEN);
            for (told, name) in join_all(asked).await.into_iter().zip(&names) {
                match told {
                    Ok(Some(told)) => table.row(row(name, &told)),
                    Ok(None) => {}
                    // One of all that has just ended.
                    Err(_) if self.names.is_empty() => {}
                    Err(error) => return Err(client.explain(error).into()),
                }
            }
            let in_place = matches!(self.format.format, Format::Table | Format::TableTemplate(_));
            let clears = in_place && !self.no_stream && std::io::stdout().is_terminal();
            print(&format!("{}{}", if clears { CLEAR } else { "" }, table.render(self.format.format)?))?;
            if self.no_stream {
                return Ok(());
            }
            if self.names.is_empty() {
                (names, containers) = self.containers(client).await?;
                // With none there is nothing that takes its time.
                tokio::time::sleep(if names.is_empty() { EMPTY_FOR } else { Duration::ZERO }).await;
            }
        }
    }
}

impl Stats {
    /// Names as they are to be shown, and ids.
    async fn containers(&self, client: &Client) -> anyhow::Result<(Vec<String>, Vec<String>)> {
        let mut containers = Vec::new();
        for name in &self.names {
            containers.push(find(client, name).await?);
        }
        if !self.names.is_empty() {
            return Ok((self.names.clone(), containers));
        }
        let running = client.docker().list_containers(None::<ListContainersOptions>).await;
        let named = |container: ContainerSummary| {
            let name = container.names.unwrap_or_default().into_iter().next().unwrap_or_default();
            (name.trim_start_matches('/').to_owned(), container.id.unwrap_or_default())
        };
        Ok(running.map_err(|error| client.explain(error))?.into_iter().map(named).unzip())
    }
}

/// How soon a node without tasks is looked at again.
const EMPTY_FOR: Duration = Duration::from_secs(1);
/// A terminal's screen.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// By Docker's keys.
const COLUMNS: [(&str, &str); 7] = [
    ("Name", "TASK"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];
const HIDDEN: [(&str, &str); 2] = [("Container", "CONTAINER"), ("ID", "CONTAINER ID")];

fn row(name: &str, told: &ContainerStatsResponse) -> [String; 9] {
    let memory = told.memory_stats.clone().unwrap_or_default();
    let (used, limit) = (memory.usage.unwrap_or(0), memory.limit.unwrap_or(0));
    let networks = told.networks.clone().unwrap_or_default();
    let received: u64 = networks.values().filter_map(|network| network.rx_bytes).sum();
    let sent: u64 = networks.values().filter_map(|network| network.tx_bytes).sum();
    let blocks = told.blkio_stats.clone().and_then(|stats| stats.io_service_bytes_recursive).unwrap_or_default();
    let of = |op: &str| {
        let bytes = blocks.iter().filter(|entry| entry.op.as_deref() == Some(op)).filter_map(|entry| entry.value).sum();
        bytes_for_people(bytes)
    };
    [
        name.to_owned(),
        format!("{:.2}%", cpu_percent(told)),
        format!("{} / {}", bytes_for_people(used), bytes_for_people(limit)),
        format!("{:.2}%", if limit > 0 { used as f64 * 100.0 / limit as f64 } else { 0.0 }),
        format!("{} / {}", bytes_for_people(received), bytes_for_people(sent)),
        format!("{} / {}", of("read"), of("write")),
        told.pids_stats.clone().and_then(|pids| pids.current).unwrap_or(0).to_string(),
        name.to_owned(),
        told.id.clone().unwrap_or_default(),
    ]
}

/// Of one CPU, as Docker counts: four busy ones are 400 %.
fn cpu_percent(told: &ContainerStatsResponse) -> f64 {
    let total = |stats: &Option<bollard::models::ContainerCpuStats>| {
        let stats = stats.clone().unwrap_or_default();
        let used = stats.cpu_usage.and_then(|usage| usage.total_usage).unwrap_or(0);
        (used, stats.system_cpu_usage.unwrap_or(0), stats.online_cpus.unwrap_or(1))
    };
    let (before, now) = (total(&told.precpu_stats), total(&told.cpu_stats));
    let (used, host) = (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1));
    if host == 0 { 0.0 } else { used as f64 / host as f64 * f64::from(now.2) * 100.0 }
}

fn bytes_for_people(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes}B") } else { format!("{value:.1}{}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_a_row() {
        let told: ContainerStatsResponse = serde_json::from_value(serde_json::json!({
            "id": "c1",
            "cpu_stats": {"cpu_usage": {"total_usage": 3_000}, "system_cpu_usage": 10_000, "online_cpus": 2},
            "precpu_stats": {"cpu_usage": {"total_usage": 1_000}, "system_cpu_usage": 6_000, "online_cpus": 2},
            "memory_stats": {"usage": 1_572_864, "limit": 4_194_304},
            "networks": {"eth0": {"rx_bytes": 10, "tx_bytes": 2048}},
            "pids_stats": {"current": 3},
        }))
        .unwrap();
        let expected = ["web.1", "100.00%", "1.5MiB / 4.0MiB", "37.50%", "10B / 2.0KiB", "0B / 0B", "3", "web.1", "c1"];
        assert_eq!(row("web.1", &told), expected);
    }
}
