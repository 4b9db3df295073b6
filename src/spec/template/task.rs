//! Templates of a service's hostname, environment and mounts, and of the data of secrets and configs:
//! `{{.Node.Hostname}}`, `{{index .Service.Labels "team"}}`, `{{env "HOME"}}`.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::super::Labels;
use super::{Lookup, Manner, Template};

/// What a template may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub service_id: &'a str,
    pub service_name: &'a str,
    pub service_labels: &'a Labels,
    pub node_id: &'a str,
    pub node_hostname: &'a str,
    pub node_os: &'a str,
    pub node_architecture: &'a str,
    pub task_id: &'a str,
    pub task_name: &'a str,
    pub task_slot: &'a str,
}

impl Context<'_> {
    pub fn words(&self) -> Words {
        Words(json!({
            "Service": {"ID": self.service_id, "Name": self.service_name, "Labels": self.service_labels},
            "Node": {
                "ID": self.node_id,
                "Hostname": self.node_hostname,
                "Platform": {"OS": self.node_os, "Architecture": self.node_architecture},
            },
            "Task": {"ID": self.task_id, "Name": self.task_name, "Slot": self.task_slot},
        }))
    }
}

/// A [`Context`] by the names of its fields.
#[derive(Debug, Clone)]
pub struct Words(Value);

/// `text` with its actions replaced. `lookup`: for the data of secrets and configs only. The error never holds data.
pub fn expand(text: &str, words: &Words, lookup: Option<Lookup<'_>>) -> Result<String, String> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    let template = Template::parse(text)?;
    template.check(&SHAPE, lookup.is_some())?;
    template.render(&words.0, &Manner::of_task(lookup))
}

/// Whether the data of a secret or config can be a template of any service.
pub fn check_data(data: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(data).map_err(|_| "a template must be text in UTF-8".to_owned())?;
    Template::parse(text)?.check(&SHAPE, true)
}

/// Any task's words; labels are known of a service alone.
static SHAPE: LazyLock<Value> = LazyLock::new(|| {
    let Words(mut shape) = Context {
        service_id: "",
        service_name: "",
        service_labels: &Labels::new(),
        node_id: "",
        node_hostname: "",
        node_os: "",
        node_architecture: "",
        task_id: "",
        task_name: "",
        task_slot: "",
    }
    .words();
    shape["Service"]["Labels"] = Value::Null;
    shape
});
