//! `flok swarm`.

mod init;
mod join;
mod join_token;
mod leave;
mod status;
mod unlock;
mod unlock_key;
mod update;

pub use join_token::Role;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::api::client::Client;

/// `--availability`, with which a node begins.
#[derive(Debug, Args)]
struct AvailabilityArg {
    /// Which tasks this node takes
    #[arg(long, value_name = "WORD", value_parser = ["active", "pause", "drain"], default_value = "active")]
    availability: String,
}

/// A request and what its model lacks.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct With<T> {
    #[serde(flatten)]
    request: T,
    availability: String,
}

#[derive(Debug, Subcommand)]
pub enum Swarm {
    Init(init::Init),
    Join(join::Join),
    JoinToken(join_token::JoinToken),
    Leave(leave::Leave),
    Status(status::Status),
    Unlock(unlock::Unlock),
    UnlockKey(unlock_key::UnlockKey),
    Update(update::Update),
}

impl Swarm {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        match self {
            Swarm::Init(verb) => verb.run(client).await,
            Swarm::Join(verb) => verb.run(client).await,
            Swarm::JoinToken(verb) => verb.run(client).await,
            Swarm::Leave(verb) => verb.run(client).await,
            Swarm::Status(verb) => verb.run(client).await,
            Swarm::Unlock(verb) => verb.run(client).await,
            Swarm::UnlockKey(verb) => verb.run(client).await,
            Swarm::Update(verb) => verb.run(client).await,
        }
    }
}

/// A node's availability, as the API has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Availability {
    Active,
    Pause,
    Drain,
}

impl Availability {
    pub fn to_docker(self) -> bollard::models::NodeSpecAvailabilityEnum {
        use bollard::models::NodeSpecAvailabilityEnum as Docker;
        match self {
            Availability::Active => Docker::ACTIVE,
            Availability::Pause => Docker::PAUSE,
            Availability::Drain => Docker::DRAIN,
        }
    }
}
