//! Stack files that build on others: `include`, which takes over a whole file with its own directory and variables, and
//! `extends`, which takes one service as the base of another. As Compose has them, for files of this machine only.

use super::dotenv;
use super::interpolate::{self, Variables};
use super::merge;
use super::problem::{Place, Report};
use super::reader::{Field, Reader, Support, absolute_in, text, text_or_texts};
use super::yaml::{self, Entry, Node, Value};
use super::{Surroundings, schema, suggest};
use crate::spec::depends_on::cycle;

/// Files that one stack file may include or extend, all of theirs counted.
const MAX_FILES: usize = 100;
/// Files one within the other.
const MAX_DEPTH: usize = 20;
/// What an included file may bring.
const SECTIONS: [&str; 5] = ["services", "networks", "volumes", "secrets", "configs"];

pub(super) const INCLUDE: &[Field] = &[
    Field { key: "path", read: text_or_texts, support: Support::Used },
    Field { key: "project_directory", read: text, support: Support::Used },
    Field { key: "env_file", read: text_or_texts, support: Support::Used },
];

pub(super) const EXTENDS: &[Field] = &[
    Field { key: "service", read: text, support: Support::Used },
    Field { key: "file", read: text, support: Support::Used },
];

/// Paths, or mappings with `path`; canonically the latter.
pub fn include(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    reader.list(path, node, |reader, path, node| {
        let place = node.place;
        if !matches!(node.value, Value::Map(_)) {
            let paths = text_or_texts(reader, path, node)?;
            return Some(super::forms::mapping(place, vec![("path", paths.value)]));
        }
        let node = reader.object(path, node, INCLUDE)?;
        if node.get("path").is_none_or(|paths| paths.items().is_empty()) {
            reader.problem(place, path, "has no path");
            return None;
        }
        Some(node)
    })
}

/// The name of a service, or a mapping; canonically the latter.
pub fn extends(reader: &mut Reader<'_>, path: &str, node: Node) -> Option<Node> {
    let place = node.place;
    if !matches!(node.value, Value::Map(_)) {
        let name = text(reader, path, node)?;
        return Some(super::forms::mapping(place, vec![("service", name.value)]));
    }
    let node = reader.object(path, node, EXTENDS)?;
    if node.get("service").is_none() {
        reader.problem(place, path, "names no service");
        return None;
    }
    Some(node)
}

/// What a file's paths and variables mean.
#[derive(Clone, Copy)]
pub struct Scope<'s> {
    pub working_dir: &'s str,
    pub variables: &'s Variables,
}

/// Reads files with all that they build on.
pub struct Loader<'a> {
    pub report: &'a mut Report,
    pub around: &'a Surroundings<'a>,
    /// What is being read, outermost first: files that are included, services that are extended.
    open: Vec<String>,
    files: usize,
}

impl<'a> Loader<'a> {
    pub fn new(report: &'a mut Report, around: &'a Surroundings<'a>) -> Loader<'a> {
        Loader { report, around, open: Vec::new(), files: 0 }
    }

    /// The file numbered `index` in the report, in canonical form, whole.
    pub fn file(&mut self, index: usize, source: &str, scope: Scope<'_>) -> Option<Node> {
        let tree = self.parsed(index, source)?;
        self.canonical(tree, scope)
    }

    fn parsed(&mut self, index: usize, source: &str) -> Option<Node> {
        yaml::parse(index, source).map_err(|(place, message)| self.report.problem(place, "", message)).ok()
    }

    fn canonical(&mut self, mut tree: Node, scope: Scope<'_>) -> Option<Node> {
        // `x-` sections hold fragments; what is used of them stands in a section by its alias, and is filled in there.
        if let Value::Map(entries) = &mut tree.value {
            for entry in entries.iter_mut().filter(|entry| !entry.key.starts_with("x-")) {
                interpolate::tree(&mut entry.value, &entry.key, scope.variables, self.report);
            }
        }
        let mut reader = Reader {
            report: self.report,
            features: self.around.features,
            variables: scope.variables,
            working_dir: scope.working_dir,
            read_file: self.around.read_file,
        };
        let mut tree = schema::file(&mut reader, tree)?;
        self.extend_services(&mut tree, scope);
        if let Some(include) = take(&mut tree, "include") {
            for item in include.value.items() {
                if let Some(included) = self.included(item, scope) {
                    self.import(&mut tree, included);
                }
            }
        }
        Some(tree)
    }

    /// Of another file than those that were given: what it holds, and the number it has in the report.
    fn open_file(
        &mut self,
        place: Place,
        path: &str,
        written: &str,
        scope: Scope<'_>,
    ) -> Option<(String, usize, String)> {
        if written.contains("://") || written.starts_with("git@") {
            let message = format!("{written:?} is not a file of this machine: get it first, and name it by its path");
            self.report.problem(place, path, message);
            return None;
        }
        let name = absolute_in(scope.working_dir, scope.variables, written);
        self.files += 1;
        if self.files > MAX_FILES || self.open.len() >= MAX_DEPTH {
            let message =
                format!("more than {MAX_FILES} files, or more than {MAX_DEPTH} one within the other, are read");
            self.report.problem(place, path, message);
            return None;
        }
        let read = (self.around.read_file)(&name).and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| "is not UTF-8 text: is it a stack file?".to_owned())
        });
        match read {
            Ok(source) => {
                self.report.files.push(name.clone());
                Some((name, self.report.files.len() - 1, source))
            }
            Err(why) => {
                self.report.problem(place, path, format!("{written}: {why}"));
                None
            }
        }
    }

    /// Notes that `what` is being read while `then` runs. `None`: it is already, and that is told.
    fn within<T>(
        &mut self,
        what: String,
        place: Place,
        path: &str,
        then: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        if let Some(at) = self.open.iter().position(|open| *open == what) {
            let ring: Vec<&str> = self.open[at..].iter().map(String::as_str).chain([what.as_str()]).collect();
            let message = format!("files build on one another in a circle: {}", ring.join(" -> "));
            self.report.problem(place, path, message);
            return None;
        }
        self.open.push(what);
        let done = then(self);
        self.open.pop();
        done
    }

    // Include.

    /// The files of one item as one, each read in the item's directory and with its variables.
    fn included(&mut self, item: &Node, scope: Scope<'_>) -> Option<Node> {
        let paths = item.get("path").map_or(&[][..], Node::items);
        let first = absolute_in(scope.working_dir, scope.variables, paths.first()?.as_text());
        let directory = match item.get("project_directory") {
            Some(directory) => absolute_in(scope.working_dir, scope.variables, directory.as_text()),
            None => parent(&first).to_owned(),
        };
        let variables = self.variables_of(item, &directory, scope)?;
        let inner = Scope { working_dir: &directory, variables: &variables };
        let mut merged: Option<Node> = None;
        for path in paths {
            let (name, index, source) = self.open_file(path.place, "include", path.as_text(), scope)?;
            let tree = self.within(name, path.place, "include", |loader| loader.file(index, &source, inner))?;
            merged = Some(match merged {
                Some(base) => merge::files(base, tree),
                None => tree,
            });
        }
        merged
    }

    /// The variables of what includes go before those of `env_file`, or of a `.env` beside the file that is included.
    fn variables_of(&mut self, item: &Node, directory: &str, scope: Scope<'_>) -> Option<Variables> {
        let named = item.get("env_file").map_or(&[][..], Node::items);
        let absolute = |file: &Node| (file.place, absolute_in(scope.working_dir, scope.variables, file.as_text()));
        let mut files: Vec<(Place, String)> = named.iter().map(absolute).collect();
        let beside = format!("{directory}/.env");
        if named.is_empty() && (self.around.read_file)(&beside).is_ok() {
            files.push((item.place, beside));
        }
        let mut variables = Variables::new();
        for (place, file) in files {
            match (self.around.read_file)(&file).and_then(|bytes| dotenv::parse(&bytes)) {
                Ok(read) => {
                    variables.extend(read.into_iter().filter_map(|(key, value)| Some((key, unquoted(&value?)))))
                }
                Err(why) => {
                    self.report.problem(place, "include", format!("{file}: {why}"));
                    return None;
                }
            }
        }
        variables.extend(scope.variables.iter().map(|(key, value)| (key.clone(), value.clone())));
        Some(variables)
    }

    /// Adds what an included file defines. The same thing twice is one; two that differ are for a further `-c` to decide.
    fn import(&mut self, tree: &mut Node, mut included: Node) {
        for section in SECTIONS {
            let Some(theirs) = take(&mut included, section) else { continue };
            let place = theirs.place;
            let Value::Map(theirs) = theirs.value.value else { continue };
            if tree.get(section).is_none()
                && let Value::Map(sections) = &mut tree.value
            {
                sections.retain(|entry| entry.key != section);
                sections.push(Entry { key: section.into(), place, value: Node::new(place, Value::Map(Vec::new())) });
            }
            for entry in theirs {
                let Some(ours) = section_mut(tree, section) else { continue };
                match ours.iter().find(|known| known.key == entry.key) {
                    None => ours.push(entry),
                    Some(known) if same(&known.value, &entry.value) => {}
                    Some(known) => {
                        let (file, place) = (self.report.files.get(entry.place.file), known.place);
                        let message = format!(
                            "is another one in {}, which is included: change what is included by a further file, given with -c",
                            file.map_or("the file", String::as_str)
                        );
                        self.report.problem(place, &format!("{section}.{}", entry.key), message);
                    }
                }
            }
        }
    }

    // Extends.

    /// Puts each service on its base, where it has one.
    fn extend_services(&mut self, tree: &mut Node, scope: Scope<'_>) {
        self.refuse_rings(tree);
        let services = tree.get("services").map_or(&[][..], Node::entries);
        let names: Vec<String> = services.iter().map(|entry| entry.key.clone()).collect();
        for name in names {
            self.extend_service(tree, &name, scope);
        }
    }

    /// Services of one file that extend one another; afterwards they extend nobody.
    fn refuse_rings(&mut self, tree: &mut Node) {
        let services = tree.get("services").map_or(&[][..], Node::entries);
        let base = |name: &str| -> Vec<String> {
            let service = services.iter().find(|entry| entry.key == name);
            let extends =
                service.and_then(|entry| entry.value.get("extends")).filter(|base| base.get("file").is_none());
            extends
                .and_then(|extends| extends.get("service"))
                .map(|base| base.as_text().to_owned())
                .into_iter()
                .collect()
        };
        let ring = |entry: &Entry| Some((entry.value.get("extends")?.place, cycle(&entry.key, base)?));
        let rings: Vec<(Place, Vec<String>)> = services.iter().filter_map(ring).collect();
        for (place, ring) in rings {
            if let Some(service) = service_mut(tree, &ring[0]) {
                take(service, "extends");
            }
            let message = format!("services extend one another in a circle: {}", ring.join(" -> "));
            self.report.problem(place, &format!("services.{}.extends", ring[0]), message);
        }
    }

    /// Its base first, which has its own.
    fn extend_service(&mut self, tree: &mut Node, name: &str, scope: Scope<'_>) -> Option<()> {
        let extends = take(service_mut(tree, name)?, "extends")?.value;
        let path = format!("services.{name}.extends");
        let (base, place) = (extends.get("service")?.as_text(), extends.place);
        let base = match extends.get("file") {
            Some(file) => self.service_of_file(file.as_text(), base, (place, &path), scope)?,
            None => {
                self.extend_service(tree, base, scope);
                let found = service_mut(tree, base).cloned();
                found.or_else(|| self.unknown_service(tree, base, place, &path))?
            }
        };
        let service = service_mut(tree, name)?;
        let over = std::mem::replace(service, Node::new(place, Value::Null));
        *service = merge::services(base, over);
        Some(())
    }

    fn service_of_file(
        &mut self,
        written: &str,
        base: &str,
        (place, path): (Place, &str),
        scope: Scope<'_>,
    ) -> Option<Node> {
        let (name, index, source) = self.open_file(place, path, written, scope)?;
        let tree = self.parsed(index, &source)?;
        let directory = parent(&name).to_owned();
        let inner = Scope { working_dir: &directory, variables: scope.variables };
        self.within(format!("{base} of {name}"), place, path, |loader| {
            let Some(needed) = only(&tree, base) else { return loader.unknown_service(&tree, base, place, path) };
            let mut canonical = loader.canonical(needed, inner)?;
            service_mut(&mut canonical, base).cloned()
        })
    }

    /// Nothing, and it is told.
    fn unknown_service(&mut self, tree: &Node, name: &str, place: Place, path: &str) -> Option<Node> {
        let known = tree.get("services").map_or(&[][..], Node::entries);
        let near = suggest::nearest(name, known.iter().map(|entry| entry.key.as_str()));
        let hint = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
        self.report.problem(place, path, format!("there is no service {name:?} to extend{hint}"));
        None
    }
}

/// Leaves of services those that are in force without a profile, or by one of `active`; returns the others, with theirs.
pub fn keep_active(tree: &mut Node, active: &[String], report: &mut Report) -> Vec<(String, Vec<String>)> {
    let Some(entries) = section_mut(tree, "services") else { return Vec::new() };
    let mut known: Vec<String> = Vec::new();
    let mut dropped = Vec::new();
    entries.retain_mut(|entry| {
        let profiles = take(&mut entry.value, "profiles");
        let own: Vec<String> =
            profiles.iter().flat_map(|list| list.value.items()).map(|name| name.as_text().to_owned()).collect();
        known.extend(own.iter().cloned());
        let is_active =
            own.is_empty() || own.iter().any(|name| active.contains(name) || active.iter().any(|a| a == "*"));
        if !is_active {
            dropped.push((entry.key.clone(), own));
        }
        is_active
    });
    for unknown in active.iter().filter(|name| *name != "*" && !known.contains(name)) {
        let near = suggest::nearest(unknown, known.iter().map(String::as_str));
        let hint = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
        report.warn(Place::default(), "", format!("no service is of the profile {unknown:?}{hint}"));
    }
    dropped
}

/// A file with the service called `name` and those it extends in the same file alone; what else is wrong with the file is not
/// asked. `None`: it has no such service.
fn only(tree: &Node, name: &str) -> Option<Node> {
    let services = tree.get("services")?;
    let mut kept: Vec<Entry> = Vec::new();
    let mut next = Some(name.to_owned());
    while let Some(name) = next.take().filter(|name| kept.iter().all(|entry| entry.key != *name)) {
        let Some(entry) = services.entries().iter().find(|entry| entry.key == name) else { break };
        kept.push(entry.clone());
        next = match entry.value.get("extends") {
            Some(Node { value: Value::Text(base), .. }) => Some(base.clone()),
            Some(extends) if extends.get("file").is_none() => {
                extends.get("service").map(|base| base.as_text().to_owned())
            }
            _ => None,
        };
    }
    if kept.is_empty() {
        return None;
    }
    let services =
        Entry { key: "services".into(), place: services.place, value: Node::new(services.place, Value::Map(kept)) };
    Some(Node::new(tree.place, Value::Map(vec![services])))
}

fn take(node: &mut Node, key: &str) -> Option<Entry> {
    let Value::Map(entries) = &mut node.value else { return None };
    let at = entries.iter().position(|entry| entry.key == key)?;
    Some(entries.remove(at))
}

fn section_mut<'n>(tree: &'n mut Node, name: &str) -> Option<&'n mut Vec<Entry>> {
    let Value::Map(sections) = &mut tree.value else { return None };
    match &mut sections.iter_mut().find(|entry| entry.key == name)?.value.value {
        Value::Map(entries) => Some(entries),
        _ => None,
    }
}

fn service_mut<'n>(tree: &'n mut Node, name: &str) -> Option<&'n mut Node> {
    section_mut(tree, "services")?.iter_mut().find(|entry| entry.key == name).map(|entry| &mut entry.value)
}

/// Equal but for where it was written.
fn same(a: &Node, b: &Node) -> bool {
    let entries = |a: &[Entry], b: &[Entry]| {
        a.len() == b.len()
            && a.iter().all(|one| b.iter().any(|other| one.key == other.key && same(&one.value, &other.value)))
    };
    match (&a.value, &b.value) {
        (Value::Map(a), Value::Map(b)) => entries(a, b),
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (a, b) => a == b,
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// Files of variables quote values for shells that read them, too.
fn unquoted(value: &str) -> String {
    let value = value.trim();
    let inner = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    inner.unwrap_or(value).to_owned()
}
