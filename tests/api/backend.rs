//! A node without a world: a swarm of one in memory, whose loops run after each command.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use flok::api::*;
use flok::gossip::{NodeRecord, RecordVersion, Table};
use flok::node::decisions::tasks_and_places;
use flok::spec::*;
use flok::state::*;
use futures::stream::{self, BoxStream, StreamExt};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{broadcast, mpsc};

const NODE: NodeId = NodeId(1);
/// The container that is always there.
pub const CONTAINER: &str = "c0ffee00c0ffee00";
/// And one that has ended.
pub const ENDED: &str = "deadbeefdeadbeef";
const AT: UnixMs = UnixMs(1_700_000_000_000);

pub struct Bench {
    state: Mutex<State>,
    observed: Arc<Table>,
    last_id: AtomicU64,
    /// How files were written last.
    pub written: Mutex<Option<WriteFiles>>,
}

fn description() -> NodeDescription {
    NodeDescription {
        hostname: "n1".into(),
        platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
        resources: NodeResources { nano_cpus: 4_000_000_000, memory_bytes: 8 << 30, generic: Vec::new() },
        engine_version: "0.1.0".into(),
        engine_labels: Labels::new(),
        addr: IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)),
        transport_port: 2377,
        probe_port: 7946,
        feature_level: FEATURE_LEVEL,
    }
}

fn begun() -> Command {
    let swarm = Swarm {
        id: SwarmId(7),
        meta: Meta::default(),
        spec: SwarmSpec::default(),
        ca_public_key: [1; 32],
        ca_secret_key: SecretBytes(vec![2; 32]),
        worker_token: SecretBytes(vec![3; 16]),
        manager_token: SecretBytes(vec![4; 16]),
        token_generation: 0,
        unlock_key: None,
        feature_level: FEATURE_LEVEL,
        membership_version: Version(0),
    };
    let spec = NodeSpec { name: None, labels: Labels::new(), role: Role::Manager, availability: Availability::Active };
    let node = Node {
        id: NODE,
        meta: Meta::default(),
        spec,
        public_key: [1; 32],
        description: description(),
        raft: Some(RaftMember { raft_id: 1, standing: RaftStanding::Voter }),
        health: NodeHealth::Up,
        flaps: 0,
    };
    Command::InitSwarm { swarm: Box::new(swarm), node: Box::new(node) }
}

fn applied(state: &mut State, command: Command) -> Applied {
    let index = state.applied() + 1;
    let proposal = Proposal { client: ClientId(1), sequence: index, answered_below: 0 };
    state.apply(index, &Entry { proposal, at: AT, command }).expect("the swarm is at this build's level")
}

impl Bench {
    pub fn new() -> Bench {
        let mut state = State::default();
        applied(&mut state, begun()).expect("a swarm begins");
        let mut observed = Table::default();
        let version = RecordVersion { incarnation: Incarnation(1), sequence: 1 };
        observed.merge(Arc::new(NodeRecord::new(NODE, version, description())), MonoMs(1));
        Bench {
            state: Mutex::new(state),
            observed: Arc::new(observed),
            last_id: AtomicU64::new(1000),
            written: Mutex::default(),
        }
    }

    /// What the leader does next, and next.
    fn settle(&self, state: &mut State) {
        let now = Now { mono: MonoMs(1_000), unix: AT };
        let mut rng = StdRng::seed_from_u64(state.applied());
        for _ in 0..3 {
            let mut draft = Draft::new(state, now.unix);
            tasks_and_places(&mut draft, &self.observed, now, &mut rng);
            if draft.is_empty() {
                return;
            }
            applied(state, Command::Plan(draft.into_steps())).expect("a plan is applied step by step");
        }
    }

    pub fn state(&self) -> State {
        self.state.lock().unwrap().clone()
    }

    pub fn set_state(&self, state: State) {
        *self.state.lock().unwrap() = state;
    }

    pub fn services(&self) -> usize {
        self.state.lock().unwrap().services().count()
    }
}

fn no<T>(what: &str) -> Result<T, ApiError> {
    Err(ApiError::Unavailable(format!("there is no {what} here")))
}

impl Backend for Bench {
    fn local(&self) -> LocalNode {
        LocalNode {
            id: NODE,
            hostname: "n1".into(),
            description: description(),
            data_dir: "/nowhere".into(),
            membership: Membership::Active { swarm: SwarmId(7), role: Role::Manager },
            managers: Vec::new(),
            members: 1,
            containers: 5,
            running: 3,
            images: 7,
            cgroup_version: 2,
            kernel_version: "6.1".into(),
            operating_system: "Debian".into(),
            containerd_version: "1.6".into(),
        }
    }

    async fn read(&self) -> Result<Read, ApiError> {
        let state = Arc::new(self.state.lock().unwrap().clone());
        Ok(Read { state, observed: Arc::clone(&self.observed), leader: Some(NODE), stale: None })
    }

    fn seen(&self) -> Option<Arc<State>> {
        Some(Arc::new(self.state.lock().unwrap().clone()))
    }

    fn leader(&self) -> Option<NodeId> {
        Some(NODE)
    }

    fn applied(&self) -> Option<broadcast::Receiver<Arc<State>>> {
        None
    }

    async fn propose(&self, command: Command) -> Result<Reply, WriteError> {
        let mut state = self.state.lock().unwrap();
        let reply = applied(&mut state, command)?;
        self.settle(&mut state);
        Ok(reply)
    }

    async fn foresee(&self, read: &Read, commands: Vec<Command>) -> Result<Forecast, ApiError> {
        let mut state = (*read.state).clone();
        applied(&mut state, Command::Transaction(commands))?;
        self.settle(&mut state);
        Ok(Forecast { state, is_settled: true })
    }

    async fn explain(&self, _: &Read, _: &Service) -> Result<Explained, ApiError> {
        no("scheduler")
    }

    fn new_id(&self) -> u128 {
        u128::from(self.last_id.fetch_add(1, Ordering::Relaxed))
    }

    async fn swarm_init(&self, _: InitSwarm) -> Result<NodeId, ApiError> {
        no("other swarm")
    }

    async fn swarm_join(&self, _: JoinSwarm) -> Result<(), ApiError> {
        no("other swarm")
    }

    async fn swarm_leave(&self, _: bool) -> Result<(), ApiError> {
        no("other swarm")
    }

    async fn swarm_unlock(&self, _: UnlockKey) -> Result<(), ApiError> {
        Err(ApiError::Conflict("swarm is not locked".into()))
    }

    fn join_token(&self, _: &State, role: Role) -> Option<String> {
        Some(format!("FLKTKN-{role:?}"))
    }

    fn new_token_secret(&self) -> SecretBytes {
        SecretBytes(vec![5; 16])
    }

    fn new_unlock_key(&self) -> UnlockKey {
        UnlockKey::new([6; 32])
    }

    async fn logs(&self, _: Vec<TaskId>, _: LogOptions) -> Result<BoxStream<'static, LogLine>, ApiError> {
        Ok(stream::empty().boxed())
    }

    async fn examine(&self) -> Result<Vec<Finding>, ApiError> {
        Ok(Vec::new())
    }

    async fn examine_way(&self, _: NodeId, _: Way) -> Result<Vec<Finding>, ApiError> {
        Ok(Vec::new())
    }

    async fn support_files(&self, _: NodeId) -> Vec<SupportFile> {
        Vec::new()
    }

    async fn changed(&self, at_most: Duration) {
        tokio::time::sleep(at_most).await;
    }
}

impl Containers for Bench {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(1_700_000_100_000).expect("it is a time")
    }

    fn container_id(&self, task: TaskId) -> String {
        format!("{:064x}", task.0)
    }

    async fn containers(&self) -> Result<Vec<Container>, ApiError> {
        Ok(vec![container(), ended()])
    }

    fn connected(&self) -> Vec<Connected> {
        let (container, name) = (CONTAINER.to_owned(), container().task.name);
        vec![Connected { container, name, of_node: Some(NodeNetwork::Bridge), places: Vec::new() }]
    }

    fn containers_changed(&self) -> BoxStream<'static, ()> {
        stream::pending().boxed()
    }

    async fn container_usage(&self, _: TaskId) -> Result<Usage, ApiError> {
        Ok(Usage::default())
    }

    async fn container_size(&self, _: TaskId) -> Result<ContainerSize, ApiError> {
        Ok(ContainerSize { written_bytes: 5, whole_bytes: 700 })
    }

    async fn container_top(&self, _: TaskId, _: Vec<String>) -> Result<(Vec<String>, Vec<Vec<String>>), ApiError> {
        Ok((Vec::new(), Vec::new()))
    }

    fn container_log(&self, _: TaskId, _: LogOptions) -> BoxStream<'static, LogLine> {
        stream::empty().boxed()
    }

    async fn container_signal(&self, _: TaskId, _: Option<String>) -> Result<(), ApiError> {
        Ok(())
    }

    fn container_input(&self, _: TaskId) -> Result<mpsc::Sender<Bytes>, ApiError> {
        no("input")
    }

    async fn container_live(&self, _: TaskId) -> Result<BoxStream<'static, (bool, Bytes)>, ApiError> {
        Ok(stream::empty().boxed())
    }

    async fn container_resize(&self, _: TaskId, _: TerminalSize) -> Result<(), ApiError> {
        Ok(())
    }

    async fn container_wait(&self, _: TaskId, _: WaitFor) -> i32 {
        0
    }

    async fn container_dial(&self, _: TaskId, _: u16) -> Result<tokio::net::TcpStream, ApiError> {
        no("port")
    }

    async fn file_stat(&self, _: TaskId, _: String) -> Result<Option<FileStat>, ApiError> {
        Ok(None)
    }

    async fn file_read(&self, _: TaskId, _: String) -> Result<Option<(FileStat, Archive)>, ApiError> {
        Ok(None)
    }

    async fn file_write(
        &self,
        _: TaskId,
        _: String,
        mut archive: Archive,
        how: WriteFiles,
    ) -> Result<Option<()>, ApiError> {
        *self.written.lock().unwrap() = Some(how);
        while let Some(piece) = archive.next().await {
            piece.map_err(|error| ApiError::Invalid(error.to_string()))?;
        }
        Ok(Some(()))
    }

    fn exec_create(&self, _: TaskId, _: ExecCommand) -> Result<String, ApiError> {
        Ok("e0".into())
    }

    fn exec_inspect(&self, id: &str) -> Result<ExecInspected, ApiError> {
        let (container, command) = (CONTAINER.to_owned(), ExecCommand::default());
        let made = ExecInspected { container, command, running: false, pid: 0, exit_code: None };
        self.exec_node(id).map(|_| made).ok_or_else(|| ApiError::NotFound(format!("No such exec instance: {id}")))
    }

    /// Prints what it reads, and ends with that.
    async fn exec_start(&self, _: &str, _: bool) -> Result<ExecStreams, ApiError> {
        let (input, pieces) = mpsc::channel(8);
        let printed =
            stream::unfold(pieces, |mut pieces| async move { pieces.recv().await.map(|piece| (piece, pieces)) });
        let output = printed.map(|piece| (false, piece)).boxed();
        Ok(ExecStreams { input: Some(input), output, tty: true })
    }

    async fn exec_resize(&self, _: &str, _: TerminalSize) -> Result<(), ApiError> {
        Ok(())
    }

    fn exec_node(&self, id: &str) -> Option<NodeId> {
        (id == "e0").then_some(NODE)
    }

    async fn call(&self, _: NodeId, _: Request) -> Result<Response, ApiError> {
        no("other node")
    }
}

fn ended() -> Container {
    let mut ended = container();
    ended.id = ENDED.into();
    ended.task.task = TaskId(7);
    ended.task.slot = Slot::Replica(2);
    ended.task.name = format!("there.2.{}", TaskId(7));
    ended.task.desired = DesiredState::Shutdown;
    ended.state = TaskState::Complete;
    ended.pid = None;
    ended.exit_code = Some(0);
    ended
}

fn container() -> Container {
    let spec = TaskSpec {
        container: ContainerSpec { image: "example.org/whoami:1".into(), ..ContainerSpec::default() },
        resources: Resources::default(),
        restart: RestartPolicy::default(),
        placement: Placement::default(),
        networks: Vec::new(),
        log_driver: None,
        force_update: 0,
        host_ports: Vec::new(),
        volume_policy: VolumePolicy::default(),
        ingress: false,
    };
    let task = Assignment {
        task: TaskId(5),
        service: ServiceId(6),
        service_name: "there".into(),
        service_labels: Labels::new(),
        slot: Slot::Replica(1),
        name: format!("there.1.{}", TaskId(5)),
        desired: DesiredState::Running,
        spec,
        spec_version: Version(1),
        start_delay: Duration::ZERO,
        attachments: Vec::new(),
        resources: Vec::new(),
        outcome_recorded: false,
    };
    Container {
        id: CONTAINER.into(),
        node: NODE,
        task,
        state: TaskState::Running,
        message: String::new(),
        health: Health::None,
        health_log: None,
        pid: Some(17),
        exit_code: None,
        ran_for: None,
        host_ports: Vec::new(),
        networks: Vec::new(),
        // Declared by its image.
        process: ContainerProcess {
            user: (999, 998),
            mounts: vec![HostMount {
                source: "/nowhere/0/_data".into(),
                target: "/data".into(),
                writable: true,
                volume: Some("f00d".repeat(16)),
            }],
            ..ContainerProcess::default()
        },
        created: AT,
        started: Some(AT),
        image_digest: String::new(),
        log_path: String::new(),
    }
}

impl Store for Bench {
    async fn save_images(
        &self,
        _: Vec<(LocalImage, Vec<String>)>,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, ApiError> {
        Ok(stream::empty().boxed())
    }

    async fn load_image(&self, mut tar: BoxStream<'static, std::io::Result<Bytes>>) -> Result<Vec<String>, ApiError> {
        while let Some(piece) = tar.next().await {
            piece.map_err(|error| ApiError::Invalid(error.to_string()))?;
        }
        Err(ApiError::Invalid("that is no archive".into()))
    }

    async fn resolve_image(&self, _: &str, _: Option<SecretBytes>) -> Result<Option<String>, ApiError> {
        Ok(None)
    }

    async fn describe_image(&self, _: &str, _: Option<SecretBytes>) -> Result<ImageDescribed, ApiError> {
        no("registry")
    }

    async fn log_in(&self, _: &str, _: &str, _: SecretBytes) -> Result<(), ApiError> {
        no("registry")
    }

    async fn images(&self) -> Result<Vec<LocalImage>, ApiError> {
        Ok(Vec::new())
    }

    async fn image_tags(&self, _: &str, _: Option<SecretBytes>) -> Result<Vec<String>, ApiError> {
        no("registry")
    }

    async fn pull_image(
        &self,
        _: &str,
        _: Option<SecretBytes>,
        _: mpsc::Sender<(u64, u64)>,
    ) -> Result<(String, bool), ApiError> {
        no("registry")
    }

    async fn image_users(&self) -> Result<Vec<ImageUser>, ApiError> {
        Ok(Vec::new())
    }

    async fn tag_image(&self, _: &str, _: &str) -> Result<(), ApiError> {
        Ok(())
    }

    async fn remove_image(&self, _: &str, _: bool) -> Result<(), ApiError> {
        Ok(())
    }

    fn volumes(&self) -> Vec<LocalVolume> {
        Vec::new()
    }

    async fn volume_users(&self) -> Result<BTreeMap<String, Vec<String>>, ApiError> {
        Ok(BTreeMap::new())
    }

    fn create_volume(&self, name: &str, labels: Labels, options: Labels) -> Result<LocalVolume, ApiError> {
        Ok(LocalVolume { name: name.into(), mountpoint: "/nowhere".into(), labels, options, created: AT })
    }

    fn remove_volume(&self, _: &str) -> Result<(), ApiError> {
        Ok(())
    }

    async fn volume_size(&self, _: &str) -> Option<u64> {
        Some(0)
    }
}
