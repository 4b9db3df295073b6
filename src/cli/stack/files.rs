//! Reads stack files and what surrounds them: the environment, env files, the data of secrets and configs.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use crate::spec::stack::{Features, MAX_FILE_BYTES, Problem, Source, StackFile, Surroundings, Variables, too_large};

/// Most bytes of a file that a stack file names.
const MAX_NAMED_FILE_BYTES: u64 = 2 << 20;

#[derive(Debug, Args)]
pub struct FilesArg {
    /// Stack file, or "-" for standard input; later ones are merged over earlier ones
    #[arg(long = "compose-file", short = 'c', required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Put the services of a profile in force, too; repeat it [default: those of COMPOSE_PROFILES, separated by commas]
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
}

impl FilesArg {
    /// Reads and checks the files, and hands the result to `then`. Without `features`, what this build supports.
    pub fn with<T>(
        &self,
        features: Features,
        then: impl FnOnce(StackFile, &Surroundings<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let sources = self.files.iter().map(|name| source(name)).collect::<anyhow::Result<Vec<Source>>>()?;
        let working_dir = working_dir(&self.files[0])?;
        let variables: Variables = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let around = Surroundings {
            features,
            variables: &variables,
            working_dir: &working_dir,
            read_file: &read_named_file,
            profiles: &self.profiles(&variables),
        };
        then(StackFile::read(&sources, &around)?, &around)
    }
}

impl FilesArg {
    fn profiles(&self, variables: &Variables) -> Vec<String> {
        if !self.profile.is_empty() {
            return self.profile.clone();
        }
        let names = variables.get("COMPOSE_PROFILES").map_or("", String::as_str).split(',').map(str::trim);
        names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }
}

pub fn warn(warnings: &[Problem]) {
    for warning in warnings {
        eprintln!("Warning: {warning}");
    }
}

fn source(name: &str) -> anyhow::Result<Source> {
    let limit = MAX_FILE_BYTES as u64;
    let mut bytes = Vec::new();
    let read = match name {
        "-" => std::io::stdin().take(limit + 1).read_to_end(&mut bytes),
        path => {
            let file = std::fs::File::open(path).with_context(|| format!("cannot read {path}"))?;
            let size = file.metadata().map_or(0, |metadata| metadata.len());
            if size > limit {
                anyhow::bail!("{path}: {}", too_large(Some(size)));
            }
            file.take(limit + 1).read_to_end(&mut bytes)
        }
    };
    read.with_context(|| format!("cannot read {name}"))?;
    if bytes.len() as u64 > limit {
        anyhow::bail!("{name}: {}", too_large(None));
    }
    let text =
        String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("{name} is not UTF-8 text: is it a stack file?"))?;
    Ok(Source { name: if name == "-" { "<stdin>".into() } else { name.into() }, text })
}

/// Paths in stack files begin in the first file's directory.
fn working_dir(first: &str) -> anyhow::Result<String> {
    let parent = Path::new(first).parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let dir = if first == "-" { PathBuf::new() } else { parent };
    let dir = std::env::current_dir().context("cannot tell the current directory")?.join(dir);
    dir.into_os_string().into_string().map_err(|dir| anyhow::anyhow!("the directory {} is not UTF-8", dir.display()))
}

fn read_named_file(path: &str) -> Result<Vec<u8>, String> {
    let text = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_string(),
        _ => error.to_string(),
    };
    let file = std::fs::File::open(path).map_err(text)?;
    if !file.metadata().map_err(text)?.is_file() {
        return Err("is not a file".into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_NAMED_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(text)?;
    if bytes.len() as u64 > MAX_NAMED_FILE_BYTES {
        return Err(format!("has more than {MAX_NAMED_FILE_BYTES} bytes"));
    }
    Ok(bytes)
}
