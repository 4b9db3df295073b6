//! The functions that templates may call, and how values read.

use std::cmp::Ordering;

use serde_json::Value;

/// Columns that a text may be padded to.
const MAX_WIDTH: usize = 256;

pub const FUNCTIONS: [&str; 24] = [
    "json", "upper", "lower", "title", "len", "join", "split", "slice", "truncate", "pad", "index", "print", "println",
    "printf", "urlquery", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not",
];

/// Those that only the data of secrets and configs may call.
pub const LOOKUPS: [&str; 3] = ["env", "secret", "config"];

/// The result of one of [`FUNCTIONS`]; the error says what it does not take, and tells none of `arguments`.
pub fn apply(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let wrong = || Err(format!("{name} does not take {} values of these kinds", arguments.len()));
    Ok(match (name, arguments) {
        ("json", [value]) => value.to_string().into(),
        ("upper", [value]) => plain(value).to_uppercase().into(),
        ("lower", [value]) => plain(value).to_lowercase().into(),
        ("title", [value]) => titled(&plain(value)).into(),
        ("print", values) => printed(values).into(),
        ("println", values) => format!("{}\n", values.iter().map(plain).collect::<Vec<_>>().join(" ")).into(),
        ("printf", [Value::String(format), values @ ..]) => printf(format, values)?.into(),
        ("urlquery", [value]) => url_escaped(&plain(value)).into(),
        ("len", [value]) => match value {
            Value::Array(list) => list.len().into(),
            Value::Object(map) => map.len().into(),
            other => plain(other).len().into(),
        },
        ("join", [Value::Array(list), Value::String(separator)] | [Value::String(separator), Value::Array(list)]) => {
            list.iter().map(plain).collect::<Vec<_>>().join(separator).into()
        }
        ("split", [value, Value::String(separator)]) => {
            let text = plain(value);
            match separator.is_empty() {
                true => text.chars().map(|c| Value::from(c.to_string())).collect::<Vec<_>>().into(),
                false => text.split(separator.as_str()).map(Value::from).collect::<Vec<_>>().into(),
            }
        }
        ("slice", [value, bounds @ ..]) if bounds.len() <= 2 && bounds.iter().all(|bound| count(bound).is_some()) => {
            let from = bounds.first().and_then(count).unwrap_or(0);
            let to = bounds.get(1).and_then(count).unwrap_or(usize::MAX);
            sliced(value, from, to)
        }
        ("truncate", [value, width @ Value::Number(_)] | [width @ Value::Number(_), value]) => {
            plain(value).chars().take(count(width).unwrap_or(0)).collect::<String>().into()
        }
        ("pad", [value, before, behind]) => {
            let blanks =
                |width: &Value| count(width).filter(|width| *width <= MAX_WIDTH).map(|width| " ".repeat(width));
            let (Some(before), Some(behind)) = (blanks(before), blanks(behind)) else { return wrong() };
            let text = plain(value);
            if text.is_empty() { text.into() } else { format!("{before}{text}{behind}").into() }
        }
        ("index", [value, keys @ ..]) => keys.iter().try_fold(value.clone(), |value, key| entry(&value, key))?,
        ("eq", [one, others @ ..]) if !others.is_empty() => {
            others.iter().any(|other| plain(one) == plain(other)).into()
        }
        ("ne", [one, other]) => (plain(one) != plain(other)).into(),
        ("lt", [one, other]) => compared(one, other).is_lt().into(),
        ("le", [one, other]) => compared(one, other).is_le().into(),
        ("gt", [one, other]) => compared(one, other).is_gt().into(),
        ("ge", [one, other]) => compared(one, other).is_ge().into(),
        ("not", [value]) => (!is_true(value)).into(),
        _ => return wrong(),
    })
}

fn count(value: &Value) -> Option<usize> {
    value.as_u64().map(|count| usize::try_from(count).unwrap_or(usize::MAX))
}

/// As Go has it: a key that a map of texts has not is an empty text, a place that a list has not is an error.
fn entry(value: &Value, key: &Value) -> Result<Value, String> {
    match (value, key) {
        (Value::Array(list), Value::Number(_)) => {
            let found = count(key).and_then(|at| list.get(at)).cloned();
            found.ok_or_else(|| format!("index: there is no place {key} in a list of {}", list.len()))
        }
        (Value::Array(_), _) => Err("index: a place in a list is a number".into()),
        (value, key) => Ok(value.get(plain(key)).cloned().unwrap_or_else(|| "".into())),
    }
}

/// Bounds beyond the end are the end: a heading may be shorter than what stands below it.
fn sliced(value: &Value, from: usize, to: usize) -> Value {
    let width = to.saturating_sub(from);
    match value {
        Value::Array(list) => list.iter().skip(from).take(width).cloned().collect::<Vec<_>>().into(),
        other => plain(other).chars().skip(from).take(width).collect::<String>().into(),
    }
}

/// As numbers where one of them is a number and the other reads as one, else as texts.
fn compared(one: &Value, other: &Value) -> Ordering {
    let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
    let numbers = (one.is_number() || other.is_number()).then(|| Some((number(one)?, number(other)?))).flatten();
    let as_numbers = numbers.and_then(|(one, other): (f64, f64)| one.partial_cmp(&other));
    as_numbers.unwrap_or_else(|| plain(one).cmp(&plain(other)))
}

/// As in the query of a URL: a blank is a plus.
fn url_escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn titled(text: &str) -> String {
    let mut begins = true;
    let mut out = String::new();
    for c in text.chars() {
        if begins {
            out.extend(c.to_uppercase())
        } else {
            out.push(c)
        }
        begins = c.is_whitespace();
    }
    out
}

/// Blanks stand only between values that are no texts, as in Go.
fn printed(values: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        if at > 0 && !value.is_string() && !values[at - 1].is_string() {
            out.push(' ');
        }
        out.push_str(&plain(value));
    }
    out
}

/// Go's verbs s, v, d, q, t, x and f, with `-`, `0`, a width and a precision.
fn printf(format: &str, values: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '0')) {
            flags.push(flag);
        }
        let width = digits(&mut chars)?.unwrap_or(0);
        let precision = match chars.next_if_eq(&'.') {
            Some(_) => Some(digits(&mut chars)?.unwrap_or(0)),
            None => None,
        };
        let verb = chars.next().ok_or("printf: a % stands at the end")?;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value =
            values.next().ok_or_else(|| "printf: there are less values than the format has places".to_owned())?;
        let text = of_verb(verb, precision, value)?;
        let blanks = width.saturating_sub(text.chars().count());
        let zeros = flags.contains('0') && matches!(verb, 'd' | 'x' | 'f');
        match flags.contains('-') {
            true => out.extend([text, " ".repeat(blanks)]),
            false => out.extend([if zeros { "0" } else { " " }.repeat(blanks), text]),
        }
    }
    match values.next() {
        None => Ok(out),
        Some(_) => Err("printf: there are more values than the format has places".into()),
    }
}

fn digits(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Option<usize>, String> {
    let mut number = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        let so_far = number.unwrap_or(0) * 10 + digit as usize;
        if so_far > MAX_WIDTH {
            return Err(format!("printf: a width of more than {MAX_WIDTH}"));
        }
        number = Some(so_far);
    }
    Ok(number)
}

/// A value that is no number stands as it is where a number should: the cells of a list are texts.
fn of_verb(verb: char, precision: Option<usize>, value: &Value) -> Result<String, String> {
    Ok(match (verb, value) {
        ('s', value) => plain(value).chars().take(precision.unwrap_or(usize::MAX)).collect(),
        ('q', value) => Value::from(plain(value)).to_string(),
        ('x', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('x', Value::Number(number)) if number.is_u64() => format!("{:x}", number.as_u64().unwrap_or(0)),
        ('f', Value::Number(number)) => {
            format!("{:.precision$}", number.as_f64().unwrap_or(0.0), precision = precision.unwrap_or(6))
        }
        ('v' | 'd' | 't' | 'x' | 'f', value) => plain(value),
        // Which one is not said: the format may be data.
        _ => return Err("printf: a verb is none of %s, %v, %d, %q, %t, %x, %f, %%".into()),
    })
}

/// As Go prints it: a text without quotes, a list as `[a b]`, an object as `map[a:b c:d]`.
pub fn plain(value: &Value) -> String {
    if value.is_null() { "<no value>".to_owned() } else { inside(value) }
}

fn inside(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(inside).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            // In the order of their keys.
            let entries: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", inside(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}

pub fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(bool) => *bool,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}
