//! Who observes whom: K hash rings over the members. On each ring a node is observed by its successor; where that one
//! already observes it on an earlier ring, by the next that does not. So each node has K different observers, nearly
//! every node observes K others, and a join or a departure moves only the edges around it.
//!
//! Everyone who has the same members computes the same rings.

use std::collections::BTreeMap;

use crate::spec::NodeId;
use crate::state::{NodeHealth, State};

/// Observers of a node in a swarm of up to 64.
pub const OBSERVERS: usize = 4;

/// Observers of each node among `members`: all the others in a small swarm, more in a large one, where losing several
/// of somebody's observers at once is likelier.
pub fn observers_wanted(members: usize) -> usize {
    let others = members.saturating_sub(1);
    match members {
        0..=64 => OBSERVERS.min(others),
        65..=256 => 6,
        _ => 8,
    }
}

/// How many of `observers` must agree: three quarters, rounded up; all of one, two or three.
pub fn agreement_needed(observers: usize) -> usize {
    (observers * 3).div_ceil(4).max(1)
}

/// How many of `observers` make a suspect: half, rounded up.
pub fn suspicion_needed(observers: usize) -> usize {
    observers.div_ceil(2).max(1)
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rings {
    observers: BTreeMap<NodeId, Vec<NodeId>>,
    subjects: BTreeMap<NodeId, Vec<NodeId>>,
}

impl Rings {
    pub fn new(members: impl IntoIterator<Item = NodeId>) -> Rings {
        let mut members: Vec<NodeId> = members.into_iter().collect();
        members.sort_unstable();
        members.dedup();
        let wanted = observers_wanted(members.len());
        let mut observers: BTreeMap<NodeId, Vec<NodeId>> =
            members.iter().map(|id| (*id, Vec::with_capacity(wanted))).collect();
        for ring in 0..wanted {
            members.sort_unstable_by_key(|id| (place(ring, *id), *id));
            for (at, subject) in members.iter().enumerate() {
                let chosen = observers.get_mut(subject).expect("every member has an entry");
                let around = members[at + 1..].iter().chain(&members[..at]);
                let next = around.copied().find(|candidate| !chosen.contains(candidate));
                chosen.push(next.expect("there are at least as many others as rings"));
            }
        }
        let mut subjects: BTreeMap<NodeId, Vec<NodeId>> = members.iter().map(|id| (*id, Vec::new())).collect();
        for (subject, watchers) in &observers {
            for observer in watchers {
                subjects.get_mut(observer).expect("observers are members").push(*subject);
            }
        }
        Rings { observers, subjects }
    }

    /// The rings of a swarm: its members without those that are down or have left, who can neither watch nor be missed.
    pub fn of(state: &State) -> Rings {
        Rings::new(members(state))
    }

    pub fn observers_of(&self, subject: NodeId) -> &[NodeId] {
        self.observers.get(&subject).map_or(&[], Vec::as_slice)
    }

    /// Those whom `observer` watches, in id order.
    pub fn subjects_of(&self, observer: NodeId) -> &[NodeId] {
        self.subjects.get(&observer).map_or(&[], Vec::as_slice)
    }

    /// Every member with its observers, in id order.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &[NodeId])> {
        self.observers.iter().map(|(subject, observers)| (*subject, observers.as_slice()))
    }

    pub fn contains(&self, node: NodeId) -> bool {
        self.observers.contains_key(&node)
    }
}

/// The members that stand on the rings, in id order.
pub fn members(state: &State) -> impl Iterator<Item = NodeId> {
    state.nodes().filter(|node| on_rings(node.health)).map(|node| node.id)
}

fn on_rings(health: NodeHealth) -> bool {
    match health {
        NodeHealth::Unknown | NodeHealth::Up | NodeHealth::HeldDown { .. } => true,
        NodeHealth::Down { .. } | NodeHealth::Left { .. } => false,
    }
}

/// Where a node stands on a ring. Part of what all nodes must agree on, so spelled out here (the finalizer of
/// SplitMix64 over both halves of the id) rather than taken from a library whose next version may hash otherwise.
fn place(ring: usize, node: NodeId) -> u64 {
    let mix = |mut x: u64| {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let seed = (ring as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mix(mix(seed ^ node.0 as u64).wrapping_add((node.0 >> 64) as u64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn swarm(size: usize) -> impl Strategy<Value = BTreeSet<NodeId>> {
        proptest::collection::btree_set(any::<u128>().prop_map(NodeId), 1..size)
    }

    fn edges(rings: &Rings) -> BTreeSet<(NodeId, NodeId)> {
        rings.iter().flat_map(|(subject, observers)| observers.iter().map(move |o| (*o, subject))).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn everyone_has_the_wanted_number_of_different_observers(members in swarm(150)) {
            let rings = Rings::new(members.iter().copied());
            for (subject, observers) in rings.iter() {
                let different: BTreeSet<_> = observers.iter().collect();
                prop_assert_eq!(different.len(), observers_wanted(members.len()));
                prop_assert!(!different.contains(&subject));
            }
        }

        #[test]
        fn subjects_mirror_observers_and_order_does_not_matter(members in swarm(60)) {
            let rings = Rings::new(members.iter().copied());
            for observer in &members {
                for subject in rings.subjects_of(*observer) {
                    prop_assert!(rings.observers_of(*subject).contains(observer));
                }
            }
            let watched: usize = members.iter().map(|id| rings.subjects_of(*id).len()).sum();
            prop_assert_eq!(watched, edges(&rings).len());
            prop_assert_eq!(rings, Rings::new(members.iter().rev().copied()));
        }

        #[test]
        fn a_join_moves_few_edges(members in swarm(60), newcomer in any::<u128>().prop_map(NodeId)) {
            prop_assume!(members.len() > 6 && !members.contains(&newcomer));
            let before = edges(&Rings::new(members.iter().copied()));
            let after = edges(&Rings::new(members.iter().copied().chain([newcomer])));
            // One edge a ring by right; a displaced choice can displace later rings' choices.
            prop_assert!(before.difference(&after).count() <= OBSERVERS * OBSERVERS);
        }
    }

    #[test]
    fn in_a_small_swarm_everyone_observes_everyone() {
        for size in 1..=5u128 {
            let rings = Rings::new((0..size).map(NodeId));
            for (_, observers) in rings.iter() {
                assert_eq!(observers.len(), size as usize - 1);
            }
        }
    }

    #[test]
    fn work_is_spread() {
        let rings = Rings::new((0..200u128).map(|n| NodeId(n * 0x1_0000_0001)));
        let most = rings.subjects.values().map(Vec::len).max().unwrap();
        assert!(most <= 3 * observers_wanted(200), "{most}");
    }

    #[test]
    fn a_ring_is_the_same_in_every_version() {
        let rings = Rings::new((1..=8u128).map(NodeId));
        let of_one: Vec<u128> = rings.observers_of(NodeId(1)).iter().map(|id| id.0).collect();
        assert_eq!(of_one, GOLDEN);
    }

    /// Recorded; nodes of different versions must agree on it.
    const GOLDEN: [u128; 4] = [5, 8, 3, 7];
}
