//! `flok secret inspect`, `flok config inspect`.

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::models::{Config, Secret};
use clap::Args;

use super::Kind;
use super::kind::Object;
use crate::api::client::Client;
use crate::cli::output::{JsonArg, print};

/// Show what is known of them; never the data of a secret
#[derive(Debug, Args)]
pub struct Inspect {
    /// For people instead of as JSON
    #[arg(long, conflicts_with = "format")]
    pretty: bool,
    #[command(flatten)]
    format: JsonArg,
    /// Names or ids
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Inspect {
    pub async fn run(self, kind: Kind, client: &Client) -> anyhow::Result<()> {
        match kind {
            Kind::Secret => self.secrets(client).await,
            Kind::Config => self.configs(client).await,
        }
    }

    async fn secrets(self, client: &Client) -> anyhow::Result<()> {
        let mut secrets: Vec<Secret> = Vec::new();
        for name in &self.names {
            secrets.push(client.docker().inspect_secret(name).await.map_err(|error| client.explain(error))?);
        }
        if !self.pretty {
            return self.format.show(&secrets);
        }
        let shown = secrets.into_iter().map(|secret| pretty(&Object::of_secret(secret), None));
        print(&shown.collect::<Vec<_>>().join("\n"))
    }

    async fn configs(self, client: &Client) -> anyhow::Result<()> {
        let mut configs: Vec<Config> = Vec::new();
        for name in &self.names {
            configs.push(client.docker().inspect_config(name).await.map_err(|error| client.explain(error))?);
        }
        if !self.pretty {
            return self.format.show(&configs);
        }
        let shown = configs.into_iter().map(|config| {
            let data = config.spec.as_ref().and_then(|spec| spec.data.as_deref()).unwrap_or_default();
            let data = STANDARD.decode(data).unwrap_or_default();
            pretty(&Object::of_config(config), Some(&String::from_utf8_lossy(&data)))
        });
        print(&shown.collect::<Vec<_>>().join("\n"))
    }
}

/// In Docker's words; the data of a config stands below.
fn pretty(object: &Object, data: Option<&str>) -> String {
    let mut out = format!("ID:           {}\nName:         {}\n", object.id, object.name);
    let mut labels: Vec<_> = object.labels.iter().collect();
    labels.sort();
    if !labels.is_empty() {
        out.push_str("Labels:\n");
    }
    for (key, value) in labels {
        writeln!(out, " - {key}={value}").expect("a String takes all");
    }
    let times = [("Created at", &object.created), ("Updated at", &object.updated)];
    for (title, time) in times.into_iter().filter_map(|(title, time)| Some((title, time.as_ref()?))) {
        writeln!(out, "{title}:   {time}").expect("a String takes all");
    }
    if let Some(data) = data {
        writeln!(out, "Data:\n{}", data.trim_end_matches('\n')).expect("a String takes all");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_is_shown_with_its_data_and_a_secret_is_not() {
        let object = Object {
            id: "1".into(),
            name: "site".into(),
            labels: [("b".into(), "2".into()), ("a".into(), String::new())].into(),
            created: Some("2026-01-01T00:00:00Z".into()),
            ..Object::default()
        };
        let head = "\
ID:           1
Name:         site
Labels:
 - a=
 - b=2
Created at:   2026-01-01T00:00:00Z
";
        assert_eq!(pretty(&object, None), head);
        assert_eq!(pretty(&object, Some("x\ny\n")), format!("{head}Data:\nx\ny\n"));
    }
}
