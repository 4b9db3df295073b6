//! What holds for any sequence of entries: nothing panics, every log holder gets the same state, a refusal changes
//! nothing, and the promises of the objects' types are kept.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::spec::*;
use crate::state::fixture::*;
use crate::state::*;

/// A step of a random history. Numbers choose among few ids, so that steps meet; versions are those of the state at hand
/// unless `stale`.
#[derive(Debug, Clone)]
enum Act {
    CreateService { id: u128, name: u8, shape: u8 },
    UpdateService { id: u128, shape: u8, stale: bool },
    RollbackService { id: u128 },
    RemoveService { id: u128 },
    Admit { node: u128, manager: bool },
    UpdateNode { node: u128, manager: bool, drain: bool },
    RemoveNode { node: u128, force: bool },
    CreateTask { id: u128, service: u128, slot: u64, node: u128 },
    Assign { task: u128, node: u128, stray: bool },
    SetDesired { task: u128, desired: u8 },
    Finish { task: u128, state: u8, replacement: Option<u128> },
    Forget { task: u128 },
    AutoRollback { service: u128 },
    Scale { service: u128, replicas: u64 },
    Vips { service: u128 },
    Health { node: u128, health: u8 },
    Raft { node: u128, raft_id: u64 },
    Network { id: u128, remove: bool },
    Secret { id: u128, remove: bool },
    Replace { id: u128, data: u8, roll_out: bool },
    Both(Box<Act>, Box<Act>),
    Retry,
}

fn act() -> impl Strategy<Value = Act> {
    let (service, node, task) = (1..4u128, 1..5u128, 1..12u128);
    let single = prop_oneof![
        1 => (service.clone(), 1..4u8, 0..9u8).prop_map(|(id, name, shape)| Act::CreateService { id, name, shape }),
        1 => (service.clone(), 0..9u8, prop::bool::weighted(0.1))
            .prop_map(|(id, shape, stale)| Act::UpdateService { id, shape, stale }),
        1 => service.clone().prop_map(|id| Act::RollbackService { id }),
        1 => service.clone().prop_map(|id| Act::RemoveService { id }),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, manager)| Act::Admit { node, manager }),
        1 => (node.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(node, manager, drain)| Act::UpdateNode { node, manager, drain }),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, force)| Act::RemoveNode { node, force }),
        8 => (task.clone(), service.clone(), 0..3u64, node.clone())
            .prop_map(|(id, service, slot, node)| Act::CreateTask { id, service, slot, node }),
        8 => (task.clone(), node.clone(), prop::bool::weighted(0.3))
            .prop_map(|(task, node, stray)| Act::Assign { task, node, stray }),
        2 => service.clone().prop_map(|service| Act::Vips { service }),
        4 => (task.clone(), 0..4u8).prop_map(|(task, desired)| Act::SetDesired { task, desired }),
        6 => (task.clone(), 0..14u8, prop::option::of(task.clone()))
            .prop_map(|(task, state, replacement)| Act::Finish { task, state, replacement }),
        3 => task.prop_map(|task| Act::Forget { task }),
        1 => service.clone().prop_map(|service| Act::AutoRollback { service }),
        1 => (service, 0..4u64).prop_map(|(service, replicas)| Act::Scale { service, replicas }),
        2 => (node.clone(), 0..5u8).prop_map(|(node, health)| Act::Health { node, health }),
        1 => (node, 0..6u64).prop_map(|(node, raft_id)| Act::Raft { node, raft_id }),
        1 => (1..3u128, any::<bool>()).prop_map(|(id, remove)| Act::Network { id, remove }),
        1 => (1..3u128, any::<bool>()).prop_map(|(id, remove)| Act::Secret { id, remove }),
        2 => (1..3u128, 1..5u8, any::<bool>()).prop_map(|(id, data, roll_out)| Act::Replace { id, data, roll_out }),
        1 => Just(Act::Retry),
    ];
    single
        .prop_recursive(1, 2, 2, |inner| (inner.clone(), inner).prop_map(|(a, b)| Act::Both(Box::new(a), Box::new(b))))
}

/// Some nine services that differ in what the state cares about.
fn shaped(name: &str, shape: u8) -> ServiceSpec {
    let mut spec = service_spec(name, u64::from(shape % 3));
    match shape {
        1 => spec.mode = ServiceMode::Global,
        2 => spec.mode = ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 2 },
        3 => spec.task.container.mounts = vec![local_volume("data")],
        4 => spec.endpoint.ports = vec![host_port(80, 80)],
        5 => spec.update.order = UpdateOrder::StartFirst,
        6 => {
            let target = NetworkTarget::Name("net1".into());
            spec.task.networks = vec![NetworkAttachment { target, aliases: vec![], driver_options: Labels::new() }];
        }
        7 => spec.task.container.image = "Refused".into(),
        8 => {
            let file = FileTarget { name: "s".into(), uid: "0".into(), gid: "0".into(), mode: 0o444 };
            let data_version = DataVersion(0);
            spec.task.container.secrets =
                vec![SecretReference { id: SecretId(1), name: "s".into(), file, data_version }];
        }
        _ => spec.task.force_update = u64::from(shape),
    }
    spec
}

fn version_of(state: &State, id: ObjectId) -> Version {
    state.version_of(id).unwrap_or_default()
}

/// The command that an act stands for in `state`. `None`: send the last entry again.
fn command(state: &State, act: &Act) -> Option<Command> {
    if let Some(change) = change(state, act) {
        let reads = change.subjects().into_iter().filter_map(|id| Some((id, state.version_of(id)?))).collect();
        return Some(Command::Plan(vec![Step { reads, change }]));
    }
    let command = match act {
        Act::CreateService { id, name, shape } => {
            let spec = Box::new(shaped(&format!("s{name}"), *shape));
            Command::CreateService { id: ServiceId(*id), spec, credentials: Some(SecretBytes(vec![1])) }
        }
        Act::UpdateService { id, shape, stale } => {
            let id = ServiceId(*id);
            let mut version = version_of(state, ObjectId::Service(id));
            version.0 += u64::from(*stale);
            let old = state.service(id).map(|service| service.spec.clone());
            let mut spec = shaped(old.as_ref().map_or("s", |old| &old.name), *shape);
            spec.mode = old.map_or(spec.mode, |old| old.mode);
            Command::UpdateService { id, version, spec: Box::new(spec), credentials: CredentialsUpdate::Keep }
        }
        Act::RollbackService { id } => {
            let id = ServiceId(*id);
            Command::RollbackService { id, version: version_of(state, ObjectId::Service(id)) }
        }
        Act::RemoveService { id } => Command::RemoveService { id: ServiceId(*id) },
        Act::Admit { node, manager } => Command::AdmitNode { node: Box::new(some_node(*node, *manager)) },
        Act::UpdateNode { node, manager, drain } => {
            let id = NodeId(*node);
            let mut spec = some_node(*node, *manager).spec;
            spec.availability = if *drain { Availability::Drain } else { Availability::Active };
            Command::UpdateNode { id, version: version_of(state, ObjectId::Node(id)), spec }
        }
        Act::RemoveNode { node, force } => Command::RemoveNode { id: NodeId(*node), force: *force },
        Act::Network { id, remove: true } => Command::RemoveNetwork { id: NetworkId(*id) },
        Act::Network { id, remove: false } => Command::CreateNetwork { id: NetworkId(*id), spec: some_network(*id) },
        Act::Secret { id, remove: true } => Command::RemoveSecret { id: SecretId(*id) },
        Act::Secret { id, remove: false } => {
            let spec =
                SecretSpec { name: "s".into(), labels: Labels::new(), data: SecretBytes(vec![1]), templating: None };
            Command::CreateSecret { id: SecretId(*id), spec }
        }
        Act::Replace { id, data, roll_out } => {
            let version = version_of(state, ObjectId::Secret(SecretId(*id)));
            let (labels, data) = (Labels::new(), SecretBytes(vec![*data]));
            let new = NewData { labels, data, templating: None, restored: None, roll_out: *roll_out };
            Command::ReplaceData { id: DataId::Secret(SecretId(*id)), version, new: Box::new(new) }
        }
        Act::Both(a, b) => match (command(state, a)?, command(state, b)?) {
            (Command::Plan(mut a), Command::Plan(b)) => {
                a.extend(b);
                Command::Plan(a)
            }
            (a, b) => Command::Transaction(vec![a, b]),
        },
        _ => return None,
    };
    Some(command)
}

fn some_node(number: u128, manager: bool) -> Node {
    let mut node = a_node(number);
    node.raft = None;
    node.spec.role = if manager { Role::Manager } else { Role::Worker };
    node
}

fn some_network(id: u128) -> NetworkSpec {
    NetworkSpec {
        name: format!("net{id}"),
        labels: Labels::new(),
        driver: "overlay".into(),
        driver_options: Labels::new(),
        internal: false,
        attachable: false,
        ingress: false,
        ipv6: false,
        subnets: vec![SubnetSpec { subnet: "10.5.0.0/16".into(), gateway: None, ip_range: None }],
    }
}

fn change(state: &State, act: &Act) -> Option<Change> {
    let new = |id: u128, service: ServiceId, slot: Slot, node: Option<NodeId>| {
        let of = state.service(service);
        Box::new(NewTask {
            id: TaskId(id),
            service,
            slot,
            spec_version: of.map_or(Version(0), |service| service.spec_version),
            desired: DesiredState::Running,
            start_delay: std::time::Duration::ZERO,
            restarts: Vec::new(),
            job_iteration: of.and_then(|service| service.job).map(|job| job.iteration),
            node,
        })
    };
    Some(match act {
        Act::CreateTask { id, service, slot, node } => {
            let service = ServiceId(*service);
            let global = state.service(service).is_some_and(|service| service.spec.mode.is_global());
            let (slot, node) = match global {
                true => (Slot::Node(NodeId(*node)), Some(NodeId(*node))),
                false => (Slot::Replica(*slot), None),
            };
            Change::CreateTask(new(*id, service, slot, node))
        }
        Act::Assign { task, node, stray } => {
            let task = TaskId(*task);
            let spec = state.task(task).and_then(|task| state.task_spec(task.service, task.spec_version));
            let host_ports = spec.map_or(Vec::new(), |spec| spec.host_ports.clone());
            let mut attachments = spec.map_or(Vec::new(), |spec| attachments(state, spec));
            // Now and then an address that somebody may have already.
            if let (true, Some(addr)) = (*stray, attachments.first_mut().and_then(|place| place.addresses.first_mut()))
            {
                *addr = "10.5.0.2".parse().unwrap();
            }
            let node = NodeId(*node);
            Change::Assign(Box::new(Placed { task, node, host_ports, generic: vec![], attachments }))
        }
        Act::SetDesired { task, desired } => {
            let all = [DesiredState::Ready, DesiredState::Running, DesiredState::Shutdown, DesiredState::Remove];
            Change::SetDesired { task: TaskId(*task), desired: all[usize::from(*desired)] }
        }
        Act::Finish { task, state: number, replacement } => {
            let task = TaskId(*task);
            let finished = match number {
                0 => TaskState::Running,
                1 => TaskState::Remove,
                2..=6 => TaskState::Complete,
                7..=11 => TaskState::Failed,
                _ => TaskState::Orphaned,
            };
            let replacement = replacement.and_then(|id| {
                let old = state.task(task)?;
                let node = match old.slot {
                    Slot::Node(node) => Some(node),
                    Slot::Replica(_) => None,
                };
                Some(new(id, old.service, old.slot, node))
            });
            Change::Finish { task, outcome: outcome(finished), replacement }
        }
        Act::Forget { task } => Change::ForgetTask { task: TaskId(*task) },
        Act::AutoRollback { service } => {
            Change::AutoRollback { service: ServiceId(*service), message: "failed".into() }
        }
        Act::Scale { service, replicas } => Change::ScaleService { service: ServiceId(*service), replicas: *replicas },
        Act::Vips { service } => {
            let service = ServiceId(*service);
            let networks = state.service(service).map(|found| state.vip_networks(&found.spec)).unwrap_or_default();
            let vips = networks.into_iter().map(|id| (id, vec!["10.5.0.3".parse().unwrap()])).collect();
            Change::SetServiceVips { service, vips }
        }
        Act::Health { node, health } => {
            let health = match health {
                0 => NodeHealth::Down { incarnation: Incarnation(1), since: UnixMs(1) },
                1 => NodeHealth::Left { since: UnixMs(1) },
                _ => NodeHealth::Up,
            };
            Change::SetNodeHealth { node: NodeId(*node), health, flaps: 0 }
        }
        Act::Raft { node, raft_id } => {
            let raft = (*raft_id > 0).then_some(RaftMember { raft_id: *raft_id, standing: RaftStanding::Voter });
            Change::SetRaft { node: NodeId(*node), raft }
        }
        _ => return None,
    })
}

/// What is true of every state.
fn check_state(state: &State) {
    let mut live: BTreeMap<(ServiceId, Slot), usize> = BTreeMap::new();
    let mut ports: BTreeMap<(NodeId, u16), TaskId> = BTreeMap::new();
    for task in state.tasks() {
        assert!(state.task_spec(task.service, task.spec_version).is_some(), "{task:?} lost its spec");
        assert_eq!(task.outcome.is_some(), task.finished_at.is_some());
        if let Some(outcome) = &task.outcome {
            assert!(outcome.state.is_final());
            assert!(task.desired >= DesiredState::Shutdown);
        }
        // A job's completion outlives the wish to forget it, until the job runs anew or is removed.
        let job = state.service(task.service).is_some_and(|service| service.job.is_some());
        if task.desired == DesiredState::Remove && !job {
            assert!(!task.may_be_forgotten(), "{task:?} should be gone");
        }
        if task.is_live() {
            *live.entry((task.service, task.slot)).or_default() += 1;
            assert!(state.service(task.service).is_some(), "{task:?} has no service");
        }
        for port in task.host_ports.iter().filter(|_| task.holds_resources()) {
            let node = task.node.expect("it holds resources of its node");
            assert_eq!(ports.insert((node, port.published), task.id), None, "a port is given twice");
        }
        if let (Some(node), None) = (task.node, &task.outcome) {
            assert!(state.node(node).is_some(), "{task:?} runs nowhere");
        }
    }
    check_addresses(state);
    check_data(state);
    for ((service, slot), count) in live {
        assert!(count <= 2, "slot {slot} of {service} has {count} live tasks");
    }
    for service in state.services() {
        if let Some(job) = service.job {
            let counted = state.tasks_of_service(service.id).filter(|task| job.counts(task)).count();
            assert_eq!(job.completed, counted as u64);
        }
        assert!(state.task_spec(service.id, service.spec_version).is_some());
        assert_eq!(state.service_by_name(&service.spec.name).map(|found| found.id), Some(service.id));
    }
    for (service, version) in state.task_specs.keys() {
        let named = state.service(*service).is_some_and(|service| {
            service.spec_version == *version || service.previous.as_ref().is_some_and(|p| p.spec_version == *version)
        });
        let used = state.tasks_of_service(*service).any(|task| task.spec_version == *version);
        assert!(named || used, "the spec {version} of {service} is kept for nothing");
    }
    assert!(state.nodes().any(|node| node.is_manager()), "there is no manager");
}

/// Versions are counted up, the newest are there, and no service waits for data that never was.
fn check_data(state: &State) {
    for secret in state.secrets() {
        let numbers: Vec<u64> = secret.history.records().map(|record| record.number.0).collect();
        let newest = secret.history.newest.number.0;
        assert!(numbers.is_sorted_by(|a, b| a < b) && numbers.len() <= MAX_DATA_VERSIONS, "{numbers:?}");
        assert!((newest.saturating_sub(4).max(1)..=newest).all(|number| numbers.contains(&number)), "{numbers:?}");
    }
    for service in state.services() {
        assert!(service.spec.task.container.data_used().all(|(_, version)| version > DataVersion(0)));
    }
}

/// No address has two holders, and the index knows each holder.
fn check_addresses(state: &State) {
    let mut held: BTreeMap<std::net::IpAddr, AddressUser> = BTreeMap::new();
    let tasks = state.tasks().filter(|task| task.outcome.is_none());
    let of_tasks = tasks.flat_map(|task| {
        task.attachments.iter().flat_map(|place| &place.addresses).map(|addr| (*addr, AddressUser::Task(task.id)))
    });
    let of_services = state.services().flat_map(|service| {
        service.vips.iter().flat_map(|vip| &vip.1).map(|addr| (*addr, AddressUser::Service(service.id)))
    });
    for (addr, user) in of_tasks.chain(of_services) {
        assert_eq!(held.insert(addr, user), None, "{addr} is given twice");
    }
    let indexed = state.addresses_in("0.0.0.0/0".parse().unwrap()).map(|(addr, holder)| (*addr, holder.user));
    assert_eq!(indexed.collect::<BTreeMap<_, _>>(), held);
}

/// What never goes back from one state to the next.
fn check_step(old: &State, new: &State) {
    for task in new.tasks() {
        let Some(before) = old.task(task.id).filter(|before| before.meta.created_at == task.meta.created_at) else {
            continue;
        };
        assert!(task.desired >= before.desired);
        if before.outcome.is_some() {
            assert_eq!(task.outcome, before.outcome);
        }
        if before.assigned_at.is_some() {
            assert_eq!((task.node, task.assigned_at), (before.node, before.assigned_at));
        }
    }
    for service in new.services() {
        let before = old.service(service.id).filter(|before| before.meta.created_at == service.meta.created_at);
        if let (Some(after), Some(before)) = (service.job, before.and_then(|before| before.job)) {
            assert!((after.iteration, after.completed) >= (before.iteration, before.completed));
        }
    }
    assert!(new.next_raft_id() >= old.next_raft_id());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_the_promises(
        shapes in prop::array::uniform3(0..7u8),
        random in prop::collection::vec(act(), 1..120),
    ) {
        let services = (1u8..).zip(shapes).map(|(name, shape)| Act::CreateService { id: name.into(), name, shape });
        let acts: Vec<Act> = services.chain(random).collect();
        let start = Fixture::nodes(3).state;
        let (mut state, mut other) = (start.clone(), start);
        let mut last: Option<Entry> = None;
        for (number, act) in acts.iter().enumerate() {
            let old = state.clone();
            let sequence = 1 + number as u64;
            let index = state.applied() + 1;
            // Each entry has a time of its own, which tells a task from a later one with the same id.
            let entry = match (command(&state, act), &last) {
                (Some(command), _) => Entry {
                    proposal: Proposal { client: ClientId(9), sequence, answered_below: 0 },
                    at: UnixMs(2_000_000 + index),
                    command,
                },
                (None, Some(last)) => last.clone(),
                (None, None) => continue,
            };
            let again = last.as_ref() == Some(&entry);
            let answer = state.apply(index, &entry).unwrap();
            let decoded = Entry::from_bytes(&entry.to_bytes()).unwrap();
            prop_assert_eq!(&decoded, &entry);
            prop_assert_eq!(&other.apply(index, &decoded).unwrap(), &answer);

            if answer.is_err() || again || answer == Ok(Reply::Plan { applied: 0, refused: 1 }) {
                let unchanged = State { applied: old.applied, sessions: old.sessions.clone(), ..state.clone() };
                prop_assert_eq!(&unchanged, &old, "{:?} answered {:?} and changed something", act, answer);
            }
            check_state(&state);
            check_step(&old, &state);
            last = Some(entry);
        }
        prop_assert_eq!(&state, &other);
        prop_assert_eq!(state.fingerprint(), other.fingerprint());
        let restored = snapshot::decode(&snapshot::encode(&state)).unwrap();
        prop_assert_eq!(restored, state);
    }

    #[test]
    fn no_bytes_make_an_entry_or_a_snapshot_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = Entry::from_bytes(&bytes);
        let _ = Entry::from_bytes(&[&[1], bytes.as_slice()].concat());
        let _ = snapshot::decode(&bytes);
    }

    #[test]
    fn an_altered_entry_is_read_or_refused(at in 0..400usize, byte in any::<u8>()) {
        let proposal = Proposal { client: ClientId(1), sequence: 1, answered_below: 0 };
        let spec = Box::new(super::sample::service_spec());
        let command = Command::CreateService { id: ServiceId(1), spec, credentials: None };
        let mut bytes = Entry { proposal, at: UnixMs(1), command }.to_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(entry) = Entry::from_bytes(&bytes) {
            // What reads at all must not stop a log holder.
            let mut state = Fixture::nodes(1).state;
            let _ = state.apply(state.applied() + 1, &entry);
        }
    }
}
