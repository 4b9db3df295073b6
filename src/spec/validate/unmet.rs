//! What a spec may ask for, as it may of Docker, and no node of a swarm can do. It is stored, with a warning to whoever gave
//! it; its tasks wait for it to be changed, and say why.

use super::faults::Faults;
use super::{Fault, InvalidSpec, is_template};
use crate::spec::network::is_encrypted;
use crate::spec::volume::{check_driver, check_size};
use crate::spec::*;

impl ServiceSpec {
    /// What no node can do, where it stands in a stack file's keys.
    pub fn unmet(&self) -> Vec<Fault> {
        Faults::within(|faults| {
            for mount in &self.task.container.mounts {
                let at = ["volumes", mount.target.as_str()];
                if let Some((option, why)) = mount.unmet() {
                    faults.check(&[&at[..], option].concat(), Err(InvalidSpec(why)));
                }
            }
        })
    }
}

impl NetworkSpec {
    /// What no node can do, where it stands in a stack file's keys.
    pub fn unmet(&self) -> Vec<Fault> {
        Faults::within(|faults| {
            faults.require(&["driver_opts", ENCRYPTED_OPTION], !is_encrypted(&self.driver_options), || {
                format!("network {}: its option {ENCRYPTED_OPTION} cannot be met yet: leave it out", self.name)
            });
        })
    }
}

impl Mount {
    /// Why no node can make it, and the keys below the mount that say so.
    pub fn unmet(&self) -> Option<(&'static [&'static str], String)> {
        if !self.target.starts_with('/') && !is_template(&self.target) {
            let why = format!("invalid mount target, must be an absolute path: {:?}", self.target);
            return Some((&[], why));
        }
        if self.kind != MountKind::Volume {
            return None;
        }
        let driver = check_driver(self.volume.driver.as_deref()).err().map(|why| (&["driver"][..], why));
        driver.or_else(|| check_size(&self.volume.driver_options).err().map(|why| (&["driver_opts"][..], why)))
    }
}
