//! The ordinary `docker` command against the flok of a host.

use std::process::{Command, Output};

use super::lab::{Host, eventually};
use super::swarm::PATIENCE;

/// `docker ARGS...` on a host, as its user would call it: only `DOCKER_HOST` says that this is flok.
pub fn docker(host: &Host, args: &[&str]) -> Output {
    command(host, "docker").args(args).output().unwrap()
}

/// A program that calls `docker` itself.
pub fn command(host: &Host, program: &str) -> Command {
    let mut command = host.command(program);
    command.env("DOCKER_HOST", format!("unix://{}", host.socket().display()));
    command.env("DOCKER_CONFIG", host.dir.join("docker")).env_remove("DOCKER_CONTEXT");
    command
}

pub fn ok(host: &Host, args: &[&str]) -> String {
    let output = docker(host, args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "n{}: docker {args:?}: {errors}\n{}", host.index, host.log_tail());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn refused(host: &Host, args: &[&str]) -> String {
    let output = docker(host, args);
    assert!(!output.status.success(), "docker {args:?} succeeded: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The lines of a table, each cut into the columns that the template names, tab by tab.
pub fn rows(host: &Host, args: &[&str], template: &str) -> Vec<Vec<String>> {
    cut(&ok(host, &[args, &["--format", template]].concat()))
}

fn cut(text: &str) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> =
        text.lines().map(|line| line.split('\t').map(str::to_owned).collect::<Vec<_>>()).collect();
    rows.sort();
    rows
}

/// Waits until the table reads so.
pub fn shows(host: &Host, args: &[&str], template: &str, wanted: &[&[&str]]) {
    eventually(&format!("docker {args:?} to show {wanted:?}"), PATIENCE, || {
        let output = docker(host, &[args, &["--format", template]].concat());
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let found = cut(&String::from_utf8_lossy(&output.stdout));
        if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
    });
}
