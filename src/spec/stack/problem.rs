//! Where in a stack file something stands, and what is wrong with it. Reading goes on after a problem, so that a user
//! sees all of them at once.

use std::fmt;

/// A place in one of the files given, by its index; lines and columns from 1. Line 0: no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    pub file: usize,
    pub line: u64,
    pub column: u64,
}

/// One thing wrong (or worth a warning), where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file's name as the user gave it.
    pub file: String,
    pub line: u64,
    pub column: u64,
    /// `services.web.ports`, or empty for the file as a whole.
    pub path: String,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => write!(f, "{}: ", self.file)?,
            (line, column) => write!(f, "{}:{line}:{column}: ", self.file)?,
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// All that is wrong with the files of a stack. Nothing was changed anywhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct StackError {
    pub problems: Vec<Problem>,
}

/// One problem a line; past [`MAX_SHOWN`] only their count.
impl fmt::Display for StackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().take(MAX_SHOWN).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        match self.problems.len().checked_sub(MAX_SHOWN) {
            Some(more) if more > 0 => write!(f, "\nand {more} more"),
            _ => Ok(()),
        }
    }
}

/// Problems printed at once.
const MAX_SHOWN: usize = 50;
/// Problems kept: a file that is wrong everywhere must not fill the memory.
const MAX_KEPT: usize = 1000;

/// Collects problems and warnings while files are read.
#[derive(Debug, Default)]
pub struct Report {
    pub files: Vec<String>,
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
    /// Not all of the files could be read: what is missing may have been there.
    pub partial: bool,
    /// The files that they name are elsewhere.
    pub alone: bool,
}

impl Report {
    /// Something that is not there, though the file refers to it by `name`, which `section` would define. Where that could
    /// not be read, nobody can tell.
    pub fn undefined(&mut self, place: Place, path: &str, (section, name): (&str, &str), message: impl Into<String>) {
        if !self.partial || !self.may_have_had(section, name) {
            self.problem(place, path, message);
        }
    }

    /// Whether what is wrong may be why `name` is not in `section`: it is wrong there, or it brings in what other files define.
    fn may_have_had(&self, section: &str, name: &str) -> bool {
        let own = format!("{section}.{name}");
        self.problems.iter().any(|Problem { path, .. }| {
            let is_own = path.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            path.is_empty() || is_own || path == section || path.starts_with("include") || path.contains(".extends")
        })
    }

    /// Whether there is a problem with just this already.
    pub fn has_problem(&self, place: Place, path: &str) -> bool {
        let file = self.files.get(place.file).map_or("", String::as_str);
        let is_here = |problem: &Problem| {
            (problem.file.as_str(), problem.line, problem.column, problem.path.as_str())
                == (file, place.line, place.column, path)
        };
        self.problems.iter().any(is_here)
    }

    pub fn problem(&mut self, place: Place, path: &str, message: impl Into<String>) {
        if self.problems.len() < MAX_KEPT {
            let problem = self.locate(place, path, message.into());
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        }
    }

    pub fn warn(&mut self, place: Place, path: &str, message: impl Into<String>) {
        if self.warnings.len() < MAX_KEPT {
            let warning = self.locate(place, path, message.into());
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
    }

    fn locate(&self, place: Place, path: &str, message: String) -> Problem {
        let file = self.files.get(place.file).cloned().unwrap_or_default();
        Problem { file, line: place.line, column: place.column, path: path.to_string(), message }
    }

    /// The problems, in the order in which they stand in the files.
    pub fn into_error(mut self) -> StackError {
        let files = &self.files;
        let index = |name: &str| files.iter().position(|file| file == name);
        self.problems.sort_by_key(|problem| (index(&problem.file), problem.line, problem.column));
        StackError { problems: self.problems }
    }
}
