//! Carries plans out through `nft`: one process for as many changes as have come in meanwhile, one transaction each.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::NetworkError;
use super::plan::{Plan, TaskRules, table_script};
use super::pool::Subnet;
use crate::spec::TaskId;

const NFT_TIMEOUT: Duration = Duration::from_secs(10);
const QUEUE: usize = 1024;

/// The table `inet flok`. Dropping it leaves the kernel's table in force.
#[derive(Clone)]
pub struct Firewall {
    changes: mpsc::Sender<Change>,
}

struct Change {
    task: TaskId,
    /// `None`: the task goes.
    rules: Option<TaskRules>,
    done: oneshot::Sender<Result<(), NetworkError>>,
}

impl Firewall {
    /// Makes the table anew with the rules of `tasks`, in one transaction.
    pub async fn start(subnet: Subnet, tasks: BTreeMap<TaskId, TaskRules>) -> Result<Firewall, NetworkError> {
        let plan = Plan::new(tasks.values());
        run_nft(&(table_script(subnet) + &plan.script_from(&Plan::default()))).await?;
        let (changes, queue) = mpsc::channel(QUEUE);
        tokio::spawn(carry_out(queue, tasks, plan));
        Ok(Firewall { changes })
    }

    /// Returns once the kernel has the change.
    pub async fn set(&self, task: TaskId, rules: Option<TaskRules>) -> Result<(), NetworkError> {
        let (done, answer) = oneshot::channel();
        self.changes.send(Change { task, rules, done }).await.map_err(|_| NetworkError::Stopped)?;
        answer.await.unwrap_or(Err(NetworkError::Stopped))
    }
}

async fn carry_out(mut queue: mpsc::Receiver<Change>, mut tasks: BTreeMap<TaskId, TaskRules>, mut plan: Plan) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, QUEUE).await > 0 {
        let together = with_changes(&tasks, &batch);
        if switch(&mut tasks, &mut plan, together).await.is_ok() {
            batch.drain(..).for_each(|change| drop(change.done.send(Ok(()))));
            continue;
        }
        // One of them is at fault: each alone, so that it fails alone.
        for change in batch.drain(..) {
            let alone = with_changes(&tasks, std::slice::from_ref(&change));
            let result = switch(&mut tasks, &mut plan, alone).await;
            let _ = change.done.send(result);
        }
    }
}

fn with_changes(tasks: &BTreeMap<TaskId, TaskRules>, changes: &[Change]) -> BTreeMap<TaskId, TaskRules> {
    let mut tasks = tasks.clone();
    for change in changes {
        match &change.rules {
            Some(rules) => tasks.insert(change.task, rules.clone()),
            None => tasks.remove(&change.task),
        };
    }
    tasks
}

async fn switch(
    tasks: &mut BTreeMap<TaskId, TaskRules>,
    plan: &mut Plan,
    wanted: BTreeMap<TaskId, TaskRules>,
) -> Result<(), NetworkError> {
    let next = Plan::new(wanted.values());
    let script = next.script_from(plan);
    if !script.is_empty() {
        run_nft(&script).await?;
    }
    *tasks = wanted;
    *plan = next;
    Ok(())
}

async fn run_nft(script: &str) -> Result<(), NetworkError> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(NetworkError::NftMissing)?;
    let mut stdin = nft.stdin.take().expect("stdin is piped");
    let run = async {
        stdin.write_all(script.as_bytes()).await?;
        drop(stdin);
        nft.wait_with_output().await
    };
    match timeout(NFT_TIMEOUT, run).await {
        Err(_) => Err(NetworkError::NftTimeout(NFT_TIMEOUT.as_secs())),
        Ok(Err(source)) => Err(NetworkError::NftMissing(source)),
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(NetworkError::Nft(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}
