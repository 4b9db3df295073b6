//! What it costs to have the kernel hold a swarm's networks: 10,000 endpoints from nothing, one endpoint's change at that
//! size, and one service more, early and late. Needs root and nftables: it runs in a network namespace of its own, on the
//! real kernel. It stands for a node that is told of them by a manager; the endpoints are other nodes'.
//!
//! `cargo bench --bench network`; `-- --short` a quick pass, to see that it runs.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flok::dispatcher::{Endpoint, NetworkView, Networks, ServiceView};
use flok::network::{NetworkConfig, Overlay, SwarmView, TaskNetworks};
use flok::spec::{NetworkId, NodeId, ServiceId, TaskId};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Usage, UsageWho, getrusage};

const OWN: &str = "192.168.1.1";
const MEMBERS: u32 = 10;
const CHANGES: u32 = 50;
/// One service more is measured so often, early and late.
const SERVICES_MORE: u32 = 10;

/// How a swarm's endpoints are divided.
#[derive(Clone, Copy)]
struct Shape {
    networks: u32,
    /// On each network.
    services: u32,
    /// Of each service.
    endpoints: u32,
}

fn main() {
    let short = std::env::args().any(|arg| arg == "--short");
    unshare(CloneFlags::CLONE_NEWNET).expect("root");
    sh(&format!("ip link set lo up; ip link add e0 type veth; ip addr add {OWN}/24 dev e0; ip link set e0 up"));
    let size = if short { 10 } else { 1_000 };
    let shapes = [
        Shape { networks: 1, services: size, endpoints: 10 },
        Shape { networks: size / 10, services: 10, endpoints: 10 },
        Shape { networks: 1, services: 10, endpoints: size },
    ];
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for shape in shapes {
        for _ in 0..if short { 1 } else { 3 } {
            runtime.block_on(measure(shape));
        }
    }
    runtime.block_on(grow(size));
}

/// The room, in a swarm without networks.
struct Room {
    dir: PathBuf,
    room: TaskNetworks,
    networks: Networks,
}

impl Room {
    async fn new() -> Room {
        let dir = std::env::temp_dir().join(format!("flok-bench-network-{}", std::process::id()));
        let config = NetworkConfig { dir: dir.clone(), subnet: "172.29.0.0/24".parse().expect("a subnet") };
        let room = TaskNetworks::start(config, &BTreeSet::new()).await.expect("root and nftables");
        let room = Room { dir, room, networks: Networks::default() };
        room.tell().await;
        room
    }

    async fn tell(&self) {
        let overlay = Overlay { node: NodeId(1), address: OWN.parse().expect("an address"), port: 4789 };
        let member = |number: u32| {
            (NodeId(number.into()), IpAddr::from([192, 168, 1, u8::try_from(number).expect("few members")]))
        };
        let members = (1..=MEMBERS).map(member).collect();
        self.room.set_swarm(SwarmView { overlay: Some(overlay), members, networks: self.networks.clone() });
        self.room.settled().await.expect("the kernel takes it");
    }

    /// Wall and CPU time of telling it.
    async fn cost(&self) -> (Duration, Duration) {
        let (wall, cpu) = (now(), cpu_time());
        self.tell().await;
        (wall.elapsed(), cpu_time() - cpu)
    }

    fn change(&mut self, network: u32, change: impl FnOnce(&mut NetworkView)) {
        let view = self.networks.list.get_mut(&NetworkId(network.into())).expect("a network");
        change(Arc::make_mut(view));
    }

    /// Leaves the namespace as it was.
    async fn close(mut self) {
        self.networks = Networks::default();
        self.tell().await;
        drop(self.room);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

async fn measure(shape: Shape) {
    let mut room = Room::new().await;
    let (memory, slab) = (memory_kib("/proc/self/status", "VmRSS:"), memory_kib("/proc/meminfo", "SUnreclaim:"));
    room.networks.list = (0..shape.networks).map(|number| (NetworkId(number.into()), network(shape, number))).collect();
    let told = memory_kib("/proc/self/status", "VmRSS:");
    let (wall, cpu) = room.cost().await;
    println!(
        "{} networks x {} services x {} endpoints from nothing: {wall:.0?}, CPU {cpu:.0?}; memory {} KiB, {} KiB of it \
         what was told; the kernel's slabs {} KiB (the machine's)",
        shape.networks,
        shape.services,
        shape.endpoints,
        memory_kib("/proc/self/status", "VmRSS:").saturating_sub(memory),
        told.saturating_sub(memory),
        memory_kib("/proc/meminfo", "SUnreclaim:").saturating_sub(slab),
    );
    let (mut walls, mut cpus) = (Vec::new(), Vec::new());
    for number in 0..CHANGES {
        let at = TaskId((number / 2 * 7 % (shape.services * shape.endpoints)).into());
        room.change(0, |view| {
            let endpoint = view.endpoints.get_mut(&at).expect("an endpoint");
            endpoint.serving = !endpoint.serving;
        });
        let (wall, cpu) = room.cost().await;
        walls.push(wall);
        cpus.push(cpu);
    }
    println!("  one endpoint no longer serving, or again: {:.1?}, CPU {:.1?} (medians)", median(walls), median(cpus));
    room.close().await;
}

/// Services one by one, on one network.
async fn grow(size: u32) {
    let shape = Shape { networks: 1, services: size, endpoints: 10 };
    let whole = network(shape, 0);
    let mut room = Room::new().await;
    let empty =
        NetworkView { services: Default::default(), endpoints: Default::default(), ..NetworkView::clone(&whole) };
    room.networks.list.insert(NetworkId(0), Arc::new(empty));
    for count in [10, size] {
        let first = count - SERVICES_MORE.min(count);
        let had = room.networks.list[&NetworkId(0)].services.len() as u32;
        (had..first).for_each(|more| room.change(0, |view| add(view, &whole, more)));
        room.tell().await;
        let (mut walls, mut cpus) = (Vec::new(), Vec::new());
        for more in first..count {
            room.change(0, |view| add(view, &whole, more));
            let (wall, cpu) = room.cost().await;
            walls.push(wall);
            cpus.push(cpu);
        }
        println!(
            "one service with 10 endpoints more, up to the {count}th: {:.1?}, CPU {:.1?} (medians)",
            median(walls),
            median(cpus)
        );
    }
    room.close().await;
}

/// The service of this number in `whole`, with its tasks.
fn add(view: &mut NetworkView, whole: &NetworkView, number: u32) {
    let id = ServiceId(number.into());
    view.services.insert(id, whole.services[&id].clone());
    let tasks = number * 10..(number + 1) * 10;
    view.endpoints.extend(tasks.map(|at| TaskId(at.into())).map(|task| (task, whole.endpoints[&task].clone())));
}

fn network(shape: Shape, number: u32) -> Arc<NetworkView> {
    // A /16 each, the VIPs and then the endpoints.
    let address = |at: u32| IpAddr::from((0x0a00_0000 + (number << 16) + 2 + at).to_be_bytes());
    let first = u128::from(number * shape.services);
    let services = (0..shape.services).map(|at| {
        let view = ServiceView {
            name: format!("service{at}"),
            aliases: Vec::new(),
            vips: vec![address(at)],
            ports: Vec::new(),
        };
        (ServiceId(first + u128::from(at)), view)
    });
    let endpoints = (0..shape.services * shape.endpoints).map(|at| {
        let endpoint = Endpoint {
            service: ServiceId(first + u128::from(at / shape.endpoints)),
            node: NodeId((2 + at % (MEMBERS - 1)).into()),
            addresses: vec![address(shape.services + at)],
            names: Vec::new(),
            serving: true,
        };
        (TaskId(u128::from(number * shape.services * shape.endpoints + at)), endpoint)
    });
    Arc::new(NetworkView {
        mtu: None,
        name: format!("net{number}"),
        subnets: vec![format!("10.{number}.0.0/16").parse().expect("a subnet")],
        internal: false,
        ingress: false,
        services: services.collect(),
        endpoints: endpoints.collect(),
    })
}

/// Of this process and of what it ran, the kernel's work for it included.
fn cpu_time() -> Duration {
    let of = |who| {
        let usage: Usage = getrusage(who).expect("always there");
        let (user, system) = (usage.user_time(), usage.system_time());
        Duration::from_micros(
            (user.tv_sec() + system.tv_sec()) as u64 * 1_000_000 + (user.tv_usec() + system.tv_usec()) as u64,
        )
    };
    of(UsageWho::RUSAGE_SELF) + of(UsageWho::RUSAGE_CHILDREN)
}

fn memory_kib(file: &str, field: &str) -> u64 {
    let text = fs::read_to_string(file).expect("procfs");
    let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("a size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn sh(script: &str) {
    assert!(Command::new("sh").args(["-ec", script]).status().expect("a shell").success(), "{script}");
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn now() -> Instant {
    Instant::now()
}
