//! Commands in containers: made, started with their streams, looked at.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::Docker;
use super::containers::life::Size;
use super::containers::{Here, find, show};
use super::hijack::{Hijack, Streams};
use crate::api::journal::Journal;
use crate::api::query::Query;
use crate::api::{ApiError, Backend, ExecCommand, TerminalSize};

/// How soon the end of a command is told.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A `null` is what is not said.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecConfig {
    attach_stdin: Option<bool>,
    attach_stdout: Option<bool>,
    attach_stderr: Option<bool>,
    #[serde(rename = "TTY")]
    tty: Option<bool>,
    env: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    privileged: Option<bool>,
    user: Option<String>,
    working_dir: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecStart {
    detach: Option<bool>,
    console_size: Option<[u32; 2]>,
}

pub async fn create<B: Backend>(
    State(backend): State<Arc<B>>,
    Extension(journal): Extension<Journal>,
    Here(container): Here,
    Docker(config): Docker<Option<ExecConfig>>,
) -> Result<Response, ApiError> {
    let config = config.unwrap_or_default();
    let command = config.cmd.unwrap_or_default();
    if command.is_empty() {
        return Err(ApiError::invalid("No exec command specified"));
    }
    if show::state(&container) != "running" {
        return Err(ApiError::Conflict(format!("container {} is not running", container.id)));
    }
    let words = command.join(" ");
    let id = backend.exec_create(
        container.task.task,
        ExecCommand {
            command,
            env: config.env.unwrap_or_default(),
            dir: config.working_dir,
            user: config.user,
            tty: config.tty.unwrap_or(false),
            privileged: config.privileged.unwrap_or(false),
            stdin: config.attach_stdin.unwrap_or(false),
            stdout: config.attach_stdout.unwrap_or(false),
            stderr: config.attach_stderr.unwrap_or(false),
        },
    )?;
    journal.container(&container, &format!("exec_create: {words}"), &[("execID", id.clone())], backend.now());
    Ok((StatusCode::CREATED, Json(json!({"Id": id}))).into_response())
}

pub async fn start<B: Backend>(
    State(backend): State<Arc<B>>,
    Extension(journal): Extension<Journal>,
    Path(id): Path<String>,
    hijack: Hijack,
    Docker(how): Docker<Option<ExecStart>>,
) -> Result<Response, ApiError> {
    let how = how.unwrap_or_default();
    let raw = backend.exec_inspect(&id)?.command.tty;
    if how.detach.unwrap_or(false) {
        backend.exec_start(&id, true).await?;
        tell_of(&backend, &journal, &id).await;
        return Ok(StatusCode::OK.into_response());
    }
    let begin = async move {
        let streams = backend.exec_start(&id, false).await?;
        tell_of(&backend, &journal, &id).await;
        if let Some([height, width]) = how.console_size
            && streams.tty
        {
            // The terminal is there without it.
            let _ = backend.exec_resize(&id, TerminalSize { width, height }).await;
        }
        Ok(Streams { input: streams.input, output: streams.output, raw: streams.tty })
    };
    // A client may lose what comes together with the answer's head: nothing is printed before that is sent.
    match hijack.is_asked_for() {
        true => Ok(hijack.carry_what_begins(raw, begin)),
        false => Ok(hijack.carry(begin.await?)),
    }
}

/// Tells of its start now, and of its end then.
async fn tell_of<B: Backend>(backend: &Arc<B>, journal: &Journal, id: &str) {
    let Ok(exec) = backend.exec_inspect(id) else { return };
    let Ok(container) = find::on_this_node(&**backend, &exec.container).await else { return };
    let action = format!("exec_start: {}", exec.command.command.join(" "));
    let id = id.to_owned();
    journal.container(&container, &action, &[("execID", id.clone())], backend.now());
    let (backend, journal) = (Arc::clone(backend), journal.clone());
    tokio::spawn(async move {
        // It ends, or is forgotten.
        while let Ok(exec) = backend.exec_inspect(&id) {
            if let Some(code) = exec.exit_code {
                let more = [("execID", id), ("exitCode", code.to_string())];
                return journal.container(&container, "exec_die", &more, backend.now());
            }
            sleep(LOOK_EVERY).await;
        }
    });
}

pub async fn resize<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(id): Path<String>,
    Query(size): Query<Size>,
) -> Result<StatusCode, ApiError> {
    backend.exec_resize(&id, size.into()).await.map(|()| StatusCode::OK)
}

pub async fn inspect<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let found = backend.exec_inspect(&id)?;
    let command = &found.command;
    Ok(Json(json!({
        "ID": id,
        "Running": found.running,
        "ExitCode": found.exit_code,
        "ProcessConfig": {
            "tty": command.tty,
            "entrypoint": command.command.first().cloned().unwrap_or_default(),
            "arguments": command.command.iter().skip(1).collect::<Vec<_>>(),
            "privileged": command.privileged,
            "user": command.user.clone().unwrap_or_default(),
        },
        "OpenStdin": command.stdin,
        "OpenStdout": command.stdout,
        "OpenStderr": command.stderr,
        "CanRemove": found.exit_code.is_some(),
        "ContainerID": found.container,
        "DetachKeys": "",
        "Pid": found.pid,
    })))
}
