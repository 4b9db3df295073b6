//! The requests of secrets and of configs, which differ in their paths alone.

use std::collections::HashMap;

use bollard::models::*;
use bollard::query_parameters::{ListConfigsOptions, ListSecretsOptions, UpdateConfigOptions, UpdateSecretOptions};

use crate::api::client::Client;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Secret,
    Config,
}

/// One of either kind.
#[derive(Debug, Clone, Default)]
pub struct Object {
    pub id: String,
    pub name: String,
    pub labels: HashMap<String, String>,
    /// Where the data of a secret comes from; empty: from the swarm itself.
    pub driver: String,
    pub version: u64,
    pub created: Option<String>,
    pub updated: Option<String>,
}

impl Object {
    pub fn of_secret(secret: Secret) -> Object {
        let spec = secret.spec.unwrap_or_default();
        Object {
            id: secret.id.unwrap_or_default(),
            name: spec.name.unwrap_or_default(),
            labels: spec.labels.unwrap_or_default(),
            driver: spec.driver.map(|driver| driver.name).unwrap_or_default(),
            version: secret.version.and_then(|version| version.index).unwrap_or(0),
            created: secret.created_at,
            updated: secret.updated_at,
        }
    }

    pub fn of_config(config: Config) -> Object {
        let spec = config.spec.unwrap_or_default();
        Object {
            id: config.id.unwrap_or_default(),
            name: spec.name.unwrap_or_default(),
            labels: spec.labels.unwrap_or_default(),
            driver: String::new(),
            version: config.version.and_then(|version| version.index).unwrap_or(0),
            created: config.created_at,
            updated: config.updated_at,
        }
    }
}

impl Kind {
    /// As messages and flok's own paths call it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Secret => "secret",
            Kind::Config => "config",
        }
    }

    pub async fn list(self, client: &Client, filters: HashMap<String, Vec<String>>) -> anyhow::Result<Vec<Object>> {
        let explain = |error| client.explain(error);
        let (docker, filters) = (client.docker(), Some(filters));
        let mut objects: Vec<Object> = match self {
            Kind::Secret => {
                let found = docker.list_secrets(Some(ListSecretsOptions { filters })).await.map_err(explain)?;
                found.into_iter().map(Object::of_secret).collect()
            }
            Kind::Config => {
                let found = docker.list_configs(Some(ListConfigsOptions { filters })).await.map_err(explain)?;
                found.into_iter().map(Object::of_config).collect()
            }
        };
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }

    pub async fn get(self, client: &Client, name: &str) -> anyhow::Result<Object> {
        let explain = |error| client.explain(error);
        Ok(match self {
            Kind::Secret => Object::of_secret(client.docker().inspect_secret(name).await.map_err(explain)?),
            Kind::Config => Object::of_config(client.docker().inspect_config(name).await.map_err(explain)?),
        })
    }

    /// Returns the id. `data` is in base64.
    pub async fn create(self, client: &Client, new: ConfigSpec) -> anyhow::Result<String> {
        let explain = |error| client.explain(error);
        let created = match self {
            Kind::Secret => client.docker().create_secret(secret_spec(new)).await.map_err(explain)?,
            Kind::Config => client.docker().create_config(new).await.map_err(explain)?,
        };
        Ok(created.id)
    }

    pub async fn set_labels(self, client: &Client, object: &Object) -> anyhow::Result<()> {
        let explain = |error| client.explain(error);
        let version = i64::try_from(object.version)?;
        let (name, labels) = (Some(object.name.clone()), Some(object.labels.clone()));
        let spec = ConfigSpec { name, labels, ..ConfigSpec::default() };
        match self {
            Kind::Secret => {
                let options = UpdateSecretOptions { version };
                client.docker().update_secret(&object.id, secret_spec(spec), options).await.map_err(explain)?;
            }
            Kind::Config => {
                let options = UpdateConfigOptions { version };
                client.docker().update_config(&object.id, spec, options).await.map_err(explain)?;
            }
        }
        Ok(())
    }

    pub async fn remove(self, client: &Client, name: &str) -> anyhow::Result<()> {
        let explain = |error| client.explain(error);
        match self {
            Kind::Secret => client.docker().delete_secret(name).await.map_err(explain)?,
            Kind::Config => client.docker().delete_config(name).await.map_err(explain)?,
        }
        Ok(())
    }
}

fn secret_spec(spec: ConfigSpec) -> SecretSpec {
    SecretSpec { name: spec.name, labels: spec.labels, data: spec.data, templating: spec.templating, driver: None }
}

/// The id of what a service is to use, by its name.
pub async fn id_of(kind: Kind, client: &Client, name: &str) -> anyhow::Result<String> {
    Ok(kind.get(client, name).await?.id)
}
