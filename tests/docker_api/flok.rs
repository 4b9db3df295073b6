//! flok's own commands on a task: the same from every node, with the service's name alone.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use super::lab::{Host, eventually};
use super::swarm::{PATIENCE, Swarm};
use super::whole::{IMAGE, start};

pub fn does_the_same(swarm: &Swarm, host: usize, on: &str) {
    let script =
        "echo begun; head -c 40000 /dev/zero | tr '\\0' x; echo; while :; do echo served | nc -l -p 4000; done";
    let task = start(swarm, host, on, "mine", &[], &["sh", "-c", script]);
    let at = task.host;
    let output = at.flok(&["exec", "mine", "sh", "-c", "hostname; echo err >&2; exit 9"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), &task.container[..12]);
    assert_eq!((String::from_utf8_lossy(&output.stderr).as_ref(), output.status.code()), ("err\n", Some(9)));
    let slot = task.name.rsplit_once('.').unwrap().0;
    let mut command = at.client();
    command.args(["exec", "--interactive", slot, "wc", "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&[b'x'; 100_000]).unwrap();
    assert_eq!(String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).trim(), "100000");
    assert!(at.refused(&["exec", "nobody", "true"]).contains("No such container: nobody"));
    assert!(at.refused(&["exec", "mnie.1", "true"]).contains("No such container: mnie.1; did you mean mine.1?"));
    let variables = at.dir.join("variables");
    fs::write(&variables, "FROM_FILE=a\nBOTH=a\n").unwrap();
    let script = "echo $FROM_FILE $BOTH";
    let told = at.ok(&["exec", "--env-file", variables.to_str().unwrap(), "-e", "BOTH=b", "mine", "sh", "-c", script]);
    assert_eq!(told, "a b\n");

    let printed = at.ok(&["logs", "--raw", "mine"]);
    assert!(printed.starts_with("begun\n"), "{printed}");
    assert!(
        printed.lines().any(|line| line == "x".repeat(40_000)),
        "{:?}",
        printed.lines().map(str::len).collect::<Vec<_>>()
    );
    assert!(at.ok(&["top", "mine"]).contains("nc -l -p 4000"));
    let stats = at.ok(&["stats", "--no-stream", "mine"]);
    assert!(stats.starts_with("TASK") && stats.contains("mine") && stats.contains('%'), "{stats}");
    assert_eq!(
        at.ok(&["stats", "--no-stream", "--format", "{{.Name}} {{len .MemPerc | lt 0}}", "mine"]),
        "mine true\n"
    );

    let here = at.dir.join("own");
    fs::create_dir_all(here.join("tree/sub")).unwrap();
    fs::write(here.join("tree/sub/file"), "deep").unwrap();
    let local = |name: &str| here.join(name).display().to_string();
    at.ok(&["cp", &local("tree"), "mine:/root"]);
    at.ok(&["cp", &local("tree/sub/file"), "mine:/root/renamed"]);
    assert_eq!(at.ok(&["exec", "mine", "cat", "/root/tree/sub/file", "/root/renamed"]), "deepdeep");
    at.ok(&["cp", "mine:/root/tree", &local("back")]);
    assert_eq!(fs::read_to_string(here.join("back/sub/file")).unwrap(), "deep");
    at.ok(&["cp", "mine:/root/renamed", &local("back")]);
    assert_eq!(fs::read_to_string(here.join("back/renamed")).unwrap(), "deep");
    assert!(at.refused(&["cp", "mine:/nowhere", &local("x")]).contains("Could not find the file /nowhere"));

    let missing = at.refused(&["cp", &local("tree/sub/file"), "mine:/nowhere/"]);
    assert!(missing.contains("there is no directory /nowhere/"), "{missing}");
    at.ok(&["exec", "mine", "mkdir", "/content", "/packed"]);
    at.ok(&["cp", &local("tree/."), "mine:/content"]);
    let packed = Command::new("tar").args(["-c", "-C", &local("tree"), "sub"]).output().unwrap().stdout;
    let mut sending = at.client();
    sending.args(["cp", "-", "mine:/packed"]).stdin(Stdio::piped());
    let mut sending = sending.spawn().unwrap();
    sending.stdin.take().unwrap().write_all(&packed).unwrap();
    assert!(sending.wait().unwrap().success());
    assert_eq!(at.ok(&["exec", "mine", "cat", "/content/sub/file", "/packed/sub/file"]), "deepdeep");
    let archive = at.flok(&["cp", "mine:/root/renamed", "-"]);
    assert!(archive.status.success() && archive.stdout.len().is_multiple_of(512), "{archive:?}");
    assert!(archive.stdout.windows(4).any(|bytes| bytes == b"deep"));
    let its_own = swarm.hosts.iter().find(|host| host.name() == on).unwrap();
    let all = its_own.ok(&["stats", "--no-stream"]);
    assert!(all.lines().any(|line| line.starts_with("mine.1.")), "{all}");

    let forwarding = forwards_a_port(at);
    updates_that_collide_all_count(at);
    at.ok(&["service", "rm", "mine"]);
    let ended = forwarding.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(1) && told.contains("the service of mine was removed"), "{told}");

    let place = format!("node.hostname=={on}");
    let create = ["service", "create", "-i", "--name", "held", "--restart-condition", "none", "--constraint", &place];
    let script = "read line; echo got $line; exit 5";
    at.ok(&[create.as_slice(), &["--stable-for", "0s", IMAGE, "sh", "-c", script]].concat());
    let mut attached = at.client();
    attached.args(["attach", "held"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut attached = attached.spawn().unwrap();
    attached.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
    let output = attached.wait_with_output().unwrap();
    assert_eq!((String::from_utf8_lossy(&output.stdout).as_ref(), output.status.code()), ("got hello\n", Some(5)));
    at.ok(&["service", "rm", "held"]);
}

fn updates_that_collide_all_count(at: &Host) {
    let updates = (0..4).map(|number| {
        let label = format!("count{number}=yes");
        let mut update = at.client();
        update.args(["service", "update", "--detach", "--label-add", &label, "--env-rm", "NONE", "mine"]);
        update.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    });
    for update in updates.collect::<Vec<_>>() {
        let output = update.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && told.matches("--env-rm NONE takes nothing away").count() == 1, "{told}");
    }
    let pretty = at.ok(&["service", "inspect", "--pretty", "mine"]);
    assert_eq!(pretty.matches("=yes\n").count(), 4, "{pretty}");
    assert!(pretty.contains("ContainerSpec:\n Image:") && pretty.contains("Placement:\n Constraints:"), "{pretty}");
}

/// The command goes on.
fn forwards_a_port(at: &Host) -> Child {
    let mut command = at.client();
    command.args(["port-forward", "--address", &at.addr(), "mine", "0:4000"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let (listening, rest) = line.split_once(" -> ").unwrap();
    assert_eq!(rest, "mine port 4000");
    // From where the user is, who may be on no network of the swarm.
    let port: u16 = listening.rsplit(':').next().unwrap().parse().unwrap();
    let target = format!("{}:{port}", at.addr());
    eventually("an answer of the task", PATIENCE, || {
        let told = within(at, &target);
        if told == "served\n" { Ok(()) } else { Err(told) }
    });
    child
}

/// What a connection from the host itself reads.
fn within(at: &Host, target: &str) -> String {
    let netns = fs::File::open(at.netns()).unwrap();
    let target = target.to_owned();
    let reading = move || -> std::io::Result<String> {
        nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET)?;
        let mut stream = TcpStream::connect(target)?;
        let mut told = String::new();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
        stream.read_to_string(&mut told)?;
        Ok(told)
    };
    std::thread::spawn(reading).join().unwrap().unwrap_or_else(|error| error.to_string())
}
