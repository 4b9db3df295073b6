//! New data for a secret or config that exists, and which data each service gets.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{At, check_version, not_found};
use crate::spec::*;
use crate::state::{
    Command, DataHistory, DataRecord, KEPT_DATA_VERSIONS, MAX_DATA_VERSIONS, MAX_OLDER_DATA_BYTES, NewData, OlderData,
    Refusal, Service, State,
};

impl State {
    /// Data that is there already is no new version; labels change with it all the same.
    pub(super) fn replace_data(&mut self, id: DataId, version: Version, new: &NewData, at: At) -> Result<(), Refusal> {
        match id {
            DataId::Secret(secret) => {
                let old = self.secrets.get(&secret).cloned().ok_or_else(|| not_found("secret", secret))?;
                check_version(old.meta.version, version)?;
                let spec = SecretSpec {
                    name: old.spec.name.clone(),
                    labels: new.labels.clone(),
                    data: new.data.clone(),
                    templating: new.templating.clone(),
                };
                spec.validate()?;
                let mut secret = old.as_ref().clone();
                secret.history = self.next_history(id, new, at)?;
                if secret.spec != spec {
                    secret.spec = spec;
                    at.changed(&mut secret.meta);
                }
                self.put_secret(secret);
            }
            DataId::Config(config) => {
                let old = self.configs.get(&config).cloned().ok_or_else(|| not_found("config", config))?;
                check_version(old.meta.version, version)?;
                let spec = ConfigSpec {
                    name: old.spec.name.clone(),
                    labels: new.labels.clone(),
                    data: new.data.0.clone(),
                    templating: new.templating.clone(),
                };
                spec.validate()?;
                let mut config = old.as_ref().clone();
                config.history = self.next_history(id, new, at)?;
                if config.spec != spec {
                    config.spec = spec;
                    at.changed(&mut config.meta);
                }
                self.put_config(config);
            }
        }
        Ok(())
    }

    /// The history with `new` as its newest, without what nobody could ask for any more.
    fn next_history(&self, id: DataId, new: &NewData, at: At) -> Result<DataHistory, Refusal> {
        let (Some(newest), Some(history)) = (self.newest_data(id), self.data_history(id)) else {
            unreachable!("the caller has found it");
        };
        let mut history = history.clone();
        if (newest.bytes, newest.templating) == (new.data.0.as_slice(), new.templating.as_deref()) {
            return Ok(history);
        }
        let record = DataRecord {
            number: DataVersion(newest.record.number.0 + 1),
            made_at: at.version,
            created_at: at.time,
            restored: new.restored,
        };
        let templating = newest.templating.map(str::to_owned);
        history.older.push(OlderData { record: newest.record, data: SecretBytes(newest.bytes.to_vec()), templating });
        history.newest = record;
        let used = self.data_in_use(id);
        let first_kept = record.number.0.saturating_sub(KEPT_DATA_VERSIONS as u64 - 1);
        history.older.retain(|older| older.record.number.0 >= first_kept || used.contains(&older.record.number));
        let bytes: usize = history.older.iter().map(|older| older.data.0.len()).sum();
        if history.older.len() >= MAX_DATA_VERSIONS || bytes > MAX_OLDER_DATA_BYTES {
            return Err(self.too_many_versions(id, history.older[0].record.number));
        }
        Ok(history)
    }

    fn too_many_versions(&self, id: DataId, oldest: DataVersion) -> Refusal {
        let names = |service: &Arc<Service>| {
            let previous = service.previous.iter().flat_map(|previous| previous.spec.task.container.data_used());
            let mut used = service.spec.task.container.data_used().chain(previous);
            used.any(|one| one == (id, oldest)).then(|| service.spec.name.clone())
        };
        let users: Vec<String> = self.services().filter_map(names).collect();
        let users = if users.is_empty() { "tasks that still stop".to_owned() } else { users.join(", ") };
        Refusal::Precondition(format!(
            "{} {} has too many earlier versions in use ({MAX_DATA_VERSIONS} versions, or {} MiB of earlier data, are the \
             most): version {oldest} is used by {users}; update those services twice, with --force where nothing else \
             changes, then try again",
            id.kind(),
            self.data_name(id).unwrap_or_default(),
            MAX_OLDER_DATA_BYTES >> 20,
        ))
    }

    /// Chooses the data that the tasks of `spec` get: the newest, unless they are those of the spec in force and nothing
    /// else replaces them.
    pub(super) fn choose_data(&self, spec: &mut ServiceSpec, in_force: Option<&ServiceSpec>, at: At) {
        if let Some(old) = in_force {
            spec.task.container.keep_data_versions(&old.task.container);
            let replaced = |id| self.data_history(id).is_some_and(|history| history.newest.made_at == at.version);
            if spec.task == old.task && !self.lacks_newest(old, replaced) {
                return;
            }
        }
        self.choose_newest(spec);
    }

    fn choose_newest(&self, spec: &mut ServiceSpec) {
        let newest = |id| self.data_history(id).map(|history| history.newest.number).unwrap_or_default();
        spec.task.container.set_data_versions(newest);
    }

    /// The tasks would see other data, were the newest given to them. A job does not run again for that; one with a
    /// schedule runs anyway.
    pub fn lacks_newest(&self, spec: &ServiceSpec, of: impl Fn(DataId) -> bool) -> bool {
        let differs = |(id, version): (DataId, DataVersion)| {
            let has = self.data(id, version);
            has.is_none_or(|has| self.newest_data(id).is_some_and(|newest| !newest.is_same(&has)))
        };
        spec.may_get_new_data() && spec.task.container.data_used().filter(|(id, _)| of(*id)).any(differs)
    }

    /// Gives the services that use data which `commands` replaced the newest of it, each by an update of its own. Returns
    /// them.
    pub(super) fn roll_out_data(&mut self, commands: &[Command], at: At) -> Vec<ServiceId> {
        let replaced = commands.iter().filter_map(|command| match command {
            Command::ReplaceData { id, new, .. } if new.roll_out => Some(*id),
            _ => None,
        });
        let is_new = |id: &DataId| self.data_history(*id).is_some_and(|history| history.newest.made_at == at.version);
        let replaced: BTreeSet<DataId> = replaced.filter(is_new).collect();
        if replaced.is_empty() {
            return Vec::new();
        }
        let lacking = |service: &&Arc<Service>| self.lacks_newest(&service.spec, |id| replaced.contains(&id));
        let services: Vec<Arc<Service>> = self.services().filter(lacking).cloned().collect();
        let ids = services.iter().map(|service| service.id).collect();
        for service in services {
            let mut service = service.as_ref().clone();
            let mut spec = service.spec.clone();
            self.choose_newest(&mut spec);
            self.put_in_force(&mut service, spec, at);
            self.put_service(service);
        }
        ids
    }
}
