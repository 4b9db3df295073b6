//! Networks.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use bollard::models as docker;
use serde::Serialize;

use super::{date, labels_in, labels_out};
use crate::api::{ApiError, Connected, Place, Read};
use crate::spec::*;
use crate::state::{Network, Node, NodeHealth, State, Task};

/// Reads a network as a client asks for it. What it may be is the state's to say.
pub fn network_spec_from_docker(request: docker::NetworkCreateRequest) -> Result<NetworkSpec, ApiError> {
    let name = &request.name;
    let unsupported = |what: &str| Err(ApiError::NotImplemented(format!("network {name}: {what}")));
    if request.config_only == Some(true) || request.config_from.is_some_and(|from| from.network.is_some_and(given)) {
        return unsupported("config-only networks are not supported: write the configuration in the network itself");
    }
    if request.enable_ipv4 == Some(false) {
        return unsupported("a network without IPv4 is not supported: leave --ipv4=false out");
    }
    match request.scope.as_deref() {
        None | Some("" | "swarm") => {}
        Some(other) => return unsupported(&format!("scope {other:?} is not the swarm's: use swarm, or leave it out")),
    }
    let ipam = request.ipam.unwrap_or_default();
    if ipam.driver.as_deref().is_some_and(|driver| !matches!(driver, "" | "default")) {
        return unsupported("IPAM drivers are not supported: leave --ipam-driver out");
    }
    if ipam.options.is_some_and(|options| !options.is_empty()) {
        return unsupported("IPAM options are not supported: leave --ipam-opt out");
    }
    let configs = ipam.config.unwrap_or_default();
    if configs.iter().any(|config| config.auxiliary_addresses.as_ref().is_some_and(|aux| !aux.is_empty())) {
        return unsupported("auxiliary addresses are not supported: leave --aux-address out");
    }
    Ok(NetworkSpec {
        labels: labels_in(request.labels),
        driver: request.driver.filter(|driver| !driver.is_empty()).unwrap_or_else(|| "overlay".into()),
        driver_options: labels_in(request.options),
        internal: request.internal.unwrap_or(false),
        attachable: request.attachable.unwrap_or(false),
        ingress: request.ingress.unwrap_or(false),
        ipv6: request.enable_ipv6.unwrap_or(false),
        subnets: configs.into_iter().map(subnet_in).collect::<Result<_, _>>()?,
        name: request.name,
    })
}

fn given(text: String) -> bool {
    !text.is_empty()
}

fn subnet_in(config: docker::IpamConfig) -> Result<SubnetSpec, ApiError> {
    let subnet = config.subnet.filter(|text| !text.is_empty());
    Ok(SubnetSpec {
        subnet: subnet.ok_or_else(|| ApiError::invalid("an IPAM configuration needs a subnet: give --subnet"))?,
        gateway: config.gateway.filter(|text| !text.is_empty()),
        ip_range: config.ip_range.filter(|text| !text.is_empty()),
    })
}

/// A network as `GET /networks` shows it.
pub fn network_to_docker(network: &Network) -> docker::NetworkInspect {
    let spec = &network.spec;
    docker::NetworkInspect {
        name: Some(spec.name.clone()),
        id: Some(network.id.to_string()),
        created: Some(date(network.meta.created_at)),
        scope: Some("swarm".into()),
        driver: Some("overlay".into()),
        enable_ipv4: Some(true),
        enable_ipv6: Some(spec.ipv6),
        ipam: Some(docker::Ipam {
            driver: Some("default".into()),
            options: None,
            config: Some(network.parsed_subnets().map(|subnet| subnet_out(spec, &subnet)).collect()),
        }),
        internal: Some(spec.internal),
        attachable: Some(spec.attachable),
        ingress: Some(spec.ingress),
        config_from: Some(docker::ConfigReference { network: Some(String::new()) }),
        config_only: Some(false),
        options: labels_out(&spec.driver_options),
        labels: labels_out(&spec.labels),
        ..Default::default()
    }
}

/// One that each node has of its own, under its name alone.
pub fn node_network_to_docker(network: NodeNetwork) -> docker::NetworkInspect {
    docker::NetworkInspect {
        name: Some(network.name().into()),
        id: Some(network.name().into()),
        created: Some(date(UnixMs::default())),
        scope: Some("local".into()),
        driver: Some(network.driver().into()),
        enable_ipv4: Some(true),
        enable_ipv6: Some(false),
        ipam: Some(docker::Ipam { driver: Some("default".into()), options: None, config: Some(Vec::new()) }),
        internal: Some(false),
        attachable: Some(false),
        ingress: Some(false),
        config_from: Some(docker::ConfigReference { network: Some(String::new()) }),
        config_only: Some(false),
        containers: Some(HashMap::new()),
        options: Some(HashMap::new()),
        labels: Some(HashMap::new()),
        ..Default::default()
    }
}

fn subnet_out(spec: &NetworkSpec, subnet: &Subnet) -> docker::IpamConfig {
    docker::IpamConfig {
        subnet: Some(subnet.to_string()),
        ip_range: spec.subnet(subnet).and_then(|asked| asked.ip_range.clone()),
        gateway: Some(spec.gateway(subnet).to_string()),
        auxiliary_addresses: None,
    }
}

/// The services on a network and their tasks, by name: what `network inspect --verbose` shows beside the rest.
pub fn network_services(network: &Network, read: &Read) -> HashMap<String, serde_json::Value> {
    let on = |service: &&Arc<crate::state::Service>| read.state.networks_of(&service.spec.task).contains(&network.id);
    let shown = read.state.services().filter(on).map(|service| {
        let vips = service.vips.iter().filter(|vip| vip.0 == network.id).flat_map(|vip| &vip.1);
        let tasks = read.state.tasks_of_service(service.id).filter(|task| task.outcome.is_none());
        let info = docker::ServiceInfo {
            vip: Some(vips.map(IpAddr::to_string).collect::<Vec<_>>().join(", ")),
            ports: Some(service.ports.iter().filter(|_| network.spec.ingress).map(port_out).collect()),
            local_lb_index: Some(0),
            tasks: Some(tasks.filter_map(|task| task_info(network, task, &service.spec.name, read)).collect()),
        };
        (service.spec.name.clone(), serde_json::to_value(info).unwrap_or_default())
    });
    shown.collect()
}

fn port_out(port: &PortConfig) -> String {
    format!("Target: {}, Publish: {}", port.target, port.published)
}

fn task_info(network: &Network, task: &Task, service: &str, read: &Read) -> Option<docker::NetworkTaskInfo> {
    let place = task.attachments.iter().find(|place| place.network == network.id)?;
    let host = task.node.and_then(|node| read.state.node(node)).map(|node| node.description.addr.to_string());
    Some(docker::NetworkTaskInfo {
        name: Some(format!("{service}.{}.{}", task.slot, task.id)),
        endpoint_id: Some(task.id.to_string()),
        endpoint_ip: place.addresses.first().map(IpAddr::to_string),
        info: host.map(|host| HashMap::from([("Host IP".to_owned(), host)])),
    })
}

/// Those of this node's containers that are on a network of the swarm, by their ids.
pub fn endpoints(network: NetworkId, connected: &[Connected]) -> HashMap<String, docker::EndpointResource> {
    let of = |container: &Connected| {
        let place = container.places.iter().find(|place| place.id == network)?;
        Some((container.container.clone(), endpoint(container, Some(place))))
    };
    connected.iter().filter_map(of).collect()
}

/// Those on one of the node's own, where no address means anything elsewhere.
pub fn endpoints_of_node(network: NodeNetwork, connected: &[Connected]) -> HashMap<String, docker::EndpointResource> {
    let on = connected.iter().filter(|container| container.of_node == Some(network));
    on.map(|container| (container.container.clone(), endpoint(container, None))).collect()
}

fn endpoint(container: &Connected, place: Option<&Place>) -> docker::EndpointResource {
    let address = |ipv6: bool| {
        let mut addresses = place.into_iter().flat_map(|place| &place.addresses);
        let found = addresses.find(|(address, _)| address.is_ipv6() == ipv6);
        found.map(|(address, prefix)| format!("{address}/{prefix}")).unwrap_or_default()
    };
    docker::EndpointResource {
        name: Some(container.name.clone()),
        endpoint_id: Some(container.container.clone()),
        mac_address: Some(place.map(|place| place.mac.clone()).unwrap_or_default()),
        ipv4_address: Some(address(false)),
        ipv6_address: Some(address(true)),
    }
}

/// The nodes that a network reaches: those with tasks on it, and of the ingress network all that are up. Named as Docker
/// names them, by host name and the beginning of an id.
pub fn peers(network: &Network, state: &State) -> Vec<docker::PeerInfo> {
    let on = |task: &&Arc<Task>| task.is_live() && task.attachments.iter().any(|place| place.network == network.id);
    let used: BTreeSet<NodeId> = state.tasks().filter(on).filter_map(|task| task.node).collect();
    let reached =
        |node: &&Arc<Node>| used.contains(&node.id) || (network.spec.ingress && node.health == NodeHealth::Up);
    let peer = |node: &Arc<Node>| docker::PeerInfo {
        name: Some(format!("{}-{}", node.description.hostname, short_id(&node.id.to_string()))),
        ip: Some(node.description.addr.to_string()),
    };
    state.nodes().filter(reached).map(peer).collect()
}

/// An address with the prefix of its subnet, as Docker's clients read them.
pub fn cidr(state: &State, network: NetworkId, addr: IpAddr) -> String {
    let subnets = state.network(network).into_iter().flat_map(|network| network.parsed_subnets());
    let prefix = subnets.into_iter().find(|subnet| subnet.contains(addr)).map(|subnet| subnet.prefix());
    format!("{addr}/{}", prefix.unwrap_or(if addr.is_ipv4() { 32 } else { 128 }))
}

/// A task's place on a network, for which the models have no type.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AttachmentShown {
    network: AttachedNetwork,
    addresses: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct AttachedNetwork {
    #[serde(rename = "ID")]
    id: String,
    version: Option<docker::ObjectVersion>,
    created_at: String,
    updated_at: String,
    spec: AttachedSpec,
    driver_state: Driver,
    #[serde(rename = "IPAMOptions")]
    ipam_options: IpamOptions,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct AttachedSpec {
    name: String,
    labels: Labels,
    driver_configuration: Driver,
    attachable: bool,
    ingress: bool,
    internal: bool,
    #[serde(rename = "IPv6Enabled")]
    ipv6_enabled: bool,
    scope: &'static str,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Driver {
    name: &'static str,
    options: Labels,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct IpamOptions {
    driver: Driver,
    configs: Vec<docker::IpamConfig>,
}

pub fn attachment_to_docker(attachment: &Attachment, state: &State) -> Option<AttachmentShown> {
    let network = state.network(attachment.network)?;
    let spec = &network.spec;
    let driver = Driver { name: "overlay", options: spec.driver_options.clone() };
    Some(AttachmentShown {
        network: AttachedNetwork {
            id: network.id.to_string(),
            version: super::version(network.meta.version),
            created_at: date(network.meta.created_at),
            updated_at: date(network.meta.updated_at),
            spec: AttachedSpec {
                name: spec.name.clone(),
                labels: spec.labels.clone(),
                driver_configuration: driver.clone(),
                attachable: spec.attachable,
                ingress: spec.ingress,
                internal: spec.internal,
                ipv6_enabled: spec.ipv6,
                scope: "swarm",
            },
            driver_state: driver,
            ipam_options: IpamOptions {
                driver: Driver { name: "default", options: Labels::new() },
                configs: network.parsed_subnets().map(|subnet| subnet_out(spec, &subnet)).collect(),
            },
        },
        addresses: attachment.addresses.iter().map(|addr| cidr(state, network.id, *addr)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> Result<NetworkSpec, ApiError> {
        network_spec_from_docker(serde_json::from_value(json).expect("it is of the model's shape"))
    }

    #[test]
    fn what_dockers_clients_send_is_read() {
        let spec = read(serde_json::json!({
            "Name": "back", "Driver": "overlay", "Scope": "", "EnableIPv4": true, "EnableIPv6": true, "Internal": true,
            "Attachable": true, "Ingress": false, "ConfigOnly": false, "ConfigFrom": {"Network": ""},
            "IPAM": {"Driver": "default", "Options": {}, "Config": [
                {"Subnet": "10.5.0.0/24", "IPRange": "10.5.0.128/25", "Gateway": "10.5.0.1", "AuxiliaryAddresses": {}}]},
            "Options": {"com.docker.network.driver.mtu": "1400"}, "Labels": {"a": "b"},
        }));
        let spec = spec.unwrap();
        assert_eq!(
            (spec.name.as_str(), spec.driver.as_str(), spec.internal, spec.ipv6),
            ("back", "overlay", true, true)
        );
        let range = Some("10.5.0.128/25".into());
        let gateway = Some("10.5.0.1".into());
        assert_eq!(spec.subnets, [SubnetSpec { subnet: "10.5.0.0/24".into(), gateway, ip_range: range }]);
        assert_eq!(spec.driver_options["com.docker.network.driver.mtu"], "1400");

        let least = read(serde_json::json!({"Name": "back", "IPAM": null})).unwrap();
        assert_eq!((least.driver.as_str(), least.subnets.len(), least.ipv6), ("overlay", 0, false));
    }

    #[test]
    fn places_on_networks_are_shown_as_dockers_clients_read_them() {
        use crate::state::fixture::{Fixture, attach_to, node};
        let mut swarm = Fixture::nodes(1);
        let net = swarm.network("back", &["10.5.0.0/16", "fd00:5::/64"]);
        let web = swarm.service("web", 1, |spec| spec.task.networks = vec![attach_to(net)]);
        swarm.give_vips(web);
        let task = swarm.running(web, 1, node(1));
        let state = Arc::new(swarm.state.clone());
        let read = Read { state, observed: Default::default(), leader: None, stale: None };

        let service = crate::api::convert::service_to_docker(swarm.state.service(web).unwrap(), &swarm.state);
        let shown = serde_json::to_value(&service).unwrap();
        let id = net.to_string();
        assert_eq!(
            shown["Endpoint"]["VirtualIPs"],
            serde_json::json!([{"NetworkID": id, "Addr": "10.5.0.2/16"}, {"NetworkID": id, "Addr": "fd00:5::2/64"}])
        );
        let shown = crate::api::convert::task_to_docker(swarm.state.task(task).unwrap(), &read);
        let shown = serde_json::to_value(&shown).unwrap();
        let place = &shown["NetworksAttachments"][0];
        assert_eq!((shown["ID"].as_str(), place["Network"]["ID"].as_str()), (Some(&*task.to_string()), Some(&*id)));
        assert_eq!(place["Network"]["Spec"]["Name"], "back");
        assert_eq!(place["Addresses"], serde_json::json!(["10.5.0.3/16", "fd00:5::3/64"]));
        let gateway = &place["Network"]["IPAMOptions"]["Configs"][0];
        assert_eq!((&gateway["Subnet"], &gateway["Gateway"]), (&"10.5.0.0/16".into(), &"10.5.0.1".into()));

        let services = network_services(swarm.state.network(net).unwrap(), &read);
        let tasks = &services["web"]["Tasks"];
        assert_eq!(
            (tasks[0]["EndpointIP"].as_str(), services["web"]["VIP"].as_str()),
            (Some("10.5.0.3"), Some("10.5.0.2, fd00:5::2"))
        );
        assert_eq!(tasks[0]["Info"]["Host IP"], "10.99.0.1");
    }

    #[test]
    fn a_networks_containers_and_its_nodes_are_shown_as_docker_shows_them() {
        use crate::state::fixture::{Fixture, attach_to, node};
        let mut swarm = Fixture::nodes(3);
        let (net, other) = (swarm.network("back", &["10.5.0.0/16"]), swarm.network("front", &["10.6.0.0/16"]));
        let web = swarm.service("web", 2, |spec| spec.task.networks = vec![attach_to(net)]);
        swarm.running(web, 1, node(1));
        swarm.running(web, 2, node(3));
        let nodes = |network| {
            let peers = peers(swarm.state.network(network).unwrap(), &swarm.state);
            peers.into_iter().map(|peer| (peer.name.unwrap(), peer.ip.unwrap())).collect::<Vec<_>>()
        };
        let peer = |at: u128| {
            let node = swarm.state.node(node(at)).unwrap();
            let name = format!("{}-{}", node.description.hostname, &node.id.to_string()[..12]);
            (name, node.description.addr.to_string())
        };
        assert_eq!((nodes(net), nodes(other)), (vec![peer(1), peer(3)], vec![]));

        let place = |id, mac: &str, addresses: &[&str]| Place {
            id,
            name: String::new(),
            addresses: addresses.iter().map(|address| (address.parse().unwrap(), 16)).collect(),
            aliases: Vec::new(),
            mac: mac.into(),
        };
        let container = |id: &str, of_node, places| Connected {
            container: id.into(),
            name: format!("task-of-{id}"),
            of_node,
            places,
        };
        let connected = [
            container("c1", None, vec![place(other, "m", &["10.6.0.3"]), place(net, "m", &["fd00::3", "10.5.0.3"])]),
            container("c2", Some(NodeNetwork::Host), vec![]),
        ];
        let shown = serde_json::to_value(endpoints(net, &connected)).unwrap();
        let (ipv4, ipv6) = ("10.5.0.3/16", "fd00::3/16");
        let endpoint = serde_json::json!({"Name": "task-of-c1", "EndpointID": "c1", "MacAddress": "m", "IPv4Address": ipv4,
            "IPv6Address": ipv6});
        assert_eq!(shown, serde_json::json!({ "c1": endpoint }));
        let of_node = |network| endpoints_of_node(network, &connected).into_keys().collect::<Vec<_>>();
        assert_eq!((of_node(NodeNetwork::Host), of_node(NodeNetwork::Bridge)), (vec!["c2".to_owned()], vec![]));
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (field, value, part) in [
            ("ConfigOnly", serde_json::json!(true), "config-only"),
            ("EnableIPv4", serde_json::json!(false), "without IPv4"),
            ("Scope", serde_json::json!("local"), "scope \"local\""),
            ("IPAM", serde_json::json!({"Driver": "dhcp"}), "IPAM drivers"),
            ("IPAM", serde_json::json!({"Options": {"a": "b"}}), "IPAM options"),
            ("IPAM", serde_json::json!({"Config": [{"Gateway": "10.0.0.1"}]}), "needs a subnet"),
            ("IPAM", serde_json::json!({"Config": [{"AuxiliaryAddresses": {"a": "10.0.0.1"}}]}), "auxiliary"),
        ] {
            let mut json = serde_json::json!({"Name": "back"});
            json[field] = value;
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(part), "{field}: {error}");
        }
    }
}
