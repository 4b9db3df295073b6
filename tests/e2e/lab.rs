//! Hosts on one machine, as real as namespaces make them.
//!
//! A host is a network, mount, PID, UTS and IPC namespace with a `/run` of its own, joined to its neighbours by a bridge
//! that stands in a namespace of its own. Its pid 1 only reaps; everything else is started in it like on a
//! machine. Its *death* is link down and SIGKILL of pid 1: all of its processes end in the same instant. A *cut* is link
//! down alone. Nothing listens outside, and all of it goes away with the [`Lab`].

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Between two looks at a state that is waited for.
const POLL: Duration = Duration::from_millis(50);

/// Waits for a state, and says what it was where it does not come about.
pub fn eventually<T>(what: &str, within: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(state) if start.elapsed() >= within => panic!("waited {within:?} for {what}; now: {state}"),
            Err(_) => sleep(POLL),
        }
    }
}

/// Runs a command to its end, which must be a good one.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Kills a command that was started by [`Host::command`]: what it runs, and what waits for that.
pub fn kill_all_of(mut command: Child) {
    let pid = command.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for child in children.split_whitespace() {
        // It may have ended by itself.
        let _ = Command::new("kill").args(["-KILL", child]).output();
    }
    let _ = command.kill();
    command.wait().unwrap();
}

pub struct Lab {
    name: String,
    dir: PathBuf,
    segments: usize,
    pub hosts: Vec<Host>,
}

impl Lab {
    /// Makes `count` hosts. Needs root; a test that cannot have it is not run (`#[ignore]`).
    pub fn new(count: usize) -> Lab {
        Lab::routed(count, 1)
    }

    /// The same on so many segments of the network, host by host in turn; the switch routes between them.
    pub fn routed(count: usize, segments: usize) -> Lab {
        sweep();
        let name = format!("{PREFIX}{}", std::process::id());
        let dir = labs_dir().join(&name);
        fs::create_dir_all(&dir).unwrap();
        let mut lab = Lab { name, dir, segments, hosts: Vec::new() };
        let switch = lab.switch();
        run("ip", &["netns", "add", &switch]);
        run("ip", &["-n", &switch, "link", "set", "lo", "up"]);
        for forwarding in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
            run("ip", &["netns", "exec", &switch, "sysctl", "-q", "-w", forwarding]);
        }
        for segment in 0..segments {
            let bridge = format!("br{segment}");
            let (address, address6) = (format!("{}/24", gateway(segment)), format!("{}/64", gateway6(segment)));
            for args in [
                ["link", "add", &bridge, "type", "bridge"].as_slice(),
                &["link", "set", &bridge, "up"],
                &["addr", "add", &address, "dev", &bridge],
                &["addr", "add", &address6, "dev", &bridge, "nodad"],
            ] {
                run("ip", &[&["-n", &switch], args].concat());
            }
        }
        for _ in 0..count {
            lab.add_host();
        }
        lab
    }

    fn switch(&self) -> String {
        format!("{}-sw", self.name)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn add_host(&mut self) -> usize {
        let index = self.hosts.len() + 1;
        let segment = (index - 1) % self.segments;
        let host = Host::new(&self.name, &self.switch(), &self.dir, index, segment);
        self.hosts.push(host);
        self.hosts.len() - 1
    }

    /// The network namespace in which the bridge stands.
    pub fn switch_netns(&self) -> PathBuf {
        Path::new("/run/netns").join(self.switch())
    }

    /// A process in the namespace of the switch, for what stands beside the hosts (a registry).
    pub fn beside(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.switch(), program]);
        command
    }
}

/// The switch on a segment, which is the way to the others.
fn gateway(segment: usize) -> String {
    format!("10.99.{segment}.254")
}

fn gateway6(segment: usize) -> String {
    format!("fd99:0:0:{segment}::254")
}

/// Labs are named after the process they belong to.
const PREFIX: &str = "fl";

/// On a disk: overlayfs and fsync are to be the real ones.
fn labs_dir() -> PathBuf {
    std::env::var_os("FLOK_E2E_DIR").map_or_else(|| PathBuf::from("/var/tmp/flok-e2e"), PathBuf::from)
}

/// Removes what a run that was killed has left. Its processes ended with it.
fn sweep() {
    let stale = |name: &str| {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists())
    };
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().collect::<Vec<_>>();
    for entry in entries(Path::new("/run/netns")) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if stale(&name) {
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
    for entry in entries(&labs_dir()) {
        if stale(&entry.file_name().to_string_lossy()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for host in &self.hosts {
                eprintln!("--- n{}: the end of its daemon's log\n{}", host.index, host.log_tail());
            }
        }
        if std::env::var_os("FLOK_E2E_KEEP").is_some() {
            eprintln!("kept: {}", self.dir.display());
            return;
        }
        self.hosts.iter_mut().for_each(Host::remove);
        let _ = Command::new("ip").args(["netns", "del", &self.switch()]).output();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub struct Host {
    pub index: usize,
    segment: usize,
    name: String,
    link: String,
    switch: String,
    pub dir: PathBuf,
    /// Whether its daemon speaks to the others by IPv6.
    pub by_ipv6: bool,
    init: Option<Child>,
    daemon: Option<Child>,
    /// The API's socket, where daemons are given it.
    handed_over: Option<UnixListener>,
}

impl Host {
    fn new(lab: &str, switch: &str, dir: &Path, index: usize, segment: usize) -> Host {
        let name = format!("{lab}-n{index}");
        let link = format!("{lab}v{index}");
        let dir = dir.join(format!("n{index}"));
        fs::create_dir_all(dir.join("data")).unwrap();
        let switch = switch.to_owned();
        let mut host = Host {
            index,
            segment,
            name,
            link,
            switch,
            dir,
            by_ipv6: false,
            init: None,
            daemon: None,
            handed_over: None,
        };
        host.boot();
        host
    }

    /// Makes the namespaces and starts pid 1; after a death, this is the machine being switched on again.
    pub fn boot(&mut self) {
        assert!(self.init.is_none(), "the host is up");
        run("ip", &["netns", "add", &self.name]);
        run(
            "ip",
            &[
                "link",
                "add",
                &self.link,
                "netns",
                &self.switch,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                &self.name,
            ],
        );
        run("ip", &["-n", &self.switch, "link", "set", &self.link, "master", &format!("br{}", self.segment), "up"]);
        let (address, address6) = (format!("{}/24", self.addr()), format!("{}/64", self.addr6()));
        run("ip", &["-n", &self.name, "addr", "add", &address, "dev", "eth0"]);
        run("ip", &["-n", &self.name, "addr", "add", &address6, "dev", "eth0", "nodad"]);
        run("ip", &["-n", &self.name, "link", "set", "lo", "up"]);
        run("ip", &["-n", &self.name, "link", "set", "eth0", "up"]);
        run("ip", &["-n", &self.name, "route", "add", "default", "via", &gateway(self.segment)]);
        run("ip", &["-n", &self.name, "-6", "route", "add", "default", "via", &gateway6(self.segment)]);
        let script = format!(
            "mount --make-rprivate / && mount -t tmpfs tmpfs /run && \
             mount -t proc proc /proc && hostname {} && touch {}/up && while :; do sleep 1000 & wait -n; done",
            self.name(),
            self.dir.display()
        );
        let _ = fs::remove_file(self.dir.join("up"));
        // Not by `ip netns exec`, which mounts a /sys without cgroups.
        let mut unshare = Command::new("nsenter");
        unshare
            .arg(format!("--net=/run/netns/{}", self.name))
            .args(["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"])
            .args(["bash", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        // A test that is killed takes its hosts along.
        // SAFETY: prctl is safe to call between fork and exec.
        unsafe {
            unshare.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let init = unshare.spawn().unwrap();
        self.init = Some(init);
        eventually("the host to boot", Duration::from_secs(10), || {
            if self.dir.join("up").exists() { Ok(()) } else { Err("not yet".into()) }
        });
        self.show_no_load();
    }

    pub fn addr(&self) -> String {
        format!("10.99.{}.{}", self.segment, self.index)
    }

    pub fn addr6(&self) -> String {
        format!("fd99:0:0:{}::{}", self.segment, self.index)
    }

    /// The switch, as it is seen from this host.
    pub fn gateway(&self) -> String {
        gateway(self.segment)
    }

    pub fn gateway6(&self) -> String {
        gateway6(self.segment)
    }

    /// The one that the others know.
    pub fn underlay(&self) -> String {
        if self.by_ipv6 { self.addr6() } else { self.addr() }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("flok.sock")
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.join("daemon.log")
    }

    fn clock_path(&self) -> PathBuf {
        self.dir.join("clock")
    }

    /// pid 1 of the host, as the machine outside numbers it.
    fn pid1(&self) -> u32 {
        let unshare = self.init.as_ref().expect("the host is up").id();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
        children.split_whitespace().next().expect("pid 1 runs").parse().unwrap()
    }

    /// A path of the host's own mounts, as a test reaches it.
    pub fn seen_from_outside(&self, path: &Path) -> PathBuf {
        Path::new("/proc").join(self.pid1().to_string()).join("root").join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Its network namespace.
    pub fn netns(&self) -> PathBuf {
        Path::new("/proc").join(self.pid1().to_string()).join("ns/net")
    }

    /// A command in the host's namespaces.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let pid1 = self.pid1().to_string();
        command.args(["-t", &pid1, "-m", "-p", "-n", "-u", "-i", "--"]).arg(program);
        command
    }

    /// Starts the daemon; returns once its API answers.
    pub fn start_daemon(&mut self, extra: &[&str]) {
        self.launch_daemon(extra);
        self.wait_ready();
    }

    /// Starts the daemon on a machine whose clock is off: `+400d`, `-2h`. Its monotonic clock is the real one.
    pub fn start_daemon_at(&mut self, offset: &str, extra: &[&str]) {
        let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1".replace("x86_64", std::env::consts::ARCH);
        assert!(Path::new(&library).exists(), "{library} is missing: install Debian's libfaketime");
        self.set_clock(offset);
        let file = self.clock_path().display().to_string();
        let clock = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", &file),
            ("FAKETIME_CACHE_DURATION", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        self.launch_daemon_with(extra, &clock);
        self.wait_ready();
    }

    /// Sets the clock that a daemon of [`Self::start_daemon_at`] reads; it looks each second.
    pub fn set_clock(&self, offset: &str) {
        // In one step: half of it would be another time.
        let new = self.clock_path().with_extension("new");
        fs::write(&new, format!("{offset}\n")).unwrap();
        fs::rename(&new, self.clock_path()).unwrap();
    }

    /// Starts the daemon, which may not come up.
    pub fn launch_daemon(&mut self, extra: &[&str]) {
        self.launch_daemon_with(extra, &[]);
    }

    pub fn launch_daemon_with(&mut self, extra: &[&str], variables: &[(&str, &str)]) {
        assert!(self.daemon.is_none(), "the daemon runs");
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = match &self.handed_over {
            None => self.command("env"),
            // As systemd does, for a unit with a socket.
            Some(socket) => {
                let mut command = self.command("bash");
                let script = "[ \"$0\" = 3 ] || { exec 3<&\"$0\"; eval \"exec $0<&-\"; }; \
                    LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";
                command.args(["-c", script, &socket.as_raw_fd().to_string(), "env"]);
                command
            }
        };
        command
            .args(variables.iter().map(|(name, value)| format!("{name}={value}")))
            .arg(flok())
            .arg("daemon")
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--socket")
            .arg(self.socket())
            .args(["--listen-addr", &self.underlay()])
            .args(extra)
            .env("FLOK_LOG_LEVEL", std::env::var("FLOK_E2E_LOG").unwrap_or_else(|_| "info,flok=debug".into()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        // Of a group of its own, so that signals go to it alone.
        self.daemon = Some(command.process_group(0).spawn().unwrap());
    }

    pub fn wait_ready(&self) {
        eventually("the daemon to answer", Duration::from_secs(30), || {
            let output = self.flok(&["version"]);
            if output.status.success() {
                return Ok(());
            }
            Err(format!("{}\n{}", String::from_utf8_lossy(&output.stderr), self.log_tail()))
        });
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// The daemon's own process: nsenter forks it into the PID namespace.
    fn daemon_pid(&self) -> Option<String> {
        child_of(self.daemon.as_ref()?)
    }

    /// The next daemons are given their socket, which outlives them.
    pub fn hand_socket_over(&mut self) {
        assert!(self.daemon.is_none(), "the daemon runs, on a socket of its own");
        let socket = UnixListener::bind(self.socket()).unwrap();
        fcntl(&socket, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        self.handed_over = Some(socket);
    }

    /// SIGTERM, and waits for the end.
    pub fn stop_daemon(&mut self) {
        self.end_daemon("-TERM");
    }

    /// SIGKILL; containers go on.
    pub fn kill_daemon(&mut self) {
        self.end_daemon("-KILL");
    }

    pub fn end_daemon_if_it_runs(&mut self) {
        if self.daemon_pid().is_some() {
            self.end_daemon("-TERM");
        } else if let Some(mut daemon) = self.daemon.take() {
            daemon.wait().unwrap();
        }
    }

    fn end_daemon(&mut self, signal: &str) {
        let pid = self.daemon_pid().expect("the daemon runs");
        run("kill", &[signal, &pid]);
        let mut daemon = self.daemon.take().expect("the daemon runs");
        daemon.wait().unwrap();
    }

    /// Of the host, and so of its node.
    pub fn name(&self) -> String {
        format!("n{}", self.index)
    }

    /// `flok` on this host, speaking to its daemon.
    pub fn client(&self) -> Command {
        let mut command = self.command(flok());
        command.env("FLOK_STABLE_FOR", "1s");
        command.arg("--host").arg(format!("unix://{}", self.socket().display()));
        command
    }

    /// `flok ARGS...` on this host.
    pub fn flok(&self, args: &[&str]) -> Output {
        self.client().args(args).output().unwrap()
    }

    fn ctr(&self, args: &[&str]) -> String {
        let socket = self.data_dir().join("containerd/containerd.sock");
        let output = self.command("ctr").arg("-a").arg(socket).args(["-n", "flok"]).args(args).output().unwrap();
        assert!(output.status.success(), "ctr {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Ids of the containers that containerd holds.
    pub fn containers(&self) -> Vec<String> {
        self.ctr(&["containers", "ls", "-q"]).lines().map(str::to_owned).collect()
    }

    /// Ids of those whose process runs.
    pub fn running_containers(&self) -> Vec<String> {
        let list = self.ctr(&["tasks", "ls"]);
        let running = list.lines().filter(|line| line.contains("RUNNING"));
        running.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    }

    /// The process ids of those containers, as the host numbers them.
    pub fn running_processes(&self) -> Vec<String> {
        let list = self.ctr(&["tasks", "ls"]);
        let running = list.lines().filter(|line| line.contains("RUNNING"));
        running.filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect()
    }

    /// A command in the namespaces of a container, and so with its files.
    pub fn in_container(&self, id: &str, program: &str) -> Command {
        let list = self.ctr(&["tasks", "ls"]);
        let line = list.lines().find(|line| line.starts_with(id)).unwrap_or_else(|| panic!("{id} runs not: {list}"));
        let pid = line.split_whitespace().nth(1).unwrap();
        let mut command = self.command("nsenter");
        command.args(["-t", pid, "-m", "-u", "-n", "-p", "--", program]);
        command
    }

    /// Makes the host see so many percent of its memory in use, as if by something outside of the swarm.
    pub fn show_memory_used(&self, percent: u64) {
        let real = fs::read_to_string("/proc/meminfo").unwrap();
        let kib = |line: &str| line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
        let total = real.lines().find(|line| line.starts_with("MemTotal:")).and_then(kib).expect("there is memory");
        let left = total * (100 - percent) / 100;
        let available = |line: &str| match line.starts_with("MemAvailable:") {
            true => format!("MemAvailable: {left} kB\n"),
            false => format!("{line}\n"),
        };
        self.show("meminfo", &real.lines().map(available).collect::<String>());
    }

    /// Makes the host see that something waits for a CPU in so many percent of the time.
    pub fn show_cpu_pressure(&self, percent: u64) {
        self.show("pressure/cpu", &format!("some avg10={percent}.00 avg60=0.00 avg300=0.00 total=0\n"));
    }

    /// Hosts share a machine, but each is to have a load of its own: none, until a test says otherwise.
    fn show_no_load(&self) {
        self.show_memory_used(10);
        self.show_cpu_pressure(0);
        for other in ["memory", "io"] {
            self.show(&format!("pressure/{other}"), "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n");
        }
        // Without progress there is nothing to measure.
        self.show("stat", &fs::read_to_string("/proc/stat").unwrap());
    }

    fn show(&self, file: &str, text: &str) {
        let shown = self.dir.join("proc").join(file);
        fs::create_dir_all(shown.parent().expect("it is below the host's directory")).unwrap();
        fs::write(&shown, text).unwrap();
        let of_proc = format!("/proc/{file}");
        // A kernel without PSI has no such files, and flok then knows of no pressure.
        let cover = "test ! -e $1 || mountpoint -q $1 || mount --bind $2 $1";
        let output = self.command("bash").args(["-c", cover, "-", &of_proc]).arg(&shown).output().unwrap();
        assert!(output.status.success(), "{of_proc}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Moves the data directory to a file system of its own, of so many MiB. The host's daemon must not run.
    pub fn move_data_to_a_disk_of(&self, mib: u32) {
        let image = self.dir.join("disk");
        let data = self.data_dir();
        let script = format!(
            "truncate -s {mib}M {image} && mkfs.ext4 -q {image} && mount -o loop {image} /mnt && \
             tar -C {data} --exclude=containerd -c . | tar -C /mnt -x && umount /mnt && mount -o loop {image} {data}",
            image = image.display(),
            data = data.display(),
        );
        let output = self.command("bash").args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Fills the file system of the data directory to the last byte.
    pub fn fill_disk(&self) -> PathBuf {
        let filler = self.data_dir().join("filler");
        let target = format!("of={}", filler.display());
        let output = self.command("dd").args(["if=/dev/zero", &target, "bs=4096"]).output().unwrap();
        assert!(!output.status.success(), "the disk did not fill up");
        filler
    }

    /// SIGKILL to a container's process, behind the daemon's back.
    pub fn kill_container(&self, id: &str) {
        self.ctr(&["tasks", "kill", "-s", "SIGKILL", id]);
    }

    /// The directory of a named local volume.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.data_dir().join("volumes").join(name).join("_data")
    }

    /// The same, which must succeed; its output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.flok(args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "n{}: flok {args:?}: {text}{errors}\n{}", self.index, self.log_tail());
        text
    }

    /// The same, which must fail; what it said.
    pub fn refused(&self, args: &[&str]) -> String {
        let output = self.flok(args);
        assert!(!output.status.success(), "flok {args:?} succeeded: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Parsed `--format json` output.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let text = self.ok(&[args, &["--format", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("flok {args:?}: {error}: {text}"))
    }

    /// A GET on the Engine API, as JSON.
    pub fn get(&self, path: &str) -> Result<serde_json::Value, String> {
        let socket = self.socket();
        let url = format!("http://flok{path}");
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "5", "--unix-socket"])
            .arg(&socket)
            .arg(&url)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).map_err(|_| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// The link goes down; everything on the host goes on.
    pub fn cut(&self) {
        run("ip", &["-n", &self.switch, "link", "set", &self.link, "down"]);
    }

    pub fn heal(&self) {
        run("ip", &["-n", &self.switch, "link", "set", &self.link, "up"]);
    }

    /// Drops this share of what the host sends and receives.
    pub fn lose(&self, percent: u32) {
        let drop = |device: &str| {
            format!(
                "table netdev loss_{device} {{ chain in {{ type filter hook ingress device {device} priority 0; \
                 numgen random mod 100 < {percent} drop; }}; }}"
            )
        };
        let mut received = self.command("nft");
        let mut sent = Command::new("ip");
        sent.args(["netns", "exec", &self.switch, "nft"]);
        for (command, device) in [(&mut received, "eth0"), (&mut sent, self.link.as_str())] {
            let output = command.arg(drop(device)).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// As a power cut: link down, every process gone in the same instant.
    pub fn die(&mut self) {
        self.cut();
        let pid1 = self.pid1().to_string();
        run("kill", &["-KILL", &pid1]);
        if let Some(mut init) = self.init.take() {
            init.wait().unwrap();
        }
        if let Some(mut daemon) = self.daemon.take() {
            daemon.wait().unwrap();
        }
        self.remove_cgroups();
        // The kernel takes a namespace apart in its own time; the link must be gone when the host boots again.
        let _ = Command::new("ip").args(["-n", &self.switch, "link", "del", &self.link]).output();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }

    /// Hosts share the machine's cgroups, which a real machine would lose with its power.
    fn remove_cgroups(&self) {
        let state = self.data_dir().join("containerd/state/io.containerd.runtime.v2.task/flok");
        let ids = fs::read_dir(state).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let hierarchies: Vec<_> = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().collect();
        for id in ids {
            for hierarchy in &hierarchies {
                let _ = fs::remove_dir(hierarchy.path().join("flok").join(&id));
            }
            let _ = fs::remove_dir(Path::new("/sys/fs/cgroup/flok").join(&id));
        }
    }

    pub fn is_up(&self) -> bool {
        self.init.is_some()
    }

    fn remove(&mut self) {
        if self.init.is_some() {
            self.die();
        }
    }
}

/// What `nsenter` has started for [`Host::command`].
pub fn child_of(nsenter: &Child) -> Option<String> {
    let parent = nsenter.id();
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    Some(children.split_whitespace().next()?.to_owned())
}

/// The binary under test: this build's, or the one that `FLOK_E2E_BIN` names.
pub fn flok() -> OsString {
    std::env::var_os("FLOK_E2E_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_flok").into())
}
