//! Jobs with a schedule: by a stack file, by flags and by Docker's labels, through the death of the leader.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::docker::{ok, refused};
use super::lab::{Host, eventually};
use super::swarm::{PATIENCE, Swarm};

fn runs(host: &Host, service: &str) -> Value {
    let shown = host.ok(&["service", "runs", "--format", "json", service]);
    serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{error}: {shown}"))
}

/// When its runs were due, newest first, once `count` have completed.
fn completed(host: &Host, service: &str, count: usize) -> Vec<String> {
    eventually(&format!("{count} completed runs of {service}"), PATIENCE, || {
        let shown = runs(host, service);
        let all = shown["runs"].as_array().unwrap().iter();
        let done: Vec<String> = all
            .filter(|run| run["state"] == "completed")
            .filter_map(|run| Some(run["scheduled"].as_str()?.to_owned()))
            .collect();
        if done.len() >= count { Ok(done) } else { Err(shown.to_string()) }
    })
}

#[test]
#[ignore = "needs root, containerd, network namespaces and the docker command"]
fn jobs_run_by_their_schedule_once_a_point_whoever_leads() {
    let mut swarm = Swarm::of(3);
    swarm.load("busybox");
    swarm.voters_are(0, 3);
    let host = &swarm.hosts[0];
    let dir = host.dir.join("cron");
    fs::create_dir_all(&dir).unwrap();
    let stack = format!(
        "services:
  tick:
    image: flok/busybox:latest
    command: ['sh', '-c', 'echo $$RUN >> /cron/ran']
    environment: {{ RUN: '{{{{.Task.ID}}}}' }}
    volumes: ['{}:/cron']
    x-schedule: {{ cron: '*/2 * * * * *', history: 50 }}
    deploy: {{ placement: {{ constraints: ['node.hostname == n1'] }} }}
",
        dir.display()
    );
    // Nothing of it waits for a run.
    swarm.deploy(0, "s", &stack);
    completed(host, "s_tick", 2);
    let pretty = host.ok(&["service", "inspect", "--pretty", "s_tick"]);
    assert!(pretty.contains("\"*/2 * * * * *\" in UTC, next "), "{pretty}");
    assert!(host.ok(&["service", "explain", "s_tick"]).contains("the next run is due at"));
    let shown = ok(host, &["service", "inspect", "--format", "{{json .Spec.Labels}}", "s_tick"]);
    assert!(shown.contains("\"flok.schedule\":\"*/2 * * * * *\""), "{shown}");

    // By Docker's words; it is not due today.
    let create = ["service", "create", "--detach", "--name", "yearly", "--label", "flok.schedule=0 0 29 2 *"];
    let why = refused(host, &[create.as_slice(), &["flok/busybox:latest", "true"]].concat());
    assert!(why.contains("service yearly has a schedule, and is no job"), "{why}");
    ok(host, &[create.as_slice(), &["--mode", "replicated-job", "flok/busybox:latest", "true"]].concat());
    ok(host, &["service", "update", "--detach", "--label-add", "flok.schedule.time-zone=Asia/Kolkata", "yearly"]);
    let why = host.refused(&["service", "update", "--label-add", "flok.schedule.time-zone=Mars", "yearly"]);
    assert!(why.contains("there is no time zone \"Mars\""), "{why}");
    assert!(host.ok(&["service", "run", "yearly"]).contains("run 1 of yearly has begun"));
    eventually("the run by hand to complete", PATIENCE, || {
        let shown = runs(host, "yearly");
        if shown["runs"][0]["state"] == "completed" { Ok(()) } else { Err(shown.to_string()) }
    });
    assert_eq!(runs(host, "yearly")["runs"][0]["scheduled"], Value::Null);
    assert_eq!(runs(host, "yearly")["schedule"]["time_zone"], "Asia/Kolkata");

    let leader = swarm.leader(0);
    let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    // Where n1 leads, its tasks outlive its daemon.
    swarm.host(leader).kill_daemon();
    let before = completed(&swarm.hosts[others[0]], "s_tick", 2).len();
    swarm.host(leader).start_daemon(&[]);
    let done = completed(&swarm.hosts[others[0]], "s_tick", before + 2);
    let points: BTreeSet<&String> = done.iter().collect();
    assert_eq!(points.len(), done.len(), "a point has run twice: {done:?}");
    let ran = fs::read_to_string(dir.join("ran")).unwrap();
    let tasks: BTreeSet<&str> = ran.lines().collect();
    assert_eq!(tasks.len(), ran.lines().count(), "each task ran once: {ran}");

    let host = &swarm.hosts[others[0]];
    host.ok(&["service", "update", "--schedule-suspend", "s_tick"]);
    assert_eq!(runs(host, "s_tick")["next"], Value::Null);
    host.ok(&["service", "update", "--schedule=", "yearly"]);
    assert!(host.refused(&["service", "runs", "yearly"]).contains("service yearly has no schedule"));
}
