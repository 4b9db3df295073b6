//! Generic resources: what an operator declared on a node (`gpu=2`, `ssd=disk0`), what is left of it, and who gets which.

use crate::spec::GenericResource;

/// What a node has left of what was declared on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Left {
    declared: Vec<GenericResource>,
    left: Vec<GenericResource>,
}

impl Left {
    pub fn of(declared: &[GenericResource]) -> Left {
        Left { declared: declared.to_vec(), left: declared.to_vec() }
    }

    /// Takes away what a task holds. A node whose declaration shrank may hold more than it has; then nothing is left.
    pub fn hold(&mut self, held: &[GenericResource]) {
        for resource in held {
            match resource {
                GenericResource::Discrete { kind, value } => {
                    for left in &mut self.left {
                        if let GenericResource::Discrete { kind: other, value: left } = left
                            && other == kind
                        {
                            *left = left.saturating_sub(*value);
                        }
                    }
                }
                GenericResource::Named { .. } => self.left.retain(|left| left != resource),
                // What is held has been counted or named.
                GenericResource::All { .. } => {}
            }
        }
    }

    pub fn suffices(&self, wanted: &GenericResource) -> bool {
        self.choose(wanted).is_some()
    }

    /// What a task that asks for `wanted` would hold. A number asks for so many of the node's named ones where it has
    /// names, as in SwarmKit.
    fn choose(&self, wanted: &GenericResource) -> Option<Vec<GenericResource>> {
        let (kind, count) = match wanted {
            GenericResource::Named { .. } => return self.left.contains(wanted).then(|| vec![wanted.clone()]),
            GenericResource::All { kind } => return self.all(kind),
            GenericResource::Discrete { kind, value } => (kind, *value),
        };
        let number = |left: &GenericResource| matches!(left, GenericResource::Discrete { kind: k, value } if k == kind && *value >= count);
        if count == 0 || self.left.iter().any(number) {
            return Some(vec![wanted.clone()]);
        }
        let count = usize::try_from(count).ok()?;
        let is_named = |left: &&GenericResource| matches!(left, GenericResource::Named { kind: k, .. } if k == kind);
        let named: Vec<GenericResource> = self.left.iter().filter(is_named).take(count).cloned().collect();
        (named.len() == count).then_some(named)
    }

    /// Every one of the kind, where nobody holds any and there is one.
    fn all(&self, kind: &str) -> Option<Vec<GenericResource>> {
        let of_kind =
            |from: &[GenericResource]| from.iter().filter(|one| one.kind() == kind).cloned().collect::<Vec<_>>();
        let (declared, left) = (of_kind(&self.declared), of_kind(&self.left));
        let any = left.iter().any(|one| !matches!(one, GenericResource::Discrete { value: 0, .. }));
        (any && declared == left).then_some(left)
    }

    /// What a task holds that asks for all of `wanted`, each taken once; `None` where they do not suffice together.
    pub fn claim(&self, wanted: &[GenericResource]) -> Option<Vec<GenericResource>> {
        let mut left = self.clone();
        let mut claimed = Vec::new();
        for resource in wanted {
            let chosen = left.choose(resource)?;
            left.hold(&chosen);
            claimed.extend(chosen);
        }
        Some(claimed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discrete(kind: &str, value: u64) -> GenericResource {
        GenericResource::Discrete { kind: kind.into(), value }
    }

    fn named(kind: &str, value: &str) -> GenericResource {
        GenericResource::Named { kind: kind.into(), value: value.into() }
    }

    #[test]
    fn a_number_is_counted_down() {
        let mut left = Left::of(&[discrete("gpu", 3)]);
        assert_eq!(left.claim(&[discrete("gpu", 2)]), Some(vec![discrete("gpu", 2)]));
        left.hold(&[discrete("gpu", 2)]);
        assert!(!left.suffices(&discrete("gpu", 2)));
        assert!(left.suffices(&discrete("gpu", 1)));
    }

    #[test]
    fn each_name_is_given_once() {
        let mut left = Left::of(&[named("ssd", "a"), named("ssd", "b")]);
        assert_eq!(left.claim(&[discrete("ssd", 1)]), Some(vec![named("ssd", "a")]));
        left.hold(&[named("ssd", "a")]);
        assert_eq!(left.claim(&[discrete("ssd", 1)]), Some(vec![named("ssd", "b")]));
        assert_eq!(left.claim(&[discrete("ssd", 2)]), None);
        assert_eq!(left.claim(&[named("ssd", "a")]), None);
    }

    #[test]
    fn wishes_for_one_kind_add_up() {
        let left = Left::of(&[discrete("gpu", 3)]);
        assert_eq!(left.claim(&[discrete("gpu", 2), discrete("gpu", 2)]), None);
    }

    #[test]
    fn all_of_a_kind_are_given_where_nobody_holds_one() {
        let all = |kind: &str| [GenericResource::All { kind: kind.into() }];
        let mut left = Left::of(&[named("gpu", "0"), named("gpu", "1"), discrete("ssd", 3), discrete("none", 0)]);
        assert_eq!(left.claim(&all("gpu")), Some(vec![named("gpu", "0"), named("gpu", "1")]));
        assert_eq!(left.claim(&all("ssd")), Some(vec![discrete("ssd", 3)]));
        assert_eq!((left.claim(&all("none")), left.claim(&all("other"))), (None, None));
        left.hold(&[named("gpu", "1"), discrete("ssd", 1)]);
        assert_eq!((left.claim(&all("gpu")), left.claim(&all("ssd"))), (None, None));
        left.hold(&[named("gpu", "0")]);
        assert_eq!(left.claim(&all("gpu")), None, "none is left, which is not all");
    }
}
