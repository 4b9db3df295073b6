//! Health checks' hands: one probe run in a container, and what is kept of a check in its task's directory for the next
//! daemon. When and what is the agent's to say.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::error::{Result, RuntimeError, explained};
use super::{Exec, ImageInfo, Runtime};
use crate::agent::{Check, FoundHealth, MAX_PROBE_OUTPUT_BYTES, NotedHealth, PROBE_NOT_RUN, ProbeResult};
use crate::spec::{ContainerSpec, TaskId};

/// The check of a container, and what came of it; both are gone with the task.
const CHECK: &str = "health-check.json";
const NOTED: &str = "health.json";
/// Between two attempts at a probe while containerd is away.
const AWAY: Duration = Duration::from_millis(250);

impl Runtime {
    /// Runs a probe. Whatever keeps it from ending in time is a failure of the probe; a containerd that is away is waited for as
    /// long as the probe has time.
    pub async fn probe(&self, task: TaskId, command: Vec<String>, within: Duration) -> ProbeResult {
        let exec = Exec { command, ..Exec::default() };
        let until = Instant::now() + within;
        let mut ended = self.exec(task, &exec, within).await;
        while let Err(error) = &ended
            && error.is_no_answer()
            && Instant::now() + AWAY < until
        {
            sleep(AWAY).await;
            ended = self.exec(task, &exec, within).await;
        }
        match ended {
            Ok(mut output) => {
                output.stdout.append(&mut output.stderr);
                ProbeResult { exit_code: output.exit_code, output: shortened(output.stdout) }
            }
            Err(RuntimeError::Timeout { .. }) => {
                let output = format!("health check exceeded its timeout of {} s", within.as_secs_f64());
                ProbeResult { exit_code: PROBE_NOT_RUN, output }
            }
            Err(error) => ProbeResult { exit_code: PROBE_NOT_RUN, output: shortened(explained(&error).into_bytes()) },
        }
    }

    /// Keeps what is known of a task's health.
    pub fn note_health(&self, task: TaskId, noted: &NotedHealth) -> Result<()> {
        write(self.task_dir(task).join(NOTED), noted)
    }

    /// The check of a container that is being made, kept beside it.
    pub(super) fn make_check(
        &self,
        task: TaskId,
        container: &ContainerSpec,
        image: &ImageInfo,
    ) -> Result<Option<Check>> {
        let own = container.healthcheck.as_ref();
        let check = Check::of(own, image.health.check.as_ref(), &image.health.shell);
        if let Some(check) = &check {
            write(self.task_dir(task).join(CHECK), check)?;
        }
        Ok(check)
    }

    /// A new process has no health yet.
    pub(super) fn forget_health(&self, task: TaskId) {
        let _ = fs::remove_file(self.task_dir(task).join(NOTED));
    }

    pub(super) fn found_health(&self, task: TaskId) -> Option<FoundHealth> {
        let dir = self.task_dir(task);
        Some(FoundHealth { check: read(dir.join(CHECK))?, noted: read(dir.join(NOTED)) })
    }
}

/// Replaced as a whole: a daemon that dies while it writes leaves the old one.
fn write(path: PathBuf, value: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(value).expect("it is plain data");
    let new = path.with_extension("new");
    fs::write(&new, bytes).and_then(|()| fs::rename(&new, &path)).map_err(RuntimeError::io("writing", &path))
}

fn read<T: DeserializeOwned>(path: PathBuf) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn shortened(mut output: Vec<u8>) -> String {
    let cut = output.len() > MAX_PROBE_OUTPUT_BYTES;
    output.truncate(MAX_PROBE_OUTPUT_BYTES);
    let text = String::from_utf8_lossy(&output);
    if cut { format!("{text}...") } else { text.into_owned() }
}
