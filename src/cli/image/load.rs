//! `flok image load`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use bollard::query_parameters::ImportImageOptions;
use clap::Args;
use futures::StreamExt;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use crate::api::client::Client;
use crate::cli::output::print;

/// Images are large and disks slow.
const WITHIN: Duration = Duration::from_secs(3600);

/// Load images from an archive into this node's store
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok image load -i image.tar
  docker save whoami:1 | flok image load

The archive is what `docker save` writes, or an OCI layout as a tar file.")]
pub struct Load {
    /// Archive to read [default: standard input]
    #[arg(long, short, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Print nothing
    #[arg(long, short)]
    quiet: bool,
}

impl Load {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let input: Box<dyn AsyncRead + Send + Unpin> = match &self.input {
            Some(path) => {
                let file = tokio::fs::File::open(path).await;
                Box::new(file.with_context(|| format!("cannot read {}", path.display()))?)
            }
            None if std::io::IsTerminal::is_terminal(&std::io::stdin()) => {
                anyhow::bail!("there is no archive: name one with -i, or pipe one in")
            }
            None => Box::new(tokio::io::stdin()),
        };
        let docker = client.patient(WITHIN);
        let options = ImportImageOptions { quiet: self.quiet, ..ImportImageOptions::default() };
        let mut answers = Box::pin(docker.import_image_stream(options, ReaderStream::new(input), None));
        while let Some(answer) = answers.next().await {
            let answer = answer.map_err(|error| client.explain(error))?;
            if let (false, Some(text)) = (self.quiet, answer.stream) {
                print(&text)?;
            }
        }
        Ok(())
    }
}
