//! Which nodes a service's tasks may be on at all: constraints and platform. What a node has room for is the scheduler's.

use std::str::FromStr;

use crate::spec::constraint::Constraint;
use crate::spec::{Availability, Placement, Platform};
use crate::state::Node;

/// A placement's conditions, read once for many nodes.
#[derive(Debug)]
pub(super) struct Eligible {
    constraints: Vec<Constraint>,
    platforms: Vec<Platform>,
    /// A constraint could not be read: it was stored by a build that knows more. Nothing is judged by it.
    unreadable: bool,
}

impl Eligible {
    pub fn by(placement: &Placement) -> Eligible {
        let read: Result<Vec<_>, _> = placement.constraints.iter().map(|text| Constraint::from_str(text)).collect();
        Eligible {
            unreadable: read.is_err(),
            constraints: read.unwrap_or_default(),
            platforms: placement.platforms.iter().map(Platform::normalized).collect(),
        }
    }

    /// Every node fits.
    pub fn is_any(&self) -> bool {
        self.constraints.is_empty() && self.platforms.is_empty()
    }

    pub fn fits(&self, node: &Node) -> bool {
        self.constraints.iter().all(|constraint| constraint.matches(&node.facts())) && self.fits_platform(node)
    }

    /// A task that is there may stay.
    pub fn may_stay(&self, node: &Node) -> bool {
        node.spec.availability != Availability::Drain && self.fits(node)
    }

    /// A task may be created for this very node.
    pub fn may_come(&self, node: &Node) -> bool {
        node.takes_tasks() && !self.unreadable && self.fits(node)
    }

    /// An empty word in a wanted platform stands for any, as in an image index.
    fn fits_platform(&self, node: &Node) -> bool {
        if self.platforms.is_empty() {
            return true;
        }
        let has = node.description.platform.normalized();
        let same = |wanted: &str, has: &str| wanted.is_empty() || wanted == has;
        self.platforms.iter().any(|wanted| same(&wanted.os, &has.os) && same(&wanted.architecture, &has.architecture))
    }
}
