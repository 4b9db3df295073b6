//! `flok node ls`.

use bollard::models::{Node, Reachability};
use bollard::query_parameters::ListNodesOptions;
use clap::Args;
use serde_json::{Value, json};

use super::display_name;
use crate::api::client::Client;
use crate::cli::list::ListArgs;
use crate::cli::output::{Format, Table, labels};

/// List the nodes of the swarm
#[derive(Debug, Args)]
pub struct Ls {
    #[command(flatten)]
    list: ListArgs,
}

impl Ls {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let options = ListNodesOptions { filters: Some(self.list.filters()) };
        let nodes = client.docker().list_nodes(Some(options)).await.map_err(|error| client.explain(error))?;
        if self.list.quiet {
            return self.list.show_ids(nodes.iter().map(|node| node.id.as_ref()));
        }
        let info = client.docker().info().await.map_err(|error| client.explain(error))?;
        let own = info.swarm.and_then(|swarm| swarm.node_id).unwrap_or_default();
        self.list.show(&table(nodes, &own, self.list.format()))
    }
}

fn table(mut nodes: Vec<Node>, own: &str, format: Format) -> Table {
    let columns = &[
        ("ID", "ID"),
        ("Hostname", "HOSTNAME"),
        ("Status", "STATUS"),
        ("Availability", "AVAILABILITY"),
        ("ManagerStatus", "MANAGER STATUS"),
        ("EngineVersion", "ENGINE VERSION"),
        ("Notice", "NOTICE"),
    ];
    let hidden = &[("Self", "SELF"), ("TLSStatus", "TLS STATUS"), ("Labels", "LABELS"), ("Label", "LABEL")];
    let mut table = Table::with_hidden(columns, hidden);
    nodes.sort_by_key(|node| (display_name(node), node.id.clone()));
    for node in nodes {
        let id = node.id.clone().unwrap_or_default();
        let is_own = id == own;
        let marked = if is_own && format == Format::Table { format!("{id} *") } else { id };
        let state = node.status.as_ref().and_then(|status| status.state).map(|state| capitalized(&state.to_string()));
        let availability = node.spec.as_ref().and_then(|spec| spec.availability).map(|a| capitalized(a.as_ref()));
        let notice = node.status.as_ref().and_then(|status| status.message.clone()).unwrap_or_default();
        let engine = node.description.as_ref().and_then(|description| description.engine.as_ref());
        let own_labels = node.spec.as_ref().and_then(|spec| spec.labels.clone()).unwrap_or_default();
        table.row_of([
            Value::from(marked),
            display_name(&node).into(),
            state.unwrap_or_default().into(),
            availability.unwrap_or_default().into(),
            manager_status(&node).into(),
            engine.and_then(|engine| engine.engine_version.clone()).unwrap_or_default().into(),
            notice.into(),
            is_own.into(),
            tls_status(&node).into(),
            labels(&own_labels).into(),
            json!(own_labels),
        ]);
    }
    table
}

/// In Docker's words: whether the certificate is of the swarm's authority.
fn tls_status(node: &Node) -> &'static str {
    let info = node.description.as_ref().and_then(|description| description.tls_info.as_ref());
    if info.is_some_and(|info| info.cert_issuer_public_key.is_some()) { "Ready" } else { "Unknown" }
}

/// Empty for a worker.
fn manager_status(node: &Node) -> String {
    let Some(status) = &node.manager_status else { return String::new() };
    match (status.leader, status.reachability) {
        (Some(true), _) => "Leader".into(),
        (_, Some(Reachability::REACHABLE)) => "Reachable".into(),
        (_, Some(Reachability::UNREACHABLE)) => "Unreachable".into(),
        _ => "Unknown".into(),
    }
}

pub fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTICE: &str = "back after an outage; gets no new tasks until 2026-11-30T11:39:04Z";

    #[test]
    fn nodes_are_listed_as_docker_lists_them() {
        let node = |id: &str, host: &str, manager: Option<serde_json::Value>, message: &str| {
            serde_json::from_value::<Node>(serde_json::json!({
                "ID": id,
                "Spec": {"Availability": "active", "Role": "manager"},
                "Description": {"Hostname": host, "Engine": {"EngineVersion": "0.1.0"},
                    "TLSInfo": {"CertIssuerPublicKey": "a2V5"}},
                "Status": {"State": "ready", "Addr": "10.0.0.1", "Message": message},
                "ManagerStatus": manager,
            }))
            .unwrap()
        };
        let leader = serde_json::json!({"Leader": true, "Reachability": "reachable"});
        let nodes = vec![node("2", "b", None, NOTICE), node("1", "a", Some(leader), "")];
        let nodes = table(nodes, "1", Format::Table);
        let text = nodes.render(Format::Table).unwrap();
        let expected = "\
ID    HOSTNAME   STATUS   AVAILABILITY   MANAGER STATUS   ENGINE VERSION   NOTICE
1 *   a          Ready    Active         Leader           0.1.0
2     b          Ready    Active                          0.1.0            back after an outage; gets no new tasks until 2026-11-30T11:39:04Z
";
        assert_eq!(text, expected);
        let json = nodes.render(Format::Json).unwrap();
        assert!(
            json.lines().next().unwrap().contains("\"Self\":true,\"Status\":\"Ready\",\"TLSStatus\":\"Ready\""),
            "{json}"
        );
    }
}
