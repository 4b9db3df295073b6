//! The names of one node's networks, and what they mean to whom: a pure function of what the managers say
//! ([`Networks`](crate::dispatcher::Networks)) and of the networks that the asking task is on.
//!
//! A name is looked for, in this order, as a service of the asker's own stack, as a service, as an alias, as a task's
//! hostname or name; then as `tasks.NAME`, `NAME.STACK` and `NAME.NETWORK`. The first of these that anything is called by
//! decides, and if nothing of it serves, there is no data, at once: an answer from elsewhere would be another's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::index::{NetworkIndex, Owner};
use super::wire::Kind;
use crate::dispatcher::{NetworkChange, NetworksUpdate, UnknownNetwork};
use crate::spec::NetworkId;

/// Of a virtual IP, which a service keeps while its tasks come and go: spares a proxy that resolves at each request.
const VIP_TTL_SECONDS: u32 = 5;
/// Of addresses of tasks. A look-up is local, so a cache gains nothing, and any other value would keep a task in use
/// that has left the balance.
const TASK_TTL_SECONDS: u32 = 0;

/// A task as it asks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Client {
    /// In the order in which they are searched.
    pub networks: Vec<NetworkId>,
    /// Whose services it means by their short names.
    pub stack: Option<String>,
    /// Asked for everything else, from within the task's namespace; empty: the host's servers, from the host.
    pub servers: Vec<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Addresses {
        addresses: Vec<IpAddr>,
        ttl: u32,
    },
    /// The name of an address.
    Name {
        name: String,
        ttl: u32,
    },
    /// Known, and nothing of the kind that was asked for.
    NoData,
    /// Within the networks, and nobody's.
    NoSuchName,
    /// Not ours: whoever is asked for names of the outside knows.
    Elsewhere,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Zone {
    networks: BTreeMap<NetworkId, NetworkIndex>,
}

impl Zone {
    /// An error changes nothing.
    pub fn apply(&mut self, update: NetworksUpdate) -> Result<(), UnknownNetwork> {
        let has = |id: &NetworkId| !update.snapshot && self.networks.contains_key(id);
        let parts = |change: &NetworkChange| matches!(change, NetworkChange::Parts { .. });
        if let Some((id, _)) = update.changed.iter().find(|(id, change)| parts(change) && !has(id)) {
            return Err(UnknownNetwork(*id));
        }
        if update.snapshot {
            self.networks.clear();
        }
        for id in &update.removed {
            self.networks.remove(id);
        }
        for (id, change) in update.changed {
            match change {
                NetworkChange::Whole(view) => drop(self.networks.insert(id, NetworkIndex::new(*view))),
                NetworkChange::Parts { services, removed_services, endpoints, removed_endpoints } => {
                    let network = self.networks.get_mut(&id).expect("it was looked up before");
                    removed_services.into_iter().for_each(|id| network.set_service(id, None));
                    removed_endpoints.into_iter().for_each(|id| network.set_endpoint(id, None));
                    services.into_iter().for_each(|(id, service)| network.set_service(id, Some(service)));
                    endpoints.into_iter().for_each(|(id, endpoint)| network.set_endpoint(id, Some(endpoint)));
                }
            }
        }
        Ok(())
    }

    /// All of it, for whoever takes over.
    pub fn snapshot(&self) -> NetworksUpdate {
        let whole = |network: &NetworkIndex| NetworkChange::Whole(Box::new(network.view().clone()));
        let changed = self.networks.iter().map(|(id, network)| (*id, whole(network))).collect();
        NetworksUpdate { snapshot: true, changed, removed: Vec::new() }
    }

    /// What `name`, in lower case, means to `client`. Addresses come in an order of their own each time.
    pub fn answer(&self, client: &Client, name: &str, kind: Kind, rng: &mut impl Rng) -> Answer {
        if let Some(address) = reversed(name) {
            return self.name_of(client, address, kind);
        }
        let Some(meaning) = self.meaning(client, name) else { return Answer::Elsewhere };
        let mut ttl = VIP_TTL_SECONDS;
        let found = meaning.found.iter().map(|(network, owners)| {
            let mut addresses = Vec::new();
            for owner in owners {
                let fixed = network.addresses(*owner, meaning.tasks, &mut addresses);
                ttl = if fixed { ttl } else { TASK_TTL_SECONDS };
            }
            addresses
        });
        // On two networks a service has an address on each; one that the asker is on is enough.
        let Some(mut addresses) = found.into_iter().find(|found| found.iter().any(|address| kind.wants(address)))
        else {
            return Answer::NoData;
        };
        addresses.retain(|address| kind.wants(address));
        addresses.shuffle(rng);
        Answer::Addresses { addresses, ttl }
    }

    /// Whether `client` may ask the outside: not from networks that are internal, all of them, or a look-up would carry
    /// out what its packets cannot.
    pub fn has_way_out(&self, client: &Client) -> bool {
        let mut own = self.own(client).filter(|network| !network.view().ingress).peekable();
        own.peek().is_none() || own.any(|network| !network.view().internal)
    }

    fn own<'a>(&'a self, client: &'a Client) -> impl Iterator<Item = &'a NetworkIndex> {
        client.networks.iter().filter_map(|id| self.networks.get(id))
    }

    fn meaning<'a>(&'a self, client: &'a Client, name: &str) -> Option<Meaning<'a>> {
        // Nobody is looked for on the ingress network: it carries published ports and nothing else.
        let own: Vec<&NetworkIndex> = self.own(client).filter(|network| !network.view().ingress).collect();
        let plain = |name: &str, tasks: bool| {
            of_stack(&own, name, client.stack.as_deref())
                .or_else(|| called(&own, name))
                .or_else(|| name.rsplit_once('.').and_then(|(name, stack)| of_stack(&own, name, Some(stack))))
                .map(|found| Meaning { found, tasks })
        };
        let all_tasks = |name: &str| name.strip_prefix("tasks.").and_then(|service| plain(service, true));
        plain(name, false).or_else(|| all_tasks(name)).or_else(|| {
            own.iter().find_map(|network| {
                let name = name.strip_suffix(network.suffix())?;
                let within = [*network];
                let tasks = name.strip_prefix("tasks.").and_then(|name| called(&within, name));
                match called(&within, name) {
                    Some(found) => Some(Meaning { found, tasks: false }),
                    None => tasks.map(|found| Meaning { found, tasks: true }),
                }
            })
        })
    }

    fn name_of(&self, client: &Client, address: IpAddr, kind: Kind) -> Answer {
        let found = self.own(client).find_map(|network| network.name_of(address));
        match found {
            Some(_) if !matches!(kind, Kind::Ptr | Kind::Any) => Answer::NoData,
            Some(name) if super::wire::is_writable(&name) => Answer::Name { name, ttl: TASK_TTL_SECONDS },
            Some(_) => Answer::NoData,
            None if self.own(client).any(|network| network.contains(address)) => Answer::NoSuchName,
            None => Answer::Elsewhere,
        }
    }
}

/// Who a name belongs to, on each network where it belongs to anybody.
struct Meaning<'a> {
    found: Vec<(&'a NetworkIndex, Vec<Owner>)>,
    /// The services' tasks are meant, whatever address the services have.
    tasks: bool,
}

type Found<'a> = Vec<(&'a NetworkIndex, Vec<Owner>)>;

fn called<'a>(networks: &[&'a NetworkIndex], name: &str) -> Option<Found<'a>> {
    let found: Found<'a> = networks
        .iter()
        .filter_map(|network| network.called(name).map(|(rank, owners)| (rank, *network, owners)))
        .fold((None, Vec::new()), |(best, mut found), (rank, network, owners)| match best {
            Some(best) if best < rank => (Some(best), found),
            Some(best) if best > rank => (Some(rank), vec![(network, owners)]),
            _ => {
                found.push((network, owners));
                (Some(rank), found)
            }
        })
        .1;
    (!found.is_empty()).then_some(found)
}

fn of_stack<'a>(networks: &[&'a NetworkIndex], name: &str, stack: Option<&str>) -> Option<Found<'a>> {
    let full = format!("{}_{name}", stack?.to_ascii_lowercase());
    let found: Found<'a> =
        networks.iter().filter_map(|network| network.service(&full).map(|owner| (*network, vec![owner]))).collect();
    (!found.is_empty()).then_some(found)
}

/// The address whose name is asked for (RFC 1035 3.5, RFC 3596 2.5).
fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(octets) = name.strip_suffix(".in-addr.arpa") {
        let mut address = [0u8; 4];
        let mut parts = octets.rsplit('.');
        for place in &mut address {
            *place = parts.next()?.parse().ok()?;
        }
        return parts.next().is_none().then(|| Ipv4Addr::from(address).into());
    }
    let mut digits = name.strip_suffix(".ip6.arpa")?.rsplit('.');
    let mut address = 0u128;
    for _ in 0..32 {
        let digit = digits.next().filter(|digit| digit.len() == 1)?;
        address = address << 4 | u128::from_str_radix(digit, 16).ok()?;
    }
    digits.next().is_none().then(|| Ipv6Addr::from_bits(address).into())
}

#[cfg(test)]
#[path = "zone_tests.rs"]
mod tests;
