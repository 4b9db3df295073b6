use std::sync::Arc;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use super::*;
use crate::dispatcher::{Endpoint, NetworkView, Networks, ServiceView};
use crate::spec::{NodeId, ServiceId, TaskId};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn service(name: &str, aliases: &[&str], vips: &[&str]) -> ServiceView {
    let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
    ServiceView { name: name.into(), aliases, vips: vips.iter().map(|vip| ip(vip)).collect(), ports: Vec::new() }
}

fn task(service: u128, addresses: &[&str], names: &[&str], serving: bool) -> Endpoint {
    Endpoint {
        service: ServiceId(service),
        node: NodeId(1),
        addresses: addresses.iter().map(|address| ip(address)).collect(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        serving,
    }
}

fn network(
    name: &str,
    subnets: &[&str],
    services: Vec<(u128, ServiceView)>,
    tasks: Vec<(u128, Endpoint)>,
) -> NetworkView {
    NetworkView {
        mtu: None,
        name: name.into(),
        subnets: subnets.iter().map(|subnet| subnet.parse().unwrap()).collect(),
        internal: false,
        ingress: false,
        services: services.into_iter().map(|(id, service)| (ServiceId(id), service)).collect(),
        endpoints: tasks.into_iter().map(|(id, task)| (TaskId(id), task)).collect(),
    }
}

/// Two stacks, `shop` and `blog`, each with a `web`, that share the network `front`.
fn networks() -> Networks {
    let shop = network(
        "shop_default",
        &["10.0.1.0/24", "fd00:1::/64"],
        vec![
            (1, service("shop_web", &["web", "www"], &["10.0.1.2", "fd00:1::2"])),
            (2, service("shop_db", &["db"], &[])),
            (3, service("shop_idle", &["idle"], &["10.0.1.9"])),
        ],
        vec![
            (11, task(1, &["10.0.1.11", "fd00:1::11"], &["abc123", "shop_web.1.t11"], true)),
            (12, task(1, &["10.0.1.12"], &["def456", "shop_web.2.t12"], false)),
            (13, task(2, &["10.0.1.13"], &["db", "shop_db.1.t13"], true)),
            (14, task(2, &["10.0.1.14"], &["db", "shop_db.2.t14"], true)),
            (15, task(3, &["10.0.1.15"], &["idle1", "shop_idle.1.t15"], false)),
        ],
    );
    let front = network(
        "front",
        &["10.0.2.0/24"],
        vec![
            (1, service("shop_web", &["web"], &["10.0.2.2"])),
            (4, service("blog_web", &["web"], &["10.0.2.3"])),
            (5, service("Proxy", &[], &["10.0.2.4"])),
        ],
        vec![
            (11, task(1, &["10.0.2.11"], &["abc123", "shop_web.1.t11"], true)),
            (41, task(4, &["10.0.2.41"], &["fff", "blog_web.1.t41"], true)),
            (51, task(5, &["10.0.2.51"], &["edge", "Proxy.1.t51"], true)),
        ],
    );
    let list = [(NetworkId(1), Arc::new(shop)), (NetworkId(2), Arc::new(front))];
    Networks { list: list.into_iter().collect() }
}

fn zone() -> Zone {
    let mut zone = Zone::default();
    zone.apply(NetworksUpdate::snapshot(&networks())).unwrap();
    zone
}

fn client(networks: &[u128], stack: Option<&str>) -> Client {
    Client {
        networks: networks.iter().map(|id| NetworkId(*id)).collect(),
        stack: stack.map(str::to_owned),
        servers: Vec::new(),
    }
}

fn ask(zone: &Zone, client: &Client, name: &str, kind: Kind) -> Answer {
    let mut answer = zone.answer(client, name, kind, &mut ChaCha8Rng::seed_from_u64(1));
    if let Answer::Addresses { addresses, .. } = &mut answer {
        addresses.sort();
    }
    answer
}

fn addresses(texts: &[&str], ttl: u32) -> Answer {
    Answer::Addresses { addresses: texts.iter().map(|text| ip(text)).collect(), ttl }
}

#[test]
fn a_service_is_found_by_each_of_its_names() {
    let (zone, shop) = (zone(), client(&[1], Some("shop")));
    for name in ["web", "www", "shop_web", "web.shop", "shop_web.shop_default", "web.shop_default"] {
        assert_eq!(ask(&zone, &shop, name, Kind::A), addresses(&["10.0.1.2"], VIP_TTL_SECONDS), "{name}");
        assert_eq!(ask(&zone, &shop, name, Kind::Aaaa), addresses(&["fd00:1::2"], VIP_TTL_SECONDS), "{name}");
    }
}

#[test]
fn tasks_are_found_by_their_services_name_and_by_their_own() {
    let (zone, shop) = (zone(), client(&[1], Some("shop")));
    for name in ["tasks.web", "tasks.shop_web", "tasks.web.shop", "tasks.shop_web.shop_default", "abc123"] {
        assert_eq!(ask(&zone, &shop, name, Kind::A), addresses(&["10.0.1.11"], TASK_TTL_SECONDS), "{name}");
    }
    assert_eq!(ask(&zone, &shop, "shop_web.1.t11", Kind::Aaaa), addresses(&["fd00:1::11"], TASK_TTL_SECONDS));
}

#[test]
fn without_a_virtual_ip_a_services_name_means_its_tasks_in_a_changing_order() {
    let (zone, shop) = (zone(), client(&[1], None));
    assert_eq!(ask(&zone, &shop, "db", Kind::A), addresses(&["10.0.1.13", "10.0.1.14"], TASK_TTL_SECONDS));
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut firsts = std::collections::BTreeSet::new();
    for _ in 0..32 {
        let Answer::Addresses { addresses, .. } = zone.answer(&shop, "db", Kind::A, &mut rng) else { panic!() };
        firsts.insert(addresses[0]);
    }
    assert_eq!(firsts.len(), 2);
}

#[test]
fn what_does_not_serve_is_known_and_has_no_data() {
    let (zone, shop) = (zone(), client(&[1], None));
    for name in ["idle", "shop_idle", "tasks.idle", "idle1", "def456"] {
        assert_eq!(ask(&zone, &shop, name, Kind::A), Answer::NoData, "{name}");
    }
    assert_eq!(ask(&zone, &shop, "db", Kind::Aaaa), Answer::NoData);
    assert_eq!(ask(&zone, &shop, "web", Kind::Other), Answer::NoData);
}

#[test]
fn names_of_other_networks_are_not_known() {
    let (zone, blog) = (zone(), client(&[2], Some("blog")));
    for name in ["db", "shop_db", "tasks.db", "shop_db.1.t13", "web.shop_default", "example.com", "localhost"] {
        assert_eq!(ask(&zone, &blog, name, Kind::A), Answer::Elsewhere, "{name}");
    }
    assert_eq!(ask(&zone, &client(&[], None), "web", Kind::A), Answer::Elsewhere);
    assert_eq!(ask(&zone, &client(&[99], None), "web", Kind::A), Answer::Elsewhere);
}

#[test]
fn a_short_name_means_the_own_stacks_service_and_else_all_of_that_name() {
    let zone = zone();
    let vip = |stack| ask(&zone, &client(&[2], stack), "web", Kind::A);
    assert_eq!(vip(Some("blog")), addresses(&["10.0.2.3"], VIP_TTL_SECONDS));
    assert_eq!(vip(Some("shop")), addresses(&["10.0.2.2"], VIP_TTL_SECONDS));
    assert_eq!(vip(None), addresses(&["10.0.2.2", "10.0.2.3"], VIP_TTL_SECONDS));
}

#[test]
fn of_several_networks_the_first_with_data_answers() {
    let zone = zone();
    let both = client(&[2, 1], Some("shop"));
    assert_eq!(ask(&zone, &both, "web", Kind::A), addresses(&["10.0.2.2"], VIP_TTL_SECONDS));
    assert_eq!(ask(&zone, &both, "web", Kind::Aaaa), addresses(&["fd00:1::2"], VIP_TTL_SECONDS));
}

#[test]
fn names_in_specs_have_no_case() {
    assert_eq!(ask(&zone(), &client(&[2], None), "proxy", Kind::A), addresses(&["10.0.2.4"], VIP_TTL_SECONDS));
}

#[test]
fn addresses_have_names_and_those_of_no_one_are_not_asked_elsewhere() {
    let (zone, shop) = (zone(), client(&[1], None));
    let named = |name: &str| Answer::Name { name: name.into(), ttl: TASK_TTL_SECONDS };
    assert_eq!(ask(&zone, &shop, "11.1.0.10.in-addr.arpa", Kind::Ptr), named("shop_web.1.t11.shop_default"));
    assert_eq!(ask(&zone, &shop, "2.1.0.10.in-addr.arpa", Kind::Ptr), named("shop_web.shop_default"));
    let v6 = "1.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa";
    assert_eq!(ask(&zone, &shop, v6, Kind::Ptr), named("shop_web.1.t11.shop_default"));
    assert_eq!(ask(&zone, &shop, "200.1.0.10.in-addr.arpa", Kind::Ptr), Answer::NoSuchName);
    assert_eq!(ask(&zone, &shop, "11.1.0.10.in-addr.arpa", Kind::A), Answer::NoData);
    assert_eq!(ask(&zone, &shop, "11.2.0.10.in-addr.arpa", Kind::Ptr), Answer::Elsewhere);
    for name in ["1.0.10.in-addr.arpa", "300.1.0.10.in-addr.arpa", "1.2.1.0.10.in-addr.arpa", "in-addr.arpa"] {
        assert_eq!(ask(&zone, &shop, name, Kind::Ptr), Answer::Elsewhere, "{name}");
    }
}

#[test]
fn an_address_is_reversed_as_its_name_says() {
    let (zone, shop) = (zone(), client(&[1], None));
    let name = ask(&zone, &shop, "11.1.0.10.in-addr.arpa", Kind::Ptr);
    let Answer::Name { name, .. } = name else { panic!("{name:?}") };
    assert_eq!(ask(&zone, &shop, &name, Kind::A), addresses(&["10.0.1.11"], TASK_TTL_SECONDS));
}

#[test]
fn nobody_is_found_through_the_ingress_network() {
    let mut networks = networks();
    Arc::make_mut(networks.list.get_mut(&NetworkId(1)).unwrap()).ingress = true;
    let mut zone = Zone::default();
    zone.apply(NetworksUpdate::snapshot(&networks)).unwrap();
    assert_eq!(ask(&zone, &client(&[1], Some("shop")), "web", Kind::A), Answer::Elsewhere);
}

#[test]
fn only_internal_networks_have_no_way_out() {
    let mut networks = networks();
    Arc::make_mut(networks.list.get_mut(&NetworkId(1)).unwrap()).internal = true;
    let mut zone = Zone::default();
    zone.apply(NetworksUpdate::snapshot(&networks)).unwrap();
    assert!(!zone.has_way_out(&client(&[1], None)));
    assert!(zone.has_way_out(&client(&[1, 2], None)));
    assert!(zone.has_way_out(&client(&[], None)));
}

#[test]
fn an_update_for_a_network_that_is_not_there_changes_nothing() {
    let mut old = networks();
    old.list.remove(&NetworkId(2));
    let mut newer = networks();
    Arc::make_mut(newer.list.get_mut(&NetworkId(2)).unwrap()).endpoints.clear();
    let update = networks().update_to(&newer);
    let mut zone = Zone::default();
    zone.apply(NetworksUpdate::snapshot(&old)).unwrap();
    assert!(zone.apply(update).is_err());
    let mut same = Zone::default();
    same.apply(NetworksUpdate::snapshot(&old)).unwrap();
    assert_eq!(zone, same);
}

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    let names = prop::collection::vec("[ab]{1,2}", 0..3);
    let addresses = prop::collection::vec((0u8..6).prop_map(|last| IpAddr::from([10, 0, 0, last])), 0..2);
    (0u128..3, addresses, names, any::<bool>()).prop_map(|(service, addresses, names, serving)| Endpoint {
        service: ServiceId(service),
        node: NodeId(1),
        addresses,
        names,
        serving,
    })
}

fn any_service() -> impl Strategy<Value = ServiceView> {
    let aliases = prop::collection::vec("[ab]{1,2}", 0..3);
    let vips = prop::collection::vec((6u8..9).prop_map(|last| IpAddr::from([10, 0, 0, last])), 0..2);
    ("[ab]{1,2}", aliases, vips).prop_map(|(name, aliases, vips)| ServiceView {
        name,
        aliases,
        vips,
        ports: Vec::new(),
    })
}

/// Addresses are unique at any one time, as the allocator makes them.
fn any_networks() -> impl Strategy<Value = Networks> {
    let services = prop::collection::btree_map((0u128..3).prop_map(ServiceId), any_service(), 0..3);
    let endpoints = prop::collection::btree_map((0u128..6).prop_map(TaskId), any_endpoint(), 0..6);
    let view = (services, endpoints).prop_map(|(mut services, mut endpoints)| {
        let mut seen = std::collections::BTreeSet::new();
        services.values_mut().for_each(|service| service.vips.retain(|address| seen.insert(*address)));
        endpoints.values_mut().for_each(|endpoint| endpoint.addresses.retain(|address| seen.insert(*address)));
        let (services, endpoints) = (services.into_iter().collect(), endpoints.into_iter().collect());
        Arc::new(NetworkView { services, endpoints, ..network("n", &["10.0.0.0/24"], vec![], vec![]) })
    });
    let list = prop::collection::btree_map((0u128..3).prop_map(NetworkId), view, 0..3);
    list.prop_map(|list| Networks { list })
}

proptest! {
    #[test]
    fn a_zone_that_was_changed_step_by_step_is_the_zone_of_the_last_state(
        states in prop::collection::vec(any_networks(), 1..6),
    ) {
        let (mut zone, mut last) = (Zone::default(), Networks::default());
        for state in states {
            zone.apply(last.update_to(&state)).unwrap();
            let mut whole = Zone::default();
            whole.apply(NetworksUpdate::snapshot(&state)).unwrap();
            prop_assert_eq!(&zone, &whole);
            prop_assert_eq!(whole.snapshot(), NetworksUpdate::snapshot(&state));
            last = state;
        }
    }

    #[test]
    fn only_addresses_of_what_serves_on_the_askers_networks_are_given(
        state in any_networks(),
        own in prop::collection::vec((0u128..3).prop_map(NetworkId), 0..3),
        name in "(tasks\\.)?[ab]{1,2}(\\.n)?",
    ) {
        let mut zone = Zone::default();
        zone.apply(NetworksUpdate::snapshot(&state)).unwrap();
        let client = Client { networks: own.clone(), ..Client::default() };
        if let Answer::Addresses { addresses, .. } = ask(&zone, &client, &name, Kind::A) {
            prop_assert!(!addresses.is_empty());
            for address in addresses {
                let allowed = own.iter().filter_map(|id| state.list.get(id)).any(|network| {
                    let serving = |service: Option<ServiceId>| network.endpoints.values().any(|endpoint| {
                        endpoint.serving
                            && service.map_or(endpoint.addresses.contains(&address), |id| endpoint.service == id)
                    });
                    serving(None)
                        || network.services.iter().any(|(id, s)| s.vips.contains(&address) && serving(Some(*id)))
                });
                prop_assert!(allowed, "{address}");
            }
        }
    }
}
