//! Secrets and configs of a stack: made with it, found by their names, given new data in place, and gone with it.

use std::collections::BTreeMap;

use crate::api::model::stack::{StackChanged, StackDeploy};
use crate::api::{ApiError, Read};
use crate::spec::*;
use crate::state::{Command, NewData, Service, State};

/// What services refer to, by name: the ids of what is there, and of what the same transaction makes.
#[derive(Default)]
pub struct Ids {
    secrets: BTreeMap<String, SecretId>,
    configs: BTreeMap<String, ConfigId>,
    /// What gets new data.
    replaced: BTreeMap<DataId, NewData>,
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
    let mut ids = Ids::default();
    for spec in &stack.secrets {
        let Some(found) = state.secret_by_name(&spec.name) else {
            let id = SecretId(new_id());
            ids.secrets.insert(spec.name.clone(), id);
            changed.created_secrets.push(spec.name.clone());
            commands.push(Command::CreateSecret { id, spec: spec.clone() });
            continue;
        };
        check_owner("secret", &spec.name, name, &found.spec.labels)?;
        let (id, version) = (found.id, found.meta.version);
        if (&found.spec.data, &found.spec.templating) != (&spec.data, &spec.templating) {
            changed.updated_secrets.push(spec.name.clone());
            let new = new_data(&spec.labels, spec.data.clone(), spec.templating.as_ref());
            commands.push(ids.replace(DataId::Secret(id), version, new));
        } else if found.spec != *spec {
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
        check_owner("config", &spec.name, name, &found.spec.labels)?;
        let (id, version) = (found.id, found.meta.version);
        if (&found.spec.data, &found.spec.templating) != (&spec.data, &spec.templating) {
            changed.updated_configs.push(spec.name.clone());
            let new = new_data(&spec.labels, SecretBytes(spec.data.clone()), spec.templating.as_ref());
            commands.push(ids.replace(DataId::Config(id), version, new));
        } else if found.spec != *spec {
            commands.push(Command::UpdateConfig { id, version, spec: spec.clone() });
        }
    }
    Ok((commands, ids))
}

fn check_owner(kind: &str, object: &str, stack: &str, labels: &Labels) -> Result<(), ApiError> {
    if super::stack::stack_of(labels) == Some(stack) {
        return Ok(());
    }
    Err(ApiError::Conflict(format!(
        "{kind} {object} exists already and is not part of stack {stack}: remove it, or name it as external"
    )))
}

fn new_data(labels: &Labels, data: SecretBytes, templating: Option<&String>) -> NewData {
    NewData { labels: labels.clone(), data, templating: templating.cloned(), restored: None, roll_out: true }
}

impl Ids {
    fn replace(&mut self, id: DataId, version: Version, new: NewData) -> Command {
        self.replaced.insert(id, new.clone());
        Command::ReplaceData { id, version, new: Box::new(new) }
    }

    /// The service's tasks are replaced because they get new data, whatever else changes.
    pub fn give_new_data(&self, service: &Service, state: &State) -> bool {
        let is_new = |(id, version): (DataId, DataVersion)| {
            let Some(new) = self.replaced.get(&id) else { return false };
            let same = (new.data.0.as_slice(), new.templating.as_deref());
            state.data(id, version).is_none_or(|has| (has.bytes, has.templating) != same)
        };
        service.spec.may_get_new_data() && service.spec.task.container.data_used().any(is_new)
    }

    /// The deployment has no other data, and the service not the newest: it went back.
    pub fn leave_older_data(&self, service: &Service, state: &State) -> bool {
        state.lacks_newest(&service.spec, |id| !self.replaced.contains_key(&id))
    }

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
