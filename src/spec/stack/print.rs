//! The canonical tree as YAML, for `stack config`: keys sorted, strings quoted only where they would read as another type.

use std::fmt::Write;

use super::yaml::{Entry, Node, Value};

/// The sections in the order Docker prints them.
const SECTIONS: [&str; 6] = ["version", "services", "networks", "volumes", "secrets", "configs"];

/// Characters of a key, quotes among them; a longer one stands behind a question mark (YAML 1.2.2, section 7.4.2).
const MAX_KEY_CHARS: usize = 1024;

pub fn stack(root: &Node) -> String {
    let mut out = String::new();
    for section in SECTIONS {
        if let Some(entry) = root.entries().iter().find(|entry| entry.key == section) {
            print_entry(&mut out, entry, 0);
        }
    }
    out
}

fn print_entry(out: &mut String, entry: &Entry, indent: usize) {
    push_indent(out, indent);
    let key = scalar(&entry.key);
    if key.chars().count() > MAX_KEY_CHARS {
        writeln!(out, "? {key}").expect("a String takes all that is written");
        push_indent(out, indent);
    } else {
        out.push_str(&key);
    }
    out.push(':');
    print_value(out, &entry.value.value, indent);
}

/// After a key's colon: on the same line, or indented below it.
fn print_value(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Null => out.push('\n'),
        Value::Map(entries) if entries.is_empty() => out.push_str(" {}\n"),
        Value::List(items) if items.is_empty() => out.push_str(" []\n"),
        Value::Map(entries) => {
            out.push('\n');
            for entry in sorted(entries) {
                print_entry(out, entry, indent + 2);
            }
        }
        Value::List(items) => {
            out.push('\n');
            for item in items {
                print_item(out, item, indent);
            }
        }
        value => {
            out.push(' ');
            out.push_str(&inline(value));
            out.push('\n');
        }
    }
}

fn print_item(out: &mut String, item: &Node, indent: usize) {
    push_indent(out, indent);
    out.push('-');
    match &item.value {
        // A mapping's first key stands beside the dash.
        Value::Map(entries) if !entries.is_empty() => {
            let mut inner = String::new();
            for entry in sorted(entries) {
                print_entry(&mut inner, entry, indent + 2);
            }
            out.push(' ');
            out.push_str(inner.trim_start());
        }
        value => print_value(out, value, indent + 2),
    }
}

fn sorted(entries: &[Entry]) -> Vec<&Entry> {
    let mut entries: Vec<&Entry> = entries.iter().collect();
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    entries
}

fn push_indent(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn inline(value: &Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        // A dollar sign stands for itself where it is read again.
        Value::Text(text) => scalar(&text.replace('$', "$$")),
        Value::Null | Value::List(_) | Value::Map(_) => String::new(),
    }
}

/// Plain where that reads back as the same string, else in double quotes.
fn scalar(text: &str) -> String {
    if is_plain(text) { text.to_string() } else { quoted(text) }
}

fn is_plain(text: &str) -> bool {
    let first_ok = text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '_' | '.' | '(' | '^'));
    let words = ["true", "false", "yes", "no", "on", "off", "null", "y", "n", ".inf", ".nan"];
    first_ok
        && !words.contains(&text.to_ascii_lowercase().as_str())
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && text
            .chars()
            .all(|c| !c.is_control() && c != '\u{feff}' && c != '\u{2028}' && c != '\u{2029}' && c != '\u{85}')
        && text.trim_start_matches('.').parse::<f64>().is_err()
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}') => {
                write!(out, "\\u{:04X}", u32::from(c)).expect("a String takes all that is written");
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::stack::yaml;

    fn values(node: &Node) -> String {
        match &node.value {
            Value::Map(entries) => {
                sorted(entries).iter().map(|e| format!("{:?}={},", e.key, values(&e.value))).collect()
            }
            Value::List(items) => format!("[{}]", items.iter().map(|i| values(i) + ",").collect::<String>()),
            value => format!("{value:?}"),
        }
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same() {
        let text = r##"
services:
  "1": {a: "5", b: 5, c: "true", d: true, e: "", f: null, g: [], h: {}}
  s:
    l: [[1, 2], [], {x: 1, y: [a, {z: 2}]}, "- a", "a: b", "a #b", "#c", " x ", "x:"]
    m: "two\nlines\t\"quoted\" \\ and \u0007"
    n: ["0440", "1e3", "0x10", ".5", "~", "null", "*a", "&a", "!t", "@", "`", "%", "é", "10:30", "-", "a,b", "{a}", "1.2.3"]
"##;
        let tree = yaml::parse(0, text).unwrap();
        let printed = stack(&tree);
        let again = yaml::parse(0, &printed).unwrap_or_else(|error| panic!("{error:?}\n{printed}"));
        assert_eq!(values(&again), values(&tree), "{printed}");
    }

    #[test]
    fn keys_of_any_length_read_back_as_the_same() {
        for length in [1022, 1023, 1024, 1025, 5000] {
            for key in ["k".repeat(length), "\u{e9}:".repeat(length / 2)] {
                let text =
                    format!("services: {{? {key:?} : 1, a: {{? {key:?} : {{b: 2}}}}, c: [{{? {key:?} : [3], d: 4}}]}}");
                let tree = yaml::parse(0, &text).unwrap();
                let printed = stack(&tree);
                let again = yaml::parse(0, &printed).unwrap_or_else(|error| panic!("{length}: {error:?}\n{printed}"));
                assert_eq!(values(&again), values(&tree), "{printed}");
            }
        }
    }
}
