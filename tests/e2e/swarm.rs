//! A swarm on hosts of a [`Lab`], and what a test asks of it.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::lab::{Host, Lab, eventually};
use super::{images, registry};

/// Bound of every wait: long enough for a loaded machine; a state that has not come about by then never will.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// What every daemon of a swarm is started with.
pub const DAEMON: &[&str] = &["--insecure-registry", registry::ADDR];

pub struct Swarm(Lab);

impl Deref for Swarm {
    type Target = Lab;
    fn deref(&self) -> &Lab {
        &self.0
    }
}

impl DerefMut for Swarm {
    fn deref_mut(&mut self) -> &mut Lab {
        &mut self.0
    }
}

/// A task, as the Engine API shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Task {
    pub id: String,
    pub slot: u64,
    pub node: String,
    pub wanted: String,
    pub state: String,
    pub error: String,
    pub container: String,
}

impl Swarm {
    /// Managers, the first of which made the swarm.
    pub fn of(count: usize) -> Swarm {
        Swarm::routed(count, 1)
    }

    /// The same on so many segments of the network.
    pub fn routed(count: usize, segments: usize) -> Swarm {
        let mut lab = Lab::routed(count, segments);
        for host in &mut lab.hosts {
            host.start_daemon(DAEMON);
        }
        Swarm::begin(lab)
    }

    /// The same by IPv6 alone: that is what the daemons listen at and tell each other.
    pub fn by_ipv6(count: usize) -> Swarm {
        let mut lab = Lab::new(count);
        for host in &mut lab.hosts {
            host.by_ipv6 = true;
            host.start_daemon(DAEMON);
        }
        Swarm::begin(lab)
    }

    /// The same on hosts whose daemons run.
    pub fn begin(lab: Lab) -> Swarm {
        Swarm::begin_with(lab, &[])
    }

    /// The same, with what `swarm init` is told.
    pub fn begin_with(lab: Lab, settings: &[&str]) -> Swarm {
        let count = lab.hosts.len();
        lab.hosts[0].ok(&[&["swarm", "init"], settings].concat());
        let swarm = Swarm(lab);
        for index in 1..count {
            swarm.join(index, "manager");
        }
        swarm.nodes_are(0, count, "ready");
        swarm
    }

    /// Hosts whose daemons are in no swarm yet.
    pub fn apart(count: usize) -> Swarm {
        let mut lab = Lab::new(count);
        lab.hosts.iter_mut().for_each(|host| host.start_daemon(DAEMON));
        Swarm(lab)
    }

    pub fn token(&self, role: &str) -> String {
        self.hosts[0].ok(&["swarm", "join-token", "--quiet", role]).trim().to_owned()
    }

    pub fn join(&self, index: usize, role: &str) {
        let addr = self.hosts[0].underlay();
        self.hosts[index].ok(&["swarm", "join", "--token", &self.token(role), &addr]);
    }

    /// Puts an image of `docker/images.sh` on every host.
    pub fn load(&self, image: &str) {
        let archive = images::archive(image);
        for host in self.hosts.iter().filter(|host| host.is_up()) {
            host.ok(&["image", "load", "--quiet", "--input", archive.to_str().unwrap()]);
        }
    }

    /// Writes the stack file and deploys it by `flok stack deploy ARGS`; does not wait for convergence.
    pub fn deploy(&self, via: usize, name: &str, yaml: &str) {
        let file = self.stack_file(name, yaml);
        self.hosts[via].ok(&["stack", "deploy", "--detach", "-c", &file, name]);
    }

    pub fn stack_file(&self, name: &str, yaml: &str) -> String {
        let path = self.dir().join(format!("{name}.yml"));
        fs::write(&path, yaml).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The same in the background, for a client that will be killed.
    pub fn deploying(&self, via: usize, name: &str, yaml: &str) -> Child {
        let file = self.stack_file(name, yaml);
        let host = &self.hosts[via];
        let mut command = host.client();
        command.args(["stack", "deploy", "-c", &file, name]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// All tasks of a service that are not removed, as the daemon on `via` shows them.
    pub fn tasks(&self, via: usize, service: &str) -> Result<Vec<Task>, String> {
        let filter = format!("/tasks?filters=%7B%22service%22%3A%5B%22{service}%22%5D%7D");
        let answer = self.hosts[via].get(&filter)?;
        let list = answer.as_array().ok_or_else(|| answer.to_string())?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut tasks: Vec<Task> = list
            .iter()
            .map(|task| Task {
                id: text(&task["ID"]),
                slot: task["Slot"].as_u64().unwrap_or(0),
                node: text(&task["NodeID"]),
                wanted: text(&task["DesiredState"]),
                state: text(&task["Status"]["State"]),
                error: text(&task["Status"]["Err"]),
                container: text(&task["Status"]["ContainerStatus"]["ContainerID"]),
            })
            .collect();
        tasks.sort();
        Ok(tasks)
    }

    /// Waits until exactly `count` tasks are wanted and run; gives them.
    pub fn running(&self, via: usize, service: &str, count: usize) -> Vec<Task> {
        eventually(&format!("{count} running tasks of {service}"), PATIENCE, || {
            let all = self.tasks(via, service)?;
            let running = |task: &&Task| task.wanted == "running" && task.state == "running";
            let found: Vec<Task> = all.iter().filter(running).cloned().collect();
            let wanted = all.iter().filter(|task| task.wanted == "running").count();
            if found.len() == count && wanted == count { Ok(found) } else { Err(told(&all)) }
        })
    }

    /// Addresses of a task on the swarm's networks, but for the one that carries published ports.
    pub fn addresses(&self, via: usize, task: &str) -> Vec<IpAddr> {
        let task = self.hosts[via].get(&format!("/tasks/{task}")).unwrap();
        let networks = task["NetworksAttachments"].as_array().cloned().unwrap_or_default();
        let own = networks.iter().filter(|attachment| attachment["Network"]["Spec"]["Ingress"] != true);
        let texts = own.flat_map(|attachment| attachment["Addresses"].as_array().cloned().unwrap_or_default());
        texts.map(|text| text.as_str().unwrap().split('/').next().unwrap().parse().unwrap()).collect()
    }

    /// Waits until some task of the service is so.
    pub fn task_that(&self, via: usize, service: &str, what: &str, is: impl Fn(&Task) -> bool) -> Task {
        eventually(&format!("a task of {service} {what}"), PATIENCE, || {
            let all = self.tasks(via, service)?;
            all.iter().find(|task| is(task)).cloned().ok_or_else(|| told(&all))
        })
    }

    /// `GET /flok/v1/status`.
    pub fn status(&self, via: usize) -> Result<Value, String> {
        let status = self.hosts[via].get("/flok/v1/status")?;
        if status["nodes"].is_array() { Ok(status) } else { Err(status.to_string()) }
    }

    /// Index of the host whose daemon leads.
    pub fn leader(&self, via: usize) -> usize {
        eventually("a leader", PATIENCE, || {
            let status = self.status(via)?;
            let id = status["leader"].as_str().ok_or_else(|| status.to_string())?;
            let nodes = status["nodes"].as_array().expect("checked by status");
            let leader = nodes.iter().find(|node| node["id"] == id).ok_or_else(|| status.to_string())?;
            self.host_named(leader["name"].as_str().unwrap_or_default()).ok_or_else(|| status.to_string())
        })
    }

    fn host_named(&self, name: &str) -> Option<usize> {
        self.hosts.iter().position(|host| host.name() == name)
    }

    /// The id of a host's node.
    pub fn node_id(&self, via: usize, index: usize) -> String {
        eventually("the node's id", PATIENCE, || {
            let status = self.status(via)?;
            let nodes = status["nodes"].as_array().expect("checked by status");
            let name = self.hosts[index].name();
            let node = nodes.iter().find(|node| node["name"] == name.as_str()).ok_or_else(|| status.to_string())?;
            Ok(node["id"].as_str().unwrap_or_default().to_owned())
        })
    }

    /// Waits until `count` nodes are listed in this state (`ready`, `down`).
    pub fn nodes_are(&self, via: usize, count: usize, state: &str) {
        eventually(&format!("{count} nodes {state}"), PATIENCE, || {
            let nodes = self.hosts[via].get("/nodes")?;
            let list = nodes.as_array().ok_or_else(|| nodes.to_string())?;
            let found = list.iter().filter(|node| node["Status"]["State"] == state).count();
            if found == count { Ok(()) } else { Err(self.hosts[via].ok(&["node", "ls"])) }
        });
    }

    /// Waits until `count` nodes vote.
    pub fn voters_are(&self, via: usize, count: usize) {
        eventually(&format!("{count} voters"), PATIENCE, || {
            let status = self.status(via)?;
            let nodes = status["nodes"].as_array().expect("checked by status");
            let votes = |node: &&Value| matches!(node["raft"].as_str(), Some("leader" | "voter"));
            let found = nodes.iter().filter(votes).count();
            if found == count { Ok(()) } else { Err(status.to_string()) }
        });
    }

    /// Waits until the daemon on `via` knows this of the load of a host's node, in percent.
    pub fn load_is(&self, via: usize, index: usize, what: &str, is: impl Fn(f64) -> bool) {
        eventually(&format!("{what} of n{}", index + 1), PATIENCE, || {
            let status = self.status(via)?;
            let nodes = status["nodes"].as_array().expect("checked by status");
            let name = self.hosts[index].name();
            let node = nodes.iter().find(|node| node["name"] == name.as_str()).ok_or_else(|| status.to_string())?;
            match node["load"][what].as_f64() {
                Some(percent) if is(percent) => Ok(()),
                _ => Err(node.to_string()),
            }
        });
    }

    /// What answers at a host's address, asked from another host.
    pub fn fetch(&self, from: usize, at: usize, port: u16) -> Result<String, String> {
        let url = format!("http://{}:{port}/", self.hosts[at].addr());
        let output = self.hosts[from].command("curl").args(["-sS", "--max-time", "3", &url]).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(String::from_utf8_lossy(&output.stdout).into_owned()) } else { Err(errors) }
    }

    pub fn host(&mut self, index: usize) -> &mut Host {
        &mut self.hosts[index]
    }
}

/// How many of these tasks each node has that has any, sorted.
pub fn spread(tasks: &[Task]) -> Vec<usize> {
    let on = |node: &String| tasks.iter().filter(|task| task.node == *node).count();
    let mut spread: Vec<usize> = nodes_of(tasks).iter().map(on).collect();
    spread.sort_unstable();
    spread
}

/// The nodes that hold these tasks.
pub fn nodes_of(tasks: &[Task]) -> BTreeSet<String> {
    tasks.iter().map(|task| task.node.clone()).collect()
}

pub fn containers_of(tasks: &[Task]) -> BTreeSet<String> {
    tasks.iter().map(|task| task.container.clone()).collect()
}

fn told(tasks: &[Task]) -> String {
    let line = |task: &Task| {
        format!("{} slot {} on {}: {} wanted {} {}", task.id, task.slot, task.node, task.state, task.wanted, task.error)
    };
    tasks.iter().map(line).collect::<Vec<_>>().join("\n")
}
