//! Bodies of requests: whatever is in them, there is an answer, and it blames who is to blame.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;

use bolero::check;
use bolero::generator::produce;
use flok::api::model::stack::StackDeploy;
use flok::state::State;
use serde_json::{Value, json};

use super::backend::CONTAINER;
use super::client::{Answer, Server};
use super::mutation::{changes, mutated};
use super::requests::{named, routes};
use super::stack_files;

/// Docker answers 500 to an update of another version, and its clients look for the words.
pub fn blames(answer: &Answer) -> bool {
    let out_of_sequence = answer.status == 500 && answer.body.contains("update out of sequence");
    answer.status < 500 || matches!(answer.status, 501 | 503) || out_of_sequence
}

fn service(name: &str) -> Value {
    json!({
        "Name": name, "Labels": {"a": "b", "flok.privileged": "true", "flok.drain": "5s", "flok.devices": "/dev/null"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "example.org/web:1", "Command": ["a"], "Args": ["b"], "Env": ["A=1", "B={{.Node.Hostname}}"],
                "Hostname": "h-{{.Task.Slot}}", "Dir": "/d", "User": "1:2", "Groups": ["3"], "Labels": {"c": "d"},
                "TTY": true, "OpenStdin": true, "ReadOnly": true, "Init": true, "StopSignal": "SIGINT",
                "StopGracePeriod": 10_000_000_000_u64, "Isolation": "default", "OomScoreAdj": 5,
                "Sysctls": {"net.core.somaxconn": "1"}, "CapabilityAdd": ["CAP_NET_ADMIN"], "CapabilityDrop": ["ALL"],
                "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}], "Hosts": ["10.0.0.1 a"],
                "DNSConfig": {"Nameservers": ["10.0.0.1"], "Search": ["x"], "Options": ["ndots:1"]},
                "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000, "Timeout": 1_000_000_000, "Retries": 3,
                    "StartPeriod": 1_000_000_000, "StartInterval": 1_000_000_000},
                "Privileges": {"NoNewPrivileges": true},
                "Mounts": [
                    {"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": {"NoCopy": true, "Subpath": "s",
                        "Labels": {"a": "b"}, "DriverConfig": {"Name": "local", "Options": {"type": "nfs", "o": "addr=10.0.0.1", "device": ":/x"}}}},
                    {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1, "Mode": 511, "Options": [["exec"]]}},
                    {"Type": "bind", "Source": "/b", "Target": "/b", "ReadOnly": true,
                        "BindOptions": {"Propagation": "rprivate", "CreateMountpoint": true, "ReadOnlyForceRecursive": true}},
                ],
                "Secrets": [], "Configs": [],
            },
            "Resources": {"Limits": {"NanoCPUs": 1_000_000_000, "MemoryBytes": 67_108_864, "Pids": 5},
                "Reservations": {"NanoCPUs": 10_000_000, "MemoryBytes": 8_388_608,
                    "GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 1}}]}},
            "RestartPolicy": {"Condition": "any", "Delay": 1, "MaxAttempts": 3, "Window": 10},
            "Placement": {"Constraints": ["node.role==manager"], "MaxReplicas": 3,
                "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
                "Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
            "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}}, "ForceUpdate": 1, "Runtime": "container",
            "Networks": [{"Target": "net", "Aliases": ["w"]}],
        },
        "Mode": {"Replicated": {"Replicas": 2}},
        "UpdateConfig": {"Parallelism": 1, "Delay": 1, "FailureAction": "pause", "Monitor": 5, "MaxFailureRatio": 0.5,
            "Order": "start-first"},
        "RollbackConfig": {"Parallelism": 1, "Delay": 1, "FailureAction": "continue", "Monitor": 5, "MaxFailureRatio": 1,
            "Order": "stop-first"},
        "EndpointSpec": {"Mode": "vip", "Ports": [
            {"Name": "p", "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"},
            {"Protocol": "udp", "TargetPort": 53, "PublishMode": "host"}]},
    })
}

fn network(name: &str) -> Value {
    json!({
        "Name": name, "Driver": "overlay", "Scope": "swarm", "Internal": false, "Attachable": true, "Ingress": false,
        "EnableIPv6": true, "Options": {"com.docker.network.driver.mtu": "1400"}, "Labels": {"a": "b"}, "ConfigOnly": false,
        "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.7.0.0/24", "Gateway": "10.7.0.1", "IPRange": "10.7.0.0/25"},
            {"Subnet": "fd00:7::/64"}]},
    })
}

/// As `flok stack deploy` sends it.
fn stack() -> Value {
    let text = "{services: {web: {image: a, networks: [net], secrets: [s], deploy: {replicas: 2}}}, \
        networks: {net: {external: true}}, secrets: {s: {file: ./s}}, configs: {c: {file: ./c}}}";
    let stack = stack_files::converted(text);
    let deploy = StackDeploy {
        services: stack.services,
        networks: stack.networks,
        external_networks: stack.external_networks,
        secrets: stack.secrets,
        configs: stack.configs,
        prune: true,
        credentials: [("s_web".to_owned(), "e30=".to_owned())].into(),
    };
    serde_json::to_value(deploy).unwrap()
}

/// Where bodies go, and one that is good there. `{v}` is the version of what the path names.
fn targets() -> Vec<(&'static str, String, Value)> {
    let target = |method, path: &str, body| (method, path.to_owned(), body);
    vec![
        target("POST", "/services/create", service("web")),
        target("POST", "/services/there/update?version={v}", service("there")),
        target("POST", "/services/there/update?version={v}&rollback=previous", service("there")),
        target("POST", "/networks/create", network("other")),
        target(
            "POST",
            "/secrets/create",
            json!({"Name": "s", "Data": "eA==", "Labels": {}, "Templating": {"Name": "golang"}}),
        ),
        target(
            "POST",
            "/secrets/there/update?version={v}",
            json!({"Name": "there", "Data": "eA==", "Labels": {"a": "b"}}),
        ),
        target(
            "POST",
            "/configs/there/update?version={v}",
            json!({"Name": "there", "Data": "eA==", "Labels": {"a": "b"}}),
        ),
        target(
            "POST",
            "/flok/v1/secrets/there/data",
            json!({"version": 1, "data": "eQ==", "labels": {"a": "b"}, "roll_out": true}),
        ),
        target(
            "POST",
            "/flok/v1/configs/there/data",
            json!({"version": 1, "data": "eQ==", "labels": {"a": "b"}, "roll_out": true}),
        ),
        target("POST", "/flok/v1/secrets/there/rollback", json!({"version": 1, "to": 1, "roll_out": false})),
        target("POST", "/flok/v1/configs/there/rollback", json!({"version": 1, "to": 1, "roll_out": false})),
        target(
            "POST",
            "/configs/create",
            json!({"Name": "c", "Data": "eA==", "Labels": {}, "Templating": {"Name": "golang"}}),
        ),
        target(
            "POST",
            "/nodes/n1/update?version=1",
            json!({"Name": "n", "Role": "manager", "Availability": "active", "Labels": {"a": "b"}}),
        ),
        target(
            "POST",
            "/swarm/update?version=1&rotateWorkerToken=true",
            json!({"Name": "default", "Labels": {}, "Orchestration": {"TaskHistoryRetentionLimit": 5},
                "Raft": {"SnapshotInterval": 10_000, "ElectionTick": 10}, "CAConfig": {"NodeCertExpiry": 7_776_000_000_000_000_u64},
                "EncryptionConfig": {"AutoLockManagers": false}}),
        ),
        target(
            "POST",
            "/auth",
            json!({"username": "u", "password": "p", "serveraddress": "registry.example.org", "identitytoken": ""}),
        ),
        target("POST", "/swarm/unlock", json!({"UnlockKey": "FLKKEY-1-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"})),
        target(
            "POST",
            "/swarm/init",
            json!({"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "10.0.0.1", "SubnetSize": 24,
            "DataPathPort": 4789, "DefaultAddrPool": ["10.0.0.0/8"], "Spec": {"Labels": {}}}),
        ),
        target(
            "POST",
            "/swarm/join",
            json!({"RemoteAddrs": ["10.0.0.1:2377"], "JoinToken": "x", "Availability": "active"}),
        ),
        target(
            "POST",
            "/volumes/create",
            json!({"Name": "v", "Driver": "local", "DriverOpts": {}, "Labels": {"a": "b"}}),
        ),
        target(
            "POST",
            &format!("/containers/{CONTAINER}/exec"),
            json!({"Cmd": ["a"], "Env": ["A=1"], "AttachStdin": true,
            "Tty": true, "User": "0", "WorkingDir": "/", "Privileged": true, "DetachKeys": "ctrl-p"}),
        ),
        target("POST", "/exec/e0/start", json!({"Detach": false, "Tty": true, "ConsoleSize": [24, 80]})),
        target("POST", "/flok/v1/stacks/s", stack()),
        target("POST", "/flok/v1/stacks/s/plan", stack()),
        target("POST", "/flok/v1/images/resolve", json!({"images": ["a:1"], "credentials": {}})),
    ]
}

/// A server with what the bodies speak of.
pub struct Furnished {
    pub server: Server,
    /// With it, it is as it was.
    state: State,
}

impl Furnished {
    pub fn new() -> Furnished {
        let server = Server::start();
        let mut net = network("net");
        net["IPAM"] = Value::Null;
        let mut there = service("there");
        there["EndpointSpec"] = Value::Null;
        let data = json!({"Name": "there", "Data": "eA==", "Labels": {}});
        for (path, body) in [
            ("/networks/create", net),
            ("/secrets/create", data.clone()),
            ("/configs/create", data),
            ("/services/create", there),
        ] {
            let made = server.ask("POST", path, body.to_string().as_bytes()).unwrap();
            assert_eq!(made.status / 100, 2, "{path}: {}", made.body);
        }
        let state = server.backend.state();
        Furnished { server, state }
    }

    /// As if nothing had been asked.
    pub fn reset(&self) {
        self.server.backend.set_state(self.state.clone());
    }

    /// Of what a path names.
    fn version(&self, path: &str) -> u64 {
        let path = path.split("/update").next().unwrap();
        let shown = self.server.ask("GET", path, b"").unwrap();
        let shown: Value = serde_json::from_str(&shown.body).unwrap();
        shown["Version"]["Index"].as_u64().unwrap()
    }

    /// Paths with versions filled in, and documents that are good there.
    fn targets(&self) -> Vec<(&'static str, String, Value)> {
        let with_version = |(method, path, mut body): (&'static str, String, Value)| {
            if body.get("roll_out").is_some() {
                body["version"] = self
                    .version(
                        path.trim_start_matches("/flok/v1").trim_end_matches("/data").trim_end_matches("/rollback"),
                    )
                    .into();
            }
            let version = if path.contains("{v}") { self.version(&path) } else { 0 };
            (method, path.replace("{v}", &version.to_string()), body)
        };
        targets().into_iter().map(with_version).collect()
    }
}

/// What an answer says of whoever asked, and what everybody is shown afterwards.
fn is_answered(server: &Server, (method, path): (&str, &str), body: &[u8]) {
    let told = || format!("{method} {path}: {}", String::from_utf8_lossy(body));
    let answer = server.ask(method, path, body).unwrap_or_else(|error| panic!("{error}: {}", told()));
    assert!(blames(&answer), "{} {}: {}", answer.status, answer.body, told());
    for shown in ["/services?status=true", "/tasks", "/networks", "/nodes", "/swarm", "/flok/v1/status"] {
        let answer = server.ask("GET", shown, b"").unwrap_or_else(|error| panic!("{shown}: {error}: {}", told()));
        assert_eq!(answer.status, 200, "{shown}: {}: {}", answer.body, told());
        let read: Result<Value, _> = serde_json::from_str(&answer.body);
        assert!(read.is_ok(), "{shown}: {}", answer.body);
    }
}

#[test]
fn bodies_that_are_nearly_right_are_answered() {
    let furnished = AssertUnwindSafe(Furnished::new());
    let all = furnished.targets();
    check!().with_iterations(128).with_generator((produce::<u8>(), changes())).for_each(|(target, changes)| {
        // Services have the most that can be wrong.
        let target = usize::from(*target);
        let (method, path, body) = if target < 100 { &all[target % 3] } else { &all[target % all.len()] };
        furnished.reset();
        is_answered(&furnished.server, (method, path), mutated(body.clone(), changes).to_string().as_bytes());
    });
}

#[test]
fn bodies_of_any_bytes_are_answered() {
    let furnished = AssertUnwindSafe(Furnished::new());
    let routes = routes(&furnished.server);
    let takers: Vec<(&str, String)> = routes
        .iter()
        .filter(|(method, _)| method != "GET")
        .map(|(method, path)| (method.as_str(), named(path, "there")))
        .collect();
    check!().with_iterations(100).for_each(|bytes: &[u8]| {
        let (taker, body) = bytes.split_first().unwrap_or((&0, bytes));
        let (method, path) = &takers[usize::from(*taker) % takers.len()];
        furnished.reset();
        is_answered(&furnished.server, (method, path), body);
    });
}

#[test]
fn the_good_bodies_are_good() {
    let furnished = Furnished::new();
    for (method, path, body) in furnished.targets() {
        // No other swarm is here and no registry, and the data has had no version before.
        let elsewhere = [
            "/auth",
            "/swarm/unlock",
            "/swarm/init",
            "/swarm/join",
            "/rollback",
            "/images/resolve",
            "rollback=previous",
        ];
        if elsewhere.iter().any(|part| path.contains(part)) {
            continue;
        }
        furnished.reset();
        let answer = furnished.server.ask(method, &path, body.to_string().as_bytes()).unwrap();
        assert!(answer.status < 300, "{method} {path}: {} {}", answer.status, answer.body);
    }
}

/// Routes by which something changes and whose requests have no JSON body.
const NO_JSON: [&str; 19] = [
    "/swarm/leave",
    "/containers/prune",
    "/build/prune",
    "/networks/prune",
    "/containers/{id}/attach",
    "/containers/{id}/kill",
    "/containers/{id}/stop",
    "/containers/{id}/restart",
    "/containers/{id}/wait",
    "/containers/{id}/resize",
    "/containers/{id}/archive",
    "/exec/{id}/resize",
    "/images/load",
    "/images/create",
    "/images/prune",
    "/images/{*name}",
    "/volumes/prune",
    "/flok/v1/services/{name}/run",
    "/flok/v1/forward/{id}",
];

#[test]
fn every_body_has_a_document_to_change() {
    let server = Server::start();
    let shape = |path: &str| path.split('?').next().unwrap().split('/').map(str::to_owned).collect::<Vec<String>>();
    let targets: BTreeSet<Vec<String>> = targets().iter().map(|(_, path, _)| shape(path)).collect();
    let is_met = |route: &Vec<String>| {
        let fits = |target: &Vec<String>| {
            target.len() == route.len()
                && target.iter().zip(route).all(|(part, wanted)| wanted.starts_with('{') || part == wanted)
        };
        targets.iter().any(fits)
    };
    let routes: BTreeMap<String, Vec<String>> = routes(&server)
        .into_iter()
        .filter(|(method, _)| matches!(method.as_str(), "POST" | "PUT"))
        .map(|(_, path)| (path.clone(), shape(&path)))
        .collect();
    for (path, route) in &routes {
        assert_ne!(is_met(route), NO_JSON.contains(&path.as_str()), "{path}");
    }
    assert!(NO_JSON.iter().all(|path| routes.contains_key(*path)));
}

#[test]
fn what_is_no_json_or_too_much_of_it_is_refused() {
    let Furnished { server, .. } = Furnished::new();
    let before = server.backend.services();
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000)).into_bytes();
    let in_spec = |field: &str, value: &str| {
        format!(r#"{{"Name":"x","TaskTemplate":{{"ContainerSpec":{{"Image":"a","{field}":{value}}}}}}}"#).into_bytes()
    };
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("nothing", Vec::new(), 400),
        ("null", b"null".to_vec(), 400),
        ("a list", b"[]".to_vec(), 400),
        ("a beginning", b"{\"Name\":".to_vec(), 400),
        ("two of them", b"{} {}".to_vec(), 400),
        ("no text", vec![0xff, 0xfe, 0, b'{'], 400),
        ("deep lists", deep("[", "]"), 400),
        ("deep objects", deep("{\"a\":", "}"), 400),
        ("deep in a field", in_spec("Env", &format!("{}{}", "[".repeat(5000), "]".repeat(5000))), 400),
        ("a huge number", in_spec("StopGracePeriod", "1e999"), 400),
        ("many digits", in_spec("StopGracePeriod", &"9".repeat(100_000)), 400),
        ("a fraction", in_spec("StopGracePeriod", "1.5"), 400),
        ("many values", format!("[{}0]", "0,".repeat(2_000_000)).into_bytes(), 413),
        ("too many bytes", format!("{{\"Name\":\"{}\"}}", "x".repeat(17 << 20)).into_bytes(), 413),
    ];
    for (what, body, status) in cases {
        for path in ["/services/create", "/v1.24/services/create"] {
            let answer = server.ask("POST", path, &body).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(answer.status, status, "{what}: {}", answer.body);
            let said: Value = serde_json::from_str(&answer.body).unwrap();
            assert!(
                said["message"].as_str().is_some_and(|message| !message.is_empty() && message.len() < 2000),
                "{what}"
            );
        }
    }
    assert_eq!(server.backend.services(), before);
}

#[test]
fn what_would_not_be_heeded_is_refused_or_warned_of() {
    let server = Server::start();
    let ask = |path: &str, body: Value| server.ask("POST", path, body.to_string().as_bytes()).unwrap();
    let driver = ask("/configs/create", json!({"Name": "c", "driver": {"Name": "vault"}}));
    assert_eq!(driver.status, 400, "{}", driver.body);
    assert!(driver.body.contains("config c: a config has no driver"), "{}", driver.body);

    let job = |change: fn(&mut Value)| {
        let mut spec =
            json!({"Name": "job", "Mode": {"GlobalJob": {}}, "TaskTemplate": {"ContainerSpec": {"Image": "a:1"}}});
        change(&mut spec);
        ask("/services/create", spec)
    };
    let updated = job(|spec| spec["UpdateConfig"] = json!({"Parallelism": 1, "Order": "start-first"}));
    assert_eq!(updated.status, 400, "{}", updated.body);
    assert!(updated.body.contains("Jobs may not have an update config"), "{}", updated.body);
    let crowded = job(|spec| spec["TaskTemplate"]["Placement"] = json!({"MaxReplicas": 2}));
    assert_eq!(crowded.status, 400, "{}", crowded.body);
    assert!(crowded.body.contains("replicas-max-per-node can only be used with"), "{}", crowded.body);
    let again = job(|spec| spec["TaskTemplate"]["RestartPolicy"] = json!({"Condition": "any"}));
    assert_eq!(again.status, 201, "{}", again.body);
    assert!(again.body.contains("any means on-failure here"), "{}", again.body);
}
