//! Bodies of requests: whatever is in them, there is an answer, and it blames who is to blame.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::backend::CONTAINER;
use super::client::{Answer, Server};
use super::mutation::{mutated, mutation};

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
                    {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1, "Mode": 511}},
                    {"Type": "bind", "Source": "/b", "Target": "/b", "ReadOnly": true,
                        "BindOptions": {"Propagation": "rprivate", "CreateMountpoint": true}},
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

fn stack() -> Value {
    json!({"services": [], "networks": [], "external_networks": ["net"], "secrets": [], "configs": [], "prune": true,
        "credentials": {"s_web": "e30="}})
}

/// Where bodies go, and one that is good there. `{v}` is the version of the service.
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
                "Raft": {"SnapshotInterval": 1, "ElectionTick": 1}, "CAConfig": {"NodeCertExpiry": 7_776_000_000_000_000_u64},
                "EncryptionConfig": {"AutoLockManagers": false}}),
        ),
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

/// A server with a network and a service of which the bodies speak; the version of that service.
fn furnished() -> (Server, u64) {
    let server = Server::start();
    let mut net = network("net");
    net["IPAM"] = Value::Null;
    assert_eq!(server.ask("POST", "/networks/create", net.to_string().as_bytes()).unwrap().status, 201);
    let mut there = service("there");
    there["EndpointSpec"] = Value::Null;
    let made = server.ask("POST", "/services/create", there.to_string().as_bytes()).unwrap();
    assert_eq!(made.status, 201, "{}", made.body);
    let found: Value = serde_json::from_str(&server.ask("GET", "/services/there", b"").unwrap().body).unwrap();
    (server, found["Version"]["Index"].as_u64().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn bodies_that_are_nearly_right_are_answered(
        // Services have the most that can be wrong.
        target in prop_oneof![0usize..3, 0usize..16],
        changes in prop::collection::vec(mutation(), 1..6),
    ) {
        let all = targets();
        let (method, path, body) = &all[target];
        let (server, version) = furnished();
        let path = path.replace("{v}", &version.to_string());
        let body = mutated(body.clone(), &changes).to_string();
        let answer = server.ask(method, &path, body.as_bytes());
        let answer = answer.map_err(|error| TestCaseError::fail(format!("{method} {path}: {error}: {body}")))?;
        prop_assert!(blames(&answer), "{method} {path}: {} {}: {body}", answer.status, answer.body);
        // What it took is shown, as every client reads it.
        for shown in ["/services?status=true", "/tasks", "/networks", "/nodes", "/swarm", "/flok/v1/status"] {
            let answer = server.ask("GET", shown, b"").map_err(|error| TestCaseError::fail(format!("{shown}: {error}: {body}")))?;
            prop_assert_eq!(answer.status, 200, "{}: {}: {}", shown, answer.body, body);
            let read: Result<Value, _> = serde_json::from_str(&answer.body);
            prop_assert!(read.is_ok(), "{shown}: {}", answer.body);
        }
    }
}

#[test]
fn what_is_no_json_or_too_much_of_it_is_refused() {
    let (server, _) = furnished();
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
