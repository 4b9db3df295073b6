//! The `filters` query parameter, in both forms that Docker's clients send.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::ApiError;
use crate::spec::Labels;

/// Wanted values by key. All keys must match; of one key's values any, save labels, of which all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// Reads `{"k":{"v":true}}` or `{"k":["v"]}`; a key outside `known` is an error, as in Docker.
    pub fn parse(text: Option<&str>, known: &[&str]) -> Result<Filters, ApiError> {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Filters::default()) };
        let invalid = || ApiError::invalid(format!("invalid filters {text:?}: a JSON object of lists is wanted"));
        let parsed: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|_| invalid())?;
        let mut filters = BTreeMap::new();
        for (key, values) in parsed {
            if !known.contains(&key.as_str()) {
                return Err(ApiError::invalid(format!(
                    "invalid filter '{key}': one of {} is wanted",
                    known.join(", ")
                )));
            }
            let values: BTreeSet<String> = match values {
                Value::Object(map) => {
                    map.into_iter().filter(|(_, on)| on != &Value::Bool(false)).map(|(k, _)| k).collect()
                }
                Value::Array(list) => list
                    .into_iter()
                    .map(|value| value.as_str().map(str::to_owned).ok_or_else(invalid))
                    .collect::<Result<_, _>>()?,
                _ => return Err(invalid()),
            };
            filters.insert(key, values);
        }
        Ok(Filters(filters))
    }

    /// Whether `key` is not asked for, or one of its values satisfies `matches`.
    pub fn any(&self, key: &str, matches: impl Fn(&str) -> bool) -> bool {
        self.0.get(key).is_none_or(|values| values.is_empty() || values.iter().any(|value| matches(value)))
    }

    /// Refuses values that mean nothing.
    pub fn one_of(&self, key: &str, known: &[&str]) -> Result<(), ApiError> {
        match self.values(key).find(|value| !known.contains(value)) {
            None => Ok(()),
            Some(value) => {
                Err(ApiError::invalid(format!("invalid filter '{key}={value}': one of {} is wanted", known.join(", "))))
            }
        }
    }

    /// A yes or no in Docker's words, `None` where it is not asked for.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, ApiError> {
        let (yes, no) = (["1", "true"], ["0", "false"]);
        let mut flags = self.values(key).map(|value| match value.to_ascii_lowercase().as_str() {
            value if yes.contains(&value) => Ok(true),
            value if no.contains(&value) => Ok(false),
            _ => Err(ApiError::invalid(format!("invalid filter '{key}={value}': true or false is wanted"))),
        });
        let first = flags.next().transpose()?;
        match flags.next().transpose()? {
            Some(second) if Some(second) != first => {
                Err(ApiError::invalid(format!("invalid filter '{key}': it is asked for both ways")))
            }
            _ => Ok(first),
        }
    }

    /// What is wanted of `key`.
    pub fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Wanted values may be prefixes of the id.
    pub fn id(&self, key: &str, id: &str) -> bool {
        self.any(key, |wanted| id.starts_with(wanted))
    }

    /// Of what the swarm keeps: Docker wants the beginning of the name there.
    pub fn name_prefix(&self, name: &str) -> bool {
        self.any("name", |wanted| name.starts_with(wanted))
    }

    /// Of networks and volumes: a part of the name.
    pub fn name(&self, name: &str) -> bool {
        self.any("name", |wanted| name.contains(wanted))
    }

    /// By `label` and `label!`, as lists and prunes of what a node or the swarm holds take them.
    pub fn wants_labels(&self, labels: &Labels) -> bool {
        self.labels("label", labels) && (!self.has("label!") || !self.labels("label!", labels))
    }

    /// `k` or `k=v`; all must be there.
    pub fn labels(&self, key: &str, labels: &Labels) -> bool {
        self.0.get(key).is_none_or(|wanted| {
            wanted.iter().all(|label| match label.split_once('=') {
                Some((name, value)) => labels.get(name).is_some_and(|found| found == value),
                None => labels.contains_key(label),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_read_the_same() {
        let go = Filters::parse(Some(r#"{"name":{"web":true}}"#), &["name"]);
        let python = Filters::parse(Some(r#"{"name":["web"]}"#), &["name"]);
        assert_eq!(go, python);
        let filters = go.unwrap();
        assert!(filters.name("my-web-1") && !filters.name_prefix("my-web-1") && filters.name_prefix("web-1"));
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(matches!(Filters::parse(Some(r#"{"colour":["red"]}"#), &["name"]), Err(ApiError::Invalid(_))));
    }

    #[test]
    fn values_that_mean_nothing_are_refused() {
        let filters = |text: &str| Filters::parse(Some(text), &["dangling", "role"]).unwrap();
        assert_eq!(filters(r#"{"dangling":["1"]}"#).flag("dangling"), Ok(Some(true)));
        assert_eq!(filters(r#"{"dangling":{"False":true}}"#).flag("dangling"), Ok(Some(false)));
        assert_eq!(Filters::default().flag("dangling"), Ok(None));
        for text in [r#"{"dangling":["maybe"]}"#, r#"{"dangling":["true","false"]}"#] {
            assert!(matches!(filters(text).flag("dangling"), Err(ApiError::Invalid(_))), "{text}");
        }
        assert_eq!(filters(r#"{"role":["worker"]}"#).one_of("role", &["worker", "manager"]), Ok(()));
        let refused = filters(r#"{"role":["bogus"]}"#).one_of("role", &["worker", "manager"]).unwrap_err();
        assert_eq!(refused.to_string(), "invalid filter 'role=bogus': one of worker, manager is wanted");
    }

    #[test]
    fn every_wanted_label_must_be_there() {
        let filters = Filters::parse(Some(r#"{"label":["a=1","b"]}"#), &["label"]).unwrap();
        let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        assert!(filters.labels("label", &labels(&[("a", "1"), ("b", "")])));
        assert!(!filters.labels("label", &labels(&[("a", "1")])));
        assert!(!filters.labels("label", &labels(&[("a", "2"), ("b", "")])));
        let without = Filters::parse(Some(r#"{"label":["a"],"label!":["b"]}"#), &["label", "label!"]).unwrap();
        assert!(
            without.wants_labels(&labels(&[("a", "1")])) && filters.wants_labels(&labels(&[("a", "1"), ("b", "")]))
        );
        assert!(
            !without.wants_labels(&labels(&[("a", "1"), ("b", "")])) && !without.wants_labels(&labels(&[("c", "")]))
        );
    }
}
