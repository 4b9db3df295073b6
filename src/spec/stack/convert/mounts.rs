//! A service's mounts. A named volume belongs to the stack, unless it has a name of its own or is external.

use super::super::yaml::Node;
use super::{Converter, section, text_map};
use crate::spec::{BindOptions, Mount, MountKind, TmpfsOptions, VolumeOptions};

impl Converter<'_> {
    pub(super) fn mounts(&mut self, path: &str, service: &Node) -> Vec<Mount> {
        let path = format!("{path}.volumes");
        let items = service.get("volumes").map_or(&[][..], Node::items);
        items.iter().filter_map(|item| self.mount(&path, item)).collect()
    }

    fn mount(&mut self, path: &str, item: &Node) -> Option<Mount> {
        let target = item.string("target")?;
        if target.split('/').any(|part| part == "..") {
            self.report.problem(item.place, path, format!("the target {target:?} must not climb with .."));
        }
        let bind = item.get("bind");
        let recursive = bind.and_then(|bind| bind.string("recursive"));
        let recursive = |word| recursive.as_deref() == Some(word);
        let tmpfs = item.get("tmpfs");
        let kind = match item.string("type")?.as_str() {
            "bind" => MountKind::Bind,
            "tmpfs" => MountKind::Tmpfs,
            "cluster" => MountKind::Cluster,
            _ => MountKind::Volume,
        };
        let mut mount = Mount {
            kind,
            source: item.string("source"),
            target,
            read_only: item.flag("read_only"),
            bind: BindOptions {
                propagation: bind.and_then(|bind| bind.string("propagation")),
                non_recursive: recursive("disabled"),
                create_host_path: bind.is_some_and(|bind| bind.flag("create_host_path")),
                read_only_non_recursive: recursive("writable"),
                read_only_force_recursive: recursive("readonly"),
            },
            volume: VolumeOptions::default(),
            tmpfs: TmpfsOptions {
                size_bytes: tmpfs.and_then(|tmpfs| tmpfs.bytes("size")),
                mode: tmpfs.and_then(|tmpfs| tmpfs.count("mode")).and_then(|mode| u32::try_from(mode).ok()),
                exec: None,
            },
        };
        let is_group = mount.source.as_deref().is_some_and(|source| source.starts_with("group:"));
        if matches!(kind, MountKind::Volume | MountKind::Cluster) && !is_group {
            self.volume(path, item, &mut mount)?;
        }
        Some(mount)
    }

    /// Fills in what the file's `volumes:` section says of a named volume.
    fn volume(&mut self, path: &str, item: &Node, mount: &mut Mount) -> Option<()> {
        if let Some(options) = item.get("volume") {
            mount.volume.no_copy = options.flag("nocopy");
            mount.volume.subpath = options.string("subpath");
            mount.volume.labels = text_map(options.get("labels"));
        }
        let Some(key) = mount.source.take() else { return Some(()) };
        let Some(entry) = section(self.root, "volumes").iter().find(|entry| entry.key == key) else {
            let known = section(self.root, "volumes").iter().map(|entry| entry.key.as_str());
            let hint = super::super::suggest::nearest(&key, known);
            let hint = hint.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
            let message = format!("undefined volume {key:?}: define it under the top-level volumes{hint}");
            self.report.undefined(item.place, path, ("volumes", &key), message);
            return None;
        };
        let definition = &entry.value;
        mount.source = Some(self.scoped(&key, definition));
        if !definition.flag("external") {
            mount.volume.labels.extend(self.owned(definition.get("labels")));
            mount.volume.driver = definition.string("driver");
            mount.volume.driver_options = text_map(definition.get("driver_opts"));
        }
        Some(())
    }
}
