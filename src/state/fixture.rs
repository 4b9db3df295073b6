//! States for tests, built in a line each and through the same `apply` as real ones.
//!
//! ```ignore
//! let mut swarm = Fixture::nodes(3);
//! let web = swarm.service("web", 2, |_| {});
//! let task = swarm.running(web, 1, node(2));
//! swarm.finish(task, TaskState::Failed);
//! let plan = orchestrator::plan(&mut swarm.draft(), ...);
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::*;
use crate::spec::*;

/// A swarm under construction. Ids are small numbers in order of creation, time stands still until [`Fixture::later`].
#[derive(Debug, Clone)]
pub struct Fixture {
    pub state: State,
    pub now: UnixMs,
    last_id: u128,
}

/// The id of the `number`th node, from 1.
pub fn node(number: u128) -> NodeId {
    NodeId(number)
}

impl Fixture {
    /// A swarm of so many managers, all up and active: `node(1)`, `node(2)`... with hostnames `node-1`, `node-2`...,
    /// addresses 10.99.0.1, 10.99.0.2..., 4 CPUs and 8 GiB each.
    pub fn nodes(count: u128) -> Fixture {
        let mut fixture = Fixture { state: State::default(), now: UnixMs(1_000_000), last_id: 1000 };
        let swarm = Box::new(a_swarm());
        fixture.command(Command::InitSwarm { swarm, node: Box::new(a_node(1)) });
        for number in 2..=count {
            fixture.command(Command::AdmitNode { node: Box::new(a_node(number)) });
        }
        fixture
    }

    /// Applies a command that must succeed.
    pub fn command(&mut self, command: Command) {
        self.try_command(command).expect("the fixture's command is accepted");
    }

    pub fn try_command(&mut self, command: Command) -> Applied {
        let proposal = Proposal { client: ClientId(1), sequence: self.state.applied() + 1, answered_below: 0 };
        let entry = Entry { proposal, at: self.now, command };
        self.state.apply(self.state.applied() + 1, &entry).expect("the fixture is at this build's level")
    }

    /// Applies a change that must succeed, as an entry of its own.
    pub fn change(&mut self, change: Change) {
        self.state.apply_change(&change, self.now).expect("the fixture's change is accepted");
        self.state.advance(self.state.applied() + 1);
    }

    /// Applies a plan's steps as one entry; the numbers of those applied and refused.
    pub fn plan(&mut self, steps: Vec<Step>) -> (u32, u32) {
        match self.try_command(Command::Plan(steps)) {
            Ok(Reply::Plan { applied, refused }) => (applied, refused),
            other => panic!("a plan answered {other:?}"),
        }
    }

    /// A draft over the state as it is.
    pub fn draft(&self) -> Draft {
        Draft::new(&self.state, self.now)
    }

    pub fn later(&mut self, by: Duration) {
        self.now = self.now + by;
    }

    fn next_id(&mut self) -> u128 {
        self.last_id += 1;
        self.last_id
    }

    /// A replicated service; `adjust` changes its spec (its mode too) before it is created.
    pub fn service(&mut self, name: &str, replicas: u64, adjust: impl FnOnce(&mut ServiceSpec)) -> ServiceId {
        let mut spec = service_spec(name, replicas);
        adjust(&mut spec);
        let id = ServiceId(self.next_id());
        self.command(Command::CreateService { id, spec: Box::new(spec), credentials: None });
        id
    }

    pub fn global(&mut self, name: &str, adjust: impl FnOnce(&mut ServiceSpec)) -> ServiceId {
        self.service(name, 0, |spec| {
            spec.mode = ServiceMode::Global;
            adjust(spec);
        })
    }

    /// Puts another spec in force, as a user's update.
    pub fn update(&mut self, id: ServiceId, adjust: impl FnOnce(&mut ServiceSpec)) {
        let service = self.state.service(id).expect("the service exists");
        let (version, mut spec) = (service.meta.version, service.spec.clone());
        adjust(&mut spec);
        let credentials = CredentialsUpdate::Keep;
        self.command(Command::UpdateService { id, version, spec: Box::new(spec), credentials });
    }

    /// What a new task of the service's present spec would be.
    pub fn new_task(&mut self, service: ServiceId, slot: Slot) -> NewTask {
        let id = TaskId(self.next_id());
        let service = self.state.service(service).expect("the service exists");
        NewTask {
            id,
            service: service.id,
            slot,
            spec_version: service.spec_version,
            desired: DesiredState::Running,
            start_delay: Duration::ZERO,
            restarts: Vec::new(),
            job_iteration: service.job.map(|job| job.iteration),
            node: match slot {
                Slot::Node(node) => Some(node),
                Slot::Replica(_) => None,
            },
        }
    }

    /// A task that waits for a node.
    pub fn pending(&mut self, service: ServiceId, slot: u64) -> TaskId {
        let new = self.new_task(service, Slot::Replica(slot));
        self.create(new)
    }

    /// A task of a replicated service, wanted running on `node`.
    pub fn running(&mut self, service: ServiceId, slot: u64, node: NodeId) -> TaskId {
        let task = self.pending(service, slot);
        self.assign(task, node);
        task
    }

    /// A global service's task, wanted running on `node`.
    pub fn running_global(&mut self, service: ServiceId, node: NodeId) -> TaskId {
        let new = self.new_task(service, Slot::Node(node));
        let task = self.create(new);
        self.assign(task, node);
        task
    }

    /// A network with these subnets, or, where there are none, without any.
    pub fn network(&mut self, name: &str, subnets: &[&str]) -> NetworkId {
        let id = NetworkId(self.next_id());
        self.command(Command::CreateNetwork { id, spec: network_spec(name, subnets) });
        id
    }

    /// Gives the ingress network a subnet of each family, as the leader does in its first tick.
    pub fn ready_ingress(&mut self) -> NetworkId {
        let network = self.state.ingress_network().expect("a swarm begins with one").id;
        let subnets = vec!["10.255.0.0/24".into(), "fd00:255::/64".into()];
        self.change(Change::SetNetworkSubnets { network, subnets });
        network
    }

    /// The next free virtual addresses on each network of a service.
    pub fn give_vips(&mut self, service: ServiceId) {
        let spec = &self.state.service(service).expect("the service exists").spec;
        let vip = |id: NetworkId| (id, free_addresses(&self.state, id));
        let vips = self.state.vip_networks(spec).into_iter().map(vip).collect();
        self.change(Change::SetServiceVips { service, vips });
    }

    pub fn create(&mut self, new: NewTask) -> TaskId {
        let id = new.id;
        self.change(Change::CreateTask(Box::new(new)));
        id
    }

    pub fn assign(&mut self, task: TaskId, node: NodeId) {
        let spec = {
            let task = self.state.task(task).expect("the task exists");
            self.state.task_spec(task.service, task.spec_version).expect("its spec is kept").clone()
        };
        let attachments = attachments(&self.state, &spec);
        let placed = Placed { task, node, host_ports: spec.host_ports.clone(), generic: Vec::new(), attachments };
        self.change(Change::Assign(Box::new(placed)));
    }

    pub fn set_desired(&mut self, task: TaskId, desired: DesiredState) {
        self.change(Change::SetDesired { task, desired });
    }

    /// Records an outcome without a replacement.
    pub fn finish(&mut self, task: TaskId, state: TaskState) {
        self.change(Change::Finish { task, outcome: outcome(state), replacement: None });
    }

    pub fn health(&mut self, node: NodeId, health: NodeHealth) {
        self.change(Change::SetNodeHealth { node, health, flaps: 0 });
    }

    /// An operator's change of a node's spec.
    pub fn update_node(&mut self, id: NodeId, adjust: impl FnOnce(&mut NodeSpec)) {
        let node = self.state.node(id).expect("the node exists");
        let (version, mut spec) = (node.meta.version, node.spec.clone());
        adjust(&mut spec);
        self.command(Command::UpdateNode { id, version, spec });
    }
}

pub fn a_swarm() -> Swarm {
    Swarm {
        id: SwarmId(7),
        meta: Meta::default(),
        spec: SwarmSpec::default(),
        ca_public_key: [1; 32],
        ca_secret_key: SecretBytes(vec![2; 32]),
        worker_token: SecretBytes(vec![3; 16]),
        manager_token: SecretBytes(vec![4; 16]),
        token_generation: 0,
        unlock_key: None,
        feature_level: FEATURE_LEVEL,
        membership_version: Version(0),
    }
}

/// A manager as [`Fixture::nodes`] makes them. The first holds the log.
pub fn a_node(number: u128) -> Node {
    let low = u32::try_from(number).expect("few nodes");
    Node {
        id: node(number),
        meta: Meta::default(),
        spec: NodeSpec { name: None, labels: Labels::new(), role: Role::Manager, availability: Availability::Active },
        public_key: [u8::try_from(number % 251).expect("below 251"); 32],
        description: NodeDescription {
            hostname: format!("node-{number}"),
            platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
            resources: NodeResources { nano_cpus: 4_000_000_000, memory_bytes: 8 << 30, generic: Vec::new() },
            engine_version: "0.1.0".into(),
            engine_labels: Labels::new(),
            addr: IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(10, 99, 0, 0).to_bits() + low)),
            transport_port: 2377,
            probe_port: 7946,
            feature_level: FEATURE_LEVEL,
        },
        raft: (number == 1).then_some(RaftMember { raft_id: 1, standing: RaftStanding::Voter }),
        health: NodeHealth::Up,
        flaps: 0,
    }
}

/// A replicated service with the plainest task.
pub fn service_spec(name: &str, replicas: u64) -> ServiceSpec {
    ServiceSpec {
        name: name.into(),
        labels: Labels::new(),
        mode: ServiceMode::Replicated { replicas },
        task: task_spec(),
        update: UpdateConfig::default(),
        rollback: UpdateConfig::default(),
        endpoint: EndpointSpec::default(),
        depends_on: Vec::new(),
        schedule: None,
    }
}

pub fn task_spec() -> TaskSpec {
    TaskSpec {
        container: ContainerSpec { image: "example.org/whoami:1".into(), ..ContainerSpec::default() },
        resources: Resources::default(),
        restart: RestartPolicy::default(),
        placement: Placement::default(),
        networks: Vec::new(),
        log_driver: None,
        force_update: 0,
        host_ports: Vec::new(),
        volume_policy: VolumePolicy::default(),
        ingress: false,
    }
}

/// With IPv6 exactly where a subnet is of it.
pub fn network_spec(name: &str, subnets: &[&str]) -> NetworkSpec {
    let asked = |subnet: &&str| SubnetSpec { subnet: (*subnet).into(), gateway: None, ip_range: None };
    NetworkSpec {
        name: name.into(),
        labels: Labels::new(),
        driver: "overlay".into(),
        driver_options: Labels::new(),
        internal: false,
        attachable: false,
        ingress: false,
        ipv6: subnets.iter().any(|subnet| subnet.contains(':')),
        subnets: subnets.iter().map(asked).collect(),
    }
}

pub fn attach_to(network: NetworkId) -> NetworkAttachment {
    NetworkAttachment { target: NetworkTarget::Id(network), aliases: Vec::new(), driver_options: Labels::new() }
}

/// Places on the networks of a spec, each with the lowest free addresses.
pub fn attachments(state: &State, spec: &TaskSpec) -> Vec<Attachment> {
    let aliases = |id: NetworkId| spec.networks.iter().find(|to| to.target == NetworkTarget::Id(id));
    let place = |network: NetworkId| Attachment {
        network,
        addresses: free_addresses(state, network),
        aliases: aliases(network).map(|to| to.aliases.clone()).unwrap_or_default(),
    };
    state.networks_of(spec).into_iter().map(place).collect()
}

/// Gives addresses where the test is about something else.
pub struct LowestFree;

impl Addresses for LowestFree {
    fn attach(&mut self, draft: &mut Draft, _: TaskId, spec: &TaskSpec) -> Result<Vec<Attachment>, String> {
        let attachments = attachments(draft.state(), spec);
        match attachments.iter().find(|place| place.addresses.is_empty()) {
            Some(full) => Err(format!("network {} is full", full.network)),
            None => Ok(attachments),
        }
    }
}

/// Of each family the lowest that nobody has, behind the first, which is the gateway's.
fn free_addresses(state: &State, network: NetworkId) -> Vec<IpAddr> {
    let subnets = state.network(network).into_iter().flat_map(|network| network.parsed_subnets());
    let hosts = |subnet: Subnet| (2..=250.min(*subnet.host_offsets().end())).map(move |at| subnet.at(at));
    let free = |subnet: Subnet| hosts(subnet).find(|addr| state.address_holder(*addr).is_none());
    subnets.filter_map(free).collect()
}

/// Mounts the named local volume `name` at `/data`.
pub fn local_volume(name: &str) -> Mount {
    Mount {
        kind: MountKind::Volume,
        source: Some(name.into()),
        target: "/data".into(),
        read_only: false,
        bind: BindOptions::default(),
        volume: VolumeOptions::default(),
        tmpfs: TmpfsOptions::default(),
    }
}

pub fn host_port(published: u16, target: u16) -> PortConfig {
    PortConfig { name: None, protocol: Protocol::Tcp, target, published, mode: PublishMode::Host }
}

pub fn outcome(state: TaskState) -> Outcome {
    Outcome { state, message: String::new(), exit_code: None, container_id: None, ran_for: None }
}
