//! The filters: each looks at one demand of a task and one node, and says what is missing.
//!
//! Add a filter by writing its function, its [`Reason`] and its text, and naming it in [`PIPELINE`]. The first two filters,
//! readiness and availability, ask nothing of the task and are in [`nodes`](super::nodes); a volume's home is a matter of
//! the slot and is in [`place`](super::place).

use std::collections::BTreeSet;

use super::conditions::{Condition, Conditions};
use super::nodes::NodeInfo;
use super::reason::Reason;
use super::score::OnNode;
use crate::spec::{
    Constraint, GenericResource, MountKind, NetworkAttachment, NetworkTarget, Platform, PortConfig, Protocol,
    PublishMode, ResourceReservations, TaskSpec,
};
use crate::state::State;

/// Where host ports that the user left open are chosen, as Docker does.
pub(super) const HOST_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// A node that is asked: which, what it has left, and what of the service.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub index: usize,
    pub info: &'a NodeInfo,
    pub on_node: OnNode,
}

type Filter = fn(&Demands, Asked<'_>) -> Result<(), Reason>;

/// In the order in which they are asked: first what never changes, so that the sentence names the lasting reason.
const PIPELINE: [Filter; 8] = [platform, constraints, mounts, networks, init, max_replicas, resources, host_ports];

/// What a task spec asks of a node, made ready to be asked ten thousand times.
pub(super) struct Demands {
    platforms: Vec<Platform>,
    conditions: Vec<Condition>,
    /// What is wrong with mounts that no node can make.
    mounts: Vec<String>,
    /// What is wrong with networks that no node can make; filled in from the state.
    networks: Vec<String>,
    init: bool,
    max_replicas: u64,
    pub reservations: ResourceReservations,
    /// Host ports the user chose.
    fixed_ports: Vec<(Protocol, u16)>,
    /// Protocols of those the swarm chooses.
    open_ports: Vec<Protocol>,
    /// Published on every node by services, so that no host port is chosen there; filled in where some are open.
    everywhere: BTreeSet<(Protocol, u16)>,
}

impl Demands {
    /// An error is a spec that no node could ever meet; it should not have been accepted.
    pub fn of(spec: &TaskSpec, known: &mut Conditions, nodes: usize) -> Result<Demands, String> {
        let parsed = spec.placement.constraints.iter().map(|text| text.parse::<Constraint>());
        let constraints = parsed.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
        let host: Vec<&PortConfig> = spec.host_ports.iter().filter(|port| port.mode == PublishMode::Host).collect();
        Ok(Demands {
            platforms: spec.placement.platforms.iter().map(Platform::normalized).collect(),
            conditions: constraints.into_iter().map(|constraint| known.of(constraint, nodes)).collect(),
            mounts: spec.container.mounts.iter().filter_map(unmountable).collect(),
            networks: Vec::new(),
            init: spec.container.init == Some(true),
            max_replicas: spec.placement.max_replicas,
            reservations: spec.resources.reservations.clone(),
            fixed_ports: host.iter().filter(|p| p.published != 0).map(|p| (p.protocol, p.published)).collect(),
            open_ports: host.iter().filter(|port| port.published == 0).map(|port| port.protocol).collect(),
            everywhere: BTreeSet::new(),
        })
    }

    /// Learns of its networks, and which ports the services publish on every node, if that matters.
    pub fn learn(&mut self, spec: &TaskSpec, state: &State) {
        let of = |attachment: &NetworkAttachment| match attachment.target {
            NetworkTarget::Id(id) => state.network(id),
            NetworkTarget::Name(_) => None,
        };
        let unmet = spec.networks.iter().filter_map(of).flat_map(|network| network.spec.unmet());
        self.networks = unmet.map(|fault| fault.why).collect();
        if self.open_ports.is_empty() {
            return;
        }
        let ports = state.services().flat_map(|service| &service.ports);
        let ingress = ports.filter(|port| port.mode == PublishMode::Ingress);
        self.everywhere = ingress.map(|port| (port.protocol, port.published)).collect();
    }

    /// The first filter that refuses the node says why.
    pub fn check(&self, asked: Asked<'_>) -> Result<(), Reason> {
        PIPELINE.iter().try_for_each(|filter| filter(self, asked))
    }

    pub fn text(&self, reason: Reason) -> String {
        match reason {
            Reason::Left => "left the swarm".to_owned(),
            Reason::Down => "down".to_owned(),
            Reason::HeldDown => "back after an outage, held back for a while (see its NOTICE)".to_owned(),
            Reason::NotHeard => "not heard from yet".to_owned(),
            Reason::Leaving => "shutting down".to_owned(),
            Reason::Suspect => "suspected to be down".to_owned(),
            Reason::Drained => "drained".to_owned(),
            Reason::Paused => "paused".to_owned(),
            Reason::Platform => format!("platform is not {}", platform_names(&self.platforms)),
            Reason::Constraint(at) => format!("constraint {} not met", self.conditions[at].constraint),
            Reason::Mount(at) => self.mounts[at].clone(),
            Reason::Network(at) => self.networks[at].clone(),
            Reason::Init => "no init (docker-init or a static tini)".to_owned(),
            Reason::MaxReplicas => format!("max replicas per node ({}) reached", self.max_replicas),
            Reason::Cpu => "insufficient CPU".to_owned(),
            Reason::Memory => "insufficient memory".to_owned(),
            Reason::Generic(at) => format!("insufficient {}", self.reservations.generic[at].kind()),
            Reason::HostPort(at) => {
                let (protocol, port) = self.fixed_ports[at];
                format!("host port {port}/{} in use", protocol.as_str())
            }
            Reason::NoFreeHostPort => {
                format!("no free host port in {}-{}", HOST_PORTS.start(), HOST_PORTS.end())
            }
        }
    }
}

fn platform(demands: &Demands, asked: Asked<'_>) -> Result<(), Reason> {
    if demands.platforms.is_empty() {
        return Ok(());
    }
    let has = &asked.info.platform;
    let fits = |wanted: &Platform| {
        (wanted.os.is_empty() || wanted.os == has.os)
            && (wanted.architecture.is_empty() || wanted.architecture == has.architecture)
    };
    if demands.platforms.iter().any(fits) { Ok(()) } else { Err(Reason::Platform) }
}

fn constraints(demands: &Demands, asked: Asked<'_>) -> Result<(), Reason> {
    let unmet = demands.conditions.iter().position(|condition| !condition.is_met(asked.index, asked.info));
    unmet.map_or(Ok(()), |at| Err(Reason::Constraint(at)))
}

fn mounts(demands: &Demands, _: Asked<'_>) -> Result<(), Reason> {
    if demands.mounts.is_empty() { Ok(()) } else { Err(Reason::Mount(0)) }
}

fn networks(demands: &Demands, _: Asked<'_>) -> Result<(), Reason> {
    if demands.networks.is_empty() { Ok(()) } else { Err(Reason::Network(0)) }
}

fn init(demands: &Demands, asked: Asked<'_>) -> Result<(), Reason> {
    let has_one = || asked.info.record.as_ref().is_some_and(|record| record.has_init);
    if demands.init && !has_one() { Err(Reason::Init) } else { Ok(()) }
}

fn max_replicas(demands: &Demands, asked: Asked<'_>) -> Result<(), Reason> {
    let reached = demands.max_replicas != 0 && u64::from(asked.on_node.tasks) >= demands.max_replicas;
    if reached { Err(Reason::MaxReplicas) } else { Ok(()) }
}

fn resources(demands: &Demands, asked: Asked<'_>) -> Result<(), Reason> {
    let node = asked.info;
    let (wanted, has) = (&demands.reservations, &node.node.description.resources);
    // A task that reserves nothing fits everywhere, on a node that has promised more than it has, too.
    if wanted.nano_cpus > 0 && node.reserved.nano_cpus.saturating_add(wanted.nano_cpus) > has.nano_cpus {
        return Err(Reason::Cpu);
    }
    if wanted.memory_bytes > 0 && node.reserved.memory_bytes.saturating_add(wanted.memory_bytes) > has.memory_bytes {
        return Err(Reason::Memory);
    }
    if let Some(at) = wanted.generic.iter().position(|resource| !node.generic.suffices(resource)) {
        return Err(Reason::Generic(at));
    }
    // Each alone suffices; together they may not, where a kind is asked for twice.
    if wanted.generic.len() > 1 && node.generic.claim(&wanted.generic).is_none() {
        return Err(Reason::Generic(0));
    }
    Ok(())
}

fn host_ports(demands: &Demands, asked: Asked<'_>) -> Result<(), Reason> {
    let node = asked.info;
    if let Some(at) = demands.fixed_ports.iter().position(|port| node.ports.contains(port)) {
        return Err(Reason::HostPort(at));
    }
    if demands.open_ports.is_empty() || chosen_ports(demands, node, 0).is_some() {
        Ok(())
    } else {
        Err(Reason::NoFreeHostPort)
    }
}

/// A free port of the range for each port the user left open. The search starts at a place that `seed` gives, so that a port
/// just let go is rarely the next one taken: clients may still hold connections to it.
fn chosen_ports(demands: &Demands, node: &NodeInfo, seed: u128) -> Option<Vec<u16>> {
    let count = HOST_PORTS.end() - HOST_PORTS.start() + 1;
    let start = u16::try_from(seed % u128::from(count)).expect("a remainder is below its divisor");
    let mut given: BTreeSet<(Protocol, u16)> = demands.fixed_ports.iter().copied().collect();
    let mut chosen = Vec::new();
    for protocol in &demands.open_ports {
        let mut from_start = (0..count).map(|step| HOST_PORTS.start() + (start + step) % count);
        let free = from_start.find(|port| {
            let port = (*protocol, *port);
            !node.ports.contains(&port) && !given.contains(&port) && !demands.everywhere.contains(&port)
        })?;
        given.insert((*protocol, free));
        chosen.push(free);
    }
    Some(chosen)
}

/// The host ports that a task holds on a node that passed the filters, the open ones filled in.
pub(super) fn host_ports_held(
    demands: &Demands,
    spec: &TaskSpec,
    node: &NodeInfo,
    seed: u128,
) -> Option<Vec<PortConfig>> {
    let mut chosen = chosen_ports(demands, node, seed)?.into_iter();
    let mut ports: Vec<PortConfig> =
        spec.host_ports.iter().filter(|port| port.mode == PublishMode::Host).cloned().collect();
    for port in ports.iter_mut().filter(|port| port.published == 0) {
        port.published = chosen.next()?;
    }
    Some(ports)
}

/// What generic resources a task holds there.
pub(super) fn generic_held(demands: &Demands, node: &NodeInfo) -> Option<Vec<GenericResource>> {
    node.generic.claim(&demands.reservations.generic)
}

fn unmountable(mount: &crate::spec::Mount) -> Option<String> {
    match mount.kind {
        MountKind::Cluster => Some("cluster volumes are not supported".to_owned()),
        MountKind::NamedPipe => Some("named pipes are not supported on Linux".to_owned()),
        MountKind::Volume | MountKind::Bind | MountKind::Tmpfs => mount.unmet().map(|(_, why)| why),
    }
}

fn platform_names(platforms: &[Platform]) -> String {
    let names: Vec<String> = platforms.iter().map(|p| format!("{}/{}", p.os, p.architecture)).collect();
    names.join(" or ")
}
