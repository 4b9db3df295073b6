//! Gathers alarms into a cut: the set of members that enough of their observers cannot reach. Runs on every manager, so
//! that each knows the suspects; its cuts become verdicts on the leader alone.
//!
//! After Rapid's cut detection: a member with `low` alarms is suspect, with `high` it is to be cut. Alarms of observers
//! that are themselves suspect count against those they watch (implicit alerts: the dead do not report), and while
//! somebody stands between `low` and `high` the cut waits a little, so that a third of a swarm goes in one decision.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::observer::AlarmReport;
use super::rings::{self, Rings, agreement_needed, suspicion_needed};
use crate::gossip::{RecordVersion, Table, Unreachable};
use crate::spec::{Incarnation, MonoMs, NodeId, Version};
use crate::state::{Node, NodeHealth, State};

/// A report that has not been renewed for this long counts no more.
pub const REPORT_LIFE: Duration = Duration::from_secs(3);
/// Alarms taken from one report; nobody watches so many.
pub const MAX_ALARMS: usize = 64;
/// An alarm in a record, the repair path, counts for this long after the record came.
pub const RECORDED_ALARM_LIFE: Duration = Duration::from_secs(15);
/// Given to a daemon whose process is gone while its host is not: the time that a restart takes.
pub const RESTART_GRACE: Duration = Duration::from_secs(5);
/// Silence needed where only one or two can tell: twice what makes a suspect.
pub const FEW_WITNESSES_SILENCE: Duration = Duration::from_secs(2);
/// How long a cut waits for members that are suspect but not yet condemned.
pub const SETTLE: Duration = Duration::from_millis(300);
/// A record that was under way at the verdict may arrive this much later; it is no return.
pub const RETURN_AFTER: Duration = Duration::from_secs(1);
const MAX_RETURN_DOUBLINGS: u32 = 6;

/// A member to be declared down, and on whose word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condemned {
    pub node: NodeId,
    pub incarnation: Incarnation,
    /// Observers that said so themselves.
    pub accusers: Vec<NodeId>,
    /// Observers counted against it because they are suspect themselves.
    pub implicit: Vec<NodeId>,
}

#[derive(Debug)]
pub struct CutDetector {
    me: NodeId,
    rings: Rings,
    /// By observer.
    reports: BTreeMap<NodeId, Report>,
    /// Since when this manager leads.
    leading: Option<MonoMs>,
    suspects: BTreeSet<NodeId>,
    condemned: BTreeMap<NodeId, Condemned>,
    /// Since when somebody is condemned.
    pending: Option<MonoMs>,
    settled: bool,
    /// For members that are down: what their record was when this manager learnt of the verdict.
    marks: BTreeMap<NodeId, Mark>,
}

#[derive(Debug)]
struct Report {
    order: (Incarnation, u64),
    received: MonoMs,
    alarms: BTreeMap<NodeId, Unreachable>,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    version: Option<RecordVersion>,
    at: MonoMs,
}

/// One observer's valid alarm about one subject, now.
#[derive(Debug, Clone, Copy)]
struct Accusation {
    observer: NodeId,
    incarnation: Incarnation,
    silent_for: Duration,
    refused: bool,
    /// Enough for a verdict, not only for a suspicion.
    firsthand: bool,
}

impl CutDetector {
    pub fn new(me: NodeId) -> CutDetector {
        CutDetector {
            me,
            rings: Rings::default(),
            reports: BTreeMap::new(),
            leading: None,
            suspects: BTreeSet::new(),
            condemned: BTreeMap::new(),
            pending: None,
            settled: false,
            marks: BTreeMap::new(),
        }
    }

    /// A report by way of a stream from `from`, which can only speak for itself.
    pub fn handle_report(&mut self, from: NodeId, report: AlarmReport, now: MonoMs) {
        let order = (report.incarnation, report.sequence);
        let known = self.reports.get(&from).is_some_and(|held| held.order >= order);
        if from != report.observer || known {
            return;
        }
        let alarms = report.alarms.into_iter().take(MAX_ALARMS).map(|alarm| (alarm.subject, alarm)).collect();
        self.reports.insert(from, Report { order, received: now, alarms });
    }

    /// Since when this manager leads; `None` when it does not, and while it has not heard from a quorum within an election
    /// timeout. A new leader acts only on what it has heard itself: on reports that observers sent to it, and on
    /// records that came in its own time.
    pub fn set_leading(&mut self, since: Option<MonoMs>) {
        self.leading = since;
    }

    /// Weighs everything heard so far. Call it when a report or record came, and every 100 ms unless [`Self::is_calm`].
    pub fn update(&mut self, state: &State, table: &Table, now: MonoMs) {
        if !rings::members(state).eq(self.rings.iter().map(|(id, _)| id)) {
            self.rings = Rings::of(state);
            self.reports.retain(|observer, _| state.node(*observer).is_some());
        }
        self.mark_those_down(state, table, now);
        self.weigh(state.swarm().map_or(Version(0), |swarm| swarm.membership_version), table, now);
    }

    /// Members that get no new tasks and no traffic now.
    pub fn suspects(&self) -> &BTreeSet<NodeId> {
        &self.suspects
    }

    /// Nothing is suspected: only a new report can change that.
    pub fn is_calm(&self) -> bool {
        self.suspects.is_empty() && self.condemned.is_empty()
    }

    /// The cut to be decided now; empty while it has not settled, and where this manager does not lead.
    pub fn cut(&self) -> impl Iterator<Item = &Condemned> {
        self.condemned.values().filter(|_| self.settled && self.leading.is_some())
    }

    pub fn rings(&self) -> &Rings {
        &self.rings
    }

    /// Whether a member that was declared down, in `incarnation`, has been heard since: in a later life, or in this one
    /// after a wait that doubles with each flap, as its record may reach us though no probe reaches it.
    pub fn has_returned(&self, node: &Node, incarnation: Incarnation, table: &Table) -> bool {
        let Some(held) = table.get(node.id) else { return false };
        let version = held.record.version;
        let wait = RETURN_AFTER * 2u32.pow(node.flaps.min(MAX_RETURN_DOUBLINGS));
        let heard_since = |mark: &Mark| mark.version < Some(version) && held.received >= mark.at + wait;
        version.incarnation > incarnation || self.marks.get(&node.id).is_some_and(heard_since)
    }

    fn mark_those_down(&mut self, state: &State, table: &Table, now: MonoMs) {
        let is_down = |id: &NodeId| state.node(*id).is_some_and(|node| matches!(node.health, NodeHealth::Down { .. }));
        self.marks.retain(|id, _| is_down(id));
        for node in state.nodes().filter(|node| is_down(&node.id)) {
            let version = table.get(node.id).map(|held| held.record.version);
            self.marks.entry(node.id).or_insert(Mark { version, at: now });
        }
    }

    fn weigh(&mut self, membership: Version, table: &Table, now: MonoMs) {
        let accused = self.accusations(membership, table, now);
        self.suspects = self.find_suspects(&accused);
        let waiting = |accusations: &[Accusation]| accusations.iter().any(|a| a.refused && !matured(a, false));
        let mut unsettled = false;
        let mut condemned = BTreeMap::new();
        for (subject, accusations) in &accused {
            match self.condemn(*subject, accusations, table) {
                Some(verdict) => _ = condemned.insert(*subject, verdict),
                None => unsettled |= self.suspects.contains(subject) && !waiting(accusations),
            }
        }
        let any_refused =
            |(subject, all): (&NodeId, &Vec<Accusation>)| all.iter().any(|a| a.refused).then_some(*subject);
        self.suspects.extend(accused.iter().filter_map(any_refused));
        self.condemned = condemned;
        self.pending = if self.condemned.is_empty() { None } else { self.pending.or(Some(now)) };
        self.settled = !unsettled || self.pending.is_some_and(|since| now - since >= SETTLE);
    }

    /// The valid alarms by subject: from those who observe it now, about the life it is in, fresh.
    fn accusations(&self, membership: Version, table: &Table, now: MonoMs) -> BTreeMap<NodeId, Vec<Accusation>> {
        let mut accused = BTreeMap::new();
        for (subject, observers) in self.rings.iter().filter(|(subject, _)| *subject != self.me) {
            let alive = table.get(subject).map_or(Incarnation(0), |held| held.record.version.incarnation);
            let accusations: Vec<Accusation> = observers
                .iter()
                .filter_map(|observer| self.accusation(*observer, subject, table, now))
                .filter(|(alarm, _)| alarm.incarnation >= alive && alarm.membership_version <= membership)
                .map(|(_, accusation)| accusation)
                .collect();
            if !accusations.is_empty() {
                accused.insert(subject, accusations);
            }
        }
        accused
    }

    /// What `observer` says of `subject`: its report while that is fresh, else its record if that came later.
    fn accusation<'a>(
        &'a self,
        observer: NodeId,
        subject: NodeId,
        table: &'a Table,
        now: MonoMs,
    ) -> Option<(&'a Unreachable, Accusation)> {
        let report = self.reports.get(&observer);
        let (alarm, received, firsthand) = match report {
            Some(report) if now - report.received <= REPORT_LIFE => {
                (report.alarms.get(&subject)?, report.received, true)
            }
            _ => {
                let held = table.get(observer)?;
                let superseded = report.is_some_and(|report| report.received >= held.received);
                if superseded || now - held.received > RECORDED_ALARM_LIFE {
                    return None;
                }
                let alarm = held.record.unreachable.iter().find(|alarm| alarm.subject == subject)?;
                (alarm, held.received, self.leading.is_none_or(|since| held.received >= since))
            }
        };
        let silent_for = alarm.silent_for + (now - received);
        let Unreachable { incarnation, refused, .. } = *alarm;
        Some((alarm, Accusation { observer, incarnation, silent_for, refused, firsthand }))
    }

    /// The least set such that a member with `low` alarms, those of its suspect observers counted in, is in it.
    fn find_suspects(&self, accused: &BTreeMap<NodeId, Vec<Accusation>>) -> BTreeSet<NodeId> {
        let mut suspects = BTreeSet::new();
        loop {
            let before = suspects.len();
            for (subject, accusations) in accused {
                let observers = self.rings.observers_of(*subject);
                let voices = accusations.len() + implicit(observers, accusations, &suspects).count();
                if voices >= suspicion_needed(observers.len()) {
                    suspects.insert(*subject);
                }
            }
            if suspects.len() == before {
                return suspects;
            }
        }
    }

    /// A verdict needs `high` of the observers, and one among them that is not suspect itself: where all are, the rings
    /// without them will tell. Where only one or two can tell, they must have waited twice as long.
    fn condemn(&self, subject: NodeId, accusations: &[Accusation], table: &Table) -> Option<Condemned> {
        let observers = self.rings.observers_of(subject);
        let implicit: Vec<NodeId> = implicit(observers, accusations, &self.suspects).collect();
        let few = observers.len() <= 2 || accusations.len() == 1;
        let counted: Vec<&Accusation> = accusations.iter().filter(|a| a.firsthand && matured(a, few)).collect();
        let has_sound_witness = counted.iter().any(|a| !self.suspects.contains(&a.observer));
        if !has_sound_witness || counted.len() + implicit.len() < agreement_needed(observers.len()) {
            return None;
        }
        let heard = table.get(subject).map_or(Incarnation(0), |held| held.record.version.incarnation);
        let incarnation = counted.iter().map(|a| a.incarnation).fold(heard, Ord::max);
        let accusers = counted.iter().map(|a| a.observer).collect();
        Some(Condemned { node: subject, incarnation, accusers, implicit })
    }
}

/// Observers that did not accuse, and are suspect.
fn implicit(
    observers: &[NodeId],
    accusations: &[Accusation],
    suspects: &BTreeSet<NodeId>,
) -> impl Iterator<Item = NodeId> {
    let silent = |observer: &NodeId| !accusations.iter().any(|a| a.observer == *observer);
    observers.iter().copied().filter(move |observer| suspects.contains(observer) && silent(observer))
}

/// Whether an accusation is old enough for a verdict.
fn matured(accusation: &Accusation, few_witnesses: bool) -> bool {
    let needed = match (accusation.refused, few_witnesses) {
        (true, _) => RESTART_GRACE,
        (false, true) => FEW_WITNESSES_SILENCE,
        (false, false) => Duration::ZERO,
    };
    accusation.silent_for >= needed
}

#[cfg(test)]
mod tests;
