//! `flok node promote` and `flok node demote`.

use bollard::models::NodeSpecRoleEnum as Role;
use clap::Args;

use super::change;
use crate::api::client::Client;
use crate::cli::{each, output::print};

#[derive(Debug, Args)]
pub struct Nodes {
    /// Names, ids or "self"
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

impl Nodes {
    pub async fn promote(self, client: &Client) -> anyhow::Result<()> {
        self.set(client, Role::MANAGER, "promoted to a manager in", "manager").await
    }

    pub async fn demote(self, client: &Client) -> anyhow::Result<()> {
        self.set(client, Role::WORKER, "demoted in", "worker").await
    }

    async fn set(self, client: &Client, role: Role, done: &str, name: &str) -> anyhow::Result<()> {
        each(self.nodes, async |node| {
            let changed = change(client, &node, |spec| Ok(spec.role.replace(role) != Some(role))).await?;
            match changed {
                true => print(&format!("Node {node} {done} the swarm.\n")),
                false => print(&format!("Node {node} is already a {name}.\n")),
            }
        })
        .await
    }
}
