//! What a service waits for before its tasks start: other services, and what each of them is to have come to.
//!
//! As Compose's `depends_on`: it orders a deployment, and is no watch over what runs. The orchestrator's `start_order` says when
//! it is asked.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The label by which Docker's clients say it.
pub const DEPENDS_ON_LABEL: &str = "flok.depends-on";
/// The label of what belongs to a stack.
const STACK_LABEL: &str = "com.docker.stack.namespace";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DependsOn {
    /// Its name in the swarm.
    pub service: String,
    pub condition: StartCondition,
    /// Not so: nothing waits where there is no such service, or where it cannot come to it without somebody's help.
    pub required: bool,
    /// An update of that service replaces the tasks that depend on it, too.
    pub restart: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartCondition {
    /// Its tasks have been started.
    Started,
    /// They run, and their health checks succeed, where they have any.
    Healthy,
    /// The job, or each of the tasks, has ended with code 0.
    Completed,
}

impl StartCondition {
    /// Compose's word, or the short one of flags and labels.
    pub fn parse(word: &str) -> Option<StartCondition> {
        match word {
            "service_started" | "started" => Some(StartCondition::Started),
            "service_healthy" | "healthy" => Some(StartCondition::Healthy),
            "service_completed_successfully" | "completed" => Some(StartCondition::Completed),
            _ => None,
        }
    }
}

/// `db to be healthy`, as it stands behind "waits for".
impl fmt::Display for DependsOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.condition {
            StartCondition::Started => "to have started",
            StartCondition::Healthy => "to be healthy",
            StartCondition::Completed => "to complete",
        };
        write!(f, "{} {what}", self.service)
    }
}

impl DependsOn {
    /// `NAME[:started|healthy|completed][:optional][:restart]`.
    pub fn parse(text: &str) -> Result<DependsOn, String> {
        let mut words = text.split(':').map(str::trim);
        let service = words.next().unwrap_or_default().to_owned();
        if service.is_empty() {
            return Err(format!("{text:?} names no service: write for example db:healthy"));
        }
        let mut read = DependsOn { service, condition: StartCondition::Started, required: true, restart: false };
        for word in words {
            match (word, StartCondition::parse(word)) {
                (_, Some(condition)) => read.condition = condition,
                ("optional", _) => read.required = false,
                ("restart", _) => read.restart = true,
                _ => {
                    return Err(format!(
                        "{word:?} in {text:?} is none of started, healthy, completed, optional, restart"
                    ));
                }
            }
        }
        Ok(read)
    }

    /// What a label says, separated by commas. A service of a stack, by its `labels`, names services of the same stack as the
    /// stack's file does.
    pub(super) fn parse_label(text: &str, labels: &super::Labels) -> Result<Vec<DependsOn>, String> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let mut read = words.map(DependsOn::parse).collect::<Result<Vec<_>, _>>()?;
        if let Some(stack) = labels.get(STACK_LABEL) {
            let prefix = format!("{stack}_");
            for one in read.iter_mut().filter(|one| !one.service.starts_with(&prefix)) {
                one.service.insert_str(0, &prefix);
            }
        }
        Ok(read)
    }
}

/// A way along `edges` from `start` back to it: `start`, what it depends on, and so on to `start` again.
pub fn cycle(start: &str, edges: impl Fn(&str) -> Vec<String>) -> Option<Vec<String>> {
    let mut seen: Vec<String> = Vec::new();
    // Each with the way that leads to it.
    let mut open: Vec<Vec<String>> = vec![vec![start.to_owned()]];
    while let Some(way) = open.pop() {
        for next in edges(&way[way.len() - 1]) {
            let mut longer = way.clone();
            longer.push(next.clone());
            if next == start {
                return Some(longer);
            }
            if !seen.contains(&next) {
                seen.push(next);
                open.push(longer);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> DependsOn {
        DependsOn::parse(text).unwrap()
    }

    #[test]
    fn a_flag_reads_with_its_condition_and_its_ways() {
        let plain = read("db");
        assert_eq!((plain.condition, plain.required, plain.restart), (StartCondition::Started, true, false));
        let all = read("db:healthy:optional:restart");
        assert_eq!((all.condition, all.required, all.restart), (StartCondition::Healthy, false, true));
        assert_eq!(read("job:service_completed_successfully").condition, StartCondition::Completed);
        assert_eq!(all.to_string(), "db to be healthy");
    }

    #[test]
    fn what_cannot_be_read_says_what_can() {
        assert!(DependsOn::parse(":healthy").unwrap_err().contains("names no service"));
        let why = DependsOn::parse("db:helthy").unwrap_err();
        assert_eq!(why, "\"helthy\" in \"db:helthy\" is none of started, healthy, completed, optional, restart");
    }

    #[test]
    fn a_stacks_label_names_the_stacks_own_services() {
        let labels = super::super::Labels::from([(STACK_LABEL.to_owned(), "shop".to_owned())]);
        let names = |labels: &super::super::Labels| -> Vec<String> {
            let read = DependsOn::parse_label("db:healthy, shop_cache", labels).unwrap();
            read.into_iter().map(|one| one.service).collect()
        };
        assert_eq!(names(&labels), ["shop_db", "shop_cache"]);
        assert_eq!(names(&super::super::Labels::new()), ["db", "shop_cache"]);
    }

    #[test]
    fn a_cycle_is_found_with_its_names() {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
        let edges = |name: &str| match name {
            "a" => owned(&["b", "x"]),
            "b" => owned(&["x", "c"]),
            "c" => owned(&["a"]),
            _ => Vec::new(),
        };
        assert_eq!(cycle("a", edges), Some(owned(&["a", "b", "c", "a"])));
        assert_eq!(cycle("x", edges), None);
        assert_eq!(cycle("s", |_| owned(&["s"])), Some(owned(&["s", "s"])));
    }
}
