//! The ordinary `docker` command, and flok's own beside it, on the containers of a swarm: each command does what it is for,
//! for a task on whichever node, asked on whichever manager. At the end every route was asked for.

#![expect(clippy::disallowed_methods, reason = "real daemons run in real time")]

mod commands;
mod containers;
mod copying;
mod discovery;
#[path = "../e2e/docker_command.rs"]
#[allow(dead_code, reason = "the hosts' tests use the rest")]
mod docker_command;
mod docker_py;
mod exec;
mod flok;
#[path = "../e2e/images.rs"]
mod images;
#[path = "../e2e/lab.rs"]
#[allow(dead_code, reason = "the hosts' tests use the rest")]
mod lab;
#[path = "../e2e/registry.rs"]
#[allow(dead_code, reason = "the hosts' tests use the rest")]
mod registry;
mod routes;
mod stacks;
mod store;
#[path = "../e2e/swarm.rs"]
#[allow(dead_code, reason = "the hosts' tests use the rest")]
mod swarm;
mod typed;
mod whole;
