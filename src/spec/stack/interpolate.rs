//! `${V}` in the string values of a stack file, in all the forms Docker knows. Values are interpolated in the parsed tree,
//! never in the raw text, so what a variable holds can never change the file's structure.
//!
//! `$V`, `${V}`; `${V:-word}` and `${V-word}` give a default (with the colon also for an empty variable), `${V:?why}` and
//! `${V?why}` demand it, `${V:+word}` and `${V+word}` give the word only where it is set; words may hold further
//! variables; `$$` is a dollar sign.

use std::collections::BTreeMap;

use super::problem::Report;
use super::yaml::{Node, Value};

/// Variables inside words inside variables, and so on.
const MAX_NESTING: usize = 16;
/// A value may grow this far by what its variables hold.
const MAX_EXPANDED: usize = 4 << 20;

pub type Variables = BTreeMap<String, String>;

/// Interpolates every string value below `node`; keys stay as they are.
pub fn tree(node: &mut Node, path: &str, variables: &Variables, report: &mut Report) {
    match &mut node.value {
        Value::Text(text) if text.contains('$') => {
            let mut unset = Vec::new();
            match expand(text, variables, &mut unset) {
                Ok(expanded) => *text = expanded,
                Err(message) => report.problem(node.place, path, message),
            }
            for name in unset {
                report.warn(
                    node.place,
                    path,
                    format!("variable {name:?} is not set: an empty string stands in for it"),
                );
            }
        }
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                tree(item, &format!("{path}[{index}]"), variables, report);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                tree(&mut entry.value, &format!("{path}.{}", entry.key), variables, report);
            }
        }
        _ => {}
    }
}

/// One string; names of variables that were neither set nor given a default go into `unset`.
pub fn expand(text: &str, variables: &Variables, unset: &mut Vec<String>) -> Result<String, String> {
    let mut scanner = Scanner { text, variables, unset };
    let (expanded, _) = scanner.scan(0, false, 0)?;
    Ok(expanded)
}

struct Scanner<'a> {
    text: &'a str,
    variables: &'a Variables,
    unset: &'a mut Vec<String>,
}

impl Scanner<'_> {
    /// From `at` to the end, or to the brace that closes a word. Gives the text and where it ended.
    fn scan(&mut self, mut at: usize, in_word: bool, depth: usize) -> Result<(String, usize), String> {
        if depth > MAX_NESTING {
            return Err(format!("variables are nested deeper than {MAX_NESTING} levels"));
        }
        let mut out = String::new();
        while let Some(c) = self.text[at..].chars().next() {
            match c {
                '}' if in_word => return Ok((out, at)),
                '$' => at = self.dollar(at, &mut out, depth)?,
                c => {
                    out.push(c);
                    at += c.len_utf8();
                }
            }
            if out.len() > MAX_EXPANDED {
                return Err("the value grows too large by its variables".into());
            }
        }
        if in_word { Err(self.invalid()) } else { Ok((out, at)) }
    }

    /// At a dollar sign; gives where reading goes on.
    fn dollar(&mut self, at: usize, out: &mut String, depth: usize) -> Result<usize, String> {
        let rest = &self.text[at + 1..];
        match rest.chars().next() {
            Some('$') => {
                out.push('$');
                Ok(at + 2)
            }
            Some('{') => self.braced(at + 2, out, depth),
            _ => {
                let name = variable_name(rest);
                if name.is_empty() {
                    return Err(self.invalid());
                }
                self.plain(name, out);
                Ok(at + 1 + name.len())
            }
        }
    }

    /// After `${`.
    fn braced(&mut self, at: usize, out: &mut String, depth: usize) -> Result<usize, String> {
        let text = self.text;
        let name = variable_name(&text[at..]);
        if name.is_empty() {
            return Err(self.invalid());
        }
        let after = at + name.len();
        let rest = &text[after..];
        if rest.starts_with('}') {
            self.plain(name, out);
            return Ok(after + 1);
        }
        let (colon, rest) = rest.strip_prefix(':').map_or((false, rest), |rest| (true, rest));
        let operator = rest.chars().next().filter(|c| matches!(c, '-' | '?' | '+')).ok_or_else(|| self.invalid())?;
        let word_at = after + usize::from(colon) + 1;
        let value = self.variables.get(name).filter(|value| !(colon && value.is_empty())).cloned();

        // The word is read in any case, to find its end; what it lacks counts only where it is used.
        let unset_before = self.unset.len();
        let word = self.scan(word_at, true, depth + 1);
        let used = matches!((operator, &value), ('-' | '?', None) | ('+', Some(_)));
        let (word, end) = match word {
            Err(_) if !used => (String::new(), word_end(text, word_at).ok_or_else(|| self.invalid())?),
            word => word?,
        };
        if !used {
            self.unset.truncate(unset_before);
        }
        match (operator, value) {
            ('?', None) => return Err(required(name, &word)),
            ('-', None) | ('+', Some(_)) => out.push_str(&word),
            ('+', None) => {}
            (_, Some(value)) => out.push_str(&value),
            (_, None) => return Err(self.invalid()),
        }
        Ok(end + 1)
    }

    fn plain(&mut self, name: &str, out: &mut String) {
        match self.variables.get(name) {
            Some(value) => out.push_str(value),
            None => self.unset.push(name.to_string()),
        }
    }

    fn invalid(&self) -> String {
        let shown: String = self.text.chars().take(80).collect();
        format!("invalid variable in {shown:?}: write ${{NAME}}, ${{NAME:-default}} or $$ for a dollar sign")
    }
}

fn required(name: &str, why: &str) -> String {
    match why {
        "" => format!("required variable {name} is missing a value"),
        why => format!("required variable {name} is missing a value: {why}"),
    }
}

/// Where the brace stands that closes the word beginning at `at`.
fn word_end(text: &str, at: usize) -> Option<usize> {
    let mut open = 0usize;
    let mut chars = text[at..].char_indices().peekable();
    while let Some((offset, c)) = chars.next() {
        match c {
            '$' if chars.next_if(|(_, next)| *next == '{').is_some() => open += 1,
            '}' if open == 0 => return Some(at + offset),
            '}' => open -= 1,
            _ => {}
        }
    }
    None
}

/// The name a text begins with: a letter or underscore, then letters, digits and underscores.
fn variable_name(text: &str) -> &str {
    if !text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return "";
    }
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<String, String> {
        let variables = [("SET", "value"), ("EMPTY", ""), ("OTHER", "o"), ("BRACE", "${SET}")];
        let variables = variables.map(|(k, v)| (k.to_string(), v.to_string())).into();
        expand(text, &variables, &mut Vec::new())
    }

    #[test]
    fn every_form_expands() {
        let cases = [
            ("plain", "plain"),
            ("$SET ${SET}", "value value"),
            ("a$SET-b", "avalue-b"),
            ("$UNSET|${UNSET}", "|"),
            ("${UNSET:-d} ${EMPTY:-d} ${SET:-d}", "d d value"),
            ("${UNSET-d} ${EMPTY-d} ${SET-d}", "d  value"),
            ("${UNSET:+w} ${EMPTY:+w} ${SET:+w}", "  w"),
            ("${UNSET+w} ${EMPTY+w} ${SET+w}", " w w"),
            ("${SET:?no} ${SET?no} ${EMPTY?no}", "value value "),
            ("${UNSET:-${OTHER}}", "o"),
            ("${UNSET:-${UNSET2:-x${OTHER}y}}z", "xoyz"),
            ("${UNSET:-http://a:80/?q=1}", "http://a:80/?q=1"),
            ("${UNSET:-}", ""),
            ("$$SET $${SET} $$$SET", "$SET ${SET} $value"),
            ("^/(sys|proc)($$|/)", "^/(sys|proc)($|/)"),
            ("${UNSET:-a$$b}", "a$b"),
            ("{{.Node.ID}}", "{{.Node.ID}}"),
            ("${SET:-${MUST:?not used}}", "value"),
            ("ünï${SET}ö", "ünïvalueö"),
            ("$BRACE", "${SET}"),
        ];
        for (text, expanded) in cases {
            assert_eq!(with(text).as_deref(), Ok(expanded), "{text}");
        }
    }

    #[test]
    fn a_missing_variable_says_why_it_is_needed() {
        assert_eq!(with("${X:?set X}"), Err("required variable X is missing a value: set X".into()));
        assert_eq!(with("${EMPTY:?}"), Err("required variable EMPTY is missing a value".into()));
        assert!(with("${X?need ${SET}}").unwrap_err().ends_with("need value"));
    }

    #[test]
    fn malformed_variables_are_refused() {
        for text in
            ["$", "${", "${}", "${SET", "$1", "${1A}", "${SET!x}", "${SET:x}", "${A:-${B}", "a $(cmd)", "${SET "]
        {
            assert!(with(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nesting_has_an_end() {
        let deep = format!("{}x{}", "${A:-".repeat(100), "}".repeat(100));
        assert!(with(&deep).unwrap_err().contains("nested deeper"));
    }

    #[test]
    fn only_variables_in_use_are_reported_as_unset() {
        let mut unset = Vec::new();
        let variables = [("SET".to_string(), "v".to_string())].into();
        expand("${SET:-$A} $B ${C:-$D}", &variables, &mut unset).unwrap();
        assert_eq!(unset, ["B", "D"]);
    }
}
