//! The variables of a service's containers: `-e KEY=VALUE`, `-e KEY` with the shell's value, and files of both.

use std::io::Read;

use anyhow::Context;

/// Of a file with variables; more is a mistake.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// `KEY=VALUE` or `KEY`.
pub fn variable(text: &str) -> Result<String, String> {
    match text.split('=').next() {
        None | Some("") => Err("there is no name before the =".into()),
        Some(_) => Ok(text.to_owned()),
    }
}

/// Those of the files and then those `given`, of which the last of one name counts. A name alone takes the value that
/// `shell` has for it, and is left out where there is none, as in Docker.
pub fn environment(
    files: &[String],
    given: Vec<String>,
    shell: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    for path in files {
        let mut text = String::new();
        let file = std::fs::File::open(path).with_context(|| format!("--env-file: open {path}"))?;
        file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).with_context(|| format!("--env-file: read {path}"))?;
        anyhow::ensure!(text.len() as u64 <= MAX_FILE_BYTES, "--env-file: {path} has more than {MAX_FILE_BYTES} bytes");
        all.extend(in_file(&text).map_err(|why| anyhow::anyhow!("--env-file: {path}: {why}"))?);
    }
    all.extend(given);
    let mut variables: Vec<String> = Vec::new();
    for text in all {
        let Some(variable) = valued(text, &shell) else { continue };
        variables.retain(|known| name(known) != name(&variable));
        variables.push(variable);
    }
    Ok(variables)
}

pub fn name(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

fn valued(text: String, shell: &impl Fn(&str) -> Option<String>) -> Option<String> {
    if text.contains('=') { Some(text) } else { shell(&text).map(|value| format!("{text}={value}")) }
}

/// A variable on each line, as it stands, quotes and all; what begins with # is a remark.
fn in_file(text: &str) -> Result<Vec<String>, String> {
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    let lines = lines.map(|(at, line)| (at + 1, line.trim_start()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(at, line)| {
            let wrong = |why: &str| format!("line {at}: {why}");
            match name(line) {
                "" => Err(wrong("there is no name before the =")),
                name if name.contains(char::is_whitespace) => Err(wrong("the name of a variable has no blanks")),
                _ => Ok(line.to_owned()),
            }
        })
        .collect()
}

/// The shell that the command was called from.
pub fn shell(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(name: &str) -> Option<String> {
        (name == "HOME").then(|| "/root".to_owned())
    }

    #[test]
    fn a_name_alone_takes_the_shells_value_and_the_last_of_one_name_counts() {
        let given = ["A=1", "HOME", "NOT_SET", "A=2", "EMPTY="].map(str::to_owned).to_vec();
        assert_eq!(environment(&[], given, shell).unwrap(), ["HOME=/root", "A=2", "EMPTY="]);
        assert!(variable("=x").is_err() && variable("").is_err() && variable("A").is_ok());
    }

    #[test]
    fn files_are_read_line_by_line_before_the_flags() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("env");
        std::fs::write(&path, "\u{feff}# remark\n\n  A=\"x y\" # z\nHOME\nNOT_SET\nB=1\n").unwrap();
        let path = path.to_str().unwrap().to_owned();
        let read = environment(std::slice::from_ref(&path), vec!["B=2".into()], shell).unwrap();
        assert_eq!(read, ["A=\"x y\" # z", "HOME=/root", "B=2"]);
        std::fs::write(&path, "A=1\nbad name=1\n").unwrap();
        let error = environment(&[path], vec![], shell).unwrap_err().to_string();
        assert!(error.ends_with("line 2: the name of a variable has no blanks"), "{error}");
        let error = environment(&["/nothing/there".into()], vec![], shell).unwrap_err();
        assert!(format!("{error:#}").contains("open /nothing/there"), "{error:#}");
    }
}
