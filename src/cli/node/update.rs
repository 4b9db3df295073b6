//! `flok node update`.

use bollard::models::{NodeSpec, NodeSpecRoleEnum};
use clap::Args;

use super::change;
use crate::api::client::Client;
use crate::cli::swarm::Availability;
use crate::cli::swarm::Role;
use crate::cli::{key_value, output::print};

/// Change a node's labels, availability or role
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok node update --label-add zone=a --label-rm old node-1
  flok node update --availability drain node-1      its tasks move elsewhere")]
pub struct Update {
    /// Whether the node gets tasks (active), keeps those it has (pause), or loses them to others (drain)
    #[arg(long, value_enum)]
    availability: Option<Availability>,
    /// Whether the node takes commands (manager) or only runs tasks (worker)
    #[arg(long, value_enum)]
    role: Option<Role>,
    /// Add or change a label; repeat it
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    label_add: Vec<(String, String)>,
    /// Remove a label; repeat it
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// Name, id or "self"
    node: String,
}

impl Update {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        change(client, &self.node, |spec| self.edit(spec).map(|()| true)).await?;
        print(&format!("{}\n", self.node))
    }

    /// A label that is not there is an error, as in Docker.
    fn edit(&self, spec: &mut NodeSpec) -> anyhow::Result<()> {
        let labels = spec.labels.get_or_insert_default();
        for key in &self.label_rm {
            if labels.remove(key).is_none() {
                anyhow::bail!("node {} has no label {key}", self.node);
            }
        }
        labels.extend(self.label_add.iter().cloned());
        if let Some(availability) = self.availability {
            spec.availability = Some(availability.to_docker());
        }
        spec.role = match self.role {
            Some(Role::Manager) => Some(NodeSpecRoleEnum::MANAGER),
            Some(Role::Worker) => Some(NodeSpecRoleEnum::WORKER),
            None => spec.role,
        };
        Ok(())
    }
}
