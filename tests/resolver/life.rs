//! What the resolver answers itself, and that it goes on whatever happens to the daemon.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use flok::network::dns::Client;
use tokio::time::{sleep, timeout};

use super::client::{OK, Reply, ask_by_stream, exchange, look_up, question, reply};
use super::host::{networks, on_a_host, on_the_network, run, within};

const VIP: &str = "10.0.1.2";

fn found(addresses: &[&str]) -> Reply {
    Reply { code: OK, truncated: false, addresses: addresses.iter().map(|address| address.parse().unwrap()).collect() }
}

/// The state is what is waited for; the pause only spares the processor.
async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let held = async {
        while !holds().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), held).await.expect("the state does not come");
}

#[test]
#[ignore = "needs root"]
fn a_task_finds_names_at_port_53_and_may_have_that_port_itself() {
    on_a_host("", |host| async move {
        let resolver = host.resolver();
        resolver.set_networks(networks(&["10.0.1.11", "10.0.1.12"]));
        let task = host.task(1, on_the_network());
        resolver.serve(task.clone()).await.unwrap();
        let _own =
            within(&task.netns, || (UdpSocket::bind("0.0.0.0:53").unwrap(), TcpListener::bind("0.0.0.0:53").unwrap()));
        assert_eq!(look_up(&task.netns, "WEB"), found(&[VIP]));
        assert_eq!(look_up(&task.netns, "tasks.web"), found(&["10.0.1.11", "10.0.1.12"]));
        let answer = ask_by_stream(&task.netns, question("web.shop", 1, None)).unwrap();
        assert_eq!(reply(&answer), found(&[VIP]));
    });
}

#[test]
#[ignore = "needs root"]
fn the_resolver_of_the_c_library_understands_the_answers() {
    on_a_host("", |host| async move {
        let resolver = host.resolver();
        let many: Vec<String> = (10..250).map(|last| format!("10.0.1.{last}")).collect();
        resolver.set_networks(networks(&many.iter().map(String::as_str).collect::<Vec<_>>()));
        let task = host.task(1, on_the_network());
        resolver.serve(task.clone()).await.unwrap();
        // Without an address of a family the library does not ask for its records.
        within(&task.netns, || run("ip", &["address", "add", "10.0.1.10/32", "dev", "lo"]));
        fs::write(host.dir.join("task.conf"), "nameserver 127.0.0.11\noptions ndots:0\n").unwrap();
        let getent = |database: &str, key: &str| {
            let inside = format!(
                "mount --bind {} /etc/resolv.conf && getent {database} {key}",
                host.dir.join("task.conf").display()
            );
            let netns = format!("--net={}", task.netns.display());
            let output = Command::new("nsenter").args([&netns, "unshare", "-m", "sh", "-c", &inside]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let web = getent("ahostsv4", "web");
        assert!(web.starts_with(VIP), "{web}");
        // More than a datagram holds: it asks again by a connection.
        assert_eq!(getent("ahostsv4", "tasks.web").lines().filter(|line| line.contains("STREAM")).count(), 240);
        assert!(getent("hosts", "10.0.1.10").contains("shop_web.0.x.shop_default"));
        assert_eq!(getent("ahostsv6", "web"), "");
    });
}

#[test]
#[ignore = "needs root"]
fn changes_are_in_force_when_they_are_confirmed_and_a_forgotten_task_is_not_served() {
    on_a_host("", |host| async move {
        let resolver = host.resolver();
        resolver.set_networks(networks(&["10.0.1.11"]));
        let (one, two) = (host.task(1, on_the_network()), host.task(2, on_the_network()));
        resolver.serve(one.clone()).await.unwrap();
        resolver.set_networks(networks(&[]));
        resolver.serve(two.clone()).await.unwrap();
        assert_eq!(look_up(&one.netns, "web"), found(&[]));
        resolver.forget(one.task);
        until(async || ask_by_stream(&one.netns, question("web", 1, None)).is_err()).await;
        assert_eq!(look_up(&two.netns, "web"), found(&[]));
    });
}

#[test]
#[ignore = "needs root"]
fn a_task_is_served_once_its_networks_are_known() {
    on_a_host("", |host| async move {
        let resolver = host.resolver();
        let task = host.task(1, on_the_network());
        let (teller, told) = (resolver.clone(), networks(&["10.0.1.11"]));
        let tell = async {
            // The task is served, but for its networks.
            until(async || is_served(&task.netns)).await;
            teller.set_networks(told);
        };
        let (served, ()) = tokio::join!(resolver.serve(task.clone()), tell);
        served.unwrap();
        assert_eq!(look_up(&task.netns, "web"), found(&[VIP]));
    });
}

/// Whether anybody answers.
fn is_served(netns: &Path) -> bool {
    ask_by_stream(netns, question("web", 1, None)).is_ok()
}

#[test]
#[ignore = "needs root"]
fn garbage_harms_nobody() {
    on_a_host("", |host| async move {
        let resolver = host.resolver();
        resolver.set_networks(networks(&["10.0.1.11"]));
        let task = host.task(1, on_the_network());
        resolver.serve(task.clone()).await.unwrap();
        within(&task.netns, || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            let mut state = 1u64;
            for length in 0..2000usize {
                let bytes: Vec<u8> = (0..length % 700)
                    .map(|_| {
                        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                        (state >> 56) as u8
                    })
                    .collect();
                socket.send_to(&bytes, "127.0.0.11:53").unwrap();
            }
        });
        let pid = host.resolver_pid().await;
        assert!(ask_by_stream(&task.netns, vec![0xff; 4]).is_err());
        // A full queue loses what came last: asked until it is empty again.
        let netns = task.netns.clone();
        let answer = within(&netns, || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            socket.connect("127.0.0.11:53").unwrap();
            (0..50).find_map(|_| exchange(&socket, &question("web", 1, None)).ok())
        });
        assert_eq!(reply(&answer.unwrap()), found(&[VIP]));
        assert_eq!(host.resolver_pid().await, pid);
    });
}

#[test]
#[ignore = "needs root"]
fn look_ups_go_on_without_a_daemon_and_the_next_one_takes_up_where_it_was() {
    on_a_host("", |host| async move {
        let first = host.resolver();
        first.set_networks(networks(&["10.0.1.11"]));
        let (one, two) = (host.task(1, on_the_network()), host.task(2, on_the_network()));
        first.serve(one.clone()).await.unwrap();
        first.serve(two.clone()).await.unwrap();
        let pid = host.resolver_pid().await;
        let asker = Asker::start(one.netns.clone());
        drop(first);
        asker.answers(50).await;
        let second = host.resolver();
        // It knows neither tasks nor networks yet.
        asker.answers(50).await;
        second.adopt(vec![one.clone()]);
        until(async || ask_by_stream(&two.netns, question("web", 1, None)).is_err()).await;
        second.set_networks(networks(&["10.0.1.12"]));
        second.serve(two.clone()).await.unwrap();
        assert_eq!(look_up(&two.netns, "tasks.web"), found(&["10.0.1.12"]));
        asker.stop();
        assert_eq!(host.resolver_pid().await, pid);
    });
}

#[test]
#[ignore = "needs root"]
fn a_resolver_of_another_version_takes_over_without_a_look_up_lost() {
    on_a_host("", |host| async move {
        let first = host.resolver();
        first.set_networks(networks(&["10.0.1.11"]));
        let tasks: Vec<_> = (1..=150).map(|id| host.task(id, on_the_network())).collect();
        for task in &tasks {
            first.serve(task.clone()).await.unwrap();
        }
        let old = host.resolver_pid().await.unwrap();
        let asker = Asker::start(tasks[0].netns.clone());
        drop(first);
        let other = host.dir.join("flok-of-another-version");
        fs::copy(env!("CARGO_BIN_EXE_flok"), &other).unwrap();
        let second = host.resolver_of(&other);
        until(async || host.resolver_pid().await.is_some_and(|pid| pid != old)).await;
        until(async || !is_running(old)).await;
        asker.answers(50).await;
        asker.stop();
        // What the old one knew is known, by all.
        assert_eq!(look_up(&tasks[149].netns, "tasks.web"), found(&["10.0.1.11"]));
        second.adopt(tasks.clone());
        second.set_networks(networks(&["10.0.1.12"]));
        second.serve(tasks[0].clone()).await.unwrap();
        until(async || look_up(&tasks[149].netns, "tasks.web") == found(&["10.0.1.12"])).await;
    });
}

#[test]
#[ignore = "needs root"]
fn a_resolver_that_dies_is_started_again_and_serves_the_same() {
    on_a_host("", |host| async move {
        let resolver = host.resolver();
        resolver.set_networks(networks(&["10.0.1.11"]));
        let task = host.task(1, on_the_network());
        resolver.serve(task.clone()).await.unwrap();
        let old = host.resolver_pid().await.unwrap();
        host.kill_resolver().await;
        until(async || host.resolver_pid().await.is_some_and(|pid| pid != old)).await;
        until(async || ask_by_stream(&task.netns, question("web", 1, None)).is_ok()).await;
        assert_eq!(look_up(&task.netns, "web"), found(&[VIP]));
    });
}

#[test]
#[ignore = "needs root"]
fn a_task_that_cannot_be_served_is_refused_with_the_reason() {
    on_a_host("", |host| async move {
        let resolver = host.resolver();
        let mut task = host.task(1, Client::default());
        task.netns = host.dir.join("nowhere");
        let error = resolver.serve(task).await.unwrap_err().to_string();
        assert!(error.contains("No such file"), "{error}");
    });
}

fn is_running(pid: i32) -> bool {
    // One that has ended and is not waited for yet is a zombie, without a program.
    fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

/// Looks `web` up all the time, each question sent once.
struct Asker {
    thread: std::thread::JoinHandle<()>,
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
}

impl Asker {
    fn start(netns: PathBuf) -> Asker {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&answers));
        let thread = std::thread::spawn(move || {
            within(&netns, move || {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                socket.connect("127.0.0.11:53").unwrap();
                while !stopped.load(Ordering::Relaxed) {
                    let answer = exchange(&socket, &question("web", 1, None)).expect("a look-up was lost");
                    assert_eq!(reply(&answer).addresses.len(), 1);
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        Asker { thread, stop, answers }
    }

    /// Returns when so many more have come, or it has failed.
    async fn answers(&self, more: usize) {
        let wanted = self.answers.load(Ordering::Relaxed) + more;
        until(async || self.answers.load(Ordering::Relaxed) >= wanted || self.thread.is_finished()).await;
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no look-up failed");
    }
}
