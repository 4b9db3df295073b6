//! Published ports of `ingress` mode that their users left to the swarm.

use std::collections::BTreeSet;

use crate::spec::*;
use crate::state::{Change, Draft, Service, State};

/// Where they are chosen, as Docker does, and as host ports are.
const PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

pub(super) fn plan(draft: &mut Draft) {
    let state = draft.state().clone();
    let waiting = |service: &&std::sync::Arc<Service>| service.ports.iter().any(is_open);
    let mut waiting = state.services().filter(waiting).peekable();
    if waiting.peek().is_none() {
        return;
    }
    let mut taken = taken(&state);
    for service in waiting {
        let mut ports = service.ports.clone();
        for port in ports.iter_mut().filter(|port| is_open(port)) {
            // Without a free one the port stays open, and is looked for again in every tick.
            if let Some(free) = free(&taken, port.protocol, service.id.0) {
                taken.insert((port.protocol, free));
                port.published = free;
            }
        }
        if ports != service.ports {
            // Refused only where it is taken after all; the next tick chooses again.
            let _ = draft.change(&[], Change::SetServicePorts { service: service.id, ports });
        }
    }
}

fn is_open(port: &PortConfig) -> bool {
    port.mode == PublishMode::Ingress && port.published == 0
}

/// Every published port of a service, and every host port that a task was given on some node.
fn taken(state: &State) -> BTreeSet<(Protocol, u16)> {
    let of_services = state.services().flat_map(|service| &service.ports);
    let of_tasks = state.tasks().filter(|task| task.holds_resources()).flat_map(|task| &task.host_ports);
    of_services.chain(of_tasks).filter(|port| port.published != 0).map(|port| (port.protocol, port.published)).collect()
}

/// The first free one at or after a place that `seed` gives, so that a port just let go is rarely the next one taken.
fn free(taken: &BTreeSet<(Protocol, u16)>, protocol: Protocol, seed: u128) -> Option<u16> {
    let count = PORTS.end() - PORTS.start() + 1;
    let start = u16::try_from(seed % u128::from(count)).expect("a remainder is below its divisor");
    let mut from_start = (0..count).map(|step| PORTS.start() + (start + step) % count);
    from_start.find(|port| !taken.contains(&(protocol, *port)))
}
