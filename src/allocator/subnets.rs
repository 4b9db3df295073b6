//! Subnets for networks whose users chose none: of IPv4 from the swarm's address pools, of IPv6 from a prefix of the
//! swarm's own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::spec::*;
use crate::state::{State, Swarm};

/// Of a network's IPv6 subnet, as everywhere (RFC 4291, 2.5.1).
const IPV6_SUBNET: u8 = 64;
/// Of the swarm's own prefix (RFC 4193, 3.1).
const IPV6_PREFIX: u8 = 48;

#[derive(Debug, Default)]
pub(super) struct Cutter {
    /// Where in each pool the search goes on: a tick frees nothing, so what was taken before stays taken.
    next: BTreeMap<Subnet, u128>,
    /// Addresses of the swarm's nodes, sorted, once they are needed.
    nodes: Option<Vec<IpAddr>>,
}

impl Cutter {
    /// A subnet that no network has and no node is in. Nothing is written down: the caller gives it to a network.
    pub fn cut(&mut self, state: &State, ipv4: bool) -> Option<Subnet> {
        let swarm = state.swarm()?;
        let (pools, size) = if ipv4 {
            let pools = swarm.spec.address_pools.iter().filter_map(|pool| pool.parse().ok()).collect();
            (pools, swarm.spec.subnet_size)
        } else {
            (vec![own_prefix(swarm)], IPV6_SUBNET)
        };
        pools.into_iter().find_map(|pool| self.cut_from(state, pool, size))
    }

    fn cut_from(&mut self, state: &State, pool: Subnet, size: u8) -> Option<Subnet> {
        let width: u8 = if pool.base().is_ipv4() { 32 } else { 128 };
        let count = 1u128.checked_shl(u32::from(size.checked_sub(pool.prefix())?))?;
        let bits = u32::from(width - size);
        let mut index = self.next.get(&pool).copied().unwrap_or(0);
        while index < count {
            let subnet = Subnet::new(pool.at(index << bits), size)?;
            index = match state.overlapping(&subnet) {
                // A large one is passed over as a whole.
                Some((held, _)) => (pool.offset_of(held.last()) >> bits).max(index) + 1,
                None if self.holds_node(state, &subnet) => index + 1,
                None => {
                    self.next.insert(pool, index + 1);
                    return Some(subnet);
                }
            };
        }
        self.next.insert(pool, index);
        None
    }

    fn holds_node(&mut self, state: &State, subnet: &Subnet) -> bool {
        let nodes = self.nodes.get_or_insert_with(|| {
            let mut nodes: Vec<IpAddr> = state.nodes().map(|node| node.description.addr).collect();
            nodes.sort();
            nodes
        });
        let first = nodes.partition_point(|addr| *addr < subnet.base());
        nodes.get(first).is_some_and(|addr| subnet.contains(*addr))
    }
}

/// A unique local prefix whose global id is of the swarm's random id, so that two swarms may meet in one network.
fn own_prefix(swarm: &Swarm) -> Subnet {
    let global_id = swarm.id.0 & ((1 << 40) - 1);
    let base = (0xfd << 120) | (global_id << 80);
    Subnet::new(IpAddr::V6(Ipv6Addr::from_bits(base)), IPV6_PREFIX).expect("48 is a prefix of IPv6")
}
