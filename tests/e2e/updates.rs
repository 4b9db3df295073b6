//! Updates to their ends, as Docker's command asks for them and tells of them, and flok's beside it.

use super::docker::{ok, refused};
use super::lab::{Host, eventually};
use super::swarm::{PATIENCE, Swarm, Task};

const GOOD: &str = "RUN=sleep 100000";
const BAD: &str = "RUN=false";

/// Waits until the service's last update or rollback is so, and gives what is said of it.
fn update_is(host: &Host, state: &str) -> String {
    eventually(&format!("an update that is {state}"), PATIENCE, || {
        let service = host.get("/services/web")?;
        let status = &service["UpdateStatus"];
        if status["State"] != state {
            return Err(status.to_string());
        }
        let ended = !status["CompletedAt"].is_null();
        assert_eq!(ended, state.ends_with("completed"), "{status}");
        assert!(status["StartedAt"].is_string(), "{status}");
        Ok(status["Message"].as_str().unwrap_or_default().to_owned())
    })
}

fn env(host: &Host) -> String {
    let format = "{{range .Spec.TaskTemplate.ContainerSpec.Env}}{{.}};{{end}}";
    ok(host, &["service", "inspect", "--format", format, "web"]).trim().to_owned()
}

fn update<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["service", "update"], args, &["web"]].concat()
}

fn ids(tasks: &[Task]) -> Vec<&str> {
    tasks.iter().map(|task| task.id.as_str()).collect()
}

#[test]
#[ignore = "needs root, containerd, network namespaces and the docker command"]
fn an_update_ends_as_it_was_told_to() {
    let swarm = Swarm::of(1);
    swarm.load("busybox");
    let host = &swarm.hosts[0];
    let rules = ["--update-monitor", "600ms", "--rollback-monitor", "600ms", "--restart-delay", "200ms"];
    let create =
        ["service", "create", "--name", "web", "--replicas", "3", "--stop-grace-period", "100ms", "--env", GOOD];
    ok(host, &[create.as_slice(), &rules, &["flok/busybox:latest", "sh", "-c", "exec $RUN"]].concat());
    let first = swarm.running(0, "web", 3);

    // Pause is the default: one slot was tried, the others go on; docker waits and ends with the reason.
    let told = refused(host, &update(&["--env-add", BAD]));
    assert!(
        told.contains("service update paused: update paused due to failure or early termination of task"),
        "{told}"
    );
    let message = update_is(host, "paused");
    assert!(message.starts_with("update paused due to failure or early termination of task "), "{message}");
    let left = swarm.tasks(0, "web").unwrap();
    let left: Vec<Task> = left.into_iter().filter(|task| task.wanted == "running" && task.state == "running").collect();
    // The second slot may have been tried before the first one had failed.
    assert!(!left.is_empty() && ids(&left).iter().all(|id| ids(&first).contains(id)), "{left:?}");
    assert!(ok(host, &["service", "inspect", "--pretty", "web"]).contains(" State:\t\tpaused"));

    // A new spec ends the pause.
    let told = ok(host, &update(&["--env-add", GOOD, "--update-failure-action", "rollback"]));
    assert!(told.contains("converged"), "{told}");
    assert_eq!(update_is(host, "completed"), "update completed");
    swarm.running(0, "web", 3);

    // Rolled back by itself, to the spec before, whole.
    let told = host.refused(&update(&["--update-order", "start-first", "--env-add", BAD]));
    let failure = "service web: update rolled back due to failure or early termination of task";
    assert!(told.contains(failure) && told.contains("it runs as before"), "{told}");
    assert_eq!(update_is(host, "rollback_completed"), "rollback completed");
    swarm.running(0, "web", 3);
    assert_eq!(env(host), format!("{GOOD};"));
    let shown = ok(host, &["service", "inspect", "--format", "{{.Spec.UpdateConfig.Order}}", "web"]);
    assert_eq!(shown.trim(), "stop-first", "the whole spec went back");

    // Continue, and a ratio that is never passed, go on to the end, though nothing runs there.
    ok(host, &update(&["--detach", "--update-failure-action", "continue", "--env-add", BAD]));
    update_is(host, "completed");
    host.ok(&update(&[
        "--detach",
        "--update-failure-action",
        "pause",
        "--update-max-failure-ratio",
        "1",
        "--env-add",
        "N=1",
    ]));
    update_is(host, "completed");

    // By hand: to the spec before, and the other way by a second one.
    host.ok(&update(&["--env-add", GOOD]));
    let third = swarm.running(0, "web", 3);
    ok(host, &["service", "rollback", "--detach", "web"]);
    eventually("the rollback to begin", PATIENCE, || {
        let service = host.get("/services/web")?;
        let state = service["UpdateStatus"]["State"].as_str().unwrap_or_default().to_owned();
        if state.starts_with("rollback_") { Ok(()) } else { Err(state) }
    });
    assert_eq!(env(host), format!("{BAD};N=1;"));
    host.ok(&["service", "rollback", "web"]);
    update_is(host, "rollback_completed");
    assert_eq!(env(host), format!("N=1;{GOOD};"), "{}", env(host));
    let fourth = swarm.running(0, "web", 3);

    // Forced: all of them anew, and nothing else.
    let told = ok(host, &update(&["--force", "--update-parallelism", "2"]));
    assert!(told.contains("converged"), "{told}");
    let fifth = swarm.running(0, "web", 3);
    let known: Vec<&str> = [&third, &fourth].into_iter().flat_map(|tasks| ids(tasks)).collect();
    assert!(ids(&fifth).iter().all(|id| !known.contains(id)), "{fifth:?}");
    host.ok(&update(&["--force"]));
    assert!(ids(&swarm.running(0, "web", 3)).iter().all(|id| !ids(&fifth).contains(id)));
}
