//! What an update is to take from an object that has it not. Docker says nothing of it, and a command that is given twice
//! must not fail the second time: so it is told, and the rest is done.

use std::fmt::Display;

use crate::spec::stack::nearest;

/// Names in one hint; an object may have many.
const MAX_SHOWN: usize = 10;

/// What is told, a line for each name.
#[derive(Debug, Default)]
pub struct Missing {
    pub lines: Vec<String>,
}

impl Missing {
    /// Those of `asked` that are none of `known`.
    pub fn look(&mut self, flag: &str, asked: &[impl AsRef<str>], known: &[String]) {
        self.look_for(flag, asked, known, |asked, known| asked == known);
    }

    pub fn look_for(
        &mut self,
        flag: &str,
        asked: &[impl AsRef<str>],
        known: &[String],
        is_same: impl Fn(&str, &str) -> bool,
    ) {
        let asked = asked.iter().map(AsRef::as_ref);
        for name in asked.filter(|asked| !known.iter().any(|known| is_same(asked, known))) {
            self.add(flag, &name, known);
        }
    }

    pub fn add(&mut self, flag: &str, name: &impl Display, known: &[String]) {
        let name = name.to_string();
        let hint = match nearest(&name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}?"),
            None if known.is_empty() => "there is none".to_owned(),
            None if known.len() <= MAX_SHOWN => format!("there are {}", known.join(", ")),
            None => format!("there are {} and {} more", known[..MAX_SHOWN].join(", "), known.len() - MAX_SHOWN),
        };
        self.lines.push(format!("--{flag} {name} takes nothing away: {hint}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_told_with_what_is() {
        let mut missing = Missing::default();
        let known = ["db_key".to_owned(), "site".to_owned()];
        missing.look("secret-rm", &["db_kye", "banana", "site"], &known);
        missing.look("env-rm", &["A"], &[]);
        let many: Vec<String> = (0..12).map(|n| format!("name-{n}")).collect();
        missing.look("label-rm", &["x"], &many);
        assert_eq!(missing.lines[0], "--secret-rm db_kye takes nothing away: did you mean db_key?");
        assert_eq!(missing.lines[1], "--secret-rm banana takes nothing away: there are db_key, site");
        assert_eq!(missing.lines[2], "--env-rm A takes nothing away: there is none");
        assert!(missing.lines[3].ends_with("name-9 and 2 more"), "{}", missing.lines[3]);
        assert_eq!(missing.lines.len(), 4);
    }
}
