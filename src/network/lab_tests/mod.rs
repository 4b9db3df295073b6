//! The data plane on the real kernel, across three hosts. Run by `scripts/test.sh` as root.

mod ports;
mod reachability;
mod repair;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::dispatcher::Endpoint;
use crate::network::lab::*;
use crate::spec::*;

const WEB: ServiceId = ServiceId(1);
const OTHER: ServiceId = ServiceId(2);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A server of no task's, that tells whom it sees and keeps its connections open.
fn greet(namespace: &Namespace, port: u16, name: &'static str) {
    let listener = namespace.within(move || std::net::TcpListener::bind(("::", port)).unwrap());
    std::thread::spawn(move || {
        let mut open = Vec::new();
        while let Ok((mut stream, peer)) = listener.accept() {
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            let _ = stream.write_all(format!("{name} {peer}\n").as_bytes());
            open.push(stream);
        }
    });
}

/// One network with a task of `web` on each host.
fn three_tasks(lab: &mut Lab) -> NetworkId {
    let network = lab.network(1, Kind::Plain);
    lab.service(network, WEB, Vec::new());
    for at in 0..3 {
        lab.start(1 + at as u128, WEB, at, &[network]);
    }
    network
}

/// Published on port 8080 of TCP, the one task on the second host.
fn published(lab: &mut Lab) -> NetworkId {
    let ingress = lab.network(5, Kind::Ingress);
    lab.service(ingress, WEB, vec![port(Protocol::Tcp, 8080, PublishMode::Ingress)]);
    lab.start(2, WEB, 1, &[ingress]);
    ingress
}

/// Task 9, published, on the second host beside others.
fn published_beside(lab: &mut Lab) -> NetworkId {
    let ingress = lab.network(5, Kind::Ingress);
    lab.service(ingress, OTHER, vec![port(Protocol::Tcp, 8080, PublishMode::Ingress)]);
    lab.start(9, OTHER, 1, &[ingress]);
    ingress
}

/// Elements are listed in no order that means anything, nor are chains.
fn sorted(table: &str) -> Vec<String> {
    let mut words: Vec<String> = table.split([' ', '\n', '\t', ',']).map(str::to_owned).collect();
    words.sort();
    words
}

#[test]
#[ignore = "needs root and nftables"]
fn a_lab_leaves_no_namespace_behind_even_where_its_test_fails() {
    let (tell, told) = std::sync::mpsc::channel();
    let failed = std::thread::spawn(move || {
        let mut lab = Lab::new(&[1]);
        let network = lab.network(1, Kind::Plain);
        lab.service(network, WEB, Vec::new());
        tell.send(lab.start(1, WEB, 0, &[network]).namespace).unwrap();
        panic!("as a test does that fails");
    });
    let held = told.recv().unwrap();
    assert!(failed.join().is_err());
    assert!(!held.exists() && !held.parent().unwrap().exists(), "{}", held.display());
}
