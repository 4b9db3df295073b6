//! One of everything, with every field filled in and no two alike where that can be helped: what the golden bytes are
//! made of.

use std::time::Duration;

use crate::gossip::{Load, NodeRecord, RecordVersion, Surroundings, Unreachable};
use crate::spec::*;
use crate::state::fixture::{a_node, a_swarm, outcome};
use crate::state::store::State;
use crate::state::*;

fn labels(name: &str) -> Labels {
    Labels::from([(format!("{name}.key"), format!("{name} value"))])
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

fn meta(version: u64) -> Meta {
    Meta { version: Version(version), created_at: UnixMs(1_700_000_000_000), updated_at: UnixMs(1_700_000_000_500) }
}

fn file(name: &str) -> FileTarget {
    FileTarget { name: name.into(), uid: "101".into(), gid: "102".into(), mode: 0o440 }
}

fn generic() -> Vec<GenericResource> {
    vec![
        GenericResource::Discrete { kind: "gpu".into(), value: 2 },
        GenericResource::Named { kind: "ssd".into(), value: "disk0".into() },
    ]
}

fn mount() -> Mount {
    Mount {
        kind: MountKind::Volume,
        source: text("data"),
        target: "/var/lib/data".into(),
        read_only: true,
        bind: BindOptions {
            propagation: text("rshared"),
            non_recursive: true,
            create_host_path: true,
            read_only_non_recursive: true,
            read_only_force_recursive: true,
        },
        volume: VolumeOptions {
            no_copy: true,
            subpath: text("sub"),
            labels: labels("volume"),
            driver: text("local"),
            driver_options: labels("driver"),
        },
        tmpfs: TmpfsOptions { size_bytes: Some(1 << 20), mode: Some(0o1777), exec: Some(true) },
    }
}

fn container() -> ContainerSpec {
    ContainerSpec {
        image: "registry.example.org/whoami:1".into(),
        command: texts(&["/whoami"]),
        args: texts(&["--port", "80"]),
        env: texts(&["A=b", "C"]),
        dir: text("/srv"),
        user: text("1000:1000"),
        groups: texts(&["users"]),
        hostname: text("{{.Node.Hostname}}"),
        labels: labels("container"),
        mounts: vec![mount()],
        stop_signal: text("SIGINT"),
        stop_grace: seconds(20),
        drain: seconds(2),
        healthcheck: Some(Healthcheck {
            test: texts(&["CMD-SHELL", "true"]),
            interval: seconds(5),
            timeout: seconds(2),
            retries: Some(3),
            start_period: seconds(7),
            start_interval: seconds(1),
        }),
        hosts: texts(&["10.0.0.9 db"]),
        dns: DnsConfig {
            nameservers: texts(&["10.0.0.1"]),
            search: texts(&["example.org"]),
            options: texts(&["ndots:1"]),
        },
        secrets: vec![SecretReference {
            id: SecretId(1),
            name: "key".into(),
            file: file("key"),
            data_version: DataVersion(2),
        }],
        configs: vec![ConfigReference {
            id: ConfigId(1),
            name: "conf".into(),
            file: file("/etc/conf"),
            data_version: DataVersion(1),
        }],
        cap_add: texts(&["NET_ADMIN"]),
        cap_drop: texts(&["ALL"]),
        sysctls: labels("net"),
        ulimits: vec![Ulimit { name: "nofile".into(), soft: 1024, hard: -1 }],
        read_only: true,
        init: Some(true),
        tty: true,
        stdin_open: true,
        isolation: text("default"),
        oom_score_adj: -500,
        privileged: true,
        security_opt: texts(&["no-new-privileges"]),
        devices: vec![DeviceMapping {
            host_path: "/dev/fuse".into(),
            container_path: "/dev/fuse".into(),
            permissions: "rwm".into(),
        }],
        shm_size: Some(64 << 20),
        ipc: text("private"),
        pid: text("host"),
    }
}

fn ports() -> Vec<PortConfig> {
    let port = |published, protocol, mode| PortConfig { name: text("http"), protocol, target: 80, published, mode };
    vec![port(8080, Protocol::Tcp, PublishMode::Host), port(9090, Protocol::Udp, PublishMode::Ingress)]
}

fn update(parallelism: u64, failure_action: FailureAction, order: UpdateOrder) -> UpdateConfig {
    UpdateConfig {
        parallelism,
        delay: Duration::from_millis(1500),
        failure_action,
        monitor: seconds(5),
        max_failure_ratio: 0.25,
        order,
    }
}

pub fn service_spec() -> ServiceSpec {
    ServiceSpec {
        name: "web".into(),
        labels: labels("service"),
        mode: ServiceMode::Replicated { replicas: 3 },
        task: TaskSpec {
            container: container(),
            resources: Resources {
                limits: ResourceLimits { nano_cpus: 2_000_000_000, memory_bytes: 512 << 20, pids: 100 },
                reservations: ResourceReservations {
                    nano_cpus: 500_000_000,
                    memory_bytes: 64 << 20,
                    generic: generic(),
                },
            },
            restart: RestartPolicy {
                condition: RestartCondition::OnFailure,
                delay: seconds(3),
                max_attempts: Some(4),
                window: seconds(60),
            },
            placement: Placement {
                constraints: texts(&["node.labels.zone==a"]),
                spread: texts(&["node.labels.rack"]),
                max_replicas: 2,
                platforms: vec![Platform { os: "linux".into(), architecture: "amd64".into() }],
            },
            networks: vec![NetworkAttachment {
                target: NetworkTarget::Name("back".into()),
                aliases: texts(&["www"]),
                driver_options: labels("attachment"),
            }],
            log_driver: Some(LogDriver { name: "json-file".into(), options: labels("log") }),
            force_update: 6,
            host_ports: Vec::new(),
            volume_policy: VolumePolicy::StartEmpty,
            ingress: true,
        },
        update: update(2, FailureAction::Rollback, UpdateOrder::StartFirst),
        rollback: update(0, FailureAction::Continue, UpdateOrder::StopFirst),
        endpoint: EndpointSpec { mode: EndpointMode::Vip, ports: ports() },
        depends_on: vec![DependsOn {
            service: "db".into(),
            condition: StartCondition::Healthy,
            required: true,
            restart: true,
        }],
        schedule: Some(Schedule { concurrency: Concurrency::Replace, ..Schedule::new("@daily") }),
    }
}

pub fn secret_spec() -> SecretSpec {
    SecretSpec {
        name: "key".into(),
        labels: labels("secret"),
        data: SecretBytes(b"secret".to_vec()),
        templating: text("golang"),
    }
}

fn new_data() -> NewData {
    NewData {
        labels: labels("secret"),
        data: SecretBytes(b"other".to_vec()),
        templating: text("golang"),
        restored: Some(DataVersion(1)),
        roll_out: true,
    }
}

/// Of a secret whose first data was replaced.
fn history() -> DataHistory {
    let begun = DataHistory::begun(Version(6), UnixMs(1_700_000_000_000));
    let older = OlderData { record: begun.newest, data: SecretBytes(b"first".to_vec()), templating: None };
    let newest =
        DataRecord { number: DataVersion(2), made_at: Version(7), restored: Some(DataVersion(1)), ..begun.newest };
    DataHistory { newest, older: vec![older] }
}

pub fn config_spec() -> ConfigSpec {
    ConfigSpec { name: "conf".into(), labels: labels("config"), data: b"config".to_vec(), templating: text("golang") }
}

pub fn network_spec() -> NetworkSpec {
    NetworkSpec {
        name: "back".into(),
        labels: labels("network"),
        driver: "overlay".into(),
        driver_options: labels("option"),
        internal: true,
        attachable: true,
        ingress: false,
        ipv6: true,
        subnets: vec![SubnetSpec {
            subnet: "10.7.0.0/24".into(),
            gateway: text("10.7.0.1"),
            ip_range: text("10.7.0.128/25"),
        }],
    }
}

pub fn swarm() -> Swarm {
    let spec = SwarmSpec { labels: labels("swarm"), autolock: true, ..SwarmSpec::default() };
    Swarm { spec, meta: meta(1), token_generation: 3, unlock_key: Some(SecretBytes(vec![6; 32])), ..a_swarm() }
}

pub fn node() -> Node {
    let mut node = a_node(1);
    node.meta = meta(2);
    node.spec.name = text("first");
    node.spec.labels = labels("node");
    node.spec.availability = Availability::Drain;
    node.description.engine_labels = labels("engine");
    node.description.resources.generic = generic();
    node.health = NodeHealth::Down { incarnation: Incarnation(4), since: UnixMs(1_700_000_000_100) };
    node.flaps = 2;
    node
}

pub fn update_status() -> UpdateStatus {
    UpdateStatus {
        state: UpdateState::Paused,
        since: Version(4),
        started_at: UnixMs(1_700_000_000_200),
        completed_at: Some(UnixMs(1_700_000_000_300)),
        message: "update paused".into(),
    }
}

pub fn service() -> Service {
    let previous = PreviousSpec { spec: service_spec(), spec_version: Version(3) };
    Service {
        id: ServiceId(11),
        meta: meta(4),
        spec: service_spec(),
        spec_version: Version(4),
        previous: Some(Box::new(previous)),
        update: Some(update_status()),
        ports: ports(),
        vips: vec![(NetworkId(1), vec!["10.7.0.2".parse().unwrap(), "fd00::2".parse().unwrap()])],
        job: Some(JobStatus { iteration: 2, last_execution: UnixMs(1_700_000_000_400), completed: 5 }),
        held: vec![Version(4)],
        cron: Some(CronStatus {
            handled: UnixMs(5),
            next: Some(UnixMs(6)),
            open: vec![a_run(2, None, RunOutcome::Running)],
            ended: vec![a_run(1, Some(UnixMs(4)), RunOutcome::Failed)],
            last_end: Some(UnixMs(5)),
            missed: 3,
            skipped: 2,
        }),
    }
}

fn a_run(iteration: u64, point: Option<UnixMs>, outcome: RunOutcome) -> Run {
    let ended = point.map(|_| UnixMs(1_700_000_000_950));
    Run {
        iteration,
        point,
        spec_version: Version(4),
        mode: ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 2 },
        began: UnixMs(1_700_000_000_900),
        ended,
        outcome,
        completed: 1,
    }
}

fn attachment() -> Attachment {
    let addresses = vec!["10.7.0.3".parse().unwrap()];
    Attachment { network: NetworkId(1), addresses, aliases: texts(&["www"]) }
}

pub fn full_outcome() -> Outcome {
    Outcome {
        state: TaskState::Failed,
        message: "task: non-zero exit (1)".into(),
        exit_code: Some(1),
        container_id: text("c0ffee"),
        ran_for: seconds(9),
    }
}

pub fn task() -> Task {
    Task {
        id: TaskId(21),
        meta: meta(5),
        created: Version(4),
        service: ServiceId(11),
        slot: Slot::Replica(1),
        spec_version: Version(4),
        node: Some(NodeId(1)),
        assigned_at: Some(UnixMs(1_700_000_000_600)),
        desired: DesiredState::Shutdown,
        outcome: Some(full_outcome()),
        finished_at: Some(UnixMs(1_700_000_000_700)),
        pending_reason: "3 nodes: insufficient memory".into(),
        start_delay: Duration::from_millis(250),
        restarts: vec![UnixMs(1_700_000_000_800)],
        attachments: vec![attachment()],
        host_ports: ports(),
        generic: generic(),
        job_iteration: Some(2),
    }
}

pub fn new_task() -> NewTask {
    NewTask {
        id: TaskId(22),
        service: ServiceId(11),
        slot: Slot::Node(NodeId(1)),
        spec_version: Version(4),
        desired: DesiredState::Ready,
        start_delay: Duration::from_millis(250),
        restarts: vec![UnixMs(1_700_000_000_800)],
        job_iteration: Some(2),
        node: Some(NodeId(1)),
    }
}

/// A state that holds one of each object, and answers for two clients.
pub fn state() -> State {
    let mut state = State { applied: 40, swarm: Some(std::sync::Arc::new(swarm())), ..State::default() };
    state.put_node(node());
    state.put_service(service());
    for version in [3, 4] {
        state.task_specs.insert((ServiceId(11), Version(version)), std::sync::Arc::new(service_spec().task));
    }
    state.put_task(task());
    state.put_network(Network {
        id: NetworkId(1),
        meta: meta(6),
        spec: network_spec(),
        subnets: texts(&["10.7.0.0/24"]),
    });
    state.put_secret(Secret { id: SecretId(1), meta: meta(7), spec: secret_spec(), history: history() });
    let begun = DataHistory::begun(Version(8), UnixMs(1_700_000_000_000));
    state.put_config(Config { id: ConfigId(1), meta: meta(8), spec: config_spec(), history: begun });
    state.volume_homes.insert((ServiceId(11), Slot::Replica(1), "data".into()), NodeId(1));
    let credentials =
        RegistryCredentials { service: ServiceId(11), version: Version(4), auth: SecretBytes(b"e30=".to_vec()) };
    state.credentials.insert(ServiceId(11), std::sync::Arc::new(credentials));
    for (client, answer) in [(1, Ok(Reply::Done)), (2, Err(Refusal::OutOfSequence))] {
        let proposal = Proposal { client: ClientId(client), sequence: 3, answered_below: 2 };
        state.sessions.record(&proposal, 38 + u64::try_from(client).unwrap(), &answer);
    }
    state
}

/// One of each command, by name.
pub fn commands() -> Vec<(&'static str, Command)> {
    let version = Version(9);
    let (service, network) = (ServiceId(11), NetworkId(1));
    let (secret, config) = (SecretId(1), ConfigId(1));
    let secret_bytes = SecretBytes(b"token".to_vec());
    let spec = Box::new(service_spec());
    let credentials = CredentialsUpdate::Replace(secret_bytes.clone());
    vec![
        ("Noop", Command::Noop),
        ("InitSwarm", Command::InitSwarm { swarm: Box::new(swarm()), node: Box::new(node()) }),
        ("UpdateSwarm", Command::UpdateSwarm { version, spec: swarm().spec, unlock_key: swarm().unlock_key }),
        ("RotateToken", Command::RotateToken { version: Some(version), role: Role::Worker, secret: secret_bytes }),
        ("RaiseFeatureLevel", Command::RaiseFeatureLevel { to: FEATURE_LEVEL }),
        ("AdmitNode", Command::AdmitNode { node: Box::new(node()) }),
        ("UpdateNode", Command::UpdateNode { id: NodeId(1), version, spec: node().spec }),
        ("RemoveNode", Command::RemoveNode { id: NodeId(1), force: true }),
        ("CreateService", Command::CreateService { id: service, spec: spec.clone(), credentials: None }),
        ("UpdateService", Command::UpdateService { id: service, version, spec, credentials }),
        ("RollbackService", Command::RollbackService { id: service, version }),
        ("RemoveService", Command::RemoveService { id: service }),
        ("RunService", Command::RunService { id: service }),
        ("CreateNetwork", Command::CreateNetwork { id: network, spec: network_spec() }),
        ("RemoveNetwork", Command::RemoveNetwork { id: network }),
        ("CreateSecret", Command::CreateSecret { id: secret, spec: secret_spec() }),
        ("UpdateSecret", Command::UpdateSecret { id: secret, version, spec: secret_spec() }),
        ("RemoveSecret", Command::RemoveSecret { id: secret }),
        ("CreateConfig", Command::CreateConfig { id: config, spec: config_spec() }),
        ("UpdateConfig", Command::UpdateConfig { id: config, version, spec: config_spec() }),
        ("RemoveConfig", Command::RemoveConfig { id: config }),
        ("Transaction", Command::Transaction(vec![Command::Noop])),
        ("Plan", Command::Plan(steps())),
        ("ReplaceData", Command::ReplaceData { id: DataId::Secret(secret), version, new: Box::new(new_data()) }),
    ]
}

/// One of each change, guarded by one of each kind of object.
fn steps() -> Vec<Step> {
    let reads = [
        ObjectId::Swarm,
        ObjectId::Node(NodeId(1)),
        ObjectId::Service(ServiceId(11)),
        ObjectId::Task(TaskId(21)),
        ObjectId::Network(NetworkId(1)),
        ObjectId::Secret(SecretId(1)),
        ObjectId::Config(ConfigId(1)),
    ];
    let reads = reads.map(|id| (id, Version(9))).to_vec();
    let first = Step { reads, change: Change::ForgetTask { task: TaskId(21) } };
    std::iter::once(first).chain(changes().into_iter().map(|change| Step { reads: vec![], change })).collect()
}

fn changes() -> Vec<Change> {
    let (task, service, node) = (TaskId(21), ServiceId(11), NodeId(1));
    let placed = Placed { task, node, host_ports: ports(), generic: generic(), attachments: vec![attachment()] };
    let health = NodeHealth::HeldDown { until: UnixMs(1_700_000_000_900) };
    let raft = Some(RaftMember { raft_id: 2, standing: RaftStanding::Standby });
    vec![
        Change::CreateTask(Box::new(new_task())),
        Change::Assign(Box::new(placed)),
        Change::SetDesired { task, desired: DesiredState::Remove },
        Change::Finish { task, outcome: full_outcome(), replacement: Some(Box::new(new_task())) },
        Change::Finish { task, outcome: outcome(TaskState::Complete), replacement: None },
        Change::SetPendingReason { task, reason: "no node".into() },
        Change::SetUpdateStatus { service, status: Some(update_status()) },
        Change::SetNextRun { service, next: UnixMs(8) },
        Change::BeginRun { service, point: UnixMs(8), next: Some(UnixMs(9)) },
        Change::PassRuns { service, until: UnixMs(9), count: 2, why: Passed::Skipped, next: None },
        Change::EndRun { service, iteration: 3, outcome: RunOutcome::Replaced },
        Change::AutoRollback { service, message: "failed".into() },
        Change::SetServicePorts { service, ports: ports() },
        Change::SetServiceVips { service, vips: self::service().vips },
        Change::SetNetworkSubnets { network: NetworkId(1), subnets: texts(&["10.7.0.0/24"]) },
        Change::ScaleService { service, replicas: 4 },
        Change::SetNodeHealth { node, health, flaps: 3 },
        Change::SetNodeHealth { node, health: NodeHealth::Left { since: UnixMs(7) }, flaps: 3 },
        Change::DescribeNode { node, description: Box::new(self::node().description) },
        Change::SetRaft { node, raft },
    ]
}

/// What a node says of itself, nothing left out.
pub fn record() -> NodeRecord {
    let report = TaskReport {
        task: TaskId(21),
        state: TaskState::Running,
        message: "started".into(),
        container_id: text("c1"),
        pid: Some(4711),
        exit_code: Some(3),
        ran_for: seconds(90),
        health: Health::Healthy,
        restarts_in_place: 2,
        host_ports: ports(),
    };
    let alarm = Unreachable {
        subject: NodeId(2),
        incarnation: Incarnation(5),
        membership_version: Version(6),
        silent_for: Duration::from_millis(1200),
        refused: true,
    };
    let routes = ["10.0.0.0/16", "fd07::/64"].iter().filter_map(|text| text.parse().ok()).collect();
    let version = RecordVersion { incarnation: Incarnation(3), sequence: 300 };
    NodeRecord {
        load: Load { used_nano_cpus: 1 << 30, used_memory_bytes: 1 << 31, cpu_pressure: 1.5, ..Load::default() },
        tasks: [(TaskId(21), report)].into(),
        images: texts(&["example.org/web@sha256:aa"]),
        volumes: texts(&["data"]),
        unreachable: vec![alarm],
        leaving: true,
        conditions: vec![Condition::new(Concern::Port { protocol: Protocol::Udp, port: 53 }, "taken by dnsmasq")],
        surroundings: Surroundings {
            overlay_mtu: Some(1450),
            ..Surroundings::new(routes, "172.29.0.0/16".parse().ok())
        },
        has_init: true,
        ..NodeRecord::new(NodeId(1), version, node().description)
    }
}
