//! What is done to one task's container, on whichever node it is: `flok exec`, `cp`, `top`, `stats`, `port-forward`.

pub mod copy;
pub mod exec;
pub mod forward;
pub mod stats;
mod terminal;
pub mod top;

use serde::Deserialize;

use crate::api::client::{Client, ClientError};

#[derive(Deserialize)]
struct Found {
    #[serde(rename = "Id")]
    id: String,
}

/// The container that a name means: a task's, or that of some running task of a service.
async fn find(client: &Client, name: &str) -> Result<String, ClientError> {
    let found: Found = client.get(&format!("/containers/{}", encoded(name))).await?;
    Ok(found.id)
}

/// As a part of a path.
fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_part_of_a_path() {
        assert_eq!(encoded("web.1"), "web.1");
        assert_eq!(encoded("a/b c?ä"), "a%2Fb%20c%3F%C3%A4");
    }
}
