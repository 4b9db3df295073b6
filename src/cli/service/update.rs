//! `flok service update`.

use bollard::models::*;
use bollard::query_parameters::InspectNetworkOptions;
use clap::Args;

use super::create::image;
use super::edit::{Values, network};
use super::files::{self, FileArg, file};
use super::mount::mount;
use super::publish::{self, Published, Targets, published, targets};
use super::{Store, fetch, store};
use crate::api::client::Client;
use crate::cli::output::print;
use crate::cli::pinning::ImageArgs;
use crate::cli::waiting::{self, WaitArgs};
use crate::cli::{key_value, tasks};
use crate::spec::stack::split_words;

/// Change a service; its tasks are replaced one after another
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok service update --image redis:7.2 db
  flok service update --env-add LEVEL=debug --env-rm OLD --limit-memory 512m web
  flok service update --force web        replace all tasks although nothing changed
  flok service update --rollback web     go back to the spec before the last update")]
pub struct Update {
    /// Image to run from now on
    #[arg(long, value_parser = image)]
    image: Option<String>,
    /// Command in place of the image's entrypoint, in words as a shell splits them; none: --entrypoint ""
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    entrypoint: Option<String>,
    /// Arguments in place of the image's command, as a shell would split them
    #[arg(long, allow_hyphen_values = true)]
    args: Option<String>,
    /// Add or change a variable; repeat it
    #[arg(long, value_name = "KEY=VALUE")]
    env_add: Vec<String>,
    /// Remove a variable; repeat it
    #[arg(long, value_name = "KEY")]
    env_rm: Vec<String>,
    /// Add or change a label; repeat it
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    label_add: Vec<(String, String)>,
    /// Remove a label; repeat it
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// Add a placement constraint; repeat it
    #[arg(long, value_name = "CONSTRAINT")]
    constraint_add: Vec<String>,
    /// Remove a placement constraint; repeat it
    #[arg(long, value_name = "CONSTRAINT")]
    constraint_rm: Vec<String>,
    /// Add a network: NAME, or name=NAME,alias=OTHER_NAME; repeat it
    #[arg(long, value_parser = network)]
    network_add: Vec<NetworkAttachmentConfig>,
    /// Remove a network, by name or id; repeat it
    #[arg(long, value_name = "NETWORK")]
    network_rm: Vec<String>,
    /// Port to publish: [8080:]80[/udp] on every node, ranges as 8000-8010:80-90 too; or
    /// mode=host,target=80,published=8080[,protocol=udp]; repeat it
    #[arg(long, value_name = "PORT", value_parser = published)]
    publish_add: Vec<Published>,
    /// Target port to publish no more: 80, 53/udp, or a range; repeat it
    #[arg(long, value_name = "TARGET", value_parser = targets)]
    publish_rm: Vec<Targets>,
    /// Add a mount: type=volume|bind|tmpfs,source=NAME,target=/PATH[,readonly]; repeat it
    #[arg(long, value_parser = mount)]
    mount_add: Vec<Mount>,
    /// Remove the mount with this target; repeat it
    #[arg(long, value_name = "TARGET")]
    mount_rm: Vec<String>,
    /// Add a secret: NAME, or source=NAME,target=FILE,uid=0,gid=0,mode=0444; repeat it
    #[arg(long, value_name = "SECRET", value_parser = file)]
    secret_add: Vec<FileArg>,
    /// Remove a secret; repeat it
    #[arg(long, value_name = "NAME")]
    secret_rm: Vec<String>,
    /// Add a config: NAME, or source=NAME,target=FILE,uid=0,gid=0,mode=0444; repeat it
    #[arg(long, value_name = "CONFIG", value_parser = file)]
    config_add: Vec<FileArg>,
    /// Remove a config; repeat it
    #[arg(long, value_name = "NAME")]
    config_rm: Vec<String>,
    /// Replace all tasks although nothing else changes
    #[arg(long)]
    force: bool,
    /// Go back to the previous spec; goes with no other change
    #[arg(long)]
    rollback: bool,
    #[command(flatten)]
    lists: super::lists::UpdateLists,
    #[command(flatten)]
    values: Values,
    #[command(flatten)]
    images: ImageArgs,
    #[command(flatten)]
    wait: WaitArgs,
    /// Name or id
    #[arg(value_name = "SERVICE")]
    service: String,
}

async fn network_id(client: &Client, name: &str) -> anyhow::Result<String> {
    let options = None::<InspectNetworkOptions>;
    let found = client.docker().inspect_network(name, options).await.map_err(|error| client.explain(error))?;
    Ok(found.id.unwrap_or_else(|| name.to_owned()))
}

impl Update {
    pub async fn run(mut self, client: &Client) -> anyhow::Result<()> {
        let service = fetch(client, &self.service).await?;
        let mut spec = service.spec.clone().unwrap_or_default();
        let rollback = self.rollback;
        if let Some(image) = self.image.take() {
            self.image = Some(self.images.pin(client, image).await?);
        }
        if !rollback {
            self.values.check(client).await?;
            self.resolve_networks(client).await?;
            self.edit(&mut spec)?;
            self.edit_files(client, &mut spec).await?;
            std::mem::take(&mut self.lists).lists().apply(&mut spec)?;
            std::mem::take(&mut self.values).apply(&mut spec)?;
        }
        let container = spec.task_template.as_ref().and_then(|task| task.container_spec.as_ref());
        let image = container.and_then(|container| container.image.as_deref()).unwrap_or_default();
        let credentials = self.images.credentials(image)?;
        store(client, &service, spec, Store { rollback, credentials }).await?;
        print(&format!("{}\n", self.service))?;
        waiting::converged(client, &[tasks::service_name(&service)], &self.wait).await
    }

    /// The stored spec names networks by their ids.
    async fn resolve_networks(&mut self, client: &Client) -> anyhow::Result<()> {
        for name in &mut self.network_rm {
            *name = network_id(client, name).await?;
        }
        for network in &mut self.network_add {
            let name = network.target.take().unwrap_or_default();
            network.target = Some(network_id(client, &name).await?);
        }
        Ok(())
    }

    async fn edit_files(&mut self, client: &Client, spec: &mut ServiceSpec) -> anyhow::Result<()> {
        let container = spec.task_template.get_or_insert_default().container_spec.get_or_insert_default();
        let gone = |names: &[String], name: &Option<String>| name.as_ref().is_some_and(|name| names.contains(name));
        let secrets = container.secrets.get_or_insert_default();
        secrets.retain(|secret| !gone(&self.secret_rm, &secret.secret_name));
        secrets.extend(files::secrets(client, std::mem::take(&mut self.secret_add)).await?);
        let configs = container.configs.get_or_insert_default();
        configs.retain(|config| !gone(&self.config_rm, &config.config_name));
        configs.extend(files::configs(client, std::mem::take(&mut self.config_add)).await?);
        Ok(())
    }

    fn edit(&mut self, spec: &mut ServiceSpec) -> anyhow::Result<()> {
        let labels = spec.labels.get_or_insert_default();
        labels.retain(|key, _| !self.label_rm.contains(key));
        labels.extend(self.label_add.drain(..));

        let ports = spec.endpoint_spec.get_or_insert_default().ports.get_or_insert_default();
        publish::edit(ports, &self.publish_rm, std::mem::take(&mut self.publish_add));

        let task = spec.task_template.get_or_insert_default();
        let networks = task.networks.get_or_insert_default();
        // One that is added again is changed.
        let replaced: Vec<Option<String>> = self.network_add.iter().map(|network| network.target.clone()).collect();
        let gone = |target: &Option<String>| {
            replaced.contains(target) || target.as_ref().is_some_and(|target| self.network_rm.contains(target))
        };
        networks.retain(|network| !gone(&network.target));
        networks.append(&mut self.network_add);
        if self.force {
            task.force_update = Some(task.force_update.unwrap_or(0) + 1);
        }
        let constraints = task.placement.get_or_insert_default().constraints.get_or_insert_default();
        let plain = |text: &str| text.replace(' ', "");
        constraints.retain(|known| !self.constraint_rm.iter().any(|gone| plain(gone) == plain(known)));
        constraints.append(&mut self.constraint_add);

        let container = task.container_spec.get_or_insert_default();
        if let Some(image) = self.image.take() {
            container.image = Some(image);
        }
        if let Some(command) = &self.entrypoint {
            let words = split_words(command).map_err(|why| anyhow::anyhow!("--entrypoint: {why}"))?;
            container.command = Some(words).filter(|words| !words.is_empty());
        }
        if let Some(args) = &self.args {
            container.args = Some(split_words(args).map_err(|why| anyhow::anyhow!("--args: {why}"))?);
        }
        let env = container.env.get_or_insert_default();
        let key = |variable: &str| variable.split('=').next().unwrap_or_default().to_string();
        let replaced: Vec<String> = self.env_add.iter().map(|variable| key(variable)).collect();
        env.retain(|variable| !self.env_rm.contains(&key(variable)) && !replaced.contains(&key(variable)));
        env.append(&mut self.env_add);
        let mounts = container.mounts.get_or_insert_default();
        mounts.retain(|mount| !mount.target.as_ref().is_some_and(|target| self.mount_rm.contains(target)));
        mounts.append(&mut self.mount_add);
        Ok(())
    }
}
