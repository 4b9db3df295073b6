//! The swarm's networks as they come, grow, stand beside what others made, and go.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::client::{A, at, from_beside, get, in_task, look_up, said, works};
use super::lab::{Host, Lab, eventually};
use super::swarm::{PATIENCE, Swarm};

pub const WEB: &str = "
services:
  web:
    image: flok/whoami:latest
    ports: ['8080:80', '5300:80/udp']
    networks: [six]
    deploy: { replicas: 3 }
  client:
    image: flok/busybox:latest
    command: [sleep, '1000000']
    stop_signal: SIGKILL
    networks: [six]
    deploy: { mode: global }
networks:
  six: { enable_ipv6: true }
";

/// All that flok has in a host's kernel and on its disk for networks: what it has with no service, and no more.
pub fn held(host: &Host) -> BTreeSet<String> {
    let files = format!("ls {}", host.data_dir().join("network").display());
    let script = format!(
        "nft list table inet flok | tr ',{{}}' '\\n\\n\\n' | grep -v chain | grep -E '\"fk[a-z0-9]|[0-9a-f]+[.:][0-9a-f:.]+|vip|port' || true
        ip route show table all proto 102; ip -6 route show table all proto 102
        ip rule | grep 102 | sed s,^,v4:,; ip -6 rule | grep 102 | sed s,^,v6:,; ip -o link | grep -oE '(fk|flok)[^:@]*' || true
        for family in -4 -6; do ip $family neigh show nud permanent; done; bridge fdb show dev flok0 || true
        {files}"
    );
    let output = host.command("sh").args(["-c", &script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// What hosts hold that know of each other and have no task.
pub fn known_to_each_other(swarm: &Swarm) -> Vec<BTreeSet<String>> {
    let known = |host: &Host| {
        eventually("the other nodes to be known", PATIENCE, || {
            let held = held(host);
            let peers = held.iter().filter(|line| line.contains("dst 10.99.0.")).count();
            if peers + 1 == swarm.hosts.len() { Ok(held) } else { Err(format!("{held:?}")) }
        })
    };
    swarm.hosts.iter().map(known).collect()
}

pub fn is_empty_again(swarm: &Swarm, empty: &[BTreeSet<String>]) {
    for (host, empty) in swarm.hosts.iter().zip(empty) {
        eventually("nothing of the stack to be left", PATIENCE, || {
            let now = held(host);
            let different: Vec<_> = now.symmetric_difference(empty).collect();
            if different.is_empty() { Ok(()) } else { Err(format!("{different:?}")) }
        });
    }
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn services_networks_and_nodes_that_are_removed_leave_nothing_behind() {
    let swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.load("busybox");
    swarm.voters_are(0, 3);
    let empty = known_to_each_other(&swarm);
    swarm.deploy(0, "s", WEB);
    swarm.running(0, "s_web", 3);
    swarm.running(0, "s_client", 3);
    for (host, empty) in swarm.hosts.iter().zip(&empty) {
        assert!(held(host).len() > empty.len() + 10, "there is something to remove");
    }
    swarm.hosts[0].ok(&["stack", "rm", "s"]);
    is_empty_again(&swarm, &empty);
    // A node that goes is forgotten by the others, and has nothing itself.
    let gone = swarm.node_id(0, 2);
    swarm.hosts[2].ok(&["swarm", "leave", "--force"]);
    eventually("the node to be removed", PATIENCE, || {
        let output = swarm.hosts[0].flok(&["node", "rm", "--force", &gone]);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
    for host in &swarm.hosts[..2] {
        eventually("nothing of the node to be left", PATIENCE, || {
            let now = held(host);
            let of_it: Vec<_> = now.iter().filter(|line| line.contains("10.99.0.3")).collect();
            let tunnels = now.iter().filter(|line| line.contains("dst 10.99.0.")).count();
            let rules = now.iter().filter(|line| line.contains(":11000:")).count();
            if of_it.is_empty() && tunnels == 1 && rules == 2 { Ok(()) } else { Err(format!("{now:?}")) }
        });
    }
    eventually("nothing of the swarm to be left", PATIENCE, || {
        let now = held(&swarm.hosts[2]);
        let of_swarm = |line: &&String| {
            line.as_str() == "flok0"
                || ["dev flok0", "10.99.0.", "10.0.0.", ":11000:"].iter().any(|it| line.contains(it))
        };
        let left: Vec<_> = now.iter().filter(of_swarm).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

const SMALL: &str = "
services:
  web:
    image: flok/whoami:latest
    networks: [small]
    deploy: { replicas: 3 }
networks:
  small: {}
";

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_full_network_grows_by_a_subnet_and_its_tasks_reach_each_other() {
    let mut lab = Lab::new(2);
    lab.hosts.iter_mut().for_each(|host| host.start_daemon(&[]));
    let pool = ["--default-addr-pool", "10.20.0.0/16", "--default-addr-pool-mask-length", "29"];
    let swarm = Swarm::begin_with(lab, &pool);
    swarm.load("whoami");
    swarm.deploy(0, "s", SMALL);
    let before = swarm.running(0, "s_web", 3);
    // More than the eight addresses of its first subnet.
    swarm.hosts[0].ok(&["service", "scale", "--detach", "s_web=9"]);
    let after = swarm.running(0, "s_web", 9);
    assert!(before.iter().all(|old| after.iter().any(|now| now.id == old.id)), "the first ones go on");
    let addresses: Vec<IpAddr> = after.iter().flat_map(|task| swarm.addresses(0, &task.id)).collect();
    let network = &swarm.hosts[0].get("/networks/s_small").unwrap();
    let subnets = network["IPAM"]["Config"].as_array().unwrap();
    assert!(subnets.len() > 1, "{subnets:?}");
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), 9);
    for from in &after {
        let own = swarm.addresses(0, &from.id);
        for to in addresses.iter().copied() {
            let answer =
                works(&format!("{own:?} to {to}"), || in_task(&swarm, from, move || get((to, 80).into(), "/")));
            let seen: SocketAddr = said(&answer, "RemoteAddr").parse().unwrap();
            assert!(own.contains(&seen.ip()), "{to} sees {seen}, not one of {own:?}");
        }
        let found = works("the names of all", || match in_task(&swarm, from, || look_up("tasks.web", A))? {
            (0, found) if found.len() == 9 => Ok(found),
            other => Err(std::io::Error::other(format!("{other:?}"))),
        });
        assert_eq!(found.iter().collect::<BTreeSet<_>>(), addresses.iter().collect());
    }
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn nodes_that_know_each_other_by_ipv6_carry_networks_of_both_families() {
    let swarm = Swarm::by_ipv6(3);
    swarm.load("whoami");
    swarm.load("busybox");
    swarm.deploy(0, "s", WEB);
    let web = swarm.running(0, "s_web", 3);
    for client in swarm.running(0, "s_client", 3) {
        for to in web.iter().flat_map(|task| swarm.addresses(0, &task.id)) {
            works(&format!("{to}"), || in_task(&swarm, &client, move || get((to, 80).into(), "/")));
        }
    }
    for host in 0..3 {
        let six: IpAddr = swarm.hosts[host].addr6().parse().unwrap();
        for (to, client) in [(at(&swarm, host, 8080), "10.99.0.254"), (SocketAddr::new(six, 8080), "fd99::254")] {
            works(&format!("{to}"), || from_beside(&swarm, move || get(to, "/")));
            for _ in 0..10 {
                let answer = from_beside(&swarm, move || get(to, "/")).unwrap();
                let seen: SocketAddr = said(&answer, "RemoteAddr").parse().unwrap();
                assert_eq!(seen.ip().to_string(), client, "by {to}");
            }
        }
    }
}

/// What Docker makes of a host, and what `docs/networking.md` says to do there.
#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn beside_dockers_firewall_its_own_chain_lets_the_swarms_packets_pass_and_neither_touches_the_other() {
    const DOCKERS: &str = "for tables in iptables ip6tables; do
        $tables -N DOCKER-USER && $tables -P FORWARD DROP && $tables -A FORWARD -j DOCKER-USER
        $tables -t nat -N DOCKER && $tables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
        done";
    const ALLOWED: &str = "for tables in iptables ip6tables; do for interface in fk+ flok0; do
        $tables -I DOCKER-USER -i $interface -j ACCEPT; $tables -I DOCKER-USER -o $interface -j ACCEPT
        done; done";
    const THEIRS: &str = "for tables in iptables ip6tables; do $tables -S; $tables -t nat -S; done";
    let mut lab = Lab::new(2);
    lab.hosts.iter_mut().for_each(|host| host.start_daemon(&[]));
    let told = |host: &Host, script: &str| {
        let output = host.command("sh").args(["-ec", script]).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for host in &lab.hosts {
        told(host, DOCKERS);
    }
    let mut swarm = Swarm::begin(lab);
    swarm.load("whoami");
    swarm.load("busybox");
    swarm.deploy(0, "s", &WEB.replace("replicas: 3", "mode: global"));
    let web = swarm.running(0, "s_web", 2);
    swarm.running(0, "s_client", 2);
    let to = swarm.addresses(0, &web[1].id)[0];
    let way = |swarm: &Swarm| {
        (0..2).all(|host| {
            let asked = at(swarm, host, 8080);
            from_beside(swarm, move || get(asked, "/")).is_ok()
        }) && in_task(swarm, &web[0], move || get((to, 80).into(), "/")).is_ok()
    };
    assert!(!way(&swarm), "the policy drops what is forwarded");
    for host in &swarm.hosts {
        told(host, ALLOWED);
    }
    works("all ways", || if way(&swarm) { Ok(()) } else { Err(std::io::ErrorKind::TimedOut.into()) });
    // Neither a daemon that starts nor one whose table was deleted takes anything of theirs.
    let theirs: Vec<String> = swarm.hosts.iter().map(|host| told(host, THEIRS)).collect();
    assert!(theirs[0].contains("-P FORWARD DROP") && theirs[0].contains("-A DOCKER-USER"), "{}", theirs[0]);
    swarm.host(0).stop_daemon();
    swarm.host(0).start_daemon(&[]);
    told(&swarm.hosts[1], "nft delete table inet flok");
    works("all ways again", || if way(&swarm) { Ok(()) } else { Err(std::io::ErrorKind::TimedOut.into()) });
    swarm.hosts[1].ok(&["stack", "rm", "s"]);
    for (host, before) in swarm.hosts.iter().zip(&theirs) {
        eventually("the tasks to be gone", PATIENCE, || {
            let links = told(host, "ip -o link | grep -oE 'fk[^:@]*' || true");
            if links.is_empty() { Ok(()) } else { Err(links) }
        });
        assert_eq!(told(host, THEIRS), *before);
    }
}
