//! What an operator has to know of this node's network, because it is theirs to mend: said as long as it lasts. Looked
//! at apart from the thread that keeps the kernel, which only says what it meets.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::firewall::{self, Traffic};
use super::holders::{self, Holder};
use crate::spec::{Concern, Condition, Protocol};

/// Whoever has a port may have become another.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// Rules of others may be many: no more than this share of the time is spent on reading them.
const PAUSE_PER_LOOK: u32 = 50;
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// After a change: others may come with it.
const GATHER: Duration = Duration::from_millis(200);
/// Ports whose holders are looked for at once.
const MAX_PORTS: usize = 64;

/// What the keeper meets and cannot mend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Troubles {
    /// The overlay's port, where the kernel says that it is in use.
    pub data_path_port: Option<u16>,
    /// What the kernel refuses, in its words.
    pub refused: Vec<String>,
    /// What others' firewalls are to let pass.
    pub traffic: Traffic,
}

/// Where the conditions follow from.
#[derive(Clone)]
pub struct Sources {
    pub taken: watch::Receiver<BTreeSet<(Protocol, u16)>>,
    pub troubles: watch::Receiver<Troubles>,
}

/// Until nobody says anything any more.
pub async fn run(mut sources: Sources, told: watch::Sender<Vec<Condition>>) {
    let mut firewalls = Firewalls::default();
    loop {
        let known = sources.known();
        firewalls.look(&known.troubles.traffic).await;
        let found = known.conditions(firewalls.told.clone()).await;
        told.send_if_modified(|told| {
            let changed = *told != found;
            if changed {
                log(told, &found);
                *told = found;
            }
            changed
        });
        let changed = async {
            tokio::select! {
                changed = sources.taken.changed() => changed,
                changed = sources.troubles.changed() => changed,
            }
        };
        match timeout(LOOK_EVERY, changed).await {
            Ok(Err(_)) => return,
            Ok(Ok(())) => sleep(GATHER).await,
            Err(_) => {}
        }
    }
}

/// What was said of others' rules, and when to read them again.
#[derive(Default)]
struct Firewalls {
    told: Vec<String>,
    next: Option<Instant>,
}

impl Firewalls {
    async fn look(&mut self, traffic: &Traffic) {
        // In no swarm there is nothing to let pass.
        if *traffic == Traffic::default() {
            *self = Firewalls::default();
            return;
        }
        if self.next.is_some_and(|next| next > now()) {
            return;
        }
        let start = now();
        self.told = judged(traffic.clone()).await;
        let pause = (start.elapsed() * PAUSE_PER_LOOK).clamp(LOOK_EVERY, LONGEST_PAUSE);
        self.next = Some(now() + pause);
    }
}

async fn judged(traffic: Traffic) -> Vec<String> {
    let look = move || {
        let uplink = traffic.address.and_then(firewall::uplink);
        firewall::judge(&firewall::look(), &Traffic { uplink, ..traffic })
    };
    spawn_blocking(look).await.unwrap_or_default()
}

struct Known {
    taken: BTreeSet<(Protocol, u16)>,
    troubles: Troubles,
}

impl Sources {
    fn known(&mut self) -> Known {
        Known { taken: self.taken.borrow_and_update().clone(), troubles: self.troubles.borrow_and_update().clone() }
    }

    /// All of it, as it is now.
    pub async fn look(&mut self) -> Vec<Condition> {
        let known = self.known();
        let firewalls = judged(known.troubles.traffic.clone()).await;
        known.conditions(firewalls).await
    }
}

impl Known {
    async fn conditions(self, firewalls: Vec<String>) -> Vec<Condition> {
        let found = spawn_blocking(move || conditions(&self.taken, &self.troubles)).await;
        let mut found = found.unwrap_or_default();
        found.extend(firewalls.into_iter().map(|told| Condition::new(Concern::Firewall, told)));
        found.sort();
        found
    }
}

fn conditions(taken: &BTreeSet<(Protocol, u16)>, troubles: &Troubles) -> Vec<Condition> {
    let mut ports: BTreeSet<(Protocol, u16)> = taken.iter().copied().take(MAX_PORTS).collect();
    ports.extend(troubles.data_path_port.map(|port| (Protocol::Udp, port)));
    if ports.is_empty() && troubles.refused.is_empty() {
        return Vec::new();
    }
    let holders = holders::of(&ports);
    let holder = |port| holders.get(&port).cloned().unwrap_or(Holder::Unknown);
    let mut found: Vec<Condition> =
        troubles.refused.iter().map(|what| Condition::new(Concern::Kernel, format!("refused: {what}"))).collect();
    found.extend(troubles.data_path_port.map(|port| {
        let detail = format!(
            "UDP port {port} of the overlay is taken by {}: tasks here reach no other node until it is free. Stop that, \
             or make the swarm with another port (flok swarm init --data-path-port)",
            holder((Protocol::Udp, port))
        );
        Condition::new(Concern::DataPathPort, detail)
    }));
    found.extend(taken.iter().map(|&(protocol, port)| {
        let detail = format!(
            "port {port}/{} is not published here: taken by {}. Stop that, or publish another port",
            protocol.as_str(),
            holder((protocol, port))
        );
        Condition::new(Concern::Port { protocol, port }, detail)
    }));
    found
}

#[expect(clippy::disallowed_methods, reason = "the shell reads the clock")]
fn now() -> Instant {
    Instant::now()
}

fn log(before: &[Condition], now: &[Condition]) {
    for come in now.iter().filter(|condition| !before.contains(condition)) {
        tracing::warn!(concern = come.concern.as_str(), "{}", come.detail);
    }
    for gone in before.iter().filter(|condition| !now.iter().any(|it| it.concern == condition.concern)) {
        tracing::info!(concern = gone.concern.as_str(), "over: {}", gone.detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_who_and_what_to_do() {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let taken = [(Protocol::Sctp, 99)].into();
        let troubles =
            Troubles { data_path_port: Some(port), refused: vec!["a route: no".into()], ..Troubles::default() };
        let told = conditions(&taken, &troubles);
        let concerns: Vec<Concern> = told.iter().map(|condition| condition.concern).collect();
        let of_port = Concern::Port { protocol: Protocol::Sctp, port: 99 };
        assert_eq!(concerns, [Concern::Kernel, Concern::DataPathPort, of_port]);
        assert_eq!(told[0].detail, "refused: a route: no");
        let overlay = format!("UDP port {port} of the overlay is taken by a task of this node");
        assert!(told[1].detail.starts_with(&overlay), "{}", told[1].detail);
        assert!(told[2].detail.starts_with("port 99/sctp is not published here: taken by another process."));
        assert!(conditions(&BTreeSet::new(), &Troubles::default()).is_empty());
    }
}
