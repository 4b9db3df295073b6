//! The table of keys in docs/stack-file.md is the schema's, so that neither can say what the other does not.

use std::fmt::Write;

use super::*;
use crate::spec::stack::reader::{Field, Support};
use crate::spec::stack::schema::SECTIONS;

const BEGIN: &str = "<!-- keys: made by the test `manual` from the schema -->\n";
const END: &str = "<!-- end of keys -->\n";

fn outcome(field: &Field) -> String {
    match field.support {
        Support::Used => "honoured".into(),
        Support::Ignored => "ignored, with a warning".into(),
        Support::Refused(why) => format!("refused: {why}"),
        Support::Needs(feature) if Features::supported().has(feature) => "honoured".into(),
        Support::Needs(feature) => format!("refused: {}", feature.refusal()),
    }
}

fn table() -> String {
    let mut out = String::new();
    for (section, fields) in SECTIONS {
        writeln!(out, "\n### {section}\n\n| key | what becomes of it |\n|---|---|").unwrap();
        for field in fields {
            writeln!(out, "| `{}` | {} |", field.key, outcome(field)).unwrap();
        }
    }
    out + "\n"
}

/// `FLOK_BLESS=1` writes the table anew.
#[test]
fn the_manual_names_every_key_and_what_becomes_of_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/stack-file.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the table's beginning is marked");
    let (found, after) = rest.split_once(END).expect("the table's end is marked");
    if std::env::var_os("FLOK_BLESS").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{}{END}{after}", table())).unwrap();
        return;
    }
    assert_eq!(found, table(), "run this test with FLOK_BLESS=1, and look at what it changed in docs/stack-file.md");
}

#[test]
fn no_key_stands_in_a_section_twice() {
    for (section, fields) in SECTIONS {
        for field in fields {
            let same = fields.iter().filter(|other| other.key == field.key).count();
            assert_eq!(same, 1, "{section}: {}", field.key);
        }
    }
}
