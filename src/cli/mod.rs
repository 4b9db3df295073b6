//! The `flok` command: one folder for each noun, one file for each verb. A verb asks the daemon over its socket, prints,
//! and ends within a bound; only `daemon` is the daemon itself.

#![allow(rustdoc::broken_intra_doc_links, reason = "these comments are the help texts: IP[:PORT] is no link")]

mod completion;
mod conditions;
mod container;
mod daemon;
mod examples;
mod fields;
mod image;
mod list;
mod man;
mod network;
mod node;
mod output;
mod pinning;
mod registry_auth;
mod removal;
mod retry;
mod secret;
mod service;
mod stack;
mod swarm;
mod system;
mod tasks;
mod tips;
mod volume;
mod waiting;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::api::client::{Client, ClientError, DEFAULT_HOST};
use crate::node::HandedOver;

#[derive(Debug, Parser)]
#[command(name = "flok", version, about = "A swarm orchestrator without a shepherd", max_term_width = 110)]
#[command(after_help = "\
Examples:
  flok daemon &                          run a node
  flok swarm init                        begin a swarm with it
  flok swarm join --token T HOST:2377    join one
  flok stack deploy -c stack.yml shop    run a stack
  flok stack ps shop                     see where its tasks run

`docker -H unix:///run/flok/flok.sock` speaks to a daemon, too.")]
pub struct Cli {
    /// Socket of the daemon
    #[arg(long, short = 'H', global = true, env = "FLOK_HOST", default_value = DEFAULT_HOST, value_name = "unix://PATH")]
    host: String,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// Run a node
    Daemon(Box<daemon::Daemon>),
    /// Begin, join, leave and look at a swarm
    #[command(subcommand)]
    Swarm(swarm::Swarm),
    /// Manage the nodes of the swarm
    #[command(subcommand)]
    Node(node::Node),
    /// Manage services
    #[command(subcommand)]
    Service(service::Service),
    /// Deploy and manage stacks
    #[command(subcommand)]
    Stack(stack::Stack),
    /// Manage secrets: data that only the tasks of services see
    #[command(subcommand)]
    Secret(secret::Verb),
    /// Manage configs: files for the tasks of services
    #[command(subcommand)]
    Config(secret::Verb),
    /// Manage networks
    #[command(subcommand)]
    Network(network::Network),
    /// Manage the volumes of this node
    #[command(subcommand)]
    Volume(volume::Volume),
    /// Manage the images of this node
    #[command(subcommand)]
    Image(image::Image),
    /// Show the logs of a service's tasks, or of one task
    Logs(service::Logs),
    Exec(container::exec::Exec),
    Attach(container::attach::Attach),
    Cp(container::copy::Copy),
    Top(container::top::Top),
    Stats(container::stats::Stats),
    PortForward(container::forward::PortForward),
    Events(system::Events),
    /// Show what this node is
    Info(system::Info),
    /// Show the versions of client and daemon
    Version(system::Version),
    Completion(completion::Completion),
    #[command(hide = true)]
    Man(man::Man),
}

/// For what still runs when a command has ended.
const SHUTDOWN: std::time::Duration = std::time::Duration::from_secs(1);

/// The whole grammar, with what help shows.
fn command() -> Command {
    examples::with_examples(arguments_apart(Cli::command()))
}

/// What stands without a flag has a heading of its own, not that of the options declared before it. A negative number is
/// an option's value, which is then refused for what it is.
fn arguments_apart(command: Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let apart = |arg: clap::Arg| match arg.is_positional() {
        true => arg.help_heading(None::<&str>),
        false if arg.get_action().takes_values() => arg.allow_negative_numbers(true),
        false => arg,
    };
    names.iter().fold(command.mut_args(apart), |command, name| command.mut_subcommand(name, arguments_apart))
}

/// Runs the command line; usage errors end with code 2, all others with 1.
pub fn run() -> ExitCode {
    completion::answer(command);
    let words: Vec<OsString> = std::env::args_os().collect();
    let mut command = command();
    let matches = command.try_get_matches_from_mut(&words);
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => tips::with_tip(error, &command, &words).exit(),
    };
    // With the runtime come threads.
    let handed = matches!(cli.noun, Noun::Daemon(_)).then(HandedOver::take);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    let ended = runtime.block_on(cli.execute(handed));
    // Work on threads that nobody waits for any more must not hold up the end.
    runtime.shutdown_timeout(SHUTDOWN);
    match ended {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) if error.is::<Usage>() => {
            fail(&error);
            ExitCode::from(USAGE)
        }
        Err(error) => fail(&error),
    }
}

/// What clap ends with, too.
const USAGE: u8 = 2;

/// Flags that do not go together, found before anything was asked of the daemon.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

impl Usage {
    /// Of an error that only the command line can have caused.
    fn of(error: impl std::fmt::Display) -> anyhow::Error {
        Usage(error.to_string()).into()
    }
}

/// `--host` is the daemon's, everywhere; Docker's `--host` of a container's names is another flag.
fn wrong_host(host: &str, error: &ClientError) -> anyhow::Error {
    let is_name = host.contains(':') && !host.contains("://");
    let hint =
        if is_name { "; a name with a fixed address in containers is --add-host, of an update --host-add" } else { "" };
    Usage::of(format!("--host: {error}{hint}"))
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("Error: {error:#}");
    ExitCode::FAILURE
}

/// Whoever read our output has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind =
        |cause: &(dyn std::error::Error + 'static)| cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    error.chain().any(|cause| kind(cause) == Some(std::io::ErrorKind::BrokenPipe))
}

impl Cli {
    async fn execute(self, handed: Option<HandedOver>) -> anyhow::Result<ExitCode> {
        match self.noun {
            Noun::Daemon(daemon) => {
                let handed = handed.expect("it was taken for this command");
                return daemon.run(handed).await.map(|()| ExitCode::SUCCESS);
            }
            Noun::Completion(verb) => return verb.run().map(|()| ExitCode::SUCCESS),
            Noun::Man(verb) => return verb.run(command()).map(|()| ExitCode::SUCCESS),
            _ => {}
        }
        let client = Client::new(&self.host).map_err(|error| wrong_host(&self.host, &error))?;
        let ended = self.noun.run(&client).await;
        if let Some(stale) = client.take_stale() {
            eprintln!("Warning: no quorum confirmed this answer ({stale})");
        }
        ended
    }
}

impl Noun {
    async fn run(self, client: &Client) -> anyhow::Result<ExitCode> {
        let done = match self {
            Noun::Stack(stack) => return stack.run(client).await,
            Noun::Exec(exec) => return exec.run(client).await,
            Noun::Attach(attach) => return attach.run(client).await,
            Noun::Daemon(_) | Noun::Completion(_) | Noun::Man(_) => unreachable!("they run without a client"),
            Noun::Swarm(swarm) => swarm.run(client).await,
            Noun::Node(node) => node.run(client).await,
            Noun::Service(service) => service.run(client).await,
            Noun::Secret(verb) => verb.run(secret::Kind::Secret, client).await,
            Noun::Config(verb) => verb.run(secret::Kind::Config, client).await,
            Noun::Network(network) => network.run(client).await,
            Noun::Volume(volume) => volume.run(client).await,
            Noun::Image(image) => image.run(client).await,
            Noun::Logs(logs) => logs.run(client).await,
            Noun::Cp(copy) => copy.run(client).await,
            Noun::Top(top) => top.run(client).await,
            Noun::Stats(stats) => stats.run(client).await,
            Noun::PortForward(forward) => forward.run(client).await,
            Noun::Events(events) => events.run(client).await,
            Noun::Info(info) => info.run(client).await,
            Noun::Version(version) => version.run(client).await,
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}

/// Each of `items` in turn; what fails is told, the others go on, and the first error is the command's.
async fn each<T>(items: Vec<T>, mut act: impl AsyncFnMut(T) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut failed: Option<anyhow::Error> = None;
    for item in items {
        let Err(error) = act(item).await else { continue };
        if let Some(earlier) = failed.replace(error) {
            eprintln!("Error: {earlier:#}");
        }
    }
    failed.map_or(Ok(()), Err)
}

/// `KEY=VALUE`, or `KEY` for an empty value.
fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() { Err("there is no name before the =".into()) } else { Ok((key.into(), value.into())) }
}

#[cfg(test)]
mod tests;
