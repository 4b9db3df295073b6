//! Heads of requests: paths, queries, filters, headers.

use std::io::Write;
use std::net::Shutdown;
use std::panic::AssertUnwindSafe;

use bolero::{TypeGenerator, check};
use serde_json::{Value, json};

use super::backend::CONTAINER;
use super::bodies::{Furnished, blames};
use super::client::{Answer, Server};

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
const QUERY_KEYS: [&str; 31] = [
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
    let credentials = get("/_ping", "X-Registry-Auth: \u{ff}\u{fe}{{{{\r\n");
    assert_eq!(said(credentials).unwrap(), 200);
    assert_eq!(said(get("/_ping", "")).unwrap(), 200);
}
