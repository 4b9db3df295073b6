//! The addresses of one network, and which of them is given out next.

use std::net::IpAddr;

use crate::spec::*;
use crate::state::{Network, State};

/// A network's subnets, read once a tick.
#[derive(Debug)]
pub(super) struct Room {
    pools: Vec<Pool>,
}

/// The part of one subnet that addresses are given from.
#[derive(Debug)]
struct Pool {
    subnet: Subnet,
    /// Offsets in the subnet.
    first: u128,
    last: u128,
    gateway: u128,
    /// Nothing was left when it was last looked at. A tick gives nothing back, so that this stays true in it.
    full: bool,
}

impl Room {
    pub fn of(network: &Network) -> Room {
        Room { pools: network.parsed_subnets().map(|subnet| Pool::of(subnet, &network.spec)).collect() }
    }

    /// A free address, the first one at or after a place that `seed` gives: one that was just given back is seldom the next
    /// one taken, and connections that some client still holds to it find nobody rather than somebody else.
    pub fn pick(&mut self, state: &State, ipv4: bool, seed: u128) -> Option<IpAddr> {
        let open = |pool: &&mut Pool| !pool.full && pool.subnet.base().is_ipv4() == ipv4;
        for pool in self.pools.iter_mut().filter(open) {
            match pool.pick(state, seed) {
                Some(offset) => return Some(pool.subnet.at(offset)),
                None => pool.full = true,
            }
        }
        None
    }
}

impl Pool {
    fn of(subnet: Subnet, network: &NetworkSpec) -> Pool {
        let hosts = subnet.host_offsets();
        let range = network.subnet(&subnet).and_then(|asked| asked.ip_range.as_ref()?.parse::<Subnet>().ok());
        let (first, last) = match range {
            Some(range) => (subnet.offset_of(range.base()), subnet.offset_of(range.last())),
            None => (*hosts.start(), *hosts.end()),
        };
        Pool {
            first: first.max(*hosts.start()),
            last: last.min(*hosts.end()),
            gateway: subnet.offset_of(network.gateway(&subnet)),
            subnet,
            full: false,
        }
    }

    fn pick(&self, state: &State, seed: u128) -> Option<u128> {
        if self.first > self.last {
            return None;
        }
        let start = self.first + seed % (self.last - self.first + 1);
        let behind = self.first_gap(state, start, self.last);
        behind.or_else(|| self.first_gap(state, self.first, start.saturating_sub(1)))
    }

    /// The lowest free offset from `from` to `to`.
    fn first_gap(&self, state: &State, from: u128, to: u128) -> Option<u128> {
        if from > to {
            return None;
        }
        let skip_gateway = |offset: u128| if offset == self.gateway { offset + 1 } else { offset };
        let mut next = skip_gateway(from);
        for (addr, _) in state.addresses_between(self.subnet.at(from), self.subnet.at(to)) {
            let held = self.subnet.offset_of(*addr);
            if held > next {
                break;
            }
            next = skip_gateway(held + 1);
        }
        (next <= to).then_some(next)
    }
}
