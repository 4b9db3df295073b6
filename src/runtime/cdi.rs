//! Devices that their vendors describe for containers, GPUs above all: the Container Device Interface
//! (github.com/cncf-tags/container-device-interface, SPEC.md, version 1.0). A description says which nodes of `/dev`, mounts,
//! variables and hooks a container with the device gets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::{Result, RuntimeError};
use super::host;
use super::oci::parse_permissions;
use crate::spec::GenericResource;

/// A description in the later one goes before one in the earlier.
pub const DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// Of one file.
const MAX_BYTES: u64 = 4 << 20;
/// What vendors call all of their devices together; it is not one more to be given away.
const ALL: &str = "all";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Description {
    /// `vendor.com/class`.
    kind: String,
    devices: Vec<Device>,
    /// For a container with any of the devices.
    container_edits: Edits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Device {
    name: String,
    container_edits: Edits,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<DeviceNode>,
    mounts: Vec<Mount>,
    hooks: Vec<Hook>,
    additional_gids: Vec<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DeviceNode {
    path: String,
    host_path: Option<String>,
    permissions: Option<String>,
    file_mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Mount {
    host_path: String,
    container_path: String,
    #[serde(rename = "type")]
    typ: Option<String>,
    options: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Hook {
    hook_name: String,
    path: String,
    args: Vec<String>,
    env: Vec<String>,
    timeout: Option<i64>,
}

/// What is described on this node: of each device, the edits of its kind and its own.
#[derive(Debug, Default)]
pub struct Devices(BTreeMap<(String, String), [Edits; 2]>);

impl Devices {
    /// Reads every `*.json`, `*.yaml` and `*.yml` in `dirs`; one that does not read is left out, and said.
    pub fn read(dirs: &[PathBuf]) -> Devices {
        let mut devices = Devices::default();
        for path in dirs.iter().flat_map(|dir| files(dir)) {
            match description(&path) {
                Ok(description) => devices.add(description),
                Err(why) => tracing::warn!(path = %path.display(), why, "a description of devices is left out"),
            }
        }
        devices
    }

    fn add(&mut self, description: Description) {
        let Description { kind, devices, container_edits } = description;
        for device in devices {
            self.0.insert((kind.clone(), device.name), [container_edits.clone(), device.container_edits]);
        }
    }

    /// As what a node has to give: each device once, though vendors give it several names.
    pub fn resources(&self) -> Vec<GenericResource> {
        let mut seen: BTreeSet<(&str, Vec<&str>)> = BTreeSet::new();
        let mut resources = Vec::new();
        for ((kind, name), [_, own]) in &self.0 {
            let nodes: Vec<&str> = own.device_nodes.iter().map(|node| node.path.as_str()).collect();
            if name == ALL || (!nodes.is_empty() && !seen.insert((kind, nodes))) {
                continue;
            }
            resources.push(GenericResource::Named { kind: kind.clone(), value: name.clone() });
        }
        resources
    }

    /// Gives a container what its task holds of them; other resources are nobody's to hand in.
    pub fn inject(&self, spec: &mut Spec, held: &[GenericResource]) -> Result<()> {
        let mut wanted: Vec<&Edits> = Vec::new();
        for resource in held {
            let GenericResource::Named { kind, value } = resource else { continue };
            if !kind.contains('/') {
                continue;
            }
            let found = self.0.get(&(kind.clone(), value.clone()));
            let [shared, own] = found.ok_or_else(|| RuntimeError::Device {
                device: format!("{kind}={value}"),
                reason: format!("it is described in none of {} on this node any more", DIRS.join(" and ")),
            })?;
            if !wanted.contains(&shared) {
                wanted.push(shared);
            }
            wanted.push(own);
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let broken = |error: serde_json::Error| RuntimeError::Device {
            device: "specification".to_owned(),
            reason: error.to_string(),
        };
        let mut value = serde_json::to_value(&*spec).map_err(broken)?;
        wanted.iter().try_for_each(|edits| apply(edits, &mut value))?;
        *spec = serde_json::from_value(value).map_err(broken)?;
        Ok(())
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_description = |path: &PathBuf| {
        path.extension().is_some_and(|extension| ["json", "yaml", "yml"].iter().any(|known| extension == *known))
    };
    let mut files: Vec<PathBuf> = entries.filter(is_description).collect();
    files.sort();
    files
}

fn description(path: &Path) -> Result<Description, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_BYTES {
        return Err(format!("it has more than {MAX_BYTES} bytes"));
    }
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let read: Description = match path.extension().is_some_and(|extension| extension == "json") {
        true => serde_json::from_str(&text).map_err(|error| error.to_string())?,
        false => serde_saphyr::from_str(&text).map_err(|error| error.to_string())?,
    };
    let is_kind = read.kind.split_once('/').is_some_and(|(vendor, class)| !vendor.is_empty() && !class.is_empty());
    if !is_kind || read.devices.iter().any(|device| device.name.is_empty()) {
        return Err("a kind (vendor.com/class) or the name of a device is missing".into());
    }
    Ok(read)
}

fn list<'a>(spec: &'a mut Value, pointer: &[&str]) -> &'a mut Vec<Value> {
    let mut at = spec;
    for key in pointer {
        at = &mut at[*key];
    }
    if !at.is_array() {
        *at = json!([]);
    }
    at.as_array_mut().expect("it was made one")
}

fn apply(edits: &Edits, spec: &mut Value) -> Result<()> {
    for variable in &edits.env {
        let key = variable.split('=').next().unwrap_or_default();
        let same = |known: &Value| known.as_str().is_some_and(|known| known.split('=').next() == Some(key));
        let env = list(spec, &["process", "env"]);
        env.retain(|known| !same(known));
        env.push(json!(variable));
    }
    for node in &edits.device_nodes {
        device(node, spec)?;
    }
    for mount in &edits.mounts {
        let mut options = mount.options.clone();
        if !options.iter().any(|option| option == "bind" || option == "rbind") {
            options.push("rbind".to_owned());
        }
        list(spec, &["mounts"]).push(json!({
            "destination": mount.container_path,
            "source": mount.host_path,
            "type": mount.typ.as_deref().unwrap_or("bind"),
            "options": options,
        }));
    }
    for hook in &edits.hooks {
        let mut value = json!({"path": hook.path, "args": hook.args, "env": hook.env});
        if let Some(timeout) = hook.timeout {
            value["timeout"] = json!(timeout);
        }
        list(spec, &["hooks", &hook.hook_name]).push(value);
    }
    list(spec, &["process", "user", "additionalGids"]).extend(edits.additional_gids.iter().map(|gid| json!(gid)));
    Ok(())
}

fn device(node: &DeviceNode, spec: &mut Value) -> Result<()> {
    let path = node.host_path.as_deref().unwrap_or(&node.path);
    let permissions = parse_permissions(node.permissions.as_deref().unwrap_or_default())?;
    let found = host::device(Path::new(path), Path::new(&node.path), &permissions);
    let found = found.ok_or_else(|| RuntimeError::Device {
        device: path.to_owned(),
        reason: "it is described, and is no device on this node".to_owned(),
    })?;
    let kind = if found.block { "b" } else { "c" };
    list(spec, &["linux", "devices"]).push(json!({
        "path": node.path,
        "type": kind,
        "major": found.major,
        "minor": found.minor,
        "fileMode": node.file_mode.unwrap_or(found.mode) & 0o7777,
        "uid": node.uid.unwrap_or(found.uid),
        "gid": node.gid.unwrap_or(found.gid),
    }));
    list(spec, &["linux", "resources", "devices"]).push(json!({
        "allow": true,
        "type": kind,
        "major": found.major,
        "minor": found.minor,
        "access": permissions,
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "\
cdiVersion: 0.6.0
kind: acme.com/accel
containerEdits:
  env: [ACME=1, PATH=/acme]
  mounts: [{hostPath: /lib/acme, containerPath: /lib/acme, options: [ro, bind]}]
devices:
- name: '0'
  containerEdits:
    deviceNodes: [{path: /dev/acme0, hostPath: /dev/null, permissions: rw}]
    hooks: [{hookName: createContainer, path: /bin/hook, args: [hook, go]}]
    additionalGids: [44]
- name: uuid-0
  containerEdits: {deviceNodes: [{path: /dev/acme0, hostPath: /dev/null}]}
- name: '1'
  containerEdits: {deviceNodes: [{path: /dev/acme1, hostPath: /dev/nowhere}]}
- name: all
  containerEdits: {deviceNodes: [{path: /dev/acme0, hostPath: /dev/null}, {path: /dev/acme1}]}
";

    fn named(value: &str) -> GenericResource {
        GenericResource::Named { kind: "acme.com/accel".into(), value: value.into() }
    }

    fn devices(dir: &Path) -> Devices {
        Devices::read(&[dir.to_owned()])
    }

    #[test]
    fn a_node_has_each_described_device_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("acme.yaml"), YAML).unwrap();
        fs::write(dir.path().join("other.json"), r#"{"kind": "b.org/x", "devices": [{"name": "y"}]}"#).unwrap();
        fs::write(dir.path().join("broken.json"), "{").unwrap();
        fs::write(dir.path().join("nameless.yml"), "kind: acme\ndevices: []\n").unwrap();
        let other = GenericResource::Named { kind: "b.org/x".into(), value: "y".into() };
        assert_eq!(devices(dir.path()).resources(), [named("0"), named("1"), other]);
        assert_eq!(devices(&dir.path().join("none")).resources(), []);
    }

    #[test]
    fn a_container_gets_what_the_description_says() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("acme.yaml"), YAML).unwrap();
        let devices = devices(dir.path());
        let mut spec = Spec::default();
        let counted = GenericResource::Discrete { kind: "gpu".into(), value: 1 };
        devices.inject(&mut spec, &[named("0"), counted]).unwrap();
        let value = serde_json::to_value(&spec).unwrap();
        let env = value["process"]["env"].as_array().unwrap();
        assert!(env.contains(&json!("ACME=1")) && env.contains(&json!("PATH=/acme")), "{env:?}");
        assert_eq!(env.iter().filter(|variable| variable.as_str().unwrap().starts_with("PATH=")).count(), 1);
        let node = &value["linux"]["devices"][0];
        assert_eq!((&node["path"], &node["major"], &node["minor"]), (&json!("/dev/acme0"), &json!(1), &json!(3)));
        let rules = value["linux"]["resources"]["devices"].as_array().unwrap();
        assert_eq!(rules.last().unwrap()["access"], "rw");
        assert!(value["mounts"].as_array().unwrap().iter().any(|mount| mount["destination"] == "/lib/acme"));
        assert_eq!(value["hooks"]["createContainer"][0]["args"], json!(["hook", "go"]));
        assert_eq!(value["process"]["user"]["additionalGids"], json!([44]));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("acme.yaml"), YAML).unwrap();
        let refused =
            |name: &str| devices(dir.path()).inject(&mut Spec::default(), &[named(name)]).unwrap_err().to_string();
        assert!(
            refused("7").starts_with("device acme.com/accel=7: it is described in none of /etc/cdi"),
            "{}",
            refused("7")
        );
        assert!(refused("1").starts_with("device /dev/nowhere: "), "{}", refused("1"));
    }
}
