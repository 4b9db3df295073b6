use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::spec::*;
use crate::state::fixture::{Fixture, node};
use crate::state::{Change, Command, NewData, NodeHealth};

fn dependency(id: u128, version: u64) -> Dependency {
    Dependency {
        id: DependencyId::Data(DataId::Secret(SecretId(id)), DataVersion(1)),
        version: Version(version),
        data: SecretBytes(version.to_be_bytes().to_vec()),
        is_template: false,
    }
}

fn member(id: u128, port: u16) -> Member {
    Member {
        public_key: [id as u8; 32],
        role: Role::Worker,
        transport: ([10, 0, 0, id as u8], port).into(),
        probe: ([10, 0, 0, id as u8], port).into(),
        raft: None,
        health: NodeHealth::Up,
    }
}

prop_compose! {
    /// Views without their generation: a few dependencies and members out of a small pool, so that they collide.
    fn contents()(
        dependencies in prop::collection::btree_map(0u128..6, 0u64..3, 0..6),
        members in prop::collection::btree_map(0u128..6, 1u16..3, 0..6),
        version in 0u64..3,
        lock in prop::option::of(0u8..2),
    ) -> View {
        View {
            generation: Generation(0),
            assignments: BTreeMap::new(),
            dependencies: dependencies.into_iter().map(|(id, v)| dependency(id, v)).map(|d| (d.id, d)).collect(),
            members: Arc::new(Members {
                version: Version(version),
                data_path_port: 4789,
                list: members.into_iter().map(|(id, port)| (NodeId(id), member(id, port))).collect(),
            }),
            unlock_key: lock.map(|byte| SecretBytes(vec![byte; 32])),
        }
    }
}

proptest! {
    #[test]
    fn updates_in_order_lead_to_the_newest_view(views in prop::collection::vec((contents(), any::<bool>()), 1..12)) {
        let mut sent = View::default();
        let mut held = View::default();
        for (index, (mut newest, restart)) in views.into_iter().enumerate() {
            newest.generation = Generation(index as u64 + 1);
            let update = if restart { Update::snapshot(&newest) } else { diff(&sent, &newest) };
            if update.is_empty() {
                prop_assert_eq!(&sent.dependencies, &newest.dependencies);
                prop_assert_eq!(&sent.unlock_key, &newest.unlock_key);
                continue;
            }
            sent = newest;
            update.apply(&mut held).expect("updates come in order");
            prop_assert_eq!(&held, &sent);
        }
    }
}

#[test]
fn an_older_generation_is_refused() {
    let newer = View { generation: Generation(7), ..View::default() };
    let older = View { generation: Generation(6), ..View::default() };
    let mut held = newer.clone();
    let refused = Update::snapshot(&older).apply(&mut held);
    assert_eq!(refused, Err(UpdateError::Older { have: 7, got: 6 }));
    assert_eq!(held, newer);
}

#[test]
fn a_lost_update_is_noticed() {
    let at = |generation| View { generation: Generation(generation), ..View::default() };
    let mut held = at(1);
    assert_eq!(diff(&at(2), &at(3)).apply(&mut held), Err(UpdateError::Gap { have: 1, base: 2 }));
    assert_eq!(Update::snapshot(&at(3)).apply(&mut held), Ok(()));
    assert_eq!(held, at(3));
}

/// Two services with a secret each, a task of each on its own node.
fn two_services() -> (Fixture, [TaskId; 2], [SecretId; 2]) {
    let mut swarm = Fixture::nodes(2);
    let secrets = [SecretId(1), SecretId(2)];
    for id in secrets {
        let spec =
            SecretSpec { name: id.to_string(), labels: Labels::new(), data: SecretBytes(vec![7]), templating: None };
        swarm.command(Command::CreateSecret { id, spec });
    }
    let mut task_with = |name: &str, secret: SecretId, on: NodeId| {
        let file = FileTarget { name: "s".into(), uid: "0".into(), gid: "0".into(), mode: 0o444 };
        let service = swarm.service(name, 1, |spec| {
            spec.task.container.secrets =
                vec![SecretReference { id: secret, name: secret.to_string(), file, data_version: DataVersion(0) }];
        });
        swarm.running(service, 1, on)
    };
    let tasks = [task_with("a", secrets[0], node(1)), task_with("b", secrets[1], node(2))];
    (swarm, tasks, secrets)
}

#[test]
fn a_node_learns_its_own_tasks_and_their_secrets_and_no_others() {
    let (swarm, tasks, secrets) = two_services();
    let view = view(&swarm.state, node(1));
    assert_eq!(view.assignments.keys().collect::<Vec<_>>(), [&tasks[0]]);
    assert_eq!(
        view.dependencies.keys().collect::<Vec<_>>(),
        [&DependencyId::Data(DataId::Secret(secrets[0]), DataVersion(1))]
    );
    assert_eq!(view.assignments[&tasks[0]].name, format!("a.1.{}", tasks[0]));
    assert_eq!(view.members.list.len(), 2);
    assert_eq!(view.generation.0, swarm.state.applied());
}

#[test]
fn what_locks_managers_is_told_to_managers_alone() {
    let mut swarm = Fixture::nodes(2);
    let second = swarm.state.node(node(2)).unwrap();
    let (version, spec) = (second.meta.version, NodeSpec { role: Role::Worker, ..second.spec.clone() });
    swarm.command(Command::UpdateNode { id: node(2), version, spec });
    let version = swarm.state.swarm().unwrap().meta.version;
    let spec = SwarmSpec { autolock: true, ..SwarmSpec::default() };
    let key = SecretBytes(vec![7; 32]);
    swarm.command(Command::UpdateSwarm { version, spec, unlock_key: Some(key.clone()) });
    let told = |number| view(&swarm.state, node(number)).unlock_key;
    assert_eq!((told(1), told(2)), (Some(key), None));
}

#[test]
fn an_ended_task_stays_until_it_is_forgotten_and_its_secret_does_not() {
    let (mut swarm, [task, _], _) = two_services();
    swarm.finish(task, TaskState::Orphaned);
    let ended = view(&swarm.state, node(1));
    let assignment = &ended.assignments[&task];
    assert!(assignment.outcome_recorded);
    assert_eq!(assignment.desired, DesiredState::Shutdown, "a node that comes back stops it");
    assert!(ended.dependencies.is_empty());
    swarm.change(Change::ForgetTask { task });
    assert!(view(&swarm.state, node(1)).assignments.is_empty());
}

#[test]
fn a_task_that_is_only_bound_to_a_node_is_not_yet_its_own() {
    let mut swarm = Fixture::nodes(1);
    let agent = swarm.global("agent", |_| {});
    let new = swarm.new_task(agent, Slot::Node(node(1)));
    let task = swarm.create(new);
    assert!(view(&swarm.state, node(1)).assignments.is_empty());
    swarm.assign(task, node(1));
    assert_eq!(view(&swarm.state, node(1)).assignments.len(), 1);
}

#[test]
fn a_node_restarts_of_a_job_only_what_failed() {
    let mut swarm = Fixture::nodes(1);
    let mut condition_of = |name: &str, slot, mode: ServiceMode| {
        let service = swarm.service(name, 1, |spec| {
            spec.mode = mode;
            spec.task.restart.condition = RestartCondition::Any;
        });
        let task = swarm.running(service, slot, node(1));
        view(&swarm.state, node(1)).assignments[&task].spec.restart.condition
    };
    let job = ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 1 };
    assert_eq!(condition_of("job", 0, job), RestartCondition::OnFailure);
    assert_eq!(condition_of("web", 1, ServiceMode::Replicated { replicas: 1 }), RestartCondition::Any);
}

#[test]
fn the_member_list_is_shared_until_a_member_changes() {
    let (mut swarm, [task, _], _) = two_services();
    let mut dispatcher = Dispatcher::default();
    let before = dispatcher.view(&swarm.state, node(1));
    swarm.finish(task, TaskState::Failed);
    let after = dispatcher.view(&swarm.state, node(2));
    assert!(Arc::ptr_eq(&before.members, &after.members));
    swarm.update_node(node(2), |spec| spec.role = Role::Worker);
    let changed = dispatcher.view(&swarm.state, node(1));
    assert_eq!(changed, view(&swarm.state, node(1)));
    let update = diff(&before, &changed);
    assert_eq!(update.members.map(|members| members.changed.len()), Some(1));
}

fn network_view(endpoints: &[(u128, bool)]) -> Arc<NetworkView> {
    let endpoint = |(id, serving): &(u128, bool)| {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(*id).unwrap());
        let endpoint = Endpoint {
            service: ServiceId(1),
            node: node(1),
            addresses: vec![address.into()],
            names: vec![format!("web.{id}")],
            serving: *serving,
        };
        (TaskId(*id), endpoint)
    };
    let service =
        ServiceView { name: "web".into(), aliases: vec![], vips: vec!["10.0.0.250".parse().unwrap()], ports: vec![] };
    Arc::new(NetworkView {
        mtu: None,
        name: "net".into(),
        subnets: vec!["10.0.0.0/24".parse().unwrap()],
        internal: false,
        ingress: false,
        services: [(ServiceId(1), service)].into_iter().collect(),
        endpoints: endpoints.iter().map(endpoint).collect(),
    })
}

#[test]
fn networks_follow_their_updates() {
    let (a, b) = (NetworkId(1), NetworkId(2));
    let steps = [
        Networks::default(),
        Networks { list: [(a, network_view(&[(1, true), (2, true)]))].into() },
        Networks { list: [(a, network_view(&[(1, false), (3, true)])), (b, network_view(&[]))].into() },
        Networks { list: [(b, network_view(&[(9, true)]))].into() },
    ];
    let mut followed = Networks::default();
    for pair in steps.windows(2) {
        let update = pair[0].update_to(&pair[1]);
        followed.apply(update).unwrap();
        assert_eq!(followed, pair[1]);
        assert!(pair[1].update_to(&pair[1]).is_empty());
        let mut joined_late = Networks { list: [(NetworkId(7), network_view(&[(1, true)]))].into() };
        joined_late.apply(NetworksUpdate::snapshot(&pair[1])).unwrap();
        assert_eq!(joined_late, pair[1]);
    }
}

#[test]
fn a_changed_endpoint_travels_alone_and_needs_its_network() {
    let a = NetworkId(1);
    let old = Networks { list: [(a, network_view(&[(1, true), (2, true)]))].into() };
    let new = Networks { list: [(a, network_view(&[(1, true), (2, false)]))].into() };
    let update = old.update_to(&new);
    let [(_, NetworkChange::Parts { endpoints, services, .. })] = update.changed.as_slice() else {
        panic!("{update:?}")
    };
    assert_eq!((endpoints.len(), services.len()), (1, 0));
    let mut stranger = Networks::default();
    assert_eq!(stranger.apply(update), Err(UnknownNetwork(a)));
    assert_eq!(stranger, Networks::default());
}

/// While an update goes on, tasks of one node may have different data of one secret.
#[test]
fn a_node_has_the_versions_that_its_tasks_refer_to_and_a_label_sends_none_again() {
    let (mut swarm, [old, _], [secret, other]) = two_services();
    let replace = |swarm: &mut Fixture, id: SecretId, data: u8| {
        let version = swarm.state.secret(id).unwrap().meta.version;
        let (labels, data) = (Labels::from([("n".to_owned(), data.to_string())]), SecretBytes(vec![data]));
        let new = Box::new(NewData { labels, data, templating: None, restored: None, roll_out: true });
        swarm.command(Command::ReplaceData { id: DataId::Secret(id), version, new });
    };
    let has = |swarm: &Fixture| -> Vec<(DependencyId, u8)> {
        let view = view(&swarm.state, node(1));
        view.dependencies.into_values().map(|one| (one.id, one.data.0[0])).collect()
    };
    let of = |number| DependencyId::Data(DataId::Secret(secret), DataVersion(number));
    replace(&mut swarm, other, 8);
    replace(&mut swarm, secret, 8);
    assert_eq!(has(&swarm), [(of(1), 7)], "nothing here runs with the new data yet");
    let service = swarm.state.task(old).unwrap().service;
    swarm.running(service, 2, node(1));
    assert_eq!(has(&swarm), [(of(1), 7), (of(2), 8)]);
    swarm.finish(old, TaskState::Shutdown);
    assert_eq!(has(&swarm), [(of(2), 8)]);

    let before = view(&swarm.state, node(1));
    let found = swarm.state.secret(secret).unwrap();
    let (version, spec) = (found.meta.version, SecretSpec { labels: Labels::new(), ..found.spec.clone() });
    swarm.command(Command::UpdateSecret { id: secret, version, spec });
    assert_eq!(view(&swarm.state, node(1)).dependencies, before.dependencies);
}
