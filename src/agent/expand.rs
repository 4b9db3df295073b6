//! What a task is made of once its templates are filled in: its container's spec, and the files of its secrets and configs.

use std::collections::BTreeMap;

use crate::spec::template::{self, Budget, Context, Words};
use crate::spec::*;

/// What a node says of itself in templates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeNames {
    pub id: NodeId,
    pub hostname: String,
    pub platform: Platform,
}

/// A secret or config as its container finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFile {
    /// Absolute path in the container.
    pub target: String,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    pub data: SecretBytes,
}

/// Where a secret without a path of its own appears.
const SECRETS_DIR: &str = "/run/secrets";

/// What a task holds of its node's generic resources, in the variables that Docker gives: `DOCKER_RESOURCE_GPU=0,1`.
fn held(resources: &[GenericResource]) -> Vec<String> {
    let mut kinds: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for resource in resources {
        let (kind, value) = match resource {
            GenericResource::Discrete { kind, value } => (kind, value.to_string()),
            GenericResource::Named { kind, value } => (kind, value.clone()),
            // Only ever wished for: what is held has been counted or named.
            GenericResource::All { .. } => continue,
        };
        kinds.entry(kind).or_default().push(value);
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let variable = |(kind, values): (&str, Vec<String>)| {
        format!("DOCKER_RESOURCE_{}={}", kind.chars().map(plain).collect::<String>(), values.join(","))
    };
    kinds.into_iter().map(variable).collect()
}

/// An assignment with what its templates ask for.
pub struct Expander<'a> {
    assignment: &'a Assignment,
    dependencies: &'a BTreeMap<DependencyId, Dependency>,
    words: Words,
}

impl<'a> Expander<'a> {
    pub fn new(
        assignment: &'a Assignment,
        node: &'a NodeNames,
        dependencies: &'a BTreeMap<DependencyId, Dependency>,
    ) -> Expander<'a> {
        Expander { assignment, dependencies, words: words(assignment, node) }
    }

    /// The container's spec; an error says which part cannot be filled in.
    pub fn container(&self) -> Result<ContainerSpec, String> {
        let mut container = self.assignment.spec.container.expanded(&self.words)?;
        container.env.extend(held(&self.assignment.resources));
        Ok(container)
    }

    /// Every secret and config of the task, with the variables of its filled-in `container`. An error never holds data.
    pub fn files(&self, container: &ContainerSpec) -> Result<Vec<TaskFile>, String> {
        let secrets = container.secrets.iter().map(|secret| {
            let target = below(SECRETS_DIR, &secret.file.name);
            self.file("secret", &secret.name, of_secret(secret), &secret.file, target, container)
        });
        let configs = container.configs.iter().map(|config| {
            let target = below("", &config.file.name);
            self.file("config", &config.name, of_config(config), &config.file, target, container)
        });
        secrets.chain(configs).collect()
    }

    fn file(
        &self,
        kind: &str,
        name: &str,
        id: DependencyId,
        file: &FileTarget,
        target: String,
        container: &ContainerSpec,
    ) -> Result<TaskFile, String> {
        let wrong = |why: String| format!("{kind} {name}: {why}");
        let number = |what: &str, text: &str| {
            text.parse().map_err(|_| wrong(format!("{what} {text:?} is no number: write for example 1000")))
        };
        let (uid, gid) = (number("uid", &file.uid)?, number("gid", &file.gid)?);
        let data = self.dependency(id).map_err(wrong)?;
        let data = if data.is_template { self.filled_in(data, container).map_err(wrong)? } else { data.data.clone() };
        Ok(TaskFile { target, uid, gid, mode: file.mode & 0o7777, data })
    }

    fn filled_in(&self, data: &Dependency, container: &ContainerSpec) -> Result<SecretBytes, String> {
        let text = std::str::from_utf8(&data.data.0).map_err(|_| "a template must be text in UTF-8".to_owned())?;
        let lookup = |kind: &str, name: &str| self.look_up(kind, name, container);
        template::expand(text, &self.words, Some(&lookup), &Budget::of_task())
            .map(|text| SecretBytes(text.into_bytes()))
    }

    /// As in Docker, a secret or config is asked for by the name of its file, and a variable that is not set is empty.
    fn look_up(&self, kind: &str, name: &str, container: &ContainerSpec) -> Result<String, String> {
        let id = match kind {
            "env" => {
                let value = |variable: &String| {
                    variable.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
                };
                return Ok(container.env.iter().find_map(value).unwrap_or_default());
            }
            "secret" => {
                let secret = container.secrets.iter().find(|secret| secret.file.name == name);
                secret.map(of_secret)
            }
            _ => {
                let config = container.configs.iter().find(|config| config.file.name == name);
                config.map(of_config)
            }
        };
        let data = self.dependency(id.ok_or_else(|| format!("{kind} target {name} not found in the service"))?)?;
        String::from_utf8(data.data.0.clone()).map_err(|_| format!("{kind} {name} is not text in UTF-8"))
    }

    fn dependency(&self, id: DependencyId) -> Result<&Dependency, String> {
        self.dependencies.get(&id).ok_or_else(|| "its data has not come to this node".to_owned())
    }
}

fn words(assignment: &Assignment, node: &NodeNames) -> Words {
    Context {
        service_id: &assignment.service.to_string(),
        service_name: &assignment.service_name,
        service_labels: &assignment.service_labels,
        node_id: &node.id.to_string(),
        node_hostname: &node.hostname,
        node_os: &node.platform.os,
        node_architecture: &node.platform.architecture,
        task_id: &assignment.task.to_string(),
        task_name: &assignment.name,
        task_slot: &assignment.slot.to_string(),
    }
    .words()
}

fn of_secret(secret: &SecretReference) -> DependencyId {
    DependencyId::Data(DataId::Secret(secret.id), secret.data_version)
}

fn of_config(config: &ConfigReference) -> DependencyId {
    DependencyId::Data(DataId::Config(config.id), config.data_version)
}

fn below(dir: &str, name: &str) -> String {
    if name.starts_with('/') { name.to_owned() } else { format!("{dir}/{name}") }
}
