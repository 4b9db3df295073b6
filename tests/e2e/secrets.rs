//! Secrets and configs: to the nodes that run the tasks that use them, as files that no disk ever sees.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::docker::{ok, refused};
use super::lab::{Host, eventually};
use super::swarm::{PATIENCE, Swarm};

/// What no log, no disk and no answer may hold.
const HIDDEN: &str = "flok-e2e-hidden-7Q2x";

/// What a service says, task by task.
fn says(swarm: &Swarm, service: &str, lines: usize) -> Vec<String> {
    eventually(&format!("{lines} lines of {service}"), PATIENCE, || {
        let text = swarm.hosts[0].ok(&["service", "logs", "--raw", service]);
        let mut found: Vec<String> = text.lines().map(str::to_owned).collect();
        found.sort();
        if found.len() == lines { Ok(found) } else { Err(text) }
    })
}

/// Files below the host's directory in which the text stands, but for what is in memory alone.
fn files_with(host: &Host, text: &str) -> String {
    let output = Command::new("grep").args(["-rlsa", "--one-file-system", text]).arg(&host.dir).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
#[ignore = "needs root, containerd, network namespaces and the docker command"]
fn secrets_and_configs_reach_their_tasks_alone_and_leave_no_trace() {
    let mut swarm = Swarm::of(2);
    swarm.load("busybox");
    let outside = tempfile::tempdir().unwrap();
    let key = file(outside.path(), "key", &format!("{HIDDEN}\n"));
    let template = "on {{.Node.Hostname}} slot {{.Task.Slot}} level {{env `LEVEL`}}\n\
        {{if eq (env `LEVEL`) `info`}}{{range $key, $value := .Service.Labels}}{{printf `%s=%q ` $key $value}}{{end}}\
        {{else}}no{{end}}\n";
    let site = file(outside.path(), "site", template);
    let host = &swarm.hosts[0];
    let id = ok(host, &["secret", "create", "--label", "tier=a", "key", &key]);
    assert_eq!(host.ok(&["config", "create", "--template-driver", "golang", "site", &site]).trim().len(), 25);

    assert_eq!(ok(host, &["secret", "ls", "--format", "{{.ID}} {{.Name}}"]).trim(), format!("{} key", id.trim()));
    let shown = ok(host, &["secret", "inspect", "key"]) + &host.ok(&["secret", "inspect", "key"]);
    assert!(shown.contains("tier") && !shown.contains(HIDDEN) && !shown.contains("Data"), "{shown}");
    assert!(ok(host, &["config", "inspect", "--pretty", "site"]).contains("on {{.Node.Hostname}}"));

    let create = ["service", "create", "--name", "web", "--constraint", "node.hostname==n2", "--env", "LEVEL=info"];
    let labels = ["--label", "team=a", "--label", "tier=front"];
    let files = [
        "--secret",
        "key",
        "--secret",
        "source=key,target=/etc/keys/own,uid=999,gid=998,mode=0400",
        "--config",
        "source=site,target=/etc/site",
    ];
    let script = "sed 's/ $//' /etc/site; stat -c '%n %u:%g %a' /etc/keys/own /run/secrets/key; \
        test \"$(cat /etc/keys/own)\" = \"$(cat /run/secrets/key)\" && cat /run/secrets/key | wc -c; \
        touch /run/secrets/key 2>/dev/null || echo read-only; sleep 100000";
    ok(host, &[create.as_slice(), &labels, &files, &["flok/busybox:latest", "sh", "-c", script]].concat());
    let expected = [
        "/etc/keys/own 999:998 400",
        "/run/secrets/key 0:0 444",
        "21",
        "on n2 slot 1 level info",
        "read-only",
        "team=\"a\" tier=\"front\"",
    ];
    assert_eq!(says(&swarm, "web", 6), expected);

    // On the node of the task, and only in memory.
    let [other, own] = swarm.hosts.as_slice() else { unreachable!("two hosts") };
    for host in [other, own] {
        assert_eq!(files_with(host, HIDDEN), "", "n{}: no file on a disk holds it", host.index);
    }
    let kept = |host: &Host| {
        let dir = host.seen_from_outside(&host.data_dir().join("secrets"));
        fs::read_dir(dir).map_or(0, |tasks| tasks.count())
    };
    assert_eq!((kept(other), kept(own)), (0, 1));

    // In use, they stay; after a restart of the daemon they are still there.
    let words = "secret 'key' is in use by the following service: web";
    assert!(refused(host, &["secret", "rm", "key"]).contains(words));
    assert!(
        swarm.hosts[0].refused(&["config", "rm", "site"]).contains("config 'site' is in use by the following service")
    );
    let task = swarm.running(0, "web", 1).remove(0);
    swarm.host(1).kill_daemon();
    swarm.host(1).start_daemon(&["--insecure-registry", super::registry::ADDR]);
    eventually("the node to report", PATIENCE, || swarm.tasks(1, "web"));
    assert_eq!(swarm.running(0, "web", 1), [task]);
    assert_eq!(kept(&swarm.hosts[1]), 1);

    ok(&swarm.hosts[0], &["service", "rm", "web"]);
    eventually("its files to go", PATIENCE, || match kept(&swarm.hosts[1]) {
        0 => Ok(()),
        count => Err(format!("{count} tasks have files")),
    });
    eventually("the secret to go", PATIENCE, || {
        let output = swarm.hosts[0].flok(&["secret", "rm", "key"]);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
    assert_eq!(ok(&swarm.hosts[0], &["config", "rm", "site"]).trim(), "site");
}

#[test]
#[ignore = "needs root, containerd, network namespaces and the docker command"]
fn a_stack_brings_its_secrets_and_configs_and_takes_them_along() {
    let swarm = Swarm::of(1);
    swarm.load("busybox");
    let host = &swarm.hosts[0];
    file(swarm.dir(), "key.txt", HIDDEN);
    let stack = |site: &str| {
        format!(
            "services:
  web:
    image: flok/busybox:latest
    hostname: '{{{{.Service.Name}}}}-{{{{if eq .Task.Slot \"1\"}}}}{{{{printf \"%02d\" .Task.Slot}}}}{{{{end}}}}'
    environment: {{ NODE: '{{{{.Node.Hostname}}}}' }}
    command: ['sh', '-c', 'echo $$(hostname) $$NODE $$(wc -c </run/secrets/key) $$(cat /site); sleep 100000']
    secrets: [key]
    configs: [site]
secrets:
  key: {{ file: ./key.txt }}
configs:
  site: {{ content: '{site}' }}
"
        )
    };
    swarm.deploy(0, "s", &stack("first"));
    assert_eq!(says(&swarm, "s_web", 1), ["s_web-01 n1 20 first"]);
    let again = swarm.stack_file("s", &stack("first"));
    let told = host.ok(&["stack", "deploy", "--detach", "-c", &again, "s"]);
    assert_eq!(told.trim(), "Unchanged service s_web");
    let other = swarm.stack_file("s", &stack("second"));
    let by_docker = refused(host, &["stack", "deploy", "--resolve-image", "never", "-c", &other, "s"]);
    assert!(by_docker.contains("only updates to Labels are allowed") || by_docker.contains("content"), "{by_docker}");
    let plan = host.ok(&["stack", "plan", "-c", &other, "s"]);
    assert!(
        plan.starts_with("~ config s_site\n~ service s_web\n    ~ configs[s_site].data_version: 1 -> 2\n"),
        "{plan}"
    );
    let told = host.ok(&["stack", "deploy", "-c", &other, "s"]);
    assert_eq!(told, "Updating config s_site\nUpdating service s_web\n");
    let both = says(&swarm, "s_web", 2);
    assert!(both.iter().any(|line| line == "s_web-01 n1 20 second"), "{both:?}");

    let removed = host.ok(&["stack", "rm", "s"]);
    assert!(removed.contains("Removing secret s_key\nRemoving config s_site"), "{removed}");
    for kind in ["/secrets", "/configs"] {
        assert_eq!(host.get(kind).unwrap(), json!([]), "{kind}");
    }
}

#[test]
#[ignore = "needs root, containerd, network namespaces and the docker command"]
fn what_secrets_cannot_be_is_said_and_nothing_is_left() {
    let swarm = Swarm::of(1);
    let host = &swarm.hosts[0];
    let big = file(swarm.dir(), "big", &"x".repeat(500 * 1024 + 1));
    let empty = file(swarm.dir(), "empty", "");
    let small = file(swarm.dir(), "small", HIDDEN);
    assert!(refused(host, &["secret", "create", "big", &big]).contains("secret data must be larger than 0"));
    assert!(host.refused(&["secret", "create", "big", &big]).contains("more than 512000 bytes"));
    assert!(host.refused(&["config", "create", "none", &empty]).contains("is empty"));
    refused(host, &["config", "create", "none", &empty]);
    assert!(refused(host, &["secret", "create", "bad_", &small]).contains("invalid name"));
    ok(host, &["secret", "create", "key", &small]);
    let twice = refused(host, &["secret", "create", "key", &small]);
    assert!(twice.contains("secret key already exists") && !twice.contains(HIDDEN), "{twice}");
    assert!(refused(host, &["secret", "inspect", "other"]).contains("other"));
    let service = ["service", "create", "--detach", "--name", "web", "--secret", "other", "flok/busybox:latest"];
    assert!(refused(host, &service).contains("secret not found: other"));
    let template =
        ["service", "create", "--detach", "--name", "web", "--env", "A={{.Node.Name}}", "flok/busybox:latest"];
    assert!(refused(host, &template).contains("expanding env failed: A: there is no field .Node.Name"));
    let wrong = file(swarm.dir(), "wrong", "a\n{{if .Task.Slots}}{{end}}");
    let create = ["config", "create", "--template-driver", "golang", "wrong", &wrong];
    for told in [refused(host, &create), host.refused(&create)] {
        assert!(told.contains("line 2: there is no field .Task.Slots; did you mean .Task.Slot?"), "{told}");
    }
    assert_eq!(host.get("/services").unwrap(), json!([]));
    host.ok(&["secret", "update", "--label-add", "a=b", "key"]);
    assert_eq!(ok(host, &["secret", "inspect", "--format", "{{json .Spec.Labels}}", "key"]).trim(), r#"{"a":"b"}"#);
}
