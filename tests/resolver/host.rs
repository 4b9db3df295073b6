//! A host for one test: network and mount namespaces of its own, in which the resolver runs as it would on a machine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use flok::dispatcher::{Endpoint, NetworkView, Networks, ServiceView};
use flok::network::dns::{Client, Resolver, ResolverConfig, ServedTask};
use flok::spec::{NetworkId, NodeId, ServiceId, TaskId};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub struct Host {
    pub dir: PathBuf,
}

/// Runs `test` on a thread in namespaces of its own, with `resolv_conf` as the host's. Its resolver ends with it.
pub fn on_a_host<F: Future<Output = ()>>(
    resolv_conf: &'static str,
    test: impl FnOnce(Arc<Host>) -> F + Send + 'static,
) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let ended = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>).unwrap();
        run("ip", &["link", "set", "lo", "up"]);
        fs::write(path.join("resolv.conf"), resolv_conf).unwrap();
        mount(Some(&path.join("resolv.conf")), "/etc/resolv.conf", None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .unwrap();
        let host = Arc::new(Host { dir: path });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let guard = Arc::clone(&host);
        runtime.block_on(async move {
            test(host).await;
            guard.stop_resolver().await;
        });
    })
    .join();
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

impl Host {
    /// The daemon's hold on the resolver that is this test's binary.
    pub fn resolver(&self) -> Resolver {
        self.resolver_of(Path::new(env!("CARGO_BIN_EXE_flok")))
    }

    pub fn resolver_of(&self, binary: &Path) -> Resolver {
        Resolver::start(ResolverConfig { dir: self.dir.join("resolver"), binary: binary.to_owned() })
    }

    /// A namespace as a task has it, and what the resolver is told of it.
    pub fn task(&self, id: u128, client: Client) -> ServedTask {
        let netns = self.dir.join(format!("{id}.netns"));
        File::create(&netns).unwrap();
        let held = netns.clone();
        let made = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            run("ip", &["link", "set", "lo", "up"]);
            mount(Some("/proc/thread-self/ns/net"), &held, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        });
        made.join().unwrap();
        ServedTask { task: TaskId(id), netns, client }
    }

    /// The process that listens now.
    pub async fn resolver_pid(&self) -> Option<i32> {
        let socket = self.dir.join("resolver/resolver.sock");
        tokio::net::UnixStream::connect(socket).await.ok()?.peer_cred().ok()?.pid()
    }

    pub async fn kill_resolver(&self) {
        let pid = self.resolver_pid().await.unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }

    async fn stop_resolver(&self) {
        if self.resolver_pid().await.is_some() {
            self.kill_resolver().await;
        }
    }
}

pub fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

/// Runs `inside` on a thread in the namespace at `path`.
pub fn within<T: Send + 'static>(path: &Path, inside: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = File::open(path).unwrap();
    let thread = std::thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        inside()
    });
    thread.join().unwrap()
}

/// One network, `shop_default`, with a service `web` (10.0.1.2) of the tasks `addresses`.
pub fn networks(addresses: &[&str]) -> Networks {
    let endpoint = |address: &str, number: usize| Endpoint {
        service: ServiceId(1),
        node: NodeId(1),
        addresses: vec![address.parse::<IpAddr>().unwrap()],
        names: vec![format!("host{number}"), format!("shop_web.{number}.x")],
        serving: true,
    };
    let service = ServiceView {
        name: "shop_web".into(),
        aliases: vec!["web".into()],
        vips: vec!["10.0.1.2".parse().unwrap()],
        ports: Vec::new(),
    };
    let view = NetworkView {
        mtu: None,
        name: "shop_default".into(),
        subnets: vec!["10.0.1.0/24".parse().unwrap()],
        internal: false,
        ingress: false,
        services: [(ServiceId(1), service)].into_iter().collect(),
        endpoints: addresses
            .iter()
            .enumerate()
            .map(|(number, address)| (TaskId(100 + number as u128), endpoint(address, number)))
            .collect(),
    };
    Networks { list: BTreeMap::from([(NetworkId(1), Arc::new(view))]) }
}

pub fn on_the_network() -> Client {
    Client { networks: vec![NetworkId(1)], stack: Some("shop".into()), servers: Vec::new() }
}
