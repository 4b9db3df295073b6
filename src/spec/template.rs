//! Templates in a service's hostname, environment and mounts, and in the data of secrets and configs:
//! `{{.Node.Hostname}}`, `{{index .Service.Labels "team"}}`, `{{env "HOME"}}`.
//!
//! The part of Go's template language that makes values: fields, quoted text, `index`, `join`, pipes, and in data `env`,
//! `secret` and `config`. Whatever decides or repeats (`if`, `range`...) is refused by name.

use std::iter::Peekable;
use std::str::Chars;

use super::Labels;

/// What a template may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub service_id: &'a str,
    pub service_name: &'a str,
    pub service_labels: &'a Labels,
    pub node_id: &'a str,
    pub node_hostname: &'a str,
    pub node_os: &'a str,
    pub node_architecture: &'a str,
    pub task_id: &'a str,
    pub task_name: &'a str,
    pub task_slot: &'a str,
}

/// Looks up `env`, `secret` or `config` by a name; an error says what is missing, and never holds data.
pub type Lookup<'a> = &'a dyn Fn(&str, &str) -> Result<String, String>;

/// The longest text that a template may make.
const MAX_EXPANDED_BYTES: usize = 2 * 1024 * 1024;
const MAX_DEPTH: usize = 16;

/// `text` with its actions replaced. `lookup`: for the data of secrets and configs only.
pub fn expand(text: &str, context: &Context<'_>, lookup: Option<Lookup<'_>>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, action)) = rest.split_once("{{") {
        let (action, after, trims_after) = action_of(action)?;
        let (action, before) = match action.strip_prefix('-').filter(|rest| rest.starts_with(char::is_whitespace)) {
            Some(action) => (action, before.trim_end()),
            None => (action, before),
        };
        out.push_str(before);
        if !is_comment(action) {
            let mut parser = Parser { chars: action.chars().peekable(), context, lookup, depth: 0 };
            out.push_str(&parser.whole()?.shown());
        }
        rest = if trims_after { after.trim_start() } else { after };
        if out.len() > MAX_EXPANDED_BYTES {
            return Err(format!("it makes more than {MAX_EXPANDED_BYTES} bytes"));
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// What stands before the closing braces, which quoted text may hold too, what follows them, and whether white space there
/// goes.
fn action_of(text: &str) -> Result<(&str, &str, bool), String> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '`') => quote = Some(c),
            None if text[at..].starts_with("}}") => {
                let (action, after) = (&text[..at], &text[at + 2..]);
                let trimmed = action.strip_suffix('-').filter(|rest| rest.ends_with(char::is_whitespace));
                return Ok((trimmed.unwrap_or(action), after, trimmed.is_some()));
            }
            None => {}
        }
    }
    Err("an action is not closed: write }} behind it".into())
}

fn is_comment(action: &str) -> bool {
    let action = action.trim();
    action.starts_with("/*") && action.ends_with("*/")
}

#[derive(Debug, Clone)]
enum Value {
    Text(String),
    Map(Labels),
}

impl Value {
    /// As Go prints it.
    fn shown(self) -> String {
        match self {
            Value::Text(text) => text,
            Value::Map(map) => {
                let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{value}")).collect();
                format!("map[{}]", pairs.join(" "))
            }
        }
    }

    fn text(self, what: &str) -> Result<String, String> {
        match self {
            Value::Text(text) => Ok(text),
            Value::Map(_) => Err(format!("{what} takes text, no map")),
        }
    }
}

struct Parser<'a> {
    chars: Peekable<Chars<'a>>,
    context: &'a Context<'a>,
    lookup: Option<Lookup<'a>>,
    depth: usize,
}

impl Parser<'_> {
    fn whole(&mut self) -> Result<Value, String> {
        let value = self.pipeline()?;
        match self.chars.next() {
            None => Ok(value),
            Some(c) => Err(format!("{c:?} is not expected there")),
        }
    }

    /// Each command's value is the next one's last argument.
    fn pipeline(&mut self) -> Result<Value, String> {
        let mut value = self.command(None)?;
        loop {
            self.skip_space();
            if self.chars.next_if_eq(&'|').is_none() {
                return Ok(value);
            }
            value = self.command(Some(value))?;
        }
    }

    fn command(&mut self, piped: Option<Value>) -> Result<Value, String> {
        self.skip_space();
        match self.chars.peek() {
            Some(c) if c.is_alphabetic() || *c == '_' => {
                let name = self.word();
                let mut arguments = Vec::new();
                while let Some(value) = self.operand()? {
                    arguments.push(value);
                }
                arguments.extend(piped);
                self.call(&name, arguments)
            }
            _ => {
                let value = self.operand()?.ok_or("a value is missing")?;
                self.skip_space();
                if piped.is_some() || !matches!(self.chars.peek(), None | Some('|' | ')')) {
                    return Err("a value takes no arguments: begin with a function".into());
                }
                Ok(value)
            }
        }
    }

    /// `None`: the command ends here.
    fn operand(&mut self) -> Result<Option<Value>, String> {
        self.skip_space();
        match self.chars.peek() {
            None | Some('|' | ')') => Ok(None),
            Some('.') => self.field().map(Some),
            Some('"') => self.quoted().map(|text| Some(Value::Text(text))),
            Some('`') => {
                self.chars.next();
                let text: String = std::iter::from_fn(|| self.chars.next_if(|c| *c != '`')).collect();
                let closed = self.chars.next().is_some();
                if closed { Ok(Some(Value::Text(text))) } else { Err("a quoted text is not closed".into()) }
            }
            Some('(') => {
                self.chars.next();
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err("it has too many parentheses within one another".into());
                }
                let value = self.pipeline()?;
                self.depth -= 1;
                if self.chars.next() == Some(')') { Ok(Some(value)) } else { Err("a parenthesis is not closed".into()) }
            }
            Some(c) => Err(format!("{c:?} begins no value: write a field such as .Node.Hostname, or text in quotes")),
        }
    }

    fn field(&mut self) -> Result<Value, String> {
        let mut path = Vec::new();
        while self.chars.next_if_eq(&'.').is_some() {
            path.push(self.word());
        }
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        let context = self.context;
        let text = match words.as_slice() {
            ["Service", "ID"] => context.service_id,
            ["Service", "Name"] => context.service_name,
            ["Service", "Labels"] => return Ok(Value::Map(context.service_labels.clone())),
            ["Service", "Labels", key] => {
                return match context.service_labels.get(*key) {
                    Some(value) => Ok(Value::Text(value.clone())),
                    None => Err(format!("map has no entry for key {key:?}")),
                };
            }
            ["Node", "ID"] => context.node_id,
            ["Node", "Hostname"] => context.node_hostname,
            ["Node", "Platform", "OS"] => context.node_os,
            ["Node", "Platform", "Architecture"] => context.node_architecture,
            ["Task", "ID"] => context.task_id,
            ["Task", "Name"] => context.task_name,
            ["Task", "Slot"] => context.task_slot,
            _ => {
                return Err(format!(
                    ".{} is no field: there are .Service.ID, .Name and .Labels, .Node.ID, .Hostname, .Platform.OS and \
                     .Platform.Architecture, .Task.ID, .Name and .Slot",
                    words.join(".")
                ));
            }
        };
        Ok(Value::Text(text.to_owned()))
    }

    fn call(&self, name: &str, arguments: Vec<Value>) -> Result<Value, String> {
        if matches!(
            name,
            "if" | "else" | "end" | "range" | "with" | "define" | "template" | "block" | "break" | "continue"
        ) {
            return Err(format!("{name} is not supported: a template fills in values alone"));
        }
        if name == "index" {
            let [Value::Map(map), Value::Text(key)] = arguments.as_slice() else {
                return Err("index takes a map and a key: index .Service.Labels \"KEY\"".into());
            };
            return Ok(Value::Text(map.get(key).cloned().unwrap_or_default()));
        }
        let texts: Vec<String> = arguments.into_iter().map(|value| value.text(name)).collect::<Result<_, _>>()?;
        match (name, texts.as_slice(), self.lookup) {
            ("join", [separator, parts @ ..], _) => Ok(Value::Text(parts.join(separator))),
            ("env" | "secret" | "config", [key], Some(lookup)) => lookup(name, key).map(Value::Text),
            ("env" | "secret" | "config", _, Some(_)) => Err(format!("{name} takes one name")),
            ("env" | "secret" | "config", _, None) => {
                Err(format!("function {name:?} is for the data of secrets and configs alone"))
            }
            ("join", [], _) => Err("join takes a separator and the parts".into()),
            _ => Err(format!("function {name:?} is not defined")),
        }
    }

    /// A text in double quotes, with Go's escapes for what is usual.
    fn quoted(&mut self) -> Result<String, String> {
        self.chars.next();
        let mut text = String::new();
        loop {
            match self.chars.next().ok_or("a quoted text is not closed")? {
                '"' => return Ok(text),
                '\\' => text.push(match self.chars.next() {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some(c @ ('"' | '\\')) => c,
                    other => return Err(format!("\\{} is no escape", other.map(String::from).unwrap_or_default())),
                }),
                c => text.push(c),
            }
        }
    }

    fn word(&mut self) -> String {
        std::iter::from_fn(|| self.chars.next_if(|c| c.is_alphanumeric() || *c == '_')).collect()
    }

    fn skip_space(&mut self) {
        while self.chars.next_if(|c| c.is_whitespace()).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_labels<T>(look: impl FnOnce(&Context<'_>) -> T) -> T {
        let labels: Labels = [("team", "a"), ("com.example.tier", "front")].map(|(k, v)| (k.into(), v.into())).into();
        look(&Context {
            service_id: "s1",
            service_name: "web",
            service_labels: &labels,
            node_id: "n1",
            node_hostname: "host-1",
            node_os: "linux",
            node_architecture: "x86_64",
            task_id: "t1",
            task_name: "web.2.t1",
            task_slot: "2",
        })
    }

    fn expanded(text: &str) -> Result<String, String> {
        with_labels(|context| expand(text, context, None))
    }

    #[test]
    fn fields_are_filled_in() {
        for (text, wanted) in [
            ("plain", "plain"),
            ("{{.Service.Name}}-{{ .Task.Slot }}", "web-2"),
            ("{{.Node.Hostname}}/{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}", "host-1/linux/x86_64"),
            ("{{.Service.ID}}{{.Node.ID}}{{.Task.ID}} {{.Task.Name}}", "s1n1t1 web.2.t1"),
            ("{{.Service.Labels.team}}", "a"),
            ("{{index .Service.Labels \"com.example.tier\"}}", "front"),
            ("{{index .Service.Labels \"none\"}}", ""),
            ("{{.Service.Labels}}", "map[com.example.tier:front team:a]"),
            ("{{join \"-\" .Service.Name .Task.Slot \"x\"}}", "web-2-x"),
            ("{{.Task.Slot | join `,` (join \"\" `a` `b`)}}", "ab,2"),
            ("a {{- .Task.Slot -}} b", "a2b"),
            ("{{/* a word */}}x", "x"),
            ("{{\"}} \\\" \\n\"}}", "}} \" \n"),
            ("}} alone", "}} alone"),
        ] {
            assert_eq!(expanded(text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_filled_in_is_named() {
        for (text, part) in [
            ("{{.Node.Name}}", ".Node.Name is no field"),
            ("{{.Service.Labels.none}}", "no entry for key \"none\""),
            ("{{.Task.Slot", "not closed"),
            ("{{}}", "a value is missing"),
            ("{{if .Task.Slot}}x{{end}}", "if is not supported"),
            ("{{exec \"rm\"}}", "\"exec\" is not defined"),
            ("{{env \"A\"}}", "data of secrets and configs"),
            ("{{.Task.Slot .Task.ID}}", "takes no arguments"),
            ("{{3}}", "begins no value"),
            ("{{index .Task.ID \"x\"}}", "index takes a map"),
            ("{{join .Service.Labels}}", "takes text"),
            ("{{\"a}}", "not closed"),
            ("{{(.Task.ID}}", "parenthesis"),
        ] {
            let error = expanded(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(expanded(&format!("{{{{{}", "(".repeat(100_000))).is_err());
        assert!(expanded(&format!("{{{{{}}}}}", "(".repeat(100_000))).is_err());
    }

    #[test]
    fn data_may_ask_for_the_environment_and_for_files() {
        let lookup = |kind: &str, name: &str| match (kind, name) {
            ("env", "LEVEL") => Ok("info".to_owned()),
            ("secret", "key") => Ok("hidden".to_owned()),
            _ => Err(format!("{kind} {name} not found")),
        };
        let data = |text: &str| with_labels(|context| expand(text, context, Some(&lookup)));
        assert_eq!(data("level={{env \"LEVEL\"}} key={{secret \"key\"}}").as_deref(), Ok("level=info key=hidden"));
        assert_eq!(data("{{config \"none\"}}"), Err("config none not found".into()));
    }
}
