//! New data for secrets and configs, and what versions of it there are.

use serde::{Deserialize, Serialize};

use crate::spec::Labels;

/// `POST /flok/v1/secrets/{name}/data`, and the same of configs.
#[derive(Clone, Serialize, Deserialize)]
pub struct DataUpdate {
    /// Of the object, as it was read: compared and set.
    pub version: u64,
    /// In base64.
    pub data: String,
    /// As they are to be; `None`: as they are.
    #[serde(default)]
    pub labels: Option<Labels>,
    /// `false`: services get it at their next update.
    pub roll_out: bool,
}

/// `POST /flok/v1/secrets/{name}/rollback`, and the same of configs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DataRollback {
    pub version: u64,
    /// `None`: to the version before the newest.
    #[serde(default)]
    pub to: Option<u64>,
    pub roll_out: bool,
}

/// What either of them did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataReplaced {
    pub name: String,
    /// The newest version of the data now.
    pub version: u64,
    /// Version whose data it is again.
    #[serde(default)]
    pub restored: Option<u64>,
    /// `false`: the data is what it was.
    pub changed: bool,
    /// Services whose tasks are being replaced.
    pub rolled_out: Vec<String>,
    /// Services that have other data, and get the newest at their next update; jobs at their next run.
    pub later: Vec<String>,
}

/// `GET /flok/v1/secrets/{name}/versions`: newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataVersions {
    pub name: String,
    /// Of the object, to compare and set.
    pub object_version: u64,
    pub versions: Vec<DataVersionShown>,
}

/// Nothing here tells of a secret what it is, nor how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataVersionShown {
    pub version: u64,
    /// RFC 3339.
    pub created_at: String,
    /// Version whose data it is again.
    pub restored: Option<u64>,
    /// Of a config.
    pub size_bytes: Option<u64>,
    /// Services whose tasks get it.
    pub services: Vec<String>,
    /// Services that would get it by `service rollback`.
    pub previously: Vec<String>,
}
