//! Whole lines of the pieces in which logs come: the daemon cuts a long line, and several tasks' pieces come in turns.

use std::collections::BTreeMap;

/// Of one line that is held until its end comes; what is longer is printed as far as it has come.
const MAX_HELD_BYTES: usize = 1 << 20;

/// One of a task's two streams.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    pub task: String,
    pub is_stderr: bool,
}

/// What stands before each piece, as it was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    pub timestamps: bool,
    pub details: bool,
}

/// Lines whose end has not come yet.
#[derive(Debug, Default)]
pub struct Pieces(BTreeMap<Source, Vec<u8>>);

impl Pieces {
    /// What is to be printed now, which may be nothing. A line begins with `prefix`, and has its head once.
    pub fn add(&mut self, source: &Source, prefix: &str, piece: &[u8], heads: Heads) -> Option<Vec<u8>> {
        let held = match self.0.get_mut(source) {
            Some(held) => {
                held.extend_from_slice(without_head(piece, heads));
                held
            }
            None => self.0.entry(source.clone()).or_insert_with(|| [prefix.as_bytes(), piece].concat()),
        };
        if piece.ends_with(b"\n") {
            return self.0.remove(source);
        }
        (held.len() > MAX_HELD_BYTES).then(|| std::mem::take(held))
    }

    /// What is left of a task whose log has ended, with the line end that it lacks.
    pub fn end(&mut self, task: &str) -> Vec<(bool, Vec<u8>)> {
        let both = [false, true].map(|is_stderr| Source { task: task.to_owned(), is_stderr });
        let left = both.iter().filter_map(|source| Some((source.is_stderr, self.0.remove(source)?)));
        left.map(|(is_stderr, mut text)| {
            text.push(b'\n');
            (is_stderr, text)
        })
        .collect()
    }
}

/// The daemon stamps each piece.
fn without_head(piece: &[u8], heads: Heads) -> &[u8] {
    let mut rest = piece;
    if heads.timestamps {
        rest = after(rest, |word| word.parse::<jiff::Timestamp>().is_ok());
    }
    if heads.details {
        rest = after(rest, |word| word.contains("com.docker.swarm.task.id="));
    }
    rest
}

/// Without the first word, where it is the one that is meant.
fn after(text: &[u8], is_meant: impl FnOnce(&str) -> bool) -> &[u8] {
    let Some(end) = text.iter().position(|byte| *byte == b' ') else { return text };
    match std::str::from_utf8(&text[..end]) {
        Ok(word) if is_meant(word) => &text[end + 1..],
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Heads = Heads { timestamps: false, details: false };

    fn source(task: &str) -> Source {
        Source { task: task.to_owned(), is_stderr: false }
    }

    fn printed(pieces: &mut Pieces, task: &str, piece: &str) -> Option<String> {
        let prefix = format!("{task} | ");
        pieces.add(&source(task), &prefix, piece.as_bytes(), PLAIN).map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn pieces_of_a_line_are_one_line_whoever_else_prints() {
        let mut pieces = Pieces::default();
        assert_eq!(printed(&mut pieces, "a", "one "), None);
        assert_eq!(printed(&mut pieces, "b", "other\n").unwrap(), "b | other\n");
        assert_eq!(printed(&mut pieces, "a", "line"), None);
        assert_eq!(printed(&mut pieces, "a", "\n").unwrap(), "a | one line\n");
        assert_eq!(printed(&mut pieces, "a", "cut"), None);
        assert_eq!(pieces.end("b"), []);
        assert_eq!(pieces.end("a"), [(false, b"a | cut\n".to_vec())]);
        assert_eq!(pieces.end("a"), []);
    }

    #[test]
    fn a_line_without_end_is_printed_as_it_comes() {
        let mut pieces = Pieces::default();
        let long = "x".repeat(MAX_HELD_BYTES);
        let begun = printed(&mut pieces, "a", &long).unwrap();
        assert!(begun.starts_with("a | x") && begun.len() == MAX_HELD_BYTES + 4);
        assert_eq!(printed(&mut pieces, "a", "y"), None);
        assert_eq!(printed(&mut pieces, "a", "z\n").unwrap(), "yz\n");
    }

    #[test]
    fn a_lines_head_stands_before_it_once() {
        let mut pieces = Pieces::default();
        let heads = Heads { timestamps: true, details: true };
        let head = "2026-01-31T12:00:00.000000001Z com.docker.swarm.node.id=n,com.docker.swarm.task.id=t ";
        let mut add = |text: &str| pieces.add(&source("a"), "", format!("{head}{text}").as_bytes(), heads);
        assert_eq!(add("one "), None);
        assert_eq!(add("word and more\n").unwrap(), format!("{head}one word and more\n").into_bytes());
    }
}
