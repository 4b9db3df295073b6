//! flok, a swarm orchestrator without a shepherd.
//!
//! Every machine runs the same daemon. Together they keep *desired* state in a Raft log, gossip *observed*
//! state among themselves, elect a leader that schedules, and run tasks through containerd on every node.
//!
//! The core is pure: no tokio, no files, no sockets, no clock and no global randomness; `now` and `rng` come in
//! as arguments. The shell does the IO. `tests/tidy.rs` holds who may import whom.

// Core.
pub mod agent;
pub mod dispatcher; //   what each node must know, as snapshots and diffs
pub mod gossip; //       observed state: node records, digests, merge, what to send to whom
pub mod membership; //   probes, alarms, cut detection, verdicts, voter choice
pub mod orchestrator; // desired vs observed -> changes: replicated, global, restart, drain, reaper
pub mod scheduler; //    filters, scores, placement
pub mod spec; //         user intent, ids, quantities, the stack file; what a task is and how it ends
pub mod state; //        desired state: objects, commands, apply, snapshots //        the node's task machine: assignments -> actions, outcomes -> reports

// Shell.
pub mod api; //          Docker Engine API, /flok/v1, metrics
pub mod cli;
pub mod consensus; //    raft: the pure Ready machine, its driver, its log store
pub mod network; //      the network plan (pure) and its application (netlink, nftables)
pub mod node; //         the composition root: config, clock, rng, leader loop, shutdown
pub mod runtime; //      containerd: images, containers, logs, exec, stats
pub mod transport; //    libp2p: identity, certificates, streams, gossipsub; probe datagrams //          the `flok` command, one folder per noun
