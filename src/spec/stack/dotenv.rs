//! Files that `env_file` names: a `KEY=value` a line, `#` for comments. As in Docker Swarm nothing is quoted or expanded:
//! what follows the first `=` is the value. A bare `KEY` takes its value from the client's own environment.

/// One line's key, and its value where it has one.
pub type Variable = (String, Option<String>);

/// Most bytes an env file may have.
pub const MAX_BYTES: usize = 1 << 20;

/// The variables, in order; an error names its line.
pub fn parse(bytes: &[u8]) -> Result<Vec<Variable>, String> {
    if bytes.len() > MAX_BYTES {
        return Err(format!("has {} bytes, an env file may have {MAX_BYTES}", bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_string())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut variables = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key, Some(value.to_string())),
            None => (line.trim_end(), None),
        };
        if key.is_empty() {
            return Err(format!("line {}: no variable name before the =", index + 1));
        }
        if key.contains(char::is_whitespace) {
            return Err(format!("line {}: the variable name {key:?} contains white space", index + 1));
        }
        variables.push((key.to_string(), value));
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_as_docker_reads_them() {
        let text = "\u{feff}# comment\n\nA=1\n  B= x=y # kept\r\nC=\nD\n";
        let expected = [("A", Some("1")), ("B", Some(" x=y # kept")), ("C", Some("")), ("D", None)];
        let expected = expected.map(|(k, v)| (k.to_string(), v.map(str::to_string)));
        assert_eq!(parse(text.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn bad_lines_are_named() {
        assert!(parse(b"A=1\n=x").unwrap_err().starts_with("line 2"));
        assert!(parse(b"A B=1").unwrap_err().contains("white space"));
        assert!(parse(&[0xff, 0xfe, 0x00]).is_err());
        assert!(parse(&vec![b'a'; MAX_BYTES + 1]).is_err());
    }
}
