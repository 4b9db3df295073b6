//! Jobs, as Docker's command makes and shows them, and run anew by flok's.

use std::fs;

use super::docker::{ok, rows};
use super::lab::eventually;
use super::swarm::{PATIENCE, Swarm};

/// Notes who runs beside it, fails once in slot 3, and notes its end.
const WORK: &str = "touch /jobs/runs.$SLOT; ls /jobs/runs.* | wc -l >> /jobs/beside; sleep 0.3; rm /jobs/runs.$SLOT
    if [ $SLOT = 3 ] && mkdir /jobs/tried; then exit 4; fi
    echo $SLOT >> /jobs/done";

#[test]
#[ignore = "needs root, containerd, network namespaces and the docker command"]
fn jobs_record_what_was_wanted_of_them_and_run_so_many_at_a_time() {
    let swarm = Swarm::of(2);
    swarm.load("busybox");
    let host = &swarm.hosts[0];
    let dir = host.dir.join("jobs");
    fs::create_dir_all(&dir).unwrap();
    let lines = |file: &str| -> Vec<String> {
        let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
        let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        lines.sort();
        lines
    };
    let replicas = |name: &str, is: &str| {
        eventually(&format!("{name} to have {is}"), PATIENCE, || {
            let shown = ok(host, &["service", "ls", "--filter", &format!("name={name}"), "--format", "{{.Replicas}}"]);
            if shown.trim().ends_with(is) { Ok(()) } else { Err(shown) }
        });
    };
    let mount = format!("type=bind,source={},target=/jobs", dir.display());
    let kind =
        ["--mode", "replicated-job", "--replicas", "6", "--max-concurrent", "2", "--restart-condition", "on-failure"];
    let place = ["--constraint", "node.hostname==n1", "--mount", &mount, "--env", "SLOT={{.Task.Slot}}"];
    let create = ["service", "create", "--detach", "--name", "six"];
    ok(host, &[create.as_slice(), &kind, &place, &["flok/busybox:latest", "sh", "-c", WORK]].concat());
    replicas("six", "(6/6 completed)");
    assert_eq!(lines("done"), ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(lines("beside").last().map(String::as_str), Some("2"), "{:?}", lines("beside"));
    assert_eq!(lines("beside").len(), 7, "slot 3 ran twice");
    let tasks = rows(host, &["service", "ps", "six"], "{{.Name}}\t{{.CurrentState}}");
    let ended = |word: &str| tasks.iter().filter(|task| task[1].starts_with(word)).count();
    assert_eq!((ended("Complete"), ended("Failed"), tasks.len()), (6, 1, 7), "{tasks:?}");

    // Anew, as flok waits for it.
    host.ok(&["service", "update", "--force", "six"]);
    assert_eq!(lines("done").len(), 12);
    let service = host.get("/services/six").unwrap();
    assert_eq!(service["JobStatus"]["JobIteration"]["Index"], 1, "{service}");

    // On every node that fits, and on one that comes to fit.
    ok(host, &["node", "update", "--availability", "pause", "n2"]);
    let each = ["service", "create", "--detach", "--name", "each", "--mode", "global-job"];
    ok(host, &[each.as_slice(), &["flok/busybox:latest", "true"]].concat());
    let completed = |count: usize| {
        eventually(&format!("{count} completed tasks"), PATIENCE, || {
            let tasks = swarm.tasks(0, "each")?;
            let done = tasks.iter().filter(|task| task.state == "complete").count();
            if done == count && tasks.len() == count { Ok(()) } else { Err(format!("{tasks:?}")) }
        });
    };
    completed(1);
    ok(host, &["node", "update", "--availability", "active", "n2"]);
    completed(2);
}
