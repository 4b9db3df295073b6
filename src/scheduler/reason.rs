//! Why a node does not take a task, and how the refusals of all nodes add up to the sentence a user reads.

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
    Network(usize),
    Init,
    MaxReplicas,
    Cpu,
    Memory,
    Generic(usize),
    HostPort(usize),
    NoFreeHostPort,
}

/// How many nodes each reason refused; a node counts once, for the first filter that refused it.
///
/// A short list, the last reason first: neighbours tend to refuse for the same one, and a tick may count millions.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally(Vec<(Reason, usize)>);

impl Tally {
    pub fn count(&mut self, reason: Reason) {
        match self.0.iter().position(|(known, _)| *known == reason) {
            Some(at) => {
                self.0[at].1 += 1;
                self.0.swap(0, at);
            }
            None => self.0.push((reason, 1)),
        }
    }

    /// `no suitable node (3 nodes: insufficient memory; 2 nodes: drained)`. The numbers add up to the nodes of the swarm.
    pub fn sentence(&self, text: impl Fn(Reason) -> String) -> String {
        if self.0.is_empty() {
            return "no suitable node (the swarm has none)".to_owned();
        }
        let mut counts = self.0.clone();
        counts.sort();
        let named = counts.iter().take(MAX_PARTS);
        let mut parts: Vec<String> = named.map(|(reason, count)| part(*count, &clipped(text(*reason)))).collect();
        let others: usize = counts.iter().skip(MAX_PARTS).map(|(_, count)| count).sum();
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
