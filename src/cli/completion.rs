//! What a shell is told when TAB is pressed: verbs and options from the grammar, and the names that the daemon has now.
//!
//! The script of `flok completion` runs flok with [`VARIABLE`] set to the shell's name for each answer. A daemon that is not
//! there, or slow, means no names: whoever types is never held up for longer than [`PATIENCE`], and shown no error.

use std::ffi::OsStr;
use std::time::Duration;

use bollard::query_parameters::{
    ListImagesOptions, ListNetworksOptions, ListNodesOptions, ListServicesOptions, ListVolumesOptions,
};
use clap::{Arg, Args, Command};
use clap_complete::engine::ValueCompleter;
use clap_complete::env::Shells;
use clap_complete::{ArgValueCompleter, CompleteEnv, CompletionCandidate, PathCompleter, Shell};

use super::output::print;
use super::service::is_scheduled;
use super::{node, secret, stack, tasks};
use crate::api::client::{Client, DEFAULT_HOST};

const VARIABLE: &str = "FLOK_COMPLETE";
/// For the daemon's list.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Print the completion of commands, options and names for a shell
#[derive(Debug, Args)]
pub struct Completion {
    /// Shell to complete in
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completion {
    pub fn run(self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        let shells = Shells::builtins();
        let completer = shells.completer(&self.shell.to_string()).expect("both know the same shells");
        completer.write_registration(VARIABLE, "flok", "flok", "flok", &mut script)?;
        print(&String::from_utf8(script)?)
    }
}

/// Answers the shell and ends the process, where it is a shell that asks.
pub fn answer(command: fn() -> Command) {
    CompleteEnv::with_factory(|| with_names(command(), &[])).var(VARIABLE).complete();
}

/// What a name may be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Service,
    /// With a schedule.
    Scheduled,
    /// What is behind the name is typed by hand.
    Replicas,
    Task,
    /// Of a task, or of this machine.
    Path,
    ServiceOrTask,
    Node,
    Stack,
    Network,
    Volume,
    Image,
    Secret,
    Config,
}

/// Every argument whose value is a name gets the names that there are.
fn with_names(command: Command, path: &[&str]) -> Command {
    let below: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    let command = below.iter().fold(command, |command, name| {
        let path = [path, &[name]].concat();
        command.mut_subcommand(name, |below| with_names(below, &path))
    });
    command.mut_args(|arg| match named(&arg, path) {
        Some(named) => arg.add(ArgValueCompleter::new(move |typed: &OsStr| candidates(named, typed))),
        None => arg,
    })
}

/// By the value's name in the help; `NAME` is of the noun, but for what a verb makes.
fn named(arg: &Arg, path: &[&str]) -> Option<Named> {
    let value = arg.get_value_names()?.first()?.as_str();
    match (value, path) {
        ("NAME", _) if arg.get_id() == "secret_rm" => Some(Named::Secret),
        ("NAME", _) if arg.get_id() == "config_rm" => Some(Named::Config),
        (_, [.., "create"]) if arg.is_positional() => None,
        ("SERVICE", ["service", "run" | "runs"]) => Some(Named::Scheduled),
        ("SERVICE", _) => Some(Named::Service),
        ("SERVICE=REPLICAS", _) => Some(Named::Replicas),
        ("FROM" | "TO", ["cp"]) => Some(Named::Path),
        ("SECRET", _) => Some(Named::Secret),
        ("CONFIG", _) => Some(Named::Config),
        ("SERVICE|TASK", _) => Some(Named::ServiceOrTask),
        ("TASK" | "TASK_A" | "TASK_B", _) => Some(Named::Task),
        ("NODE", _) => Some(Named::Node),
        ("NETWORK", _) => Some(Named::Network),
        ("VOLUME", _) => Some(Named::Volume),
        ("IMAGE", ["image", "rm" | "inspect" | "tag" | "ls"]) => Some(Named::Image),
        ("NAME", ["stack", ..]) => Some(Named::Stack),
        ("NAME", ["secret", ..]) => Some(Named::Secret),
        ("NAME", ["config", ..]) => Some(Named::Config),
        _ => None,
    }
}

fn candidates(named: Named, typed: &OsStr) -> Vec<CompletionCandidate> {
    let paths = if named == Named::Path { PathCompleter::any().complete(typed) } else { Vec::new() };
    let typed = typed.to_string_lossy();
    let mut names = ask(named).unwrap_or_default();
    names.retain(|name| name.starts_with(&*typed));
    names.sort();
    names.dedup();
    names.into_iter().map(CompletionCandidate::new).chain(paths).collect()
}

fn ask(named: Named) -> anyhow::Result<Vec<String>> {
    let words: Vec<String> = std::env::args().collect();
    let host = given_host(&words).map(str::to_owned).or_else(|| std::env::var("FLOK_HOST").ok());
    let client = Client::new(host.as_deref().unwrap_or(DEFAULT_HOST))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(PATIENCE, names(named, &client)).await? })
}

/// `-H` of the line that is completed: its grammar is not read yet while it is being typed.
fn given_host(words: &[String]) -> Option<&str> {
    let after = |flag: &str| {
        let at = words.iter().position(|word| word == flag)?;
        words.get(at + 1).map(String::as_str)
    };
    let joined = words.iter().find_map(|word| word.strip_prefix("--host="));
    joined.or_else(|| after("-H")).or_else(|| after("--host"))
}

async fn names(named: Named, client: &Client) -> anyhow::Result<Vec<String>> {
    let docker = client.docker();
    Ok(match named {
        Named::Service => {
            let services = docker.list_services(None::<ListServicesOptions>).await?;
            services.iter().map(tasks::service_name).collect()
        }
        Named::Scheduled => {
            let services = docker.list_services(None::<ListServicesOptions>).await?;
            services.iter().filter(|service| is_scheduled(service)).map(tasks::service_name).collect()
        }
        Named::Replicas => {
            let services = Box::pin(names(Named::Service, client)).await?;
            services.into_iter().map(|service| format!("{service}=")).collect()
        }
        Named::Task => tasks::running_names(client).await?,
        Named::Path => tasks::running_names(client).await?.into_iter().map(|task| format!("{task}:")).collect(),
        Named::ServiceOrTask => {
            let (services, tasks) =
                (Box::pin(names(Named::Service, client)).await?, tasks::running_names(client).await?);
            services.into_iter().chain(tasks).collect()
        }
        Named::Node => {
            let nodes = docker.list_nodes(None::<ListNodesOptions>).await?;
            nodes.iter().map(node::display_name).collect()
        }
        Named::Stack => stack::names(client).await?,
        Named::Network => {
            let networks = docker.list_networks(None::<ListNetworksOptions>).await?;
            networks.into_iter().filter_map(|network| network.name).collect()
        }
        Named::Volume => {
            let volumes = docker.list_volumes(None::<ListVolumesOptions>).await?;
            volumes.volumes.unwrap_or_default().into_iter().map(|volume| volume.name).collect()
        }
        Named::Image => {
            let images = docker.list_images(None::<ListImagesOptions>).await?;
            images.into_iter().flat_map(|image| image.repo_tags).collect()
        }
        Named::Secret => secret_names(secret::Kind::Secret, client).await?,
        Named::Config => secret_names(secret::Kind::Config, client).await?,
    })
}

async fn secret_names(kind: secret::Kind, client: &Client) -> anyhow::Result<Vec<String>> {
    let objects = kind.list(client, Default::default()).await?;
    Ok(objects.into_iter().map(|object| object.name).collect())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn kind_at(path: &[&str], value: &str) -> Option<Named> {
        let mut command = Cli::command();
        for word in path {
            command = command.find_subcommand(word).unwrap_or_else(|| panic!("there is no {path:?}")).clone();
        }
        let names_it = |arg: &&Arg| arg.get_value_names().is_some_and(|names| names[0] == value);
        let arg = command.get_arguments().find(names_it).unwrap_or_else(|| panic!("{path:?} takes no {value}"));
        named(arg, path)
    }

    #[test]
    fn names_are_known_by_the_value_and_by_the_noun() {
        assert_eq!(kind_at(&["service", "rm"], "SERVICE"), Some(Named::Service));
        assert_eq!(kind_at(&["service", "logs"], "SERVICE|TASK"), Some(Named::ServiceOrTask));
        assert_eq!(kind_at(&["service", "runs"], "SERVICE"), Some(Named::Scheduled));
        assert_eq!(kind_at(&["service", "scale"], "SERVICE=REPLICAS"), Some(Named::Replicas));
        assert_eq!(kind_at(&["service", "create"], "SECRET"), Some(Named::Secret));
        assert_eq!(kind_at(&["service", "update"], "CONFIG"), Some(Named::Config));
        assert_eq!(kind_at(&["cp"], "FROM"), Some(Named::Path));
        assert_eq!(kind_at(&["exec"], "TASK"), Some(Named::Task));
        assert_eq!(kind_at(&["network", "doctor"], "TASK_B"), Some(Named::Task));
        assert_eq!(kind_at(&["node", "update"], "NODE"), Some(Named::Node));
        assert_eq!(kind_at(&["stack", "rm"], "NAME"), Some(Named::Stack));
        assert_eq!(kind_at(&["secret", "rm"], "NAME"), Some(Named::Secret));
        assert_eq!(kind_at(&["config", "inspect"], "NAME"), Some(Named::Config));
        assert_eq!(kind_at(&["secret", "create"], "NAME"), None, "what is to be made has no name yet");
    }

    #[test]
    fn the_host_is_read_off_the_line() {
        let host = |line: &str| given_host(&line.split(' ').map(str::to_owned).collect::<Vec<_>>()).map(str::to_owned);
        assert_eq!(host("flok -H unix:///a service rm "), Some("unix:///a".into()));
        assert_eq!(host("flok service rm --host=unix:///b "), Some("unix:///b".into()));
        assert_eq!(host("flok service rm "), None);
    }
}
