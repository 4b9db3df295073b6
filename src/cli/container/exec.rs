//! `flok exec`.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use bollard::query_parameters::ResizeExecOptions;
use clap::Args;
use futures::StreamExt;
use tokio::io::AsyncWriteExt;

use super::{find, terminal};
use crate::api::client::Client;
use crate::cli::service::environment::{environment, shell, variable};

/// A command may run for long before it prints.
pub(super) const WITHIN: Duration = Duration::from_secs(24 * 3600);

/// Run a command in a task's container, wherever it runs
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok exec web.1 cat /etc/hosts
  flok exec -it db sh
  flok exec --user postgres --env LANG=C db.1 psql -c 'select 1'
  echo hello | flok exec -i web tee /tmp/hello

A service's name means one of its running tasks, this node's first. The exit code is the command's.")]
pub struct Exec {
    /// Hand standard input to the command
    #[arg(long, short)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(long, short)]
    tty: bool,
    /// Do not wait for the command's end
    #[arg(long, short)]
    detach: bool,
    /// Set a variable; a KEY alone takes the shell's value; repeat it
    #[arg(long, short, value_name = "KEY[=VALUE]", value_parser = variable)]
    env: Vec<String>,
    /// File with variables, one on each line; repeat it
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// As this user
    #[arg(long, short, value_name = "NAME|UID[:GROUP|GID]")]
    user: Option<String>,
    /// In this directory
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// With every capability
    #[arg(long)]
    privileged: bool,
    /// Task, container or service
    #[arg(value_name = "TASK")]
    name: String,
    /// What to run
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    pub async fn run(self, client: &Client) -> anyhow::Result<ExitCode> {
        if self.tty && self.interactive && !std::io::stdin().is_terminal() {
            anyhow::bail!("standard input is no terminal: leave --tty out");
        }
        let env = environment(&self.env_file, self.env, shell)?;
        let container = find(client, &self.name).await?;
        let docker = client.patient(WITHIN);
        let config = ExecConfig {
            attach_stdin: Some(self.interactive && !self.detach),
            attach_stdout: Some(!self.detach),
            attach_stderr: Some(!self.detach),
            tty: Some(self.tty),
            env: Some(env),
            user: self.user,
            working_dir: self.workdir,
            privileged: Some(self.privileged),
            cmd: Some(self.command),
            ..ExecConfig::default()
        };
        let made = docker.create_exec(&container, config).await.map_err(|error| client.explain(error))?;
        let how = StartExecOptions { detach: self.detach, tty: self.tty, output_capacity: None };
        let started = docker.start_exec(&made.id, Some(how)).await.map_err(|error| client.explain(error))?;
        let StartExecResults::Attached { mut output, mut input } = started else { return Ok(ExitCode::SUCCESS) };
        let raw = (self.tty && self.interactive).then(terminal::Raw::enter).flatten();
        let following = self.tty.then(|| {
            let (docker, exec) = (docker.clone(), made.id.clone());
            tokio::spawn(terminal::follow_size(move |width, height| {
                let (docker, exec) = (docker.clone(), exec.clone());
                let size = ResizeExecOptions { w: width.into(), h: height.into() };
                // It may have ended meanwhile.
                async move { drop(docker.resize_exec(&exec, size).await) }
            }))
        });
        let feeding = tokio::spawn(async move {
            if self.interactive {
                // The command may have ended before it read all.
                let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut input).await;
                let _ = input.shutdown().await;
            }
            // Kept, or the connection would end with it.
            std::future::pending::<()>().await;
        });
        while let Some(piece) = output.next().await {
            show(piece.map_err(|error| client.explain(error)).context("the command's output broke off")?)?;
        }
        feeding.abort();
        if let Some(following) = following {
            following.abort();
        }
        drop(raw);
        let ended = docker.inspect_exec(&made.id).await.map_err(|error| client.explain(error))?;
        Ok(ExitCode::from(u8::try_from(ended.exit_code.unwrap_or(0)).unwrap_or(u8::MAX)))
    }
}

pub(super) fn show(piece: LogOutput) -> anyhow::Result<()> {
    match piece {
        LogOutput::StdErr { message } => {
            std::io::stderr().write_all(&message)?;
        }
        LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => {
            let mut out = std::io::stdout().lock();
            out.write_all(&message)?;
            out.flush()?;
        }
    }
    Ok(())
}
