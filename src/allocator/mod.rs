//! What the swarm gives out by number: subnets to networks, addresses to services and tasks, published ports.
//!
//! One [`Allocator`] lives for one tick of the leader. [`Allocator::plan`] runs over the draft before the scheduler and gives
//! networks their subnets, services their virtual addresses and the ports they left open; then the scheduler asks it, as
//! [`Addresses`], for each task that it places, so that placement and addresses are one change. A network whose subnets
//! were allocated grows by another one in the same draft when it is full.
//!
//! It is level-triggered as all loops are: what is free is what the state does not know as given, so nothing is handed
//! back by hand, and a second run adds nothing. What `apply` refuses in the end, the next tick computes anew.

mod pool;
mod ports;
mod subnets;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::spec::*;
use crate::state::{Addresses, Change, Draft, Service, State};

use self::pool::Room;
use self::subnets::Cutter;

/// What the swarm's nodes reach without the swarm, as far as it is known.
pub trait Surroundings {
    /// Blocks of addresses that mean something to this node already; `None` while it has not said.
    fn of(&self, node: NodeId) -> Option<Vec<Subnet>>;
}

/// One tick's memory: what it has read and found full already. Nothing of it is needed by the next tick.
pub struct Allocator<'a> {
    around: &'a dyn Surroundings,
    rooms: BTreeMap<NetworkId, Room>,
    cutter: Cutter,
}

impl<'a> Allocator<'a> {
    pub fn new(around: &'a dyn Surroundings) -> Allocator<'a> {
        Allocator { around, rooms: BTreeMap::new(), cutter: Cutter::default() }
    }

    /// Gives out all that is missing, but for the addresses of tasks, which come with their placement.
    pub fn plan(&mut self, draft: &mut Draft) {
        self.plan_subnets(draft);
        self.plan_vips(draft);
        ports::plan(draft);
    }

    fn plan_subnets(&mut self, draft: &mut Draft) {
        let state = draft.state().clone();
        for network in state.networks() {
            let has = |ipv4: bool| network.subnets.iter().any(|subnet| subnet.contains(':') != ipv4);
            for ipv4 in families(&network.spec).filter(|ipv4| !has(*ipv4)) {
                // One that finds no room waits for it: its tasks say so.
                let _ = self.grow(draft, network.id, ipv4);
            }
        }
    }

    fn plan_vips(&mut self, draft: &mut Draft) {
        let state = draft.state().clone();
        for service in state.services() {
            let wanted = state.vip_networks(&service.spec);
            if has_vips(&state, service, &wanted) {
                continue;
            }
            let mut vips = Vec::new();
            for network in wanted {
                let held = service.vips.iter().find(|vip| vip.0 == network).map(|vip| vip.1.clone());
                // A network without room leaves its part out; the rest of the service has its own.
                if let Ok(addresses) = self.complete(draft, network, held.unwrap_or_default(), service.id.0) {
                    vips.push((network, addresses));
                }
            }
            if vips != service.vips {
                // Refused only where the draft's own view is out of step with its indices, which the next tick is not.
                let _ = draft.change(&[], Change::SetServiceVips { service: service.id, vips });
            }
        }
    }

    /// An address of each family that the network has, those in `held` kept. The error says what is full.
    fn complete(
        &mut self,
        draft: &mut Draft,
        network: NetworkId,
        held: Vec<IpAddr>,
        seed: u128,
    ) -> Result<Vec<IpAddr>, String> {
        let Some(found) = draft.state().network(network).cloned() else {
            return Err(format!("network {network} is not there any more"));
        };
        let mut addresses = Vec::new();
        for ipv4 in families(&found.spec) {
            let kept = held.iter().find(|addr| addr.is_ipv4() == ipv4).copied();
            let addr = match kept.or_else(|| self.pick(draft.state(), network, ipv4, seed)) {
                Some(addr) => addr,
                None => {
                    self.grow(draft, network, ipv4)?;
                    self.pick(draft.state(), network, ipv4, seed).ok_or_else(|| full(&found.spec.name))?
                }
            };
            addresses.push(addr);
        }
        Ok(addresses)
    }

    fn pick(&mut self, state: &State, network: NetworkId, ipv4: bool, seed: u128) -> Option<IpAddr> {
        let found = state.network(network)?;
        self.rooms.entry(network).or_insert_with(|| Room::of(found)).pick(state, ipv4, seed)
    }

    /// One more subnet for a network whose user did not choose them.
    fn grow(&mut self, draft: &mut Draft, network: NetworkId, ipv4: bool) -> Result<(), String> {
        let Some(found) = draft.state().network(network).cloned() else { return Err(full(&network.to_string())) };
        let name = &found.spec.name;
        if found.spec.chose_subnets(ipv4) {
            return Err(format!("{}: make it anew with a larger subnet", full(name)));
        }
        let cut = self.cutter.cut(draft, self.around, ipv4);
        let subnet = cut.map_err(|why| format!("{}, and {why}", full(name)))?;
        let subnets = found.subnets.iter().cloned().chain([subnet.to_string()]).collect();
        let change = Change::SetNetworkSubnets { network, subnets };
        draft.change(&[], change).map_err(|refusal| refusal.to_string())?;
        self.rooms.remove(&network);
        Ok(())
    }
}

impl Addresses for Allocator<'_> {
    fn attach(&mut self, draft: &mut Draft, task: TaskId, spec: &TaskSpec) -> Result<Vec<Attachment>, String> {
        let mut attachments = Vec::new();
        for network in draft.state().networks_of(spec) {
            let addresses = self.complete(draft, network, Vec::new(), task.0)?;
            let named = spec.networks.iter().find(|to| to.target == NetworkTarget::Id(network));
            let aliases = named.map(|to| to.aliases.clone()).unwrap_or_default();
            attachments.push(Attachment { network, addresses, aliases });
        }
        Ok(attachments)
    }
}

/// The address families of a network, as "is it IPv4".
fn families(network: &NetworkSpec) -> impl Iterator<Item = bool> + use<> {
    std::iter::once(true).chain(network.ipv6.then_some(false))
}

/// Whether a service has all virtual addresses that it is to have, and no others.
fn has_vips(state: &State, service: &Service, wanted: &[NetworkId]) -> bool {
    let complete = |id: NetworkId, addresses: &[IpAddr]| {
        state.network(id).is_some_and(|network| addresses.len() == families(&network.spec).count())
    };
    service.vips.len() == wanted.len()
        && service.vips.iter().zip(wanted).all(|((id, addresses), wanted)| id == wanted && complete(*id, addresses))
}

fn full(network: &str) -> String {
    format!("network {network} has no free address")
}
