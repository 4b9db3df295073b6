//! Writes a second through the replicated log on this machine's disk, beside bare fdatasync of the same run.
//!
//! `cargo bench --bench raft` for figures, `cargo bench --bench raft -- --short` to see that it runs. The nodes share this
//! process and this disk; messages between them cost nothing, so what is measured is raft, the store and the state.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use flok::consensus::{
    Config, Consensus, Courier, First, Lane, LogIdentity, LogStore, NoAnswer, SealingKey, new_swarm,
};
use flok::spec::{ClientId, NodeId, SwarmId, UnixMs};
use flok::state::Command;
use futures::FutureExt;
use futures::future::BoxFuture;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::Instant;

#[derive(Default)]
struct Wires(Mutex<BTreeMap<NodeId, Consensus>>);

impl Wires {
    fn end(&self, node: NodeId) -> Option<Consensus> {
        self.0.lock().expect("no holder panics").get(&node).cloned()
    }
}

struct Wire(NodeId, Weak<Wires>);

impl Courier for Wire {
    fn send(&self, to: NodeId, message: Bytes) {
        if let Some(end) = self.1.upgrade().and_then(|wires| wires.end(to)) {
            end.receive(self.0, message);
        }
    }

    fn request(&self, to: NodeId, _: Lane, request: Bytes, _: Duration) -> BoxFuture<'static, Result<Bytes, NoAnswer>> {
        let (own, wires) = (self.0, self.1.clone());
        async move {
            match wires.upgrade().and_then(|wires| wires.end(to)) {
                Some(end) => Ok(end.serve(own, request).await),
                None => Err(NoAnswer { node: to, why: "not started".into() }),
            }
        }
        .boxed()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let short = std::env::args().any(|argument| argument == "--short");
    let writes = if short { 50 } else { 2000 };
    let folder = tempfile::tempdir_in(".")?;
    println!("bare: append of 256 bytes + fdatasync: {}", bare(folder.path(), writes)?);
    let runtime = tokio::runtime::Runtime::new()?;
    for nodes in [1, 3] {
        runtime.block_on(async {
            let wires = Arc::new(Wires::default());
            let all = swarm(&folder.path().join(nodes.to_string()), nodes, &wires).await?;
            for clients in [1, 16, 256] {
                println!("{nodes} nodes, {clients} clients: {}", proposals(&all, clients, writes).await?);
            }
            for node in &all {
                node.shutdown().await;
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
    }
    Ok(())
}

fn bare(folder: &std::path::Path, writes: usize) -> std::io::Result<String> {
    let mut file = std::fs::File::create(folder.join("bare"))?;
    let mut each = Vec::with_capacity(writes);
    for _ in 0..writes {
        let started = Instant::now();
        file.write_all(&[7; 256])?;
        file.sync_data()?;
        each.push(started.elapsed());
    }
    let total = each.iter().sum();
    Ok(figures(each, total))
}

async fn swarm(
    folder: &std::path::Path,
    nodes: u64,
    wires: &Arc<Wires>,
) -> Result<Vec<Consensus>, Box<dyn std::error::Error>> {
    std::fs::create_dir(folder)?;
    let mut all = Vec::new();
    for raft_id in 1..=nodes {
        let node = NodeId(u128::from(raft_id));
        let identity = LogIdentity { swarm: SwarmId(1), node, raft_id };
        // Members of the first configuration rather than joiners: the state is left empty, and Noops need none.
        let First::Snapshot { mut meta, data, hard_state } = new_swarm() else {
            unreachable!("it starts by a snapshot")
        };
        meta.mut_conf_state().set_voters((1..=nodes).collect());
        let first = First::Snapshot { meta, data, hard_state };
        let rng = Box::new(StdRng::seed_from_u64(raft_id));
        let store =
            LogStore::create(&folder.join(format!("{raft_id}.redb")), &SealingKey::new([7; 32]), identity, first, rng)?;
        let config = Config {
            peers: (1..=nodes).map(|id| (id, NodeId(u128::from(id)))).collect(),
            client: ClientId(u128::from(raft_id)),
            seed: raft_id,
            now: || UnixMs(0),
        };
        let consensus = Consensus::start(store, config, Arc::new(Wire(node, Arc::downgrade(wires))))?;
        wires.0.lock().expect("no holder panics").insert(node, consensus.clone());
        all.push(consensus);
    }
    Ok(all)
}

async fn proposals(nodes: &[Consensus], clients: usize, writes: usize) -> Result<String, Box<dyn std::error::Error>> {
    nodes[0].propose(Command::Noop).await?.map_err(|refusal| refusal.to_string())?;
    let started = Instant::now();
    let tasks = (0..clients).map(|client| {
        let node = nodes[client % nodes.len()].clone();
        tokio::spawn(async move {
            let mut each = Vec::new();
            for _ in 0..writes.div_ceil(clients.min(16)) {
                let started = Instant::now();
                node.propose(Command::Noop).await.expect("the swarm has a quorum").expect("a Noop is accepted");
                each.push(started.elapsed());
            }
            each
        })
    });
    let mut each = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        each.extend(task.await?);
    }
    Ok(figures(each, started.elapsed()))
}

fn figures(mut each: Vec<Duration>, total: Duration) -> String {
    each.sort_unstable();
    let at = |share: usize| each[(each.len() - 1) * share / 100];
    let rate = each.len() as f64 / total.as_secs_f64();
    format!("{rate:.0}/s, p50 {:.2?}, p99 {:.2?}", at(50), at(99))
}
