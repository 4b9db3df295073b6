//! What new data of a secret or config does to the services that use it, told and waited for.

use std::fmt::Write;

use clap::Args;

use super::Kind;
use crate::api::client::{Client, escaped};
use crate::api::model::data::{DataReplaced, DataVersions};
use crate::cli::output::print;
use crate::cli::waiting::{self, WaitArgs};

#[derive(Debug, Args)]
pub struct RolloutArgs {
    /// Leave services as they are: they get the data at their next update
    #[arg(long)]
    no_rollout: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

impl RolloutArgs {
    pub fn is_wanted(&self) -> bool {
        !self.no_rollout
    }
}

/// Below `/flok/v1`.
pub fn path(kind: Kind, id: &str, what: &str) -> String {
    format!("/{}s/{}/{what}", kind.word(), escaped(id))
}

/// Says what was done, and waits for the services. One that went back to other data is an error: the newest data is
/// still what its next update would bring.
pub async fn follow(
    client: &Client,
    kind: Kind,
    id: &str,
    replaced: &DataReplaced,
    args: &RolloutArgs,
) -> anyhow::Result<()> {
    print(&render(kind, replaced))?;
    let converged = waiting::converged(client, &replaced.rolled_out, &args.wait).await;
    let how_back = format!("`flok {} rollback {}` puts the earlier data in force", kind.word(), replaced.name);
    if replaced.rolled_out.is_empty() || args.wait.is_detached() {
        return Ok(());
    }
    let now: DataVersions = client.get(&path(kind, id, "versions")).await?;
    let back = gone_back(replaced, &now);
    let (kind, name) = (kind.word(), &replaced.name);
    anyhow::ensure!(
        back.is_empty(),
        "{} went back to earlier data, and {kind} {name} is still at version {}: `flok service ps` shows what failed, {how_back}",
        back.join(", "),
        replaced.version
    );
    converged.map_err(|error| anyhow::anyhow!("{error:#}; {how_back}"))
}

/// Services that were given the data and do not have it any more, where nobody replaced it since.
fn gone_back(replaced: &DataReplaced, now: &DataVersions) -> Vec<String> {
    let Some(newest) = now.versions.first().filter(|newest| newest.version == replaced.version) else {
        return Vec::new();
    };
    let others = now.versions[1..].iter().flat_map(|version| &version.services);
    let back = others.filter(|name| replaced.rolled_out.contains(name) && !newest.services.contains(name));
    back.cloned().collect()
}

fn render(kind: Kind, replaced: &DataReplaced) -> String {
    let DataReplaced { name, version, restored, changed, rolled_out, later } = replaced;
    let kind = kind.word();
    let mut out = match (changed, restored) {
        (false, _) => format!("{kind} {name} has this data already, in version {version}: nothing changed\n"),
        (true, None) => format!("{kind} {name} is at version {version}\n"),
        (true, Some(of)) => format!("{kind} {name} is at version {version}, with the data of version {of}\n"),
    };
    for service in rolled_out {
        writeln!(out, "Updating service {service}").expect("a String takes all");
    }
    for service in later {
        let how = format!("at its next update (`flok service update --force {service}`)");
        writeln!(out, "Service {service} has other data, and gets this {how}").expect("a String takes all");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::model::data::DataVersionShown;

    fn replaced() -> DataReplaced {
        DataReplaced {
            name: "key".into(),
            version: 4,
            restored: Some(1),
            changed: true,
            rolled_out: vec!["api".into(), "web".into()],
            later: vec!["job".into()],
        }
    }

    #[test]
    fn what_is_rolled_out_is_named() {
        let expected = "secret key is at version 4, with the data of version 1\n\
                        Updating service api\nUpdating service web\n\
                        Service job has other data, and gets this at its next update (`flok service update --force job`)\n";
        assert_eq!(render(Kind::Secret, &replaced()), expected);
        let same = DataReplaced { changed: false, rolled_out: vec![], later: vec![], ..replaced() };
        let expected = "config key has this data already, in version 4: nothing changed\n";
        assert_eq!(render(Kind::Config, &same), expected);
    }

    #[test]
    fn a_service_that_went_back_is_found_unless_the_data_was_replaced_again() {
        let version = |version, services: &[&str]| DataVersionShown {
            version,
            created_at: String::new(),
            restored: None,
            size_bytes: None,
            services: services.iter().map(|name| (*name).to_owned()).collect(),
            previously: Vec::new(),
        };
        let now = |versions| DataVersions { name: "key".into(), object_version: 9, versions };
        assert_eq!(gone_back(&replaced(), &now(vec![version(4, &["api"]), version(3, &["web", "other"])])), ["web"]);
        assert!(gone_back(&replaced(), &now(vec![version(4, &["api", "web"])])).is_empty());
        assert!(gone_back(&replaced(), &now(vec![version(5, &["api"]), version(4, &["web"])])).is_empty());
    }
}
