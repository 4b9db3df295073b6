//! Images, volumes, and what is told of all that happens.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::commands::has;
use super::docker_command::{command, docker, ok, refused};
use super::images;
use super::lab::{Host, eventually, kill_all_of};
use super::registry::{ADDR, Registry};
use super::swarm::{PATIENCE, Swarm};
use super::whole::{Asked, IMAGE, start};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

pub fn holds_images(swarm: &Swarm, host: usize) {
    let at = &swarm.hosts[host];
    let list = |more: &[&str]| ok(at, &[["images", "--format", "{{.Repository}}:{{.Tag}}"].as_slice(), more].concat());
    assert!(list(&[]).contains(IMAGE), "{}", list(&[]));
    ok(at, &["tag", IMAGE, "mine/copy:1"]);
    assert_eq!(list(&["mine/copy"]).trim(), "mine/copy:1");
    let found = json(&ok(at, &["image", "inspect", "mine/copy:1"]));
    assert_eq!((&found[0]["Os"], &found[0]["Config"]["Cmd"][0]), (&"linux".into(), &"sh".into()));
    assert!(found[0]["Size"].as_u64().unwrap() > 100_000);
    assert_eq!(ok(at, &["rmi", "mine/copy:1"]).trim(), "Untagged: mine/copy:1");
    assert!(refused(at, &["image", "inspect", "mine/copy:1"]).contains("No such image"));
    assert!(list(&[]).contains(IMAGE));
    assert!(ok(at, &["load", "--input", images::archive("busybox").to_str().unwrap()]).contains("Loaded image"));

    let history = ok(at, &["history", "--no-trunc", "--format", "{{.ID}} {{.Size}}", IMAGE]);
    let id = json(&ok(at, &["image", "inspect", IMAGE]))[0]["Id"].as_str().unwrap().to_owned();
    assert!(history.starts_with(&format!("{id} ")) && !history.starts_with(&format!("{id} 0B")), "{history}");
    are_saved_and_loaded(at);

    // From a registry, by hand.
    let registry = Registry::beside(swarm);
    registry.push("whoami", "pulled/whoami:1");
    let name = format!("{ADDR}/pulled/whoami:1");
    // The images have no such platform, and this machine is of another.
    let other = refused(at, &["pull", "--platform", "linux/s390x", &name]);
    assert!(other.contains("no matching manifest for linux/s390x") && !list(&[]).contains(&name), "{other}");
    let pulled = ok(at, &["pull", &name]);
    assert!(pulled.contains("Digest: sha256:") && pulled.contains("Downloaded newer image"), "{pulled}");
    assert!(ok(at, &["pull", &name]).contains("Image is up to date"));
    assert!(refused(at, &["pull", &format!("{ADDR}/pulled/nothing:1")]).contains("nothing"));
    assert!(list(&[]).contains(&name));
    // Docker's command pins what it creates by what the registry says.
    ok(at, &["service", "create", "--detach", "--replicas", "0", "--name", "pinned", &name]);
    let image = ok(at, &["service", "inspect", "--format", "{{.Spec.TaskTemplate.ContainerSpec.Image}}", "pinned"]);
    assert!(image.starts_with(&format!("{name}@sha256:")), "{image}");
    let platforms = "{{range .Spec.TaskTemplate.Placement.Platforms}}{{.OS}}/{{.Architecture}}{{end}}";
    let platforms = ok(at, &["service", "inspect", "--format", platforms, "pinned"]);
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    assert_eq!(platforms.trim(), format!("linux/{architecture}"));
    ok(at, &["service", "rm", "pinned"]);
    registry.push("whoami", "pulled/whoami:2");
    are_removed_by_name(at, &registry.name("pulled/whoami"));
    assert!(ok(at, &["image", "prune", "--force"]).contains("Total reclaimed space: "));
    assert!(list(&[]).contains(IMAGE), "what has a tag stays");
}

/// With all of its tags, the first of which is here, a repository is one image.
fn are_removed_by_name(at: &Host, repository: &str) {
    let (one, two) = (format!("{repository}:1"), format!("{repository}:2"));
    let pulled = ok(at, &["pull", "--all-tags", repository]);
    assert!(pulled.contains(&format!("up to date for {one}")) && pulled.contains(&two), "{pulled}");
    ok(at, &["tag", &one, "mine/other:1"]);
    // As old as it says, which is the beginning of time.
    let made = ok(at, &["images", "--format", "{{.CreatedSince}}", &one]);
    assert!(made.trim().ends_with("years ago"), "{made}");
    let found = json(&ok(at, &["image", "inspect", &one]))[0].clone();
    let id = found["Id"].as_str().unwrap();
    let several = refused(at, &["rmi", id]);
    assert!(several.contains("referenced in multiple repositories"), "{several}");
    let exact = format!("{repository}@{id}");
    assert_eq!(ok(at, &["rmi", &exact]).trim(), format!("Untagged: {exact}"));
    for tag in [&one, &two, "mine/other:1"] {
        assert_eq!(json(&ok(at, &["image", "inspect", tag]))[0]["Id"], id, "{tag}");
    }
    ok(at, &["rmi", &two, "mine/other:1"]);
    let gone = ok(at, &["rmi", &one]);
    assert!(gone.contains("Untagged: ") && gone.contains(&format!("Deleted: {id}")), "{gone}");
}

/// Two names of one image, in one archive, on the way to another node, so to say.
fn are_saved_and_loaded(at: &Host) {
    ok(at, &["tag", IMAGE, "saved/one:1"]);
    ok(at, &["tag", IMAGE, "saved/two:2"]);
    let archive = at.dir.join("saved.tar").display().to_string();
    ok(at, &["save", "--output", &archive, "saved/one:1", "saved/two:2"]);
    let id = |name: &str| json(&ok(at, &["image", "inspect", name]))[0]["Id"].clone();
    let before = id(IMAGE);
    ok(at, &["rmi", "saved/one:1", "saved/two:2"]);
    let loaded = ok(at, &["load", "--input", &archive]);
    assert!(loaded.contains("saved/one:1") && loaded.contains("saved/two:2"), "{loaded}");
    assert_eq!((id("saved/one:1"), id("saved/two:2")), (before.clone(), before));
    ok(at, &["rmi", "saved/one:1", "saved/two:2"]);
    assert!(refused(at, &["save", "--output", &archive, "saved/one:1"]).contains("No such image: saved/one:1"));
    // What is written is an OCI layout, too.
    let layout = at.dir.join("layout").display().to_string();
    let copied = Command::new("skopeo")
        .args(["copy", "--quiet", "--insecure-policy"])
        .args([format!("oci-archive:{archive}:2"), format!("dir:{layout}")])
        .output()
        .unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
}

pub fn holds_volumes(swarm: &Swarm, host: usize) {
    let at = &swarm.hosts[host];
    assert_eq!(ok(at, &["volume", "create", "--label", "kind=test", "holds-1"]).trim(), "holds-1");
    assert_eq!(ok(at, &["volume", "ls", "--quiet", "--filter", "label=kind=test"]).trim(), "holds-1");
    let found = json(&ok(at, &["volume", "inspect", "holds-1"]));
    let path = found[0]["Mountpoint"].as_str().unwrap();
    fs::write(at.seen_from_outside(path.as_ref()).join("file"), [b'x'; 5000]).unwrap();
    let mount = ["--mount", "type=volume,source={{.Service.Name}}-{{.Task.Slot}},target=/data"];
    let unnamed = ["--mount", "type=volume,target=/scratch"];
    let task = start(swarm, host, &at.name(), "holds", &[mount, unnamed].concat(), &["sleep", "1000"]);
    let scratch = name_of_an_unnamed_one(at, &task.container);
    assert_eq!(ok(at, &["exec", &task.container, "wc", "-c", "/data/file"]).split_whitespace().next(), Some("5000"));
    assert!(refused(at, &["volume", "rm", "holds-1"]).contains("volume is in use"));
    assert!(!ok(at, &["volume", "ls", "--quiet", "--filter", "dangling=true"]).contains("holds-1"));
    // All of them is what the earlier command meant without a word.
    let all = if has(at, "volume prune --all", 23) { ["--all"].as_slice() } else { &[] };
    let prune = ["volume", "prune", "--force"];
    assert!(!ok(at, &[prune.as_slice(), all].concat()).contains("holds-1"));
    let usage = ok(at, &["system", "df", "--verbose", "--format", "{{json .Volumes}}"]);
    assert!(usage.contains(r#""Name":"holds-1""#) && usage.contains(r#""Links":"1""#), "{usage}");
    assert!(ok(at, &["system", "df"]).contains("Local Volumes"));
    ok(at, &["service", "rm", "holds"]);
    eventually("the volume to be free", PATIENCE, || {
        let output = docker(at, &["volume", "rm", "holds-1"]);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
    for gone in ["holds-1", &scratch] {
        assert!(refused(at, &["volume", "inspect", gone]).to_lowercase().contains("no such volume"));
    }
    let unnamed = ok(at, &["volume", "create"]);
    assert!(ok(at, &["volume", "prune", "--force"]).contains(unnamed.trim()));
    assert!(refused(at, &["volume", "create", "--driver", "nothing", "x"]).contains("nothing"));
    mounts_what_options_say(swarm, host);
}

/// That at `/scratch`, which is the container's own.
fn name_of_an_unnamed_one(at: &Host, container: &str) -> String {
    let shown = json(&ok(at, &["inspect", container]))[0].clone();
    let mount = shown["Mounts"].as_array().unwrap().iter().find(|mount| mount["Destination"] == "/scratch").unwrap();
    let name = mount["Name"].as_str().unwrap();
    assert!(name.len() == 64, "{mount}");
    let volume = json(&ok(at, &["volume", "inspect", name]))[0].clone();
    assert_eq!(volume["Mountpoint"], mount["Source"]);
    assert!(ok(at, &["volume", "ls", "--quiet"]).lines().any(|listed| listed == name));
    let prune = ok(at, &["volume", "prune", "--force"]);
    assert!(!prune.contains(name) && refused(at, &["volume", "rm", name]).contains("volume is in use"), "{prune}");
    name.to_owned()
}

/// A volume that is a file system of its own, made by one command and used by a service.
fn mounts_what_options_say(swarm: &Swarm, host: usize) {
    let at = &swarm.hosts[host];
    let options = ["--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=1m"];
    ok(at, &[["volume", "create"].as_slice(), &options, &["small"]].concat());
    let shown = ok(at, &["volume", "inspect", "--format", "{{json .Options}}", "small"]);
    assert_eq!(json(&shown), serde_json::json!({"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}));
    let mount = ["--mount", "type=volume,source=small,target=/small"];
    let task = start(swarm, host, &at.name(), "mounts", &mount, &["sleep", "1000"]);
    let seen = ok(at, &["exec", &task.container, "grep", " /small ", "/proc/mounts"]);
    assert!(seen.starts_with("tmpfs ") && seen.contains("size=1024k"), "{seen}");
    ok(at, &["service", "rm", "mounts"]);
    eventually("the volume to be free", PATIENCE, || {
        let output = docker(at, &["volume", "rm", "small"]);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });

    // The same by flok's own commands, which show no password.
    let secret = ["--opt", "type=cifs", "--opt", "device=//nas/share", "--opt", "o=username=u,password=hush"];
    assert_eq!(
        at.ok(&[["volume", "create", "--label", "a=b"].as_slice(), &secret, &["share"]].concat()).trim(),
        "share"
    );
    let shown = at.ok(&["volume", "inspect", "share"]);
    assert!(shown.contains("password=********") && !shown.contains("hush"), "{shown}");
    assert!(at.ok(&["volume", "ls", "--filter", "label=a=b"]).contains("share"));
    assert!(
        at.refused(&["volume", "create", "--opt", "device=/x", "bad"]).contains("missing required option: \"type\"")
    );
    assert!(
        at.refused(&["volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "share"])
            .contains("other options")
    );
    assert_eq!(at.ok(&["volume", "rm", "share"]).trim(), "share");
    let mount = "type=volume,source=c,target=/c,volume-driver=rexray";
    // As in Docker, it is stored, and its task says why it waits.
    let created = docker(at, &["service", "create", "--detach", "--name", "no", "--mount", mount, IMAGE]);
    let warning = String::from_utf8_lossy(&created.stderr);
    assert!(created.status.success() && warning.contains("volume driver \"rexray\" is not there"), "{warning}");
    waits_for(at, "no", "volume driver \"rexray\" is not there");
    ok(at, &["network", "create", "--driver", "overlay", "--opt", "encrypted", "hidden"]);
    ok(at, &["service", "create", "--detach", "--name", "unread", "--network", "hidden", IMAGE]);
    waits_for(at, "unread", "network hidden: its option encrypted cannot be met yet");
    ok(at, &["service", "rm", "no", "unread"]);
    ok(at, &["network", "rm", "hidden"]);
}

/// The one task of the service stands with that reason.
fn waits_for(at: &Host, service: &str, reason: &str) {
    eventually("the reason at the task", PATIENCE, || {
        let tasks = ok(at, &["service", "ps", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}", service]);
        let is_told = tasks.starts_with("Pending") && tasks.contains(reason) && tasks.lines().count() == 1;
        if is_told { Ok(()) } else { Err(tasks) }
    });
}

pub fn tells_what_happens(swarm: &Swarm, host: usize) {
    let at = &swarm.hosts[host];
    let mut child = command(at, "docker")
        .args(["events", "--format", "{{.Type}} {{.Action}} {{index .Actor.Attributes \"name\"}}"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    // Until it listens.
    let listens = std::thread::scope(|scope| {
        let first = scope.spawn(|| lines.next());
        let mut count = 0;
        while !first.is_finished() {
            count += 1;
            let name = format!("tick{count}");
            ok(at, &["config", "create", &name, "/etc/hostname"]);
            ok(at, &["config", "rm", &name]);
            assert!(count < 100);
        }
        first.join().unwrap()
    });
    assert!(listens.is_some_and(|line| line.contains("tick")));
    let pairs = come_and_go(at, 20);
    ok(at, &["network", "create", "--driver", "overlay", "eared"]);
    let more =
        ["--restart-condition", "none", "--network", "eared", "--mount", "type=volume,source=heard,target=/heard"];
    let task = start(swarm, host, &at.name(), "told", &more, &["sleep", "1000"]);
    shows_who_is_on_it(at, "eared", &task);
    ok(at, &["service", "update", "--detach", "--label-add", "a=b", "told"]);
    assert_eq!(docker(at, &["exec", &task.container, "sh", "-c", "exit 3"]).status.code(), Some(3));
    ok(at, &["top", &task.container]);
    ok(at, &["kill", &task.container]);
    ok(at, &["service", "rm", "told"]);
    let name = &task.name;
    let wanted = ["service create told", "service update told", "service remove told"].map(str::to_owned);
    let of_container = [
        "create",
        "start",
        "exec_create: sh -c exit 3",
        "exec_start: sh -c exit 3",
        "exec_die",
        "top",
        "kill",
        "die",
        "destroy",
    ];
    let of_container = of_container.map(|action| format!("container {action} {name}"));
    let used = ["network connect eared", "network disconnect eared"].map(str::to_owned);
    let mounted = ["create", "mount", "unmount"].map(|action| format!("volume {action} heard"));
    let mut missing: Vec<String> =
        wanted.into_iter().chain(of_container).chain(pairs).chain(used).chain(mounted).collect();
    while !missing.is_empty() {
        let line = lines.next().expect("the events go on");
        missing.retain(|wanted| *wanted != line);
    }
    kill_all_of(child);
    // What has been is told to who asks since when.
    let since = |filters: &[&str]| {
        let ask = ["events", "--since", "5m", "--until", "0s", "--format", "{{.Type}} {{.Action}} {{.Scope}}"];
        let mut lines: Vec<String> = ok(at, &[ask.as_slice(), filters].concat()).lines().map(str::to_owned).collect();
        lines.dedup();
        lines
    };
    // The command asks by whole seconds: what happened in this one is not told yet.
    let container = format!("container={}", task.container);
    for (object, action, wanted) in [
        ("service=told", "event=create", "service create swarm"),
        (container.as_str(), "event=die", "container die local"),
    ] {
        eventually(&format!("{wanted} to be told"), PATIENCE, || {
            let told = since(&["--filter", object, "--filter", action]);
            if told == [wanted] { Ok(()) } else { Err(format!("{told:?}")) }
        });
    }
    assert!(refused(at, &["events", "--filter", "colour=red"]).contains("invalid filter"));
    assert!(refused(at, &["events", "--since", "20", "--until", "10"]).contains("cannot be after"));
    ok(at, &["network", "rm", "eared"]);
    // An image goes by its id, and by the name that people know.
    ok(at, &["tag", IMAGE, "mine/heard:1"]);
    let ask = ["events", "--since", "5m", "--until", "0s", "--filter", "event=tag", "--filter", "image=mine/heard"];
    let id = ok(at, &["image", "inspect", "--format", "{{.Id}}", IMAGE]).trim().to_owned();
    let told = format!("{id} mine/heard:1");
    eventually("the tag to be told", PATIENCE, || {
        let format = ["--format", "{{.Actor.ID}} {{index .Actor.Attributes \"name\"}}"];
        let found = ok(at, &[ask.as_slice(), &format].concat());
        if found.trim() == told { Ok(()) } else { Err(found) }
    });
    ok(at, &["rmi", "mine/heard:1"]);
}

/// A network's containers on this node, with their addresses as they are, and its nodes.
fn shows_who_is_on_it(at: &Host, network: &str, task: &Asked) {
    let shown = &json(&ok(at, &["network", "inspect", network]))[0];
    let containers = shown["Containers"].as_object().unwrap();
    assert_eq!((containers.len(), &containers[&task.container]["Name"]), (1, &task.name.clone().into()), "{shown}");
    let [address, mac] = ["IPv4Address", "MacAddress"].map(|key| containers[&task.container][key].as_str().unwrap());
    let inside = ok(at, &["exec", &task.container, "ip", "addr"]);
    let plain = address.split('/').next().unwrap();
    assert!(inside.contains(&format!("inet {plain}/")) && inside.contains(&format!("link/ether {mac} ")), "{inside}");
    assert!(address.ends_with("/24"), "{address}");
    let peers: Vec<&str> = shown["Peers"].as_array().unwrap().iter().map(|peer| peer["IP"].as_str().unwrap()).collect();
    let own = ok(at, &["info", "--format", "{{.Swarm.NodeAddr}}"]);
    assert_eq!(peers, [own.trim()], "{shown}");
}

/// Configs that are made and removed one right after the other, on one connection; what is to be told of them.
fn come_and_go(at: &Host, pairs: usize) -> Vec<String> {
    let mut curl = Command::new("curl");
    let mut told = Vec::new();
    for name in (0..pairs).map(|number| format!("brief{number}")) {
        for (method, path) in [("POST", "create"), ("DELETE", &name)] {
            curl.args(["-sS", "--fail", "--max-time", "30", "-o", "/dev/null", "-X", method, "--unix-socket"])
                .arg(at.socket());
            if method == "POST" {
                curl.args([
                    "-H",
                    "Content-Type: application/json",
                    "-d",
                    &format!(r#"{{"Name":"{name}","Data":"eA=="}}"#),
                ]);
            }
            curl.args([&format!("http://flok/configs/{path}"), "--next"]);
        }
        told.extend(["create", "remove"].map(|action| format!("config {action} {name}")));
    }
    let output = curl.args(["-sS", "--unix-socket"]).arg(at.socket()).arg("http://flok/_ping").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    told
}
