//! `flok image ls`.

use bollard::models::ImageSummary;
use bollard::query_parameters::ListImagesOptions;
use clap::Args;
use jiff::Timestamp;

use crate::api::client::Client;
use crate::cli::list::ListArgs;
use crate::cli::output::{Table, now};
use crate::spec::quantity::{for_people, format_size};

const SHORT_ID: usize = 12;
const NONE: &str = "<none>";

/// List the images of this node
#[derive(Debug, Args)]
pub struct Ls {
    #[command(flatten)]
    list: ListArgs,
    /// Show every image; none is hidden anyway
    #[arg(long, short)]
    all: bool,
    /// Show the digest by which the repository has each image
    #[arg(long)]
    digests: bool,
    /// Only this repository, or this tag of it; * stands for any text without a slash
    #[arg(value_name = "IMAGE")]
    reference: Option<String>,
}

impl Ls {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let mut filters = self.list.filters();
        filters.entry("reference".into()).or_default().extend(self.reference);
        filters.retain(|_, values| !values.is_empty());
        let options = ListImagesOptions { all: self.all, filters: Some(filters), ..ListImagesOptions::default() };
        let mut images = client.docker().list_images(Some(options)).await.map_err(|error| client.explain(error))?;
        images.sort_by(|a, b| (&a.repo_tags, &a.id).cmp(&(&b.repo_tags, &b.id)));
        if self.list.quiet {
            let ids: Vec<String> = images.iter().map(|image| id(image, self.list.no_trunc)).collect();
            return self.list.show_ids(ids.iter().map(Some));
        }
        self.list.show(&table(&images, self.list.no_trunc, self.digests, now()))
    }
}

/// The last is there for templates, and the one before it where it is asked for.
const COLUMNS: [(&str, &str); 7] = [
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("Size", "SIZE"),
    ("Digest", "DIGEST"),
    ("CreatedAt", "CREATED AT"),
];

/// A row for each name.
fn table(images: &[ImageSummary], whole_ids: bool, digests: bool, now: Timestamp) -> Table {
    let (columns, hidden) = COLUMNS.split_at(if digests { COLUMNS.len() - 1 } else { COLUMNS.len() - 2 });
    let mut table = Table::with_hidden(columns, hidden);
    for image in images {
        let nameless = [format!("{NONE}:{NONE}")];
        let names = if image.repo_tags.is_empty() { &nameless[..] } else { &image.repo_tags };
        for name in names {
            let (repository, tag) = name.rsplit_once(':').unwrap_or((name, NONE));
            table.row([
                repository.to_owned(),
                tag.to_owned(),
                id(image, whole_ids),
                format!("{} ago", for_people(now.as_second() - image.created)),
                format_size(u64::try_from(image.size).unwrap_or(0)),
                digest(image, repository),
                Timestamp::from_second(image.created).map(created_at).unwrap_or_default(),
            ]);
        }
    }
    table
}

/// By which the repository has the image.
fn digest(image: &ImageSummary, repository: &str) -> String {
    let mut digests = image.repo_digests.iter().filter_map(|name| name.split_once('@'));
    digests.find(|(of, _)| *of == repository).map_or_else(|| NONE.to_owned(), |(_, digest)| digest.to_owned())
}

/// As Docker shows it.
fn created_at(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
}

fn id(image: &ImageSummary, whole: bool) -> String {
    let hex = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
    if whole { image.id.clone() } else { hex.chars().take(SHORT_ID).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_a_row_for_each_of_its_names_or_one_without() {
        let image = |tags: &[&str]| ImageSummary {
            id: format!("sha256:{}", "ab".repeat(32)),
            repo_tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            repo_digests: vec!["web@sha256:12".into()],
            created: 1_000,
            size: 3 << 20,
            ..ImageSummary::default()
        };
        let now = Timestamp::from_second(1_000 + 7_200).unwrap();
        let of = |digests| table(&[image(&["reg:5000/web:1", "web:2"]), image(&[])], false, digests, now);
        let images = of(false);
        let text = images.text();
        let json = images.render(crate::cli::output::Format::Json).unwrap();
        let second: serde_json::Value = serde_json::from_str(json.lines().nth(1).unwrap()).unwrap();
        assert_eq!(second["Digest"], "sha256:12", "{json}");
        assert_eq!(second["CreatedAt"], "1970-01-01 00:16:40 +0000 UTC");
        assert_eq!(json.matches("\"Digest\":\"<none>\"").count(), 2, "{json}");
        let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|row| row.split_whitespace().collect()).collect();
        assert_eq!(rows[0][..3], ["reg:5000/web", "1", "abababababab"]);
        assert_eq!(rows[1][..2], ["web", "2"]);
        assert_eq!(rows[2][..2], [NONE, NONE]);
        assert!(!text.contains("sha256:12") && of(true).text().contains("DIGEST\n"), "{text}");
        assert!(of(true).text().contains("sha256:12"));
        assert!(text.contains("2 hours ago") && text.contains("3MiB"), "{text}");
    }
}
