//! What deploying a stack would do: the answer of `POST /flok/v1/stacks/{name}/plan`, whose body is that of the deployment.

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StackPlan {
    pub stack: String,
    /// Networks, secrets and configs.
    pub objects: Vec<ObjectPlan>,
    pub services: Vec<ServicePlan>,
    /// The forecast came to its end; else the update has more steps than are shown.
    pub complete: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Create,
    Update,
    Remove,
    Unchanged,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObjectPlan {
    pub action: Action,
    /// `network`, `secret` or `config`.
    pub kind: String,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServicePlan {
    pub action: Action,
    pub name: String,
    /// What is different; for a new service, what is not as it is anyway.
    pub fields: Vec<FieldChange>,
    /// New tasks.
    pub starts: Vec<TaskPlan>,
    /// Tasks that run, or are to, and would be stopped.
    pub stops: Vec<TaskPlan>,
    /// What new tasks would wait for before they start: `db to be healthy`.
    #[serde(default)]
    pub waits_for: Vec<String>,
    /// The services whose update replaces the tasks of this one, whose own spec asks for nothing new: it depends on them with
    /// `restart`.
    #[serde(default)]
    pub restarts_with: Vec<String>,
}

/// One field, by its path in the spec. `None`: it is not there, or says nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldChange {
    pub path: String,
    pub from: Option<Value>,
    pub to: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskPlan {
    /// `web.1`, or for a global service `web.node-3`.
    pub name: String,
    /// Name of the node; `None` where it found none.
    pub node: Option<String>,
    /// Why it found none; empty where it did, and where its turn comes later.
    pub reason: String,
}

impl TaskPlan {
    /// It was looked for a place for it, and there is none.
    pub fn is_unplaced(&self) -> bool {
        self.node.is_none() && !self.reason.is_empty()
    }
}

impl StackPlan {
    pub fn has_changes(&self) -> bool {
        !self.objects.is_empty() || self.services.iter().any(|service| service.action != Action::Unchanged)
    }

    /// Tasks that would find no place.
    pub fn unplaced(&self) -> usize {
        self.services.iter().flat_map(|service| &service.starts).filter(|task| task.is_unplaced()).count()
    }

    /// Tasks that would start, at once or later.
    pub fn starting(&self) -> usize {
        self.services.iter().flat_map(|service| &service.starts).filter(|task| !task.is_unplaced()).count()
    }
}
