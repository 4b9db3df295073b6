//! Subnets for networks whose users chose none: of IPv4 from the swarm's address pools, of IPv6 from a prefix of the
//! swarm's own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use super::Surroundings;
use crate::spec::*;
use crate::state::{Draft, NodeHealth, ObjectId, State, Swarm};

/// Of a network's IPv6 subnet, as everywhere (RFC 4291, 2.5.1).
const IPV6_SUBNET: u8 = 64;
/// Of the swarm's own prefix (RFC 4193, 3.1).
const IPV6_PREFIX: u8 = 48;

#[derive(Debug, Default)]
pub(super) struct Cutter {
    /// Where in each pool the search goes on: a tick frees nothing, so what was taken before stays taken.
    next: BTreeMap<Subnet, u128>,
    /// What the swarm's nodes reach without the swarm, once it is needed.
    occupied: Option<Occupied>,
}

/// What nodes reach without the swarm, and themselves.
#[derive(Debug, Default)]
struct Occupied {
    /// Sorted; none overlaps another.
    held: Vec<(Subnet, NodeId)>,
    /// A node that is up and has not said what is around it.
    unheard: Option<NodeId>,
}

impl Cutter {
    /// A subnet that no network has, nor any task that still stops, no node is in and none reaches otherwise. Nothing is
    /// written down: the caller gives it to a network. The error says what is missing.
    pub fn cut(&mut self, draft: &Draft, around: &dyn Surroundings, ipv4: bool) -> Result<Subnet, String> {
        let state = draft.state();
        let exhausted = "no subnet is left in the swarm's address pools";
        let swarm = state.swarm().ok_or(exhausted)?;
        let occupied = self.occupied.get_or_insert_with(|| Occupied::find(draft, around));
        if let Some(node) = occupied.unheard {
            return Err(format!("what is around node {} is not known yet", name(state, node)));
        }
        let (pools, size): (Vec<Subnet>, u8) = if ipv4 {
            let pools = swarm.spec.address_pools.iter().filter_map(|pool| pool.parse().ok()).collect();
            (pools, swarm.spec.subnet_size)
        } else {
            (vec![own_prefix(swarm)], IPV6_SUBNET)
        };
        if let Some(subnet) = pools.iter().find_map(|pool| self.cut_from(state, *pool, size)) {
            return Ok(subnet);
        }
        let occupied = self.occupied.iter();
        Err(match pools.iter().find_map(|pool| occupied.clone().find_map(|occupied| occupied.in_way_of(pool))) {
            Some((held, node)) => format!(
                "{exhausted}, {held} being left out because node {} reaches it outside of the swarm",
                name(state, node)
            ),
            None => exhausted.to_owned(),
        })
    }

    fn cut_from(&mut self, state: &State, pool: Subnet, size: u8) -> Option<Subnet> {
        let width: u8 = if pool.base().is_ipv4() { 32 } else { 128 };
        let count = 1u128.checked_shl(u32::from(size.checked_sub(pool.prefix())?))?;
        let bits = u32::from(width - size);
        let mut index = self.next.get(&pool).copied().unwrap_or(0);
        while index < count {
            let subnet = Subnet::new(pool.at(index << bits), size)?;
            let outside = || self.occupied.as_ref()?.in_way_of(&subnet).map(|(held, _)| held);
            // A network may go before its last tasks have stopped: who comes into its place would be theirs to reach.
            let stopping = || state.addresses_in(subnet).next().map(|_| subnet);
            let taken = state.overlapping(&subnet).map(|(held, _)| held);
            index = match taken.or_else(outside).or_else(stopping) {
                // A large one is passed over as a whole.
                Some(held) => (pool.offset_of(held.last()) >> bits).max(index) + 1,
                None => {
                    self.next.insert(pool, index + 1);
                    return Some(subnet);
                }
            };
        }
        self.next.insert(pool, index);
        None
    }
}

impl Occupied {
    fn find(draft: &Draft, around: &dyn Surroundings) -> Occupied {
        let state = draft.state();
        let single = |addr: IpAddr| Subnet::new(addr, if addr.is_ipv4() { 32 } else { 128 });
        let mut found = Occupied::default();
        let mut all = Vec::new();
        for node in state.nodes() {
            all.extend(single(node.description.addr).map(|subnet| (subnet, node.id)));
            match around.of(node.id) {
                Some(held) => all.extend(held.into_iter().map(|subnet| (subnet, node.id))),
                // That it is down may be refused, where this very plan says so: the next one goes by it.
                None if node.health == NodeHealth::Up || draft.changes(ObjectId::Node(node.id)) => {
                    found.unheard = Some(node.id);
                }
                // Nor will it say so soon.
                None => {}
            }
        }
        // Each behind those that it may lie in.
        all.sort_by_key(|(subnet, node)| (subnet.base(), subnet.prefix(), *node));
        for (subnet, node) in all {
            if found.held.last().is_none_or(|(last, _)| !last.overlaps(&subnet)) {
                found.held.push((subnet, node));
            }
        }
        found
    }

    fn in_way_of(&self, subnet: &Subnet) -> Option<(Subnet, NodeId)> {
        let behind = self.held.partition_point(|(held, _)| held.base() <= subnet.last());
        // Any that overlaps is the last that begins before the end, for none overlaps another.
        self.held[..behind].last().filter(|(held, _)| held.overlaps(subnet)).copied()
    }
}

fn name(state: &State, node: NodeId) -> String {
    state.node(node).map_or_else(|| node.to_string(), |node| node.name().to_owned())
}

/// A unique local prefix whose global id is of the swarm's random id, so that two swarms may meet in one network.
fn own_prefix(swarm: &Swarm) -> Subnet {
    let global_id = swarm.id.0 & ((1 << 40) - 1);
    let base = (0xfd << 120) | (global_id << 80);
    Subnet::new(IpAddr::V6(Ipv6Addr::from_bits(base)), IPV6_PREFIX).expect("48 is a prefix of IPv6")
}
