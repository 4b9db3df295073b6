//! User intent, in plain types: what a service, a network, a secret, a node and a swarm are wished to be, and the
//! words every room shares about a task (its states, its outcome, its assignment).
//!
//! Nothing here acts. The system never edits a spec; defaults are filled where a spec is read, not where it is stored.
//! Types are plain `serde` types without skipped or flattened fields, because they are written with bincode.

pub mod additions;
pub mod condition;
pub mod constraint;
pub mod depends_on;
pub mod doctor;
pub mod explain;
pub mod ids;
pub mod image;
pub mod logging;
pub mod network;
pub mod node;
pub mod publish;
pub mod quantity;
pub mod schedule;
pub mod secret;
pub mod service;
pub mod stack;
pub mod subnet;
pub mod support;
pub mod swarm;
pub mod task;
pub mod template;
pub mod time;
pub mod unlock_key;
pub mod validate;
pub mod volume;

pub use additions::{Confinement, NO_NEW_PRIVILEGES, Security};
pub use condition::{Concern, Condition, MAX_CONDITIONS};
pub use constraint::{Constraint, InvalidConstraint, NodeFacts, NodeField, Operator};
pub use depends_on::{DEPENDS_ON_LABEL, DependsOn, StartCondition};
pub use doctor::{Finding, Way};
pub use explain::{NodeFit, SlotFate};
pub use ids::*;
pub use network::*;
pub use node::*;
pub use schedule::{Concurrency, SCHEDULE_LABEL, Schedule};
pub use secret::*;
pub use service::*;
pub use subnet::{InvalidSubnet, Subnet};
pub use support::SupportFile;
pub use swarm::*;
pub use task::*;
pub use time::*;
pub use unlock_key::{UNLOCK_KEY_BYTES, UnlockKey};
pub use validate::{Fault, InvalidSpec, is_dns_domain};
pub use volume::VolumeMount;

/// Labels and other string maps; ordered, so that iteration is the same on every node.
pub type Labels = std::collections::BTreeMap<String, String>;
