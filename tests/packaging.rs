//! What comes beside the binary: the unit file has the keys that containers' lives hang on, the examples can be deployed.

use std::fs;
use std::path::PathBuf;

use flok::spec::stack::{Features, Source, StackFile, Surroundings, Variables};

fn file(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What a section of the unit file gives a key; the last one counts.
fn unit_key(section: &str, key: &str) -> Option<String> {
    let unit = fs::read_to_string(file("config/flok.service")).unwrap();
    let (_, rest) = unit.split_once(&format!("[{section}]\n")).expect("the section is there");
    let section = rest.split_once("\n[").map_or(rest, |(section, _)| section);
    let mut assignments = section.lines().filter_map(|line| line.split_once('='));
    assignments.rfind(|(name, _)| *name == key).map(|(_, value)| value.to_owned())
}

#[test]
fn stopping_the_unit_leaves_the_containers_alone() {
    let expected = [
        ("KillMode", "process"),
        ("Delegate", "yes"),
        ("Type", "notify"),
        ("Restart", "on-failure"),
        ("RuntimeDirectoryPreserve", "yes"),
        ("TasksMax", "infinity"),
    ];
    for (key, value) in expected {
        assert_eq!(unit_key("Service", key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(unit_key("Unit", "RequiresMountsFor").as_deref(), Some("/var/lib/flok"));
    let files: u64 = unit_key("Service", "LimitNOFILE").unwrap().parse().unwrap();
    assert!(files >= 1 << 20);
    for key in ["ExecStop", "PrivateTmp", "PrivateMounts", "ProtectSystem", "ProtectControlGroups", "WatchdogSec"] {
        assert_eq!(unit_key("Service", key), None, "{key} would come between the daemon and its containers");
    }
}

#[test]
fn example_stacks_can_be_deployed() {
    let folder = file("config/examples");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let sources = [Source { name: path.display().to_string(), text }];
        let read_file = |name: &str| Err(format!("an example needs no other file: {name}"));
        let variables = Variables::default();
        let around = Surroundings {
            features: Features::supported(),
            variables: &variables,
            working_dir: folder.to_str().unwrap(),
            read_file: &read_file,
            profiles: &[],
        };
        let stack = StackFile::read(&sources, &around).and_then(|file| file.convert("example", &around));
        let (stack, warnings) = stack.unwrap_or_else(|error| panic!("{error}"));
        assert!(!stack.services.is_empty());
        assert!(warnings.is_empty(), "{warnings:?}");
        names.push(path.file_name().unwrap().to_string_lossy().into_owned());
    }
    names.sort();
    assert_eq!(names, ["databases.yml", "job.yml", "voting.yml", "whoami.yml"]);
}
