//! `flok swarm leave`.

use std::time::Duration;

use bollard::query_parameters::LeaveSwarmOptions;
use clap::Args;

use crate::api::client::Client;
use crate::cli::output::print;

/// A manager hands over first, and the node stops its tasks.
const WITHIN: Duration = Duration::from_secs(60);

/// Leave the swarm: this node's tasks are replaced elsewhere, and it forgets the swarm
#[derive(Debug, Args)]
pub struct Leave {
    /// Leave although this node is a manager
    #[arg(long, short)]
    force: bool,
}

impl Leave {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let options = LeaveSwarmOptions { force: self.force };
        client.patient(WITHIN).leave_swarm(Some(options)).await.map_err(|error| client.explain(error))?;
        print("Node left the swarm.\n")
    }
}
