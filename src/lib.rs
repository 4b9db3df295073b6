//! flok, a swarm orchestrator without a shepherd.
//!
//! Every machine runs the same daemon. Together they keep *desired* state in a Raft log, gossip *observed*
//! state among themselves, elect a leader that schedules, and run tasks through containerd on every node.
//!
//! The core is pure: no tokio, no files, no sockets, no clock and no global randomness; `now` and `rng` come in
//! as arguments. The shell does the IO. `tests/tidy.rs` holds who may import whom.
//!
//! | core | |
//! |---|---|
//! | [`spec`] | user intent, ids, quantities, the stack file; what a task is and how it ends |
//! | [`state`] | desired state: objects, commands, `apply`, snapshots |
//! | [`gossip`] | observed state: node records, digests, merge, what to send to whom |
//! | [`membership`] | probes, alarms, cut detection, verdicts, voter choice |
//! | [`orchestrator`] | desired vs observed -> changes: replicated, global, restart, drain, reaper |
//! | [`allocator`] | subnets, addresses, virtual addresses, published ports |
//! | [`scheduler`] | filters, scores, placement |
//! | [`dispatcher`] | what each node must know, as snapshots and diffs |
//! | [`agent`] | the node's task machine: assignments -> actions, outcomes -> reports |
//!
//! | shell | |
//! |---|---|
//! | [`consensus`] | raft: the pure Ready machine, its driver, its log store |
//! | [`transport`] | libp2p: identity, certificates, streams, gossipsub; probe datagrams |
//! | [`program`] | runs the host's programs, bounded in time and output |
//! | [`runtime`] | containerd: images, containers, logs, stats |
//! | [`network`] | the network plan (pure) and its application (netlink, nftables) |
//! | [`api`] | Docker Engine API, `/flok/v1` |
//! | [`node`] | the composition root: config, clock, rng, leader loop, shutdown |
//! | [`cli`] | the `flok` command, one folder per noun |

// Core.
pub mod agent;
pub mod allocator;
pub mod dispatcher;
pub mod gossip;
pub mod membership;
pub mod orchestrator;
pub mod scheduler;
pub mod spec;
pub mod state;

// Shell.
pub mod api;
pub mod cli;
pub mod consensus;
pub mod network;
pub mod node;
pub mod program;
pub mod runtime;
pub mod transport;
