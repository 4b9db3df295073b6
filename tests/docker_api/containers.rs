//! Listed, looked at, read, measured and ended.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::{Value, json};

use super::commands::has;
use super::docker_command::{command, docker, ok, refused};
use super::lab::{eventually, kill_all_of};
use super::swarm::{PATIENCE, Swarm};
use super::whole::{IMAGE, start};

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

pub fn are_listed_and_looked_at(swarm: &Swarm, host: usize, on: &str) {
    let oom = ["--oom-score-adj", "100"];
    let has_oom = has(&swarm.hosts[host], "service create --oom-score-adj", 28);
    let more = [
        "--label",
        "tier=a",
        "--container-label",
        "team=x",
        "--env",
        "MORE=1",
        "--hostname",
        "looked",
        "--mount",
        "type=volume,source={{.Service.Name}}-{{.Task.Slot}},target=/data",
        "--host",
        "web:10.1.2.3",
        "--dns",
        "10.9.9.9",
        "--dns-search",
        "lab",
        "--dns-option",
        "ndots:2",
        "--group",
        "44",
        "--ulimit",
        "nofile=1000:2000",
        "--sysctl",
        "net.core.somaxconn=300",
        "--no-healthcheck",
    ];
    let more = [more.as_slice(), if has_oom { &oom } else { &[] }].concat();
    let task = start(swarm, host, on, "seen", &more, &["sleep", "1000"]);
    let at = task.host;
    let node = format!("node={on}");
    let list = |more: &[&str]| {
        ok(
            at,
            &[
                ["ps", "--no-trunc", "--filter", &node, "--format", "{{.ID}} {{.Names}} {{.Image}} {{.State}}"]
                    .as_slice(),
                more,
            ]
            .concat(),
        )
    };
    let line = format!("{} {} {IMAGE} running", task.container, task.name);
    assert_eq!(list(&[]).trim(), line);
    for filter in [
        "label=team=x",
        "name=seen",
        "name=^/?se+n\\.1",
        "status=running",
        "ancestor=flok/busybox",
        "volume=seen-1",
        "health=none",
        "is-task=true",
    ] {
        assert_eq!(list(&["--filter", filter]).trim(), line, "{filter}");
    }
    for filter in ["label=team=y", "name=nothing", "name=^een", "status=exited", "ancestor=nginx", "volume=other"] {
        assert_eq!(list(&["--filter", filter]), "", "{filter}");
    }
    assert!(refused(at, &["ps", "--filter", "colour=red"]).contains("invalid filter 'colour'"));
    assert!(refused(at, &["ps", "--filter", "status=sleepy"]).contains("invalid filter"));
    let status = ok(at, &["ps", "--filter", &node, "--format", "{{.Status}}"]);
    assert!(status.starts_with("Up "), "{status}");

    // By its id, the beginning of it, its name, and the name without the task's id.
    let slot = task.name.rsplit_once('.').unwrap().0;
    for wanted in [task.container.as_str(), &task.container[..12], &task.name, slot] {
        let found = read(&ok(at, &["container", "inspect", wanted]));
        assert_eq!(found[0]["Id"], task.container, "{wanted}");
    }
    let found = read(&ok(at, &["inspect", &task.container]))[0].clone();
    assert_eq!(found["Name"], format!("/{}", task.name));
    assert_eq!((&found["State"]["Status"], &found["State"]["Running"]), (&"running".into(), &true.into()));
    assert!(found["State"]["Pid"].as_u64().unwrap() > 0);
    assert_eq!((&found["Path"], &found["Args"][0]), (&"sleep".into(), &"1000".into()));
    let config = &found["Config"];
    assert_eq!((&config["Hostname"], &config["Image"]), (&"looked".into(), &IMAGE.into()));
    assert!(config["Env"].as_array().unwrap().contains(&"MORE=1".into()), "{config}");
    assert_eq!(config["Labels"]["com.docker.swarm.service.name"], "seen");
    let mount = &found["Mounts"][0];
    assert_eq!(
        (&mount["Type"], &mount["Name"], &mount["Destination"]),
        (&"volume".into(), &"seen-1".into(), &"/data".into())
    );
    assert!(mount["Source"].as_str().unwrap().ends_with("/volumes/seen-1/_data"), "{mount}");
    shows_what_its_service_set(&found);
    assert!(!has_oom || found["HostConfig"]["OomScoreAdj"] == 100, "{found}");
    let missing = refused(at, &["container", "inspect", "nothing"]);
    assert!(missing.contains("No such container: nothing"), "{missing}");
    ok(at, &["service", "rm", "seen"]);
    // What is gone is gone.
    eventually("the container to go", PATIENCE, || {
        let listed = list(&["--all"]);
        if listed.contains(&task.container) { Err(listed) } else { Ok(()) }
    });
}

fn shows_what_its_service_set(container: &Value) {
    let host = &container["HostConfig"];
    for (key, wanted) in [
        ("ExtraHosts", json!(["web:10.1.2.3"])),
        ("Dns", json!(["10.9.9.9"])),
        ("DnsSearch", json!(["lab"])),
        ("DnsOptions", json!(["ndots:2"])),
        ("GroupAdd", json!(["44"])),
        ("Ulimits", json!([{"Name": "nofile", "Soft": 1000, "Hard": 2000}])),
        ("Sysctls", json!({"net.core.somaxconn": "300"})),
    ] {
        assert_eq!(host[key], wanted, "{key}");
    }
    assert_eq!(host["Mounts"][0]["Source"], "seen-1");
    assert_eq!(container["Config"]["Healthcheck"]["Test"], json!(["NONE"]));
}

pub fn tell_what_they_print(swarm: &Swarm, host: usize, on: &str) {
    let script = "echo one; echo two; echo oops >&2; while ! test -e /more; do sleep 0.1; done; while :; do echo three; sleep 0.1; done";
    let task = start(swarm, host, on, "talk", &[], &["sh", "-c", script]);
    let (at, id) = (task.host, task.container.as_str());
    eventually("three lines", PATIENCE, || {
        let output = docker(at, &["logs", id]);
        let told = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        if told == ("one\ntwo\n".into(), "oops\n".into()) { Ok(()) } else { Err(format!("{told:?}")) }
    });
    assert_eq!(ok(at, &["logs", "--tail", "0", id]), "");
    let stamped = ok(at, &["logs", "--timestamps", id]);
    assert!(stamped.lines().next().unwrap().parse::<String>().unwrap().ends_with("Z one"), "{stamped}");
    assert_eq!(ok(at, &["logs", "--until", "2020-01-01T00:00:00Z", id]), "");
    assert_eq!(ok(at, &["logs", "--since", "10m", id]), "one\ntwo\n");

    // What comes later is told to who follows, and to who attaches.
    let mut following = Vec::new();
    for args in [["logs", "--follow", "--tail", "1", id].as_slice(), &["attach", "--no-stdin", "--sig-proxy=false", id]]
    {
        let mut child = command(at, "docker").args(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        following.push((child, lines));
    }
    // Again and again: nothing says when a client that attaches has begun to listen.
    ok(at, &["exec", id, "touch", "/more"]);
    for (child, mut lines) in following {
        let told = lines.find(|line| line.as_ref().is_ok_and(|line| line == "three"));
        assert!(told.is_some());
        kill_all_of(child);
    }
    assert_eq!(ok(at, &["logs", "--tail", "1", id]), "three\n");
    ok(at, &["service", "rm", "talk"]);
}

/// A client that goes without a word ends neither the container nor its input.
pub fn hold_their_input(swarm: &Swarm, host: usize, on: &str) {
    let at = &swarm.hosts[host];
    let place = format!("node.hostname=={on}");
    let create = ["service", "create", "--detach", "--name", "reads", "--interactive", "--constraint", &place, IMAGE];
    at.ok(&[create.as_slice(), &["sh", "-c", "while read line; do echo got $line; done"]].concat());
    let container = swarm.running(host, "reads", 1).remove(0).container;
    for word in ["one", "two"] {
        let mut command = command(at, "docker");
        command.args(["attach", "--sig-proxy=false", &container]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "{word}").unwrap();
        let line = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
        assert_eq!(line, format!("got {word}"));
        kill_all_of(child);
    }
    assert_eq!(ok(at, &["inspect", "--format", "{{.State.Status}}", &container]).trim(), "running");
    ok(at, &["service", "rm", "reads"]);
}

pub fn show_what_runs_and_what_it_uses(swarm: &Swarm, host: usize, on: &str) {
    let task = start(swarm, host, on, "busy", &["--limit-memory", "64M"], &["sh", "-c", "sleep 1001 & sleep 1002"]);
    let (at, id) = (task.host, task.container.as_str());
    let top = ok(at, &["top", id]);
    assert!(top.starts_with("UID") && top.contains("sleep 1001") && top.contains("sleep 1002"), "{top}");
    let top = ok(at, &["top", id, "-o", "pid,args"]);
    assert!(top.starts_with("PID") && top.contains("sleep 1002"), "{top}");
    assert!(refused(at, &["top", id, "-o", "args"]).contains("PID"));
    let stats = ok(at, &["stats", "--no-stream", "--format", "{{.ID}} {{.Name}} {{.MemUsage}} {{.PIDs}}", id]);
    assert!(stats.starts_with(&id[..12]) && stats.contains("/ 64MiB") && stats.trim().ends_with(" 2"), "{stats}");
    // A stream goes on.
    let mut child = command(at, "docker")
        .args(["stats", "--format", "{{.PIDs}}", "--no-trunc", id])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .filter(|line| line.trim_end_matches("\u{1b}[K").ends_with('2'));
    assert!(lines.next().is_some() && lines.next().is_some());
    kill_all_of(child);
    ok(at, &["service", "rm", "busy"]);
}

pub fn end(swarm: &Swarm, host: usize, on: &str) {
    // Replaced as the service says: by nothing.
    let more = ["--restart-condition", "none", "--stop-grace-period", "1s"];
    let trap = ["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done"];
    let task = start(swarm, host, on, "ends", &more, &trap);
    let (at, id) = (task.host, task.container.as_str());
    let waiting = command(at, "docker").args(["wait", id]).stdout(Stdio::piped()).spawn().unwrap();
    assert!(refused(at, &["kill", "--signal", "NONSENSE", id]).contains("Invalid signal"));
    assert_eq!(ok(at, &["stop", id]).trim(), id);
    assert_eq!(String::from_utf8_lossy(&waiting.wait_with_output().unwrap().stdout).trim(), "7");
    eventually("the container to have exited", PATIENCE, || {
        let found = ok(at, &["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", id]);
        if found.trim() == "exited 7" { Ok(()) } else { Err(found) }
    });
    assert!(refused(at, &["kill", id]).contains("is not running"));
    assert!(refused(at, &["exec", id, "true"]).contains("is not running"));
    assert_eq!(ok(at, &["logs", id]), "");
    let listed =
        ok(at, &["ps", "--all", "--filter", &format!("node={on}"), "--filter", "exited=7", "--format", "{{.Status}}"]);
    assert!(listed.starts_with("Exited (7)"), "{listed}");

    let deaf = ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"];
    let task = start(swarm, host, on, "deaf", &more, &deaf);
    assert_eq!(ok(at, &["stop", "-t", "0", &task.container]).trim(), task.container);
    let task = start(swarm, host, on, "struck", &more, &deaf);
    assert_eq!(ok(at, &["kill", &task.container]).trim(), task.container);
    // One whose service keeps it going comes back as another container.
    let task = start(swarm, host, on, "again", &["--restart-delay", "0s"], &["sleep", "1000"]);
    ok(at, &["restart", "-t", "0", &task.container]);
    eventually("another container", PATIENCE, || {
        let now = swarm.running(host, "again", 1).remove(0).container;
        if now == task.container { Err(now) } else { Ok(()) }
    });
    ok(at, &["service", "rm", "ends", "deaf", "struck", "again"]);
}
