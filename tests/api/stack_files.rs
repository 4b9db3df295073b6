//! The stack file's parser: whatever is in a file, it is read or refused in bounded time and memory.

use std::collections::BTreeMap;
use std::fs;

use flok::spec::stack::{Features, Source, StackError, StackFile, Surroundings, Variables};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use super::mutation::{mutated, mutation};

/// Reads and converts; canonical YAML of what is good reads back as itself.
fn read(text: &str, variables: &Variables) -> Result<usize, StackError> {
    let data = |_: &str| Ok(b"A=${HOME}\nB\n".to_vec());
    let around = |features| Surroundings { features, variables, working_dir: "/s", profiles: &[], read_file: &data };
    let around = around(Features::all());
    let one = |text: &str| StackFile::read(&[Source { name: "f.yml".into(), text: text.to_owned() }], &around);
    let file = one(text)?;
    let printed = file.print();
    // Of sections that are none of Docker's there is nothing to print.
    if !printed.is_empty() {
        let again = one(&printed).unwrap_or_else(|error| panic!("{error}\n{printed}")).print();
        assert_eq!(printed, again, "{text}");
    }
    let (stack, _) = file.convert("s", &around)?;
    Ok(stack.services.len())
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

/// A change to a text, at some place and of some length.
#[derive(Debug, Clone)]
enum Edit {
    Remove,
    Repeat(usize),
    Insert(String),
}

fn edit() -> impl Strategy<Value = (Index, usize, Edit)> {
    let words = [
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
    let change = prop_oneof![
        Just(Edit::Remove),
        (2usize..50).prop_map(Edit::Repeat),
        prop::sample::select(words.to_vec()).prop_map(|word| Edit::Insert(word.to_owned())),
        ".{0,8}".prop_map(Edit::Insert),
    ];
    (any::<Index>(), 1usize..40, change)
}

fn edited(mut text: String, edits: &[(Index, usize, Edit)]) -> String {
    for (place, length, edit) in edits {
        let borders: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let at = place.index(borders.len());
        let range = borders[at]..borders[(at + length).min(borders.len() - 1)];
        match edit {
            Edit::Remove => text.replace_range(range, ""),
            Edit::Repeat(count) => {
                let part = text[range.clone()].repeat(*count);
                text.replace_range(range, &part);
            }
            Edit::Insert(word) => text.insert_str(range.start, word),
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
                "resources": {"limits": {"cpus": "0.5", "memory": "1g", "pids": 5}, "reservations": {"memory": "1k",
                    "generic_resources": [{"discrete_resource_spec": {"kind": "g", "value": 1}}]}},
                "restart_policy": {"condition": "any", "delay": "1s", "max_attempts": 1, "window": "1s"},
                "placement": {"constraints": ["node.role==manager"], "preferences": [{"spread": "node.labels.a"}],
                    "max_replicas_per_node": 1}},
        }, "db": {"image": "d"}},
        "networks": {"net": {"driver": "overlay", "ipam": {"config": [{"subnet": "10.0.0.0/24"}]}, "driver_opts": {"a": 1}}},
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

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn files_that_are_nearly_right_are_read_or_refused(
        file in any::<Index>(),
        edits in prop::collection::vec(edit(), 1..8),
    ) {
        let files = files();
        let text = edited(file.get(&files).clone(), &edits);
        if let Err(error) = read(&text, &variables()) {
            prop_assert!(!error.problems.is_empty());
        }
    }

    #[test]
    fn documents_that_are_nearly_right_are_read_or_refused(changes in prop::collection::vec(mutation(), 1..6)) {
        if let Err(error) = read(&mutated(document(), &changes).to_string(), &variables()) {
            prop_assert!(!error.problems.is_empty());
            prop_assert!(error.to_string().len() < 1 << 20, "{} bytes of error", error.to_string().len());
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(?s).{0,200}") {
        let _ = read(&text, &variables());
        let _ = read(&format!("services:\n  web:\n    image: a\n    command: {text}\n"), &variables());
    }
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
