//! Stack files of our own for every construct, and those in `../shared/stacks` where it exists.

mod composition;
mod convert;
mod files;
mod manual;
mod refusals;

use super::*;
use crate::spec::*;

/// One file, or several merged, in `/stack`, with a few variables set.
struct Case<'a> {
    texts: Vec<&'a str>,
    features: Features,
    files: Vec<(&'a str, &'a str)>,
    profiles: Vec<String>,
}

impl<'a> Case<'a> {
    fn new(text: &'a str) -> Case<'a> {
        Case { texts: vec![text], features: Features::supported(), files: Vec::new(), profiles: Vec::new() }
    }

    fn profile(mut self, name: &str) -> Case<'a> {
        self.profiles.push(name.into());
        self
    }

    fn all_features(mut self) -> Case<'a> {
        self.features = Features::all();
        self
    }

    fn file(mut self, path: &'a str, content: &'a str) -> Case<'a> {
        self.files.push((path, content));
        self
    }

    fn over(mut self, text: &'a str) -> Case<'a> {
        self.texts.push(text);
        self
    }

    fn with<T>(&self, then: impl FnOnce(Result<StackFile, StackError>, &Surroundings<'_>) -> T) -> T {
        let variables = [("TAG", "1.2"), ("EMPTY", ""), ("HOME", "/home/u"), ("FROM_CLIENT", "client")];
        let variables: Variables = variables.map(|(k, v)| (k.to_string(), v.to_string())).into();
        let read_file = |path: &str| {
            let found = self.files.iter().find(|(known, _)| *known == path);
            found.map(|(_, content)| content.as_bytes().to_vec()).ok_or_else(|| "no such file".to_string())
        };
        let around = Surroundings {
            features: self.features,
            variables: &variables,
            working_dir: "/stack",
            read_file: &read_file,
            profiles: &self.profiles,
        };
        let source = |(index, text): (usize, &&str)| Source { name: format!("{index}.yml"), text: text.to_string() };
        let sources: Vec<Source> = self.texts.iter().enumerate().map(source).collect();
        then(StackFile::read(&sources, &around), &around)
    }

    fn convert(&self) -> Result<(Stack, Vec<Problem>), StackError> {
        self.with(|file, around| file?.convert("s", around))
    }

    fn stack(&self) -> Stack {
        self.convert().unwrap_or_else(|error| panic!("{error}")).0
    }

    /// The first service.
    fn service(&self) -> ServiceSpec {
        self.stack().services.remove(0)
    }

    fn warnings(&self) -> Vec<String> {
        self.convert().unwrap_or_else(|error| panic!("{error}")).1.iter().map(ToString::to_string).collect()
    }

    fn problems(&self) -> Vec<String> {
        self.convert().expect_err("it is refused").problems.iter().map(ToString::to_string).collect()
    }

    fn config(&self) -> String {
        self.with(|file, _| file.unwrap_or_else(|error| panic!("{error}")).print())
    }
}

/// A file with one service, its keys indented by four.
fn web(keys: &str) -> String {
    format!("services:\n  web:\n    image: i\n{keys}")
}
