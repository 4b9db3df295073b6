use std::net::IpAddr;

use super::words;
use crate::spec::*;
use crate::state::fixture::*;
use crate::state::*;

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A service of two replicas on one network with both families, and its first task, which waits.
fn waiting() -> (Fixture, NetworkId, ServiceId, TaskId) {
    let mut swarm = Fixture::nodes(1);
    let net = swarm.network("net", &["10.5.0.0/24", "fd00:5::/64"]);
    let web = swarm.service("web", 2, |spec| spec.task.networks = vec![attach_to(net)]);
    let task = swarm.pending(web, 1);
    (swarm, net, web, task)
}

fn assign(swarm: &Fixture, task: TaskId, attachments: Vec<(NetworkId, &[&str])>) -> Result<(), Refusal> {
    let place = |(network, addresses): (NetworkId, &[&str])| Attachment {
        network,
        addresses: addresses.iter().map(|text| addr(text)).collect(),
        aliases: Vec::new(),
    };
    let attachments = attachments.into_iter().map(place).collect();
    let (host_ports, generic) = (Vec::new(), Vec::new());
    let placed = Placed { task, node: node(1), host_ports, generic, attachments };
    swarm.state.clone().apply_change(&Change::Assign(Box::new(placed)), swarm.now)
}

#[test]
fn a_task_gets_addresses_of_its_networks_and_no_others() {
    let (mut swarm, net, _, task) = waiting();
    let other = swarm.network("other", &["10.6.0.0/24"]);
    assert_eq!(assign(&swarm, task, vec![(net, &["10.5.0.9", "fd00:5::9"])]), Ok(()));
    let refused = |attachments: Vec<(NetworkId, &[&str])>| assign(&swarm, task, attachments).unwrap_err().to_string();
    assert!(refused(vec![]).contains("other networks than it was given"));
    assert!(refused(vec![(other, &["10.6.0.9"])]).contains("other networks than it was given"));
    assert!(refused(vec![(net, &["10.5.0.9"]), (net, &["10.5.0.8"])]).contains("other networks than it was given"));
    assert!(refused(vec![(net, &["10.6.0.9"])]).contains("network net: 10.6.0.9 is in none of its subnets"));
    assert!(refused(vec![(net, &["10.5.0.8", "10.5.0.9"])]).contains("one of several addresses"));
    for kept in ["10.5.0.0", "10.5.0.1", "10.5.0.255", "fd00:5::", "fd00:5::1"] {
        assert!(refused(vec![(net, &[kept])]).contains("is kept for the network itself"), "{kept}");
    }
}

#[test]
fn no_address_is_given_twice_until_it_is_free_again() {
    let (mut swarm, net, web, first) = waiting();
    swarm.give_vips(web);
    let vip = swarm.state.service(web).unwrap().vips[0].1[0];
    swarm.assign(first, node(1));
    let held = swarm.state.task(first).unwrap().attachments[0].addresses[0];
    assert_eq!(swarm.state.address_holder(held), Some(&AddressHolder { network: net, user: AddressUser::Task(first) }));

    let second = swarm.pending(web, 2);
    let refused = assign(&swarm, second, vec![(net, &[&held.to_string()])]).unwrap_err().to_string();
    assert_eq!(refused, format!("network net: {held} belongs to task {first}"));
    let refused = assign(&swarm, second, vec![(net, &[&vip.to_string()])]).unwrap_err().to_string();
    assert_eq!(refused, format!("network net: {vip} belongs to service {web}"));
    let other = swarm.service("other", 0, |spec| spec.task.networks = vec![attach_to(net)]);
    let taken = Change::SetServiceVips { service: other, vips: vec![(net, vec![held])] };
    assert!(swarm.state.apply_change(&taken, swarm.now).is_err());

    swarm.set_desired(first, DesiredState::Shutdown);
    assert!(swarm.state.address_holder(held).is_some(), "it may still run");
    swarm.finish(first, TaskState::Shutdown);
    assert_eq!(assign(&swarm, second, vec![(net, &[&held.to_string()])]), Ok(()));
}

#[test]
fn virtual_addresses_are_of_the_services_own_networks() {
    let (mut swarm, net, web, _) = waiting();
    let other = swarm.network("other", &["10.6.0.0/24"]);
    let mut set = |vips| swarm.state.apply_change(&Change::SetServiceVips { service: web, vips }, UnixMs(1));
    assert!(set(vec![(other, vec![addr("10.6.0.9")])]).is_err());
    assert!(set(vec![(net, vec![addr("10.5.0.1")])]).is_err());
    assert!(set(vec![(net, vec![addr("10.5.0.8")]), (net, vec![addr("10.5.0.9")])]).is_err());
    assert!(set(vec![(net, vec![addr("10.5.0.9"), addr("fd00:5::9")])]).is_ok());
    assert!(set(vec![(net, vec![addr("10.5.0.9")])]).is_ok(), "its own is not taken");
    assert_eq!(swarm.state.address_holder(addr("fd00:5::9")), None);
}

#[test]
fn a_subnet_in_use_stays() {
    let mut swarm = Fixture::nodes(1);
    let net = swarm.network("net", &[]);
    let set = |subnets: &[&str]| Change::SetNetworkSubnets {
        network: net,
        subnets: subnets.iter().map(|subnet| (*subnet).into()).collect(),
    };
    swarm.change(set(&["10.5.0.0/24", "10.6.0.0/24"]));
    assert!(swarm.state.apply_change(&set(&["10.5.0.0/24", "10.5.0.0/16"]), UnixMs(1)).is_err());
    let web = swarm.service("web", 1, |spec| {
        spec.task.networks = vec![attach_to(net)];
    });
    swarm.change(Change::SetServiceVips { service: web, vips: vec![(net, vec![addr("10.5.0.9")])] });
    let refused = swarm.state.apply_change(&set(&["10.6.0.0/24"]), UnixMs(1)).unwrap_err().to_string();
    assert_eq!(refused, "subnet 10.5.0.0/24 of network net is in use");
    swarm.change(set(&["10.5.0.0/24"]));
    assert_eq!(swarm.state.overlapping(&"10.6.0.0/16".parse().unwrap()), None);
    assert_eq!(swarm.state.overlapping(&"10.0.0.0/8".parse().unwrap()), Some(("10.5.0.0/24".parse().unwrap(), net)));
}

#[test]
fn allocated_ports_are_those_that_were_asked_for() {
    let mut swarm = Fixture::nodes(1);
    let open = PortConfig { mode: PublishMode::Ingress, ..host_port(0, 80) };
    let web = swarm.service("web", 1, |spec| spec.endpoint.ports = vec![open.clone(), open.clone()]);
    let port = |published| PortConfig { published, ..open.clone() };
    let mut set = |ports| swarm.state.apply_change(&Change::SetServicePorts { service: web, ports }, UnixMs(1));
    assert!(set(vec![port(30_001)]).is_err());
    assert!(set(vec![port(30_001), PortConfig { target: 81, ..port(30_002) }]).is_err());
    assert!(set(vec![port(30_001), port(30_002)]).is_ok());
    swarm.update(web, |spec| spec.task.force_update += 1);
    let kept: Vec<u16> = swarm.state.service(web).unwrap().ports.iter().map(|port| port.published).collect();
    assert_eq!(kept, [30_001, 30_002], "each keeps its own");
}

#[test]
fn the_data_path_port_is_fixed() {
    let mut swarm = Fixture::nodes(1);
    let version = swarm.state.swarm().unwrap().meta.version;
    let spec = SwarmSpec { data_path_port: 4790, ..SwarmSpec::default() };
    let refused = words(swarm.try_command(Command::UpdateSwarm { version, spec, unlock_key: None }));
    assert_eq!(refused, "the data path port is fixed when the swarm is made");
}
