//! Names and ids in paths, as Docker resolves them: the full id, then the full name, then a unique prefix of the id.

use std::sync::Arc;

use super::ApiError;
use crate::spec::stack::nearest;
use crate::state::{Config, Network, Node, Secret, Service, State, Task};

/// `; did you mean web?`, where a name is near enough.
pub fn did_you_mean<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let names = names.into_iter().filter(|name| !name.is_empty());
    nearest(wanted, names).map_or_else(String::new, |near| format!("; did you mean {near}?"))
}

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
        && let Some(found) = unique(all.clone().filter(|object| id(object).starts_with(wanted)).collect(), "id prefix")?
    {
        return Ok(found);
    }
    let names: Vec<String> = all.map(|object| name(object)).collect();
    Err(ApiError::NotFound(format!(
        "{kind} {wanted} not found{}",
        did_you_mean(wanted, names.iter().map(String::as_str))
    )))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::fixture::Fixture;

    #[test]
    fn a_name_that_is_nearly_right_is_told() {
        let mut swarm = Fixture::nodes(2);
        swarm.service("shop_web", 1, |_| {});
        let said = |error: ApiError| error.to_string();
        assert_eq!(
            service(&swarm.state, "shop_wbe").map_err(said).unwrap_err(),
            "service shop_wbe not found; did you mean shop_web?"
        );
        assert_eq!(
            node(&swarm.state, "nod-1").map_err(said).unwrap_err(),
            "node nod-1 not found; did you mean node-1?"
        );
        assert_eq!(service(&swarm.state, "banana").map_err(said).unwrap_err(), "service banana not found");
        assert_eq!(task(&swarm.state, "x").map_err(said).unwrap_err(), "task x not found");
    }
}
