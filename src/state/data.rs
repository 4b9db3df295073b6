//! The data of secrets and configs, version by version: the newest stands in the spec, older ones behind it, so that
//! services which refer to them keep them and a user can go back.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::object::Service;
use super::store::State;
use crate::spec::*;

/// So many of the newest versions are kept, whether a service uses them or not.
pub const KEPT_DATA_VERSIONS: usize = 5;
/// With those that services still use there are never more.
pub const MAX_DATA_VERSIONS: usize = 16;
/// Nor do the older versions of one secret or config together have more bytes: 8 MiB.
pub const MAX_OLDER_DATA_BYTES: usize = 8 << 20;

/// What is known of one version beside its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataRecord {
    pub number: DataVersion,
    /// The log index at which it came.
    pub made_at: Version,
    pub created_at: UnixMs,
    /// It was made by going back to that one.
    pub restored: Option<DataVersion>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OlderData {
    pub record: DataRecord,
    pub data: SecretBytes,
    pub templating: Option<String>,
}

/// Of one secret or config.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataHistory {
    /// Of the data in the spec.
    pub newest: DataRecord,
    /// Oldest first.
    pub older: Vec<OlderData>,
}

/// One version with its data.
#[derive(Debug, Clone, Copy)]
pub struct Data<'a> {
    pub record: DataRecord,
    pub bytes: &'a [u8],
    pub templating: Option<&'a str>,
}

impl DataHistory {
    pub fn begun(made_at: Version, created_at: UnixMs) -> DataHistory {
        let newest = DataRecord { number: DataVersion(1), made_at, created_at, restored: None };
        DataHistory { newest, older: Vec::new() }
    }

    /// Oldest first.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = DataRecord> {
        self.older.iter().map(|older| older.record).chain([self.newest])
    }
}

impl Data<'_> {
    /// Nothing that a task could see tells them apart.
    pub fn is_same(&self, other: &Data<'_>) -> bool {
        (self.bytes, self.templating) == (other.bytes, other.templating)
    }
}

impl State {
    pub fn data_name(&self, id: DataId) -> Option<&str> {
        match id {
            DataId::Secret(id) => self.secret(id).map(|secret| secret.spec.name.as_str()),
            DataId::Config(id) => self.config(id).map(|config| config.spec.name.as_str()),
        }
    }

    pub fn data_history(&self, id: DataId) -> Option<&DataHistory> {
        match id {
            DataId::Secret(id) => self.secret(id).map(|secret| &secret.history),
            DataId::Config(id) => self.config(id).map(|config| &config.history),
        }
    }

    pub fn newest_data(&self, id: DataId) -> Option<Data<'_>> {
        let (history, bytes, templating) = match id {
            DataId::Secret(id) => {
                let secret = self.secret(id)?;
                (&secret.history, secret.spec.data.0.as_slice(), secret.spec.templating.as_deref())
            }
            DataId::Config(id) => {
                let config = self.config(id)?;
                (&config.history, config.spec.data.as_slice(), config.spec.templating.as_deref())
            }
        };
        Some(Data { record: history.newest, bytes, templating })
    }

    /// `None` where there is no such version, or no more.
    pub fn data(&self, id: DataId, number: DataVersion) -> Option<Data<'_>> {
        let newest = self.newest_data(id)?;
        if newest.record.number == number {
            return Some(newest);
        }
        let older = self.data_history(id)?.older.iter().find(|older| older.record.number == number)?;
        let templating = older.templating.as_deref();
        Some(Data { record: older.record, bytes: &older.data.0, templating })
    }

    /// The services that refer to it, in order of their ids.
    pub fn data_users(&self, id: DataId) -> impl Iterator<Item = &std::sync::Arc<Service>> {
        self.services().filter(move |service| service.spec.task.container.uses_data(id))
    }

    /// What of it services and tasks that have not ended refer to, and previous specs, to which services may go back.
    pub(super) fn data_in_use(&self, id: DataId) -> BTreeSet<DataVersion> {
        let mut used = BTreeSet::new();
        for ((service, version), spec) in &self.task_specs {
            let versions = || spec.container.data_used().filter(|(other, _)| *other == id).map(|(_, version)| version);
            if versions().next().is_some() && self.may_still_run(*service, *version) {
                used.extend(versions());
            }
        }
        used
    }

    fn may_still_run(&self, service: ServiceId, version: Version) -> bool {
        let named = self.service(service).is_some_and(|service| {
            service.spec_version == version || service.previous.as_ref().is_some_and(|p| p.spec_version == version)
        });
        named || self.tasks_of_service(service).any(|task| task.spec_version == version && task.outcome.is_none())
    }
}
