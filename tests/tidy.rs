//! The code's shape, tested: which room imports which, what the core keeps away from, file lengths and headers.
//!
//! Each exception stands in a table below with its reason; an exception that is no longer needed fails the test too.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Who may import whom. Arrows point up this list only.
const ROOMS: [(&str, &[&str]); 17] = [
    ("spec", &[]),
    ("state", &["spec"]),
    ("gossip", &["spec"]),
    ("membership", &["spec", "state", "gossip"]),
    ("orchestrator", &["spec", "state", "gossip"]),
    ("allocator", &["spec", "state"]),
    ("scheduler", &["spec", "state", "gossip"]),
    ("dispatcher", &["spec", "state", "gossip"]),
    ("agent", &["spec", "gossip"]),
    ("consensus", &["spec", "state"]),
    ("transport", &["spec"]),
    ("program", &[]),
    ("runtime", &["spec", "agent", "program"]),
    ("network", &["spec", "agent", "dispatcher", "program"]),
    ("api", &["spec", "state"]),
    (
        "node",
        &[
            "spec",
            "state",
            "gossip",
            "membership",
            "orchestrator",
            "allocator",
            "scheduler",
            "dispatcher",
            "agent",
            "consensus",
            "transport",
            "program",
            "runtime",
            "network",
            "api",
        ],
    ),
    ("cli", &["spec", "api", "node", "program"]),
];

/// Imports beside the table: room, what it uses, why.
const EXCEPTIONS: [(&str, &str, &str); 3] = [
    ("transport", "state::codec", "bytes are made in one place; no other part of the state is used"),
    ("runtime", "gossip::Load", "the reading of the host's load has the type that travels"),
    ("api", "gossip::Table", "progress shown to people is observed state; the API reads the table and changes nothing"),
];

/// The pure rooms: no runtime, no files, no sockets, no clock, no order that differs from run to run.
const CORE: [&str; 9] =
    ["spec", "state", "gossip", "membership", "orchestrator", "allocator", "scheduler", "dispatcher", "agent"];

const NOT_IN_CORE: [&str; 16] = [
    "tokio",
    "std::fs",
    "std::process",
    "std::thread",
    "std::env",
    "std::net::Tcp",
    "std::net::Udp",
    "TcpStream",
    "UdpSocket",
    "std::time::Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "thread_rng",
    "rand::rng(",
    "async fn",
];

/// Never, outside tests.
const NOT_IN_CODE: [&str; 4] = [".unwrap()", "todo!(", "unimplemented!(", "dbg!("];

const MAX_LINES: usize = 600;

/// Files over [`MAX_LINES`], tests not counted, and why.
const LONG_FILES: [(&str, &str); 1] =
    [("src/transport/driver.rs", "one event loop over all that the network says; its parts share the borrow")];

struct Source {
    /// `src/room/file.rs`
    path: String,
    room: String,
    /// As it is written.
    text: String,
    /// Without comments, strings and the tests at its end.
    code: String,
    test: bool,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let files = rust_files(&root().join("src"));
    let test_only: BTreeSet<PathBuf> = files.iter().flat_map(|file| test_modules(file)).collect();
    let read = |file: &PathBuf| {
        let path = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(file).unwrap();
        let room = path.split('/').nth(1).unwrap().trim_end_matches(".rs").to_owned();
        let test = test_only.iter().any(|module| file.starts_with(module) || file.with_extension("") == *module);
        let code = code_of(text.split_once("\n#[cfg(test)]\nmod tests {").map_or(text.as_str(), |(code, _)| code));
        Source { path, room, text, code, test }
    };
    files.iter().map(read).collect()
}

/// The modules a file declares under `#[cfg(test)]`, as paths without extension.
fn test_modules(file: &Path) -> Vec<PathBuf> {
    let folder = match file.file_stem().unwrap().to_str().unwrap() {
        "mod" | "lib" | "main" => file.parent().unwrap().to_owned(),
        _ => file.with_extension(""),
    };
    let text = fs::read_to_string(file).unwrap();
    let mut found = Vec::new();
    for declared in text.split("#[cfg(test)]").skip(1) {
        let elsewhere = declared.trim_start().strip_prefix("#[path = \"").and_then(|rest| rest.split_once("\"]"));
        let declaration = elsewhere.map_or(declared, |(_, rest)| rest).trim_start();
        // A module in braces is no file.
        let Some((declaration, _)) = declaration.split_once(';').filter(|(it, _)| !it.contains('{')) else {
            continue;
        };
        let Some((_, name)) = declaration.split_once("mod ") else {
            continue;
        };
        match elsewhere {
            Some((path, _)) => found.push(file.with_file_name(path).with_extension("")),
            None => found.push(folder.join(name)),
        }
    }
    found
}

/// The text with comments and the contents of strings taken out; lines stay where they are.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if next == 'r' && (rest.starts_with("r\"") || rest.starts_with("r#")) && !ends_in_word(&code) {
            raw_string(rest)
        } else if next == '"' {
            string(rest)
        } else if rest.starts_with("'\"'") {
            3
        } else if rest.starts_with("'\\") {
            rest[3..].find('\'').map_or(rest.len(), |end| end + 4)
        } else {
            0
        };
        if skipped == 0 {
            code.push(next);
            rest = &rest[next.len_utf8()..];
        } else {
            code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
            rest = &rest[skipped..];
        }
    }
    code
}

fn ends_in_word(code: &str) -> bool {
    code.ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// Zero where it is no raw string (`r#type`).
fn raw_string(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    text[2 + hashes..].find(&end).map_or(text.len(), |at| 2 + hashes + at + end.len())
}

/// `path::of::what` after each `crate::` or `flok::`, groups opened one level.
fn imports(code: &str) -> Vec<String> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    for prefix in ["crate::", "flok::"] {
        for (at, _) in code.match_indices(prefix) {
            if ends_in_word(&code[..at]) {
                continue;
            }
            let path: String = code[at + prefix.len()..].chars().take_while(|c| is_path(*c)).collect();
            let group = code[at + prefix.len() + path.len()..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
            match group {
                Some((names, _)) => found.extend(names.split(',').map(|name| format!("{path}{}", name.trim()))),
                None => found.push(path),
            }
        }
    }
    found.retain(|path| !path.is_empty() && !path.ends_with("::"));
    found
}

/// Every finding, or nothing.
fn hold(rule: &str, findings: &[String]) {
    let mut list = String::new();
    for finding in findings {
        writeln!(list, "  {finding}").unwrap();
    }
    assert!(findings.is_empty(), "{rule}:\n{list}");
}

fn lines_with(source: &Source, needle: &str) -> Vec<String> {
    let hits = source.code.lines().enumerate().filter(|(_, line)| line.contains(needle));
    hits.map(|(index, _)| format!("{}:{}: {needle}", source.path, index + 1)).collect()
}

#[test]
fn rooms_import_only_what_the_design_allows() {
    let mut findings = Vec::new();
    let mut used = BTreeSet::new();
    for source in sources().iter().filter(|source| !source.test) {
        let Some((_, allowed)) = ROOMS.iter().find(|(room, _)| *room == source.room) else {
            continue;
        };
        for import in imports(&source.code) {
            let target = import.split("::").next().unwrap();
            if !ROOMS.iter().any(|(room, _)| *room == target) || target == source.room || allowed.contains(&target) {
                continue;
            }
            let exception = |(room, what, _): &&(&str, &str, &str)| {
                *room == source.room && (import == *what || import.starts_with(&format!("{what}::")))
            };
            match EXCEPTIONS.iter().find(exception) {
                Some((room, what, _)) => _ = used.insert((*room, *what)),
                None => findings.push(format!("{} uses {import}", source.path)),
            }
        }
    }
    for (room, what, _) in EXCEPTIONS {
        if !used.contains(&(room, what)) {
            findings.push(format!("the exception {room} -> {what} is not used: remove it"));
        }
    }
    hold("imports beside the table of rooms", &findings);
}

/// Who starts a program that lives on, and so needs no end: its owner watches it.
const STARTERS: [&str; 3] = ["src/network/dns/daemon.rs", "src/runtime/input.rs", "src/runtime/supervisor.rs"];

#[test]
fn the_hosts_programs_are_run_in_one_place() {
    let elsewhere =
        |source: &&Source| !source.test && source.room != "program" && !STARTERS.contains(&source.path.as_str());
    let findings: Vec<String> =
        sources().iter().filter(elsewhere).flat_map(|source| lines_with(source, "process::Command")).collect();
    hold("not by `program`, which bounds time and output", &findings);
}

#[test]
fn the_core_reads_no_clock_and_touches_no_world() {
    let mut findings = Vec::new();
    for source in sources().iter().filter(|source| CORE.contains(&source.room.as_str()) && !source.test) {
        findings.extend(NOT_IN_CORE.iter().flat_map(|needle| lines_with(source, needle)));
    }
    hold("not in the core", &findings);
}

#[test]
fn code_has_no_unwrap_and_nothing_unfinished() {
    let mut findings = Vec::new();
    for source in sources().iter().filter(|source| !source.test) {
        findings.extend(NOT_IN_CODE.iter().flat_map(|needle| lines_with(source, needle)));
    }
    hold("not outside tests", &findings);
}

#[test]
fn bincode_stays_in_one_file() {
    let elsewhere = sources().into_iter().filter(|source| source.path != "src/state/codec.rs");
    let findings: Vec<String> = elsewhere.flat_map(|source| lines_with(&source, "bincode")).collect();
    hold("bytes are made in src/state/codec.rs", &findings);
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = sources().into_iter().filter(|source| !source.test && !source.text.starts_with("//! "));
    let findings: Vec<String> = silent.map(|source| source.path).collect();
    hold("files without a //! header", &findings);
}

#[test]
fn files_stay_readable() {
    let mut findings = Vec::new();
    for source in sources() {
        let lines = source.code.lines().count();
        let listed = LONG_FILES.iter().any(|(path, _)| *path == source.path);
        if !source.test && (lines > MAX_LINES) != listed {
            findings.push(format!("{}: {lines} lines, listed as long: {listed}", source.path));
        }
    }
    hold("too long", &findings);
}

#[test]
fn no_room_hides_in_a_drawer() {
    let drawers = ["utils", "util", "common", "helpers", "misc"];
    let named = |source: &Source| drawers.iter().any(|drawer| source.path.contains(&format!("/{drawer}")));
    let findings: Vec<String> = sources().iter().filter(|source| named(source)).map(|s| s.path.clone()).collect();
    hold("a module's name says what is in it", &findings);
}

#[test]
fn comments_and_strings_are_no_code() {
    let text =
        "let a = \"todo!(\"; // dbg!(\nlet b = r#\"x\"y\"#; /* .unwrap() */ let c = '\"'; let d = '\\''; e.unwrap()";
    assert_eq!(code_of(text), "let a = ; \nlet b = ;  let c = ; let d = ; e.unwrap()");
}

#[test]
fn grouped_imports_are_seen_one_by_one() {
    let code = "use crate::{state, spec::TaskId}; use crate::gossip::{Load, Table}; crate::cli::run()";
    assert_eq!(imports(code), ["state", "spec::TaskId", "gossip::Load", "gossip::Table", "cli::run"]);
}
