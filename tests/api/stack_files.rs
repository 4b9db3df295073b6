//! The stack file's parser: whatever is in a file, it is read or refused in bounded time and memory.

use std::collections::BTreeMap;
use std::fs;

use bolero::generator::{ValueGenerator, produce};
use bolero::{TypeGenerator, check};
use flok::spec::stack::{Features, Source, Stack, StackError, StackFile, Surroundings, Variables};
use serde_json::{Value, json};

use super::memory::spent;
use super::mutation::{changes, mutated};

/// For files of a few kilobytes: what reading one may hold at once, and all it may ask for, which grows with the work.
const MOST_BYTES: i64 = 64 << 20;
const ALL_BYTES: i64 = 512 << 20;

/// Reads and converts; canonical YAML of what is good reads back as itself. Every file that it names holds `data`.
fn read_beside(text: &str, variables: &Variables, data: &[u8]) -> Result<Stack, StackError> {
    let data = |_: &str| Ok(data.to_vec());
    let around =
        Surroundings { features: Features::all(), variables, working_dir: "/s", profiles: &[], read_file: &data };
    let one = |text: &str| StackFile::read(&[Source { name: "f.yml".into(), text: text.to_owned() }], &around);
    let file = one(text)?;
    let printed = file.print();
    // Of sections that are none of Docker's there is nothing to print.
    if !printed.is_empty() {
        let again = one(&printed).unwrap_or_else(|error| panic!("{error}\n{printed}")).print();
        assert_eq!(printed, again, "{text}");
    }
    Ok(file.convert("s", &around)?.0)
}

/// The same within bounds, and how many services there are.
fn read(text: &str, variables: &Variables) -> Result<usize, StackError> {
    bounded(text, variables, b"A=${HOME}\nB\n")
}

fn bounded(text: &str, variables: &Variables, data: &[u8]) -> Result<usize, StackError> {
    let (read, spent) = spent(|| read_beside(text, variables, data));
    let is_small = text.len() + data.len() < 16 << 10;
    assert!(!is_small || spent.most_bytes < MOST_BYTES && spent.all_bytes < ALL_BYTES, "{spent:?}: {text}");
    if let Err(error) = &read {
        assert!(!error.problems.is_empty());
        assert!(!is_small || error.to_string().len() < 1 << 20, "{} bytes of error", error.to_string().len());
    }
    read.map(|stack| stack.services.len())
}

/// What a good file comes to.
pub fn converted(text: &str) -> Stack {
    read_beside(text, &variables(), b"data").unwrap()
}

fn variables() -> Variables {
    [("HOME", "/root"), ("SET", "v"), ("EMPTY", ""), ("ODD", "${SET}: [\n")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// The files of the tests for each construct.
fn files() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/docker_api/stacks");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// A change to a text, at some place of it and of some length.
#[derive(Debug, Clone, TypeGenerator)]
struct Edit {
    place: u16,
    #[generator(1usize..40)]
    length: usize,
    change: TextChange,
}

#[derive(Debug, Clone, TypeGenerator)]
enum TextChange {
    Remove,
    Repeat(#[generator(2usize..50)] usize),
    Listed(u8),
    Insert(#[generator(String::produce().with().len(0usize..8))] String),
}

fn edits() -> impl ValueGenerator<Output = Vec<Edit>> {
    produce::<Vec<Edit>>().with().len(1usize..8)
}

const WORDS: [&str; 31] = [
    "${A:-",
    "}",
    "$",
    "*all",
    "&all ",
    "<<: ",
    "{",
    "}",
    "[",
    "]",
    ": ",
    "- ",
    "\n",
    "  ",
    "\t",
    "!!binary ",
    "|\n",
    ">-\n",
    "\"",
    "'",
    "#",
    "---\n",
    "0x",
    "1e400",
    "-1",
    "99999999999999999999",
    "\0",
    "é🦀",
    "~",
    "x-",
    "? ",
];

fn edited(mut text: String, edits: &[Edit]) -> String {
    for Edit { place, length, change } in edits {
        let borders: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let at = usize::from(*place) % borders.len();
        let range = borders[at]..borders[(at + length).min(borders.len() - 1)];
        match change {
            TextChange::Remove => text.replace_range(range, ""),
            TextChange::Repeat(count) => {
                let part = text[range.clone()].repeat(*count);
                text.replace_range(range, &part);
            }
            TextChange::Listed(index) => text.insert_str(range.start, WORDS[usize::from(*index) % WORDS.len()]),
            TextChange::Insert(word) => text.insert_str(range.start, word),
        }
    }
    text
}

/// A stack file as a document; YAML reads JSON.
fn document() -> Value {
    json!({
        "version": "3.9",
        "x-any": {"a": [1]},
        "services": {"web": {
            "image": "a/b:c", "command": ["x"], "entrypoint": "x y", "environment": {"A": 1, "B": null}, "env_file": ["./e"],
            "labels": ["a=b"], "ports": ["80:80/tcp", {"target": 1, "published": 2, "protocol": "udp", "mode": "host"}],
            "volumes": ["v:/v:ro", {"type": "bind", "source": "./x", "target": "/x", "bind": {"propagation": "shared"}},
                {"type": "tmpfs", "target": "/t", "tmpfs": {"size": "1g", "mode": 511}}],
            "networks": {"net": {"aliases": ["n"]}}, "secrets": [{"source": "s", "target": "t", "mode": 256, "uid": "1"}],
            "configs": ["c"], "healthcheck": {"test": ["CMD", "x"], "interval": "5s", "retries": 3}, "stop_grace_period": "1m",
            "ulimits": {"nofile": {"soft": 1, "hard": 2}, "nproc": 5}, "sysctls": {"a": 1}, "extra_hosts": ["a:1.2.3.4"],
            "dns": "1.1.1.1", "cap_add": ["ALL"], "logging": {"driver": "local", "options": {"max-size": "1m"}}, "tty": true,
            "devices": ["/dev/null"], "shm_size": "64m", "depends_on": ["db"],
            "deploy": {"mode": "replicated", "replicas": 2, "endpoint_mode": "vip", "labels": {"a": "b"},
                "update_config": {"parallelism": 1, "delay": "1s", "max_failure_ratio": 0.5, "order": "start-first"},
                "resources": {"limits": {"cpus": "0.5", "memory": "1g", "pids": 5}, "reservations": {"memory": "64m",
                    "generic_resources": [{"discrete_resource_spec": {"kind": "g", "value": 1}}]}},
                "restart_policy": {"condition": "any", "delay": "1s", "max_attempts": 1, "window": "1s"},
                "placement": {"constraints": ["node.role==manager"], "preferences": [{"spread": "node.labels.a"}],
                    "max_replicas_per_node": 1}},
        }, "db": {"image": "d"}},
        "networks": {"net": {"driver": "overlay", "ipam": {"config": [{"subnet": "10.0.0.0/24"}]}, "driver_opts": {"com.docker.network.driver.mtu": 1400}}},
        "volumes": {"v": {"driver": "local", "driver_opts": {"type": "nfs", "o": "addr=10.0.0.1", "device": ":/x"}, "labels": {"a": "b"}, "name": "n"}},
        "secrets": {"s": {"file": "./s"}}, "configs": {"c": {"external": true, "name": "x"}},
    })
}

#[test]
fn the_good_files_are_good() {
    assert_eq!(read(&document().to_string(), &variables()).unwrap(), 2);
    for file in files() {
        assert!(read(&file, &variables()).unwrap() > 0);
    }
    assert!(read("x-own: 1", &variables()).unwrap_err().to_string().contains("no services"));
}

#[test]
fn files_that_are_nearly_right_are_read_or_refused() {
    let (files, variables) = (files(), variables());
    check!().with_iterations(200).with_generator((produce::<u8>(), edits())).for_each(|(file, edits)| {
        let file = files[usize::from(*file) % files.len()].clone();
        let _ = read(&edited(file, edits), &variables);
    });
}

#[test]
fn documents_that_are_nearly_right_are_read_or_refused() {
    let (document, variables) = (document(), variables());
    check!().with_iterations(100).with_generator(changes()).for_each(|changes| {
        let _ = read(&mutated(document.clone(), changes).to_string(), &variables);
    });
}

#[test]
fn files_of_any_bytes_are_read_or_refused() {
    let variables = variables();
    check!().with_iterations(200).for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let _ = read(&text, &variables);
        let _ = read(&format!("services:\n  web:\n    image: a\n    command: {text}\n"), &variables);
    });
}

#[test]
fn values_of_any_text_are_read_or_refused() {
    let variables = variables();
    let keys = [
        "image",
        "command",
        "hostname",
        "mem_limit",
        "stop_grace_period",
        "x-schedule",
        "user",
        "shm_size",
        "working_dir",
    ];
    let lists = ["ports", "volumes", "environment", "depends_on", "extra_hosts", "devices", "tmpfs", "secrets", "dns"];
    check!().with_iterations(40).for_each(|bytes: &[u8]| {
        let value = json!(String::from_utf8_lossy(bytes));
        for key in keys {
            let _ = read(&json!({"services": {"web": {"image": "a", key: value}}}).to_string(), &variables);
        }
        for key in lists {
            let _ = read(&json!({"services": {"web": {"image": "a", key: [value]}}}).to_string(), &variables);
        }
        let placement = json!({"constraints": [value], "preferences": [{"spread": value}]});
        let _ = read(
            &json!({"services": {"web": {"image": "a", "deploy": {"placement": placement}}}}).to_string(),
            &variables,
        );
    });
}

#[test]
fn files_beside_a_stack_file_are_read_or_refused() {
    let variables = variables();
    let web = "image: a";
    let cases = [
        format!("services: {{web: {{{web}, env_file: [e]}}}}"),
        format!("services: {{web: {{{web}, extends: {{file: f, service: web}}}}}}"),
        format!("{{include: [f], services: {{web: {{{web}}}}}}}"),
        format!("{{include: [{{path: f, env_file: e}}], services: {{web: {{{web}}}}}}}"),
        format!("{{services: {{web: {{{web}, secrets: [s]}}}}, secrets: {{s: {{file: f}}}}}}"),
    ];
    check!().with_iterations(100).for_each(|bytes: &[u8]| {
        for text in &cases {
            let _ = bounded(text, &variables, bytes);
        }
    });
}

#[test]
fn bombs_are_refused() {
    // Ten aliases of the level before on each, as `a1: &a1 [*a0, *a0...]`, and so on.
    let levels = |count: usize, of: &dyn Fn(&str) -> String| {
        let level = |at: usize| of(&vec![format!("*a{}", at - 1); 10].join(", ")).replace("NAME", &format!("a{at}"));
        let last = format!("services: {{web: {{image: a, labels: *a{count}}}}}\n");
        "x-0: &a0 {k: v}\n".to_owned() + &(1..=count).map(level).collect::<String>() + &last
    };
    let cases: BTreeMap<&str, String> = [
        ("lists of lists", levels(12, &|aliases| format!("x-NAME: &NAME [{aliases}]\n"))),
        ("deep lists", format!("services: {}{}", "[".repeat(100_000), "]".repeat(100_000))),
        ("deep blocks", (0..20_000).map(|depth| format!("{}a:\n", " ".repeat(depth.min(2000)))).collect()),
        (
            "deep variables",
            format!("services: {{web: {{image: \"{}x{}\"}}}}", "${A:-".repeat(50_000), "}".repeat(50_000)),
        ),
        (
            "many keys",
            format!("services: {{{}}}", (0..150_000).map(|key| format!("a{key}: {{image: x}}, ")).collect::<String>()),
        ),
        ("many documents", "---\nservices: {web: {image: a}}\n".repeat(5000)),
        ("an alias of itself", "services: &all {web: *all}\n".to_owned()),
        ("a long key", format!("services: {{{}: {{image: a}}}}", "k".repeat(3 << 20))),
        ("many ports", "services: {web: {image: a, ports: ['1-65535:1-65535', '1-65535:1-65535/udp']}}".to_owned()),
        ("huge numbers", format!("services: {{web: {{image: a, deploy: {{replicas: {}}}}}}}", "9".repeat(100_000))),
        (
            "a long number",
            format!("services: {{web: {{image: a, mem: 1, stop_grace_period: {}h}}}}", "9".repeat(100_000)),
        ),
    ]
    .into();
    for (what, text) in cases {
        let error = read(&text, &variables()).err().unwrap_or_else(|| panic!("{what} is read"));
        assert!(!error.problems.is_empty(), "{what}");
        assert!(error.to_string().len() < 16 << 20, "{what}: {} bytes of error", error.to_string().len());
    }
}

#[test]
fn what_a_variable_holds_is_no_yaml_and_no_bomb() {
    let mut variables = variables();
    variables.insert("BIG".into(), "x".repeat(1 << 20));
    let text = format!("services: {{web: {{image: a, labels: {{a: \"{}\"}}}}}}", "$BIG".repeat(100));
    assert!(read(&text, &variables).unwrap_err().to_string().contains("too large"));
    let stack = "services: {web: {image: a, labels: {a: \"$ODD\"}}}";
    assert_eq!(read(stack, &variables).unwrap(), 1);
}
