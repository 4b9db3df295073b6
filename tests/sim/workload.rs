//! What users and operators do meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use flok::spec::*;
use flok::state::{Command, CredentialsUpdate, Node, NodeHealth, RaftStanding};
use rand::RngExt;
use rand::seq::IndexedRandom;

use crate::context::Ms;
use crate::world::{Event, World};

const MOST_SERVICES: usize = 6;
const MOST_NETWORKS: usize = 6;
/// Tasks that need a port of their host for themselves: one a node, and nodes are few.
const MOST_WITH_PORT: u64 = 2;
const MOST_HOSTS: usize = 12;
/// From a goodbye to the end, for a node that does not hold the log.
const GOODBYE: Ms = 500;
/// A label by which some nodes are eligible for some services, and others are not.
const ZONE: &str = "zone";
/// For a leaving node to be relieved of the log.
const RELEASED_WITHIN: Ms = 8_000;

/// Asked of one daemon's life, whose end means to ask again.
pub struct Admission {
    pub host: usize,
    via: usize,
    life: u64,
}

#[derive(Default)]
pub struct Workload {
    last_operation: u64,
    /// Reads under way, and what each must see.
    pub reads: BTreeMap<u64, u64>,
    /// Admissions under way, and whom they admit.
    pub admissions: BTreeMap<u64, Admission>,
    pub to_admit: Vec<usize>,
    pub over: bool,
    /// Some jobs have one.
    schedules: bool,
    /// Schedules are to be suspended.
    pub suspends: bool,
    /// Between two operations, at most.
    pub gap: Ms,
    services: u64,
    networks: u64,
    /// Builds of several feature levels meet: some newcomers know less than the swarm, or more. The first host's build
    /// stays as it is, and so does the host: its level is the highest that the simulator's build knows.
    mixed: bool,
}

impl Workload {
    pub fn new(gap: Ms, mixed: bool, schedules: bool) -> Workload {
        Workload { gap, mixed, schedules, ..Workload::default() }
    }

    pub fn next_operation(&mut self) -> u64 {
        self.last_operation += 1;
        self.last_operation
    }
}

impl World {
    pub fn work(&mut self) {
        let gap = self.rng.random_range(10..=self.workload.gap);
        self.schedule(gap, Event::Work);
        self.note_impairments();
        let lives = |asked: &Admission| {
            self.hosts[asked.via]
                .daemon
                .as_ref()
                .is_some_and(|daemon| daemon.life == asked.life && daemon.log.is_some())
        };
        let unanswered = self.workload.admissions.extract_if(.., |_, asked| !lives(asked));
        let unanswered: Vec<usize> = unanswered.map(|(_, asked)| asked.host).collect();
        self.workload.to_admit.extend(unanswered);
        let holders = self.log_holders();
        let Some(via) = holders.choose(&mut self.rng).copied() else { return };
        if let Some(host) = self.workload.to_admit.pop() {
            self.admit(via, host);
            return;
        }
        if self.workload.over {
            return;
        }
        match self.rng.random_range(0..100) {
            0..15 => self.read(via),
            15..37 => self.create_service(via),
            37..60 => self.update_service(via),
            60..68 => self.remove_service(via),
            68..80 => self.update_node(via),
            80..84 => self.join(via),
            84..87 => self.leave(),
            87..90 => self.remove_node(via),
            90..93 => self.create_network(via),
            93..95 => self.remove_network(via),
            95..97 => self.change_role(via),
            97 if self.workload.mixed => self.upgrade(),
            98 if self.workload.mixed => self.raise_level(via),
            _ => {
                self.command(via, Command::Noop);
            }
        }
    }

    pub fn admit(&mut self, via: usize, host: usize) {
        let node = Box::new(self.node_of(host));
        match self.command(via, Command::AdmitNode { node }) {
            Some(id) => {
                let life = self.hosts[via].daemon.as_ref().map_or(0, |daemon| daemon.life);
                self.workload.admissions.insert(id, Admission { host, via, life });
            }
            None => self.workload.to_admit.push(host),
        }
    }

    fn join(&mut self, via: usize) {
        if self.hosts.len() < MOST_HOSTS {
            let host = self.add_host();
            if self.rng.random_bool(0.3) {
                self.hosts[host].role = Role::Worker;
            }
            if self.workload.mixed {
                let known = FEATURE_LEVEL.0 - 1..=FEATURE_LEVEL.0 + 1;
                self.hosts[host].description.feature_level = FeatureLevel(self.rng.random_range(known));
            }
            self.admit(via, host);
        }
    }

    /// A goodbye. Two managers at least stay, and most of the nodes.
    fn leave(&mut self) {
        let members = self.members();
        // One at a time, or the swarm loses its quorum for good.
        let leaving = |node: &flok::state::Node| self.host_of(node.id).is_some_and(|at| self.hosts[at].gone);
        let under_way = self.check.reference.nodes().any(|node| leaving(node) && node.raft.is_some());
        if members.len() <= 4 || under_way || self.leader().is_none() {
            return;
        }
        // One whose daemon is down cannot say goodbye.
        let may_leave = |at: &usize| (*at > 0 || !self.workload.mixed) && self.hosts[*at].daemon.is_some();
        let Some(at) = members.choose(&mut self.rng).copied().filter(may_leave) else { return };
        let manages = self.check.reference.node(self.hosts[at].node).is_some_and(|node| node.is_manager());
        if manages && self.managers_here() <= 2 {
            return;
        }
        self.hosts[at].gone = true;
        let node = self.hosts[at].node;
        self.check.note(|| format!("{node} leaves"));
        self.with_daemon(at, |daemon, parts, context| {
            daemon.say_goodbye(context);
            daemon.tick(parts, context)
        });
        let patience_ends = self.now + RELEASED_WITHIN;
        self.schedule(GOODBYE, Event::Leave { host: at, patience_ends });
    }

    /// A log holder that went at once would go on counting: it waits for the others to take the log from it, as
    /// `node::swarm::Session::leave` does. Nobody lets it go where that is the end of the swarm.
    pub fn leave_if_released(&mut self, at: usize, patience_ends: Ms) {
        if self.hosts[at].daemon.is_none() && self.would_end_the_swarm(at) {
            // It died on its way out: its operator starts it again.
            self.hosts[at].gone = false;
            self.start_later(at, GOODBYE);
            return;
        }
        let holds = self.hosts[at].daemon.as_ref().is_some_and(|daemon| daemon.log.is_some());
        if holds && (self.now < patience_ends || self.would_end_the_swarm(at)) {
            self.schedule(GOODBYE, Event::Leave { host: at, patience_ends });
        } else {
            self.kill_daemon(at);
        }
    }

    /// Those that vote and will come back are no quorum without `at`.
    fn would_end_the_swarm(&self, at: usize) -> bool {
        let votes = |node: &&std::sync::Arc<Node>| node.raft.is_some_and(|raft| raft.standing == RaftStanding::Voter);
        let voters: Vec<NodeId> = self.check.reference.nodes().filter(votes).map(|node| node.id).collect();
        let stays = |id: &&NodeId| self.host_of(**id).is_some_and(|host| host != at && !self.hosts[host].gone);
        voters.iter().filter(stays).count() * 2 <= voters.len()
    }

    fn remove_node(&mut self, via: usize) {
        // Those that left, and those whose machines were given up.
        let gone: Vec<NodeId> = self
            .hosts
            .iter()
            .filter(|host| host.gone && host.daemon.is_none())
            .map(|host| host.node)
            .filter(|node| self.check.reference.node(*node).is_some())
            .collect();
        if let Some(id) = gone.choose(&mut self.rng).copied() {
            self.command(via, Command::RemoveNode { id, force: true });
        }
    }

    fn managers_here(&self) -> usize {
        let here = |node: &Node| self.host_of(node.id).is_some_and(|host| !self.hosts[host].gone);
        self.check.reference.nodes().filter(|node| node.is_manager() && here(node)).count()
    }

    /// Two managers at least stay.
    fn change_role(&mut self, via: usize) {
        let nodes: Vec<_> = self.check.reference.nodes().cloned().collect();
        let managers = self.managers_here();
        let Some(node) = nodes.choose(&mut self.rng) else { return };
        let role = match node.spec.role {
            Role::Worker => Role::Manager,
            Role::Manager if managers > 2 => Role::Worker,
            Role::Manager => return,
        };
        let spec = NodeSpec { role, ..node.spec.clone() };
        self.command(via, Command::UpdateNode { id: node.id, version: node.meta.version, spec });
    }

    /// A daemon starts again with a newer build.
    fn upgrade(&mut self) {
        let choices: Vec<usize> = self.members().into_iter().filter(|at| *at > 0).collect();
        if let Some(at) = choices.choose(&mut self.rng).copied() {
            self.hosts[at].description.feature_level = FeatureLevel(FEATURE_LEVEL.0 + 1);
            self.kill_daemon(at);
            let after = self.rng.random_range(50..2_000);
            self.start_later(at, after);
        }
    }

    /// Refused as long as anybody's build knows less; the checker holds it to that.
    fn raise_level(&mut self, via: usize) {
        self.command(via, Command::RaiseFeatureLevel { to: FeatureLevel(FEATURE_LEVEL.0 + 1) });
    }

    fn create_service(&mut self, via: usize) {
        if self.check.reference.services().len() >= MOST_SERVICES {
            return;
        }
        self.workload.services += 1;
        let name = format!("s{}", self.workload.services);
        let id = ServiceId(self.rng.random());
        let mut mode = match self.rng.random_range(0..10) {
            0..6 => ServiceMode::Replicated { replicas: self.rng.random_range(0..7) },
            6..8 => ServiceMode::Global,
            8 => ServiceMode::GlobalJob,
            _ => ServiceMode::ReplicatedJob {
                max_concurrent: self.rng.random_range(1..4),
                total_completions: self.rng.random_range(1..6),
            },
        };
        let images = ["steady", "steady", "flaky", "checked"];
        let image = if mode.is_job() { "job" } else { images.choose(&mut self.rng).expect("four") };
        let port = (!mode.is_job() && self.rng.random_bool(0.3)).then(|| 8000 + self.workload.services as u16);
        if let (ServiceMode::Replicated { replicas }, Some(_)) = (&mut mode, port) {
            *replicas = (*replicas).min(MOST_WITH_PORT);
        }
        let with_volume = port.is_none() && !mode.is_global() && !mode.is_job() && self.rng.random_bool(0.3);
        let policy = [VolumePolicy::Wait, VolumePolicy::StartEmpty].choose(&mut self.rng).copied().expect("two");
        let condition = if mode.is_job() { RestartCondition::OnFailure } else { RestartCondition::Any };
        let order = [UpdateOrder::StopFirst, UpdateOrder::StartFirst].choose(&mut self.rng).copied().expect("two");
        let action = [FailureAction::Pause, FailureAction::Continue, FailureAction::Rollback];
        let update = UpdateConfig {
            parallelism: self.rng.random_range(0..3),
            delay: Duration::from_millis(self.rng.random_range(0..1_500)),
            failure_action: action.choose(&mut self.rng).copied().expect("three"),
            monitor: Some(Duration::from_millis(self.rng.random_range(500..4_000))),
            max_failure_ratio: [0.0, 0.3, 1.0].choose(&mut self.rng).copied().expect("three"),
            order: if port.is_some() { UpdateOrder::StopFirst } else { order },
        };
        let goes_on = self.rng.random_bool(0.3);
        let rollback = UpdateConfig {
            failure_action: if goes_on { FailureAction::Continue } else { FailureAction::Pause },
            parallelism: self.rng.random_range(0..3),
            ..update.clone()
        };
        let mut placement = Placement::default();
        if mode.is_global() && self.rng.random_bool(0.4) {
            let choices = ["node.labels.zone == a", "node.labels.zone != a", "node.role == manager"];
            placement.constraints.extend(choices.choose(&mut self.rng).map(|text| (*text).to_owned()));
        }
        let depends_on = if self.rng.random_bool(0.35) { self.some_dependencies(&name) } else { Vec::new() };
        let may_be_scheduled = self.workload.schedules && mode.is_job();
        let schedule = (may_be_scheduled && self.rng.random_bool(0.5)).then(|| self.some_schedule());
        let open = id.0.is_multiple_of(7).then_some(PortConfig {
            name: None,
            protocol: Protocol::Tcp,
            target: 80,
            published: 0,
            mode: PublishMode::Ingress,
        });
        let ports = port.map(|published| PortConfig {
            name: None,
            protocol: Protocol::Tcp,
            target: 80,
            published,
            mode: PublishMode::Host,
        });
        let reservations = ResourceReservations {
            nano_cpus: self.rng.random_range(0..3) * 100_000_000,
            memory_bytes: self.rng.random_range(0..3) << 27,
            generic: Vec::new(),
        };
        let spec = ServiceSpec {
            name,
            labels: Labels::new(),
            mode,
            task: TaskSpec {
                container: ContainerSpec {
                    image: format!("example.org/{image}:1"),
                    stop_grace: Some(Duration::from_millis(self.rng.random_range(500..4_000))),
                    mounts: with_volume.then(a_volume).into_iter().collect(),
                    ..ContainerSpec::default()
                },
                resources: Resources { reservations, ..Resources::default() },
                restart: RestartPolicy { condition, ..RestartPolicy::default() },
                placement,
                networks: self.some_networks(id),
                log_driver: None,
                force_update: 0,
                host_ports: Vec::new(),
                volume_policy: policy,
                ingress: false,
            },
            rollback,
            update,
            endpoint: EndpointSpec { ports: ports.into_iter().chain(open).collect(), ..EndpointSpec::default() },
            depends_on,
            schedule,
        };
        self.command(via, Command::CreateService { id, spec: Box::new(spec), credentials: None });
    }

    /// Often enough for a run to be short.
    fn some_schedule(&mut self) -> Schedule {
        let crons = ["@every 3s", "*/5 * * * * *", "@every 11s"];
        let concurrency = [Concurrency::Allow, Concurrency::Forbid, Concurrency::Replace];
        Schedule {
            window: Duration::from_secs(self.rng.random_range(1..7)),
            concurrency: concurrency.choose(&mut self.rng).copied().expect("three"),
            history: self.rng.random_range(0..4),
            ..Schedule::new(crons.choose(&mut self.rng).copied().expect("three"))
        }
    }

    /// Up to two of the services that are there.
    fn some_dependencies(&mut self, of: &str) -> Vec<DependsOn> {
        let services = self.check.reference.services().filter(|service| service.spec.name != of);
        let services: Vec<(String, bool)> =
            services.map(|service| (service.spec.name.clone(), service.job.is_some())).collect();
        let count = self.rng.random_range(1..3);
        let chosen: Vec<_> = services.sample(&mut self.rng, count).cloned().collect();
        let running = [StartCondition::Started, StartCondition::Healthy];
        let condition = |world: &mut World, is_job: bool| match is_job {
            true => StartCondition::Completed,
            false => running.choose(&mut world.rng).copied().expect("two"),
        };
        let depends_on = |(service, is_job)| DependsOn {
            service,
            condition: condition(self, is_job),
            required: self.rng.random_bool(0.7),
            restart: self.rng.random_bool(0.3),
        };
        chosen.into_iter().map(depends_on).collect()
    }

    /// Up to two of those that are there.
    fn some_networks(&self, of: ServiceId) -> Vec<NetworkAttachment> {
        let networks = self.check.reference.networks().filter(|network| !network.spec.ingress);
        let chosen = networks.filter(|network| (of.0 ^ network.id.0).is_multiple_of(3)).take(2);
        let attachment = |id: NetworkId| NetworkAttachment {
            target: NetworkTarget::Id(id),
            aliases: vec!["alias".into()],
            driver_options: Labels::new(),
        };
        chosen.map(|network| attachment(network.id)).collect()
    }

    fn create_network(&mut self, via: usize) {
        if self.check.reference.networks().len() >= MOST_NETWORKS {
            return;
        }
        self.workload.networks += 1;
        let number = self.workload.networks;
        let asked = SubnetSpec { subnet: format!("10.200.{}.0/25", number % 250), gateway: None, ip_range: None };
        let spec = NetworkSpec {
            name: format!("n{number}"),
            labels: Labels::new(),
            driver: "overlay".into(),
            driver_options: Labels::new(),
            internal: number.is_multiple_of(4),
            attachable: false,
            ingress: false,
            ipv6: number.is_multiple_of(2),
            subnets: if number.is_multiple_of(3) { vec![asked] } else { Vec::new() },
        };
        let id = NetworkId(self.rng.random());
        self.command(via, Command::CreateNetwork { id, spec });
    }

    /// Refused while somebody is on it.
    fn remove_network(&mut self, via: usize) {
        let networks = self.check.reference.networks().filter(|network| !network.spec.ingress);
        let networks: Vec<NetworkId> = networks.map(|network| network.id).collect();
        if let Some(id) = networks.choose(&mut self.rng).copied() {
            self.command(via, Command::RemoveNetwork { id });
        }
    }

    /// Scales, rolls out, or rolls back.
    fn update_service(&mut self, via: usize) {
        let services: Vec<_> = self.check.reference.services().cloned().collect();
        let Some(service) = services.choose(&mut self.rng) else { return };
        let (id, version) = (service.id, service.meta.version);
        if service.previous.is_some() && self.rng.random_bool(0.1) {
            self.command(via, Command::RollbackService { id, version });
            return;
        }
        let mut spec = service.spec.clone();
        if let (ServiceMode::Replicated { replicas }, true) = (&mut spec.mode, self.rng.random()) {
            let most = if spec.endpoint.ports.is_empty() { 7 } else { MOST_WITH_PORT };
            *replicas = self.rng.random_range(0..=most);
        } else if spec.mode.is_job() {
            spec.task.force_update += 1;
            if let (ServiceMode::ReplicatedJob { max_concurrent, total_completions }, true) =
                (&mut spec.mode, self.rng.random())
            {
                (*max_concurrent, *total_completions) = (self.rng.random_range(0..4), self.rng.random_range(1..6));
            }
        } else if self.rng.random_bool(0.2) {
            spec.task.force_update += 1;
        } else {
            let images = ["steady", "flaky", "broken", "checked", "sick"];
            let image = images.choose(&mut self.rng).expect("five");
            spec.task.container.image = format!("example.org/{image}:{}", self.rng.random_range(1..9));
        }
        if self.workload.schedules && spec.mode.is_job() && self.rng.random_bool(0.2) {
            spec.schedule = self.rng.random_bool(0.6).then(|| self.some_schedule());
        }
        if self.rng.random_bool(0.1) {
            // Refused where they would wait for one another.
            spec.depends_on = self.some_dependencies(&spec.name);
        }
        let credentials = CredentialsUpdate::Keep;
        self.command(via, Command::UpdateService { id, version, spec: Box::new(spec), credentials });
    }

    fn remove_service(&mut self, via: usize) {
        let services: Vec<ServiceId> = self.check.reference.services().map(|service| service.id).collect();
        if let Some(id) = services.choose(&mut self.rng).copied() {
            self.command(via, Command::RemoveService { id });
        }
    }

    fn update_node(&mut self, via: usize) {
        let nodes: Vec<_> = self.check.reference.nodes().cloned().collect();
        let Some(node) = nodes.choose(&mut self.rng) else { return };
        let mut spec = node.spec.clone();
        if self.rng.random_bool(0.3) {
            let zone = if self.rng.random() { "a" } else { "b" };
            spec.labels.insert(ZONE.into(), zone.into());
            self.command(via, Command::UpdateNode { id: node.id, version: node.meta.version, spec });
            return;
        }
        let choices = [Availability::Active, Availability::Active, Availability::Pause, Availability::Drain];
        spec.availability = choices.choose(&mut self.rng).copied().expect("four");
        self.command(via, Command::UpdateNode { id: node.id, version: node.meta.version, spec });
    }

    /// A node that was away while all managers that it knows left the swarm finds nobody to ask, and those that are there are
    /// no members by its list: its operator joins it anew. Not so a voter, whose log the others may need.
    fn give_up_the_lost(&mut self) {
        for at in self.members() {
            let host = &self.hosts[at];
            let manages = |id: &NodeId| self.check.reference.node(*id).is_some_and(|node| node.is_manager());
            let hears = host.daemon.as_ref().is_none_or(|daemon| daemon.quorum);
            let knows_one = host.standing.managers.iter().any(|id| *id != host.node && manages(id));
            if !hears && !knows_one && !self.votes(host.node) {
                self.hosts[at].gone = true;
                self.cut_power(at);
            }
        }
    }

    /// By the newest state that is committed; somebody who is not in it may.
    pub fn votes(&self, node: NodeId) -> bool {
        let node = self.check.reference.node(node);
        node.is_none_or(|node| node.raft.is_some_and(|raft| raft.standing == RaftStanding::Voter))
    }

    fn suspend_schedules(&mut self, via: usize) {
        for service in self.check.reference.services().cloned().collect::<Vec<_>>() {
            let mut spec = service.spec.clone();
            let Some(schedule) = spec.schedule.as_mut().filter(|schedule| !schedule.suspend) else { continue };
            schedule.suspend = true;
            let (id, version, credentials) = (service.id, service.meta.version, CredentialsUpdate::Keep);
            self.command(via, Command::UpdateService { id, version, spec: Box::new(spec), credentials });
        }
    }

    /// Operators let every node take tasks again, and remove those that will not come back; one step at a time.
    pub fn tidy_up(&mut self) {
        self.workload.over = true;
        self.give_up_the_lost();
        let holders = self.log_holders();
        let Some(via) = holders.choose(&mut self.rng).copied() else { return };
        if self.workload.suspends {
            self.suspend_schedules(via);
        }
        let nodes: Vec<_> = self.check.reference.nodes().cloned().collect();
        for node in nodes {
            let gone = self.host_of(node.id).is_none_or(|host| self.hosts[host].gone);
            let down = matches!(node.health, NodeHealth::Down { .. } | NodeHealth::Left { .. });
            if gone && down {
                self.command(via, Command::RemoveNode { id: node.id, force: true });
            } else if node.spec.availability != Availability::Active {
                let spec = NodeSpec { availability: Availability::Active, ..node.spec.clone() };
                self.command(via, Command::UpdateNode { id: node.id, version: node.meta.version, spec });
            }
        }
    }
}

/// Its data lives on the node that mounted it first.
fn a_volume() -> Mount {
    Mount {
        kind: MountKind::Volume,
        source: Some("data".into()),
        target: "/data".into(),
        read_only: false,
        bind: BindOptions::default(),
        volume: VolumeOptions::default(),
        tmpfs: TmpfsOptions::default(),
    }
}
