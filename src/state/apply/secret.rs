//! Secrets and configs: alike but for their sizes and who may see them.

use super::{At, check_version, not_found};
use crate::spec::*;
use crate::state::{Config, DataHistory, Refusal, Secret, Service, State};

impl State {
    pub(super) fn create_secret(&mut self, id: SecretId, spec: &SecretSpec, at: At) -> Result<(), Refusal> {
        spec.validate()?;
        if self.secrets.contains_key(&id) || self.secret_names.contains_key(&spec.name) {
            return Err(Refusal::AlreadyExists(format!("secret {} already exists", spec.name)));
        }
        let history = DataHistory::begun(at.version, at.time);
        self.put_secret(Secret { id, meta: at.created(), spec: spec.clone(), history });
        Ok(())
    }

    pub(super) fn update_secret(
        &mut self,
        id: SecretId,
        version: Version,
        spec: &SecretSpec,
        at: At,
    ) -> Result<(), Refusal> {
        let secret = self.secrets.get(&id).ok_or_else(|| not_found("secret", id))?;
        check_version(secret.meta.version, version)?;
        spec.validate()?;
        let mut secret = secret.as_ref().clone();
        let labels = std::mem::replace(&mut secret.spec.labels, spec.labels.clone());
        if secret.spec != *spec {
            return Err(only_labels());
        }
        if labels != spec.labels {
            at.changed(&mut secret.meta);
        }
        self.put_secret(secret);
        Ok(())
    }

    pub(super) fn remove_secret(&mut self, id: SecretId) -> Result<(), Refusal> {
        let secret = self.secrets.get(&id).ok_or_else(|| not_found("secret", id))?;
        self.check_unused("secret", &secret.spec.name, |spec| spec.secrets.iter().any(|r| r.id == id))?;
        let name = secret.spec.name.clone();
        self.secrets.remove(&id);
        self.secret_names.remove(&name);
        Ok(())
    }

    pub(super) fn create_config(&mut self, id: ConfigId, spec: &ConfigSpec, at: At) -> Result<(), Refusal> {
        spec.validate()?;
        if self.configs.contains_key(&id) || self.config_names.contains_key(&spec.name) {
            return Err(Refusal::AlreadyExists(format!("config {} already exists", spec.name)));
        }
        let history = DataHistory::begun(at.version, at.time);
        self.put_config(Config { id, meta: at.created(), spec: spec.clone(), history });
        Ok(())
    }

    pub(super) fn update_config(
        &mut self,
        id: ConfigId,
        version: Version,
        spec: &ConfigSpec,
        at: At,
    ) -> Result<(), Refusal> {
        let config = self.configs.get(&id).ok_or_else(|| not_found("config", id))?;
        check_version(config.meta.version, version)?;
        spec.validate()?;
        let mut config = config.as_ref().clone();
        let labels = std::mem::replace(&mut config.spec.labels, spec.labels.clone());
        if config.spec != *spec {
            return Err(only_labels());
        }
        if labels != spec.labels {
            at.changed(&mut config.meta);
        }
        self.put_config(config);
        Ok(())
    }

    pub(super) fn remove_config(&mut self, id: ConfigId) -> Result<(), Refusal> {
        let config = self.configs.get(&id).ok_or_else(|| not_found("config", id))?;
        self.check_unused("config", &config.spec.name, |spec| spec.configs.iter().any(|r| r.id == id))?;
        let name = config.spec.name.clone();
        self.configs.remove(&id);
        self.config_names.remove(&name);
        Ok(())
    }

    /// The words are Docker's, and name every service that is in the way.
    fn check_unused(&self, kind: &str, name: &str, uses: impl Fn(&ContainerSpec) -> bool) -> Result<(), Refusal> {
        let in_use = |service: &Service| uses(&service.spec.task.container);
        let users: Vec<&str> =
            self.services().filter(|service| in_use(service)).map(|service| service.spec.name.as_str()).collect();
        if users.is_empty() {
            return Ok(());
        }
        let plural = if users.len() == 1 { "" } else { "s" };
        Err(Refusal::Invalid(format!(
            "{kind} '{name}' is in use by the following service{plural}: {}",
            users.join(", ")
        )))
    }
}

fn only_labels() -> Refusal {
    Refusal::Invalid("only updates to Labels are allowed".into())
}
