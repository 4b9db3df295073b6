//! `flok service`.

mod container;
mod create;
mod edit;
pub mod environment;
mod explain;
mod files;
mod health;
mod inspect;
mod lists;
mod logs;
mod ls;
mod mount;
mod pieces;
mod pretty;
mod ps;
mod publish;
mod rm;
mod rollback;
mod rollout;
mod runs;
mod scale;
mod schedule;
mod update;

pub use logs::Logs;

use bollard::auth::DockerCredentials;
use bollard::models::{Service as Found, ServiceSpec};
use bollard::query_parameters::{InspectServiceOptions, UpdateServiceOptions};
use clap::Subcommand;

use crate::api::client::Client;
use crate::cli::retry::{is_overtaken, retried};

pub use ls::{list, next_runs};
pub use runs::is_scheduled;

#[derive(Debug, Subcommand)]
pub enum Service {
    Create(Box<create::Create>),
    #[command(visible_alias = "list")]
    Ls(ls::Ls),
    Ps(ps::Ps),
    Explain(explain::Explain),
    Inspect(inspect::Inspect),
    Scale(scale::Scale),
    Update(Box<update::Update>),
    Rollback(rollback::Rollback),
    Runs(runs::Runs),
    Run(runs::Run),
    Logs(Logs),
    #[command(visible_alias = "remove")]
    Rm(rm::Rm),
}

impl Service {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        match self {
            Service::Create(verb) => verb.run(client).await,
            Service::Ls(verb) => verb.run(client).await,
            Service::Ps(verb) => verb.run(client).await,
            Service::Explain(verb) => verb.run(client).await,
            Service::Inspect(verb) => verb.run(client).await,
            Service::Scale(verb) => verb.run(client).await,
            Service::Update(verb) => verb.run(client).await,
            Service::Rollback(verb) => verb.run(client).await,
            Service::Runs(verb) => verb.run(client).await,
            Service::Run(verb) => verb.run(client).await,
            Service::Logs(verb) => verb.run(client).await,
            Service::Rm(verb) => verb.run(client).await,
        }
    }
}

/// By name, id or a prefix of its id.
async fn fetch(client: &Client, name: &str) -> anyhow::Result<Found> {
    let options = None::<InspectServiceOptions>;
    Ok(client.docker().inspect_service(name, options).await.map_err(|error| client.explain(error))?)
}

/// How a spec is put in force.
#[derive(Default)]
struct Store {
    rollback: bool,
    /// Kept as they are where there are none.
    credentials: Option<DockerCredentials>,
}

/// Puts `spec` in force where nobody else changed the service since it was fetched.
async fn store(client: &Client, service: &Found, spec: ServiceSpec, how: Store) -> anyhow::Result<()> {
    let version = service.version.as_ref().and_then(|version| version.index).unwrap_or(0);
    let options = UpdateServiceOptions {
        version: i32::try_from(version)?,
        registry_auth_from: "spec".into(),
        rollback: how.rollback.then(|| "previous".to_string()),
    };
    let id = service.id.as_deref().unwrap_or_default();
    let updated = client.docker().update_service(id, spec, options, how.credentials).await;
    warn(updated.map_err(|error| client.explain(error))?.warnings);
    Ok(())
}

/// What the swarm took and has something to say of.
fn warn(warnings: Option<Vec<String>>) {
    for warning in warnings.unwrap_or_default() {
        eprintln!("Warning: {warning}");
    }
}

/// Looks at a service, changes its spec and puts that in force: again, from the service as it is then, where somebody else
/// changed it between. Gives the service as it was.
async fn change(
    client: &Client,
    name: &str,
    mut edit: impl AsyncFnMut(&mut ServiceSpec) -> anyhow::Result<Store>,
) -> anyhow::Result<Found> {
    retried(&format!("service {name}"), async || {
        let service = fetch(client, name).await?;
        let mut spec = service.spec.clone().unwrap_or_default();
        let how = edit(&mut spec).await?;
        store(client, &service, spec, how).await?;
        Ok(service)
    })
    .await
}

/// Goes back to the spec before the last update. Where somebody else updated the service since it was looked at, another
/// spec would be the last: that is an error. Gives the service as it was.
async fn roll_back(client: &Client, name: &str) -> anyhow::Result<Found> {
    let service = fetch(client, name).await?;
    let spec = service.spec.clone().unwrap_or_default();
    match store(client, &service, spec, Store { rollback: true, ..Store::default() }).await {
        Err(error) if is_overtaken(&error) => Err(anyhow::anyhow!(
            "service {name} was changed by somebody else at the same time, and was not rolled back: look at it with \
             `flok service inspect {name}`, and run the command again if that is still what you want"
        )),
        done => done.map(|()| service),
    }
}
