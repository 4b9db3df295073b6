//! Networks, secrets and configs that a stack owns.

use super::super::yaml::{Entry, Node, Value};
use super::{Converter, section, text_map};
use crate::spec::stack::Feature;
use crate::spec::{ConfigSpec, NetworkSpec, SecretBytes, SecretSpec, SubnetSpec};

/// The network that services without networks of their own are on.
const DEFAULT_NETWORK: &str = "default";

impl<'a> Converter<'a> {
    pub(super) fn networks(&mut self) -> Vec<NetworkSpec> {
        let root = self.root;
        let defined = section(root, "networks");
        let mut networks = Vec::new();
        for entry in defined.iter().filter(|entry| !entry.value.flag("external")) {
            let network = self.network(&entry.key, &entry.value);
            self.report_faults("networks", entry, network.faults());
            self.warn_of_unmet("networks", entry, network.unmet());
            networks.push(network);
        }
        let uses_default = |service: &Entry| match service.value.get("networks") {
            None => service.value.get("network_mode").is_none(),
            // Named in a list, it has no settings.
            Some(own) => own.entries().is_empty() || own.entries().iter().any(|entry| entry.key == DEFAULT_NETWORK),
        };
        let needs_default = section(root, "services").iter().any(uses_default)
            && !defined.iter().any(|entry| entry.key == DEFAULT_NETWORK)
            && self.features.has(Feature::Networks);
        if needs_default {
            networks.push(self.network(DEFAULT_NETWORK, &Node::new(root.place, Value::Null)));
        }
        networks
    }

    fn network(&self, key: &str, definition: &Node) -> NetworkSpec {
        let ipam = definition.get("ipam").and_then(|ipam| ipam.get("config"));
        let subnet = |config: &Node| SubnetSpec {
            subnet: config.string("subnet").unwrap_or_default(),
            gateway: config.string("gateway"),
            ip_range: config.string("ip_range"),
        };
        NetworkSpec {
            name: self.scoped(key, definition),
            labels: self.owned(definition.get("labels")),
            driver: definition.string("driver").unwrap_or_else(|| "overlay".into()),
            driver_options: text_map(definition.get("driver_opts")),
            internal: definition.flag("internal"),
            attachable: definition.flag("attachable"),
            ingress: false,
            ipv6: definition.flag("enable_ipv6"),
            subnets: ipam.map_or(&[][..], Node::items).iter().map(subnet).collect(),
        }
    }

    pub(super) fn secrets(&mut self) -> Vec<SecretSpec> {
        let mut secrets = Vec::new();
        for (entry, data) in self.owned_data("secrets") {
            let secret = SecretSpec {
                name: self.scoped(&entry.key, &entry.value),
                labels: self.owned(entry.value.get("labels")),
                data: SecretBytes(data),
                templating: entry.value.string("template_driver"),
            };
            self.report_faults("secrets", entry, secret.faults());
            secrets.push(secret);
        }
        secrets
    }

    pub(super) fn configs(&mut self) -> Vec<ConfigSpec> {
        let mut configs = Vec::new();
        for (entry, data) in self.owned_data("configs") {
            let config = ConfigSpec {
                name: self.scoped(&entry.key, &entry.value),
                labels: self.owned(entry.value.get("labels")),
                data,
                templating: entry.value.string("template_driver"),
            };
            self.report_faults("configs", entry, config.faults());
            configs.push(config);
        }
        configs
    }

    /// What the stack owns of a kind, with its data.
    fn owned_data(&mut self, kind: &str) -> Vec<(&'a Entry, Vec<u8>)> {
        let root: &'a Node = self.root;
        let entries = section(root, kind).iter().filter(|entry| !entry.value.flag("external"));
        entries.filter_map(|entry| Some((entry, self.file_data(kind, entry)?))).collect()
    }

    fn file_data(&mut self, kind: &str, entry: &Entry) -> Option<Vec<u8>> {
        let sources = ["file", "content", "environment"].map(|key| entry.value.get(key));
        let data = match sources {
            [Some(_), None, None] | [None, None, Some(_)] if self.report.alone => return None,
            [Some(file), None, None] => {
                (self.read_file)(file.as_text()).map_err(|why| format!("{}: {why}", file.as_text()))
            }
            [None, Some(content), None] => Ok(content.as_text().as_bytes().to_vec()),
            [None, None, Some(variable)] => match self.variables.get(variable.as_text()) {
                Some(value) => Ok(value.as_bytes().to_vec()),
                None => Err(format!("the variable {} is not set", variable.as_text())),
            },
            [None, None, None] => Err("has no data: write file:, content:, environment: or external: true".into()),
            _ => Err("has more than one of file, content and environment".into()),
        };
        let path = format!("{kind}.{}", entry.key);
        data.map_err(|why| self.report.undefined(entry.place, &path, (kind, &entry.key), why)).ok()
    }
}
