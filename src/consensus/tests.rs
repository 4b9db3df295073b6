//! Whole nodes of this room, with real stores, joined by a courier in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::{sleep, timeout};

use super::*;
use crate::spec::{ClientId, Labels, NodeId, SecretBytes, SecretId, SecretSpec, SwarmId, UnixMs};
use crate::state::fixture::{a_node, a_swarm, node, service_spec};
use crate::state::{Command, RaftMember, RaftStanding, Refusal, Reply};

const LONG: Duration = Duration::from_secs(20);

/// Who can hear whom. Messages travel by direct calls.
#[derive(Default)]
struct Wires {
    ends: Mutex<BTreeMap<NodeId, Consensus>>,
    cut: Mutex<BTreeSet<NodeId>>,
}

impl Wires {
    fn end(&self, from: NodeId, to: NodeId) -> Option<Consensus> {
        let cut = self.cut.lock().unwrap();
        if cut.contains(&from) || cut.contains(&to) {
            return None;
        }
        self.ends.lock().unwrap().get(&to).cloned()
    }
}

struct Wire {
    own: NodeId,
    wires: Weak<Wires>,
}

impl Courier for Wire {
    fn send(&self, to: NodeId, message: Bytes) {
        if let Some(end) = self.wires.upgrade().and_then(|wires| wires.end(self.own, to)) {
            end.receive(self.own, message);
        }
    }

    fn request(
        &self,
        to: NodeId,
        _lane: Lane,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, NoAnswer>> {
        assert!(request.len() < MAX_MESSAGE_BYTES);
        let (own, wires) = (self.own, self.wires.clone());
        let lost = move || NoAnswer { node: to, why: "cut off".into() };
        async move {
            let end = wires.upgrade().and_then(|wires| wires.end(own, to)).ok_or_else(lost)?;
            timeout(deadline, end.serve(own, request)).await.map_err(|_| lost())
        }
        .boxed()
    }
}

/// A swarm's log holders. Node n has raft id n at first.
struct Cluster {
    wires: Arc<Wires>,
    folder: tempfile::TempDir,
    clients: u128,
}

impl Cluster {
    /// One node, initialised; the others are admitted to the state.
    async fn begin(nodes: u128) -> Cluster {
        let mut cluster = Cluster { wires: Arc::default(), folder: tempfile::tempdir().unwrap(), clients: 0 };
        cluster.create(1, new_swarm());
        let first = cluster.start(1);
        let init = Command::InitSwarm { swarm: Box::new(a_swarm()), node: Box::new(a_node(1)) };
        first.propose(init).await.unwrap().unwrap();
        for number in 2..=nodes {
            first.propose(Command::AdmitNode { node: Box::new(a_node(number)) }).await.unwrap().unwrap();
        }
        cluster
    }

    /// All nodes vote.
    async fn of(nodes: u128) -> Cluster {
        let mut cluster = Cluster::begin(nodes).await;
        for number in 2..=nodes {
            cluster.join(number, RaftStanding::Voter).await;
        }
        cluster
    }

    fn path(&self, number: u128) -> PathBuf {
        self.folder.path().join(format!("{number}.redb"))
    }

    fn create(&self, number: u128, first: First) {
        LogStore::create(&self.path(number), &key(), identity(number), first, rng(number)).unwrap();
    }

    fn start(&mut self, number: u128) -> Consensus {
        let store = LogStore::open(&self.path(number), &key(), &identity(number), rng(number)).unwrap();
        self.clients += 1;
        let config = Config {
            peers: BTreeMap::new(),
            client: ClientId(self.clients),
            seed: number as u64,
            now: || UnixMs(1_000),
        };
        let wire = Wire { own: node(number), wires: Arc::downgrade(&self.wires) };
        let consensus = Consensus::start(store, config, Arc::new(wire)).unwrap();
        self.wires.ends.lock().unwrap().insert(node(number), consensus.clone());
        consensus
    }

    async fn join(&mut self, number: u128, standing: RaftStanding) -> Consensus {
        self.create(number, First::Empty);
        let joiner = self.start(number);
        let member = RaftMember { raft_id: number as u64, standing };
        self.node(1).change_membership(vec![(node(number), Some(member))]).await.unwrap();
        until(&joiner, |status| status.applied > 1).await;
        joiner
    }

    fn node(&self, number: u128) -> Consensus {
        self.wires.ends.lock().unwrap()[&node(number)].clone()
    }

    fn all(&self) -> Vec<Consensus> {
        self.wires.ends.lock().unwrap().values().cloned().collect()
    }

    fn cut(&self, number: u128) {
        self.wires.cut.lock().unwrap().insert(node(number));
    }

    fn heal(&self) {
        self.wires.cut.lock().unwrap().clear();
    }

    async fn stop(&self, number: u128) {
        self.node(number).shutdown().await;
        self.wires.ends.lock().unwrap().remove(&node(number));
    }

    async fn leader(&self) -> Consensus {
        timeout(LONG, async {
            loop {
                let cut = self.wires.cut.lock().unwrap().clone();
                let leads = |end: &Consensus| end.status().borrow().is_leader() && !cut.contains(&end.node());
                if let Some(leader) = self.all().into_iter().find(leads) {
                    return leader;
                }
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("a leader is elected")
    }
}

fn key() -> SealingKey {
    SealingKey::new([7; 32])
}

fn rng(number: u128) -> Box<StdRng> {
    Box::new(StdRng::seed_from_u64(number as u64))
}

fn identity(number: u128) -> LogIdentity {
    LogIdentity { swarm: SwarmId(7), node: node(number), raft_id: number as u64 }
}

async fn until(consensus: &Consensus, holds: impl FnMut(&Status) -> bool) {
    let mut status = consensus.status();
    timeout(LONG, status.wait_for(holds)).await.expect("the status comes about").unwrap();
}

/// Asks again where the answer is that there is no quorum now: on a busy machine an election may outlast that patience.
async fn insist<T, F>(ask: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, ProposeError>>,
{
    let asking = async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(ProposeError::NoQuorum { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    };
    timeout(LONG, asking).await.expect("it is taken")
}

fn service(name: &str) -> Command {
    let id = crate::spec::ServiceId(name.bytes().fold(0, |id, byte| id << 8 | u128::from(byte)));
    Command::CreateService { id, spec: Box::new(service_spec(name, 1)), credentials: None }
}

fn big_secret(number: u8, bytes: usize) -> Command {
    let data = SecretBytes(vec![number; bytes]);
    let spec = SecretSpec { name: format!("big-{number}"), labels: Labels::new(), templating: None, data };
    Command::CreateSecret { id: SecretId(u128::from(number) + 1), spec }
}

async fn has_service(consensus: &Consensus, name: &str) {
    let mut state = consensus.changed();
    let found = state.wait_for(|state| state.service_by_name(name).is_some());
    timeout(LONG, found).await.expect("the service arrives").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_node_answers_writes_and_keeps_them_over_a_restart() {
    let mut cluster = Cluster::begin(1).await;
    assert_eq!(cluster.node(1).propose(service("web")).await.unwrap(), Ok(Reply::Done));
    let again = cluster.node(1).propose(service("web")).await.unwrap();
    assert!(matches!(again, Err(Refusal::AlreadyExists(_))), "{again:?}");
    cluster.stop(1).await;

    let restarted = cluster.start(1);
    has_service(&restarted, "web").await;
    assert!(restarted.read().await.unwrap().service_by_name("web").is_some());
    assert_eq!(restarted.propose(service("db")).await.unwrap(), Ok(Reply::Done));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_after_each_entry_is_told_however_many_come_at_once() {
    let cluster = Cluster::begin(1).await;
    let node = cluster.node(1);
    let mut applied = node.applied();
    let names: Vec<String> = (0..20).map(|number| format!("s{number}")).collect();
    for answer in futures::future::join_all(names.iter().map(|name| node.propose(service(name)))).await {
        assert_eq!(answer.unwrap(), Ok(Reply::Done));
    }
    let mut counts = Vec::new();
    while counts.last() != Some(&names.len()) {
        counts.push(applied.recv().await.unwrap().services().count());
    }
    counts.retain(|count| *count > 0);
    counts.dedup();
    assert_eq!(counts, (1..=names.len()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn any_holder_takes_writes_and_fresh_reads() {
    let cluster = Cluster::of(3).await;
    for (number, name) in [(1, "one"), (2, "two"), (3, "three")] {
        cluster.node(number).propose(service(name)).await.unwrap().unwrap();
        assert!(cluster.node(number).state().service_by_name(name).is_some(), "answered once applied here");
        for reader in cluster.all() {
            assert!(reader.read().await.unwrap().service_by_name(name).is_some(), "seen by all after the answer");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leaders_death_costs_an_election_and_no_write() {
    let cluster = Cluster::of(3).await;
    cluster.node(2).propose(service("before")).await.unwrap().unwrap();
    let leader = cluster.leader().await;
    cluster.cut(leader.node().0);
    let other = cluster.all().into_iter().find(|end| end.node() != leader.node()).unwrap();
    other.propose(service("after")).await.unwrap().unwrap();
    assert!(other.state().service_by_name("before").is_some());
    cluster.heal();
    has_service(&leader, "after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_both_writes_and_reads_say_so_and_who_is_missing() {
    let cluster = Cluster::of(3).await;
    cluster.cut(2);
    cluster.cut(3);
    until(&cluster.node(1), |status| !status.has_quorum).await;
    let started = tokio::time::Instant::now();
    let alone = cluster.node(1);
    let (write, read) = tokio::join!(alone.propose(service("web")), alone.read());
    assert!(started.elapsed() < Duration::from_secs(5), "it does not wait for the write's own deadline");
    match write.unwrap_err() {
        ProposeError::NoQuorum { missing, may_happen } => {
            assert_eq!(missing, [node(2), node(3)]);
            assert!(!may_happen, "no leader has seen it");
        }
        other => panic!("{other:?}"),
    }
    match read.unwrap_err() {
        ReadError::NoQuorum { missing, state } => {
            assert_eq!(missing, [node(2), node(3)]);
            assert_eq!(state.nodes().len(), 3);
        }
        other => panic!("{other:?}"),
    }
    cluster.heal();
    cluster.node(1).propose(service("web")).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_a_cut_leader_took_may_happen_and_happens_once() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    cluster.cut(leader.node().0);
    let error = leader.propose(service("web")).await.unwrap_err();
    assert!(error.may_happen(), "{error}");
    cluster.heal();
    let new = cluster.leader().await;
    // Either the new leader's log has replaced it or it was committed after all; another is decided by the state.
    let answer = new.propose(service("web")).await.unwrap();
    assert!(matches!(answer, Ok(Reply::Done) | Err(Refusal::AlreadyExists(_))), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_holds_the_log_without_a_vote_and_can_be_promoted() {
    let mut cluster = Cluster::begin(2).await;
    let standby = cluster.join(2, RaftStanding::Standby).await;
    cluster.node(1).propose(service("web")).await.unwrap().unwrap();
    has_service(&standby, "web").await;
    assert_eq!(standby.status().borrow().role, RaftRole::Standby);
    assert_eq!(standby.state().node(node(2)).unwrap().raft.unwrap().standing, RaftStanding::Standby);
    standby.propose(service("db")).await.unwrap().unwrap();
    let voter = RaftMember { raft_id: 2, standing: RaftStanding::Voter };
    standby.change_membership(vec![(node(2), Some(voter))]).await.unwrap();
    until(&standby, |status| status.role == RaftRole::Follower && status.voters.len() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joint_change_replaces_voters_at_once() {
    let mut cluster = Cluster::of(3).await;
    cluster.node(1).propose(Command::AdmitNode { node: Box::new(a_node(4)) }).await.unwrap().unwrap();
    cluster.join(4, RaftStanding::Standby).await;
    let voter = RaftMember { raft_id: 4, standing: RaftStanding::Voter };
    let standby = RaftMember { raft_id: 3, standing: RaftStanding::Standby };
    cluster.node(2).change_membership(vec![(node(4), Some(voter)), (node(3), Some(standby))]).await.unwrap();
    for number in 1..=4 {
        until(&cluster.node(number), |status| {
            status.voters == [node(1), node(2), node(4)] && status.standbys == [node(3)] && !status.changing
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_to_lose_its_vote_hands_over_first() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let removal = vec![(leader.node(), None)];
    // A node that holds the log no more may be so before the log says it: then it can only say that it hears nobody.
    let told = leader.change_membership(removal.clone()).await;
    assert!(matches!(told, Ok(()) | Err(ProposeError::NoQuorum { .. })), "{told:?}");
    let new = cluster.all().into_iter().find(|end| end.node() != leader.node()).unwrap();
    insist(|| new.change_membership(removal.clone())).await;
    until(&new, |status| status.voters.len() == 2 && !status.voters.contains(&leader.node())).await;
    let answer = insist(|| new.propose(service("web"))).await;
    assert!(matches!(answer, Ok(Reply::Done) | Err(Refusal::AlreadyExists(_))), "{answer:?}");
    assert_eq!(new.state().node(leader.node()).unwrap().raft, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_hands_leadership_over() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    cluster.stop(leader.node().0).await;
    assert!(leader.status().borrow().stopped.is_some());
    let term = cluster.leader().await.status().borrow().term;
    assert!(leader.propose(service("web")).await.is_err());
    let back = cluster.start(leader.node().0);
    until(&back, |status| status.leader.is_some() && status.applied > 1).await;
    assert_eq!(back.status().borrow().term, term, "it comes back without an election");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joiner_gets_a_snapshot_of_many_chunks() {
    let mut cluster = Cluster::begin(2).await;
    for number in 0..6 {
        cluster.node(1).propose(big_secret(number, 400 << 10)).await.unwrap().unwrap();
    }
    let joiner = cluster.join(2, RaftStanding::Voter).await;
    until(&joiner, |status| status.voters.len() == 2).await;
    assert_eq!(joiner.read().await.unwrap().secrets().len(), 6);
    cluster.stop(2).await;
    let restarted = cluster.start(2);
    assert_eq!(restarted.read().await.unwrap().secrets().len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_holder_becomes_a_swarm_of_its_own() {
    let mut cluster = Cluster::of(3).await;
    cluster.node(1).propose(service("web")).await.unwrap().unwrap();
    has_service(&cluster.node(3), "web").await;
    for number in 1..=3 {
        cluster.stop(number).await;
    }
    let mut seed = 0;
    let rngs = || {
        seed += 1;
        rng(seed) as Box<dyn rand::CryptoRng + Send>
    };
    force_new_cluster(&cluster.path(3), &key(), &identity(3), rngs).unwrap();
    let alone = cluster.start(3);
    until(&alone, |status| status.is_leader() && status.voters == [node(3)]).await;
    alone.propose(service("db")).await.unwrap().unwrap();
    let state = alone.read().await.unwrap();
    assert!(state.service_by_name("web").is_some());
    assert_eq!(state.node(node(1)).unwrap().raft, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_are_all_answered_and_share_their_writes() {
    let cluster = Cluster::of(3).await;
    let writers = (0..200).map(|number| {
        let node = cluster.node(number % 3 + 1);
        async move { node.propose(service(&format!("service-{number}"))).await.unwrap().unwrap() }
    });
    futures::future::join_all(writers).await;
    assert_eq!(cluster.node(1).read().await.unwrap().services().len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_the_log_is_refused_at_once() {
    let cluster = Cluster::begin(1).await;
    let error = cluster.node(1).propose(big_secret(1, MAX_ENTRY_BYTES)).await.unwrap_err();
    assert!(matches!(error, ProposeError::TooLarge { .. }), "{error}");
    assert!(!error.may_happen());
}
