//! Whole swarms: real daemons with their own containerd on hosts made of namespaces, and real images.
//!
//! Each test has a swarm of its own, and waits for states, never for times. `FLOK_E2E_KEEP=1` leaves a swarm's
//! directory, `FLOK_E2E_LOG` sets the daemons' log level.

#![expect(clippy::disallowed_methods, reason = "real daemons run in real time")]

mod client;
mod commands;
mod conditions;
mod cron;
mod daemon;
mod deaths;
mod deploy;
mod devices;
mod dns;
mod docker;
mod docker_command;
mod firewalls;
mod health;
mod hops;
mod identity;
mod images;
mod jobs;
mod lab;
mod locking;
mod members;
mod names;
mod network;
mod network_away;
mod network_churn;
mod network_faults;
mod network_life;
mod network_load;
mod network_matrix;
mod network_paths;
mod network_ports;
mod network_sctp;
mod network_stacks;
mod network_stores;
mod plan;
mod publish;
mod pulls;
mod quorum;
mod refusals;
mod registry;
mod rights;
mod rotation;
mod secrets;
mod start_order;
mod strangers;
mod support;
mod surroundings;
mod swarm;
mod updates;
