//! Commands in containers: streams, terminals, exit codes, users, and what flok's own commands make of them.

use std::io::Write;
use std::process::{Output, Stdio};

use super::docker_command::{command, docker, ok, refused};
use super::lab::eventually;
use super::swarm::{PATIENCE, Swarm};
use super::whole::start;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("\r\n", "\n")
}

/// With this as its input.
fn fed(mut command: std::process::Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writing = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    output
}

pub fn runs_commands_with_their_streams(swarm: &Swarm, host: usize, on: &str) {
    let task = start(swarm, host, on, "inside", &[], &["sleep", "1000"]);
    let (at, id) = (task.host, task.container.as_str());
    let output = docker(at, &["exec", id, "sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("out\n", "err\n"));
    assert_eq!(output.status.code(), Some(42));
    assert_eq!(ok(at, &["exec", "--env", "A=b", "--workdir", "/tmp", id, "sh", "-c", "echo $A; pwd"]), "b\n/tmp\n");
    assert_eq!(ok(at, &["exec", "--user", "redis", id, "id", "-u"]).trim(), "999");
    assert_eq!(ok(at, &["exec", "--user", "33:999", id, "id", "-g"]).trim(), "999");
    assert!(refused(at, &["exec", "--user", "nobody-here", id, "true"]).contains("nobody-here"));
    let missing = docker(at, &["exec", id, "no-such-program"]);
    assert_eq!(missing.status.code(), Some(127), "{missing:?}");

    // A megabyte in and out again: the end of the input is seen, and nothing is lost on the way.
    let input: Vec<u8> = (0..1_000_000u32).map(|at| (at % 251) as u8).collect();
    let mut exec = command(at, "docker");
    exec.args(["exec", "--interactive", id, "cat"]);
    let output = fed(exec, &input);
    assert!(output.status.success() && output.stdout == input, "{} bytes came back", output.stdout.len());

    // A terminal: one stream, the size told, a shell that takes what is typed.
    let script = format!("stty rows 30 cols 90; docker exec --interactive --tty {id} sh");
    let mut terminal = command(at, "script");
    terminal.args(["--quiet", "--return", "--command", &script, "/dev/null"]).env("TERM", "xterm");
    let output = fed(terminal, b"tty; echo $TERM; until test \"$(stty size)\" = '30 90'; do sleep 0.1; done; exit 5\n");
    let said = text(&output.stdout);
    assert!(said.contains("/dev/pts/") && said.contains("xterm"), "{said}");
    assert_eq!(output.status.code(), Some(5), "{said}");

    ok(at, &["exec", "--detach", id, "sh", "-c", "sleep 0.2; touch /done"]);
    eventually("the command to have run", PATIENCE, || {
        let found = docker(at, &["exec", id, "test", "-e", "/done"]);
        if found.status.success() { Ok(()) } else { Err("not yet".into()) }
    });
    ok(at, &["service", "rm", "inside"]);
}
