//! Which addresses mean something else on a host than they would as a network's subnet, as its node says it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::spec::Subnet;

/// Blocks told of one node; of more, the largest.
pub const MAX_CONNECTED: usize = 64;
/// A route to more than this is one half, or quarter, of a default route: it leads to nothing of its own.
const WIDEST: u8 = 8;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Surroundings {
    /// Where the host has a route of its own to, other than its default route; none lies in another.
    pub connected: Vec<Subnet>,
    /// The block that its tasks have their host-local addresses from.
    pub local: Option<Subnet>,
    /// What its path to the other nodes leaves to a packet of a network; `None` while that is not known.
    pub overlay_mtu: Option<u32>,
}

impl Surroundings {
    /// Of all that the host has routes to, save those that the swarm made.
    pub fn new(mut routes: Vec<Subnet>, local: Option<Subnet>) -> Surroundings {
        routes.retain(|subnet| subnet.prefix() >= WIDEST && !is_everywhere(subnet));
        routes.sort_by_key(|subnet| (subnet.prefix(), subnet.base()));
        let mut connected: Vec<Subnet> = Vec::new();
        for subnet in routes {
            if connected.len() == MAX_CONNECTED {
                break;
            }
            if !connected.iter().any(|wider| wider.overlaps(&subnet)) {
                connected.push(subnet);
            }
        }
        Surroundings { connected, local, overlay_mtu: None }
    }

    /// The block in which the whole of `pool` lies, if the host reaches it otherwise.
    pub fn covers(&self, pool: &Subnet) -> Option<Subnet> {
        let within = |held: &&Subnet| held.overlaps(pool) && held.prefix() <= pool.prefix();
        self.connected.iter().chain(&self.local).find(within).copied()
    }

    pub fn overlapping(&self, subnet: &Subnet) -> Option<Occupied> {
        let local = self.local.filter(|local| local.overlaps(subnet)).map(Occupied::Local);
        local.or_else(|| self.connected.iter().find(|held| held.overlaps(subnet)).copied().map(Occupied::Connected))
    }
}

/// What stands in a subnet's way on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupied {
    Connected(Subnet),
    Local(Subnet),
}

impl Occupied {
    /// What a subnet overlaps with on a node of this name, in words.
    pub fn on(self, node: &str) -> String {
        match self {
            Occupied::Connected(held) => format!("{held}, which node {node} reaches outside of the swarm"),
            Occupied::Local(held) => format!("{held}, from which node {node} gives its tasks their local addresses"),
        }
    }
}

/// Loopback, link-local and multicast addresses: every host has them, and no network of the swarm can.
fn is_everywhere(subnet: &Subnet) -> bool {
    match subnet.base() {
        IpAddr::V4(base) => base.is_loopback() || base.is_link_local() || base.is_multicast() || base.is_unspecified(),
        IpAddr::V6(base) => {
            base.is_loopback() || base.is_unicast_link_local() || base.is_multicast() || base.is_unspecified()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    fn connected(routes: &[&str]) -> Vec<String> {
        let found = Surroundings::new(routes.iter().map(|text| subnet(text)).collect(), None);
        found.connected.iter().map(Subnet::to_string).collect()
    }

    #[test]
    fn what_every_host_has_and_what_leads_anywhere_is_left_out() {
        let routes = ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4"];
        assert_eq!(connected(&routes), Vec::<String>::new());
        assert_eq!(connected(&["::/0", "2000::/3", "::1/128", "fe80::/64", "ff00::/8"]), Vec::<String>::new());
        assert_eq!(
            connected(&["192.168.1.0/24", "10.0.0.0/8", "fd07::/64"]),
            ["10.0.0.0/8", "192.168.1.0/24", "fd07::/64"]
        );
    }

    #[test]
    fn a_block_within_another_is_not_told() {
        assert_eq!(
            connected(&["10.1.2.3/32", "10.1.0.0/16", "10.1.2.0/24", "10.2.0.0/24"]),
            ["10.1.0.0/16", "10.2.0.0/24"]
        );
    }

    #[test]
    fn a_host_of_many_routes_tells_the_largest() {
        let many: Vec<Subnet> = (0..1000).map(|n| subnet(&format!("10.{}.{}.0/24", n / 256, n % 256))).collect();
        let found = Surroundings::new(many.into_iter().chain([subnet("172.16.0.0/12")]).collect(), None);
        assert_eq!(found.connected.len(), MAX_CONNECTED);
        assert_eq!(found.connected[0], subnet("172.16.0.0/12"));
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let around = Surroundings::new(vec![subnet("10.0.0.0/16")], Some(subnet("172.29.0.0/16")));
        assert_eq!(around.overlapping(&subnet("10.0.5.0/24")), Some(Occupied::Connected(subnet("10.0.0.0/16"))));
        assert_eq!(around.overlapping(&subnet("172.16.0.0/12")), Some(Occupied::Local(subnet("172.29.0.0/16"))));
        assert_eq!(around.overlapping(&subnet("10.1.0.0/16")), None);
        assert_eq!(around.covers(&subnet("10.0.4.0/22")), Some(subnet("10.0.0.0/16")));
        assert_eq!(around.covers(&subnet("10.0.0.0/8")), None, "there is room beside it");
    }
}
