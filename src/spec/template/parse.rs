//! From a template's text to its parts.

use serde_json::Value;

use super::functions::{FUNCTIONS, LOOKUPS};
use super::{MAX_DEPTH, Operand, Part, PartKind, Pipeline, cut};
use crate::spec::stack::nearest;

/// Of one action, in parentheses too.
const MAX_OPERANDS: usize = 1_000;
/// Variables that are known at one place.
const MAX_VARIABLES: usize = 100;
/// What Go's templates have, and these do not.
const NOT_SUPPORTED: [&str; 8] = ["define", "template", "block", "break", "continue", "call", "html", "js"];

/// The error with the line of what is wrong.
pub(super) fn template(text: &str) -> Result<Vec<Part>, (usize, String)> {
    let mut reader = Reader { rest: text, rest_line: 1, line: 1, trim: false, variables: Vec::new() };
    let whole = reader.parts(0).and_then(|(parts, end)| match end {
        Stop::Text => Ok(parts),
        Stop::Else(_) => Err("{{else}} without {{if}}, {{with}} or {{range}} before it".into()),
        Stop::End => Err("{{end}} without {{if}}, {{with}} or {{range}} before it".into()),
    });
    whole.map_err(|why| (reader.line, why))
}

/// What ended a list of parts.
enum Stop {
    Text,
    /// With what follows the word: `if .Name`.
    Else(String),
    End,
}

struct Reader<'t> {
    rest: &'t str,
    /// In which `rest` begins, from 1.
    rest_line: usize,
    /// In which the action begins that is read.
    line: usize,
    /// The action before ended in `-}}`.
    trim: bool,
    /// Those that are set here.
    variables: Vec<String>,
}

impl Reader<'_> {
    fn parts(&mut self, depth: usize) -> Result<(Vec<Part>, Stop), String> {
        if depth > MAX_DEPTH {
            return Err(format!("{{{{if}}}} and {{{{range}}}} stand in one another more than {MAX_DEPTH} deep"));
        }
        let outside = self.variables.len();
        let mut parts = Vec::new();
        let stop = loop {
            let Some((text, rest)) = self.rest.split_once("{{") else {
                let rest = std::mem::take(&mut self.rest);
                parts.extend(self.text(rest, false));
                break Stop::Text;
            };
            self.line = self.rest_line + lines(text);
            let action = action(rest)?;
            parts.extend(self.text(text, action.trims_before));
            self.rest_line = self.line + lines(&rest[..rest.len() - action.rest.len()]);
            self.rest = action.rest;
            self.trim = action.trims_behind;
            match action.text.split_once(char::is_whitespace).unwrap_or((action.text, "")) {
                _ if action.text.starts_with("/*") => {}
                ("end", "") => break Stop::End,
                ("else", rest) => break Stop::Else(rest.trim().to_owned()),
                (word @ ("if" | "with" | "range"), rest) => {
                    let line = self.line;
                    let kind = self.block(word, rest, depth)?;
                    parts.push(Part { line, kind });
                }
                _ => {
                    let kind = self.print(action.text)?;
                    parts.push(Part { line: self.line, kind });
                }
            }
        };
        self.variables.truncate(outside);
        Ok((parts, stop))
    }

    fn text(&self, text: &str, trims_end: bool) -> Option<Part> {
        let text = if self.trim { text.trim_start() } else { text };
        let text = if trims_end { text.trim_end() } else { text };
        (!text.is_empty()).then(|| Part { line: self.rest_line, kind: PartKind::Text(text.to_owned()) })
    }

    /// A value to print, or a variable that gets one.
    fn print(&mut self, text: &str) -> Result<PartKind, String> {
        let (mut set, pipeline) = self.pipeline(text, 1)?;
        Ok(match (set.names.pop(), set.declares) {
            (None, _) => PartKind::Print(pipeline),
            (Some(name), false) => PartKind::Assign(name, pipeline),
            (Some(name), true) => {
                self.declare(std::slice::from_ref(&name))?;
                PartKind::Declare(name, pipeline)
            }
        })
    }

    fn declare(&mut self, names: &[String]) -> Result<(), String> {
        self.variables.extend(names.iter().cloned());
        match self.variables.len() > MAX_VARIABLES {
            true => Err(format!("there are more than {MAX_VARIABLES} variables")),
            false => Ok(()),
        }
    }

    /// `if`, `with` or `range`, up to its end.
    fn block(&mut self, word: &str, text: &str, depth: usize) -> Result<PartKind, String> {
        let (set, pipeline) = self.pipeline(text, if word == "range" { 2 } else { 1 })?;
        if !set.declares && !set.names.is_empty() {
            return Err(format!("{{{{{word}}}}} declares a variable with :=, and does not assign one"));
        }
        let variables = set.names;
        let outside = self.variables.len();
        self.declare(&variables)?;
        let (first, otherwise) = self.branches(word, depth)?;
        self.variables.truncate(outside);
        Ok(match word {
            "range" => PartKind::Range { over: pipeline, variables, each: first, otherwise },
            _ => PartKind::Branch {
                is_dot: word == "with",
                variable: variables.into_iter().next(),
                condition: pipeline,
                then: first,
                otherwise,
            },
        })
    }

    fn branches(&mut self, what: &str, depth: usize) -> Result<(Vec<Part>, Vec<Part>), String> {
        let line = self.line;
        match self.parts(depth + 1)? {
            (_, Stop::Text) => self.not_closed(what, line),
            (first, Stop::End) => Ok((first, Vec::new())),
            (first, Stop::Else(rest)) => match rest.split_once(char::is_whitespace) {
                // Its end is the whole's.
                Some((word, rest)) if word == what && what != "range" => {
                    let line = self.line;
                    let kind = self.block(what, rest, depth + 1)?;
                    Ok((first, vec![Part { line, kind }]))
                }
                _ if rest.is_empty() => match self.parts(depth + 1)? {
                    (second, Stop::End) => Ok((first, second)),
                    _ => self.not_closed(what, line),
                },
                _ => Err(format!("{{{{else}}}} of {{{{{what}}}}} is followed by what is none of its conditions")),
            },
        }
    }

    fn not_closed<T>(&mut self, what: &str, line: usize) -> Result<T, String> {
        self.line = line;
        Err(format!("{{{{{what}}}}} is not closed by {{{{end}}}}"))
    }

    /// The variables that it sets, `most` of them at most, and what they are set to.
    fn pipeline(&self, text: &str, most: usize) -> Result<(Set, Pipeline), String> {
        let mut tokens = tokens(text)?;
        if tokens.len() > MAX_OPERANDS {
            return Err(format!("there are more than {MAX_OPERANDS} words between {{{{ and }}}}"));
        }
        let mut set = Set::default();
        if let Some(at) = tokens.iter().position(|token| matches!(token, Token::Set { .. })) {
            for token in tokens.drain(..=at) {
                match token {
                    Token::Word(word) if word.len() > 1 && word.starts_with('$') && !word.contains('.') => {
                        set.names.push(word[1..].to_owned());
                    }
                    Token::Comma => {}
                    Token::Set { declares } => set.declares = declares,
                    _ => return Err("only variables stand before := and =, for example $name".into()),
                }
            }
            if set.names.is_empty() || set.names.len() > most {
                return Err(format!("{} variables are set at once", set.names.len()));
            }
            if let Some(name) = set.names.iter().find(|name| !set.declares && !self.variables.contains(name)) {
                return Err(format!("there is no variable ${} here: declare it with :=", cut(name)));
            }
        }
        let mut tokens = tokens.into_iter().peekable();
        let pipeline = self.calls(&mut tokens, 0)?;
        match tokens.next() {
            None => Ok((set, pipeline)),
            Some(_) => Err("there is a ) too many".into()),
        }
    }

    fn calls(&self, tokens: &mut Tokens, depth: usize) -> Result<Pipeline, String> {
        if depth > MAX_DEPTH {
            return Err(format!("parentheses stand in one another more than {MAX_DEPTH} deep"));
        }
        let mut calls = vec![Vec::new()];
        while let Some(token) = tokens.next_if(|token| !matches!(token, Token::Close(_))) {
            let call = calls.last_mut().expect("there is always one");
            match token {
                Token::Pipe => calls.push(Vec::new()),
                Token::Open => {
                    let nested = self.calls(tokens, depth + 1)?;
                    let Some(Token::Close(path)) = tokens.next() else { return Err("( is not closed by )".into()) };
                    call.push(Operand::Nested(nested, path));
                }
                Token::Word(word) => call.push(self.operand(&word)?),
                Token::Comma => return Err("a comma stands between values: blanks do".into()),
                Token::Set { .. } => return Err("a second := or = stands where no variable is set".into()),
                Token::Close(_) => unreachable!("it ends the loop"),
            }
        }
        if calls.iter().any(Vec::is_empty) {
            return Err("there is nothing to print between {{ and }}, or beside a |".into());
        }
        Ok(calls)
    }

    fn operand(&self, word: &str) -> Result<Operand, String> {
        if let Some(path) = word.strip_prefix('.') {
            return Ok(Operand::Field(names(path)));
        }
        if let Some(variable) = word.strip_prefix('$') {
            let (name, path) = variable.split_once('.').unwrap_or((variable, ""));
            if !name.is_empty() && !self.variables.iter().any(|known| known == name) {
                return Err(format!("there is no variable ${} here", cut(name)));
            }
            return Ok(Operand::Variable(name.to_owned(), names(path)));
        }
        if let Some(text) = word.strip_prefix('`').and_then(|text| text.strip_suffix('`')) {
            return Ok(Operand::Literal(text.into()));
        }
        if word.starts_with('"') || word.parse::<f64>().is_ok() || matches!(word, "true" | "false") {
            return literal(word).map(Operand::Literal);
        }
        if word == "nil" {
            return Ok(Operand::Literal(Value::Null));
        }
        if FUNCTIONS.contains(&word) || LOOKUPS.contains(&word) {
            return Ok(Operand::Function(word.to_owned()));
        }
        if NOT_SUPPORTED.contains(&word) {
            return Err(format!("{word} of Go's templates is not supported here"));
        }
        let word = &cut(word);
        // Fields begin with a capital, functions never do.
        let is_field = word.starts_with(char::is_uppercase);
        let hint = nearest(word.as_str(), FUNCTIONS).filter(|_| !is_field).map_or_else(
            || format!("a field is written with a dot: .{word}; functions are {}", FUNCTIONS.join(", ")),
            |near| format!("did you mean {near}?"),
        );
        Err(format!("there is no function {word}: {hint}"))
    }
}

/// A text in double quotes, a number, `true` or `false`.
fn literal(word: &str) -> Result<Value, String> {
    // JSON wants them escaped, and Go does not.
    let escaped = word.replace('\t', "\\t").replace('\n', "\\n");
    serde_json::from_str(&escaped).map_err(|_| match word.starts_with('"') {
        true => "a text in quotes has an escape that is none of \\n, \\t, \\r, \\\", \\\\ and \\u00e9".into(),
        false => "a number is written in digits, such as 10 or 2.5".into(),
    })
}

fn lines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

fn names(path: &str) -> Vec<String> {
    path.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// What stands between `{{` and `}}`.
struct Action<'t> {
    text: &'t str,
    trims_before: bool,
    trims_behind: bool,
    rest: &'t str,
}

/// Of the text behind `{{`. A dash beside a blank trims.
fn action(text: &str) -> Result<Action<'_>, String> {
    let dash = text.strip_prefix('-').filter(|rest| rest.starts_with(char::is_whitespace));
    let (trims_before, text) = dash.map_or((false, text), |rest| (true, rest));
    let at = end(text)?;
    let (inner, rest) = (&text[..at], &text[at + 2..]);
    let dash = inner.strip_suffix('-').filter(|rest| rest.ends_with(char::is_whitespace));
    Ok(Action { text: dash.unwrap_or(inner).trim(), trims_before, trims_behind: dash.is_some(), rest })
}

/// Where the `}}` is that stands in no quotes and no remark.
fn end(text: &str) -> Result<usize, String> {
    let open = || "{{ is not closed by }}".to_owned();
    if text.trim_start().starts_with("/*") {
        let behind = text.find("*/").ok_or("a remark is not closed by */")?;
        return text[behind..].find("}}").map(|at| behind + at).ok_or_else(open);
    }
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (c, quote) {
            _ if escaped => escaped = false,
            ('\\', Some('"')) => escaped = true,
            ('"' | '`', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('}', None) if text[at..].starts_with("}}") => return Ok(at),
            _ => {}
        }
    }
    Err(open())
}

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Pipe,
    Open,
    /// With the fields that are asked of what the parentheses hold.
    Close(Vec<String>),
    Comma,
    /// `:=`, or `=` of a variable that there is.
    Set {
        declares: bool,
    },
}

/// The variables that an action sets.
#[derive(Default)]
struct Set {
    names: Vec<String>,
    declares: bool,
}

type Tokens = std::iter::Peekable<std::vec::IntoIter<Token>>;

/// Blanks separate; quotes hold together.
fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut word = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        // One more than may be: what follows need not be read.
        if tokens.len() > MAX_OPERANDS {
            return Ok(tokens);
        }
        let token = match c {
            '"' => {
                word.push(c);
                loop {
                    match chars.next().ok_or("a quote is not closed")? {
                        '"' => break,
                        '\\' => word.extend(['\\'].into_iter().chain(chars.next())),
                        c => word.push(c),
                    }
                }
                word.push('"');
                continue;
            }
            '`' => {
                word.push(c);
                loop {
                    match chars.next().ok_or("a quote is not closed")? {
                        '`' => break,
                        c => word.push(c),
                    }
                }
                word.push(c);
                continue;
            }
            '|' => Some(Token::Pipe),
            '(' => Some(Token::Open),
            ')' => {
                let mut path = String::new();
                while let Some(c) = chars.next_if(|c| (path.is_empty() && *c == '.') || is_of_path(&path, *c)) {
                    path.push(c);
                }
                Some(Token::Close(names(&path)))
            }
            ',' => Some(Token::Comma),
            ':' if chars.next_if_eq(&'=').is_some() => Some(Token::Set { declares: true }),
            '=' => Some(Token::Set { declares: false }),
            c if c.is_whitespace() => None,
            c => {
                word.push(c);
                continue;
            }
        };
        tokens.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()).map(Token::Word));
        tokens.extend(token);
    }
    tokens.extend(Some(word).filter(|word| !word.is_empty()).map(Token::Word));
    Ok(tokens)
}

/// Goes on with the fields behind a parenthesis.
fn is_of_path(path: &str, c: char) -> bool {
    !path.is_empty() && (c.is_alphanumeric() || c == '_' || c == '.')
}
