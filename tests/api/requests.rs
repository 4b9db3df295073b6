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
    let credentials = get("/_ping", "X-Registry-Auth: \u{ff}\u{fe}{{{{\r\n");
    assert_eq!(said(credentials).unwrap(), 200);
    assert_eq!(said(get("/_ping", "")).unwrap(), 200);
}
