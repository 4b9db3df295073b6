//! Secrets and configs of `service create` and `service update`: how they are written, and found by their names.

use bollard::models::*;

use crate::api::client::Client;
use crate::cli::secret::{Kind, id_of};

/// `NAME`, or `source=NAME,target=FILE,uid=1000,gid=1000,mode=0440`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileArg {
    source: String,
    target: Option<String>,
    uid: String,
    gid: String,
    mode: u32,
}

pub fn file(text: &str) -> Result<FileArg, String> {
    let mut file = FileArg { source: String::new(), target: None, uid: "0".into(), gid: "0".into(), mode: 0o444 };
    if !text.contains('=') {
        file.source = text.to_owned();
    } else {
        for part in text.split(',') {
            match part.split_once('=').unwrap_or((part, "")) {
                ("source" | "src", value) => file.source = value.to_owned(),
                ("target", value) => file.target = Some(value.to_owned()),
                ("uid", value) => file.uid = value.to_owned(),
                ("gid", value) => file.gid = value.to_owned(),
                ("mode", value) => {
                    let read = u32::from_str_radix(value, 8).map_err(|_| format!("{value:?} is no mode: write 0440"));
                    file.mode = read?;
                }
                (other, _) => return Err(format!("{other:?} is none of source, target, uid, gid, mode")),
            }
        }
    }
    if file.source.is_empty() { Err("there is no source".into()) } else { Ok(file) }
}

pub async fn secrets(client: &Client, files: Vec<FileArg>) -> anyhow::Result<Vec<TaskSpecContainerSpecSecrets>> {
    let mut references = Vec::new();
    for file in files {
        references.push(TaskSpecContainerSpecSecrets {
            secret_id: Some(id_of(Kind::Secret, client, &file.source).await?),
            file: Some(TaskSpecContainerSpecFile {
                name: Some(file.target.unwrap_or_else(|| file.source.clone())),
                uid: Some(file.uid),
                gid: Some(file.gid),
                mode: Some(file.mode),
            }),
            secret_name: Some(file.source),
        });
    }
    Ok(references)
}

/// A config without a target is a file of its name in the root, as in Docker.
pub async fn configs(client: &Client, files: Vec<FileArg>) -> anyhow::Result<Vec<TaskSpecContainerSpecConfigs>> {
    let mut references = Vec::new();
    for file in files {
        references.push(TaskSpecContainerSpecConfigs {
            config_id: Some(id_of(Kind::Config, client, &file.source).await?),
            file: Some(TaskSpecContainerSpecFile1 {
                name: Some(file.target.unwrap_or_else(|| format!("/{}", file.source))),
                uid: Some(file.uid),
                gid: Some(file.gid),
                mode: Some(file.mode),
            }),
            config_name: Some(file.source),
            ..Default::default()
        });
    }
    Ok(references)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_read() {
        let short = file("key").unwrap();
        assert_eq!((short.source.as_str(), short.target, short.mode), ("key", None, 0o444));
        let long = file("source=key,target=/etc/key,uid=5,gid=6,mode=0440").unwrap();
        assert_eq!((long.source.as_str(), long.target.as_deref()), ("key", Some("/etc/key")));
        assert_eq!((long.uid.as_str(), long.gid.as_str(), long.mode), ("5", "6", 0o440));
        for text in ["", "target=/x", "source=a,mode=9", "source=a,what=1"] {
            assert!(file(text).is_err(), "{text}");
        }
    }
}
