//! Deploying and removing a stack in one transaction.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};

use crate::api::docker::{Body, services::refuse_unsupported};
use crate::api::model::stack::{STACK_LABEL, StackChanged, StackDeploy};
use crate::api::{ApiError, Backend, Read, WriteError};
use crate::spec::{SecretBytes, ServiceId, ServiceSpec};
use crate::state::{Command, CredentialsUpdate, Refusal, Service};

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
    if services.is_empty() {
        return Err(ApiError::NotFound(format!("nothing found in stack: {name}")));
    }
    let removed = services.iter().map(|service| service.spec.name.clone()).collect();
    let commands = services.iter().map(|service| Command::RemoveService { id: service.id }).collect();
    backend.propose(Command::Transaction(commands)).await?;
    Ok(Json(StackChanged { removed, ..StackChanged::default() }))
}

fn validate(name: &str, stack: &StackDeploy) -> Result<(), ApiError> {
    if !stack.networks.is_empty() || !stack.secrets.is_empty() || !stack.configs.is_empty() {
        return Err(ApiError::NotImplemented(format!(
            "stack {name}: networks, secrets and configs are not supported yet"
        )));
    }
    for service in &stack.services {
        refuse_unsupported(service)?;
        if service.labels.get(STACK_LABEL).map(String::as_str) != Some(name) {
            return Err(ApiError::invalid(format!(
                "service {} does not carry the label {STACK_LABEL}={name}",
                service.name
            )));
        }
    }
    Ok(())
}

fn of_stack<'a>(name: &'a str, read: &'a Read) -> impl Iterator<Item = &'a Arc<Service>> {
    read.state.services().filter(move |service| service.spec.labels.get(STACK_LABEL).is_some_and(|stack| stack == name))
}

fn plan(
    name: &str,
    stack: &StackDeploy,
    read: &Read,
    new_id: impl Fn() -> u128,
) -> Result<(Vec<Command>, StackChanged), ApiError> {
    let mut commands = Vec::new();
    let mut changed = StackChanged::default();
    for spec in &stack.services {
        let credentials = stack.credentials.get(&spec.name).map(|auth| SecretBytes(auth.clone().into_bytes()));
        match read.state.service_by_name(&spec.name) {
            None => {
                changed.created.push(spec.name.clone());
                let id = ServiceId(new_id());
                commands.push(Command::CreateService { id, spec: Box::new(spec.clone()), credentials });
            }
            Some(service) => match update(name, service, spec, credentials)? {
                Some(command) => {
                    changed.updated.push(spec.name.clone());
                    commands.push(command);
                }
                None => changed.unchanged.push(spec.name.clone()),
            },
        }
    }
    if stack.prune {
        for service in of_stack(name, read) {
            if !stack.services.iter().any(|spec| spec.name == service.spec.name) {
                changed.removed.push(service.spec.name.clone());
                commands.push(Command::RemoveService { id: service.id });
            }
        }
    }
    Ok((commands, changed))
}

fn update(
    stack: &str,
    service: &Service,
    spec: &ServiceSpec,
    credentials: Option<SecretBytes>,
) -> Result<Option<Command>, ApiError> {
    if service.spec.labels.get(STACK_LABEL).map(String::as_str) != Some(stack) {
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
    if service.spec == spec && credentials.is_none() {
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
