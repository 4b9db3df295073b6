//! `flok image tag`.

use bollard::query_parameters::TagImageOptions;
use clap::Args;

use crate::api::client::Client;

/// Give an image of this node one more name
#[derive(Debug, Args)]
pub struct Tag {
    /// Name, digest or id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Name that it gets as well
    #[arg(value_name = "NEW_NAME")]
    name: String,
}

impl Tag {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let (repo, tag) = split(&self.name);
        let options = TagImageOptions { repo: Some(repo.to_owned()), tag: tag.map(str::to_owned) };
        let tagged = client.docker().tag_image(&self.image, Some(options)).await;
        Ok(tagged.map_err(|error| client.explain(error))?)
    }
}

/// A colon before a slash is a port.
fn split(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((repo, tag)) if !tag.contains('/') => (repo, Some(tag)),
        _ => (name, None),
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn the_port_of_a_registry_is_no_tag() {
        assert_eq!(split("web:2"), ("web", Some("2")));
        assert_eq!(split("reg:5000/web"), ("reg:5000/web", None));
        assert_eq!(split("reg:5000/web:2"), ("reg:5000/web", Some("2")));
    }
}
