//! Looking at containers: which there are, what runs in them, and with what.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use containerd_client::services::v1::{GetRequest, ListContainersRequest, ListPidsRequest};
use containerd_client::types::v1::Status;
use oci_spec::runtime::Spec;

use super::client::{SHORT, call};
use super::containers::{NAME_LABEL, SERVICE_NAME_LABEL, STARTED, TASK_LABEL, container_id};
use super::error::{Result, RuntimeError, explained};
use super::{Runtime, host};
use crate::program::Program;
use crate::spec::{TaskId, UnixMs};

const PS_WITHIN: Duration = Duration::from_secs(10);

/// A container that was made on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    pub task: TaskId,
    pub id: String,
    /// Its task's and its service's name when it was made.
    pub name: Option<String>,
    pub service_name: Option<String>,
    /// The full name its image was asked for by.
    pub image: String,
    pub created: UnixMs,
    /// Just before its first start.
    pub started: Option<UnixMs>,
    /// `None` where its specification does not read.
    pub process: Option<Running>,
}

/// What runs, or ran, as the container's first process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Running {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub dir: String,
    pub hostname: String,
    /// User and group.
    pub user: (u32, u32),
    /// Source, target and whether it may be written, of what is mounted from the host.
    pub mounts: Vec<(String, String, bool)>,
}

/// As `ps` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessTable {
    pub titles: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Runtime {
    /// The containers of tasks.
    pub async fn made(&self) -> Result<Vec<Made>> {
        let request = ListContainersRequest { filters: vec![format!("labels.\"{TASK_LABEL}\"")] };
        let found = call("listing", "containers", SHORT, self.shared.client.containers().list(request)).await?;
        let made = found.containers.into_iter().filter_map(|container| {
            let task = container.labels.get(TASK_LABEL)?.parse::<TaskId>().ok()?;
            let created = container.created_at.unwrap_or_default();
            let ms = created.seconds * 1000 + i64::from(created.nanos) / 1_000_000;
            let created = UnixMs(u64::try_from(ms).unwrap_or(0));
            let started = written(&self.task_dir(task).join(STARTED));
            let spec = container.spec.and_then(|spec| serde_json::from_slice(&spec.value).ok());
            let process = spec.as_ref().map(told);
            let mut labels = container.labels;
            let (name, service_name) = (labels.remove(NAME_LABEL), labels.remove(SERVICE_NAME_LABEL));
            let (id, image) = (container.id, container.image);
            Some(Made { task, id, name, service_name, image, created, started, process })
        });
        Ok(made.collect())
    }

    /// Of the container's first process.
    pub(super) async fn pid(&self, task: TaskId) -> Result<u32> {
        let id = container_id(task);
        let request = GetRequest { container_id: id.clone(), exec_id: String::new() };
        let process =
            match call("looking for the process of", &id, SHORT, self.shared.client.tasks().get(request)).await {
                Err(error) if error.is_not_found() => None,
                found => found?.process,
            };
        // Once it has ended, its number may become another's.
        let running = process.filter(|process| process.status == Status::Running as i32);
        let pid = running.map(|process| process.pid).filter(|pid| *pid > 0 && host::process_age(*pid).is_some());
        pid.ok_or(RuntimeError::NotRunning(task))
    }

    /// The processes of a container, as `ps ARGS...` shows them.
    pub async fn processes(&self, task: TaskId, args: &[String]) -> Result<ProcessTable> {
        let id = container_id(task);
        let request = ListPidsRequest { container_id: id.clone() };
        let listed = call("listing the processes of", &id, SHORT, self.shared.client.tasks().list_pids(request)).await;
        let pids = match listed {
            Err(error) if error.is_not_found() => return Err(RuntimeError::NotRunning(task)),
            listed => listed?.processes,
        };
        let pids: BTreeSet<u32> = pids.into_iter().map(|process| process.pid).collect();
        let (args, of) = (args.to_vec(), pids.clone());
        let ran = tokio::task::spawn_blocking(move || ps(&args, &of)).await;
        let printed = ran.unwrap_or_else(|error| Err(RuntimeError::Ps(error.to_string())))?;
        table(&printed, &pids)
    }

    /// Sends a signal by name or number to the container's first process.
    pub async fn signal_task(&self, task: TaskId, signal: i32) -> Result<()> {
        self.pid(task).await?;
        self.signal(&container_id(task), signal, false).await
    }

    /// Sets the size of a container's own terminal.
    pub async fn resize_task(&self, task: TaskId, width: u32, height: u32) -> Result<()> {
        self.resize(&container_id(task), "", width, height).await
    }
}

/// Of these processes alone, where the options go with that; they are picked from all otherwise.
fn ps(args: &[String], pids: &BTreeSet<u32>) -> Result<String> {
    let run = |args: Vec<String>| Program::new("ps", PS_WITHIN).args(args).run();
    let list = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let picked = args.iter().cloned().chain([format!("-q{list}")]).collect();
    let printed = run(picked).or_else(|_| run(args.to_vec()));
    let printed = printed.map_err(|error| RuntimeError::Ps(explained(&error)))?;
    Ok(String::from_utf8_lossy(&printed).into_owned())
}

/// When a file was last written.
fn written(path: &Path) -> Option<UnixMs> {
    let at: SystemTime = std::fs::metadata(path).ok()?.modified().ok()?;
    Some(UnixMs(u64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()?))
}

fn told(spec: &Spec) -> Running {
    let process = spec.process().clone().unwrap_or_default();
    let mounts = spec.mounts().iter().flatten().filter(|mount| mount.typ().as_deref() == Some("bind"));
    let mounts = mounts.map(|mount| {
        let read_only = mount.options().iter().flatten().any(|option| option == "ro");
        let source = mount.source().as_deref().unwrap_or(Path::new("")).display().to_string();
        (source, mount.destination().display().to_string(), !read_only)
    });
    Running {
        args: process.args().clone().unwrap_or_default(),
        env: process.env().clone().unwrap_or_default(),
        dir: process.cwd().display().to_string(),
        hostname: spec.hostname().clone().unwrap_or_default(),
        user: (process.user().uid(), process.user().gid()),
        mounts: mounts.collect(),
    }
}

/// Those rows of what `ps` printed that are of `pids`. The last column may hold blanks.
fn table(text: &str, pids: &BTreeSet<u32>) -> Result<ProcessTable> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let Some(pid) = titles.iter().position(|title| title == "PID") else {
        return Err(RuntimeError::Ps("it prints no column PID, by which the container's processes are found".into()));
    };
    let cut = |line: &str| -> Vec<String> {
        let mut rest = line.trim_start();
        let mut row = Vec::with_capacity(titles.len());
        while row.len() + 1 < titles.len() {
            let (word, more) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            row.push(word.to_owned());
            rest = more.trim_start();
        }
        row.push(rest.trim_end().to_owned());
        row
    };
    let of_container =
        |row: &Vec<String>| row.get(pid).and_then(|pid| pid.parse().ok()).is_some_and(|pid| pids.contains(&pid));
    let rows = lines.map(cut).filter(of_container).collect();
    Ok(ProcessTable { titles, rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_processes_those_of_the_container_are_shown_with_their_whole_command() {
        let ps = "UID        PID  PPID CMD\nroot         1     0 /sbin/init\nnobody      77     1 sh -c  echo  hi\n";
        let table = table(ps, &[77, 78].into()).unwrap();
        assert_eq!(table.titles, ["UID", "PID", "PPID", "CMD"]);
        assert_eq!(table.rows, [["nobody", "77", "1", "sh -c  echo  hi"]]);
    }

    #[test]
    fn without_pids_nothing_can_be_told_apart() {
        assert!(super::table("CMD\ninit\n", &BTreeSet::new()).unwrap_err().to_string().contains("PID"));
    }
}
