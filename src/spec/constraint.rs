//! Placement constraints as Docker Swarm reads them: `node.labels.zone == a`, `node.role != manager`.
//! The grammar and the comparison follow SwarmKit's `constraint` package; unlike there, a field that no node has is
//! refused when the spec is accepted, instead of matching no node.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::{Labels, NodeId, Platform, Role, Subnet};

/// One condition on the node that a task may run on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Constraint {
    pub field: NodeField,
    pub operator: Operator,
    pub value: String,
}

/// Something of a node that a constraint or a spread preference can name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeField {
    Id,
    Hostname,
    Role,
    Ip,
    Os,
    Architecture,
    /// Set by the operator.
    Label(String),
    /// Set in the daemon's configuration.
    EngineLabel(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    Equal,
    NotEqual,
}

/// A text that is no constraint, or no field of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConstraint {
    #[error("invalid constraint {0:?}: expected one operator from ==, !=")]
    Operator(String),
    #[error(
        "invalid constraint {text:?}: {field:?} is not a field of a node: expected node.id, node.hostname, node.role, \
         node.ip, node.platform.os, node.platform.arch, node.labels.NAME or engine.labels.NAME"
    )]
    Field { text: String, field: String },
    #[error("invalid constraint {text:?}: value {value:?} is invalid{}", hint(.expected))]
    Value {
        text: String,
        value: String,
        /// What the field may be; empty: much.
        expected: &'static str,
    },
}

/// What constraints look at, borrowed from wherever a node is described.
#[derive(Debug, Clone, Copy)]
pub struct NodeFacts<'a> {
    pub id: NodeId,
    pub hostname: &'a str,
    pub role: Role,
    pub addr: IpAddr,
    pub platform: &'a Platform,
    pub labels: &'a Labels,
    pub engine_labels: &'a Labels,
}

impl Constraint {
    /// Values compare without regard to case, platforms after normalisation; a label the node lacks is empty.
    pub fn matches(&self, node: &NodeFacts<'_>) -> bool {
        let equal = match &self.field {
            NodeField::Id => self.is(&node.id.to_string()),
            NodeField::Hostname => self.is(node.hostname),
            NodeField::Role => self.is(if node.role == Role::Manager { "manager" } else { "worker" }),
            NodeField::Ip => self.covers(node.addr),
            NodeField::Os => self.is(&node.platform.os),
            NodeField::Architecture => {
                let wanted = Platform { os: String::new(), architecture: self.value.clone() };
                wanted.normalized().architecture == node.platform.normalized().architecture
            }
            NodeField::Label(name) => self.is(node.labels.get(name).map_or("", String::as_str)),
            NodeField::EngineLabel(name) => self.is(node.engine_labels.get(name).map_or("", String::as_str)),
        };
        equal == (self.operator == Operator::Equal)
    }

    fn is(&self, text: &str) -> bool {
        self.value.to_lowercase() == text.to_lowercase()
    }

    fn covers(&self, addr: IpAddr) -> bool {
        match self.value.parse::<IpAddr>() {
            Ok(wanted) => wanted == addr,
            Err(_) => self.value.parse::<Subnet>().is_ok_and(|subnet| subnet.contains(addr)),
        }
    }
}

impl FromStr for Constraint {
    type Err = InvalidConstraint;

    fn from_str(text: &str) -> Result<Constraint, InvalidConstraint> {
        let shown = || text.chars().take(128).collect::<String>();
        // The operator that stands first splits; the other one may not stand in a value, since `=` and `!` may not.
        let at = text.find("==").into_iter().chain(text.find("!=")).min();
        let at = at.ok_or_else(|| InvalidConstraint::Operator(shown()))?;
        let operator = if text[at..].starts_with("==") { Operator::Equal } else { Operator::NotEqual };
        let (field, value) = (text[..at].trim(), text[at + 2..].trim());
        let parsed = NodeField::parse(field)
            .ok_or_else(|| InvalidConstraint::Field { text: shown(), field: field.chars().take(128).collect() })?;
        let constraint = Constraint { field: parsed, operator, value: value.to_string() };
        if value.is_empty() || !value.chars().all(is_value_char) || !constraint.value_fits() {
            let value = value.chars().take(128).collect();
            return Err(InvalidConstraint::Value { text: shown(), value, expected: constraint.field.values() });
        }
        Ok(constraint)
    }
}

impl Constraint {
    fn value_fits(&self) -> bool {
        match self.field {
            NodeField::Ip => self.value.parse::<IpAddr>().is_ok() || self.value.parse::<Subnet>().is_ok(),
            NodeField::Role => ["manager", "worker"].contains(&self.value.to_ascii_lowercase().as_str()),
            _ => true,
        }
    }
}

fn hint(values: &str) -> String {
    if values.is_empty() { String::new() } else { format!(": expected {values}") }
}

/// SwarmKit's set.
fn is_value_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || ":-_.*()?+[]\\^$|/".contains(c)
}

impl NodeField {
    /// What it may be, where that is little.
    fn values(&self) -> &'static str {
        match self {
            NodeField::Role => "manager or worker",
            NodeField::Ip => "an address or a subnet, such as 10.0.0.0/8",
            _ => "",
        }
    }

    /// The field a path names, without regard to case but for the label's own name.
    pub fn parse(path: &str) -> Option<NodeField> {
        let label = |prefix: &str| {
            let (head, name) = path.split_at_checked(prefix.len())?;
            let named = head.eq_ignore_ascii_case(prefix) && !name.is_empty() && name.chars().all(is_label_char);
            named.then(|| name.to_string())
        };
        match path.to_ascii_lowercase().as_str() {
            "node.id" => Some(NodeField::Id),
            "node.hostname" => Some(NodeField::Hostname),
            "node.role" => Some(NodeField::Role),
            "node.ip" => Some(NodeField::Ip),
            "node.platform.os" => Some(NodeField::Os),
            "node.platform.arch" => Some(NodeField::Architecture),
            _ => label("node.labels.")
                .map(NodeField::Label)
                .or_else(|| label("engine.labels.").map(NodeField::EngineLabel)),
        }
    }
}

fn is_label_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_./".contains(c)
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = if self.operator == Operator::Equal { "==" } else { "!=" };
        write!(f, "{}{operator}{}", self.field, self.value)
    }
}

impl fmt::Display for NodeField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeField::Id => f.write_str("node.id"),
            NodeField::Hostname => f.write_str("node.hostname"),
            NodeField::Role => f.write_str("node.role"),
            NodeField::Ip => f.write_str("node.ip"),
            NodeField::Os => f.write_str("node.platform.os"),
            NodeField::Architecture => f.write_str("node.platform.arch"),
            NodeField::Label(name) => write!(f, "node.labels.{name}"),
            NodeField::EngineLabel(name) => write!(f, "engine.labels.{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Described {
        platform: Platform,
        labels: Labels,
        engine_labels: Labels,
    }

    fn described() -> Described {
        Described {
            platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
            labels: Labels::from([("zone".into(), "A1".into()), ("com.example/disk".into(), "ssd".into())]),
            engine_labels: Labels::from([("gpu".into(), "yes".into())]),
        }
    }

    fn matches(text: &str) -> bool {
        let node = described();
        text.parse::<Constraint>().unwrap().matches(&NodeFacts {
            id: NodeId(5),
            hostname: "Host-1",
            role: Role::Manager,
            addr: "10.1.2.3".parse().unwrap(),
            platform: &node.platform,
            labels: &node.labels,
            engine_labels: &node.engine_labels,
        })
    }

    #[test]
    fn constraints_hold_where_the_node_is_as_they_say() {
        for text in [
            "node.id == 0000000000000000000000005",
            "node.hostname==host-1",
            "NODE.ROLE == Manager",
            "node.role!=worker",
            "node.labels.zone == a1",
            "node.labels.zone!=b",
            "node.labels.com.example/disk==ssd",
            "node.labels.missing!=x",
            "engine.labels.gpu == YES",
            "node.platform.os==linux",
            "node.platform.arch==amd64",
            "node.platform.arch == x86_64",
            "node.ip == 10.1.2.3",
            "node.ip==10.1.0.0/16",
            "node.ip!=10.2.0.0/16",
        ] {
            assert!(matches(text), "{text}");
        }
        for text in [
            "node.hostname!=HOST-1",
            "node.labels.Zone==a1",
            "node.labels.missing==x",
            "engine.labels.zone==a1",
            "node.platform.arch==arm64",
            "node.ip==fd00::/8",
            "node.ip!=10.1.2.3",
        ] {
            assert!(!matches(text), "{text}");
        }
    }

    #[test]
    fn what_is_no_constraint_is_refused() {
        for text in [
            "",
            "node.role",
            "node.role=manager",
            "node.role==",
            "node.role == boss",
            "==a",
            "node.colour==red",
            "node.labels.==a",
            "node.labels.zo ne==a",
            "node.labels.zone==a==b",
            "node.labels.zone==a;b",
            "node.ip==10.0.0",
            "engine.os==linux",
        ] {
            assert!(text.parse::<Constraint>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_role_that_there_is_not_is_told_the_two_that_there_are() {
        let error = "node.role==manger".parse::<Constraint>().unwrap_err().to_string();
        let expected =
            r#"invalid constraint "node.role==manger": value "manger" is invalid: expected manager or worker"#;
        assert_eq!(error, expected);
    }

    #[test]
    fn a_constraint_reads_back_from_its_text() {
        for text in ["node.labels.zone==a", "engine.labels.gpu!=no", "node.platform.arch==arm64", "node.ip==10.0.0.0/8"]
        {
            assert_eq!(text.parse::<Constraint>().unwrap().to_string(), text);
        }
    }
}
