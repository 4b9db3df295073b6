//! Devices: the nodes a container finds in `/dev`, and the rules of its device cgroup.
//!
//! runc itself makes the nodes every container has (null, zero, full, random, urandom, tty, console, pts, ptmx).

use std::path::PathBuf;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::SpecError;

/// A device of the host that the container shall have, as the caller found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    /// Where it appears in the container.
    pub path: PathBuf,
    pub block: bool,
    pub major: u32,
    pub minor: u32,
    /// Permission bits, owner and group of the node.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Some of `rwm`.
    pub permissions: String,
}

/// Character devices every container may use: null, zero, full, random, urandom, tty, console, ptmx, and all of pts.
const COMMON: [(i64, Option<i64>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// Docker's form of a device's permissions; empty means all.
pub fn parse_permissions(written: &str) -> Result<String, SpecError> {
    match written {
        "" => Ok("rwm".to_owned()),
        _ if written.chars().all(|letter| "rwm".contains(letter)) => Ok(written.to_owned()),
        _ => Err(SpecError::InvalidDevicePermissions(written.to_owned())),
    }
}

pub(super) fn nodes(devices: &[DeviceNode]) -> Option<Vec<LinuxDevice>> {
    let nodes: Vec<LinuxDevice> = devices
        .iter()
        .map(|device| {
            let mut node = LinuxDevice::default();
            node.set_path(device.path.clone())
                .set_typ(device_type(device))
                .set_major(i64::from(device.major))
                .set_minor(i64::from(device.minor))
                .set_file_mode(Some(device.mode & 0o7777))
                .set_uid(Some(device.uid))
                .set_gid(Some(device.gid));
            node
        })
        .collect();
    Some(nodes).filter(|nodes| !nodes.is_empty())
}

/// Everything is denied, then the common devices and the container's own are allowed. Any node may be *made* (`m`), which
/// gives no access; Docker's containers hold `CAP_MKNOD`.
pub(super) fn rules(devices: &[DeviceNode], privileged: bool) -> Result<Vec<LinuxDeviceCgroup>, SpecError> {
    if privileged {
        return Ok(vec![rule(true, LinuxDeviceType::A, None, None, "rwm")]);
    }
    let mut rules = vec![
        rule(false, LinuxDeviceType::A, None, None, "rwm"),
        rule(true, LinuxDeviceType::C, None, None, "m"),
        rule(true, LinuxDeviceType::B, None, None, "m"),
    ];
    rules.extend(COMMON.map(|(major, minor)| rule(true, LinuxDeviceType::C, Some(major), minor, "rwm")));
    for device in devices {
        let access = parse_permissions(&device.permissions)?;
        let (major, minor) = (i64::from(device.major), i64::from(device.minor));
        rules.push(rule(true, device_type(device), Some(major), Some(minor), &access));
    }
    Ok(rules)
}

fn device_type(device: &DeviceNode) -> LinuxDeviceType {
    if device.block { LinuxDeviceType::B } else { LinuxDeviceType::C }
}

fn rule(allow: bool, typ: LinuxDeviceType, major: Option<i64>, minor: Option<i64>, access: &str) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow).set_typ(Some(typ)).set_major(major).set_minor(minor).set_access(Some(access.to_owned()));
    rule
}
