//! Stack files, deployed by Docker's command and by flok's own: the swarm is then told to keep the same. Files of our own for
//! each construct (`stacks/`), and those from the wild in `../shared/stacks` where that is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flok::spec::stack::{Features, Source, StackFile, Surroundings, Variables};
use serde_json::{Map, Value};

use super::commands::has;
use super::docker_command::{command, docker, ok};
use super::lab::{Host, eventually};
use super::swarm::{PATIENCE, Swarm};

const STACK: &str = "s";

/// What the files ask of the client's environment.
const VARIABLES: [(&str, &str); 12] = [
    ("ADMIN_PASSWORD", "secret"),
    ("ADMIN_USER", "root"),
    ("DOMAIN", "example.org"),
    ("EMAIL", "root@example.org"),
    ("HASHED_PASSWORD", "$apr1$x"),
    ("HOME", "/root"),
    ("NODE_ID", "n1"),
    ("OF_THE_CLIENT", "given"),
    ("PASSWORD", "secret"),
    ("TRAEFIK_PUBLIC_NETWORK", "traefik-public"),
    ("TRAEFIK_PUBLIC_TAG", "traefik-public"),
    ("USERNAME", "root"),
];

/// What both refuse, since the swarm does: the file, and of what each refusal tells something. Any other refusal fails the test.
const REFUSED: [(&str, &[&str]); 1] = [
    // Docker refuses it as well: it shows every key, not what goes together.
    ("docker-cli_full-example", &["knows no option", "IPAM driver", "dnsrr", "enable IPv6"]),
];

/// Every stack file at hand.
fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in [root.join("tests/docker_api/stacks"), root.join("../shared/stacks")] {
        match fs::read_dir(&folder) {
            Ok(entries) => found.extend(entries.map(|entry| entry.unwrap().path())),
            Err(_) => eprintln!("skipped: no {}", folder.display()),
        }
    }
    found.retain(|path| path.extension().is_some_and(|extension| extension == "yml"));
    found.sort();
    found
}

/// A stack file with the files that it names beside it, and what it takes for granted in the swarm.
struct Case {
    name: String,
    file: PathBuf,
    text: String,
}

impl Case {
    fn laid_out(file: &Path, below: &Path) -> Case {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(file).unwrap();
        let folder = below.join(&name);
        fs::create_dir_all(&folder).unwrap();
        for line in text.lines().map(str::trim) {
            let named = line.split(['"', '\'', ' ', ',', '[', ']', '{', '}']).filter(|word| word.starts_with("./"));
            for path in
                named.filter(|path| line.contains("file: ") || path.ends_with(".env")).map(|path| folder.join(path))
            {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                let data =
                    if path.extension().is_some_and(|e| e == "env") { "FIRST=1\nSECOND=two words\n" } else { "x\n" };
                fs::write(path, data).unwrap();
            }
        }
        let file = folder.join("stack.yml");
        fs::write(&file, &text).unwrap();
        Case { name, file, text }
    }

    /// The networks, secrets and configs that must be there already.
    fn externals(&self) -> [Vec<String>; 3] {
        let variables: Variables = VARIABLES.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let read_file = |_: &str| Ok(b"A=1".to_vec());
        let around = Surroundings {
            features: Features::all(),
            variables: &variables,
            working_dir: "/s",
            profiles: &[],
            read_file: &read_file,
        };
        let sources = [Source { name: self.name.clone(), text: self.text.clone() }];
        let stack = StackFile::read(&sources, &around).ok().and_then(|file| file.convert(STACK, &around).ok());
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names.dedup();
            names
        };
        let stack = stack.map(|(stack, _)| [stack.external_networks, stack.external_secrets, stack.external_configs]);
        stack.unwrap_or_else(|| ["networks", "secrets", "configs"].map(|kind| self.external(kind))).map(sorted)
    }

    /// The same as it is written, of a file that no stack comes of.
    fn external(&self, kind: &str) -> Vec<String> {
        let file: Value = serde_saphyr::from_str(&self.text).unwrap();
        let name = |(key, object): (&String, &Value)| {
            let external = object.get("external").filter(|external| **external != Value::Bool(false))?;
            let name = object["name"].as_str().or(external["name"].as_str()).unwrap_or(key);
            Some(name.to_owned())
        };
        file[kind].as_object().into_iter().flatten().filter_map(name).collect()
    }

    fn deploy(&self, mut by: Command, more: &[&str]) -> Output {
        by.args(["stack", "deploy", "--resolve-image", "never"]).args(more).arg("-c").arg(&self.file);
        by.arg(STACK).envs(VARIABLES).output().unwrap()
    }
}

/// Objects by their names, each in the form in which clients compare them, by kind.
type Stored = BTreeMap<&'static str, BTreeMap<String, Value>>;

/// All that belongs to the stack, without what differs from one deployment to the next: ids, times, addresses.
fn stored(at: &Host, case: &Case) -> Stored {
    let list = |kind: &str, label: &str| {
        let all = at.get(&format!("/{kind}{label}")).unwrap();
        all.as_array().unwrap_or_else(|| panic!("{kind}: {all}")).clone()
    };
    let label = format!("?filters=%7B%22label%22%3A%5B%22com.docker.stack.namespace%3D{STACK}%22%5D%7D");
    let names: BTreeMap<String, Value> =
        list("networks", "").iter().map(|one| (one["Id"].as_str().unwrap().to_owned(), one["Name"].clone())).collect();
    let specs = |kind: &str| {
        let all = list(kind, &label).into_iter().map(|one| one["Spec"].clone());
        all.map(|spec| (spec["Name"].as_str().unwrap().to_owned(), spec)).collect::<BTreeMap<_, _>>()
    };
    let mut services = specs("services");
    services.values_mut().for_each(|service| without_ids(service, &names));
    let mut networks = BTreeMap::new();
    for mut network in list("networks", &label) {
        let fields = network.as_object_mut().unwrap();
        // What is allocated differs, what is asked for does not.
        let subnets = fields["IPAM"]["Config"].as_array().into_iter().flatten().map(|pool| pool["Subnet"].as_str());
        let asked = subnets.flatten().any(|subnet| case.text.contains(subnet));
        fields.retain(|field, _| !matches!(field.as_str(), "Id" | "Created") && (asked || field != "IPAM"));
        networks.insert(network["Name"].as_str().unwrap().to_owned(), network);
    }
    [("services", services), ("networks", networks), ("secrets", specs("secrets")), ("configs", specs("configs"))]
        .into()
}

fn without_ids(service: &mut Value, names: &BTreeMap<String, Value>) {
    let template = &mut service["TaskTemplate"];
    for kind in ["Secrets", "Configs"] {
        for reference in template["ContainerSpec"][kind].as_array_mut().into_iter().flatten() {
            let fields: &mut Map<String, Value> = reference.as_object_mut().unwrap();
            fields.retain(|field, _| !field.ends_with("ID"));
        }
    }
    let networks = template["Networks"].as_array_mut().into_iter().flatten();
    for target in networks.map(|network| &mut network["Target"]) {
        *target = names[target.as_str().unwrap()].clone();
    }
    // Ordered by what the client knew of them: names or ids.
    if let Some(networks) = template["Networks"].as_array_mut() {
        networks.sort_by_key(|network| network["Target"].to_string());
    }
}

/// Where `docker`'s and `flok`'s are not the same.
fn differences(path: &str, docker: &Value, flok: &Value, found: &mut Vec<String>) {
    match (docker, flok) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let of = |object: &Map<String, Value>| object.get(key).cloned().unwrap_or(Value::Null);
                differences(&format!("{path}.{key}"), &of(a), &of(b), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}[{at}]"), a, b, found);
            }
        }
        (a, b) if a == b => {}
        (a, b) => found.push(format!("{path}: docker {a}, flok {b}")),
    }
}

fn compared(docker: &Stored, flok: &Stored) -> Vec<String> {
    let mut found = Vec::new();
    for (kind, objects) in docker {
        let of = |objects: &BTreeMap<String, Value>| objects.clone().into_iter().collect::<Map<_, _>>().into();
        differences(kind, &of(objects), &of(&flok[kind]), &mut found);
    }
    found
}

/// What comes of a deployment; the stack is gone afterwards.
fn tried(at: &Host, case: &Case, by: Command, more: &[&str]) -> Result<Stored, String> {
    let output = case.deploy(by, more);
    let outcome = match output.status.success() {
        true => Ok(stored(at, case)),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    };
    docker(at, &["stack", "rm", STACK]);
    eventually("the stack to be gone", PATIENCE, || match stored(at, case) {
        left if left.values().all(BTreeMap::is_empty) => Ok(()),
        left => {
            docker(at, &["stack", "rm", STACK]);
            Err(format!("{left:?}"))
        }
    });
    outcome
}

fn one(at: &Host, case: &Case) -> Vec<String> {
    let [networks, secrets, configs] = case.externals();
    networks.iter().for_each(|name| drop(ok(at, &["network", "create", "--driver", "overlay", "--attachable", name])));
    secrets.iter().for_each(|name| drop(ok(at, &["secret", "create", name, "/etc/hostname"])));
    configs.iter().for_each(|name| drop(ok(at, &["config", "create", name, "/etc/hostname"])));
    let docker = tried(at, case, command(at, "docker"), &[]);
    let flok = tried(at, case, at.client(), &["--detach"]);
    networks.iter().for_each(|name| drop(ok(at, &["network", "rm", name])));
    secrets.iter().for_each(|name| drop(ok(at, &["secret", "rm", name])));
    configs.iter().for_each(|name| drop(ok(at, &["config", "rm", name])));
    // An old command knows no newer version, none that is not written, and no jobs.
    let old = ["unsupported Compose file version", "Unknown mode"];
    if docker.as_ref().is_err_and(|error| old.iter().any(|unknown| error.contains(unknown)))
        && !has(at, &format!("stack file {}", case.name), 23)
    {
        return Vec::new();
    }
    let is_to_be_refused = REFUSED.iter().any(|(file, _)| *file == case.name);
    let found = match (docker, flok) {
        (Ok(docker), Ok(flok)) if !is_to_be_refused => compared(&docker, &flok),
        (Ok(_), Ok(_)) => vec!["it is no longer refused".to_owned()],
        (Err(docker), Err(flok)) => {
            let reasons = REFUSED.iter().filter(|(file, _)| *file == case.name).flat_map(|(_, reasons)| *reasons);
            let is_known = |error: &String| reasons.clone().any(|reason| error.contains(reason));
            let others = [docker, flok].into_iter().filter(|error| !is_known(error));
            others.map(|error| format!("refused: {error}")).collect()
        }
        (Ok(_), Err(error)) => vec![format!("flok alone refuses it: {error}")],
        (Err(error), Ok(_)) => vec![format!("docker alone refuses it: {error}")],
    };
    found.into_iter().map(|difference| format!("{}: {difference}", case.name)).collect()
}

pub fn are_stored_alike(swarm: &Swarm) {
    let at = &swarm.hosts[0];
    // Images need not exist where nothing is to run.
    ok(at, &["node", "update", "--availability", "drain", "n1"]);
    let below = swarm.dir().join("stacks");
    let files = files();
    assert!(files.len() >= 4);
    let found: Vec<String> = files.iter().flat_map(|file| one(at, &Case::laid_out(file, &below))).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    ok(at, &["node", "update", "--availability", "active", "n1"]);
}
