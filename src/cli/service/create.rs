//! `flok service create`.

use bollard::models::*;
use clap::Args;
use rand::TryRng;

use super::edit::{Values, network};
use super::files::{self, FileArg, file};
use super::mount::mount;
use super::publish::{self, Published, published};
use crate::api::client::Client;
use crate::cli::output::print;
use crate::cli::pinning::ImageArgs;
use crate::cli::waiting::{self, WaitArgs};
use crate::cli::{key_value, tasks};
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
    /// Variable of the containers; repeat it
    #[arg(long, short, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Label of the service; repeat it
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = key_value)]
    label: Vec<(String, String)>,
    /// Label of the containers; repeat it
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    container_label: Vec<(String, String)>,
    /// Where tasks may run, for example node.labels.zone==a; repeat it
    #[arg(long, value_name = "CONSTRAINT")]
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
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    #[command(flatten)]
    lists: super::lists::CreateLists,
    #[command(flatten)]
    values: Values,
    #[command(flatten)]
    images: ImageArgs,
    #[command(flatten)]
    wait: WaitArgs,
    #[arg(value_name = "IMAGE", value_parser = image)]
    image: String,
    /// Arguments in place of the image's command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(super) fn image(text: &str) -> Result<String, String> {
    text.parse::<ImageReference>().map(|_| text.to_string()).map_err(|error| error.to_string())
}

impl Create {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let default = if self.values.schedule.is_given() { "replicated-job" } else { "replicated" };
        let mode = match self.mode.as_deref().unwrap_or(default) {
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
        };
        let entrypoint = self.entrypoint.as_deref().map(split_words).transpose();
        let entrypoint = entrypoint.map_err(|why| anyhow::anyhow!("--entrypoint: {why}"))?;
        self.values.check(client).await?;
        let credentials = self.images.credentials(&self.image)?;
        let container = TaskSpecContainerSpec {
            image: Some(self.images.pin(client, self.image).await?),
            command: entrypoint,
            args: Some(self.args).filter(|args| !args.is_empty()),
            env: Some(self.env).filter(|env| !env.is_empty()),
            labels: Some(self.container_label.into_iter().collect()),
            mounts: Some(self.mount).filter(|mounts| !mounts.is_empty()),
            secrets: Some(files::secrets(client, self.secret).await?).filter(|secrets| !secrets.is_empty()),
            configs: Some(files::configs(client, self.config).await?).filter(|configs| !configs.is_empty()),
            ..Default::default()
        };
        let mut spec = ServiceSpec {
            name: Some(self.name.unwrap_or_else(made_up_name)),
            labels: Some(self.label.into_iter().collect()),
            mode: Some(mode),
            task_template: Some(TaskSpec {
                container_spec: Some(container),
                networks: Some(self.network).filter(|networks| !networks.is_empty()),
                placement: Some(TaskSpecPlacement { constraints: Some(self.constraint), ..Default::default() }),
                ..Default::default()
            }),
            endpoint_spec: Some(EndpointSpec { ports: Some(publish::all(self.publish)), ..Default::default() }),
            ..Default::default()
        };
        self.lists.lists().apply(&mut spec)?;
        self.values.apply(&mut spec)?;
        let created = client.docker().create_service(spec, credentials).await.map_err(|error| client.explain(error))?;
        let id = created.id.unwrap_or_default();
        print(&format!("{id}\n"))?;
        let service = super::fetch(client, &id).await?;
        waiting::converged(client, &[tasks::service_name(&service)], &self.wait).await
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
