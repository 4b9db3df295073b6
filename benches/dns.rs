//! Look-ups answered by the resolver a second of its CPU time, and how long one takes, on a network of 1,000 services with
//! ten tasks each. Needs root: the resolver serves a real network namespace, and whoever asks is in it.
//!
//! `cargo bench --bench dns`; `-- --short` a quick pass, to see that it runs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use flok::dispatcher::{Endpoint, NetworkView, Networks, ServiceView};
use flok::network::dns::{Client, Resolver, ResolverConfig, ServedTask};
use flok::spec::{NetworkId, NodeId, ServiceId, TaskId};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

const SERVICES: u32 = 1_000;
const TASKS_EACH: u32 = 10;
/// Questions under way at once, over all askers.
const WINDOW: usize = 64;
const ASKERS: usize = 2;

fn main() {
    let short = std::env::args().any(|arg| arg == "--short");
    let questions = if short { 2_000 } else { 400_000 };
    let dir = std::env::temp_dir().join(format!("flok-bench-dns-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory for the run");
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("root");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>).expect("own mounts");
    // The daemon's side runs beside what asks and waits here.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let (resolver, pid) = runtime.block_on(serve(&dir, questions));
    drop(resolver);
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    let _ = fs::remove_dir_all(&dir);
}

async fn serve(dir: &Path, questions: usize) -> (Resolver, i32) {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_flok"));
    let resolver = Resolver::start(ResolverConfig { dir: dir.join("resolver"), binary });
    let task = namespace(dir, 1);
    // On no network yet: what follows is the networks' own cost.
    resolver.serve(ServedTask { client: Client::default(), ..task.clone() }).await.expect("served");
    let socket = tokio::net::UnixStream::connect(dir.join("resolver/resolver.sock")).await.expect("it listens");
    let pid = socket.peer_cred().ok().and_then(|peer| peer.pid()).expect("it has a pid");
    let empty = memory_kib(pid);

    let whole = networks();
    let (began, cpu) = (now(), cpu_time(pid));
    resolver.set_networks(whole.clone());
    resolver.serve(task.clone()).await.expect("served");
    println!(
        "a snapshot of {} tasks in force after {:.1?}, CPU {:.1?}",
        SERVICES * TASKS_EACH,
        began.elapsed(),
        cpu_time(pid) - cpu
    );
    println!("memory (RSS) {} KiB, {} KiB before", memory_kib(pid), empty);

    for (what, name, kind) in
        [("a service's VIP", "service{}", 1), ("its ten tasks", "tasks.service{}", 1), ("no data", "service{}", 28)]
    {
        let (wall, cpu) = (now(), cpu_time(pid));
        let mut times = ask_many(&task.netns, name, kind, questions);
        let (wall, cpu) = (wall.elapsed(), cpu_time(pid) - cpu);
        times.sort();
        println!(
            "{what:<16} {:>8.0} answers a CPU second ({:.0} a second of wall time, resolver and askers together); \
             with {WINDOW} under way p50 {:.0?}, p99 {:.0?}",
            questions as f64 / cpu.as_secs_f64(),
            questions as f64 / wall.as_secs_f64(),
            times[times.len() / 2],
            times[times.len() * 99 / 100],
        );
    }
    let mut alone = one_by_one(&task.netns, questions / 20);
    alone.sort();
    println!("one at a time: p50 {:.0?}, p99 {:.0?}", alone[alone.len() / 2], alone[alone.len() * 99 / 100]);

    let more = 100;
    let namespaces: Vec<ServedTask> = (2..2 + more).map(|id| namespace(dir, id)).collect();
    let (began, before) = (cpu_time(pid), memory_kib(pid));
    for task in namespaces {
        resolver.serve(task).await.expect("served");
    }
    println!(
        "a task more: {:.0?} of CPU, {} KiB of memory",
        (cpu_time(pid) - began) / more as u32,
        (memory_kib(pid) - before) / more as u64
    );
    (resolver, pid)
}

fn namespace(dir: &Path, id: u128) -> ServedTask {
    let netns = dir.join(format!("{id}.netns"));
    File::create(&netns).expect("a file to hold it");
    let held = netns.clone();
    let made = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root");
        Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip");
        mount(Some("/proc/thread-self/ns/net"), &held, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("held");
    });
    made.join().expect("made");
    let client = Client { networks: vec![NetworkId(1)], stack: None, servers: Vec::new() };
    ServedTask { task: TaskId(id), netns, client }
}

fn networks() -> Networks {
    let address = |number: u32| IpAddr::from((0x0a00_0000 + number).to_be_bytes());
    let services = (0..SERVICES).map(|number| {
        let service = ServiceView {
            name: format!("shop_service{number}"),
            aliases: vec![format!("service{number}")],
            vips: vec![address(number)],
            ports: Vec::new(),
        };
        (ServiceId(number.into()), service)
    });
    let endpoints = (0..SERVICES * TASKS_EACH).map(|number| {
        let endpoint = Endpoint {
            service: ServiceId((number / TASKS_EACH).into()),
            node: NodeId(1),
            addresses: vec![address(SERVICES + number)],
            names: vec![format!("{number:012x}"), format!("shop_service{}.{number}.x", number / TASKS_EACH)],
            serving: true,
        };
        (TaskId(number.into()), endpoint)
    });
    let view = NetworkView {
        mtu: None,
        name: "shop_default".into(),
        subnets: vec!["10.0.0.0/8".parse().expect("a subnet")],
        internal: false,
        ingress: false,
        services: services.collect(),
        endpoints: endpoints.collect(),
    };
    Networks { list: BTreeMap::from([(NetworkId(1), Arc::new(view))]) }
}

/// How long each of so many look-ups took, each asker with its share of the window under way.
fn ask_many(netns: &Path, name: &'static str, kind: u16, questions: usize) -> Vec<Duration> {
    let askers: Vec<_> = (0..ASKERS)
        .map(|_| {
            let netns = netns.to_owned();
            thread::spawn(move || {
                let socket = connect(&netns);
                let window = WINDOW / ASKERS;
                let mut sent = vec![now(); window];
                let mut times = Vec::with_capacity(questions / ASKERS);
                let ask = |number: usize, id: usize| {
                    let name = name.replace("{}", &(number as u32 % SERVICES).to_string());
                    socket.send(&question(id as u16, &name, kind)).expect("sent");
                };
                for (id, at) in sent.iter_mut().enumerate() {
                    *at = now();
                    ask(id, id);
                }
                let mut answer = [0; 4096];
                for number in window..questions / ASKERS + window {
                    let length = socket.recv(&mut answer).expect("an answer");
                    assert!(length > 12 && answer[3] & 15 == 0, "not an answer");
                    let id = usize::from(u16::from_be_bytes([answer[0], answer[1]]));
                    times.push(sent[id].elapsed());
                    sent[id] = now();
                    ask(number, id);
                }
                times
            })
        })
        .collect();
    askers.into_iter().flat_map(|asker| asker.join().expect("an asker")).collect()
}

fn one_by_one(netns: &Path, questions: usize) -> Vec<Duration> {
    let socket = connect(netns);
    let mut answer = [0; 4096];
    let look_up = |number: usize| {
        let began = now();
        socket.send(&question(1, &format!("service{}", number as u32 % SERVICES), 1)).expect("sent");
        socket.recv(&mut answer).expect("an answer");
        began.elapsed()
    };
    (0..questions.max(100)).map(look_up).collect()
}

fn connect(netns: &Path) -> UdpSocket {
    let netns = File::open(netns).expect("the namespace");
    let opened = thread::spawn(move || {
        setns(netns, CloneFlags::CLONE_NEWNET).expect("root");
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        socket.connect("127.0.0.11:53").expect("connected");
        socket
    });
    opened.join().expect("opened")
}

fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

/// User and system time of the process so far, to 10 ms.
fn cpu_time(pid: i32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let after_name = stat.rsplit_once(") ").expect("a name in brackets").1;
    let ticks: u64 = after_name.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 10)
}

fn memory_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn now() -> Instant {
    Instant::now()
}
