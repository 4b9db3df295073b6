//! New data for a secret that a service uses: rolled out, failed and taken back, as any update of it.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::docker::{ok, refused};
use super::lab::{Host, eventually};
use super::swarm::{PATIENCE, Swarm, containers_of};

/// What no log, no disk and no answer may hold.
const HIDDEN: &str = "flok-e2e-rotated-9K4z";
const PORT: u16 = 8080;

/// A file with this of the secret's data.
fn data(swarm: &Swarm, word: &str) -> String {
    let path = swarm.dir().join(word);
    fs::write(&path, format!("{HIDDEN} {word}")).unwrap();
    path.to_str().unwrap().to_owned()
}

fn serves(swarm: &Swarm, word: &str) {
    eventually(&format!("{word} to be served"), PATIENCE, || {
        let page = swarm.fetch(0, 0, PORT)?;
        if page == format!("key: {HIDDEN} {word}\n") { Ok(()) } else { Err(page) }
    });
}

/// Files of tasks on the host, as its tmpfs has them, in which the text stands.
fn task_files_with(host: &Host, text: &str) -> usize {
    let dir = host.seen_from_outside(&host.data_dir().join("secrets"));
    let output = Command::new("grep").args(["-rls", text]).arg(dir).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().count()
}

fn has_alone(host: &Host, word: &str) {
    eventually(&format!("n{} to have {word} alone", host.index), PATIENCE, || {
        let found = ["first", "second", "bad"].map(|word| (word, task_files_with(host, &format!("{HIDDEN} {word}"))));
        let fits = found.iter().all(|(found, files)| (*files > 0) == (*found == word));
        if fits { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

fn nowhere_on_disk(host: &Host) {
    let dir: &Path = &host.dir;
    let output = Command::new("grep").args(["-rlsa", "--one-file-system", HIDDEN]).arg(dir).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "n{}", host.index);
}

#[test]
#[ignore = "needs root, containerd, network namespaces and the docker command"]
fn new_data_is_rolled_out_and_taken_back() {
    let swarm = Swarm::of(2);
    swarm.load("busybox");
    let [host, own] = swarm.hosts.as_slice() else { unreachable!("two hosts") };
    let [first, second, bad] = ["first", "second", "bad"].map(|word| data(&swarm, word));
    let page = swarm.dir().join("page");
    fs::write(&page, "key: {{secret \"key\"}}\n").unwrap();
    ok(host, &["secret", "create", "key", &first]);
    host.ok(&["config", "create", "--template-driver", "golang", "page", page.to_str().unwrap()]);
    let create =
        ["service", "create", "--quiet", "--name", "web", "--replicas", "2", "--constraint", "node.hostname==n2"];
    let rules = ["--update-failure-action", "rollback", "--update-monitor", "1s", "--restart-delay", "200ms"];
    let files = ["--secret", "key", "--config", "page", "--publish", "8080:80", "--stop-grace-period", "100ms"];
    let script =
        "grep -q bad /run/secrets/key && exit 1; mkdir /www; ln -s /page /www/index.html; exec httpd -f -p 80 -h /www";
    host.ok(&[create.as_slice(), &rules, &files, &["flok/busybox:latest", "sh", "-c", script]].concat());
    serves(&swarm, "first");
    let before = containers_of(&swarm.running(0, "web", 2));

    let told = host.ok(&["secret", "update", "--label-add", "a=b", "key", &second]);
    assert_eq!(told, "secret key is at version 2\nUpdating service web\n");
    serves(&swarm, "second");
    assert!(containers_of(&swarm.running(0, "web", 2)).is_disjoint(&before));
    has_alone(own, "second");
    assert_eq!(task_files_with(host, HIDDEN), 0, "no task of it runs there");
    let told = host.ok(&["secret", "update", "key", &second]);
    assert_eq!(told, "secret key has this data already, in version 2: nothing changed\n");

    // The service takes it back by itself; the secret is the user's to take back.
    let told = host.refused(&["secret", "update", "key", &bad]);
    assert!(told.contains("web went back to earlier data, and secret key is still at version 3"), "{told}");
    serves(&swarm, "second");
    has_alone(own, "second");
    let left = containers_of(&swarm.running(0, "web", 2));
    let told = host.ok(&["secret", "rollback", "key"]);
    assert_eq!(told, "secret key is at version 4, with the data of version 2\n");
    assert_eq!(containers_of(&swarm.running(0, "web", 2)), left, "they have that data");

    let told = host.ok(&["secret", "rollback", "--to", "1", "--no-rollout", "key"]);
    let later = "Service web has other data, and gets this at its next update (`flok service update --force web`)\n";
    assert_eq!(told, format!("secret key is at version 5, with the data of version 1\n{later}"));
    ok(host, &["service", "update", "--quiet", "--force", "web"]);
    serves(&swarm, "first");
    has_alone(own, "first");
    host.ok(&["service", "rollback", "--quiet", "web"]);
    serves(&swarm, "second");
    has_alone(own, "second");

    let versions =
        host.ok(&["secret", "versions", "--format", "{{.Version}} {{.Restored}} {{.Services}} {{.Previously}}", "key"]);
    let lines: Vec<&str> = versions.lines().map(str::trim_end).collect();
    assert_eq!(lines, ["5 1  web", "4 2", "3", "2  web", "1"], "{versions}");
    let told = host.refused(&["secret", "rollback", "--to", "9", "key"]);
    assert!(told.contains("secret key has no version 9: the versions kept are 1, 2, 3, 4, 5"), "{told}");
    assert!(refused(host, &["secret", "rm", "key"]).contains("in use by the following service: web"));
    let shown = ok(host, &["secret", "inspect", "key"]);
    assert!(shown.contains(r#""a": "b""#) && !shown.contains(HIDDEN), "{shown}");
    swarm.hosts.iter().for_each(nowhere_on_disk);
}
