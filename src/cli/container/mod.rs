//! What is done to one task's container, on whichever node it is: `flok exec`, `attach`, `cp`, `top`, `stats`, `port-forward`.

pub mod attach;
pub mod copy;
pub mod exec;
pub mod forward;
mod pack;
pub mod stats;
pub mod terminal;
pub mod top;

use serde::Deserialize;

use crate::api::client::{Client, ClientError, escaped};

#[derive(Deserialize)]
struct Found {
    #[serde(rename = "Id")]
    id: String,
}

/// The container that a name means: a task's, or that of some running task of a service.
pub async fn find(client: &Client, name: &str) -> Result<String, ClientError> {
    let found: Found = client.get(&format!("/containers/{}", escaped(name))).await?;
    Ok(found.id)
}
