//! Names and ids in paths, as Docker resolves them: the full id, then the full name, then a unique prefix of the id.

use std::sync::Arc;

use super::ApiError;
use crate::state::{Config, Network, Node, Secret, Service, State, Task};

fn resolve<'a, T>(
    kind: &str,
    wanted: &str,
    all: impl Iterator<Item = &'a Arc<T>> + Clone,
    id: impl Fn(&T) -> String,
    name: impl Fn(&T) -> String,
) -> Result<Arc<T>, ApiError>
where
    T: 'a,
{
    let unique = |found: Vec<&Arc<T>>, what: &str| match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(Arc::clone(one))),
        many => {
            Err(ApiError::invalid(format!("{kind} {wanted} is ambiguous ({} matches found by {what})", many.len())))
        }
    };
    if let Some(found) = all.clone().find(|object| id(object) == wanted) {
        return Ok(Arc::clone(found));
    }
    if let Some(found) = unique(all.clone().filter(|object| name(object) == wanted).collect(), "name")? {
        return Ok(found);
    }
    if !wanted.is_empty()
        && let Some(found) = unique(all.filter(|object| id(object).starts_with(wanted)).collect(), "id prefix")?
    {
        return Ok(found);
    }
    Err(ApiError::not_found(kind, wanted))
}

pub fn service(state: &State, wanted: &str) -> Result<Arc<Service>, ApiError> {
    if let Some(found) = state.service_by_name(wanted) {
        // A name that reads as another service's id is so rare that the index is worth it.
        if wanted.parse().ok().and_then(|id| state.service(id)).is_none() {
            return Ok(Arc::clone(found));
        }
    }
    resolve(
        "service",
        wanted,
        state.services().collect::<Vec<_>>().into_iter(),
        |s| s.id.to_string(),
        |s| s.spec.name.clone(),
    )
}

pub fn network(state: &State, wanted: &str) -> Result<Arc<Network>, ApiError> {
    let networks = state.networks().collect::<Vec<_>>().into_iter();
    resolve("network", wanted, networks, |n| n.id.to_string(), |n| n.spec.name.clone())
}

pub fn secret(state: &State, wanted: &str) -> Result<Arc<Secret>, ApiError> {
    let secrets = state.secrets().collect::<Vec<_>>().into_iter();
    resolve("secret", wanted, secrets, |s| s.id.to_string(), |s| s.spec.name.clone())
}

pub fn config(state: &State, wanted: &str) -> Result<Arc<Config>, ApiError> {
    let configs = state.configs().collect::<Vec<_>>().into_iter();
    resolve("config", wanted, configs, |c| c.id.to_string(), |c| c.spec.name.clone())
}

pub fn node(state: &State, wanted: &str) -> Result<Arc<Node>, ApiError> {
    resolve(
        "node",
        wanted,
        state.nodes().collect::<Vec<_>>().into_iter(),
        |n| n.id.to_string(),
        |n| n.name().to_owned(),
    )
}

pub fn task(state: &State, wanted: &str) -> Result<Arc<Task>, ApiError> {
    resolve("task", wanted, state.tasks().collect::<Vec<_>>().into_iter(), |t| t.id.to_string(), |_| String::new())
}
