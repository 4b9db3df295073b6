//! The way of a deployment: stack file to containers, scale, jobs, volumes, and tasks that cannot run.

use super::lab::{Host, eventually};
use super::registry::{self, Registry};
use super::swarm::{PATIENCE, Swarm, Task, nodes_of, spread};

const WHOAMI: &str = "
services:
  agent:
    image: flok/whoami:latest
    ports: [{ target: 80, published: 8080, mode: host }]
    deploy: { mode: global }
  web:
    image: flok/whoami:latest
    environment: { PORT: '8000' }
    deploy: { replicas: 3 }
";

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_stack_serves_on_every_node_and_goes_without_a_trace() {
    let swarm = Swarm::of(3);
    swarm.load("whoami");
    let file = swarm.stack_file("hello", WHOAMI);
    swarm.hosts[1].ok(&["stack", "deploy", "-c", &file, "hello"]);

    assert_eq!(spread(&swarm.running(0, "hello_agent", 3)), [1, 1, 1]);
    assert_eq!(spread(&swarm.running(2, "hello_web", 3)), [1, 1, 1]);
    for from in 0..3 {
        for at in 0..3 {
            let answer = swarm.fetch(from, at, 8080).unwrap();
            assert!(answer.starts_with("Hostname: "), "{answer}");
        }
    }

    swarm.hosts[2].ok(&["stack", "rm", "hello"]);
    for via in 0..3 {
        eventually("all tasks to go", PATIENCE, || match swarm.hosts[via].get("/tasks")? {
            serde_json::Value::Array(tasks) if tasks.is_empty() => Ok(()),
            tasks => Err(tasks.to_string()),
        });
        eventually("all containers to go", PATIENCE, || match swarm.hosts[via].containers() {
            list if list.is_empty() => Ok(()),
            list => Err(list.join(" ")),
        });
    }
    assert!(swarm.fetch(0, 1, 8080).is_err());
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_service_scales_up_and_down() {
    let swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.deploy(0, "s", WHOAMI);
    let first = swarm.running(0, "s_web", 3);
    swarm.hosts[1].ok(&["service", "scale", "--detach", "s_web=30"]);
    let many = swarm.running(1, "s_web", 30);
    for task in &first {
        assert!(many.iter().any(|other| other.container == task.container), "what ran goes on running");
    }
    assert_eq!(spread(&many), [10, 10, 10]);
    swarm.hosts[2].ok(&["service", "scale", "--detach", "s_web=3"]);
    let few = swarm.running(2, "s_web", 3);
    assert_eq!(spread(&few), [1, 1, 1]);
    eventually("the others' containers to go", PATIENCE, || {
        let running: usize = swarm.hosts.iter().map(|host| host.running_containers().len()).sum();
        // The global service has three.
        if running == 6 { Ok(()) } else { Err(format!("{running} run")) }
    });
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_task_that_no_node_can_take_says_why_and_starts_once_one_can() {
    let swarm = Swarm::of(3);
    swarm.load("whoami");
    swarm.deploy(
        0,
        "p",
        "
services:
  web:
    image: flok/whoami:latest
    deploy: { placement: { constraints: [ 'node.labels.zone == a' ] } }
",
    );
    let waits =
        swarm.task_that(0, "p_web", "says why it waits", |task| task.state == "pending" && !task.error.is_empty());
    assert!(waits.error.contains("node.labels.zone"), "{}", waits.error);
    assert!(waits.error.contains('3'), "on how many nodes: {}", waits.error);
    swarm.hosts[1].ok(&["node", "update", "--label-add", "zone=a", "n3"]);
    let placed = swarm.running(0, "p_web", 1);
    assert_eq!(placed[0].node, swarm.node_id(0, 2));
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn an_image_that_does_not_exist_is_named_in_the_task() {
    let swarm = Swarm::of(1);
    // Nothing listens there.
    let image = format!("{}/nothing:1", registry::ADDR);
    swarm.deploy(0, "m", &format!("services: {{ web: {{ image: '{image}' }} }}"));
    let failed = swarm.task_that(0, "m_web", "fails for its image", |task| {
        (task.state == "rejected" || task.state == "failed") && !task.error.is_empty()
    });
    assert!(failed.error.contains(registry::ADDR), "{}", failed.error);
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn an_image_is_pulled_from_a_registry_by_every_node() {
    let swarm = Swarm::of(3);
    let registry = Registry::beside(&swarm);
    registry.push("whoami", "team/whoami:1");
    let image = registry.name("team/whoami:1");
    swarm.deploy(0, "r", &format!("services: {{ web: {{ image: '{image}', deploy: {{ mode: global }} }} }}"));
    assert_eq!(nodes_of(&swarm.running(0, "r_web", 3)).len(), 3);
    let missing = registry.name("team/nothing:1");
    swarm.deploy(0, "x", &format!("services: {{ web: {{ image: '{missing}' }} }}"));
    let failed = swarm.task_that(0, "x_web", "fails for its image", |task| task.state == "rejected");
    assert!(failed.error.contains("team/nothing"), "{}", failed.error);
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_container_that_exits_at_once_is_restarted_ever_more_slowly() {
    let swarm = Swarm::of(2);
    swarm.load("busybox");
    let service = |name: &str, policy: &str| {
        format!(
            "
  {name}:
    image: flok/busybox:latest
    command: ['sh', '-c', 'cut -d. -f1 /proc/uptime >> /starts/times; false']
    volumes: [ '{name}:/starts' ]
    deploy: {{ restart_policy: {{ {policy} }} }}
"
        )
    };
    let (crash, storm) = (service("crash", ""), service("storm", "delay: 0s"));
    swarm.deploy(0, "c", &format!("services:{crash}{storm}volumes: {{ crash: , storm: }}"));
    // (which start, how many seconds after the one before it at the least): however long a start takes, never sooner.
    delays_grow(&swarm, "c_crash", &[(2, 1), (3, 2), (4, 4), (5, 8)]);
    delays_grow(&swarm, "c_storm", &[(6, 1), (7, 2), (8, 4)]);
}

fn delays_grow(swarm: &Swarm, service: &str, least: &[(usize, u64)]) {
    let wanted = least.last().expect("some are given").0 + 1;
    let failed = swarm.task_that(0, service, "fails", |task| task.state == "failed");
    let at = (0..swarm.hosts.len()).find(|index| swarm.node_id(0, *index) == failed.node).unwrap();
    let file = swarm.hosts[at].volume(service).join("times");
    let starts: Vec<u64> = eventually(&format!("{wanted} starts of {service}"), PATIENCE, || {
        let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
        let times: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
        if times.len() >= wanted { Ok(times) } else { Err(text) }
    });
    for (index, least) in least {
        let waited = starts[*index] - starts[index - 1];
        assert!(waited >= *least, "start {index} of {service} came after {waited} s: {starts:?}");
    }
    let kept = swarm.tasks(0, service).unwrap().len();
    assert!(kept <= 7, "{kept} tasks of {service} are kept");
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_job_like_container_runs_once() {
    let swarm = Swarm::of(2);
    swarm.load("busybox");
    swarm.deploy(
        0,
        "j",
        "
services:
  report:
    image: flok/busybox:latest
    command: ['sh', '-c', 'echo counted 42']
    deploy: { restart_policy: { condition: on-failure } }
",
    );
    swarm.task_that(0, "j_report", "completes", |task| task.state == "complete");
    let log = eventually("its log", PATIENCE, || {
        let log = swarm.hosts[1].ok(&["service", "logs", "j_report"]);
        if log.contains("counted 42") { Ok(log) } else { Err(log) }
    });
    assert_eq!(log.matches("counted 42").count(), 1, "{log}");
    assert_eq!(swarm.tasks(0, "j_report").unwrap().len(), 1);
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn databases_keep_their_data_over_a_restart_of_their_task() {
    let swarm = Swarm::of(2);
    swarm.load("redis");
    swarm.load("postgres");
    swarm.deploy(0, "data", include_str!("../../config/examples/databases.yml"));
    let redis = swarm.running(0, "data_redis", 1).remove(0);
    let at = (0..2).find(|index| swarm.node_id(0, *index) == redis.node).unwrap();
    let ask = |question: &str| {
        eventually("redis to answer", PATIENCE, || {
            let output = swarm.hosts[0]
                .command("redis-cli")
                .args(["-h", &swarm.hosts[at].addr()])
                .args(question.split(' '))
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() { Ok(text) } else { Err(text + &String::from_utf8_lossy(&output.stderr)) }
        })
    };
    assert!(ask("set answer 42").contains("OK"));
    swarm.running(0, "data_postgres", 1);
    swarm.hosts[at].kill_container(&redis.container);
    eventually("a new task of redis", PATIENCE, || {
        let tasks = swarm.running(0, "data_redis", 1);
        if tasks[0].id != redis.id { Ok(()) } else { Err("the old one".into()) }
    });
    assert!(ask("get answer").contains("42"));
}

/// Which of a host's resources something outside of the swarm takes up.
fn busy_nodes_get_fewer_tasks(what: &str, take_up: impl Fn(&Host)) {
    let swarm = Swarm::of(3);
    swarm.load("whoami");
    take_up(&swarm.hosts[2]);
    let busy = swarm.node_id(0, 2);
    let leader = swarm.leader(0);
    swarm.load_is(leader, 2, what, |percent| percent > 90.0);
    let on_busy = |tasks: &[Task]| tasks.iter().filter(|task| task.node == busy).count();
    let service = |index: usize| format!("  one{index}: {{ image: 'flok/whoami:latest' }}\n");
    swarm.deploy(0, "few", &format!("services:\n{}", (0..6).map(service).collect::<String>()));
    let few: Vec<Task> = (0..6).flat_map(|index| swarm.running(0, &format!("few_one{index}"), 1)).collect();
    assert_eq!(on_busy(&few), 0, "{few:?}");
    swarm.deploy(0, "many", "services: { web: { image: 'flok/whoami:latest', deploy: { replicas: 18 } } }");
    let many = swarm.running(0, "many_web", 18);
    assert!((1..5).contains(&on_busy(&many)), "fewer, but not none of a large service: {:?}", spread(&many));
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_node_under_memory_load_from_outside_gets_fewer_tasks_than_its_idle_twins() {
    busy_nodes_get_fewer_tasks("memory", |host| host.show_memory_used(97));
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_node_under_cpu_load_from_outside_gets_fewer_tasks_than_its_idle_twins() {
    busy_nodes_get_fewer_tasks("cpu_pressure", |host| host.show_cpu_pressure(95));
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn everything_that_is_shown_can_be_had_as_json() {
    let swarm = Swarm::of(1);
    swarm.load("whoami");
    swarm.deploy(0, "s", WHOAMI);
    swarm.running(0, "s_web", 3);
    let shown = |args: &[&str]| {
        let text = swarm.hosts[0].ok(&[args, &["--format", "json"]].concat());
        let parts = serde_json::Deserializer::from_str(&text).into_iter::<serde_json::Value>();
        let parts: Result<Vec<_>, _> = parts.collect();
        format!("{:?}", parts.unwrap_or_else(|error| panic!("flok {args:?}: {error}: {text}")))
    };
    let node = swarm.node_id(0, 0);
    for args in [vec!["node", "ls"], vec!["node", "inspect", "n1"], vec!["swarm", "status"], vec!["info"]] {
        assert!(shown(&args).contains(&node), "{args:?}: {}", shown(&args));
    }
    for args in [
        vec!["service", "ls"],
        vec!["service", "ps", "s_web"],
        vec!["service", "inspect", "s_web"],
        vec!["stack", "services", "s"],
        vec!["stack", "ps", "s"],
        vec!["node", "ps", "n1"],
    ] {
        assert!(shown(&args).contains("s_web"), "{args:?}: {}", shown(&args));
    }
    assert!(shown(&["stack", "ls"]).contains("\"s\""), "{}", shown(&["stack", "ls"]));
    assert!(shown(&["version"]).contains(env!("CARGO_PKG_VERSION")));
    assert!(
        shown(&["swarm", "join-token", "worker"]).contains("TKN-"),
        "{}",
        shown(&["swarm", "join-token", "worker"])
    );
}
