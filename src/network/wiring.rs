//! How a task is wired, from what is recorded of it and what is known of its networks. Pure.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use super::kernel::veth;
use super::names::local6;
use super::plan::{LocalTask, is_confined};
use super::plane::Wired;
use super::records::{NAMESPACE, Record};
use super::state::{Interface, Mac};
use super::tasks::NetworkConfig;
use crate::dispatcher::Networks;
use crate::spec::{Subnet, TaskId};

/// What follows for a task from the networks it is on. One that is not known any more changes nothing, unless another has
/// its subnet: it is not to be mistaken for one of theirs.
pub fn place(record: &mut Record, networks: &Networks) {
    let subnets = || networks.list.values().flat_map(|view| &view.subnets);
    let gone = record.attachments.iter().filter(|at| !networks.list.contains_key(&at.network));
    let gone = gone.flat_map(|at| &at.addresses).copied();
    record.lost = gone.filter(|address| subnets().any(|subnet| subnet.contains(*address))).collect();
    let views = || record.attachments.iter().filter_map(|at| networks.list.get(&at.network).map(|view| (at, view)));
    if views().count() < record.attachments.len() {
        return;
    }
    let mut routes = Vec::new();
    for (attachment, view) in views().filter(|(_, view)| !view.ingress) {
        for subnet in &view.subnets {
            let own = attachment.addresses.iter().find(|address| address.is_ipv6() == subnet.base().is_ipv6());
            routes.extend(own.map(|own| (*subnet, *own)));
        }
    }
    let ingress = views().filter(|(_, view)| view.ingress).flat_map(|(attachment, _)| &attachment.addresses);
    record.outward = ingress.copied().collect();
    record.confined = is_confined(views().map(|(_, view)| view.as_ref()));
    record.routes = routes;
    let asked = views().filter_map(|(_, view)| Some((view, view.mtu?)));
    record.smaller = asked.flat_map(|(view, mtu)| view.subnets.iter().map(move |subnet| (*subnet, mtu))).collect();
}

/// As whom a task speaks to all that is on no network of its own: one address of each family.
fn outward(record: &Record) -> Vec<IpAddr> {
    let local = [IpAddr::V4(record.address), local6(record.address).into()];
    let instead = |local: &IpAddr| record.outward.iter().find(|own| own.is_ipv6() == local.is_ipv6()).copied();
    local.iter().map(|local| instead(local).unwrap_or(*local)).collect()
}

/// As it is to be in force.
pub fn wired(config: &NetworkConfig, record: &Record, ipv6: bool) -> Wired {
    let (interface, mac, addresses) = (interface(record), task_mac(record.address), addresses_of(record).collect());
    let wire = veth::Wire {
        namespace: namespace_path(config, record.task),
        interface,
        mac,
        address: record.address,
        addresses,
        outward: outward(record),
        routes: record.routes.iter().map(|(subnet, source)| (*subnet, *source, mtu(record, subnet))).collect(),
        ipv6,
    };
    let task = LocalTask {
        interface,
        mac,
        address: record.address,
        addresses: addresses_of(record).filter(|address| !record.lost.contains(address)).collect(),
        outward: wire.outward.clone(),
        ports: record.ports.clone(),
        confined: record.confined,
    };
    Wired { task, wire }
}

/// What a packet to this subnet may be: what the path takes, or less.
fn mtu(record: &Record, subnet: &Subnet) -> Option<u32> {
    let asked = record.smaller.iter().find(|(smaller, _)| smaller == subnet).map(|(_, mtu)| *mtu);
    record.mtu.into_iter().chain(asked).min()
}

/// Those on overlay networks.
pub fn addresses_of(record: &Record) -> impl Iterator<Item = IpAddr> {
    record.attachments.iter().flat_map(|attachment| attachment.addresses.iter().copied())
}

/// The host's end.
pub fn interface(record: &Record) -> Interface {
    Interface::new(&record.interface)
}

/// A locally administered MAC address, from the task's address.
pub fn task_mac(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    Mac([0x02, 0x42, a, b, c, d])
}

/// Where the task's namespace is held.
pub fn namespace_path(config: &NetworkConfig, task: TaskId) -> PathBuf {
    config.dir.join(format!("{task}.{NAMESPACE}"))
}
