//! One test's own host: a network namespace, a data directory, a private containerd, and images made from this machine's
//! static busybox.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use flok::agent::NodeNames;
use flok::network::NetworkConfig;
use flok::network::dns::ResolverConfig;
use flok::node::worker::{Wanted, Worker, WorkerConfig};
use flok::runtime::{Registries, Runtime, RuntimeConfig};
use flok::spec::*;

/// Bounds every wait of a test; nothing is asserted about time.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Host {
    dir: PathBuf,
    pub registries: Registries,
    wanted: Wanted,
}

/// Runs a test in a network namespace of its own: the threads of its tokio runtime, and what they start, inherit it.
pub fn on_a_host<F: Future<Output = ()>>(test: impl FnOnce(Host) -> F) {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    run("ip", &["link", "set", "lo", "up"]);
    // Short, for containerd's socket; kept until what runs in it has ended.
    let path = tempfile::Builder::new().prefix("flok-").tempdir_in("/tmp").unwrap().keep();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o711)).unwrap();
    let host = Host { dir: path.clone(), registries: Registries::default(), wanted: Wanted::default() };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(test(host))));
    drop(runtime);
    tear_down(&path);
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

/// Ends what the host left running, then removes its directory.
fn tear_down(dir: &Path) {
    kill_all(dir);
    let name = dir.to_string_lossy().into_owned();
    let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap_or_default();
    for target in mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|target| target.starts_with(&name)) {
        let _ = nix::mount::umount2(target, nix::mount::MntFlags::MNT_DETACH);
    }
    let _ = fs::remove_dir_all(dir);
}

fn kill_all(dir: &Path) {
    let name = dir.to_string_lossy().into_owned();
    for _ in 0..100 {
        let left = processes_naming(&name);
        if left.is_empty() {
            return;
        }
        for pid in left {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Processes whose command line or log target names the host's own directory, and those in its containers' cgroups.
fn processes_naming(dir: &str) -> Vec<nix::unistd::Pid> {
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let text = [read("cmdline"), read("mountinfo")].concat();
        if pid != own && (contains(&read("cmdline"), dir) || is_container(&text, dir)) {
            found.push(nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()));
        }
    }
    found
}

/// A container's root is an overlay below the directory.
fn is_container(mountinfo: &[u8], dir: &str) -> bool {
    let text = String::from_utf8_lossy(mountinfo);
    text.lines().any(|line| line.contains(" / / ") && line.contains("overlay") && line.contains(dir))
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

impl Host {
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Puts the data directory on a disk of its own.
    pub fn mount_small_disk(&self, size: &str) {
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(
            Some("tmpfs"),
            &self.dir,
            Some("tmpfs"),
            flags,
            Some(format!("size={size},mode=711").as_str()),
        )
        .unwrap();
    }

    /// Leaves no byte free; returns the file to remove.
    pub fn fill_disk(&self) -> PathBuf {
        let path = self.dir.join("filler");
        let mut file = fs::File::create(&path).unwrap();
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
        path
    }

    /// As a power cut does: containerd, shims, log writers and containers end together.
    pub fn kill_everything(&self) {
        kill_all(&self.dir);
    }

    pub async fn runtime(&self) -> Runtime {
        let mut config = RuntimeConfig::new(self.path()).unwrap();
        config.logger = env!("CARGO_BIN_EXE_flok").into();
        config.registries = self.registries.clone();
        config.cdi_dirs = vec![self.path().join("cdi")];
        Runtime::start(config).await.unwrap()
    }

    /// What `ctr` says of the private containerd.
    pub fn ctr(&self, args: &[&str]) -> String {
        let socket = self.path().join("containerd/containerd.sock").display().to_string();
        run("ctr", &[&["-a", &socket, "-n", "flok"], args].concat()).trim().to_owned()
    }

    pub async fn worker(&self, runtime: &Runtime) -> Worker {
        let config = WorkerConfig {
            data_dir: self.path().to_owned(),
            network: NetworkConfig { dir: self.path().join("net"), subnet: "172.29.0.0/24".parse().unwrap() },
            resolver: ResolverConfig { dir: self.path().join("resolver"), binary: env!("CARGO_BIN_EXE_flok").into() },
            node: NodeNames { id: NodeId(1), hostname: "host".into(), platform: flok::runtime::host::platform() },
            work_at_once: 0,
        };
        Worker::start(config, runtime.clone()).await.unwrap()
    }

    pub async fn load_busybox(&self, runtime: &Runtime) {
        let archive = self.path().join("busybox.tar");
        docker_archive(&archive, "flok-test/busybox:latest");
        let names = runtime.images().load(fs::File::open(&archive).unwrap(), None).await.unwrap();
        assert_eq!(names, ["docker.io/flok-test/busybox:latest"]);
    }

    pub fn want(&mut self, worker: &Worker, assignment: Assignment) {
        self.wanted.assignments.insert(assignment.task, assignment);
        worker.assign(self.wanted.clone());
    }

    pub fn desire(&mut self, worker: &Worker, task: TaskId, desired: DesiredState) {
        self.wanted.assignments.get_mut(&task).unwrap().desired = desired;
        worker.assign(self.wanted.clone());
    }

    pub fn wanted(&mut self) -> &mut Wanted {
        &mut self.wanted
    }

    pub fn forget(&mut self, worker: &Worker, task: TaskId) {
        self.wanted.assignments.remove(&task);
        worker.assign(self.wanted.clone());
    }
}

pub fn assignment(task: u128, script: &str) -> Assignment {
    let container = ContainerSpec {
        image: "flok-test/busybox".into(),
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        stop_grace: Some(Duration::from_secs(5)),
        ..Default::default()
    };
    Assignment {
        task: TaskId(task),
        service: ServiceId(1),
        service_name: "web".into(),
        service_labels: Labels::new(),
        slot: Slot::Replica(1),
        name: "web.1".into(),
        desired: DesiredState::Running,
        spec: TaskSpec {
            container,
            resources: Resources::default(),
            restart: RestartPolicy::default(),
            placement: Placement::default(),
            networks: Vec::new(),
            log_driver: None,
            force_update: 0,
            host_ports: Vec::new(),
            volume_policy: VolumePolicy::default(),
            ingress: false,
        },
        spec_version: Version(1),
        start_delay: Duration::ZERO,
        attachments: Vec::new(),
        resources: Vec::new(),
        outcome_recorded: false,
    }
}

/// The task's report once `enough` holds of it.
pub async fn report(worker: &Worker, task: u128, enough: impl Fn(&TaskReport) -> bool) -> TaskReport {
    let mut reports = worker.reports();
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let found = reports.borrow_and_update().tasks.get(&TaskId(task)).cloned();
            if let Some(found) = found
                && enough(&found)
            {
                return found;
            }
            reports.changed().await.unwrap();
        }
    })
    .await;
    waited.unwrap_or_else(|_| panic!("task {task} stays at {:?}", worker.reports().borrow().tasks.get(&TaskId(task))))
}

pub async fn reaches(worker: &Worker, task: u128, state: TaskState) -> TaskReport {
    report(worker, task, |report| report.state == state || (report.state.is_final() && !state.is_final()))
        .await
        .also(|report| assert_eq!(report.state, state, "{report:?}"))
}

pub async fn is_gone(worker: &Worker, task: u128) {
    let mut reports = worker.reports();
    let gone = reports.wait_for(|report| !report.tasks.contains_key(&TaskId(task)));
    tokio::time::timeout(PATIENCE, gone).await.expect("the task goes").unwrap();
}

trait Also: Sized {
    fn also(self, look: impl FnOnce(&Self)) -> Self {
        look(&self);
        self
    }
}
impl<T> Also for T {}

/// Waits for a state of the world that no event tells of.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never: {what}"));
}

pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What `docker save` writes for an image of two layers: busybox, and a second one with data, accounts and a whiteout.
pub fn docker_archive(path: &Path, name: &str) {
    let base = layer(&[
        Item::File("bin/busybox", &fs::read("/bin/busybox").expect("busybox-static is installed"), 0o755, 0),
        Item::Link("bin/sh", "busybox"),
        Item::File("data/doomed", b"x", 0o644, 0),
    ]);
    let top = layer(&[
        Item::File("data/.wh.doomed", b"", 0o644, 0),
        Item::Dir("data", 0o750, 7),
        Item::File("data/kept", b"from the image\n", 0o640, 7),
        Item::File("etc/passwd", b"root:x:0:0::/:/bin/sh\nworker:x:7:8::/:/bin/sh\n", 0o644, 0),
        Item::File("etc/group", b"root:x:0:\nworker:x:8:\nextra:x:9:worker\n", 0o644, 0),
    ]);
    let digests: Vec<String> = [&base, &top].map(|layer| flok::runtime::images::manifest::digest_of(layer)).into();
    let config = serde_json::json!({
        "architecture": flok::runtime::host::platform().normalized().architecture, "os": "linux",
        "config": {"Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Cmd": ["/bin/sh"], "WorkingDir": "/data"},
        "rootfs": {"type": "layers", "diff_ids": digests},
    })
    .to_string();
    let manifest = serde_json::json!([
        {"Config": "config.json", "RepoTags": [name], "Layers": ["base/layer.tar", "top/layer.tar"]},
    ])
    .to_string();
    let archive = layer(&[
        Item::File("base/layer.tar", &base, 0o644, 0),
        Item::File("top/layer.tar", &top, 0o644, 0),
        Item::File("config.json", config.as_bytes(), 0o644, 0),
        Item::File("manifest.json", manifest.as_bytes(), 0o644, 0),
    ]);
    fs::File::create(path).unwrap().write_all(&archive).unwrap();
}

enum Item<'a> {
    File(&'a str, &'a [u8], u32, u64),
    Dir(&'a str, u32, u64),
    Link(&'a str, &'a str),
}

fn layer(items: &[Item<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_gnu();
        header.set_gid(0);
        match item {
            Item::File(path, data, mode, uid) => {
                header.set_size(data.len() as u64);
                header.set_mode(*mode);
                header.set_uid(*uid);
                tar.append_data(&mut header, path, *data).unwrap();
            }
            Item::Dir(path, mode, uid) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_size(0);
                header.set_mode(*mode);
                header.set_uid(*uid);
                tar.append_data(&mut header, path, std::io::empty()).unwrap();
            }
            Item::Link(path, target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                header.set_mode(0o777);
                tar.append_link(&mut header, path, target).unwrap();
            }
        }
    }
    tar.into_inner().unwrap()
}

/// A registry of this test's own on loopback, ended with it.
pub struct Registry {
    pub host: String,
    pub data: PathBuf,
    log: PathBuf,
    process: std::process::Child,
}

impl Registry {
    /// `accounts`: lines of an htpasswd file; empty: open to all.
    pub async fn start(dir: &Path, accounts: &str) -> Registry {
        let file: PathBuf = dir.join("htpasswd");
        fs::write(&file, accounts).unwrap();
        let auth = if accounts.is_empty() {
            String::new()
        } else {
            format!("auth: {{htpasswd: {{realm: test, path: {file:?}}}}}\n")
        };
        Registry::start_with(dir, "", &auth).await
    }

    /// With a certificate for 127.0.0.1 by a CA of its own, whose PEM file is `ca.pem`.
    pub async fn start_tls(dir: &Path) -> Registry {
        let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
        let (ca, ca_key, key, request, cert, ext) =
            (path("ca.pem"), path("ca.key"), path("tls.key"), path("tls.csr"), path("tls.pem"), path("tls.ext"));
        fs::write(&ext, "subjectAltName=IP:127.0.0.1").unwrap();
        let new = ["req", "-newkey", "rsa:2048", "-nodes"];
        run(
            "openssl",
            &[&new[..], &["-x509", "-days", "2", "-subj", "/CN=test CA", "-keyout", &ca_key, "-out", &ca]].concat(),
        );
        run("openssl", &[&new[..], &["-subj", "/CN=registry", "-keyout", &key, "-out", &request]].concat());
        run(
            "openssl",
            &[
                "x509",
                "-req",
                "-in",
                &request,
                "-CA",
                &ca,
                "-CAkey",
                &ca_key,
                "-CAcreateserial",
                "-days",
                "2",
                "-extfile",
                &ext,
                "-out",
                &cert,
            ],
        );
        Registry::start_with(dir, &format!(", tls: {{certificate: {cert:?}, key: {key:?}}}"), "").await
    }

    async fn start_with(dir: &Path, tls: &str, auth: &str) -> Registry {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let data = dir.join("registry");
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: false}}}}\nstorage: {{filesystem: {{rootdirectory: {data:?}}}}}\n\
             http: {{addr: {host:?}{tls}}}\n{auth}",
        );
        let log_file = dir.join("registry.log");
        let file = dir.join("registry.yml");
        fs::write(&file, config).unwrap();
        let log = fs::File::create(&log_file).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("docker-registry is installed");
        until("the registry listens", || std::net::TcpStream::connect(&host).is_ok()).await;
        Registry { host, data, log: log_file, process }
    }

    /// How many of the requests it has answered have these words in its log.
    pub fn requests(&self, words: &str) -> usize {
        fs::read_to_string(&self.log).unwrap().lines().filter(|line| line.contains(words)).count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
}
