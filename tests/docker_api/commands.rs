//! Commands of Docker's CLI that the other tests have no use for: each is run, and what it prints is judged.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use super::docker_command::{command, docker, ok, refused};
use super::lab::{Host, eventually};
use super::registry::{ACCOUNT, ADDR, Registry};
use super::swarm::{PATIENCE, Swarm};
use super::whole::{IMAGE, start};

pub fn print_what_dockers_do(swarm: &Swarm) {
    let at = &swarm.hosts[0];
    the_swarm_and_its_settings(at);
    names_that_several_kinds_have(at);
    tasks_by_their_names_and_a_rollback(swarm, at);
    a_stack(swarm, at);
    what_is_not_used(at);
    a_query_by_hand(at);
    logins(swarm, at);
}

fn the_swarm_and_its_settings(at: &Host) {
    let version = ok(at, &["version"]);
    let server = version.split_once("Server:").unwrap().1;
    for (title, value) in
        [("API version:", "1.50 (minimum version 1.24)"), ("OS/Arch:", "linux/"), ("Go version:", "none (Rust)")]
    {
        let line =
            server.lines().find(|line| line.trim().starts_with(title)).unwrap_or_else(|| panic!("{title} {server}"));
        assert!(line.contains(value), "{line}");
    }
    assert!(!server.contains("x86_64"), "{server}");
    let info = ok(at, &["info"]);
    for line in ["Snapshot Interval: 10000", "Heartbeat Period: 5 seconds", "Volume: local", "Network: overlay"] {
        assert!(info.contains(line), "{line}: {info}");
    }
    let count = |format: &str| ok(at, &["info", "--format", format]).trim().to_owned();
    let images = ok(at, &["images", "--quiet", "--no-trunc"]);
    let mut images: Vec<&str> = images.lines().collect();
    images.sort_unstable();
    images.dedup();
    assert_eq!(count("{{.Images}}"), images.len().to_string());
    let nodes = ok(at, &["node", "ls", "--format", "{{.TLSStatus}}"]);
    assert!(!nodes.is_empty() && nodes.lines().all(|status| status == "Ready"), "{nodes}");

    // What is read may be sent back; what would change nothing is refused by its name.
    ok(at, &["swarm", "update", "--cert-expiry", "48h"]);
    assert!(ok(at, &["info"]).contains("Expiry Duration: 2 days"));
    for (args, named) in [
        (["--snapshot-interval", "5"].as_slice(), "--snapshot-interval"),
        (&["--max-snapshots", "3"], "--max-snapshots"),
        (&["--dispatcher-heartbeat", "3s"], "--dispatcher-heartbeat"),
        (&["--external-ca", "protocol=cfssl,url=https://ca.example"], "--external-ca"),
    ] {
        let said = refused(at, &[["swarm", "update"].as_slice(), args].concat());
        assert!(said.contains(named), "{args:?}: {said}");
    }
    assert!(refused(at, &["swarm", "ca"]).contains("No CA information available"));
    assert!(refused(at, &["swarm", "ca", "--rotate", "--detach"]).contains("no X.509"));
    assert!(refused(at, &["swarm", "unlock-key"]).contains("no unlock key is set"));
    assert!(refused(at, &["swarm", "unlock-key", "--rotate"]).contains("autolock"));
    assert!(refused(at, &["swarm", "unlock"]).contains("not locked"));
    let told = ok(at, &["swarm", "update", "--autolock=true"]);
    let key = |at: &Host| ok(at, &["swarm", "unlock-key", "--quiet"]).trim().to_owned();
    let first = key(at);
    assert!(first.starts_with("FLKKEY-1-") && told.contains(&first), "{told}");
    assert!(ok(at, &["info"]).contains("Autolock Managers: true"));
    let told = ok(at, &["swarm", "unlock-key", "--rotate"]);
    assert!(key(at) != first && told.contains(&key(at)), "{told}");
    ok(at, &["swarm", "update", "--autolock=false"]);
    assert!(refused(at, &["swarm", "unlock-key"]).contains("no unlock key is set"));

    let token = |role: &str| ok(at, &["swarm", "join-token", "--quiet", role]).trim().to_owned();
    let (worker, manager) = (token("worker"), token("manager"));
    let told = ok(at, &["swarm", "join-token", "--rotate", "worker"]);
    assert!(told.contains("Successfully rotated worker join token"), "{told}");
    assert!(token("worker") != worker && token("manager") == manager && told.contains(&token("worker")));
}

/// `docker inspect` asks for one kind after the other.
fn names_that_several_kinds_have(at: &Host) {
    ok(at, &["secret", "create", "hush", "/etc/hostname"]);
    ok(at, &["config", "create", "told", "/etc/hostname"]);
    let tags = ok(at, &["inspect", "--format", "{{.RepoTags}}", IMAGE.trim_end_matches(":latest")]);
    assert!(tags.contains(IMAGE), "{tags}");
    let looks_for_configs = has(at, "inspect of a config", 28);
    for name in ["hush", "told"].into_iter().take(if looks_for_configs { 2 } else { 1 }) {
        assert_eq!(ok(at, &["inspect", "--format", "{{.Spec.Name}}", name]).trim(), name);
    }
    assert!(refused(at, &["inspect", "a/b"]).contains("No such object: a/b"));
    ok(at, &["secret", "rm", "hush"]);
    ok(at, &["config", "rm", "told"]);
    // Too large is told with the limit.
    let file = at.dir.join("large");
    std::fs::write(&file, vec![b'x'; 1_100_000]).unwrap();
    let said = refused(at, &["config", "create", "large", file.to_str().unwrap()]);
    assert!(said.contains("at most 1024000 bytes"), "{said}");
}

fn tasks_by_their_names_and_a_rollback(swarm: &Swarm, at: &Host) {
    let task = start(swarm, 0, "n1", "back", &["--env", "A=1"], &["sleep", "1000"]);
    let slot = task.name.rsplit_once('.').unwrap().0;
    for args in [["service", "ps"], ["node", "ps"]] {
        let of = if args[0] == "service" { "back" } else { "n1" };
        let found = |name: &str| {
            let filter = format!("name={name}");
            let args =
                [args.as_slice(), &["--no-trunc", "--format", "{{.Name}}.{{.ID}}", "--filter", &filter, of]].concat();
            ok(at, &args).trim().to_owned()
        };
        assert_eq!((found(slot), found("back.7")), (task.name.clone(), String::new()), "{args:?}");
    }
    assert!(refused(at, &["service", "ps", "--filter", "desired-state=bogus", "back"]).contains("desired-state=bogus"));
    assert!(refused(at, &["node", "ls", "--filter", "role=bogus"]).contains("role=bogus"));

    ok(at, &["service", "update", "--detach", "--env-add", "A=2", "back"]);
    let env = || ok(at, &["service", "inspect", "--format", "{{.Spec.TaskTemplate.ContainerSpec.Env}}", "back"]);
    assert_eq!(env().trim(), "[A=2]");
    ok(at, &["service", "rollback", "--detach", "back"]);
    assert_eq!(env().trim(), "[A=1]");
    ok(at, &["service", "rm", "back"]);

    ok(at, &["service", "create", "--detach", "--mode", "replicated-job", "--name", "once", IMAGE, "true"]);
    eventually("the job to be done", PATIENCE, || {
        let found = ok(at, &["service", "ps", "--format", "{{.DesiredState}} {{.CurrentState}}", "once"]);
        if found.starts_with("Complete Complete") && found.lines().count() == 1 { Ok(()) } else { Err(found) }
    });
    ok(at, &["service", "rm", "once"]);
}

/// Whether the command on the path has what came with a major version of it. What it has not is counted as skipped, and
/// named.
pub fn has(host: &Host, what: &str, since: u32) -> bool {
    static SKIPPED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let version = ok(host, &["version", "--format", "{{.Client.Version}}"]);
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    let has = major.expect("a version of the docker command") >= since;
    if !has {
        let mut skipped = SKIPPED.lock().unwrap();
        skipped.insert(what.to_owned());
        eprintln!("skipped with docker {}: {} ({skipped:?})", version.trim(), skipped.len());
    }
    has
}

fn a_stack(swarm: &Swarm, at: &Host) {
    let service =
        |name: &str| format!("  {name}:\n    image: {IMAGE}\n    command: sleep 1000\n    stop_grace_period: 0s\n");
    let file =
        |more: &str| swarm.stack_file("several", &format!("version: \"3.8\"\nservices:\n{}{more}", service("web")));
    let both = file(&service("db"));
    if has(at, "stack config", 23) {
        let config = ok(at, &["stack", "config", "-c", &both]);
        assert!(config.contains("stop_grace_period: 0s") && config.contains("db:"), "{config}");
    }
    ok(at, &["stack", "deploy", "--resolve-image", "never", "-c", &both, "several"]);
    let stacks = ok(at, &["stack", "ls", "--format", "{{.Name}} {{.Services}}"]);
    assert!(stacks.lines().any(|line| line == "several 2"), "{stacks}");
    let services = || {
        let found = ok(at, &["stack", "services", "--format", "{{.Name}} {{.Image}}", "several"]);
        let mut found: Vec<String> = found.lines().map(str::to_owned).collect();
        found.sort();
        found
    };
    assert_eq!(services(), [format!("several_db {IMAGE}"), format!("several_web {IMAGE}")]);
    eventually("the stack's tasks", PATIENCE, || {
        let args =
            ["stack", "ps", "--filter", "name=several_web.1", "--format", "{{.Name}} {{.DesiredState}}", "several"];
        let found = ok(at, &args);
        if found.trim() == "several_web.1 Running" { Ok(()) } else { Err(found) }
    });
    ok(at, &["stack", "deploy", "--prune", "--resolve-image", "never", "-c", &file(""), "several"]);
    assert_eq!(services(), [format!("several_web {IMAGE}")]);
    let gone = ok(at, &["stack", "rm", "several"]);
    assert!(gone.contains("Removing service several_web"), "{gone}");
    assert!(!ok(at, &["stack", "ls", "--format", "{{.Name}}"]).contains("several"));
}

/// What the swarm wants stays.
fn what_is_not_used(at: &Host) {
    assert_eq!(ok(at, &["plugin", "ls", "--quiet"]), "");
    ok(at, &["network", "create", "--driver", "overlay", "idle"]);
    let before = ok(at, &["ps", "--all", "--quiet", "--no-trunc"]);
    assert!(ok(at, &["container", "prune", "--force"]).contains("Total reclaimed space: 0B"));
    let told = ok(at, &["system", "prune", "--force"]);
    assert!(told.contains("Deleted Networks:\nidle") && told.contains("Total reclaimed space"), "{told}");
    let after = ok(at, &["ps", "--all", "--quiet", "--no-trunc"]);
    assert!(before.lines().all(|id| after.contains(id) || docker(at, &["inspect", id]).status.code() == Some(1)));
    assert!(ok(at, &["images", "--format", "{{.Repository}}:{{.Tag}}"]).contains(IMAGE));
}

fn a_query_by_hand(at: &Host) {
    let told = Command::new("curl")
        .args(["-sS", "--globoff", "--max-time", "30", "-w", " %{http_code}", "--unix-socket"])
        .arg(at.socket())
        .arg(r#"http://flok/v1.43/services?filters={"name":["nothing"]}"#)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&told.stdout), "[] 200");
}

/// At a registry that asks for an account.
fn logins(swarm: &Swarm, at: &Host) {
    let _registry = Registry::with_account(swarm);
    let log_in = |password: &str| {
        let mut login = command(at, "docker");
        login.args(["login", "--username", ACCOUNT.0, "--password-stdin", ADDR]);
        let mut child = login.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let wrong = log_in("wrong");
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(!wrong.status.success() && said.contains("unauthorized"), "{said}");
    let right = log_in(ACCOUNT.1);
    assert!(String::from_utf8_lossy(&right.stdout).contains("Login Succeeded"), "{right:?}");
    ok(at, &["logout", ADDR]);
}
