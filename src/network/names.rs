//! Names and numbers by which flok knows its own in the kernel again. What bears none of them is never touched.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::state::{Interface, Mac, Table};
use crate::spec::{ID_LEN, NodeId, TaskId};

/// flok's one table of nftables.
pub const TABLE: &str = "inet flok";

/// The device that carries the overlay networks to the other nodes.
pub const OVERLAY: &str = "flok0";
/// Sets of the targets that this node has asked, which the kernel fills.
pub const ASKED4: &str = "asked4";
pub const ASKED6: &str = "asked6";
/// Every host end of a task's veth is named so, and has the MAC address [`GATEWAY_MAC`].
pub const VETH_PREFIX: &str = "fk";
/// The rest of a task's id is in its interface's name.
const ID_CUT: usize = 12;
/// The interface's name inside a task.
pub const TASK_INTERFACE: &str = "eth0";

/// Of the overlay's datagrams: "flo".
pub const VNI: u32 = 0x66_6c6f;

/// Marks our routes and rules, as other daemons have numbers of theirs.
pub const ROUTE_PROTOCOL: u8 = 102;

/// A connection that came in from the node of this number, which is added to it, goes back by that node. "fk".
pub const NODE_MARK: u32 = 0x666b_0000;
/// A connection to a published port that came in from outside of the swarm. "fl".
pub const PUBLISHED_MARK: u32 = 0x666c_0000;
pub const MARK_MASK: u32 = 0xffff_0000;

/// Of the rules: the first lets everything else pass over the ones of the nodes.
pub const RULE_PAST: u32 = 10_900;
pub const RULE_NODES: u32 = 11_000;
pub const RULE_LANDING: u32 = 11_100;

/// What a task sees as its gateways. They are no host's addresses: permanent neighbours lead to the veth's other end.
pub const GATEWAY4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, 1);
pub const GATEWAY_MAC: Mac = Mac([0xee; 6]);

/// Host-local addresses of the second family: the IPv4 one below this /96. They mean nothing outside the node either.
pub const LOCAL6: Ipv6Addr = Ipv6Addr::new(0xfd66, 0x6c6f, 0x6b, 0, 0, 0, 0, 0);
pub const LOCAL6_PREFIX: u8 = 96;

/// A kernel has no more zones than a u16, and the keys of the nodes are one block of link-local addresses.
pub const MAX_NODE_NUMBER: u16 = 0x7ffe;

/// A node's MAC address on the overlay: locally administered, from its id, so that nobody needs to be asked for it. All
/// versions of flok must agree on it.
pub fn mac_of(node: NodeId) -> Mac {
    let [_, _, _, a, b, c, d, e] = mixed(mixed((node.0 >> 64) as u64) ^ node.0 as u64).to_be_bytes();
    Mac([0x02, a, b, c, d, e])
}

/// The finalizer of SplitMix64.
fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Through which address, on the overlay device, the node of this number is reached.
pub fn key_of(number: u16, ipv6: bool) -> IpAddr {
    if ipv6 {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x666b, number).into()
    } else {
        let [high, low] = number.to_be_bytes();
        Ipv4Addr::new(169, 254, 0x80 | high, low).into()
    }
}

/// The mark of connections that came in by a node, which is its routing table's number too.
pub fn mark_of(number: u16) -> Table {
    NODE_MARK | u32::from(number)
}

/// A task's interface on the host. At most 15 characters; the end of an id is as random as its start.
pub fn task_interface(task: TaskId) -> String {
    format!("{VETH_PREFIX}{}", &task.to_string()[ID_CUT..])
}

/// Whether a name is as [`task_interface`] gives them.
pub fn is_task_interface(name: &str) -> bool {
    let end = name.strip_prefix(VETH_PREFIX).unwrap_or_default();
    end.len() == ID_LEN - ID_CUT && end.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// The second family's form of a host-local address.
pub fn local6(address: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(LOCAL6.to_bits() | u128::from(address.to_bits()))
}

/// As whom a node speaks to the tasks of others for clients that have no address there: its loopback, its own tasks.
/// Only the node itself ever answers to it; others know it by the node it came in by.
pub fn spokesman6(node: NodeId) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac_of(node).0.map(u16::from);
    Ipv6Addr::new(0xfd66, 0x6c6f, 0x6b, 1, 0, a << 8 | b, c << 8 | d, e << 8 | f)
}

pub fn overlay() -> Interface {
    Interface::new(OVERLAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_differ_in_their_macs_which_are_local_and_unicast() {
        let macs: std::collections::BTreeSet<Mac> =
            (1..=2000u128).flat_map(|n| [NodeId(n), NodeId(n << 64), NodeId(u128::MAX - n)]).map(mac_of).collect();
        assert_eq!(macs.len(), 6000);
        assert!(macs.iter().all(|mac| mac.0[0] == 0x02));
    }

    #[test]
    fn task_interfaces_are_known_by_their_names() {
        for task in [0, 1, u128::MAX].map(TaskId) {
            let name = task_interface(task);
            assert!(name.len() <= 15 && is_task_interface(&name), "{name}");
        }
        for other in ["fk", "fk0", "fkhuman", "fk-0123456789ab", "flok0", "xx0123456789abc"] {
            assert!(!is_task_interface(other), "{other}");
        }
    }

    #[test]
    fn keys_of_nodes_are_link_local() {
        assert_eq!(key_of(1, false).to_string(), "169.254.128.1");
        assert_eq!(key_of(MAX_NODE_NUMBER, false).to_string(), "169.254.255.254");
        assert_eq!(key_of(0x102, true).to_string(), "fe80::666b:102");
    }
}
