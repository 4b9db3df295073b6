//! Heads of requests: paths, queries, filters, headers.

use std::io::Write;

use proptest::prelude::*;
use serde_json::Value;

use super::bodies::blames;
use super::client::{Answer, Server};

fn escaped(text: &str) -> String {
    let one = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

/// Every route but those whose answers have no end.
fn routes(server: &Server) -> Vec<(String, String)> {
    let all: Value = serde_json::from_str(&server.ask("GET", "/flok/v1/routes", b"").unwrap().body).unwrap();
    let route = |route: &Value| {
        let text = |key: &str| route[key].as_str().unwrap().to_owned();
        (text("Method"), text("Path"))
    };
    all.as_array().unwrap().iter().map(route).collect()
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("n1".to_owned()),
        Just(super::backend::CONTAINER.to_owned()),
        Just("..".to_owned()),
        Just("a/b/c:d@sha256:e".to_owned()),
        Just("\0\r\n".to_owned()),
        Just("9".repeat(40)),
        Just("-1".to_owned()),
        Just("1e999".to_owned()),
        Just("NaN".to_owned()),
        Just("true".to_owned()),
        Just("x".repeat(5000)),
        ".{0,30}",
    ]
}

fn filters() -> impl Strategy<Value = String> {
    let keys = [
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
    ];
    let key = prop::sample::select(keys.to_vec());
    let object = (key.clone(), word()).prop_map(|(key, value)| serde_json::json!({key: {value: true}}).to_string());
    let list = (key, prop::collection::vec(word(), 0..4))
        .prop_map(|(key, values)| serde_json::json!({key: values}).to_string());
    let odd = prop::sample::select(
        [r#"{"name":1}"#, r#"{"name":[1]}"#, "[]", "{", "null", r#"{"name":{"a":{"b":1}}}"#].as_slice(),
    );
    prop_oneof![3 => object, 3 => list, 1 => odd.prop_map(str::to_owned), 1 => word()]
}

fn query() -> impl Strategy<Value = String> {
    let keys = [
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
    ];
    let pair =
        (prop::sample::select(keys.to_vec()), word()).prop_map(|(key, value)| format!("{key}={}", escaped(&value)));
    let pairs = (prop::collection::vec(pair, 0..5), prop::option::of(filters()));
    pairs.prop_map(|(mut pairs, filters)| {
        pairs.extend(filters.map(|filters| format!("filters={}", escaped(&filters))));
        // Or there would be no end of the answer.
        pairs.push("until=1".to_owned());
        pairs.join("&")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_route_answers_whatever_it_is_asked(
        asked in prop::collection::vec((any::<prop::sample::Index>(), word(), query()), 8..16),
    ) {
        let server = Server::start();
        let routes = routes(&server);
        for (route, name, query) in asked {
            let (method, path) = route.get(&routes);
            let path: String = path.split('/').map(|part| match part.starts_with('{') {
                true => format!("/{}", escaped(&name)),
                false => format!("/{part}"),
            }).collect();
            let path = format!("{}?{query}", path.replacen("//", "/", 1));
            let answer = server.ask(method, &path, b"").map_err(|error| TestCaseError::fail(format!("{method} {path}: {error}")))?;
            prop_assert!(blames(&answer), "{method} {path}: {} {}", answer.status, answer.body);
        }
    }
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
        ("GET", "/services/%ff%fe", 400, "UTF-8"),
        ("POST", "/services/create", 400, "no body"),
        ("POST", "/secrets/create", 400, "no body"),
        ("GET", "/events?since=20&until=10", 400, "since"),
        ("GET", "/system/df?type=bogus", 400, "bogus"),
        ("POST", "/auth", 400, "username"),
        ("POST", "/swarm/unlock", 409, "not locked"),
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
