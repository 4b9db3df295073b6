//! A swarm's hosts as network namespaces on one or more segments, each with this room and nothing else of flok; the
//! networks are made by hand. For tests, as root.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::dispatcher::{Endpoint, NetworkView, Networks, ServiceView};
use crate::spec::*;

pub const WAIT: Duration = Duration::from_secs(20);

/// A network namespace, held by its file.
#[derive(Clone)]
pub struct Namespace(Arc<File>);

impl Namespace {
    pub fn new() -> Namespace {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Namespace(Arc::new(made.join().unwrap()))
    }

    pub fn of(path: &Path) -> Namespace {
        Namespace(Arc::new(File::open(path).unwrap()))
    }

    pub fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = Arc::clone(&self.0);
        let entered = move || {
            setns(&*namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        thread::spawn(entered).join().unwrap()
    }

    /// Runs commands, one a line. Words of "@" are this process' id, for `netns`.
    pub fn sh(&self, script: &str) -> String {
        let script = script.to_owned();
        self.within(move || {
            let output = Command::new("sh").args(["-ec", &script]).output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{script}\n{told}");
            String::from_utf8(output.stdout).unwrap()
        })
    }

    /// Where `ip link ... netns` finds it.
    fn path(&self) -> String {
        use std::os::fd::AsRawFd;
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

pub struct Host {
    pub namespace: Namespace,
    pub node: NodeId,
    pub address: IpAddr,
    runtime: Runtime,
    networks: Option<TaskNetworks>,
    /// Last: what runs may still make a namespace in it.
    dir: Dir,
}

/// A room's directory, removed with the namespaces that are held in it.
pub struct Dir(TempDir);

impl Dir {
    pub fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.path()).into_iter().flatten().flatten() {
            if namespace::is_held(&entry.path()) {
                let _ = namespace::remove(&entry.path());
            }
        }
    }
}

impl Host {
    fn new(node: NodeId, address: IpAddr, namespace: Namespace) -> Host {
        let inside = namespace.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .on_thread_start(move || setns(&*inside.0, CloneFlags::CLONE_NEWNET).unwrap())
            .build()
            .unwrap();
        Host { namespace, node, address, runtime, networks: None, dir: Dir::new() }
    }

    pub fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        futures::executor::block_on(self.runtime.spawn(work)).unwrap()
    }

    /// As the daemon does at its start, the tasks in `keep` still running.
    pub fn start(&mut self, keep: &[TaskId]) {
        let config = NetworkConfig { dir: self.dir.path().to_owned(), subnet: "172.29.0.0/24".parse().unwrap() };
        let keep = keep.iter().copied().collect();
        self.networks = Some(self.run(async move { TaskNetworks::start(config, &keep).await.unwrap() }));
    }

    /// As a daemon's end does: what is in the kernel stays.
    pub fn stop(&mut self) {
        self.networks = None;
    }

    pub fn networks(&self) -> TaskNetworks {
        self.networks.clone().unwrap()
    }

    pub fn task(&self, task: TaskId, ports: &[PortConfig], attachments: Vec<Attachment>) -> TaskNetwork {
        let (networks, ports) = (self.networks(), ports.to_vec());
        self.run(async move { networks.create(task, &ports, &attachments).await.unwrap() })
    }

    pub fn remove(&self, task: TaskId) {
        let networks = self.networks();
        self.run(async move { networks.remove(task).await.unwrap() });
    }

    /// Without what the kernel notes in it.
    pub fn table(&self) -> String {
        self.namespace.sh("nft list table inet flok 2>&1 | sed '/set asked/,/^\t}$/d' || true")
    }

    /// All that is ours but what stands while the room stands.
    pub fn leftovers(&self) -> String {
        self.namespace.sh("ip -o link | grep -oE '(flok|fk)[^:@]*' || true
             ip -4 -o route show table all proto 102 | grep -v '^unreachable 172.29.0.0/24' || true
             ip -6 -o route show table all proto 102 | grep -v '^unreachable fd66:6c6f:6b::/96' || true
             ip rule | grep -E '109|110|111' || true
             ip -6 rule | grep -E '109|110|111' || true
             nft list table inet flok | grep -E 'vip4_|vip6_|port4_|port6_' || true")
    }

    pub fn overlay(&self) -> Overlay {
        Overlay { node: self.node, address: self.address, port: 4789 }
    }
}

/// Three hosts with a client beside them, which is no member.
pub struct Lab {
    _fabric: Namespace,
    pub hosts: Vec<Host>,
    pub client: Namespace,
    pub networks: Networks,
    /// Which task is served where.
    pub tasks: BTreeMap<TaskId, (usize, TaskNetwork)>,
}

pub const CLIENT: &str = "192.168.1.9";
pub const CLIENT6: &str = "fd77:1::9";

impl Lab {
    /// Each host on the segment of its number in `segments`; segments are routed.
    pub fn new(segments: &[u8]) -> Lab {
        let fabric = Namespace::new();
        fabric.sh("ip link set lo up; sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        let mut different = segments.to_vec();
        different.extend([1]);
        different.sort_unstable();
        different.dedup();
        for segment in &different {
            fabric.sh(&format!(
                "ip link add br{segment} type bridge; ip link set br{segment} up
                 ip addr add 192.168.{segment}.254/24 dev br{segment}
                 ip -6 addr add fd77:{segment}::254/64 dev br{segment} nodad"
            ));
        }
        let plug = |number: usize, segment: u8| {
            let namespace = Namespace::new();
            let path = namespace.path();
            fabric.sh(&format!(
                "ip link add p{number} type veth peer name e0
                 ip link set p{number} master br{segment} up
                 nsenter --net={path} true
                 ip link set e0 netns {path}"
            ));
            namespace.sh(&format!(
                "ip link set lo up
                 ip addr add 192.168.{segment}.{number}/24 dev e0
                 ip -6 addr add fd77:{segment}::{number}/64 dev e0 nodad
                 ip link set e0 up
                 ip route add default via 192.168.{segment}.254
                 ip -6 route add default via fd77:{segment}::254"
            ));
            namespace
        };
        let mut hosts = Vec::new();
        for (at, segment) in segments.iter().enumerate() {
            let number = at + 1;
            let address = format!("192.168.{segment}.{number}").parse().unwrap();
            let mut host = Host::new(NodeId(1000 + number as u128), address, plug(number, *segment));
            host.start(&[]);
            hosts.push(host);
        }
        let client = plug(9, 1);
        let lab = Lab { _fabric: fabric, hosts, client, networks: Networks::default(), tasks: BTreeMap::new() };
        lab.tell();
        lab
    }

    pub fn view(&self, at: usize) -> SwarmView {
        let members = self.hosts.iter().map(|host| (host.node, host.address)).collect();
        SwarmView { overlay: Some(self.hosts[at].overlay()), members, networks: self.networks.clone() }
    }

    /// All hosts know the networks as they are.
    pub fn tell(&self) {
        for (at, host) in self.hosts.iter().enumerate() {
            if let Some(networks) = host.networks.clone() {
                networks.set_swarm(self.view(at));
                host.run(async move { networks.settled().await.unwrap() });
            }
        }
    }

    pub fn network(&mut self, id: u128, kind: Kind) -> NetworkId {
        let view = NetworkView {
            mtu: None,
            name: format!("net{id}"),
            subnets: vec![format!("10.0.{id}.0/24").parse().unwrap(), format!("fd10:{id}::/64").parse().unwrap()],
            internal: kind == Kind::Internal,
            ingress: kind == Kind::Ingress,
            services: Default::default(),
            endpoints: Default::default(),
        };
        self.networks.list.insert(NetworkId(id), Arc::new(view));
        NetworkId(id)
    }

    pub fn service(&mut self, network: NetworkId, service: ServiceId, ports: Vec<PortConfig>) {
        let vips = [self.address(network, 2 + service.0 % 10), self.address6(network, 2 + service.0 % 10)];
        let ingress = self.networks.list[&network].ingress;
        let view = ServiceView {
            name: format!("service{}", service.0),
            aliases: Vec::new(),
            vips: if ingress { Vec::new() } else { vips.to_vec() },
            ports,
        };
        self.change(network, |network| drop(network.services.insert(service, view)));
    }

    /// A task of `service`, started on a host, with a server that tells who asks.
    pub fn start(&mut self, task: u128, service: ServiceId, at: usize, networks: &[NetworkId]) -> TaskNetwork {
        self.start_with(task, service, at, networks, &[])
    }

    /// The same with ports in `host` mode.
    pub fn start_with(
        &mut self,
        task: u128,
        service: ServiceId,
        at: usize,
        networks: &[NetworkId],
        ports: &[PortConfig],
    ) -> TaskNetwork {
        let id = TaskId(task);
        let places: Vec<Attachment> = networks
            .iter()
            .map(|network| Attachment {
                network: *network,
                addresses: vec![self.address(*network, 100 + task), self.address6(*network, 100 + task)],
                aliases: Vec::new(),
            })
            .collect();
        for place in &places {
            let (node, addresses) = (self.hosts[at].node, place.addresses.clone());
            let endpoint = Endpoint { service, node, addresses, names: Vec::new(), serving: true };
            self.change(place.network, |network| drop(network.endpoints.insert(id, endpoint)));
        }
        let known = self.hosts[at].networks();
        known.set_swarm(self.view(at));
        let made = self.hosts[at].task(id, ports, places);
        serve(&made.namespace, format!("t{task}"));
        self.tasks.insert(id, (at, made.clone()));
        self.tell();
        made
    }

    pub fn change(&mut self, network: NetworkId, change: impl FnOnce(&mut NetworkView)) {
        change(Arc::make_mut(self.networks.list.get_mut(&network).unwrap()));
    }

    pub fn address(&self, network: NetworkId, host: u128) -> IpAddr {
        format!("10.0.{}.{host}", network.0).parse().unwrap()
    }

    pub fn address6(&self, network: NetworkId, host: u128) -> IpAddr {
        format!("fd10:{}::{host}", network.0).parse().unwrap()
    }

    pub fn inside(&self, task: u128) -> Namespace {
        Namespace::of(&self.tasks[&TaskId(task)].1.namespace)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Plain,
    Internal,
    Ingress,
}

pub fn port(protocol: Protocol, published: u16, mode: PublishMode) -> PortConfig {
    PortConfig { name: None, protocol, target: 80, published, mode }
}

/// A server on TCP and UDP port 80: tells its name and whom it sees. A TCP connection stays open and repeats each byte.
pub fn serve(namespace: &Path, name: String) {
    let inside = Namespace::of(namespace);
    let (listener, socket) =
        inside.within(|| (TcpListener::bind("[::]:80").unwrap(), std::net::UdpSocket::bind("[::]:80").unwrap()));
    let told = name.clone();
    thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let text = format!("{told} {}\n", plain(peer));
            thread::spawn(move || {
                let mut bytes = [0; 64];
                let _ = stream.write_all(text.as_bytes());
                while let Ok(length @ 1..) = stream.read(&mut bytes) {
                    let _ = stream.write_all(&bytes[..length]);
                }
            });
        }
    });
    thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(format!("{name} {}\n", plain(peer)).as_bytes(), peer);
        }
    });
}

fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Who answered, and whom it saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub from: String,
    pub saw: SocketAddr,
}

pub fn connect(to: SocketAddr) -> io::Result<(TcpStream, Answer)> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(3))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let answer = read_answer(&mut stream)?;
    Ok((stream, answer))
}

pub fn read_answer(stream: &mut impl Read) -> io::Result<Answer> {
    let mut line = Vec::new();
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    Ok(parse(&String::from_utf8_lossy(&line)))
}

pub fn parse(line: &str) -> Answer {
    let (from, saw) = line.trim().split_once(' ').unwrap();
    Answer { from: from.to_owned(), saw: saw.parse().unwrap() }
}

pub fn get(from: &Namespace, to: IpAddr, port: u16) -> io::Result<Answer> {
    from.within(move || connect(SocketAddr::new(to, port)).map(|(_, answer)| answer))
}

/// Within a bound, whatever else runs on this machine.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    #[expect(clippy::disallowed_methods, reason = "a test's bound")]
    let now = Instant::now;
    let until = now() + WAIT;
    while !holds() {
        assert!(now() < until, "not within {WAIT:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
