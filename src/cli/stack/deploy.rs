//! `flok stack deploy`: stack files to specs, one transaction, then the wait until all of it runs.

use clap::Args;

use super::files::{FilesArg, warn};
use super::plan;
use crate::api::client::Client;
use crate::api::model::stack::{StackChanged, StackDeploy};
use crate::cli::output::print;
use crate::cli::pinning::ImageArgs;
use crate::cli::waiting::{self, WaitArgs};
use crate::spec::ServiceSpec;
use crate::spec::stack::{Features, Stack, check_stack_name};

/// Deploy a stack, or update it: all of it is put in force, or nothing
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok stack deploy -c stack.yml shop
  flok stack deploy -c stack.yml -c production.yml --prune shop
  flok stack deploy -c stack.yml --dry-run shop                 see `flok stack plan`
  TAG=1.2 flok stack deploy -c stack.yml --timeout 2m shop      ${TAG} is filled in
  flok stack config -c stack.yml | flok stack deploy -c - shop")]
pub struct Deploy {
    /// Show what would be done, as `flok stack plan` does, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    request: Request,
    #[command(flatten)]
    wait: WaitArgs,
    /// Name of the stack
    #[arg(value_name = "NAME", value_parser = stack_name)]
    name: String,
}

pub(super) fn stack_name(name: &str) -> Result<String, String> {
    check_stack_name(name).map(|()| name.to_string())
}

/// What a stack is to be.
#[derive(Debug, Args)]
pub(super) struct Request {
    #[command(flatten)]
    files: FilesArg,
    /// Remove services of this stack that are not in the files any more
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    images: ImageArgs,
}

impl Deploy {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        if self.dry_run {
            return print(&plan::render(&plan::ask(client, &self.request, &self.name).await?));
        }
        let (request, names) = self.request.make(client, &self.name).await?;
        let changed: StackChanged = client.post(&format!("/stacks/{}", self.name), &request).await?;
        print(&render(&changed))?;
        waiting::converged(client, &names, &self.wait).await
    }
}

impl Request {
    /// Reads the files, and asks registries for what tags mean; with it, the names of the stack's services.
    pub async fn make(&self, client: &Client, name: &str) -> anyhow::Result<(StackDeploy, Vec<String>)> {
        let mut stack: Stack = self.files.with(Features::supported(), |file, around| {
            let (stack, warnings) = file.convert(name, around)?;
            warn(&warnings);
            Ok(stack)
        })?;
        let names: Vec<String> = stack.services.iter().map(|service| service.name.clone()).collect();
        let images: Vec<String> = stack.services.iter().map(|service| service.task.container.image.clone()).collect();
        let headers = self.images.headers(images.iter().map(String::as_str))?;
        let header =
            |service: &ServiceSpec| Some((service.name.clone(), headers.get(&service.task.container.image)?.clone()));
        let credentials = stack.services.iter().filter_map(header).collect();
        let pinned = self.images.pinned(client, images.iter().map(String::as_str)).await?;
        for image in stack.services.iter_mut().map(|service| &mut service.task.container.image) {
            if let Some(pinned) = pinned.get(image) {
                image.clone_from(pinned);
            }
        }
        let request = StackDeploy {
            services: stack.services,
            networks: stack.networks,
            external_networks: stack.external_networks,
            secrets: stack.secrets,
            configs: stack.configs,
            prune: self.prune,
            credentials,
        };
        Ok((request, names))
    }
}

pub(super) fn render(changed: &StackChanged) -> String {
    let groups = [
        ("Creating network", &changed.created_networks),
        ("Creating secret", &changed.created_secrets),
        ("Creating config", &changed.created_configs),
        ("Updating secret", &changed.updated_secrets),
        ("Updating config", &changed.updated_configs),
        ("Creating service", &changed.created),
        ("Updating service", &changed.updated),
        ("Unchanged service", &changed.unchanged),
        ("Removing service", &changed.removed),
        ("Removing secret", &changed.removed_secrets),
        ("Removing config", &changed.removed_configs),
        ("Removing network", &changed.removed_networks),
    ];
    groups.iter().flat_map(|(what, names)| names.iter().map(move |name| format!("{what} {name}\n"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_named() {
        let changed = StackChanged {
            created: vec!["s_a".into()],
            updated: vec!["s_b".into(), "s_c".into()],
            unchanged: vec![],
            removed: vec!["s_d".into()],
            created_networks: vec!["s_default".into()],
            removed_networks: vec!["s_old".into()],
            created_secrets: vec!["s_key".into()],
            updated_configs: vec!["s_conf".into()],
            removed_configs: vec!["s_site".into()],
            ..StackChanged::default()
        };
        let expected = "Creating network s_default\nCreating secret s_key\nUpdating config s_conf\nCreating service s_a\nUpdating service s_b\nUpdating service s_c\n\
                        Removing service s_d\nRemoving config s_site\nRemoving network s_old\n";
        assert_eq!(render(&changed), expected);
    }
}
