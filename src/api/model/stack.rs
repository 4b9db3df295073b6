//! A stack as one transaction.

use serde::{Deserialize, Serialize};

use crate::spec::{ConfigSpec, NetworkSpec, SecretSpec, ServiceSpec};

/// The label by which a stack's objects are known, as in Docker.
pub const STACK_LABEL: &str = "com.docker.stack.namespace";

/// `POST /flok/v1/stacks/{name}`: all of it is put in force, or nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StackDeploy {
    /// Each named `<stack>_<service>` and carrying [`STACK_LABEL`].
    pub services: Vec<ServiceSpec>,
    /// Each named by its stack and carrying [`STACK_LABEL`]; those that exist already stay as they are.
    pub networks: Vec<NetworkSpec>,
    /// Names of networks that must exist already.
    #[serde(default)]
    pub external_networks: Vec<String>,
    pub secrets: Vec<SecretSpec>,
    pub configs: Vec<ConfigSpec>,
    /// Remove services of the stack that are not named any more.
    pub prune: bool,
    /// Docker's `X-Registry-Auth` for each service by name, where there is one.
    pub credentials: std::collections::BTreeMap<String, String>,
}

/// What a deployment or removal changed, by name: services, and what is beside them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackChanged {
    pub created: Vec<String>,
    pub updated: Vec<String>,
    pub unchanged: Vec<String>,
    pub removed: Vec<String>,
    #[serde(default)]
    pub created_networks: Vec<String>,
    #[serde(default)]
    pub removed_networks: Vec<String>,
    #[serde(default)]
    pub created_secrets: Vec<String>,
    #[serde(default)]
    pub created_configs: Vec<String>,
    /// Given new data.
    #[serde(default)]
    pub updated_secrets: Vec<String>,
    #[serde(default)]
    pub updated_configs: Vec<String>,
    #[serde(default)]
    pub removed_secrets: Vec<String>,
    #[serde(default)]
    pub removed_configs: Vec<String>,
}
