//! What goes wrong, and when. Each seed draws which kinds of faults its world knows, so that some worlds have a few kinds
//! in plenty and others a little of everything.

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::context::Ms;
use crate::world::{Event, Network, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Partition,
    OneWay,
    Isolate,
    Heal,
    Loss,
    Delays,
    DaemonDies,
    HostDies,
    /// The power fails in the middle of a write.
    CutAtWrite,
    SyncFails,
    SlowDisk,
    ClockJumps,
    /// Nothing of a daemon runs for a while.
    Freeze,
    /// Its probe thread gets no turn, or it alone does.
    ProbeLags,
    Hangs,
    CopyDisk,
    RestoreDisk,
    EverybodyDies,
}

const ALL: [Fault; 18] = [
    Fault::Partition,
    Fault::OneWay,
    Fault::Isolate,
    Fault::Heal,
    Fault::Loss,
    Fault::Delays,
    Fault::DaemonDies,
    Fault::HostDies,
    Fault::CutAtWrite,
    Fault::SyncFails,
    Fault::SlowDisk,
    Fault::ClockJumps,
    Fault::Freeze,
    Fault::ProbeLags,
    Fault::Hangs,
    Fault::CopyDisk,
    Fault::RestoreDisk,
    Fault::EverybodyDies,
];

#[derive(Debug, Clone)]
pub struct Faults {
    pub kinds: Vec<Fault>,
    /// Between two faults, at most.
    pub gap: Ms,
    pub over: bool,
}

impl Faults {
    pub fn draw(rng: &mut StdRng) -> Faults {
        let share = *[0.2, 0.5, 0.9].choose(rng).expect("three choices");
        let mut kinds: Vec<Fault> = ALL.into_iter().filter(|_| rng.random_bool(share)).collect();
        if kinds.is_empty() {
            kinds.push(Fault::DaemonDies);
        }
        Faults { kinds, gap: rng.random_range(500..6_000), over: false }
    }
}

impl World {
    pub fn fault(&mut self) {
        if self.faults.over {
            return;
        }
        let gap = self.rng.random_range(50..=self.faults.gap);
        self.schedule(gap, Event::Fault);
        let kind = *self.faults.kinds.choose(&mut self.rng).expect("a world has a fault");
        let members = self.members();
        let Some(at) = members.choose(&mut self.rng).copied() else { return };
        let node = self.hosts[at].node;
        self.check.note(|| format!("fault: {kind:?} {node}"));
        match kind {
            Fault::Partition => {
                let side: Vec<usize> = members.iter().copied().filter(|_| self.rng.random()).collect();
                for one in members.iter().filter(|one| side.contains(one)) {
                    for other in members.iter().filter(|other| !side.contains(other)) {
                        self.network.blocked.extend([(*one, *other), (*other, *one)]);
                    }
                }
            }
            Fault::OneWay => {
                let other = *members.choose(&mut self.rng).expect("there is one");
                self.network.blocked.insert((at, other));
            }
            Fault::Isolate => {
                let both = self.rng.random();
                for other in members {
                    self.network.blocked.insert((at, other));
                    if both {
                        self.network.blocked.insert((other, at));
                    }
                }
            }
            Fault::Heal => self.network = Network::calm(),
            Fault::Loss => {
                self.network.loss = self.rng.random_range(0.0..0.3);
                self.network.duplicate = self.rng.random_range(0.0..0.1);
            }
            Fault::Delays => {
                self.network.held = self.rng.random_range(0.0..0.3);
                self.network.held_for = self.rng.random_range(10..1_500);
            }
            Fault::DaemonDies => {
                self.kill_daemon(at);
                self.return_of(at);
            }
            Fault::HostDies => {
                self.cut_power(at);
                self.return_of(at);
            }
            Fault::CutAtWrite => self.hosts[at].disk.cut_in(self.rng.random_range(0..60)),
            Fault::SyncFails => {
                self.hosts[at].excused = true;
                self.hosts[at].disk.fail_next_sync();
            }
            Fault::SlowDisk => self.hosts[at].slow_disk = !self.hosts[at].slow_disk,
            Fault::ClockJumps => {
                let by = *[1_000, 60_000, 3_600_000].choose(&mut self.rng).expect("three choices");
                self.hosts[at].wall_offset += self.rng.random_range(-by..=by);
            }
            Fault::Freeze => {
                let time = self.rng.random_range(100..8_000);
                let until = self.now + time;
                (self.hosts[at].frozen_until, self.hosts[at].probe_frozen_until) = (until, until);
            }
            Fault::ProbeLags => {
                let time = self.rng.random_range(100..4_000);
                self.hosts[at].probe_frozen_until = self.now + time;
            }
            Fault::Hangs => {
                let time = self.rng.random_range(1_000..9_000);
                self.hosts[at].frozen_until = self.now + time;
            }
            Fault::CopyDisk if self.votes(self.hosts[at].node) => {}
            Fault::CopyDisk => {
                self.copy_disk(at);
                self.return_of(at);
            }
            Fault::RestoreDisk => self.restore_some_disk(),
            Fault::EverybodyDies => {
                for at in members {
                    self.cut_power(at);
                    self.return_of(at);
                }
            }
        }
        self.note_impairments();
    }

    /// Of a node that did not vote when the copy was made, and does not now: what a voter has forgotten, no log can mend, and
    /// an old voter's disk would bring back its vote.
    fn restore_some_disk(&mut self) {
        let choices: Vec<usize> = self
            .members()
            .into_iter()
            .filter(|at| self.hosts[*at].copy.is_some() && !self.votes(self.hosts[*at].node))
            .collect();
        if let Some(at) = choices.choose(&mut self.rng).copied() {
            self.restore_disk(at);
            self.return_of(at);
        }
    }

    fn return_of(&mut self, at: usize) {
        let after =
            if self.rng.random() { self.rng.random_range(50..4_000) } else { self.rng.random_range(4_000..40_000) };
        self.start_later(at, after);
    }

    /// Whoever has a fault now has a reason to be called down.
    pub fn note_impairments(&mut self) {
        let bad_network = self.network.loss > 0.21 || self.network.held > 0.0;
        for at in 0..self.hosts.len() {
            let host = &self.hosts[at];
            let cut = self.network.blocked.iter().any(|(from, to)| *from == at || *to == at);
            let away = !host.power
                || host.daemon.is_none()
                || host.frozen_until > self.now
                || host.probe_frozen_until > self.now;
            if cut || away || bad_network || host.slow_disk {
                self.impair(at);
            }
        }
    }

    /// Everything that was broken is mended, and everybody is back.
    pub fn heal(&mut self) {
        self.note_impairments();
        self.faults.over = true;
        self.network = Network::calm();
        for at in 0..self.hosts.len() {
            let host = &mut self.hosts[at];
            (host.slow_disk, host.runtime.calm) = (false, true);
            (host.frozen_until, host.probe_frozen_until) = (0, 0);
            host.disk.mend();
        }
        for at in self.members() {
            self.start_host(at);
        }
    }
}
