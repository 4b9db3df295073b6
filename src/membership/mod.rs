//! Who is alive, and who votes: after Rapid (ATC '18) and Lifeguard (DSN '18).
//!
//! Every node is watched by a few others ([`rings`]). An [`Observer`] counts silence and raises alarms; the managers'
//! [`CutDetector`]s gather them; on the leader [`verdicts`] turns a cut into changes for the log, and [`voters`] keeps
//! the Raft group in the hands of managers that live. The probes themselves are datagrams, sent by the transport.

pub mod cut;
pub mod observer;
pub mod rings;
pub mod verdicts;
pub mod voters;
pub mod watch;

pub use cut::CutDetector;
pub use observer::{AlarmReport, Observer, Reply};
pub use rings::Rings;
pub use watch::{WatchList, Watched};

#[cfg(test)]
mod sim;
