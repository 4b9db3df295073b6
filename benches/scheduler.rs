//! Placements a CPU second, on swarms of the sizes that others publish figures for.
//!
//! `cargo bench --bench scheduler` runs them all; `-- NODES TASKS SERVICES [FEATURE...]` runs one, where SERVICES says over
//! how many services (each with a spec of its own) the tasks are divided, and FEATURE is `constraint`, `spread`,
//! `reserve`, `network` (an address of each family for every task) or `full` (nothing fits); `-- --short` a small one, to see that it runs.
//! What is counted is the CPU time of `scheduler::plan` on the leader, drafting included, over as many ticks as it takes;
//! applying the plans to the state is shown beside it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use flok::allocator::Allocator;
use flok::gossip::{Load, NodeRecord, RecordVersion, Table};
use flok::scheduler;
use flok::spec::*;
use flok::state::*;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

const NOW: UnixMs = UnixMs(1_000_000);
/// Of the `network` feature; services are divided over them.
const NETWORKS: u64 = 100;
/// Steps in one entry while a case is set up.
const SETUP_STEPS: usize = 10_000;

#[derive(Clone)]
struct Case {
    nodes: u64,
    tasks: u64,
    services: u64,
    features: Vec<String>,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let case = |nodes, tasks, services| Case { nodes, tasks, services, features: Vec::new() };
    let cases = match args.first().map(String::as_str) {
        None => vec![
            case(1_000, 10_000, 1),
            case(10_000, 100_000, 1),
            case(10_000, 1_000, 1_000),
            Case { features: vec!["constraint".into()], ..case(10_000, 1_000, 1_000) },
            Case { features: vec!["spread".into(), "reserve".into()], ..case(10_000, 100_000, 1) },
            Case { features: vec!["full".into()], ..case(10_000, 1_000, 1_000) },
            Case { features: vec!["network".into()], ..case(10_000, 100_000, 100) },
        ],
        Some("--short") => {
            vec![case(20, 100, 1), case(20, 30, 30), Case { features: vec!["network".into()], ..case(20, 300, 1) }]
        }
        Some(_) => vec![parse(&args)],
    };
    println!(
        "{:>7} {:>8} {:>9} {:<20} {:>10} {:>12} {:>9}",
        "nodes", "tasks", "services", "", "CPU s", "a CPU s", "apply s"
    );
    cases.iter().for_each(run);
}

fn parse(args: &[String]) -> Case {
    let number = |at: usize| args.get(at).and_then(|arg| arg.parse().ok());
    match (number(0), number(1), number(2)) {
        (Some(nodes), Some(tasks), Some(services)) => Case { nodes, tasks, services, features: args[3..].to_vec() },
        _ => {
            eprintln!("usage: scheduler [--short | NODES TASKS SERVICES [constraint|spread|reserve|network|full]...]");
            std::process::exit(2);
        }
    }
}

fn run(case: &Case) {
    let mut swarm = Swarm::new(case);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut planning, mut applying) = (Duration::ZERO, Duration::ZERO);
    let mut placed = 0;
    loop {
        let start = cpu_time();
        let mut draft = Draft::new(&swarm.state, NOW);
        let mut allocator = Allocator::new(&swarm.table);
        allocator.plan(&mut draft);
        let now = Now { mono: MonoMs(0), unix: NOW };
        scheduler::plan(&mut draft, &swarm.table, now, &mut rng, &mut allocator);
        let steps = draft.into_steps();
        let drafted = cpu_time();
        planning += drafted - start;
        let assigned = steps.iter().filter(|step| matches!(step.change, Change::Assign(_))).count();
        placed += assigned;
        if assigned == 0 {
            break;
        }
        swarm.apply(Command::Plan(steps));
        applying += cpu_time() - drafted;
    }
    let expected = if case.features.iter().any(|feature| feature == "full") { 0 } else { case.tasks };
    assert_eq!(placed as u64, expected, "every task has a place");
    println!(
        "{:>7} {:>8} {:>9} {:<20} {:>10.3} {:>12.0} {:>9.3}",
        case.nodes,
        case.tasks,
        case.services,
        case.features.join(","),
        planning.as_secs_f64(),
        case.tasks as f64 / planning.as_secs_f64(),
        applying.as_secs_f64(),
    );
}

/// CPU time of this process so far, user and system.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process may ask for its own usage");
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(micros).expect("CPU time does not run backwards"))
}

struct Swarm {
    state: State,
    table: Table,
}

impl Swarm {
    fn new(case: &Case) -> Swarm {
        let mut swarm = Swarm { state: State::default(), table: Table::default() };
        swarm.apply(Command::InitSwarm { swarm: Box::new(a_swarm()), node: Box::new(a_node(1)) });
        for number in 1..=case.nodes {
            let node = a_node(number);
            swarm.table.merge(Arc::new(a_record(&node)), MonoMs(0));
            if number > 1 {
                swarm.apply(Command::AdmitNode { node: Box::new(node) });
            }
        }
        let networks = if case.features.iter().any(|feature| feature == "network") { NETWORKS } else { 0 };
        for number in 0..networks {
            swarm.apply(Command::CreateNetwork { id: network_id(number), spec: a_network(number) });
        }
        for number in 0..case.services {
            swarm.create_service(case, number);
        }
        swarm
    }

    fn apply(&mut self, command: Command) {
        let index = self.state.applied() + 1;
        let proposal = Proposal { client: ClientId(1), sequence: index, answered_below: index };
        let answer = self.state.apply(index, &Entry { proposal, at: NOW, command });
        match answer.expect("the state is of this build's level").expect("the command is accepted") {
            Reply::Plan { refused, .. } => assert_eq!(refused, 0, "no step of a plan is refused"),
            Reply::Done => {}
        }
    }

    fn create_service(&mut self, case: &Case, number: u64) {
        let id = ServiceId(u128::from(number + 1));
        let replicas = case.tasks / case.services;
        self.apply(Command::CreateService { id, spec: Box::new(a_service(case, number, replicas)), credentials: None });
        let spec_version = self.state.service(id).expect("it was just created").spec_version;
        let slots: Vec<u64> = (1..=replicas).collect();
        for chunk in slots.chunks(SETUP_STEPS) {
            let new = |slot: &u64| Change::CreateTask(Box::new(a_task(id, spec_version, number, *slot)));
            let steps = chunk.iter().map(|slot| Step { reads: Vec::new(), change: new(slot) }).collect();
            self.apply(Command::Plan(steps));
        }
    }
}

fn a_task(service: ServiceId, spec_version: Version, number: u64, slot: u64) -> NewTask {
    // Ids are random in a real swarm; multiplying by an odd number scatters them without a collision.
    let id = u128::from(number << 32 | slot).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    NewTask {
        id: TaskId(id),
        service,
        slot: Slot::Replica(slot),
        spec_version,
        desired: DesiredState::Running,
        start_delay: Duration::ZERO,
        restarts: Vec::new(),
        job_iteration: None,
        node: None,
    }
}

fn a_service(case: &Case, number: u64, replicas: u64) -> ServiceSpec {
    let has = |feature: &str| case.features.iter().any(|given| given == feature);
    let mut placement = Placement::default();
    if has("constraint") {
        placement.constraints = vec![format!("node.labels.zone=={}", zone(number))];
    }
    if has("spread") {
        placement.spread = vec!["node.labels.zone".into()];
    }
    if has("full") {
        placement.constraints = vec!["node.labels.zone==nowhere".into()];
    }
    let reservations = match has("reserve") {
        true => ResourceReservations { nano_cpus: 100_000_000, memory_bytes: 64 << 20, generic: Vec::new() },
        false => ResourceReservations::default(),
    };
    let container = ContainerSpec { image: format!("registry.example.org/app-{number}:1"), ..Default::default() };
    ServiceSpec {
        name: format!("service-{number}"),
        labels: Labels::new(),
        mode: ServiceMode::Replicated { replicas },
        task: TaskSpec {
            container,
            resources: Resources { limits: ResourceLimits::default(), reservations },
            restart: RestartPolicy::default(),
            placement,
            networks: if has("network") { vec![an_attachment(number)] } else { Vec::new() },
            log_driver: None,
            force_update: 0,
            host_ports: Vec::new(),
            volume_policy: VolumePolicy::default(),
            ingress: false,
        },
        update: UpdateConfig::default(),
        rollback: UpdateConfig::default(),
        endpoint: EndpointSpec::default(),
        depends_on: Vec::new(),
        schedule: None,
    }
}

/// Out of the way of the ingress network's, which is the swarm's.
fn network_id(number: u64) -> NetworkId {
    NetworkId(u128::from(number) + 1_000)
}

fn a_network(number: u64) -> NetworkSpec {
    NetworkSpec {
        name: format!("network-{number}"),
        labels: Labels::new(),
        driver: "overlay".into(),
        driver_options: Labels::new(),
        internal: false,
        attachable: false,
        ingress: false,
        ipv6: true,
        subnets: Vec::new(),
    }
}

fn an_attachment(number: u64) -> NetworkAttachment {
    let target = NetworkTarget::Id(network_id(number % NETWORKS));
    NetworkAttachment { target, aliases: vec![format!("app-{number}")], driver_options: Labels::new() }
}

fn zone(number: u64) -> String {
    format!("zone-{}", number % 10)
}

fn a_node(number: u64) -> Node {
    let low = u32::try_from(number).expect("below four thousand million nodes");
    Node {
        id: NodeId(u128::from(number)),
        meta: Meta::default(),
        spec: NodeSpec {
            name: None,
            labels: Labels::from([("zone".into(), zone(number))]),
            role: if number == 1 { Role::Manager } else { Role::Worker },
            availability: Availability::Active,
        },
        public_key: [0; 32],
        description: NodeDescription {
            hostname: format!("node-{number}"),
            platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
            resources: NodeResources { nano_cpus: 16_000_000_000, memory_bytes: 64 << 30, generic: Vec::new() },
            engine_version: "0.1.0".into(),
            engine_labels: Labels::new(),
            addr: IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + low)),
            transport_port: 2377,
            probe_port: 7946,
            feature_level: FEATURE_LEVEL,
        },
        raft: (number == 1).then_some(RaftMember { raft_id: 1, standing: RaftStanding::Voter }),
        health: NodeHealth::Up,
        flaps: 0,
    }
}

/// Loads differ a little from node to node, and each node has ten images, one of them of a service here and there.
fn a_record(node: &Node) -> NodeRecord {
    let number = u64::try_from(node.id.0).expect("node ids are small here");
    let images = (0..10).map(|at| format!("registry.example.org/app-{}:1", (number * 7 + at * 131) % 5_000)).collect();
    let version = RecordVersion { incarnation: Incarnation(1), sequence: 1 };
    let load = Load { used_nano_cpus: number % 97 * 10_000_000, used_memory_bytes: 1 << 30, ..Load::default() };
    NodeRecord { load, images, ..NodeRecord::new(node.id, version, node.description.clone()) }
}

fn a_swarm() -> flok::state::Swarm {
    flok::state::Swarm {
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
