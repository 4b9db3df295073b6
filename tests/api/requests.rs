//! Heads of requests: paths, queries, filters, headers.

use std::io::Write;
use std::net::Shutdown;
use std::panic::AssertUnwindSafe;

use bolero::{TypeGenerator, check};
use flok::api::WriteFiles;
use serde_json::{Value, json};

use super::backend::CONTAINER;
use super::bodies::{Furnished, blames};
use super::client::{Answer, Server};

/// The backend itself lists no image: that would be to ask containerd.
#[test]
fn the_counts_of_info_are_what_the_node_knows() {
    let answer = Server::start().ask("GET", "/info", b"").unwrap();
    let info: Value = serde_json::from_str(&answer.body).unwrap();
    let counts = ["Containers", "ContainersRunning", "ContainersStopped", "Images"].map(|count| info[count].as_u64());
    assert_eq!(counts, [Some(5), Some(3), Some(2), Some(7)]);
}

#[test]
fn a_network_of_the_nodes_own_shows_who_is_on_it() {
    let server = Server::start();
    let containers = |network: &str| {
        let answer = server.ask("GET", &format!("/networks/{network}"), b"").unwrap();
        let shown: Value = serde_json::from_str(&answer.body).unwrap();
        shown["Containers"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!((containers("bridge"), containers("host")), (vec![CONTAINER.to_owned()], vec![]));
}

#[test]
fn a_volume_that_the_image_declares_is_a_mount_with_its_name() {
    let server = Server::start();
    let get = |path: &str| -> Value { serde_json::from_str(&server.ask("GET", path, b"").unwrap().body).unwrap() };
    let mounts = get(&format!("/containers/{CONTAINER}/json"))["Mounts"].clone();
    assert_eq!(mounts.as_array().unwrap().len(), 1);
    let wanted = json!({"Type": "volume", "Name": "f00d".repeat(16), "Source": "/nowhere/0/_data", "Destination": "/data",
        "Driver": "local", "Mode": "", "RW": true, "Propagation": ""});
    assert_eq!(mounts[0], wanted);
    let listed = |volume: &str| {
        let filters = escaped(&json!({ "volume": [volume] }).to_string());
        get(&format!("/containers/json?filters={filters}")).as_array().unwrap().len()
    };
    assert_eq!((listed(&"f00d".repeat(16)), listed("other")), (1, 0));
}

#[test]
fn a_service_that_is_to_change_its_name_or_its_mode_is_refused_as_docker_does() {
    let server = Server::start();
    let spec = json!({"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "a"}}});
    let send = |path: &str, body: &Value| server.ask("POST", path, body.to_string().as_bytes()).unwrap();
    assert_eq!(send("/services/create", &spec).status, 201);
    let found: Value = serde_json::from_str(&server.ask("GET", "/services/web", b"").unwrap().body).unwrap();
    let path = format!("/services/web/update?version={}", found["Version"]["Index"]);
    for (key, value, said) in [
        ("Name", json!("other"), "renaming services is not supported"),
        ("Mode", json!({"Global": {}}), "service mode change is not allowed"),
    ] {
        let mut changed = spec.clone();
        changed[key] = value;
        let refused = send(&path, &changed);
        let told: Value = serde_json::from_str(&refused.body).unwrap();
        assert_eq!((refused.status, told["message"].as_str()), (501, Some(said)));
    }
}

#[test]
fn what_a_containers_files_take_is_told_where_it_is_asked_for() {
    let server = Server::start();
    let get = |path: &str| -> Value { serde_json::from_str(&server.ask("GET", path, b"").unwrap().body).unwrap() };
    let sizes = |shown: &Value| ["SizeRw", "SizeRootFs"].map(|key| shown[key].as_u64());
    let (of_one, of_all) = (format!("/containers/{CONTAINER}/json"), "/containers/json");
    assert_eq!(sizes(&get(&format!("{of_one}?size=1"))), [Some(5), Some(700)]);
    assert_eq!(sizes(&get(&format!("{of_all}?size=true"))[0]), [Some(5), Some(700)]);
    assert_eq!((sizes(&get(&of_one)), sizes(&get(of_all)[0])), ([None, None], [None, None]));
}

#[test]
fn what_is_copied_with_its_owners_mapped_is_the_containers_users() {
    let server = Server::start();
    let written = |query: &str| {
        let path = format!("/containers/{CONTAINER}/archive?path=/data{query}");
        assert_eq!(server.ask("PUT", &path, b"").unwrap().status, 200);
        server.backend.written.lock().unwrap().take().unwrap()
    };
    let owner = Some((999, 998));
    for (query, wanted) in [
        ("", WriteFiles { replace_kinds: true, owner: None }),
        ("&noOverwriteDirNonDir=true", WriteFiles { replace_kinds: false, owner: None }),
        ("&copyUIDGID=true", WriteFiles { replace_kinds: true, owner }),
        ("&copyUIDGID=0", WriteFiles { replace_kinds: true, owner: None }),
    ] {
        assert_eq!(written(query), wanted, "{query}");
    }
}

fn escaped(text: &str) -> String {
    let one = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

/// Every route but those whose answers have no end.
pub fn routes(server: &Server) -> Vec<(String, String)> {
    let all: Value = serde_json::from_str(&server.ask("GET", "/flok/v1/routes", b"").unwrap().body).unwrap();
    let route = |route: &Value| {
        let text = |key: &str| route[key].as_str().unwrap().to_owned();
        (text("Method"), text("Path"))
    };
    all.as_array().unwrap().iter().map(route).collect()
}

/// A path with `name` in its places, and what there is of containers and commands.
pub fn named(path: &str, name: &str) -> String {
    let part = |part: &str| match part {
        "" => String::new(),
        part if part.starts_with('{') => format!("/{}", escaped(name)),
        part => format!("/{part}"),
    };
    let path = match name {
        "there" => {
            path.replace("/containers/{id}", &format!("/containers/{CONTAINER}")).replace("/exec/{id}", "/exec/e0")
        }
        _ => path.to_owned(),
    };
    path.split('/').map(part).collect()
}

/// A name or a value.
#[derive(Debug, Clone, TypeGenerator)]
enum Word {
    Listed(u8),
    Listed2(u8),
    Text(#[generator(String::produce().with().len(0usize..30))] String),
}

impl Word {
    fn text(&self) -> String {
        let long = "x".repeat(5000);
        let digits = "9".repeat(40);
        let listed = [
            "",
            "there",
            "n1",
            CONTAINER,
            "e0",
            "..",
            "a/b/c:d@sha256:e",
            "\0\r\n",
            &digits,
            "-1",
            "1e999",
            "NaN",
            "true",
            "1",
            "0",
            "18446744073709551615",
            "-9223372036854775808",
            "2026-11-30T00:00:00Z",
            "1h",
            "all",
            "5.9",
            &long,
        ];
        match self {
            Word::Listed(index) | Word::Listed2(index) => listed[usize::from(*index) % listed.len()].to_owned(),
            Word::Text(text) => text.clone(),
        }
    }
}

const FILTER_KEYS: [&str; 20] = [
    "id",
    "name",
    "label",
    "mode",
    "node",
    "service",
    "desired-state",
    "_up-to-date",
    "type",
    "event",
    "since",
    "status",
    "reference",
    "dangling",
    "driver",
    "exited",
    "role",
    "until",
    "colour",
    "label!",
];
const QUERY_KEYS: [&str; 32] = [
    "version",
    "rollback",
    "force",
    "status",
    "all",
    "limit",
    "size",
    "tail",
    "stdout",
    "stderr",
    "details",
    "signal",
    "t",
    "h",
    "w",
    "condition",
    "path",
    "fromImage",
    "tag",
    "repo",
    "ps_args",
    "stream",
    "verbose",
    "scope",
    "insertDefaults",
    "registryAuthFrom",
    "rotateWorkerToken",
    "from",
    "to",
    "port",
    "noOverwriteDirNonDir",
    "copyUIDGID",
];

#[derive(Debug, Clone, TypeGenerator)]
enum Filters {
    Object(u8, Word),
    List(u8, #[generator(Vec::<Word>::produce().with().len(0usize..4))] Vec<Word>),
    Two(u8, Word, u8, Word),
    Odd(u8),
    Word(Word),
}

impl Filters {
    fn text(&self) -> String {
        let key = |index: &u8| FILTER_KEYS[usize::from(*index) % FILTER_KEYS.len()];
        let odd = [r#"{"name":1}"#, r#"{"name":[1]}"#, "[]", "{", "null", r#"{"name":{"a":{"b":1}}}"#];
        match self {
            Filters::Object(index, value) => json!({key(index): {value.text(): true}}).to_string(),
            Filters::List(index, values) => {
                json!({key(index): values.iter().map(Word::text).collect::<Vec<String>>()}).to_string()
            }
            Filters::Two(one, first, other, second) => {
                json!({key(one): [first.text()], key(other): {second.text(): true}}).to_string()
            }
            Filters::Odd(index) => odd[usize::from(*index) % odd.len()].to_owned(),
            Filters::Word(word) => word.text(),
        }
    }
}

/// What is asked of a route.
#[derive(Debug, Clone, TypeGenerator)]
struct Asked {
    route: u8,
    name: Word,
    #[generator(Vec::<(u8, Word)>::produce().with().len(0usize..5))]
    query: Vec<(u8, Word)>,
    filters: Option<Filters>,
    login: Option<Word>,
}

impl Asked {
    fn query(&self) -> String {
        let pair = |(key, value): &(u8, Word)| {
            format!("{}={}", QUERY_KEYS[usize::from(*key) % QUERY_KEYS.len()], escaped(&value.text()))
        };
        let mut pairs: Vec<String> = self.query.iter().map(pair).collect();
        pairs.extend(self.filters.as_ref().map(|filters| format!("filters={}", escaped(&filters.text()))));
        // Or there would be no end of the answer.
        pairs.push("until=1".to_owned());
        pairs.join("&")
    }
}

#[test]
fn every_route_answers_whatever_it_is_asked() {
    let furnished = AssertUnwindSafe(Furnished::new());
    let routes = routes(&furnished.server);
    check!().with_iterations(1000).with_type().for_each(|asked: &Asked| {
        furnished.reset();
        let (method, path) = &routes[usize::from(asked.route) % routes.len()];
        let path = format!("{}?{}", named(path, &asked.name.text()), asked.query());
        let login = asked.login.as_ref().map(|login| login.text().replace(|c: char| c.is_ascii_control(), " "));
        let headers = login.map(|login| format!("X-Registry-Auth: {login}\r\n")).unwrap_or_default();
        let answer = furnished.server.ask_with(method, &path, &headers, b"");
        let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        assert!(blames(&answer), "{method} {path}: {} {}", answer.status, answer.body);
    });
}

#[test]
fn requests_of_any_bytes_are_answered_or_ended() {
    let furnished = AssertUnwindSafe(Furnished::new());
    check!().with_iterations(300).for_each(|bytes: &[u8]| {
        furnished.reset();
        let mut stream = furnished.server.connect();
        // One that is refused early is not read to its end.
        let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
        if let Ok(answer) = Answer::read(&mut stream) {
            assert!(blames(&answer), "{} {}", answer.status, answer.body);
        }
        assert_eq!(furnished.server.ask("GET", "/_ping", b"").unwrap().status, 200);
    });
}

#[test]
fn heads_have_bounds() {
    let server = Server::start();
    let said = |head: String| {
        let mut stream = server.connect();
        // One that is refused early is not read to its end.
        let _ = stream.write_all(head.as_bytes());
        Answer::read(&mut stream).map(|answer| answer.status)
    };
    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: flok\r\n{more}\r\n");
    assert_eq!(said(get("/_ping", "")).unwrap(), 200);
    // Long filters and logins are taken.
    let long = "x".repeat(60_000);
    let filters = format!("%7B%22name%22%3A%5B%22{long}%22%5D%7D");
    assert_eq!(said(get(&format!("/services?filters={filters}"), "")).unwrap(), 200);
    assert_eq!(said(get("/_ping", &format!("X-Registry-Auth: {long}\r\n"))).unwrap(), 200);
    // A megabyte is not, nor are a thousand headers.
    let refused = |answer: std::io::Result<u16>| answer.map_or(true, |status| (400..500).contains(&status));
    assert!(refused(said(get(&format!("/{}", "x".repeat(1 << 20)), ""))));
    assert!(refused(said(get("/_ping", &format!("X-Long: {}\r\n", "x".repeat(1 << 20))))));
    assert!(refused(said(get("/_ping", &"X-More: x\r\n".repeat(1000)))));
    for nonsense in ["GET\r\n\r\n", "\0\0\0\0\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        assert!(refused(said(nonsense.to_owned())), "{nonsense:?}");
    }
    // No more than the bound, however it comes in.
    assert_eq!(said(get("/_ping", &format!("X-Long: {}\r\n", "x".repeat(400_000)))).unwrap(), 431);
    let credentials = get("/_ping", "X-Registry-Auth: \u{ff}\u{fe}{{{{\r\n");
    assert_eq!(said(credentials).unwrap(), 200);
    assert_eq!(said(get("/_ping", "")).unwrap(), 200);
}

const SERVICE: &str = r#"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"example.org/web:1"}},"Mode":{"Replicated":{"Replicas":2}}}"#;

/// Each with what it is to be answered, and what the answer names.
#[test]
fn faults_are_told_as_json_with_what_is_wrong() {
    let server = Server::start();
    assert_eq!(server.ask("POST", "/services/create", SERVICE.as_bytes()).unwrap().status, 201);
    let container = super::backend::CONTAINER;
    for (method, path, status, named) in [
        ("POST", "/services/web/update?version=abc", 400, "version"),
        ("POST", "/services/web/update", 400, "version"),
        ("GET", "/containers/json?limit=abc", 400, "limit"),
        ("POST", &format!("/containers/{container}/stop?t=abc"), 400, "t:"),
        ("POST", &format!("/containers/{container}/resize?w=1"), 400, "h"),
        ("POST", &format!("/containers/{}/resize?h=1&w=1", super::backend::ENDED), 409, "is not running"),
        ("GET", "/services/web/logs?stdout=1&tail=abc", 400, "tail"),
        ("GET", "/services/web/logs?stdout=1&tail=-1", 400, "tail"),
        ("GET", "/services/%ff%fe", 400, "UTF-8"),
        ("POST", "/services/create", 400, "no body"),
        ("POST", "/secrets/create", 400, "no body"),
        ("GET", "/events?since=20&until=10", 400, "since"),
        ("GET", "/system/df?type=bogus", 400, "bogus"),
        ("POST", "/auth", 400, "username"),
        ("POST", "/swarm/unlock", 400, "no body"),
        ("GET", "/containers/flok/redis/json", 404, "No such container: flok/redis"),
        ("GET", "/plugins/x/json", 404, "x"),
        ("GET", "/secrets/a/b", 404, "a/b"),
        ("POST", "/build", 501, "does not serve"),
    ] {
        let answer = server.ask(method, path, b"").unwrap();
        let said: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{path}: {}", answer.body));
        let message = said["message"].as_str().unwrap();
        assert!(answer.status == status && message.contains(named), "{method} {path}: {} {message}", answer.status);
        assert!(!message.contains("deserialize") && !message.contains("null"), "{path}: {message}");
    }
    // Of a key that is there twice the first counts, as in Docker.
    assert_eq!(server.ask("GET", "/services?status=1&status=0", b"").unwrap().status, 200);
    assert_eq!(server.ask("GET", "/containers/json?limit=", b"").unwrap().status, 200);
    // A container's log is printed whole where the number of lines is none.
    for tail in ["abc", "-1", "all", "2"] {
        let answer = server.ask("GET", &format!("/containers/{container}/logs?stdout=1&tail={tail}"), b"").unwrap();
        assert_eq!(answer.status, 200, "{tail}: {}", answer.body);
    }
}

#[test]
fn a_query_that_is_written_by_hand_is_read() {
    let server = Server::start();
    let answer = server.ask("GET", r#"/services?filters={"name":["x"]}"#, b"").unwrap();
    assert_eq!((answer.status, answer.body.trim()), (200, "[]"));
    let answer = server.ask("GET", r#"/v1.43/services?filters={"nåme":["x"]}"#, b"").unwrap();
    assert!(answer.status == 400 && answer.body.contains("nåme"), "{} {}", answer.status, answer.body);
    // On a connection that is kept, too.
    let mut stream = server.connect();
    for _ in 0..2 {
        stream.write_all(b"GET /services?filters={\"name\":[\"x\"]} HTTP/1.1\r\nHost: f\r\n\r\n").unwrap();
        assert_eq!(Answer::read(&mut stream).unwrap().status, 200);
    }
}

#[test]
fn filters_that_mean_nothing_are_refused() {
    let server = Server::start();
    for (path, key, value, status) in [
        ("tasks", "service", "nope", 404),
        ("tasks", "node", "nope", 404),
        ("tasks", "node", "n1", 200),
        ("tasks", "desired-state", "bogus", 400),
        ("tasks", "_up-to-date", "maybe", 400),
        ("nodes", "role", "bogus", 400),
        ("nodes", "membership", "x", 400),
        ("networks", "type", "bogus", 400),
        ("networks", "dangling", "maybe", 400),
        ("volumes", "dangling", "maybe", 400),
        ("images/json", "dangling", "maybe", 400),
        ("containers/json", "exited", "bogus", 400),
        ("containers/json", "health", "bogus", 400),
        ("containers/json", "exited", "137", 200),
        ("containers/json", "since", "there.1", 200),
        ("containers/json", "before", "there.2", 200),
        ("containers/json", "since", "there.3", 404),
        ("containers/json", "publish", "7000-7100/tcp", 200),
        ("containers/json", "publish", "80:80", 400),
        ("containers/json", "expose", "7100-7000", 400),
    ] {
        let path = format!("/{path}?filters={}", escaped(&serde_json::json!({key: [value]}).to_string()));
        let answer = server.ask("GET", &path, b"").unwrap();
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(status == 200 || answer.body.contains(value), "{path}: {}", answer.body);
    }
}

#[test]
fn tasks_are_found_by_the_beginning_of_their_names() {
    let server = Server::start();
    assert_eq!(server.ask("POST", "/services/create", SERVICE.as_bytes()).unwrap().status, 201);
    let found = |name: &str| {
        let path = format!("/tasks?filters={}", escaped(&serde_json::json!({"name": {name: true}}).to_string()));
        let answer: Value = serde_json::from_str(&server.ask("GET", &path, b"").unwrap().body).unwrap();
        answer.as_array().unwrap().len()
    };
    assert_eq!((found("web"), found("web.1"), found("web.1."), found("web.3"), found("eb")), (2, 1, 1, 0, 0));
}
