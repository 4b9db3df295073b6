//! On the real kernel, in a network namespace that each test makes for its daemon. Run by the e2e command as root.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::*;
use crate::network::names::task_interface;
use crate::spec::{Protocol, PublishMode};

fn port(published: u16) -> PortConfig {
    PortConfig { name: None, protocol: Protocol::Tcp, target: 80, published, mode: PublishMode::Host }
}

/// Runs `test` on a runtime of its own whose every thread is in a fresh network namespace.
fn on_a_host<F: Future<Output = ()>>(test: impl FnOnce(PathBuf) -> F + Send + 'static) {
    let dir = crate::network::lab::Dir::new();
    let path = dir.path().to_owned();
    std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(path));
    })
    .join()
    .unwrap();
}

async fn start(dir: &Path, keep: &[TaskId]) -> TaskNetworks {
    let config = NetworkConfig { dir: dir.to_owned(), subnet: "172.29.0.0/24".parse().unwrap() };
    TaskNetworks::start(config, &keep.iter().copied().collect()).await.unwrap()
}

/// What is in the room's directory, but for what it remembers of its own subnet.
fn left_in(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "local-subnet" && name != "networks").collect()
}

/// Serves `answer` once on port 80 inside the task's namespace.
fn serve_once(network: &TaskNetwork, answer: &'static str) -> std::thread::JoinHandle<SocketAddr> {
    let listener = namespace::within(&network.namespace, || TcpListener::bind("0.0.0.0:80")).unwrap();
    std::thread::spawn(move || {
        let (mut stream, client) = listener.accept().unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        client
    })
}

/// From the test's own thread, so from the host's namespace.
fn get(address: &str) -> String {
    let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(5)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn nft_table() -> String {
    let output = Command::new("nft").args(["list", "table", "inet", "flok"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs root and nftables"]
fn a_published_port_answers_on_the_host_and_on_its_loopback() {
    on_a_host(|dir| async move {
        let networks = start(&dir, &[]).await;
        let task = networks.create(TaskId(1), &[port(8080)], &[]).await.unwrap();
        for address in ["127.0.0.1:8080", "172.29.0.1:8080", "[::1]:8080"] {
            let server = serve_once(&task, "hello");
            // The proxy of [::1] runs on this runtime's thread.
            assert_eq!(tokio::task::spawn_blocking(move || get(address)).await.unwrap(), "hello");
            server.join().unwrap();
        }
        let server = serve_once(&task, "direct");
        assert_eq!(get(&format!("{}:80", task.addresses[0])), "direct");
        assert_eq!(server.join().unwrap().ip(), "172.29.0.1".parse::<IpAddr>().unwrap());
    });
}

#[test]
#[ignore = "needs root and nftables"]
fn tasks_without_a_common_network_do_not_reach_each_other() {
    on_a_host(|dir| async move {
        let networks = start(&dir, &[]).await;
        let one = networks.create(TaskId(1), &[], &[]).await.unwrap();
        let two = networks.create(TaskId(2), &[], &[]).await.unwrap();
        let _server = namespace::within(&two.namespace, || TcpListener::bind("0.0.0.0:80")).unwrap();
        let target = SocketAddr::new(two.addresses[0], 80);
        let connect = move || TcpStream::connect_timeout(&target, Duration::from_secs(5)).map(drop);
        assert_eq!(
            namespace::within(&one.namespace, connect).unwrap_err().kind(),
            std::io::ErrorKind::ConnectionRefused
        );
    });
}

#[test]
#[ignore = "needs root and nftables"]
fn a_removed_task_leaves_nothing() {
    on_a_host(|dir| async move {
        let networks = start(&dir, &[]).await;
        let empty = nft_table();
        networks.create(TaskId(1), &[port(8080)], &[]).await.unwrap();
        networks.remove(TaskId(1)).await.unwrap();
        assert_eq!(nft_table(), empty);
        assert_eq!(left_in(&dir), Vec::<String>::new());
        assert!(task_interfaces().unwrap().is_empty());
        networks.remove(TaskId(1)).await.unwrap();
    });
}

#[test]
#[ignore = "needs root and nftables"]
fn a_restarted_daemon_keeps_what_runs_and_removes_the_rest() {
    on_a_host(|dir| async move {
        let before = start(&dir, &[]).await;
        let kept = before.create(TaskId(1), &[port(8080)], &[]).await.unwrap();
        before.create(TaskId(2), &[port(8081)], &[]).await.unwrap();
        drop(before);
        let after = start(&dir, &[TaskId(1)]).await;
        assert_eq!(after.all(), vec![kept.clone()]);
        let server = serve_once(&kept, "still here");
        assert_eq!(get("127.0.0.1:8080"), "still here");
        server.join().unwrap();
    });
}

/// Given up at any moment, and then removed or not.
#[test]
#[ignore = "needs root and nftables"]
fn a_network_that_nobody_waits_for_any_more_leaves_nothing() {
    on_a_host(|dir| async move {
        let networks = start(&dir, &[]).await;
        let empty = nft_table();
        for round in 1..=40 {
            let (task, patience) = (TaskId(round), Duration::from_micros(100 * round as u64));
            let waited = tokio::time::timeout(patience, networks.create(task, &[port(8080)], &[])).await;
            if waited.is_ok() || round % 2 == 0 {
                networks.remove(task).await.unwrap();
            }
        }
        // The last turn of each, and what threads still do.
        for round in 1..=40 {
            drop(networks.shared.turns.take(TaskId(round)).await);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(nft_table(), empty);
        assert!(networks.all().is_empty());
        assert_eq!(left_in(&dir), Vec::<String>::new());
        assert!(task_interfaces().unwrap().is_empty());
        networks.create(TaskId(99), &[port(8080)], &[]).await.unwrap();
    });
}

#[test]
#[ignore = "needs root and nftables"]
fn a_namespace_without_a_record_goes_when_the_daemon_starts() {
    on_a_host(|dir| async move {
        let config = NetworkConfig { dir: dir.clone(), subnet: "172.29.0.0/24".parse().unwrap() };
        let path = namespace_path(&config, TaskId(1));
        namespace::create(&path).unwrap();
        fs::write(dir.join("a-human's.netns"), "").unwrap();
        start(&dir, &[TaskId(1)]).await;
        assert!(!path.exists());
        assert!(dir.join("a-human's.netns").exists());
    });
}

fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs root and nftables"]
fn interfaces_that_are_named_like_a_tasks_and_are_none_stay() {
    on_a_host(|dir| async move {
        let stray = task_interface(TaskId(7));
        sh(&format!(
            "ip link add fkhuman type veth peer name other; ip link add fk{0} type bridge
             ip link add fk1{1} type veth peer name another
             ip neigh add 10.9.9.9 lladdr 02:00:00:00:00:01 dev fkhuman nud permanent
             ip link add {stray} address ee:ee:ee:ee:ee:ee type veth peer name third",
            "0".repeat(13),
            "0".repeat(12)
        ));
        start(&dir, &[]).await;
        let links = sh("ip -o link");
        assert!(!links.contains(&stray), "{links}");
        for theirs in ["fkhuman".to_owned(), format!("fk{}", "0".repeat(13)), format!("fk1{}", "0".repeat(12))] {
            assert!(links.contains(&theirs), "{theirs} in {links}");
        }
        assert!(sh("ip neigh show dev fkhuman nud permanent").contains("10.9.9.9"));
    });
}

#[test]
#[ignore = "needs root and nftables"]
fn a_task_whose_address_or_route_is_refused_is_not_made_and_that_is_told() {
    on_a_host(|dir| async move {
        let networks = start(&dir, &[]).await;
        let (view, place) = lan(&GROWN[..1]);
        networks.set_swarm(view);
        let empty = nft_table();
        let strange = Attachment { addresses: vec!["ff02::9".parse().unwrap()], ..place.clone() };
        let error = networks.create(TaskId(1), &[], &[strange]).await.unwrap_err();
        assert!(error.to_string().contains("address ff02::9"), "{error}");
        // Another's route in the place of the task's own.
        sh("ip link set lo up; ip route add 10.0.1.9/32 dev lo proto static");
        let error = networks.create(TaskId(1), &[], std::slice::from_ref(&place)).await.unwrap_err();
        assert!(error.to_string().contains("route 10.0.1.9/32"), "{error}");
        assert_eq!((networks.all(), nft_table()), (vec![], empty));
        assert!(task_interfaces().unwrap().is_empty());
        sh("ip route del 10.0.1.9/32 dev lo proto static");
        networks.create(TaskId(1), &[], &[place]).await.unwrap();
    });
}

/// Here what cannot be undone is a record that is none.
#[test]
#[ignore = "needs root and nftables"]
fn half_a_network_that_could_not_be_undone_is_no_tasks_and_is_undone_with_the_next_attempt() {
    on_a_host(|dir| async move {
        let networks = start(&dir, &[]).await;
        let in_the_way = dir.join(format!("{}.json", TaskId(1)));
        fs::create_dir(&in_the_way).unwrap();
        for _ in 0..2 {
            networks.create(TaskId(1), &[port(8080)], &[]).await.unwrap_err();
            assert!(networks.all().is_empty() && networks.get(TaskId(1)).is_none());
        }
        fs::remove_dir(&in_the_way).unwrap();
        let task = networks.create(TaskId(1), &[port(8080)], &[]).await.unwrap();
        assert!(task.namespace.exists());
        networks.remove(TaskId(1)).await.unwrap();
        assert_eq!(left_in(&dir), Vec::<String>::new());
    });
}

#[test]
#[ignore = "needs root and nftables"]
fn a_port_in_use_is_refused_and_nothing_is_left() {
    on_a_host(|dir| async move {
        let networks = start(&dir, &[]).await;
        let _other = TcpListener::bind("0.0.0.0:8080").unwrap();
        let error = networks.create(TaskId(1), &[port(8081), port(8080)], &[]).await.unwrap_err();
        assert!(matches!(error, NetworkError::PortTaken { port: 8080, .. }), "{error}");
        networks.create(TaskId(2), &[port(8081)], &[]).await.unwrap();
        let error = networks.create(TaskId(3), &[port(8081)], &[]).await.unwrap_err();
        assert!(matches!(error, NetworkError::PortPublished { port: 8081, task: TaskId(2), .. }), "{error}");
        assert_eq!(networks.all().len(), 1);
    });
}

#[test]
#[ignore = "needs root and nftables"]
fn automatic_ports_differ() {
    on_a_host(|dir| async move {
        let networks = start(&dir, &[]).await;
        let one = networks.create(TaskId(1), &[port(0)], &[]).await.unwrap();
        let two = networks.create(TaskId(2), &[port(0)], &[]).await.unwrap();
        assert_ne!(one.host_ports, two.host_ports);
        assert!(one.host_ports[0].published >= 30_000);
    });
}

/// One network of these subnets, and its only task's place on it.
fn lan(subnets: &[&str]) -> (SwarmView, Attachment) {
    let view = crate::dispatcher::NetworkView {
        mtu: None,
        name: "lan".into(),
        subnets: subnets.iter().map(|subnet| subnet.parse().unwrap()).collect(),
        internal: false,
        ingress: false,
        services: Default::default(),
        endpoints: Default::default(),
    };
    let networks = Networks { list: [(NetworkId(1), Arc::new(view))].into() };
    let place = Attachment { network: NetworkId(1), addresses: vec!["10.0.1.9".parse().unwrap()], aliases: Vec::new() };
    (SwarmView { networks, ..SwarmView::default() }, place)
}

const GROWN: [&str; 2] = ["10.0.1.0/24", "10.0.2.0/24"];

async fn has_route(task: &TaskNetwork, to: &str) -> bool {
    let path = task.namespace.clone();
    let list = move || namespace::within(&path, || Command::new("ip").args(["route"]).output()).unwrap();
    let output = spawn_blocking(list).await.unwrap();
    String::from_utf8_lossy(&output.stdout).contains(to)
}

#[test]
#[ignore = "needs root and nftables"]
fn a_network_that_grows_while_its_task_is_made_is_whole_to_the_task() {
    on_a_host(|dir| async move {
        let networks = start(&dir, &[]).await;
        let (small, place) = lan(&GROWN[..1]);
        networks.set_swarm(small);
        let places = [place];
        let mut making = Box::pin(networks.create(TaskId(1), &[], &places));
        assert!(futures::FutureExt::now_or_never(&mut making).is_none(), "it is under way");
        networks.set_swarm(lan(&GROWN).0);
        let task = making.await.unwrap();
        for _ in 0..500 {
            if has_route(&task, GROWN[1]).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no way to {}", GROWN[1]);
    });
}

#[test]
#[ignore = "needs root and nftables"]
fn a_task_that_is_removed_while_its_network_grows_leaves_nothing() {
    on_a_host(|dir| async move {
        let networks = start(&dir, &[]).await;
        networks.settled().await.unwrap();
        let empty = nft_table();
        for round in 0..10 {
            let (small, place) = lan(&GROWN[..1]);
            networks.set_swarm(small);
            networks.create(TaskId(1), &[], &[place]).await.unwrap();
            networks.set_swarm(lan(&GROWN).0);
            for _ in 0..round {
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            networks.remove(TaskId(1)).await.unwrap();
            // Whoever follows a change has the gate for himself.
            drop(networks.shared.gate.write().await);
            networks.set_swarm(SwarmView::default());
            networks.settled().await.unwrap();
            assert_eq!(nft_table(), empty, "round {round}");
            assert_eq!(left_in(&dir), Vec::<String>::new(), "round {round}");
        }
    });
}

#[test]
#[ignore = "needs root and network namespaces"]
fn the_local_subnet_is_another_one_only_once_no_task_has_an_address_of_it() {
    on_a_host(|dir| async move {
        let networks = start(&dir, &[]).await;
        networks.create(TaskId(1), &[], &[]).await.unwrap();
        drop(networks);
        let config = NetworkConfig { dir: dir.clone(), subnet: "198.19.0.0/24".parse().unwrap() };
        let error = TaskNetworks::start(config.clone(), &[TaskId(1)].into()).await.err().unwrap().to_string();
        assert!(
            error.contains("1 tasks run with addresses of 172.29.0.0/24, and local-subnet is 198.19.0.0/24"),
            "{error}"
        );
        // Set back, it goes on as it was; then without the task.
        let networks = start(&dir, &[TaskId(1)]).await;
        assert_eq!(networks.all().len(), 1);
        drop(networks);
        let _networks = TaskNetworks::start(config, &[].into()).await.unwrap();
        let shown = Command::new("ip").args(["-4", "-o", "addr", "show", "dev", "lo"]).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains("198.19.0.1/32") && !shown.contains("172.29."), "{shown}");
    });
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_local_subnet_that_a_network_of_the_swarm_has_is_refused_by_the_networks_name() {
    on_a_host(|dir| async move {
        let networks = start(&dir, &[]).await;
        let (view, place) = lan(&["10.0.1.0/24"]);
        networks.note_networks(view.networks.subnets());
        drop(networks);
        let config = |subnet: &str| NetworkConfig { dir: dir.clone(), subnet: subnet.parse().unwrap() };
        let error = TaskNetworks::start(config("10.0.0.0/16"), &[].into()).await.err().unwrap().to_string();
        assert!(
            error.contains("10.0.0.0/16 of this node overlaps with 10.0.1.0/24 of the swarm's network lan"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(dir.join("local-subnet")).unwrap().trim(), "172.29.0.0/24", "nothing half done");
        // One that comes later is told where a task is to be on it.
        let networks = TaskNetworks::start(config("10.1.0.0/16"), &[].into()).await.unwrap();
        networks.set_swarm(lan(&["10.1.7.0/24"]).0);
        let error = networks.create(TaskId(1), &[], &[place]).await.unwrap_err().to_string();
        assert!(
            error.contains("10.1.0.0/16 of this node overlaps with 10.1.7.0/24 of the swarm's network lan"),
            "{error}"
        );
        assert!(networks.all().is_empty() && task_interfaces().unwrap().is_empty());
    });
}

#[test]
fn a_task_of_a_network_that_is_gone_speaks_from_it_until_another_has_its_subnet() {
    let config = NetworkConfig { dir: PathBuf::new(), subnet: "172.29.0.0/24".parse().unwrap() };
    let (view, at) = lan(&GROWN);
    let own = at.addresses.clone();
    let mut record = Record::new(TaskId(1), "172.29.0.2".parse().unwrap(), Vec::new(), vec![at]);
    place(&mut record, &view.networks);
    let known = record.clone();
    place(&mut record, &Networks::default());
    assert_eq!(record, known);
    assert_eq!(wired(&config, &record, true).task.addresses, own);
    let other = Arc::clone(&view.networks.list[&NetworkId(1)]);
    place(&mut record, &Networks { list: [(NetworkId(2), other)].into() });
    assert_eq!(wired(&config, &record, true).task.addresses, Vec::<IpAddr>::new());
}
