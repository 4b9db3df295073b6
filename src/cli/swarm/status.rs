//! `flok swarm status`: the swarm's health at one glance.

use std::fmt::Write;

use clap::Args;

use crate::api::client::Client;
use crate::api::model::status::SwarmStatus;
use crate::cli::output::{FormatArg, Table, print};

/// Show who leads, who votes, who is missing, and whether all tasks run
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    format: FormatArg,
}

impl Status {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let status: SwarmStatus = client.get("/status").await?;
        print(&self.format.format.show(&status, || render(&status))?)
    }
}

fn render(status: &SwarmStatus) -> String {
    let name =
        |id: &str| status.nodes.iter().find(|node| node.id == id).map_or(id.to_string(), |node| node.name.clone());
    let leader = status.leader.as_deref().map_or_else(|| "none".to_string(), name);
    let mut out = format!("Swarm:    {}\nLeader:   {leader}\n", status.swarm);
    let mut line =
        |key: &str, value: String| writeln!(out, "{:<10}{value}", format!("{key}:")).expect("a String takes all");
    if let Some(ms) = status.no_quorum_for_ms {
        let missing = if status.missing.is_empty() { "unknown".to_string() } else { status.missing.join(", ") };
        line("Quorum", format!("none for {:.1} s; missing: {missing}", ms as f64 / 1000.0));
    } else {
        line("Quorum", "yes".into());
    }
    if let Some(notice) = &status.notice {
        line("Notice", notice.clone());
    }
    let tasks = status.tasks;
    let pending = if tasks.pending > 0 { format!(", {} waiting for a node", tasks.pending) } else { String::new() };
    line("Services", status.services.to_string());
    line("Tasks", format!("{} of {} running{pending}", tasks.running, tasks.wanted));
    line("Log", format!("entry {}, feature level {}", status.applied_index, status.feature_level));
    let mut table = Table::new(&[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Role", "ROLE"),
        ("Raft", "RAFT"),
        ("Health", "HEALTH"),
        ("Availability", "AVAILABILITY"),
        ("Address", "ADDRESS"),
        ("Tasks", "TASKS"),
        ("CPU", "CPU"),
        ("Memory", "MEMORY"),
    ]);
    let percent = |value: Option<f32>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}%"));
    for node in &status.nodes {
        let id = if node.id == status.node { format!("{} *", node.id) } else { node.id.clone() };
        table.row([
            id,
            node.name.clone(),
            node.role.clone(),
            node.raft.clone(),
            node.health.clone(),
            node.availability.clone(),
            node.address.clone(),
            node.tasks.to_string(),
            percent(node.load.map(|load| load.cpu)),
            percent(node.load.map(|load| load.memory)),
        ]);
    }
    let conditions = status.nodes.iter().flat_map(|node| node.conditions.iter().map(move |it| (node, it)));
    let lines: String = conditions.map(|(node, it)| format!("  {}: {}\n", node.name, it.detail)).collect();
    let conditions = if lines.is_empty() { String::new() } else { format!("\nConditions:\n{lines}") };
    format!("{out}\n{}{conditions}", table.text())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::model::status::{ConditionStatus, LoadStatus, NodeStatus, TaskTotals};

    #[test]
    fn the_status_names_the_leader_and_who_is_missing() {
        let node = |id: &str, raft: &str| NodeStatus {
            id: id.into(),
            name: format!("host-{id}"),
            role: "manager".into(),
            raft: raft.into(),
            health: "up".into(),
            availability: "active".into(),
            address: "10.0.0.1:2377".into(),
            tasks: 2,
            load: (raft == "leader").then_some(LoadStatus {
                cpu: 12.4,
                memory: 50.0,
                cpu_pressure: 0.0,
                memory_pressure: 0.0,
                io_pressure: 0.0,
            }),
            conditions: vec![ConditionStatus {
                concern: "port".into(),
                port: Some("80/tcp".into()),
                detail: "port 80/tcp is taken".into(),
            }],
        };
        let status = SwarmStatus {
            swarm: "s".into(),
            node: "a".into(),
            leader: Some("b".into()),
            no_quorum_for_ms: Some(1500),
            missing: vec!["host-c".into()],
            notice: Some("most of it is gone".into()),
            applied_index: 7,
            feature_level: 1,
            nodes: vec![node("a", "voter"), node("b", "leader")],
            services: 1,
            tasks: TaskTotals { running: 3, wanted: 4, pending: 1 },
        };
        let text = render(&status);
        for part in [
            "Leader:   host-b",
            "none for 1.5 s; missing: host-c",
            "Notice:   most of it is gone",
            "3 of 4 running, 1 waiting for a node",
            "a *  ",
            "2       12%   50%",
            "2       -     -",
            "Conditions:\n  host-a: port 80/tcp is taken\n  host-b: ",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
