//! `flok service create`.

use bollard::models::*;
use clap::Args;
use rand::TryRng;

use super::edit::{Values, network};
use super::environment::{environment, shell, variable};
use super::files::{self, FileArg, file};
use super::mount::mount;
use super::publish::{self, Published, published};
use crate::api::client::Client;
use crate::cli::output::print;
use crate::cli::pinning::ImageArgs;
use crate::cli::waiting::{self, WaitArgs};
use crate::cli::{Usage, key_value, tasks};
use crate::spec::Constraint;
use crate::spec::image::ImageReference;
use crate::spec::stack::split_words;

/// Create a service
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok service create --name web --replicas 3 --publish mode=host,target=80,published=8080 whoami:1
  flok service create --name db --mount source=data,target=/data --constraint node.role==worker redis:7
  flok service create --name agent --mode global --env LEVEL=info agent:2 --verbose
  flok service create --name backup --schedule '30 3 * * *' --schedule-time-zone Europe/Berlin backup:1")]
pub struct Create {
    /// Name [default: made up]
    #[arg(long)]
    name: Option<String>,
    /// How many tasks there are: so many (--replicas), or one on every node [default: replicated; with --schedule,
    /// replicated-job]
    #[arg(long, value_parser = ["replicated", "global", "replicated-job", "global-job"])]
    mode: Option<String>,
    /// Variable of the containers; a KEY alone takes the shell's value; repeat it
    #[arg(long, short, value_name = "KEY[=VALUE]", value_parser = variable)]
    env: Vec<String>,
    /// File with variables of the containers, one on each line; repeat it
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// Label of the service; repeat it
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = key_value)]
    label: Vec<(String, String)>,
    /// Label of the containers; repeat it
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    container_label: Vec<(String, String)>,
    /// Where tasks may run, for example node.labels.zone==a; repeat it
    #[arg(long, value_name = "CONSTRAINT", value_parser = constraint)]
    constraint: Vec<String>,
    /// Network to be on: NAME, or name=NAME,alias=OTHER_NAME; repeat it
    #[arg(long, value_parser = network)]
    network: Vec<NetworkAttachmentConfig>,
    /// Port to publish: [8080:]80[/udp] on every node, ranges as 8000-8010:80-90 too; or
    /// mode=host,target=80,published=8080[,protocol=udp]; repeat it
    #[arg(long, short, value_name = "PORT", value_parser = published)]
    publish: Vec<Published>,
    /// Mount: type=volume|bind|tmpfs,source=NAME,target=/PATH[,readonly]; repeat it
    #[arg(long, value_parser = mount)]
    mount: Vec<Mount>,
    /// Secret to have as a file: NAME, or source=NAME,target=FILE,uid=0,gid=0,mode=0444; repeat it
    #[arg(long, value_name = "SECRET", value_parser = file)]
    secret: Vec<FileArg>,
    /// Config to have as a file: NAME, or source=NAME,target=FILE,uid=0,gid=0,mode=0444; repeat it
    #[arg(long, value_name = "CONFIG", value_parser = file)]
    config: Vec<FileArg>,
    /// Command in place of the image's entrypoint, in words as a shell splits them
    #[arg(long, value_name = "COMMAND", value_parser = words)]
    entrypoint: Option<String>,
    #[command(flatten)]
    lists: super::lists::CreateLists,
    #[command(flatten)]
    values: Values,
    #[command(flatten)]
    images: ImageArgs,
    #[command(flatten)]
    wait: WaitArgs,
    /// Image to run
    #[arg(value_name = "IMAGE", value_parser = image)]
    image: String,
    /// Arguments in place of the image's command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(super) fn image(text: &str) -> Result<String, String> {
    text.parse::<ImageReference>().map(|_| text.to_string()).map_err(|error| error.to_string())
}

/// The text itself, where it is one.
pub(super) fn constraint(text: &str) -> Result<String, String> {
    text.parse::<Constraint>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// The text itself, where a shell could split it.
pub(super) fn words(text: &str) -> Result<String, String> {
    split_words(text).map(|_| text.to_owned()).map_err(str::to_owned)
}

impl Create {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let mut spec = self.spec().map_err(Usage::of)?;
        let env = environment(&self.env_file, self.env, shell)?;
        self.values.check(client).await?;
        let credentials = self.images.credentials(&self.image)?;
        let secrets = files::secrets(client, self.secret).await?;
        let configs = files::configs(client, self.config).await?;
        let container = spec.task_template.get_or_insert_default().container_spec.get_or_insert_default();
        container.image = Some(self.images.pin(client, self.image).await?);
        container.env = Some(env).filter(|env| !env.is_empty());
        container.secrets = Some(secrets).filter(|secrets| !secrets.is_empty());
        container.configs = Some(configs).filter(|configs| !configs.is_empty());
        let created = client.docker().create_service(spec, credentials).await.map_err(|error| client.explain(error))?;
        super::warn(created.warnings);
        let id = created.id.unwrap_or_default();
        print(&format!("{id}\n"))?;
        let service = super::fetch(client, &id).await?;
        waiting::converged(client, &[tasks::service_name(&service)], &self.wait).await
    }

    /// What the flags alone say of the service.
    fn spec(&self) -> anyhow::Result<ServiceSpec> {
        let entrypoint = self.entrypoint.as_deref().map(split_words).transpose();
        let entrypoint = entrypoint.map_err(|why| anyhow::anyhow!("--entrypoint: {why}"))?;
        let container = TaskSpecContainerSpec {
            command: entrypoint,
            args: Some(self.args.clone()).filter(|args| !args.is_empty()),
            labels: Some(self.container_label.iter().cloned().collect()),
            mounts: Some(self.mount.clone()).filter(|mounts| !mounts.is_empty()),
            ..Default::default()
        };
        let placement = TaskSpecPlacement { constraints: Some(self.constraint.clone()), ..Default::default() };
        let mut spec = ServiceSpec {
            name: Some(self.name.clone().unwrap_or_else(made_up_name)),
            labels: Some(self.label.iter().cloned().collect()),
            mode: Some(self.service_mode()),
            task_template: Some(TaskSpec {
                container_spec: Some(container),
                networks: Some(self.network.clone()).filter(|networks| !networks.is_empty()),
                placement: Some(placement),
                ..Default::default()
            }),
            endpoint_spec: Some(EndpointSpec { ports: Some(publish::all(self.publish.clone())), ..Default::default() }),
            ..Default::default()
        };
        self.lists.clone().lists().apply(&mut spec).map_err(anyhow::Error::msg)?;
        self.values.clone().apply(&mut spec)?;
        Ok(spec)
    }

    fn service_mode(&self) -> ServiceSpecMode {
        let default = if self.values.schedule.is_given() { "replicated-job" } else { "replicated" };
        match self.mode.as_deref().unwrap_or(default) {
            "global" => ServiceSpecMode { global: Some([].into()), ..Default::default() },
            "global-job" => ServiceSpecMode { global_job: Some([].into()), ..Default::default() },
            "replicated-job" => ServiceSpecMode {
                replicated_job: Some(ServiceSpecModeReplicatedJob {
                    max_concurrent: Some(1),
                    total_completions: Some(1),
                }),
                ..Default::default()
            },
            _ => ServiceSpecMode {
                replicated: Some(ServiceSpecModeReplicated { replicas: Some(1) }),
                ..Default::default()
            },
        }
    }
}

/// Two words and a number: free in all likelihood, and the daemon refuses it where it is not.
fn made_up_name() -> String {
    const QUALITIES: [&str; 8] = ["brave", "calm", "eager", "gentle", "keen", "quiet", "swift", "wise"];
    const BIRDS: [&str; 8] = ["crane", "finch", "heron", "lark", "raven", "starling", "swallow", "wren"];
    let draw = rand::rngs::SysRng.try_next_u32().unwrap_or(0);
    let pick = |list: [&'static str; 8], shift: u32| list[((draw >> shift) & 7) as usize];
    format!("{}_{}_{}", pick(QUALITIES, 0), pick(BIRDS, 3), (draw >> 6) % 10_000)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        create: Create,
    }

    fn spec(line: &str) -> anyhow::Result<ServiceSpec> {
        Line::parse_from(format!("create {line}").split_whitespace()).create.spec()
    }

    #[test]
    fn flags_that_do_not_go_together_are_refused_before_the_daemon_is_asked() {
        for line in ["--mode global --replicas 2 redis", "--max-concurrent 2 redis"] {
            assert!(spec(line).is_err(), "{line}");
        }
        let job = spec("--schedule @daily --max-concurrent 2 --oom-score-adj -5 backup").unwrap();
        assert_eq!(job.mode.unwrap().replicated_job.unwrap().max_concurrent, Some(2));
        assert_eq!(job.task_template.unwrap().container_spec.unwrap().oom_score_adj, Some(-5));
    }
}
