//! Secrets and configs of a stack: made with it, found by their names, and gone with it. Their data does not change.

use std::collections::BTreeMap;

use crate::api::model::stack::{StackChanged, StackDeploy};
use crate::api::{ApiError, Read};
use crate::spec::*;
use crate::state::{Command, State};

/// What services refer to, by name: the ids of what is there, and of what the same transaction makes.
pub struct Ids {
    secrets: BTreeMap<String, SecretId>,
    configs: BTreeMap<String, ConfigId>,
}

/// The commands that come before the services.
pub fn plan(
    name: &str,
    stack: &StackDeploy,
    state: &State,
    new_id: impl Fn() -> u128,
    changed: &mut StackChanged,
) -> Result<(Vec<Command>, Ids), ApiError> {
    let mut commands = Vec::new();
    let mut ids = Ids { secrets: BTreeMap::new(), configs: BTreeMap::new() };
    for spec in &stack.secrets {
        let Some(found) = state.secret_by_name(&spec.name) else {
            let id = SecretId(new_id());
            ids.secrets.insert(spec.name.clone(), id);
            changed.created_secrets.push(spec.name.clone());
            commands.push(Command::CreateSecret { id, spec: spec.clone() });
            continue;
        };
        let same = (&found.spec.data, &found.spec.templating) == (&spec.data, &spec.templating);
        check("secret", &spec.name, name, &found.spec.labels, same)?;
        if found.spec != *spec {
            let (id, version) = (found.id, found.meta.version);
            commands.push(Command::UpdateSecret { id, version, spec: spec.clone() });
        }
    }
    for spec in &stack.configs {
        let Some(found) = state.config_by_name(&spec.name) else {
            let id = ConfigId(new_id());
            ids.configs.insert(spec.name.clone(), id);
            changed.created_configs.push(spec.name.clone());
            commands.push(Command::CreateConfig { id, spec: spec.clone() });
            continue;
        };
        let same = (&found.spec.data, &found.spec.templating) == (&spec.data, &spec.templating);
        check("config", &spec.name, name, &found.spec.labels, same)?;
        if found.spec != *spec {
            let (id, version) = (found.id, found.meta.version);
            commands.push(Command::UpdateConfig { id, version, spec: spec.clone() });
        }
    }
    Ok((commands, ids))
}

fn check(kind: &str, object: &str, stack: &str, labels: &Labels, same_data: bool) -> Result<(), ApiError> {
    if super::stack::stack_of(labels) != Some(stack) {
        return Err(ApiError::Conflict(format!(
            "{kind} {object} exists already and is not part of stack {stack}: remove it, or name it as external"
        )));
    }
    if !same_data {
        return Err(ApiError::Conflict(format!(
            "{kind} {object} exists already with other data, and only updates to Labels are allowed: give the new data a \
             new name (name: {object}_2, say)"
        )));
    }
    Ok(())
}

impl Ids {
    /// The service with the ids of the secrets and configs it names.
    pub fn resolve(&self, mut spec: ServiceSpec, state: &State) -> Result<ServiceSpec, ApiError> {
        let missing = |kind: &str, name: &str| {
            ApiError::invalid(format!(
                "service {}: {kind} not found: {name}; make it first: flok {kind} create {name} FILE",
                spec.name
            ))
        };
        for secret in &mut spec.task.container.secrets {
            let there = state.secret_by_name(&secret.name).map(|found| found.id);
            let id = self.secrets.get(&secret.name).copied().or(there);
            secret.id = id.ok_or_else(|| missing("secret", &secret.name))?;
        }
        for config in &mut spec.task.container.configs {
            let there = state.config_by_name(&config.name).map(|found| found.id);
            let id = self.configs.get(&config.name).copied().or(there);
            config.id = id.ok_or_else(|| missing("config", &config.name))?;
        }
        Ok(spec)
    }
}

/// What a stack owns of them goes behind the services that use it.
pub fn remove(name: &str, read: &Read, changed: &mut StackChanged) -> Vec<Command> {
    let mut commands = Vec::new();
    let owned = |labels: &Labels| super::stack::stack_of(labels) == Some(name);
    for secret in read.state.secrets().filter(|secret| owned(&secret.spec.labels)) {
        changed.removed_secrets.push(secret.spec.name.clone());
        commands.push(Command::RemoveSecret { id: secret.id });
    }
    for config in read.state.configs().filter(|config| owned(&config.spec.labels)) {
        changed.removed_configs.push(config.spec.name.clone());
        commands.push(Command::RemoveConfig { id: config.id });
    }
    commands
}
