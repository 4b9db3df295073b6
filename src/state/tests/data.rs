use super::words;
use crate::spec::*;
use crate::state::fixture::*;
use crate::state::*;

fn secret_spec(name: &str) -> SecretSpec {
    SecretSpec { name: name.into(), labels: Labels::new(), data: SecretBytes(vec![1]), templating: None }
}

fn config_spec(name: &str) -> ConfigSpec {
    ConfigSpec { name: name.into(), labels: Labels::new(), data: vec![1], templating: None }
}

fn network_spec(name: &str) -> NetworkSpec {
    NetworkSpec {
        name: name.into(),
        labels: Labels::new(),
        driver: "overlay".into(),
        driver_options: Labels::new(),
        internal: false,
        attachable: false,
        ingress: false,
        ipv6: false,
        subnets: Vec::new(),
    }
}

fn file(name: &str) -> FileTarget {
    FileTarget { name: name.into(), uid: "0".into(), gid: "0".into(), mode: 0o444 }
}

fn attachment(target: NetworkTarget) -> NetworkAttachment {
    NetworkAttachment { target, aliases: Vec::new(), driver_options: Labels::new() }
}

#[test]
fn a_secret_in_use_stays() {
    let mut swarm = Fixture::nodes(1);
    let id = SecretId(1);
    swarm.command(Command::CreateSecret { id, spec: secret_spec("key") });
    let reference = SecretReference { id, name: "key".into(), file: file("key"), data_version: DataVersion(0) };
    let web = swarm.service("web", 1, |spec| spec.task.container.secrets = vec![reference]);
    let refused = words(swarm.try_command(Command::RemoveSecret { id }));
    assert_eq!(refused, "secret 'key' is in use by the following service: web");
    swarm.command(Command::RemoveService { id: web });
    swarm.command(Command::RemoveSecret { id });
    swarm.command(Command::CreateSecret { id: SecretId(2), spec: secret_spec("key") });
}

#[test]
fn of_secrets_and_configs_only_labels_change() {
    let mut swarm = Fixture::nodes(1);
    let (secret, config) = (SecretId(1), ConfigId(1));
    swarm.command(Command::CreateSecret { id: secret, spec: secret_spec("key") });
    swarm.command(Command::CreateConfig { id: config, spec: config_spec("conf") });
    let version = swarm.state.secret(secret).unwrap().meta.version;
    let labels = Labels::from([("a".to_string(), "b".to_string())]);
    let labelled = SecretSpec { labels: labels.clone(), ..secret_spec("key") };
    swarm.command(Command::UpdateSecret { id: secret, version, spec: labelled.clone() });
    assert_eq!(swarm.state.secret(secret).unwrap().spec, labelled);
    let again = Command::UpdateSecret { id: secret, version, spec: labelled };
    assert_eq!(words(swarm.try_command(again)), "update out of sequence");

    let version = swarm.state.config(config).unwrap().meta.version;
    let spec = ConfigSpec { data: vec![2], labels, ..config_spec("conf") };
    let refused = swarm.try_command(Command::UpdateConfig { id: config, version, spec });
    assert_eq!(words(refused), "only updates to Labels are allowed");
}

#[test]
fn names_of_data_and_networks_are_taken_once() {
    let mut swarm = Fixture::nodes(1);
    let creations: [fn(u128) -> Command; 3] = [
        |id| Command::CreateSecret { id: SecretId(id), spec: secret_spec("same") },
        |id| Command::CreateConfig { id: ConfigId(id), spec: config_spec("same") },
        |id| Command::CreateNetwork { id: NetworkId(id), spec: network_spec("same") },
    ];
    for create in creations {
        swarm.command(create(1));
        assert!(matches!(swarm.try_command(create(2)), Err(Refusal::AlreadyExists(_))));
    }
}

#[test]
fn a_service_names_only_what_exists() {
    let mut swarm = Fixture::nodes(1);
    let create = |adjust: fn(&mut ServiceSpec)| {
        let mut spec = service_spec("web", 1);
        adjust(&mut spec);
        Command::CreateService { id: ServiceId(1), spec: Box::new(spec), credentials: None }
    };
    let secret = create(|spec| {
        let reference =
            SecretReference { id: SecretId(9), name: "key".into(), file: file("key"), data_version: DataVersion(0) };
        spec.task.container.secrets = vec![reference];
    });
    assert_eq!(words(swarm.try_command(secret)), "secret not found: key");
    let network = create(|spec| spec.task.networks = vec![attachment(NetworkTarget::Name("back".into()))]);
    assert_eq!(words(swarm.try_command(network)), "network back not found");
}

#[test]
fn a_network_is_stored_by_its_id_and_attached_once() {
    let mut swarm = Fixture::nodes(1);
    let id = NetworkId(4);
    swarm.command(Command::CreateNetwork { id, spec: network_spec("back") });
    let by_name = attachment(NetworkTarget::Name("back".into()));
    let web = swarm.service("web", 1, |spec| spec.task.networks = vec![by_name.clone()]);
    let stored = &swarm.state.service(web).unwrap().spec.task.networks;
    assert_eq!(stored[0].target, NetworkTarget::Id(id));

    let mut twice = service_spec("twice", 1);
    twice.task.networks = vec![by_name, attachment(NetworkTarget::Id(id))];
    let create = Command::CreateService { id: ServiceId(1), spec: Box::new(twice), credentials: None };
    assert_eq!(words(swarm.try_command(create)), "a network is attached twice");
}

#[test]
fn a_network_goes_once_its_services_are_gone_though_their_tasks_still_stop() {
    let mut swarm = Fixture::nodes(1);
    let id = NetworkId(4);
    swarm.command(Command::CreateNetwork { id, spec: network_spec("back") });
    let web = swarm.service("web", 1, |spec| spec.task.networks = vec![attachment(NetworkTarget::Id(id))]);
    let task = swarm.running(web, 1, node(1));
    let remove = || Command::RemoveNetwork { id };
    assert_eq!(words(swarm.try_command(remove())), "network back is in use by service web");
    swarm.update(web, |spec| spec.task.networks.clear());
    assert_eq!(words(swarm.try_command(remove())), format!("network back is in use by task {task}"));
    swarm.command(Command::RemoveService { id: web });
    swarm.command(remove());
    assert!(swarm.state.task(task).is_some());
}

#[test]
fn no_address_belongs_to_two_networks() {
    let mut swarm = Fixture::nodes(1);
    let subnet = |text: &str| SubnetSpec { subnet: text.into(), gateway: None, ip_range: None };
    let spec = NetworkSpec { subnets: vec![subnet("10.5.0.0/16")], ..network_spec("a") };
    swarm.command(Command::CreateNetwork { id: NetworkId(1), spec });
    assert_eq!(swarm.state.network(NetworkId(1)).unwrap().subnets, ["10.5.0.0/16"]);
    let spec = NetworkSpec { subnets: vec![subnet("10.5.9.0/24")], ..network_spec("b") };
    let refused = words(swarm.try_command(Command::CreateNetwork { id: NetworkId(2), spec }));
    assert!(refused.starts_with("subnet 10.5.9.0/24 overlaps with 10.5.0.0/16 of network a: Pool over"), "{refused}");
    let spec = NetworkSpec { subnets: vec![subnet("10.99.0.0/24")], ..network_spec("b") };
    let refused = words(swarm.try_command(Command::CreateNetwork { id: NetworkId(2), spec }));
    assert!(refused.contains("holds the address 10.99.0.1 of node node-1"), "{refused}");
    swarm.command(Command::CreateNetwork { id: NetworkId(2), spec: network_spec("b") });
    let allocate = |text: &str| Change::SetNetworkSubnets { network: NetworkId(2), subnets: vec![text.into()] };
    assert!(swarm.state.apply_change(&allocate("10.0.0.0/8"), UnixMs(1)).is_err());
    swarm.change(allocate("10.6.0.0/24"));
}

#[test]
fn there_is_one_ingress_network_and_it_stays_while_ports_need_it() {
    let mut swarm = Fixture::nodes(1);
    let first = swarm.state.ingress_network().expect("a swarm begins with one").id;
    let ingress = |name: &str| NetworkSpec { ingress: true, ..network_spec(name) };
    let second = Command::CreateNetwork { id: NetworkId(2), spec: ingress("other") };
    assert_eq!(words(swarm.try_command(second)), "ingress network (ingress) is already present");
    swarm.command(Command::RemoveNetwork { id: first });
    let mut published = service_spec("early", 1);
    published.endpoint.ports = vec![PortConfig { mode: PublishMode::Ingress, ..host_port(80, 80) }];
    let early = Command::CreateService { id: ServiceId(1), spec: Box::new(published), credentials: None };
    assert!(words(swarm.try_command(early)).contains("no ingress network is present"));
    swarm.command(Command::CreateNetwork { id: NetworkId(1), spec: ingress("mine") });
    assert_eq!(swarm.state.ingress_network().map(|network| network.id), Some(NetworkId(1)));
    swarm.service("web", 1, |spec| {
        spec.endpoint.ports = vec![PortConfig { mode: PublishMode::Ingress, ..host_port(80, 80) }];
    });
    let refused = words(swarm.try_command(Command::RemoveNetwork { id: NetworkId(1) }));
    assert!(refused.contains("depends on it"), "{refused}");
}
