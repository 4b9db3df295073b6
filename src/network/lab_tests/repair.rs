//! The kernel kept as planned: through restarts, changes under the overlay, human hands, and to the last of it.

use super::*;

/// Only of these the kernel's table of connections is walked when they go.
#[test]
#[ignore = "needs root and nftables"]
fn targets_that_a_node_asks_by_translation_are_noted_until_they_are_gone() {
    let mut lab = Lab::new(&[1, 1, 1]);
    let network = three_tasks(&mut lab);
    let (first, second) = (lab.address(network, 101), lab.address(network, 102));
    let noted = |lab: &Lab, at: usize, target: IpAddr| {
        let get = format!("nft get element inet flok asked4 '{{ {target} . tcp }}' 2>&1 || true");
        lab.hosts[at].namespace.sh(&get).contains("elements")
    };
    lab.change(network, |network| network.endpoints.get_mut(&TaskId(3)).unwrap().serving = false);
    lab.tell();
    let vip = lab.address(network, 3);
    for _ in 0..20 {
        get(&lab.inside(1), vip, 80).unwrap();
    }
    get(&lab.inside(2), first, 80).unwrap();
    assert!([first, second].map(|target| noted(&lab, 0, target)) == [true; 2], "both answered for the VIP");
    assert!([first, second].map(|target| noted(&lab, 1, target)) == [false; 2], "no VIP was asked from here");
    lab.change(network, |network| drop(network.endpoints.remove(&TaskId(2))));
    lab.tell();
    assert!([first, second].map(|target| noted(&lab, 0, target)) == [true, false]);
}

#[test]
#[ignore = "needs root and nftables"]
fn the_overlays_sizes_follow_the_interface_under_it() {
    let mut lab = Lab::new(&[1, 1]);
    let network = lab.network(1, Kind::Plain);
    lab.start(1, WEB, 0, &[network]);
    let has = |lab: &Lab, mtu: &str| lab.inside(1).sh("ip route").contains(&format!("mtu {mtu}"));
    eventually("what the interface leaves", || has(&lab, "1450"));
    lab.hosts[0].namespace.sh("ip link set e0 mtu 1400");
    // Looked at with the next change of anything.
    lab.hosts[0].namespace.sh("nft add element inet flok members4 { 6.6.6.6 }");
    eventually("less", || has(&lab, "1350"));
    assert!(lab.hosts[0].namespace.sh("ip link show flok0").contains("mtu 1350"));
    lab.hosts[0].stop();
    lab.hosts[0].start(&[TaskId(1)]);
    assert!(has(&lab, "1350"));
}

/// A strict filter is what many distributions set for interfaces to come.
#[test]
#[ignore = "needs root and nftables"]
fn the_overlays_device_is_set_up_though_another_part_is_refused() {
    let mut lab = Lab::new(&[1, 1]);
    let network = lab.network(1, Kind::Plain);
    lab.service(network, WEB, Vec::new());
    let host = lab.hosts[0].namespace.clone();
    host.sh("sysctl -qw net.ipv4.conf.default.rp_filter=1");
    // Another's route in the place of one of ours, which is not taken from him; and the device is made in the same step.
    host.sh(&format!("ip route add {}/32 via 192.168.1.254 proto static", lab.address(network, 102)));
    lab.hosts[0].networks().set_swarm(crate::network::SwarmView::default());
    lab.start(2, WEB, 1, &[network]);
    let filter = || host.sh("cat /proc/sys/net/ipv4/conf/flok0/rp_filter").trim().to_owned();
    eventually("the device to be set up", || filter() == "0");
    host.sh("sysctl -qw net.ipv4.conf.flok0.rp_filter=1; nft add element inet flok members4 { 6.6.6.6 }");
    eventually("it to be set up again", || filter() == "0");
}

#[test]
#[ignore = "needs root and nftables"]
fn a_restart_of_the_room_cuts_no_connection() {
    let mut lab = Lab::new(&[1, 1, 1]);
    let network = three_tasks(&mut lab);
    published_beside(&mut lab);
    let direct = SocketAddr::new(lab.address(network, 102), 80);
    let (mut task, _) = lab.inside(1).within(move || connect(direct).unwrap());
    let (mut client, _) = lab.client.within(|| connect(SocketAddr::new(ip("192.168.1.1"), 8080)).unwrap());
    let mut echo = || {
        for stream in [&mut task, &mut client] {
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0]).unwrap();
        }
    };
    let before: Vec<String> = lab.hosts.iter().map(Host::table).collect();
    for at in 0..3 {
        lab.hosts[at].stop();
    }
    echo();
    let kept = [vec![1], vec![2, 9], vec![3]];
    for (at, kept) in kept.iter().enumerate() {
        let tasks: Vec<TaskId> = kept.iter().map(|task| TaskId(*task)).collect();
        lab.hosts[at].start(&tasks);
        assert_eq!(lab.hosts[at].networks().all().len(), tasks.len());
    }
    echo();
    // New connections too, before anything is heard of the swarm and after.
    assert_eq!(get(&lab.inside(1), lab.address(network, 103), 80).unwrap().from, "t3");
    lab.tell();
    echo();
    assert_eq!(get(&lab.inside(1), lab.address(network, 103), 80).unwrap().from, "t3");
    // The ports are free again as soon as the room before has let go of them.
    for (at, before) in before.iter().enumerate() {
        let host = &lab.hosts[at];
        eventually("the table is as it was", || sorted(&host.table()) == sorted(before));
    }
}

#[test]
#[ignore = "needs root and nftables"]
fn what_a_human_deletes_is_made_again() {
    let mut lab = Lab::new(&[1, 1, 1]);
    let network = three_tasks(&mut lab);
    published_beside(&mut lab);
    let host = lab.hosts[0].namespace.clone();
    let works = |lab: &Lab| {
        get(&lab.inside(1), lab.address(network, 102), 80).is_ok()
            && get(&lab.inside(1), lab.address6(network, 3), 80).is_ok()
            && get(&lab.client, ip("192.168.1.1"), 8080).is_ok_and(|answer| answer.saw.ip() == ip(CLIENT))
    };
    assert!(works(&lab));
    let table = sorted(&lab.hosts[0].table());
    let veth = host.sh("ip -o link | grep -oE 'fk[a-z0-9]+' | head -1").trim().to_owned();
    for harm in [
        "nft delete table inet flok".to_owned(),
        "nft flush chain inet flok isolate".to_owned(),
        "nft delete chain inet flok leave".to_owned(),
        format!("nft delete element inet flok vips4 {{ {} }}", lab.address(network, 3)),
        "nft add element inet flok members4 { 6.6.6.6 }".to_owned(),
        "nft flush set inet flok endpoints4".to_owned(),
        "nft flush chain inet flok port4_tcp_8080".to_owned(),
        format!("ip route del {}/32", lab.address(network, 102)),
        format!("ip -6 route del {}/128", lab.address6(network, 102)),
        "ip rule del pref 11000 fwmark 0x666b0002".to_owned(),
        "ip link set flok0 down".to_owned(),
        "ip link del flok0".to_owned(),
        format!("ip link set {veth} down"),
        format!("ip link del {veth}"),
    ] {
        host.sh(&harm);
        eventually(&harm, || sorted(&lab.hosts[0].table()) == table && works(&lab));
    }
}

/// What is read back of a repair must not be taken for how it should be.
#[test]
#[ignore = "needs root and nftables"]
fn who_strikes_again_while_it_is_repaired_leaves_no_harm() {
    let mut lab = Lab::new(&[1, 1]);
    published_beside(&mut lab);
    let host = &lab.hosts[0];
    let table = sorted(&host.table());
    for harm in ["nft flush chain inet flok isolate", "nft delete chain inet flok leave"] {
        host.namespace.sh(&format!("for i in $(seq 200); do {harm} 2>&1 || true; done"));
        eventually(harm, || sorted(&host.table()) == table);
    }
}

#[test]
#[ignore = "needs root and nftables"]
fn nothing_is_left_of_networks_and_tasks_that_are_gone() {
    let mut lab = Lab::new(&[1, 1]);
    let host = lab.hosts[0].namespace.clone();
    host.sh("nft add table inet other; nft add chain inet other c; ip route add 10.99.0.0/16 via 192.168.1.254 proto static");
    let strangers = host.sh("nft list table inet other; ip route show proto static");
    let network = lab.network(1, Kind::Plain);
    lab.service(network, WEB, Vec::new());
    lab.start(1, WEB, 0, &[network]);
    lab.start(2, WEB, 1, &[network]);
    published_beside(&mut lab);
    assert!(!lab.hosts[0].leftovers().is_empty());
    for (at, task) in [(0, 1), (1, 2), (1, 9)] {
        lab.hosts[at].remove(TaskId(task));
    }
    for host in &lab.hosts {
        let networks = host.networks();
        networks.set_swarm(crate::network::SwarmView::default());
        host.run(async move { networks.settled().await.unwrap() });
        assert_eq!(host.leftovers(), "");
    }
    assert_eq!(host.sh("nft list table inet other; ip route show proto static"), strangers);
}

/// What Docker makes of a host, and what `docs/networking.md` says to do there.
#[test]
#[ignore = "needs root and nftables"]
fn beside_a_firewall_that_drops_what_is_forwarded_its_own_chain_lets_ours_pass() {
    let mut lab = Lab::new(&[1, 1]);
    let network = lab.network(1, Kind::Plain);
    lab.service(network, WEB, Vec::new());
    lab.start(1, WEB, 0, &[network]);
    lab.start(3, WEB, 1, &[network]);
    published(&mut lab);
    for host in &lab.hosts {
        host.namespace.sh("for family in ip ip6; do nft -f - <<END
            table $family filter {
                chain DOCKER-USER { }
                chain FORWARD { type filter hook forward priority 0; policy drop; jump DOCKER-USER; }
            }
END
            done");
    }
    let passes = |lab: &Lab| {
        [
            get(&lab.inside(1), lab.address(network, 103), 80).is_ok(),
            get(&lab.inside(1), lab.address6(network, 103), 80).is_ok(),
            get(&lab.client, ip("192.168.1.1"), 8080).is_ok(),
        ]
    };
    assert_eq!(passes(&lab), [false; 3]);
    for host in &lab.hosts {
        host.namespace.sh("for family in ip ip6; do for interface in 'fk*' flok0; do
                nft insert rule $family filter DOCKER-USER iifname \"$interface\" accept
                nft insert rule $family filter DOCKER-USER oifname \"$interface\" accept
            done; done");
    }
    assert_eq!(passes(&lab), [true; 3]);
    assert!(get(&lab.inside(1), lab.tasks[&TaskId(2)].1.addresses[1], 80).is_err(), "ours still holds networks apart");
}

#[test]
#[ignore = "needs root and nftables"]
fn nftables_takes_the_table_of_any_node() {
    let host = Namespace::new();
    let subnet = "172.29.0.0/16".parse().unwrap();
    for address in [None, Some("192.168.1.1"), Some("fd77::1")] {
        let overlay =
            address.map(|address| crate::network::Overlay { node: NodeId(1), address: ip(address), port: 4789 });
        let skeleton = crate::network::skeleton::Skeleton { subnet, overlay };
        for anew in [false, false, true] {
            // A chain of another version goes, with what it led to.
            host.sh("nft 'add table inet flok; add chain inet flok other_inner; table inet flok {
                     chain other { type filter hook forward priority 0; jump other_inner; }; }'");
            let present = ["arrive", "other", "other_inner"].map(str::to_owned);
            let present = if host.sh("nft list chain inet flok arrive 2>&1 || true").contains("hook") {
                &present[..]
            } else {
                &present[1..]
            };
            let script = skeleton.script(anew, present);
            host.sh(&format!("nft -f - <<'END'\n{script}END"));
            let table = host.sh("nft list table inet flok");
            assert!(table.contains("chain arrive {") && !table.contains("chain other"));
        }
    }
}

/// Run by hand: `cargo nextest run --release --run-ignored only --no-capture measure_a_thousand`.
#[test]
#[ignore = "a measurement, by hand; needs root and nftables"]
fn measure_a_thousand_services_of_ten_tasks() {
    let mut lab = Lab::new(&[1, 1]);
    lab.start(1, WEB, 0, &[]);
    for network in 1..=100 {
        let id = lab.network(network, Kind::Plain);
        let node = lab.hosts[1].node;
        for service in 0..10u128 {
            lab.service(id, ServiceId(network * 10 + service), Vec::new());
            lab.change(id, |view| {
                for task in 0..10u128 {
                    let host = 50 + service * 10 + task;
                    let addresses = vec![ip(&format!("10.0.{network}.{host}")), ip(&format!("fd10:{network}::{host}"))];
                    let service = ServiceId(network * 10 + service);
                    let endpoint = Endpoint { service, node, addresses, names: Vec::new(), serving: true };
                    view.endpoints.insert(TaskId(network * 1000 + host), endpoint);
                }
            });
        }
    }
    #[expect(clippy::disallowed_methods, reason = "a measurement")]
    let now = std::time::Instant::now;
    let cpu = || {
        let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
        let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
        micros(usage.user_time()) + micros(usage.system_time())
    };
    let tell = |lab: &Lab, what: &str| {
        let (networks, view) = (lab.hosts[0].networks(), lab.view(0));
        let (start, used) = (now(), cpu());
        networks.set_swarm(view);
        lab.hosts[0].run(async move { networks.settled().await.unwrap() });
        println!("{what}: {:?}, CPU {:.1} ms", start.elapsed(), (cpu() - used) as f64 / 1000.0);
    };
    tell(&lab, "1,000 services x 10 tasks of two families from nothing");
    for serving in [false, true, false, true] {
        lab.change(NetworkId(7), |view| {
            let first = view.endpoints.get_min().unwrap().0;
            view.endpoints.get_mut(&first).unwrap().serving = serving;
        });
        tell(&lab, "one endpoint");
    }
    let held = now();
    lab.hosts[0].namespace.sh("nft add element inet flok members4 { 6.6.6.6 }");
    eventually("the audit", || !lab.hosts[0].table().contains("6.6.6.6"));
    println!("a stranger's element is gone after {:?}", held.elapsed());
    let used = cpu();
    lab.hosts[0].stop();
    let start = now();
    lab.hosts[0].start(&[TaskId(1)]);
    tell(&lab, "the room again, with nothing to change");
    println!("in all {:?}, CPU {:.1} ms", start.elapsed(), (cpu() - used) as f64 / 1000.0);
}
