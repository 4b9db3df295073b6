//! `flok secret create`, `flok config create`.

use std::fs::File;
use std::io::Read;

use anyhow::Context;
use base64::Engine as _;
use bollard::models::{ConfigSpec, Driver};
use clap::Args;

use super::Kind;
use crate::api::client::Client;
use crate::cli::key_value;
use crate::cli::output::print;
use crate::spec::{MAX_CONFIG_BYTES, MAX_SECRET_BYTES};

/// Create one from a file, or from standard input
#[derive(Debug, Args)]
pub struct Create {
    /// Label; repeat it
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = key_value)]
    label: Vec<(String, String)>,
    /// Fill the data in for each task, as a template of golang
    #[arg(long, value_name = "DRIVER", value_parser = ["golang"])]
    template_driver: Option<String>,
    /// What it is to be called
    #[arg(value_name = "NAME")]
    name: String,
    /// File with the data; -: standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: String,
}

impl Create {
    pub async fn run(self, kind: Kind, client: &Client) -> anyhow::Result<()> {
        let data = read(&self.file, kind)?;
        let spec = ConfigSpec {
            name: Some(self.name),
            labels: Some(self.label.into_iter().collect()),
            data: Some(base64::engine::general_purpose::STANDARD.encode(data)),
            templating: self.template_driver.map(|name| Driver { name, options: None }),
        };
        let id = kind.create(client, spec).await?;
        print(&format!("{id}\n"))
    }
}

/// The data in a file, or with `-` in standard input. No more than one byte too many is read.
pub(super) fn read(file: &str, kind: Kind) -> anyhow::Result<Vec<u8>> {
    let most = if kind == Kind::Secret { MAX_SECRET_BYTES } else { MAX_CONFIG_BYTES };
    let mut data = Vec::new();
    let bound = most as u64 + 1;
    let done = match file {
        "-" => std::io::stdin().take(bound).read_to_end(&mut data),
        path => File::open(path).and_then(|file| file.take(bound).read_to_end(&mut data)),
    };
    done.with_context(|| format!("read {file}"))?;
    anyhow::ensure!(!data.is_empty(), "{file} is empty: there must be at least one byte");
    anyhow::ensure!(data.len() <= most, "{file} has more than {most} bytes, which is the most there may be");
    Ok(data)
}
