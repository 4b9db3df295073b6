//! What is told of all that happens.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::docker_command::{command, ok, refused};
use super::lab::kill_all_of;
use super::swarm::Swarm;
use super::whole::start;

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
    let task = start(swarm, host, &at.name(), "told", &["--restart-condition", "none"], &["sleep", "1000"]);
    ok(at, &["service", "update", "--detach", "--label-add", "a=b", "told"]);
    ok(at, &["kill", &task.container]);
    ok(at, &["service", "rm", "told"]);
    let name = &task.name;
    let wanted = ["service create told", "service update told", "service remove told"].map(str::to_owned);
    let of_container = ["create", "start", "die", "destroy"].map(|action| format!("container {action} {name}"));
    let mut missing: Vec<String> = wanted.into_iter().chain(of_container).collect();
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
    let told = since(&["--filter", "service=told", "--filter", "event=create"]);
    assert_eq!(told, ["service create swarm"]);
    assert!(refused(at, &["events", "--filter", "colour=red"]).contains("invalid filter"));
}
