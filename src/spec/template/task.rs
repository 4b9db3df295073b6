//! Templates of a service's hostname, environment and mounts, and of the data of secrets and configs:
//! `{{.Node.Hostname}}`, `{{index .Service.Labels "team"}}`, `{{env "HOME"}}`.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::super::Labels;
use super::{Budget, Lookup, Manner, Template, at_line, check, parse};

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

impl Words {
    /// Of a task that there is not yet, of a service with `labels`.
    pub fn of_any_task(labels: &Labels) -> Words {
        let mut words = SHAPE.clone();
        words["Service"]["Labels"] = json!(labels);
        Words(words)
    }
}

/// Of a service's fields; the data of secrets and configs has a bound of its own.
const MAX_FIELD_BYTES: usize = 64 << 10;

/// `text` with its actions replaced. `lookup`: for the data of secrets and configs only. The error never holds data.
pub fn expand(text: &str, words: &Words, lookup: Option<Lookup<'_>>, budget: &Budget) -> Result<String, String> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    let template = Template::parse(text)?;
    template.check(&SHAPE, &SHAPE, lookup.is_some())?;
    template.render(&words.0, &Manner::of_task(lookup, budget))
}

/// Whether a field of a service can be a template, as far as that is known before there is a task, from
/// [`Words::of_any_task`]. Takes no longer for what the template would do.
pub fn check_field(text: &str, words: &Words) -> Result<(), String> {
    if !text.contains("{{") {
        return Ok(());
    }
    if text.len() > MAX_FIELD_BYTES {
        return Err(format!("its template has more than {MAX_FIELD_BYTES} bytes"));
    }
    Template::parse(text)?.check(&SHAPE, &words.0, false)
}

/// Whether the data of a secret or config can be a template of any service. Of one that `is_secret` the line alone is told.
pub fn check_data(data: &[u8], is_secret: bool) -> Result<(), String> {
    let text = std::str::from_utf8(data).map_err(|_| "a template must be text in UTF-8".to_owned())?;
    let told = |(line, why)| match is_secret {
        true => format!("line {line} is no template; what stands there is not told, as it is a secret's"),
        false => at_line(text.contains('\n'), line, why),
    };
    let parts = parse::template(text).map_err(told)?;
    check::parts(&parts, &SHAPE, &SHAPE, true).map_err(told)
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
