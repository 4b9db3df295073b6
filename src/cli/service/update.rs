//! `flok service update`.

use std::collections::BTreeSet;

use bollard::models::*;
use bollard::query_parameters::InspectNetworkOptions;
use clap::Args;

use super::Store;
use super::container::keys;
use super::create::{constraint, image, words};
use super::edit::{Values, network};
use super::environment::{environment, name, shell, variable};
use super::files::{self, FileArg, file};
use super::mount::mount;
use super::publish::{self, Published, Targets, published, targets};
use crate::api::client::Client;
use crate::cli::output::print;
use crate::cli::pinning::ImageArgs;
use crate::cli::removal::Missing;
use crate::cli::waiting::{self, WaitArgs};
use crate::cli::{key_value, tasks};
use crate::spec::stack::split_words;

/// Change a service; its tasks are replaced one after another
#[derive(Debug, Clone, Args)]
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
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true, value_parser = words)]
    entrypoint: Option<String>,
    /// Arguments in place of the image's command, as a shell would split them
    #[arg(long, allow_hyphen_values = true, value_parser = words)]
    args: Option<String>,
    /// Add or change a variable; a KEY alone takes the shell's value; repeat it
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = variable)]
    env_add: Vec<String>,
    /// Add or change the variables of a file, one on each line; repeat it
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
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
    #[arg(long, value_name = "CONSTRAINT", value_parser = constraint)]
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
        let service =
            if self.rollback { super::roll_back(client, &self.service).await? } else { self.change(client).await? };
        print(&format!("{}\n", self.service))?;
        waiting::converged(client, &[tasks::service_name(&service)], &self.wait).await
    }

    /// Gives the service as it was.
    async fn change(&mut self, client: &Client) -> anyhow::Result<Service> {
        self.env_add = environment(&self.env_file, std::mem::take(&mut self.env_add), shell)?;
        if let Some(image) = self.image.take() {
            self.image = Some(self.images.pin(client, image).await?);
        }
        self.values.check(client).await?;
        let named = self.network_rm.clone();
        self.resolve_networks(client).await?;
        let mut told = BTreeSet::new();
        super::change(client, &self.service, async |spec| {
            for line in self.missing(spec, &named).lines {
                if told.insert(line.clone()) {
                    eprintln!("Warning: service {}: {line}", self.service);
                }
            }
            let update = self.clone();
            update.edit(spec)?;
            update.edit_files(client, spec).await?;
            update.lists.lists().apply(spec).map_err(anyhow::Error::msg)?;
            update.values.apply(spec)?;
            let container = spec.task_template.as_ref().and_then(|task| task.container_spec.as_ref());
            let image = container.and_then(|container| container.image.as_deref()).unwrap_or_default();
            Ok(Store { credentials: self.images.credentials(image)?, ..Store::default() })
        })
        .await
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

    /// What is to be removed and is not there. `networks` are those to remove, as they were named.
    fn missing(&self, spec: &ServiceSpec, networks: &[String]) -> Missing {
        let mut missing = Missing::default();
        let task = spec.task_template.clone().unwrap_or_default();
        let container = task.container_spec.clone().unwrap_or_default();
        missing.look("label-rm", &self.label_rm, &keys(spec.labels.as_ref()));
        let constraints = task.placement.and_then(|placement| placement.constraints).unwrap_or_default();
        missing
            .look_for("constraint-rm", &self.constraint_rm, &constraints, |asked, known| plain(asked) == plain(known));
        let ports = spec.endpoint_spec.as_ref().and_then(|endpoint| endpoint.ports.clone()).unwrap_or_default();
        for targets in self.publish_rm.iter().filter(|targets| !ports.iter().any(|port| targets.has(port))) {
            missing.add("publish-rm", targets, &ports.iter().map(publish::target).collect::<Vec<_>>());
        }
        let attached: Vec<String> =
            task.networks.iter().flatten().filter_map(|network| network.target.clone()).collect();
        for (_, name) in self.network_rm.iter().zip(networks).filter(|(id, _)| !attached.contains(id)) {
            missing.lines.push(format!("--network-rm {name} takes nothing away: it is not on that network"));
        }
        let variables: Vec<String> = container.env.iter().flatten().map(|text| name(text).to_owned()).collect();
        missing.look("env-rm", &self.env_rm, &variables);
        let targets: Vec<String> = container.mounts.iter().flatten().filter_map(|mount| mount.target.clone()).collect();
        missing.look("mount-rm", &self.mount_rm, &targets);
        let secrets: Vec<String> = container.secrets.iter().flatten().filter_map(|it| it.secret_name.clone()).collect();
        missing.look("secret-rm", &self.secret_rm, &secrets);
        let configs: Vec<String> = container.configs.iter().flatten().filter_map(|it| it.config_name.clone()).collect();
        missing.look("config-rm", &self.config_rm, &configs);
        self.lists.clone().lists().look(spec, &mut missing);
        missing
    }

    async fn edit_files(&self, client: &Client, spec: &mut ServiceSpec) -> anyhow::Result<()> {
        let container = spec.task_template.get_or_insert_default().container_spec.get_or_insert_default();
        let gone = |names: &[String], name: &Option<String>| name.as_ref().is_some_and(|name| names.contains(name));
        let secrets = container.secrets.get_or_insert_default();
        secrets.retain(|secret| !gone(&self.secret_rm, &secret.secret_name));
        secrets.extend(files::secrets(client, self.secret_add.clone()).await?);
        let configs = container.configs.get_or_insert_default();
        configs.retain(|config| !gone(&self.config_rm, &config.config_name));
        configs.extend(files::configs(client, self.config_add.clone()).await?);
        Ok(())
    }

    fn edit(&self, spec: &mut ServiceSpec) -> anyhow::Result<()> {
        let labels = spec.labels.get_or_insert_default();
        labels.retain(|key, _| !self.label_rm.contains(key));
        labels.extend(self.label_add.iter().cloned());

        let ports = spec.endpoint_spec.get_or_insert_default().ports.get_or_insert_default();
        publish::edit(ports, &self.publish_rm, self.publish_add.clone());

        let task = spec.task_template.get_or_insert_default();
        let networks = task.networks.get_or_insert_default();
        // One that is added again is changed.
        let replaced: Vec<Option<String>> = self.network_add.iter().map(|network| network.target.clone()).collect();
        let gone = |target: &Option<String>| {
            replaced.contains(target) || target.as_ref().is_some_and(|target| self.network_rm.contains(target))
        };
        networks.retain(|network| !gone(&network.target));
        networks.extend(self.network_add.iter().cloned());
        if self.force {
            task.force_update = Some(task.force_update.unwrap_or(0) + 1);
        }
        let constraints = task.placement.get_or_insert_default().constraints.get_or_insert_default();
        constraints.retain(|known| !self.constraint_rm.iter().any(|gone| plain(gone) == plain(known)));
        constraints.extend(self.constraint_add.iter().cloned());

        let container = task.container_spec.get_or_insert_default();
        if self.image.is_some() {
            container.image.clone_from(&self.image);
        }
        if let Some(command) = &self.entrypoint {
            let words = split_words(command).map_err(|why| anyhow::anyhow!("--entrypoint: {why}"))?;
            container.command = Some(words).filter(|words| !words.is_empty());
        }
        if let Some(args) = &self.args {
            container.args = Some(split_words(args).map_err(|why| anyhow::anyhow!("--args: {why}"))?);
        }
        let env = container.env.get_or_insert_default();
        let replaced: Vec<&str> = self.env_add.iter().map(|variable| name(variable)).collect();
        env.retain(|variable| {
            let name = name(variable);
            !replaced.contains(&name) && !self.env_rm.iter().any(|gone| gone == name)
        });
        env.extend(self.env_add.iter().cloned());
        let mounts = container.mounts.get_or_insert_default();
        mounts.retain(|mount| !mount.target.as_ref().is_some_and(|target| self.mount_rm.contains(target)));
        mounts.extend(self.mount_add.iter().cloned());
        Ok(())
    }
}

/// A constraint without the blanks that do not count.
fn plain(constraint: &str) -> String {
    constraint.replace(' ', "")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        update: Update,
    }

    fn update(line: &str) -> Update {
        Line::parse_from(format!("update {line} web").split_whitespace()).update
    }

    fn spec() -> ServiceSpec {
        serde_json::from_value(serde_json::json!({
            "Labels": {"tier": "a", "flok.devices": "/dev/fuse,/dev/sda:/dev/sdb"},
            "EndpointSpec": {"Ports": [{"TargetPort": 80, "Protocol": "tcp"}]},
            "TaskTemplate": {
                "ContainerSpec": {"Env": ["A=1", "B"], "Mounts": [{"Target": "/data"}], "Hosts": ["10.0.0.1 db"],
                    "Secrets": [{"SecretName": "key"}], "Configs": [{"ConfigName": "site"}]},
                "Placement": {"Constraints": ["node.role == worker"]},
                "Networks": [{"Target": "n1"}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn what_is_removed_and_is_not_there_is_told_for_each_flag() {
        let there = "--label-rm tier --env-rm A --env-rm B --mount-rm /data --secret-rm key --config-rm site --network-rm n1 \
            --constraint-rm node.role==worker --publish-rm 79-81 --host-rm db --device-rm /dev/fuse";
        let there = update(there);
        assert_eq!(there.missing(&spec(), &["back".into()]).lines, Vec::<String>::new());
        let not_there = "--label-rm teir --env-rm C --mount-rm /dat --secret-rm kye --config-rm other --network-rm n2 \
            --constraint-rm node.role!=worker --publish-rm 80/udp --host-rm db:10.0.0.2 --device-rm /dev/kvm";
        let lines = update(not_there).missing(&spec(), &["front".into()]).lines;
        assert_eq!(lines.len(), 10, "{lines:#?}");
        assert!(lines.contains(&"--label-rm teir takes nothing away: did you mean tier?".to_owned()), "{lines:#?}");
        assert!(lines.contains(&"--network-rm front takes nothing away: it is not on that network".to_owned()));
        assert!(
            lines.contains(&"--publish-rm 80/udp takes nothing away: did you mean 80/tcp?".to_owned()),
            "{lines:#?}"
        );
    }

    #[test]
    fn an_update_can_be_made_again_from_another_spec() {
        let update = update("--env-add A=2 --env-rm B --label-add x=y --force");
        for _ in 0..2 {
            let mut spec = spec();
            update.edit(&mut spec).unwrap();
            let task = spec.task_template.unwrap();
            assert_eq!(task.container_spec.unwrap().env.unwrap(), ["A=2"]);
            assert_eq!((spec.labels.unwrap()["x"].as_str(), task.force_update), ("y", Some(1)));
        }
    }
}
