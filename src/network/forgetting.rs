//! What connection tracking must forget once a target takes no more: a later packet from the same port would be led there.
//!
//! The kernel walks its whole table for it, used or not (13 ms where the table has its default size of 262,144 for a
//! machine of 24 GiB). So the targets that this node has asked are noted by the kernel itself, in the sets `asked4` and
//! `asked6`; where none of those that go is among them there is nothing to forget. Walks take a small share of the time at
//! most: what becomes stale meanwhile is forgotten together.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use super::kernel::conntrack::{self, Stale};
use super::kernel::nftables::{AskedTarget, Nftables};
use super::state::{Balancer, Changes, Key, Set, Value};
use crate::spec::Protocol;

/// After a walk that took so long, none for so many times that.
const REST: u32 = 20;
/// The longest rest: what is stale is told of nobody meanwhile.
const LONGEST_REST: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Forgetting {
    stale: BTreeSet<Stale>,
    rests_until: Option<Instant>,
}

impl Forgetting {
    /// Takes in what a change of the kernel's state leaves behind.
    pub fn note(&mut self, changes: &Changes) {
        self.stale.extend(stale(changes));
    }

    /// When there is something to do; in the past where it is at once.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        (!self.stale.is_empty()).then(|| self.rests_until.unwrap_or(now))
    }

    /// Forgets all that was noted. What fails is told, and not tried again: it ends by itself.
    pub fn carry_out(&mut self, nftables: &mut Nftables, now: fn() -> Instant) {
        let stale = std::mem::take(&mut self.stale);
        let began = now();
        if let Err(error) = forget(&stale, nftables) {
            tracing::info!(%error, "the kernel does not forget what it tracks; a flow that is kept stays where it went");
        }
        self.rests_until = Some(now() + (REST * (now() - began)).min(LONGEST_REST));
    }
}

fn forget(stale: &BTreeSet<Stale>, nftables: &mut Nftables) -> io::Result<()> {
    let mut wanted: BTreeSet<AskedTarget> = stale.iter().flat_map(|one| targets(*one)).collect();
    wanted.insert(AskedTarget::UNKNOWN);
    let asked = nftables.asked_among(&wanted)?;
    let unknown = asked.contains(&AskedTarget::UNKNOWN);
    let is_asked = |one: &Stale| {
        let first = targets(*one).next();
        unknown || first.is_none_or(|first| asked.contains(&first))
    };
    conntrack::forget(&stale.iter().copied().filter(is_asked).collect())?;
    let gone = |target: &AskedTarget| stale.contains(&Stale::NeverAnsweredBy(target.address));
    nftables.forget_asked(&asked.into_iter().filter(gone).collect::<Vec<_>>())
}

/// Whom the node has asked where this is to be forgotten, the one that matters first. Of a target that is gone the note
/// goes too, of both protocols.
fn targets(stale: Stale) -> impl Iterator<Item = AskedTarget> {
    let (address, protocols) = match stale {
        Stale::AnsweredBy(address) => (Some(address), &[Protocol::Udp][..]),
        Stale::NeverAnsweredBy(address) => (Some(address), &[Protocol::Tcp, Protocol::Udp][..]),
        Stale::ToPort { .. } => (None, &[][..]),
    };
    protocols.iter().filter_map(move |protocol| Some(AskedTarget { address: address?, protocol: *protocol }))
}

/// What would go on to where it no longer belongs.
fn stale(changes: &Changes) -> BTreeSet<Stale> {
    let mut stale = BTreeSet::new();
    for change in &changes.balancers.list {
        let udp = match change.key {
            Balancer::Vip(_) => true,
            Balancer::Port { protocol, .. } => protocol == Protocol::Udp,
        };
        let (old, new) = (change.old.as_deref().unwrap_or_default(), change.new.as_deref().unwrap_or_default());
        let gone = old.iter().filter(|target| udp && !new.contains(target));
        stale.extend(gone.map(|target| Stale::AnsweredBy(target.address)));
        if let (Balancer::Port { protocol: Protocol::Udp, port, ipv6 }, None) = (change.key, &change.old) {
            stale.insert(Stale::ToPort { port, ipv6 });
        }
    }
    for change in &changes.elements.list {
        match (change.key, change.old) {
            ((Set::HostPorts4 | Set::HostPorts6, Key::Port(Protocol::Udp, _)), Some(Value::Target(target))) => {
                stale.insert(Stale::AnsweredBy(target.address));
            }
            ((set @ (Set::HostPorts4 | Set::HostPorts6), Key::Port(Protocol::Udp, port)), _) => {
                stale.insert(Stale::ToPort { port, ipv6: set.is_ipv6() });
            }
            ((Set::Endpoints4 | Set::Endpoints6, Key::Address(address)), Some(_)) if change.new.is_none() => {
                stale.insert(Stale::NeverAnsweredBy(address));
            }
            _ => {}
        }
    }
    stale
}
