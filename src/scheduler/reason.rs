//! Why a node does not take a task, and how the refusals of all nodes add up to the sentence a user reads.

use std::collections::BTreeMap;

/// Most different refusals named in one sentence; the rest are counted together.
const MAX_PARTS: usize = 8;
/// Most characters of one refusal's text: constraints are as long as their author likes.
const MAX_PART_CHARS: usize = 120;

/// What refused a node. The order is that of the filters, and so of the sentence. The numbers name one of several demands
/// of the same sort (see [`Demands`](super::filter::Demands)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    Left,
    Down,
    HeldDown,
    NotHeard,
    Leaving,
    Suspect,
    Drained,
    Paused,
    Platform,
    Constraint(usize),
    Mount(usize),
    MaxReplicas,
    Cpu,
    Memory,
    Generic(usize),
    HostPort(usize),
    NoFreeHostPort,
}

/// How many nodes each reason refused; a node counts once, for the first filter that refused it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tally(BTreeMap<Reason, usize>);

impl Tally {
    pub fn count(&mut self, reason: Reason) {
        *self.0.entry(reason).or_insert(0) += 1;
    }

    /// `no suitable node (3 nodes: insufficient memory; 2 nodes: drained)`. The numbers add up to the nodes of the swarm.
    pub fn sentence(&self, text: impl Fn(Reason) -> String) -> String {
        if self.0.is_empty() {
            return "no suitable node (the swarm has none)".to_owned();
        }
        let mut parts: Vec<String> =
            self.0.iter().take(MAX_PARTS).map(|(reason, count)| part(*count, &clipped(text(*reason)))).collect();
        let others: usize = self.0.values().skip(MAX_PARTS).sum();
        if others > 0 {
            parts.push(part(others, "other reasons"));
        }
        format!("no suitable node ({})", parts.join("; "))
    }
}

fn part(count: usize, text: &str) -> String {
    let nodes = if count == 1 { "node" } else { "nodes" };
    format!("{count} {nodes}: {text}")
}

fn clipped(text: String) -> String {
    if text.chars().count() <= MAX_PART_CHARS {
        return text;
    }
    let kept: String = text.chars().take(MAX_PART_CHARS - 1).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_counts_nodes_in_the_order_of_the_filters() {
        let mut tally = Tally::default();
        for reason in [Reason::Memory, Reason::Down, Reason::Memory] {
            tally.count(reason);
        }
        let text = |reason| format!("{reason:?}");
        assert_eq!(tally.sentence(text), "no suitable node (1 node: Down; 2 nodes: Memory)");
        assert_eq!(Tally::default().sentence(text), "no suitable node (the swarm has none)");
    }

    #[test]
    fn a_sentence_is_bounded_and_still_counts_every_node() {
        let mut tally = Tally::default();
        (0..20).for_each(|number| tally.count(Reason::Constraint(number)));
        let sentence = tally.sentence(|_| "x".repeat(1000));
        assert!(sentence.ends_with("; 12 nodes: other reasons)"), "{sentence}");
        assert!(sentence.chars().count() < 1200);
    }
}
