//! `flok node`.

mod inspect;
mod ls;
mod ps;
mod rm;
mod role;
mod support_bundle;
mod update;

use clap::Subcommand;

pub use ls::capitalized;

use crate::api::client::Client;
use crate::cli::retry::retried;

#[derive(Debug, Subcommand)]
pub enum Node {
    #[command(visible_alias = "list")]
    Ls(ls::Ls),
    Inspect(inspect::Inspect),
    Ps(ps::Ps),
    Update(update::Update),
    /// Make workers managers
    Promote(role::Nodes),
    /// Make managers workers
    Demote(role::Nodes),
    #[command(visible_alias = "remove")]
    Rm(rm::Rm),
    SupportBundle(support_bundle::SupportBundle),
}

impl Node {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        match self {
            Node::Ls(verb) => verb.run(client).await,
            Node::Inspect(verb) => verb.run(client).await,
            Node::Ps(verb) => verb.run(client).await,
            Node::Update(verb) => verb.run(client).await,
            Node::Promote(nodes) => nodes.promote(client).await,
            Node::Demote(nodes) => nodes.demote(client).await,
            Node::Rm(verb) => verb.run(client).await,
            Node::SupportBundle(verb) => verb.run(client).await,
        }
    }
}

/// The id that `self` stands for.
async fn own_id(client: &Client, name: &str) -> anyhow::Result<String> {
    if name != "self" {
        return Ok(name.to_string());
    }
    let info = client.docker().info().await.map_err(|error| client.explain(error))?;
    let id = info.swarm.and_then(|swarm| swarm.node_id).filter(|id| !id.is_empty());
    id.ok_or_else(|| {
        anyhow::anyhow!(
            "this node is in no swarm: join one with `flok swarm join`, or begin one with `flok swarm init`"
        )
    })
}

/// The node and the version to update it at.
async fn fetch(client: &Client, name: &str) -> anyhow::Result<(bollard::models::Node, i64)> {
    let id = own_id(client, name).await?;
    let node = client.docker().inspect_node(&id).await.map_err(|error| client.explain(error))?;
    let version = node.version.as_ref().and_then(|version| version.index).and_then(|index| i64::try_from(index).ok());
    Ok((node, version.unwrap_or(0)))
}

/// Looks at a node and changes its spec; again, from the node as it is then, where somebody else changed it between. Where
/// `edit` says that there is nothing to change, nothing is: false.
async fn change(
    client: &Client,
    name: &str,
    mut edit: impl FnMut(&mut bollard::models::NodeSpec) -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    retried(&format!("node {name}"), async || {
        let (node, version) = fetch(client, name).await?;
        let mut spec = node.spec.clone().unwrap_or_default();
        let changes = edit(&mut spec)?;
        if changes {
            store(client, &node, version, spec).await?;
        }
        Ok(changes)
    })
    .await
}

/// Stores a spec where nobody else changed the node since [`fetch`].
async fn store(
    client: &Client,
    node: &bollard::models::Node,
    version: i64,
    spec: bollard::models::NodeSpec,
) -> anyhow::Result<()> {
    let options = bollard::query_parameters::UpdateNodeOptions { version };
    let id = node.id.as_deref().unwrap_or_default();
    Ok(client.docker().update_node(id, spec, options).await.map_err(|error| client.explain(error))?)
}

/// The name a node goes by: its own, or its host's.
pub fn display_name(node: &bollard::models::Node) -> String {
    let own = node.spec.as_ref().and_then(|spec| spec.name.clone()).filter(|name| !name.is_empty());
    let host = || node.description.as_ref().and_then(|description| description.hostname.clone());
    own.or_else(host).unwrap_or_else(|| node.id.clone().unwrap_or_default())
}
