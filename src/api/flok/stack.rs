//! Deploying and removing a stack in one transaction.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};

use super::stack_data::{self, Ids};
use crate::api::docker::{Body, services::refuse_unsupported};
use crate::api::model::stack::{STACK_LABEL, StackChanged, StackDeploy};
use crate::api::surroundings::refuse_unfit;
use crate::api::{ApiError, Backend, Read, WriteError, lookup};
use crate::spec::stack::{Feature, Features};
use crate::spec::{Labels, NetworkId, NetworkTarget, SecretBytes, ServiceId, ServiceSpec};
use crate::state::{self, Command, CredentialsUpdate, Network, Refusal, Service};

/// How often a transaction is computed anew because another writer came between.
const MAX_ATTEMPTS: usize = 5;

pub async fn deploy<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(name): Path<String>,
    Body(stack): Body<StackDeploy>,
) -> Result<Json<StackChanged>, ApiError> {
    validate(&name, &stack)?;
    for _ in 1..MAX_ATTEMPTS {
        let read = backend.read().await?;
        let (commands, changed) = plan(&name, &stack, &read, || backend.new_id())?;
        match backend.propose(Command::Transaction(commands)).await {
            Err(WriteError::Refused(Refusal::OutOfSequence)) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(Json(changed)),
        }
    }
    Err(ApiError::Conflict(format!(
        "stack {name} is being changed by others at the same time: nothing was changed, try again"
    )))
}

pub async fn remove<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(name): Path<String>,
) -> Result<Json<StackChanged>, ApiError> {
    let read = backend.read().await?;
    let services: Vec<&Arc<Service>> = of_stack(&name, &read).collect();
    let networks: Vec<&Arc<Network>> =
        read.state.networks().filter(|network| stack_of(&network.spec.labels) == Some(&name)).collect();
    let mut changed = StackChanged::default();
    let data = stack_data::remove(&name, &read, &mut changed);
    if services.is_empty() && networks.is_empty() && data.is_empty() {
        let stacks = read.state.services().filter_map(|service| stack_of(&service.spec.labels));
        let hint = lookup::did_you_mean(&name, stacks);
        return Err(ApiError::NotFound(format!("nothing found in stack: {name}{hint}")));
    }
    changed.removed = services.iter().map(|service| service.spec.name.clone()).collect();
    changed.removed_networks = networks.iter().map(|network| network.spec.name.clone()).collect();
    let services = services.iter().map(|service| Command::RemoveService { id: service.id });
    // Behind the services, which use them.
    let networks = networks.iter().map(|network| Command::RemoveNetwork { id: network.id });
    backend.propose(Command::Transaction(services.chain(data).chain(networks).collect())).await?;
    Ok(Json(changed))
}

pub(super) fn validate(name: &str, stack: &StackDeploy) -> Result<(), ApiError> {
    if !stack.networks.is_empty() && !Features::supported().has(Feature::Networks) {
        return Err(ApiError::NotImplemented(format!("stack {name}: networks are not supported yet")));
    }
    for service in &stack.services {
        refuse_unsupported(service)?;
        check_label(name, "service", &service.name, &service.labels)?;
    }
    for network in &stack.networks {
        check_label(name, "network", &network.name, &network.labels)?;
    }
    for secret in &stack.secrets {
        check_label(name, "secret", &secret.name, &secret.labels)?;
    }
    for config in &stack.configs {
        check_label(name, "config", &config.name, &config.labels)?;
    }
    Ok(())
}

fn check_label(stack: &str, kind: &str, name: &str, labels: &Labels) -> Result<(), ApiError> {
    if stack_of(labels) == Some(stack) {
        return Ok(());
    }
    Err(ApiError::invalid(format!("{kind} {name} does not carry the label {STACK_LABEL}={stack}")))
}

/// Of what stack an object with these labels is.
pub(super) fn stack_of(labels: &Labels) -> Option<&str> {
    labels.get(STACK_LABEL).map(String::as_str)
}

fn of_stack<'a>(name: &'a str, read: &'a Read) -> impl Iterator<Item = &'a Arc<Service>> {
    read.state.services().filter(move |service| stack_of(&service.spec.labels) == Some(name))
}

/// The commands that bring the swarm to what is asked, and what they change by name.
pub(super) fn plan(
    name: &str,
    stack: &StackDeploy,
    read: &Read,
    new_id: impl Fn() -> u128,
) -> Result<(Vec<Command>, StackChanged), ApiError> {
    let mut changed = StackChanged::default();
    let mut commands = networks(name, stack, read, &new_id, &mut changed)?;
    let (data, ids) = stack_data::plan(name, stack, &read.state, &new_id, &mut changed)?;
    commands.extend(data);
    for spec in &stack.services {
        let spec = &ids.resolve(spec.clone(), &read.state)?;
        let credentials = stack.credentials.get(&spec.name).map(|auth| SecretBytes(auth.clone().into_bytes()));
        match read.state.service_by_name(&spec.name) {
            None => {
                changed.created.push(spec.name.clone());
                let id = ServiceId(new_id());
                commands.push(Command::CreateService { id, spec: Box::new(spec.clone()), credentials });
            }
            Some(service) => match update(name, service, spec, credentials, &read.state, &ids)? {
                Some(command) => {
                    changed.updated.push(spec.name.clone());
                    commands.push(command);
                }
                None => changed.unchanged.push(spec.name.clone()),
            },
        }
    }
    let is_named = |service: &Service| stack.services.iter().any(|spec| spec.name == service.spec.name);
    if stack.prune {
        for service in of_stack(name, read) {
            if !is_named(service) {
                changed.removed.push(service.spec.name.clone());
                commands.push(Command::RemoveService { id: service.id });
            }
        }
    }
    // Others that use the stack's secrets and configs, which the log entry itself rolls out.
    let others = read.state.services().filter(|service| !is_named(service) && ids.give_new_data(service, &read.state));
    let others: Vec<String> = others.map(|service| service.spec.name.clone()).collect();
    changed.updated.extend(others.into_iter().filter(|name| !changed.removed.contains(name)));
    Ok((commands, changed))
}

/// The networks that the stack owns and that are not there yet; those it only uses must be there.
fn networks(
    name: &str,
    stack: &StackDeploy,
    read: &Read,
    new_id: impl Fn() -> u128,
    changed: &mut StackChanged,
) -> Result<Vec<Command>, ApiError> {
    let missing = |name: &&String| read.state.network_by_name(name).is_none();
    if let Some(missing) = stack.external_networks.iter().find(missing) {
        return Err(ApiError::invalid(format!(
            "network \"{missing}\" is declared as external, but could not be found. You need to create a swarm-scoped \
             network before the stack is deployed: flok network create {missing}"
        )));
    }
    let mut commands = Vec::new();
    for spec in &stack.networks {
        match read.state.network_by_name(&spec.name) {
            None => {
                refuse_unfit(spec, read)?;
                changed.created_networks.push(spec.name.clone());
                commands.push(Command::CreateNetwork { id: NetworkId(new_id()), spec: spec.clone() });
            }
            Some(network) if stack_of(&network.spec.labels) != Some(name) => {
                return Err(ApiError::Conflict(format!(
                    "network {} exists already and is not part of stack {name}: remove it, or name it as external",
                    spec.name
                )));
            }
            Some(network) if network.spec != *spec => {
                return Err(ApiError::Conflict(format!(
                    "network {} exists already with other settings ({}), and a network cannot be changed: remove the stack \
                     first, or give the network another name",
                    spec.name,
                    network.spec.differences(spec).join(", ")
                )));
            }
            Some(_) => {}
        }
    }
    Ok(commands)
}

fn update(
    stack: &str,
    service: &Service,
    spec: &ServiceSpec,
    credentials: Option<SecretBytes>,
    state: &state::State,
    ids: &Ids,
) -> Result<Option<Command>, ApiError> {
    if stack_of(&service.spec.labels) != Some(stack) {
        return Err(ApiError::Conflict(format!(
            "service {} exists already and is not part of stack {stack}: remove it, or name the stack differently",
            spec.name
        )));
    }
    let mut spec = spec.clone();
    // A count that only a forced update raises is not part of a stack file.
    spec.task.force_update = service.spec.task.force_update;
    // A tag means what it meant before, where no registry was asked or none answered.
    let image = &service.spec.task.container.image;
    if image.split_once('@').is_some_and(|(tag, _)| tag == spec.task.container.image) {
        spec.task.container.image.clone_from(image);
    }
    // As they are stored, so that what is the same compares so.
    for attachment in &mut spec.task.networks {
        if let NetworkTarget::Name(name) = &attachment.target
            && let Some(network) = state.network_by_name(name)
        {
            attachment.target = NetworkTarget::Id(network.id);
        }
    }
    spec.task.container.keep_data_versions(&service.spec.task.container);
    // What went back to older data is tried again.
    if !ids.give_new_data(service, state) && ids.leave_older_data(service, state) {
        spec.task.force_update += 1;
    }
    if service.spec == spec && credentials.is_none() && !ids.give_new_data(service, state) {
        return Ok(None);
    }
    let credentials = credentials.map_or(CredentialsUpdate::Keep, CredentialsUpdate::Replace);
    Ok(Some(Command::UpdateService {
        id: service.id,
        version: service.meta.version,
        spec: Box::new(spec),
        credentials,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ConfigId, ConfigReference, ConfigSpec, DataVersion, FileTarget, NetworkSpec};
    use crate::state::fixture::{Fixture, network_spec, service_spec};

    fn labels() -> Labels {
        [(STACK_LABEL.to_owned(), "s".to_owned())].into()
    }

    /// A stack of one service on one network of its own and one external.
    fn stack() -> StackDeploy {
        let attach = |name: &str| crate::spec::NetworkAttachment {
            target: NetworkTarget::Name(name.into()),
            aliases: vec!["web".into()],
            driver_options: Labels::new(),
        };
        let mut service = ServiceSpec { labels: labels(), ..service_spec("s_web", 1) };
        service.task.networks = vec![attach("s_default"), attach("outside")];
        StackDeploy {
            services: vec![service],
            networks: vec![NetworkSpec { labels: labels(), ..network_spec("s_default", &[]) }],
            external_networks: vec!["outside".into()],
            secrets: Vec::new(),
            configs: Vec::new(),
            prune: false,
            credentials: Default::default(),
        }
    }

    fn planned(swarm: &Fixture, stack: &StackDeploy) -> Result<(Vec<Command>, StackChanged), ApiError> {
        let state = Arc::new(swarm.state.clone());
        let read = Read { state, observed: Arc::default(), leader: None, stale: None };
        plan("s", stack, &read, || 77)
    }

    fn deployed() -> Fixture {
        let mut swarm = Fixture::nodes(1);
        swarm.network("outside", &[]);
        let (commands, changed) = planned(&swarm, &stack()).unwrap();
        assert_eq!((changed.created, changed.created_networks), (vec!["s_web".into()], vec!["s_default".into()]));
        swarm.command(Command::Transaction(commands));
        swarm
    }

    #[test]
    fn what_is_deployed_again_is_unchanged() {
        let swarm = deployed();
        let (commands, changed) = planned(&swarm, &stack()).unwrap();
        assert_eq!(commands, []);
        assert_eq!(changed.unchanged, ["s_web"]);
    }

    /// The stack with the config `s_conf`, which its service uses.
    fn with_config(data: &str) -> StackDeploy {
        let mut stack = stack();
        let file = FileTarget { name: "/conf".into(), uid: "0".into(), gid: "0".into(), mode: 0o444 };
        let reference = |name: &str| {
            let (id, data_version) = (ConfigId(0), DataVersion(0));
            ConfigReference { id, name: name.into(), file: file.clone(), data_version }
        };
        stack.services[0].task.container.configs = vec![reference("s_conf")];
        let (labels, templating) = (labels(), None);
        stack.configs = vec![ConfigSpec { name: "s_conf".into(), labels, data: data.into(), templating }];
        stack
    }

    #[test]
    fn other_data_is_rolled_out_to_all_that_use_it_and_the_same_is_unchanged() {
        let mut swarm = Fixture::nodes(1);
        swarm.network("outside", &[]);
        let (commands, changed) = planned(&swarm, &with_config("first")).unwrap();
        assert_eq!(changed.created_configs, ["s_conf"]);
        swarm.command(Command::Transaction(commands));
        let web = swarm.state.service_by_name("s_web").unwrap().id;
        let configs = swarm.state.service(web).unwrap().spec.task.container.configs.clone();
        swarm.service("elsewhere", 1, |spec| spec.task.container.configs = configs.clone());
        let (commands, changed) = planned(&swarm, &with_config("first")).unwrap();
        assert_eq!((commands, changed.unchanged), (vec![], vec!["s_web".to_owned()]));

        let (commands, changed) = planned(&swarm, &with_config("second")).unwrap();
        assert_eq!(
            (changed.updated_configs, changed.updated),
            (vec!["s_conf".into()], vec!["s_web".into(), "elsewhere".into()])
        );
        swarm.command(Command::Transaction(commands));
        for service in swarm.state.services() {
            assert_eq!(service.spec.task.container.configs[0].data_version, DataVersion(2), "{}", service.spec.name);
        }
        let (commands, changed) = planned(&swarm, &with_config("second")).unwrap();
        assert_eq!((commands, changed.unchanged), (vec![], vec!["s_web".to_owned()]));

        // A service that has gone back to the data that the file now has again is left alone.
        swarm.change(crate::state::Change::AutoRollback { service: web, message: "failed".into() });
        let (_, changed) = planned(&swarm, &with_config("first")).unwrap();
        assert_eq!((changed.updated, changed.unchanged), (vec!["elsewhere".to_owned()], vec!["s_web".to_owned()]));

        // One that has gone back from the data that the file has still is tried again.
        let (commands, changed) = planned(&swarm, &with_config("second")).unwrap();
        assert_eq!((changed.updated, changed.unchanged.len()), (vec!["s_web".to_owned()], 0));
        swarm.command(Command::Transaction(commands));
        let again = swarm.state.service(web).unwrap();
        assert_eq!(again.spec.task.container.configs[0].data_version, DataVersion(2));
        let (commands, _) = planned(&swarm, &with_config("second")).unwrap();
        assert_eq!(commands, []);
    }

    #[test]
    fn a_missing_external_network_is_named() {
        let mut asked = stack();
        asked.external_networks.push("elsewhere".into());
        let error = planned(&deployed(), &asked).unwrap_err().to_string();
        assert!(error.contains("\"elsewhere\" is declared as external, but could not be found"), "{error}");
    }

    #[test]
    fn a_network_is_neither_changed_nor_taken_over() {
        let mut asked = stack();
        asked.networks[0].internal = true;
        let error = planned(&deployed(), &asked).unwrap_err().to_string();
        assert!(error.contains("s_default exists already with other settings (internal)"), "{error}");
        let mut asked = stack();
        asked.networks[0].driver_options.insert(crate::spec::MTU_OPTION.into(), "1400".into());
        let error = planned(&deployed(), &asked).unwrap_err().to_string();
        assert!(error.contains("other settings (driver options)"), "{error}");

        let mut swarm = Fixture::nodes(1);
        swarm.network("outside", &[]);
        swarm.network("s_default", &[]);
        let error = planned(&swarm, &stack()).unwrap_err().to_string();
        assert!(error.contains("s_default exists already and is not part of stack s"), "{error}");
    }
}
