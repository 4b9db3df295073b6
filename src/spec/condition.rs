//! What stands in the way of a node's network and is its operator's to mend. It is told while it lasts, and no longer.

use serde::{Deserialize, Serialize};

use super::Protocol;

/// Most that one node tells of at once.
pub const MAX_CONDITIONS: usize = 16;
/// Of one condition's words.
const MAX_DETAIL_BYTES: usize = 600;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Condition {
    pub concern: Concern,
    /// What is wrong, by whom, and what to do.
    pub detail: String,
}

/// In the order in which they are told where there are many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Concern {
    /// The kernel does not do what the network needs.
    Kernel,
    /// The UDP port of the datagrams between nodes is another's.
    DataPathPort,
    /// Rules of another program drop what is the swarm's.
    Firewall,
    /// A port that is published in `ingress` mode is another process' on this node.
    Port { protocol: Protocol, port: u16 },
}

impl Condition {
    pub fn new(concern: Concern, detail: impl Into<String>) -> Condition {
        let mut detail = detail.into();
        if detail.len() > MAX_DETAIL_BYTES {
            detail.truncate(detail.floor_char_boundary(MAX_DETAIL_BYTES));
            detail.push('…');
        }
        Condition { concern, detail }
    }
}

impl Concern {
    pub fn as_str(self) -> &'static str {
        match self {
            Concern::Kernel => "kernel",
            Concern::DataPathPort => "data-path-port",
            Concern::Firewall => "firewall",
            Concern::Port { .. } => "port",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conditions_words_are_bounded() {
        let condition = Condition::new(Concern::Kernel, "ä".repeat(1000));
        assert!(condition.detail.len() <= MAX_DETAIL_BYTES + '…'.len_utf8(), "{}", condition.detail.len());
        assert!(condition.detail.ends_with("ä…"));
        assert_eq!(Condition::new(Concern::Kernel, "short").detail, "short");
    }
}
