//! From the canonical tree to specs, with the names and labels that Docker gives to what a stack owns.

mod deploy;
mod faults;
mod mounts;
mod objects;
mod service;

use serde::{Deserialize, Serialize};

use super::problem::{Place, Report};
use super::reader::ReadFile;
use super::yaml::{Entry, Node, Value};
use crate::spec::{ConfigSpec, Labels, NetworkSpec, NodeNetwork, SecretSpec, ServiceSpec, quantity};

/// The label that says which stack an object belongs to.
pub const NAMESPACE_LABEL: &str = "com.docker.stack.namespace";
/// The image as the stack file names it, before a digest is resolved.
pub const IMAGE_LABEL: &str = "com.docker.stack.image";

/// What a stack file asks for. Services refer to networks, secrets and configs by name; whoever stores them puts the ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stack {
    pub name: String,
    pub services: Vec<ServiceSpec>,
    pub networks: Vec<NetworkSpec>,
    pub secrets: Vec<SecretSpec>,
    pub configs: Vec<ConfigSpec>,
    /// Names of networks, secrets and configs that must exist already.
    pub external_networks: Vec<String>,
    pub external_secrets: Vec<String>,
    pub external_configs: Vec<String>,
}

/// Reads the canonical tree once for one stack.
pub(super) struct Converter<'a> {
    pub name: &'a str,
    pub root: &'a Node,
    pub report: &'a mut Report,
    pub variables: &'a super::Variables,
    pub read_file: &'a ReadFile<'a>,
    pub features: super::Features,
    /// Services whose profiles are not asked for, with these.
    pub dropped: &'a [(String, Vec<String>)],
}

impl Converter<'_> {
    /// The stack, as far as it could be read; what could not is in the report.
    pub fn stack(&mut self) -> Stack {
        self.check_name();
        let mut services = Vec::new();
        let root = self.root;
        for entry in section(root, "services") {
            services.extend(self.service(entry));
        }
        self.refuse_rings();
        if section(root, "services").is_empty() && !self.report.partial {
            self.report.problem(root.place, "services", "the stack has no services");
        }
        Stack {
            name: self.name.to_string(),
            services,
            networks: self.networks(),
            secrets: self.secrets(),
            configs: self.configs(),
            external_networks: self.externals("networks"),
            external_secrets: self.externals("secrets"),
            external_configs: self.externals("configs"),
        }
    }

    fn check_name(&mut self) {
        if let Err(why) = check_stack_name(self.name) {
            self.report.problem(Place::default(), "", why);
        }
    }

    /// The labels of anything the stack owns.
    fn owned(&self, labels: Option<&Node>) -> Labels {
        let mut labels = text_map(labels);
        labels.insert(NAMESPACE_LABEL.into(), self.name.into());
        labels
    }

    /// The name in the swarm of what the file calls `key`: its own `name`, its key where it is external, or the scoped key.
    fn scoped(&self, key: &str, definition: &Node) -> String {
        match (definition.get("name"), definition.flag("external")) {
            (Some(name), _) => name.as_text().to_string(),
            (None, true) => key.to_string(),
            (None, false) => format!("{}_{key}", self.name),
        }
    }

    /// What has to be there in the swarm.
    fn externals(&self, kind: &str) -> Vec<String> {
        let external = |entry: &&Entry| entry.value.flag("external");
        let entries = section(self.root, kind).iter().filter(external);
        let names = entries.map(|entry| self.scoped(&entry.key, &entry.value));
        names.filter(|name| kind != "networks" || NodeNetwork::named(name).is_none()).collect()
    }
}

/// Whether a stack may be called so.
pub fn check_stack_name(name: &str) -> Result<(), String> {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(inner) && name.len() <= 63 {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(format!(
        "invalid stack name {shown:?}: it begins with a letter or digit, then may have '-' and '_' too, 63 in all"
    ))
}

fn section<'n>(root: &'n Node, name: &str) -> &'n [Entry] {
    root.get(name).map_or(&[], Node::entries)
}

fn text_map(node: Option<&Node>) -> Labels {
    let entries = node.map_or(&[][..], Node::entries);
    entries.iter().map(|entry| (entry.key.clone(), entry.value.as_text().to_string())).collect()
}

/// Reading a canonical mapping: types were checked when it was made canonical.
impl Node {
    pub(in crate::spec::stack) fn string(&self, key: &str) -> Option<String> {
        self.get(key).map(|node| node.as_text().to_string())
    }

    fn strings(&self, key: &str) -> Vec<String> {
        self.get(key).map_or(&[][..], Node::items).iter().map(|item| item.as_text().to_string()).collect()
    }

    pub(in crate::spec::stack) fn flag(&self, key: &str) -> bool {
        self.optional_flag(key).unwrap_or(false)
    }

    pub(in crate::spec::stack) fn optional_flag(&self, key: &str) -> Option<bool> {
        match self.get(key)?.value {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    fn int(&self, key: &str) -> Option<i64> {
        match self.get(key)?.value {
            Value::Int(value) => Some(value),
            _ => None,
        }
    }

    /// A number that was checked not to be negative.
    pub(in crate::spec::stack) fn count(&self, key: &str) -> Option<u64> {
        self.int(key).and_then(|value| u64::try_from(value).ok())
    }

    fn bytes(&self, key: &str) -> Option<u64> {
        self.get(key).and_then(|node| node.as_text().parse().ok())
    }

    pub(in crate::spec::stack) fn duration(&self, key: &str) -> Option<std::time::Duration> {
        self.get(key).and_then(|node| quantity::parse_duration(node.as_text()).ok())
    }
}
