//! Stack files: Compose files as Docker Swarm reads them, from text to service specs. Pure: variables, the files that a
//! stack file names and the working directory come in as arguments.
//!
//! The way of a file: [`yaml`] parses it into a tree with places; `interpolate` fills in variables; `schema` checks each
//! key and brings each value into its canonical form; `composition` adds what the file includes and extends; `merge` makes one tree of several files; `convert` makes specs of
//! it, and `print` canonical YAML. Reading goes on after a problem, so that all are reported at once.

mod composition;
mod convert;
mod depends_on;
mod dotenv;
mod features;
mod forms;
mod interpolate;
mod merge;
mod print;
mod problem;
mod reader;
mod schedule;
mod schema;
mod suggest;
#[cfg(test)]
mod tests;
mod volumes;

mod words;
pub mod yaml;

pub use convert::{IMAGE_LABEL, NAMESPACE_LABEL, Stack, check_stack_name};
pub use features::{Feature, Features};
pub use interpolate::Variables;
pub use problem::{Place, Problem, StackError};
pub use reader::ReadFile;
pub use suggest::nearest;
pub use words::split as split_words;
pub use yaml::{MAX_FILE_BYTES, too_large};

use composition::{Loader, Scope};
use problem::Report;
use yaml::Node;

/// Stands for the stack's name where it has none yet: the shortest.
const UNNAMED: &str = "s";

/// One file given with `-c`.
#[derive(Debug, Clone)]
pub struct Source {
    /// As the user named it; it stands in messages.
    pub name: String,
    pub text: String,
}

/// What surrounds the files.
pub struct Surroundings<'a> {
    pub features: Features,
    /// The client's environment.
    pub variables: &'a Variables,
    /// Absolute: the first file's directory. Relative paths in all files begin here.
    pub working_dir: &'a str,
    pub read_file: &'a ReadFile<'a>,
    /// Services of these are in force beside those that are of none; `*`: all are.
    pub profiles: &'a [String],
}

/// The files as one, checked and in canonical form.
#[derive(Debug)]
pub struct StackFile {
    tree: Node,
    report: Report,
    /// Services that are not in force, and the profiles that each is of.
    dropped: Vec<(String, Vec<String>)>,
}

impl StackFile {
    /// Reads `sources` in order, later ones over earlier ones.
    pub fn read(sources: &[Source], around: &Surroundings<'_>) -> Result<StackFile, StackError> {
        let mut report =
            Report { files: sources.iter().map(|source| source.name.clone()).collect(), ..Report::default() };
        let mut merged: Option<Node> = None;
        for (index, source) in sources.iter().enumerate() {
            let scope = Scope { working_dir: around.working_dir, variables: around.variables };
            if let Some(tree) = Loader::new(&mut report, around).file(index, &source.text, scope) {
                merged = Some(match merged {
                    Some(base) => merge::files(base, tree),
                    None => tree,
                });
            }
        }
        match merged {
            Some(mut tree) => {
                let is_whole = report.problems.is_empty();
                let dropped = composition::keep_active(&mut tree, around.profiles, &mut report);
                let file = StackFile { tree, report, dropped };
                if is_whole { Ok(file) } else { file.checked(around) }
            }
            None => Err(report.into_error()),
        }
    }

    /// The file, unless something in it makes no acceptable spec, whatever the stack is called. Files of secrets and configs are
    /// not looked for: they may be elsewhere.
    pub fn checked(mut self, around: &Surroundings<'_>) -> Result<StackFile, StackError> {
        let warnings = self.report.warnings.len();
        (self.report.alone, self.report.partial) = (true, !self.report.problems.is_empty());
        self.converter(UNNAMED, around).stack();
        (self.report.alone, self.report.partial) = (false, false);
        self.report.warnings.truncate(warnings);
        if self.report.problems.is_empty() { Ok(self) } else { Err(self.report.into_error()) }
    }

    /// The specs of the stack called `name`, and what is worth a warning.
    pub fn convert(mut self, name: &str, around: &Surroundings<'_>) -> Result<(Stack, Vec<Problem>), StackError> {
        let stack = self.converter(name, around).stack();
        if self.report.problems.is_empty() { Ok((stack, self.report.warnings)) } else { Err(self.report.into_error()) }
    }

    fn converter<'a>(&'a mut self, name: &'a str, around: &Surroundings<'a>) -> convert::Converter<'a> {
        convert::Converter {
            name,
            root: &self.tree,
            report: &mut self.report,
            variables: around.variables,
            read_file: around.read_file,
            features: around.features,
            dropped: &self.dropped,
        }
    }

    /// Canonical YAML.
    pub fn print(&self) -> String {
        print::stack(&self.tree)
    }

    /// What is worth a warning, in the order in which it was met.
    pub fn warnings(&self) -> &[Problem] {
        &self.report.warnings
    }
}
