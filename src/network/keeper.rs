//! Keeps the kernel as planned, on a thread of its own: takes in what changed, plans anew, and carries out the difference
//! to what the kernel holds. It reads the kernel at its start, when another touched something of ours, and from time to
//! time; in between it knows.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::conditions::Troubles;
use super::doctor::Examined;
use super::firewall::Traffic;
use super::forgetting::Forgetting;
use super::inbox::{Inbox, Rung};
use super::kernel::nftables::{AskedTarget, Found, Nftables, run_nft};
use super::kernel::routing::{Refusal, Refused, Routing};
use super::kernel::{sysctl, veth};
use super::names::{OVERLAY, overlay};
use super::parts::{Parts, Touched};
use super::plan::{Inputs, LocalTask, Numbers, published};
use super::plane::{Outputs, Question, SwarmView, Wired};
use super::ports::IngressPorts;
use super::skeleton::Skeleton;
use super::state::{Changes, Interface, KernelState};
use super::{NetworkError, pool};
use crate::spec::TaskId;

/// The kernel is read so often though nobody rang.
const AUDIT_EVERY: Duration = Duration::from_secs(30);
/// After the bell, so that a human's command is seen as a whole.
const AUDIT_AFTER_BELL: Duration = Duration::from_millis(100);
/// What was refused is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Refusals told apart; where there are more, these are enough to go after.
const MAX_TROUBLES: usize = 8;
/// Refusals that are remembered until the whole is looked at again.
const MAX_REFUSED: usize = 1024;
/// Around a packet: Ethernet, IP, UDP and VXLAN.
const OVERHEAD4: u32 = 50;
const OVERHEAD6: u32 = 70;
const DEFAULT_MTU: u32 = 1500;
/// No IPv6 below this.
const LEAST_MTU: u32 = 1280;
/// A device that is made anew takes its routes with it: the kernel is read and changed once more.
const PASSES: usize = 3;

type Done = oneshot::Sender<Result<(), NetworkError>>;
/// Who waits for it, and the task that he told of.
type Asked = (Option<TaskId>, Done);
type Answer = oneshot::Sender<Result<Box<Examined>, NetworkError>>;

pub struct Keeper {
    routing: Routing,
    nftables: Nftables,
    subnet: pool::Subnet,
    ipv6: bool,
    wired: BTreeMap<TaskId, Wired>,
    tasks: BTreeMap<TaskId, LocalTask>,
    /// `None` until it is told: the swarm's part of an earlier run stays as it is until then.
    swarm: Option<SwarmView>,
    /// The own address where an interface has it, and the MTU it leaves to the overlay.
    under: (Option<IpAddr>, u32),
    numbers: Numbers,
    ports: IngressPorts,
    outputs: Outputs,
    /// The base chains as they were installed, and what they were read back as.
    installed: Option<(Skeleton, u64)>,
    /// What the kernel holds; `None` where it has to be read.
    held: Option<KernelState>,
    parts: Parts,
    touched: Touched,
    forgetting: Forgetting,
    /// Of the last time, while the swarm is not known.
    planned: KernelState,
    /// What could not be done, as it was told.
    refused: Refused,
    /// Why all of it could not be done, the last time.
    failed: Option<String>,
    /// Who wants to know how it stands, once what was told before is in force.
    curious: Vec<Answer>,
    audit_at: Instant,
}

impl Keeper {
    pub fn start(
        subnet: pool::Subnet,
        wired: BTreeMap<TaskId, Wired>,
        outputs: Outputs,
    ) -> Result<Keeper, NetworkError> {
        let ipv6 = sysctl::has_ipv6();
        sysctl::prepare_host(ipv6)?;
        let mut keeper = Keeper {
            routing: Routing::open(subnet).map_err(NetworkError::NetlinkSocket)?,
            nftables: Nftables::open().map_err(NetworkError::NetlinkSocket)?,
            subnet,
            ipv6,
            tasks: wired.iter().map(|(id, wired)| (*id, wired.task.clone())).collect(),
            wired,
            swarm: None,
            under: (None, DEFAULT_MTU - OVERHEAD4),
            numbers: Numbers::default(),
            ports: IngressPorts::default(),
            outputs,
            installed: None,
            held: None,
            parts: Parts::default(),
            touched: Touched::default(),
            forgetting: Forgetting::default(),
            planned: KernelState::default(),
            refused: Vec::new(),
            failed: None,
            curious: Vec::new(),
            audit_at: now() + AUDIT_EVERY,
        };
        keeper.routing.bring_lo_up().map_err(kernel)?;
        keeper.settle()?;
        Ok(keeper)
    }

    /// Of the sockets that changes are made with: of nf_tables and of rtnetlink.
    pub fn ports(&self) -> [u32; 2] {
        [self.nftables.port(), self.routing.port()]
    }

    /// Until nobody can tell it anything any more. What is in the kernel stays.
    pub fn run(mut self, inbox: &Inbox) {
        loop {
            let mut asked: Vec<Asked> = Vec::new();
            let told = inbox.wait(self.next().saturating_duration_since(now()));
            if told.closed {
                return;
            }
            // Where there is nothing new, it is time to look: a port that was another's may be free now.
            let mut changed = told.is_empty();
            self.follow_swarm(told.swarm, &mut changed);
            for question in told.questions {
                changed |= self.take_in(question, &mut asked);
            }
            self.hear(&told.rung);
            if self.audit_at <= now() {
                self.held = None;
                self.audit_at = now() + AUDIT_EVERY;
                changed = true;
            }
            if changed {
                let settled = self.settle();
                if let Err(error) = &settled {
                    tracing::warn!(error = %error, "the kernel's network is not as it should be; tried again");
                    self.held = None;
                    self.audit_at = now() + RETRY_AFTER;
                }
                // Who waits for all that was told waits for this too.
                let whole = asked.iter().any(|(task, _)| task.is_none());
                if self.forgetting.due(now()).is_some_and(|due| whole || due <= now()) {
                    self.forgetting.carry_out(&mut self.nftables, now);
                }
                let told = settled.map_err(|error| error.to_string());
                self.failed = told.as_ref().err().cloned();
                self.tell_troubles();
                for (task, done) in asked {
                    let answer = told.clone().and_then(|()| task.map_or(Ok(()), |task| self.is_reached(task)));
                    let _ = done.send(answer.map_err(NetworkError::Kernel));
                }
            }
            for answer in std::mem::take(&mut self.curious) {
                let _ = answer.send(self.examine());
            }
        }
    }

    /// When there is something to do though nobody tells anything.
    fn next(&self) -> Instant {
        let retry = (!self.ports.taken().is_empty()).then(|| now() + RETRY_AFTER);
        [retry, self.forgetting.due(now())].into_iter().flatten().fold(self.audit_at, Instant::min)
    }

    /// Whether there is something to do now.
    fn take_in(&mut self, question: Question, asked: &mut Vec<Asked>) -> bool {
        match question {
            Question::Task(id, wired, done) => {
                asked.push((Some(id), done));
                self.touched.tasks.insert(id);
                match wired {
                    Some(wired) => {
                        self.tasks.insert(id, wired.task.clone());
                        self.wired.insert(id, *wired);
                    }
                    None => {
                        let gone = self.tasks.remove(&id).map(|task| task.interface);
                        self.wired.remove(&id);
                        self.refused.retain(|one| one.interface.is_none() || one.interface != gone);
                    }
                }
                true
            }
            Question::Settle(done) => {
                asked.push((None, done));
                true
            }
            Question::Examine(answer) => {
                self.curious.push(answer);
                false
            }
        }
    }

    fn follow_swarm(&mut self, view: Option<Box<SwarmView>>, changed: &mut bool) {
        let Some(view) = view else { return };
        *changed = true;
        let before = self.swarm.replace(*view);
        let (Some(now), before) = (&self.swarm, before.unwrap_or_default()) else { return };
        if now.overlay != before.overlay || now.members != before.members {
            self.touched.all = true;
            if self.numbers != Numbers::default() {
                self.numbers.follow(&now.members);
            }
            self.look_under();
        }
    }

    /// Of what another touched only what is ours counts.
    fn hear(&mut self, rung: &Rung) {
        let known = |name: &Interface| *name == overlay() || self.tasks.values().any(|task| task.interface == *name);
        if rung.anything || rung.interfaces.iter().any(known) {
            self.audit_at = self.audit_at.min(now() + AUDIT_AFTER_BELL);
        }
    }

    /// Makes the kernel as planned, as far as it lets us.
    fn settle(&mut self) -> Result<(), NetworkError> {
        let networks = self.swarm.as_ref().map(|swarm| published(&swarm.networks)).unwrap_or_default();
        let taken = self.ports.taken().clone();
        self.ports.follow(&networks);
        self.touched.all |= *self.ports.taken() != taken;
        let in_force = self.installed.is_some_and(|(installed, _)| installed == self.skeleton());
        if self.swarm.is_some()
            && in_force
            && let Some(mut held) = self.held.take()
        {
            let touched = std::mem::take(&mut self.touched);
            let changes = self.replan(&touched, &held);
            self.carry_out(&changes, false)?;
            // A device that is made anew takes its routes with it.
            if changes.vxlan.is_none() {
                held.apply(&changes);
                self.held = Some(held);
                self.forgetting.note(&changes);
                self.tell();
                return Ok(());
            }
        }
        self.settle_whole()
    }

    /// The same, by comparing all of it.
    fn settle_whole(&mut self) -> Result<(), NetworkError> {
        for _ in 0..PASSES {
            if self.held.is_none() {
                self.look_under();
                self.repair_wires();
            }
            let held = self.held()?;
            self.adopt_numbers(&held);
            self.touched = Touched::default();
            self.replan(&Touched { all: true, tasks: BTreeSet::new() }, &held);
            let planned = self.parts.whole();
            let wanted = self.wanted(&held, &planned);
            let changes = Changes::between(&held, &wanted);
            let remade = changes.vxlan.is_some() && held.vxlan.is_some();
            self.carry_out(&changes, true)?;
            if self.routing.links().map_err(kernel)?.contains_key(&overlay()) {
                sysctl::prepare_overlay()?;
            }
            if self.swarm.is_none() {
                self.planned = planned;
            }
            if !remade {
                self.held = Some(wanted);
                self.forgetting.note(&changes);
                self.tell();
                return Ok(());
            }
        }
        Err(NetworkError::Kernel(format!("{OVERLAY} does not stay as it is made")))
    }

    /// What the kernel holds, the base chains being in force.
    fn held(&mut self) -> Result<KernelState, NetworkError> {
        let skeleton = self.skeleton();
        let same = self.installed.is_some_and(|(installed, _)| installed == skeleton);
        if let Some(held) = self.held.take().filter(|_| same || self.swarm.is_none()) {
            return Ok(held);
        }
        let mut found = self.nftables.read().map_err(kernel)?;
        let in_force = match (&found, self.installed) {
            (Some(found), Some((installed, fingerprint))) => {
                found.complete && installed == skeleton && found.fingerprint == fingerprint
            }
            // Of an earlier run, which knew more of the swarm.
            (Some(found), None) => found.complete && self.swarm.is_none(),
            (None, _) => false,
        };
        if !in_force {
            found = self.install(skeleton, found)?;
        }
        let found = found.unwrap_or_default();
        let state = self.routing.read().map_err(kernel)?;
        Ok(KernelState { elements: found.elements, balancers: found.balancers, ..state })
    }

    /// The base chains as they should be. What is read back is what they look like unless somebody came between; then it
    /// is done again soon.
    fn install(&mut self, skeleton: Skeleton, found: Option<Found>) -> Result<Option<Found>, NetworkError> {
        let anew = found.as_ref().is_some_and(|found| !found.complete);
        // Of a table that goes, or is gone, the notes of asked targets are lost.
        let lost = anew || (found.is_none() && self.installed.is_some());
        let present = found.map(|found| found.chains).unwrap_or_default();
        let before = self.nftables.generation().map_err(kernel)?;
        let mut script = skeleton.script(anew, &present);
        if lost {
            script += &AskedTarget::unknown();
        }
        run_nft(&script)?;
        let found = self.nftables.read().map_err(kernel)?;
        let undisturbed = self.nftables.generation().map_err(kernel)? == before.wrapping_add(1);
        self.installed = found.as_ref().filter(|_| undisturbed).map(|found| (skeleton, found.fingerprint));
        if !undisturbed {
            self.audit_at = self.audit_at.min(now() + AUDIT_AFTER_BELL);
        }
        Ok(found)
    }

    fn skeleton(&self) -> Skeleton {
        Skeleton { subnet: self.subnet, overlay: self.swarm.as_ref().and_then(|swarm| swarm.overlay) }
    }

    /// The numbers that connections in the kernel bear go on to count.
    fn adopt_numbers(&mut self, held: &KernelState) {
        let Some(swarm) = &self.swarm else { return };
        if self.numbers == Numbers::default() {
            self.numbers = Numbers::adopted(&swarm.members, held);
        }
        self.numbers.follow(&swarm.members);
    }

    fn replan(&mut self, touched: &Touched, held: &KernelState) -> Changes {
        let nowhere = SwarmView::default();
        let swarm = self.swarm.as_ref().unwrap_or(&nowhere);
        let inputs = Inputs {
            skeleton: Skeleton { subnet: self.subnet, overlay: swarm.overlay },
            local: self.under.0,
            mtu: self.under.1,
            ipv6: self.ipv6,
            members: &swarm.members,
            numbers: &self.numbers,
            networks: &swarm.networks,
            tasks: &self.tasks,
            taken: self.ports.taken(),
        };
        self.parts.follow(&inputs, touched, held)
    }

    /// The plan; before the swarm is known, what is there with the plan's changes.
    fn wanted(&self, held: &KernelState, planned: &KernelState) -> KernelState {
        if self.swarm.is_some() {
            return planned.clone();
        }
        let mut wanted = held.clone();
        wanted.apply(&Changes::between(&self.planned, planned));
        // What is planned is wanted whether or not it was planned before.
        let mut more = planned.clone();
        more.vxlan = wanted.vxlan;
        wanted.addresses.append(&mut more.addresses);
        wanted.neighbours.append(&mut more.neighbours);
        wanted.routes.append(&mut more.routes);
        wanted.elements.append(&mut more.elements);
        wanted
    }

    /// `whole`: the changes are all there are, so that what was refused before and is not among them is no more.
    fn carry_out(&mut self, changes: &Changes, whole: bool) -> Result<(), NetworkError> {
        if whole && changes.is_empty() {
            self.refused.clear();
        }
        if changes.is_empty() {
            return Ok(());
        }
        let mut refused = self.routing.apply(changes).map_err(kernel)?;
        for Refusal { what, .. } in refused.iter().filter(|one| !self.refused.contains(one)) {
            tracing::warn!(what, "the kernel refuses a part of the network");
        }
        if !whole {
            refused = both(std::mem::take(&mut self.refused), refused);
        }
        self.refused = refused;
        if !self.refused.is_empty() {
            self.audit_at = self.audit_at.min(now() + RETRY_AFTER);
        }
        self.nftables.apply(changes).map_err(kernel)
    }

    /// Whether the kernel took all that leads to a task: a part that it refused is told with the rest of the node's, but a
    /// task that nobody reaches is not to start.
    fn is_reached(&self, task: TaskId) -> Result<(), String> {
        let Some(task) = self.tasks.get(&task) else { return Ok(()) };
        let own = self.refused.iter().find(|one| one.interface == Some(task.interface));
        own.map_or(Ok(()), |one| Err(one.what.clone()))
    }

    /// The interface that has the own address bounds what a packet may be.
    fn look_under(&mut self) {
        let Some(overlay) = self.swarm.as_ref().and_then(|swarm| swarm.overlay) else { return };
        let found = self.routing.mtu_under(overlay.address);
        if let Err(error) = &found {
            tracing::warn!(%error, "the interface under the overlay cannot be looked at; what was known of it counts");
            self.audit_at = self.audit_at.min(now() + RETRY_AFTER);
        }
        self.under = under(self.under, overlay.address, found.ok());
    }

    /// A task whose interface was deleted gets another, and one that was taken down is put up; its sockets never notice.
    fn repair_wires(&mut self) {
        let Ok(links) = self.routing.links() else { return };
        let is_up = |interface| links.get(&interface).is_some_and(|link| link.up);
        for wired in self.wired.values().filter(|wired| !is_up(wired.task.interface)) {
            tracing::warn!(interface = %wired.task.interface, "a task's interface is gone or down and is repaired");
            if let Err(error) = veth::connect(&wired.wire) {
                tracing::warn!(interface = %wired.task.interface, %error, "a task's interface cannot be repaired");
            }
        }
    }

    /// What should be, and what the kernel says there is.
    fn examine(&mut self) -> Result<Box<Examined>, NetworkError> {
        let found = self.nftables.read().map_err(kernel)?;
        let installed = self.installed.map(|(_, fingerprint)| fingerprint);
        let as_installed = |fingerprint| installed.is_none_or(|installed| installed == fingerprint);
        let chains = found.as_ref().is_some_and(|found| found.complete && as_installed(found.fingerprint));
        let found = found.unwrap_or_default();
        let state = self.routing.read().map_err(kernel)?;
        let links = self.routing.links().map_err(kernel)?;
        Ok(Box::new(Examined {
            swarm: self.swarm.clone().unwrap_or_default(),
            has_own_address: self.under.0.is_some(),
            wanted: self.parts.whole(),
            found: KernelState { elements: found.elements, balancers: found.balancers, ..state },
            chains,
            links: links.into_iter().map(|(name, link)| (name, link.up)).collect(),
            tasks: self.tasks.clone(),
            published: self.ports.held().collect(),
            taken: self.ports.taken().clone(),
            refused: self.refused.iter().map(|one| one.what.clone()).collect(),
        }))
    }

    fn tell_troubles(&self) {
        let overlay = self.swarm.as_ref().and_then(|swarm| swarm.overlay);
        let in_use = self.refused.iter().any(|one| one.port_in_use);
        let others = self.refused.iter().filter(|one| !one.port_in_use).map(|one| one.what.clone());
        let troubles = Troubles {
            data_path_port: overlay.filter(|_| in_use).map(|overlay| overlay.port),
            refused: others.chain(self.failed.clone()).take(MAX_TROUBLES).collect(),
            traffic: self.swarm.as_ref().map(Traffic::of).unwrap_or_default(),
        };
        self.outputs.troubles.send_if_modified(|told| replace(told, troubles));
    }

    fn tell(&self) {
        let outputs = &self.outputs;
        let taken = self.ports.taken();
        outputs.taken.send_if_modified(|told| replace(told, taken.clone()));
        let mtu = self.swarm.as_ref().and_then(|swarm| swarm.overlay).map(|_| self.under.1);
        outputs.mtu.send_if_modified(|told| replace(told, mtu));
        let of_tasks =
            self.tasks.values().flat_map(|task| task.ports.iter().map(|port| (port.protocol, port.published)));
        let proxied: BTreeSet<_> = self.ports.held().chain(of_tasks).collect();
        outputs.proxied.send_if_modified(|told| replace(told, if self.ipv6 { proxied } else { BTreeSet::new() }));
    }
}

/// Each refusal once, however often it is met; of too many, the oldest are given up.
fn both(before: Refused, mut now: Refused) -> Refused {
    now.extend(before);
    let mut all = Refused::new();
    for one in now {
        if all.len() < MAX_REFUSED && !all.contains(&one) {
            all.push(one);
        }
    }
    all
}

/// What lies under the overlay: `found` is the MTU of the interface that has the own address, where one has it. Where
/// nothing could be found out, what was known stays: to take nothing for an answer would make the device anew.
fn under(known: (Option<IpAddr>, u32), own: IpAddr, found: Option<Option<u32>>) -> (Option<IpAddr>, u32) {
    let overhead = if own.is_ipv6() { OVERHEAD6 } else { OVERHEAD4 };
    let leaves = |mtu: u32| mtu.saturating_sub(overhead).max(LEAST_MTU);
    match found {
        Some(Some(mtu)) => (Some(own), leaves(mtu)),
        None if known.0 == Some(own) => known,
        Some(None) | None => (None, leaves(DEFAULT_MTU)),
    }
}

fn replace<T: PartialEq>(old: &mut T, new: T) -> bool {
    let changed = *old != new;
    *old = new;
    changed
}

fn kernel(error: io::Error) -> NetworkError {
    NetworkError::Kernel(error.to_string())
}

#[expect(clippy::disallowed_methods, reason = "the shell reads the clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_under_the_overlay_stays_known_where_it_cannot_be_looked_at() {
        let (own, other) = (IpAddr::from([192, 168, 1, 1]), IpAddr::from([192, 168, 1, 2]));
        let known = under((None, 0), own, Some(Some(1400)));
        assert_eq!(known, (Some(own), 1350));
        assert_eq!(under(known, own, None), known);
        assert_eq!(under(known, other, None), (None, 1450), "of another address nothing was known");
        assert_eq!(under(known, own, Some(None)), (None, 1450), "no interface has it any more");
    }

    #[test]
    fn refusals_that_come_again_and_again_are_remembered_once_and_the_newest_of_too_many() {
        let refusal = |number: usize| Refusal { what: number.to_string(), port_in_use: false, interface: None };
        let mut known = Refused::new();
        for _ in 0..3 {
            known = both(known, vec![refusal(1), refusal(2)]);
            known = both(known, vec![refusal(3)]);
        }
        assert_eq!(known, [refusal(3), refusal(1), refusal(2)]);
        known = both(known, (10..10 + MAX_REFUSED).map(refusal).collect());
        assert_eq!(
            (known.len(), known.contains(&refusal(3)), known.contains(&refusal(10))),
            (MAX_REFUSED, false, true)
        );
    }
}
