//! `flok image pull`.

use std::io::IsTerminal;
use std::time::Duration;

use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptions;
use clap::Args;
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};

use crate::api::client::Client;
use crate::cli::output::print;
use crate::cli::registry_auth::Logins;
use crate::spec::image::ImageReference;

/// Images are large and registries slow.
const WITHIN: Duration = Duration::from_secs(3600);

/// Pull images from their registries into this node's store, with your `docker login`
///
/// Nodes pull what their tasks need by themselves: this is for having it there before.
#[derive(Debug, Args)]
pub struct Pull {
    /// Print nothing but the images' names
    #[arg(long, short)]
    quiet: bool,
    /// Refuse an image that is not of this platform, for example linux/arm64
    #[arg(long, value_name = "OS[/ARCHITECTURE]")]
    platform: Option<String>,
    /// Names, with a tag or digest
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Pull {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let logins = Logins::load()?;
        crate::cli::each(self.images, async |image| {
            let credentials = logins.of(&image)?;
            let tag = default_tag(&image);
            let platform = self.platform.clone().unwrap_or_default();
            let from_image = Some(image.clone());
            let options = CreateImageOptions { from_image, tag, platform, ..CreateImageOptions::default() };
            let docker = client.patient(WITHIN);
            let mut answers = Box::pin(docker.create_image(Some(options), None, credentials));
            let mut shown = Shown::new(self.quiet);
            while let Some(answer) = answers.next().await {
                shown.show(&answer.map_err(|error| client.explain(error))?)?;
            }
            shown.finish();
            if self.quiet { print(&format!("{image}\n")) } else { Ok(()) }
        })
        .await
    }
}

/// Without one, the API means all tags that there are.
fn default_tag(image: &str) -> Option<String> {
    let read = image.parse::<ImageReference>().ok()?;
    (read.tag.is_none() && read.digest.is_none()).then(|| "latest".to_owned())
}

/// What the user sees: a bar on a terminal, and lines of what was begun and what came of it everywhere.
struct Shown {
    bar: Option<ProgressBar>,
    quiet: bool,
}

impl Shown {
    fn new(quiet: bool) -> Shown {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let style =
                ProgressStyle::with_template("[{bar:40}] {bytes}/{total_bytes} {binary_bytes_per_sec}, {eta} left");
            ProgressBar::new(0).with_style(style.expect("the template is well formed").progress_chars("=> "))
        });
        Shown { bar, quiet }
    }

    fn show(&mut self, answer: &CreateImageInfo) -> anyhow::Result<()> {
        let progress = answer.progress_detail.as_ref().and_then(|detail| detail.current.zip(detail.total));
        match (progress, &self.bar, &answer.status) {
            (Some((current, total)), Some(bar), _) => {
                bar.set_length(u64::try_from(total).unwrap_or(0));
                bar.set_position(u64::try_from(current).unwrap_or(0));
            }
            (Some(_), None, _) => {}
            (None, Some(bar), Some(status)) => bar.suspend(|| print(&format!("{status}\n")))?,
            (None, None, Some(status)) if !self.quiet => print(&format!("{status}\n"))?,
            _ => {}
        }
        Ok(())
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
