//! The table `filter` as `iptables-save` writes it: what nftables shows of such rules leaves out what most of them ask for.
//! Pure; what it does not know matches perhaps.

use super::nft::state;
use super::rules::*;

/// `None` where it is no such listing.
pub fn parse(text: &str) -> Option<Table> {
    let mut table = Table::default();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with('*') {
            inside = line == "*filter";
        } else if let Some(declared) = line.strip_prefix(':').filter(|_| inside) {
            let mut words = declared.split(' ');
            let (name, policy) = (words.next()?, words.next()?);
            let base = hook(name).filter(|_| policy != "-").map(|hook| Base { hook, drops: policy == "DROP" });
            table.chains.entry(name.to_owned()).or_default().base = base;
        } else if line.starts_with("-A ") && inside {
            let words = words(line);
            let name = words.get(1)?.clone();
            table.chains.entry(name).or_default().rules.push(rule(&words[2..]));
        }
    }
    (!table.chains.is_empty()).then_some(table)
}

fn hook(chain: &str) -> Option<Hook> {
    Some(match chain {
        "INPUT" => Hook::Input,
        "FORWARD" => Hook::Forward,
        "OUTPUT" => Hook::Output,
        _ => return None,
    })
}

/// As a shell would take it apart.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let (mut quoted, mut escaped) = (false, false);
    for c in line.chars() {
        match c {
            _ if escaped => {
                word.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            _ => word.push(c),
        }
    }
    words.push(word);
    words
}

fn rule(words: &[String]) -> Rule {
    let mut rule = Rule::default();
    let mut protocol: Option<String> = None;
    let mut rest = words.iter().map(String::as_str).peekable();
    let mut negated = false;
    while let Some(word) = rest.next() {
        if word == "!" {
            negated = true;
            continue;
        }
        let negate = std::mem::take(&mut negated);
        // A module's name: what it asks for follows.
        if word == "-m" {
            let module = rest.next();
            if !matches!(
                module,
                Some("tcp" | "udp" | "sctp" | "multiport" | "conntrack" | "state" | "addrtype" | "comment")
            ) {
                rule.matches.push(Match::unknown());
            }
            continue;
        }
        let mut values = Vec::new();
        while let Some(value) = rest.next_if(|next| !next.starts_with('-') && *next != "!") {
            values.push(value);
        }
        let value = values.first().copied().unwrap_or_default();
        let known = match word {
            "-i" => Some(Of::In(vec![pattern(value)])),
            "-o" => Some(Of::Out(vec![pattern(value)])),
            "-s" => value.parse().ok().map(|subnet| Of::Sources(vec![subnet])),
            "-d" => value.parse().ok().map(|subnet| Of::Destinations(vec![subnet])),
            "-p" => {
                protocol = (!negate).then(|| value.to_owned());
                Some(Of::Protocols(vec![value.to_owned()]))
            }
            "--ctstate" | "--state" => value.split(',').map(state).collect::<Option<_>>().map(Of::States),
            "--dport" | "--dports" => ports(value).map(|ports| match &protocol {
                Some(protocol) => Of::Within(protocol.clone(), Some(ports)),
                None => Of::Ports(ports),
            }),
            "--dst-type" => (value == "LOCAL").then_some(Of::ToLocal),
            "--comment" => continue,
            "-j" => {
                rule.verdict = verdict(value, Verdict::Jump);
                // What follows is the target's.
                break;
            }
            "-g" => {
                rule.verdict = verdict(value, Verdict::Goto);
                break;
            }
            _ => None,
        };
        rule.matches.push(Match { of: known.unwrap_or(Of::Unknown), negated: negate });
    }
    rule
}

fn verdict(target: &str, chain: fn(String) -> Verdict) -> Verdict {
    match target {
        "ACCEPT" => Verdict::Accept,
        "DROP" | "REJECT" => Verdict::Drop,
        "RETURN" => Verdict::Return,
        "LOG" | "NFLOG" | "ULOG" | "MARK" | "CONNMARK" | "TCPMSS" | "CT" | "CHECKSUM" | "DSCP" | "TOS" => {
            Verdict::Continue
        }
        "QUEUE" | "NFQUEUE" | "AUDIT" | "TPROXY" | "SYNPROXY" | "SECMARK" => Verdict::Unknown,
        name => chain(name.to_owned()),
    }
}

fn pattern(interface: &str) -> String {
    interface.strip_suffix('+').map_or_else(|| interface.to_owned(), |beginning| format!("{beginning}*"))
}

fn ports(text: &str) -> Option<Vec<(u16, u16)>> {
    let range = |part: &str| match part.split_once(':') {
        Some((first, last)) => Some((first.parse().ok()?, last.parse().ok()?)),
        None => part.parse().ok().map(|port| (port, port)),
    };
    text.split(',').map(range).collect()
}
