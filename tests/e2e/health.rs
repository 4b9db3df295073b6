//! Health checks: a task is started, serves and is updated by what its check says.

use std::fs;
use std::path::PathBuf;

use super::docker::ok;
use super::lab::eventually;
use super::swarm::{PATIENCE, Swarm};

/// A directory of the first host whose file `ok` says that the container that mounts it is healthy.
struct Switch(PathBuf);

impl Switch {
    fn off(swarm: &Swarm) -> Switch {
        let dir = swarm.hosts[0].dir.join("state");
        fs::create_dir_all(&dir).unwrap();
        Switch(dir)
    }

    fn mount(&self) -> String {
        format!("type=bind,source={},target=/state", self.0.display())
    }

    fn on(&self) {
        fs::write(self.0.join("ok"), []).unwrap();
    }

    fn turn_off(&self) {
        fs::remove_file(self.0.join("ok")).unwrap();
    }
}

const CHECK: &[&str] =
    &["--health-cmd", "test -f /state/ok || { echo not there; exit 3; }", "--health-interval", "300ms"];

#[test]
#[ignore = "needs root, containerd, network namespaces and the docker command"]
fn a_task_serves_while_it_is_healthy_and_is_replaced_when_it_is_not() {
    let mut swarm = Swarm::of(1);
    swarm.load("nginx");
    let switch = Switch::off(&swarm);
    let mount = switch.mount();
    let create = ["service", "create", "--detach", "--name", "web", "--publish", "8080:80", "--mount", &mount];
    let command = [create.as_slice(), CHECK, &["--health-start-period", "5m", "flok/nginx:latest"]].concat();
    ok(&swarm.hosts[0], &command);
    let starting =
        swarm.task_that(0, "web", "that is checked", |task| task.state == "starting" && !task.container.is_empty());
    eventually("a reason in the task's list", PATIENCE, || {
        let told = swarm.hosts[0].json(&["service", "ps", "web"]).to_string();
        if told.contains("exit code 3: not there") { Ok(()) } else { Err(told) }
    });
    assert!(swarm.fetch(0, 0, 8080).is_err(), "nobody is sent to it yet");
    let listed = ok(&swarm.hosts[0], &["service", "ls", "--format", "{{.Replicas}}"]);
    assert_eq!(listed.trim(), "0/1");

    switch.on();
    let healthy = swarm.running(0, "web", 1).remove(0);
    assert_eq!(healthy.container, starting.container);
    eventually("an answer", PATIENCE, || swarm.fetch(0, 0, 8080));

    // The next daemon knows that it is healthy, and goes on checking.
    swarm.host(0).kill_daemon();
    assert!(swarm.fetch(0, 0, 8080).is_ok());
    swarm.host(0).start_daemon(&[]);
    eventually("the swarm to be back", PATIENCE, || swarm.tasks(0, "web"));
    assert_eq!(swarm.running(0, "web", 1).first(), Some(&healthy));
    assert!(swarm.fetch(0, 0, 8080).is_ok());

    switch.turn_off();
    let failed = swarm.task_that(0, "web", "that was unhealthy", |task| task.state == "failed");
    assert_eq!(failed.id, healthy.id);
    let error = "unhealthy container: exit code 3: not there";
    assert!(failed.error.starts_with("task: ") && failed.error.ends_with(error), "{}", failed.error);
    swarm.task_that(0, "web", "that is new", |task| task.id != healthy.id && task.state == "starting");
    eventually("no answer", PATIENCE, || swarm.fetch(0, 0, 8080).err().ok_or_else(String::new));
    switch.on();
    swarm.running(0, "web", 1);
    eventually("an answer", PATIENCE, || swarm.fetch(0, 0, 8080));
}

#[test]
#[ignore = "needs root, containerd, network namespaces and the docker command"]
fn an_update_that_never_becomes_healthy_is_rolled_back_and_nothing_was_stopped_for_it() {
    let swarm = Swarm::of(1);
    swarm.load("busybox");
    let host = &swarm.hosts[0];
    let create = ["service", "create", "--name", "web", "--replicas", "2", "--update-order", "start-first"];
    let rules = ["--update-failure-action", "rollback", "--restart-delay", "200ms", "--env", "AGE=old"];
    let check = ["--health-cmd", "test $AGE = old", "--health-interval", "200ms", "--health-retries", "2"];
    let made = ok(host, &[create.as_slice(), &rules, &check, &["flok/busybox:latest", "sleep", "100000"]].concat());
    assert!(made.contains("converged"), "{made}");
    let old = swarm.running(0, "web", 2);

    host.ok(&["service", "update", "--detach", "--env-add", "AGE=new", "web"]);
    eventually("the rollback", PATIENCE, || {
        let service = host.get("/services/web")?;
        let status = &service["UpdateStatus"];
        if status["State"] == "rollback_completed" { Ok(()) } else { Err(service.to_string()) }
    });
    assert_eq!(swarm.running(0, "web", 2), old);
    let failed = swarm.task_that(0, "web", "that failed", |task| task.state == "failed");
    assert!(failed.error.contains("unhealthy container"), "{}", failed.error);
    let env = ok(host, &["service", "inspect", "--format", "{{.Spec.TaskTemplate.ContainerSpec.Env}}", "web"]);
    assert_eq!(env.trim(), "[AGE=old]");
}

#[test]
#[ignore = "needs root, containerd, network namespaces and the docker command"]
fn the_images_own_check_counts_until_a_stack_says_otherwise() {
    let swarm = Swarm::of(1);
    swarm.load("checked");
    let host = &swarm.hosts[0];
    let switch = Switch::off(&swarm);
    let stack = |check: &str| {
        let state = switch.0.display();
        format!(
            "services:\n  own:\n    image: flok/checked:latest\n    volumes: ['{state}:/state']\n{check}    deploy: {{ update_config: {{ order: start-first }} }}\n"
        )
    };
    swarm.deploy(0, "s", &stack("    healthcheck: { start_period: 5m, start_interval: 300ms }\n"));
    swarm.task_that(0, "s_own", "that is checked", |task| task.state == "starting" && !task.container.is_empty());
    swarm.deploy(0, "s", &stack("    healthcheck: { disable: true }\n"));
    let unchecked = swarm.running(0, "s_own", 1);

    // Taken out of the file, the image's is in force again: its two failures at most end the new task, not the old one.
    swarm.deploy(0, "s", &stack(""));
    let failed = swarm.task_that(0, "s_own", "that failed", |task| task.state == "failed");
    assert!(failed.error.ends_with("unhealthy container: exit code 3: no /state/ok"), "{}", failed.error);
    let wanted = swarm.tasks(0, "s_own").unwrap().into_iter().find(|task| task.id == unchecked[0].id).unwrap();
    assert_eq!((wanted.state.as_str(), wanted.wanted.as_str()), ("running", "running"));
    let shown =
        ok(host, &["service", "inspect", "--format", "{{.Spec.TaskTemplate.ContainerSpec.Healthcheck}}", "s_own"]);
    assert_eq!(shown.trim(), "<nil>");
}
