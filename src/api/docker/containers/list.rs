//! `GET /containers/json`: this node's containers, or with the filter `node` another's.

use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{find, show};
use crate::api::calls::FromNode;
use crate::api::docker::truthy;
use crate::api::filters::Filters;
use crate::api::query::Query;
use crate::api::{ApiError, Backend, Container, lookup};
use crate::spec::*;

const FILTERS: [&str; 17] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "node",
    "publish",
    "since",
    "status",
    "volume",
    "runtime",
];

/// Of a filter's regular expression, once it is read.
const MAX_PATTERN_BYTES: usize = 1 << 20;

const STATUSES: [&str; 7] = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];

const HEALTHS: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];

#[derive(Debug, Deserialize)]
pub struct ListContainers {
    all: Option<String>,
    limit: Option<i64>,
    size: Option<String>,
    filters: Option<String>,
}

pub async fn list<B: Backend>(
    State(backend): State<Arc<B>>,
    Query(query): Query<ListContainers>,
    request: Request,
) -> Result<Response, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), &FILTERS)?;
    refuse_bad_values(&filters)?;
    if filters.has("node") && request.extensions().get::<FromNode>().is_none() {
        let read = backend.read().await?;
        let wanted = filters.values("node").next().unwrap_or_default();
        let node = lookup::node(&read.state, wanted)?.id;
        if node != backend.local().id {
            return backend.call(node, request).await;
        }
    }
    let mut containers = backend.containers().await?;
    containers.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
    let bound = |key: &str| -> Result<Option<UnixMs>, ApiError> {
        let Some(wanted) = filters.values(key).next() else { return Ok(None) };
        find::among(&containers, wanted).map(|at| Some(containers[at].created))
    };
    let (before, since) = (bound("before")?, bound("since")?);
    let limit = query.limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    // As in Docker: asking for what ended, or for the last ones, is asking for all.
    let all = truthy(query.all.as_deref()) || limit.is_some() || filters.has("status") || filters.has("exited");
    let node = backend.local().id;
    let names = patterns(&filters);
    containers.retain(|container| {
        (all || show::state(container) == "running")
            && before.is_none_or(|at| container.created < at)
            && since.is_none_or(|at| container.created > at)
            && (!filters.has("name") || is_named(container, &names))
            && matches(container, &filters, node)
    });
    containers.truncate(limit.unwrap_or(usize::MAX));
    let now = backend.now();
    let mut shown = Vec::with_capacity(containers.len());
    for container in &containers {
        let mut line = line(container, now);
        if truthy(query.size.as_deref()) {
            show::put_size(&mut line, backend.container_size(container.task.task).await.unwrap_or_default());
        }
        shown.push(line);
    }
    Ok(Json(shown).into_response())
}

fn refuse_bad_values(filters: &Filters) -> Result<(), ApiError> {
    filters.one_of("status", &STATUSES)?;
    filters.one_of("health", &HEALTHS)?;
    filters.flag("is-task")?;
    for key in ["publish", "expose"] {
        if let Some(wanted) = filters.values(key).find(|wanted| ports(wanted).is_none()) {
            let form = "a port, or a range as in 7000-7100/tcp, is wanted";
            return Err(ApiError::invalid(format!("invalid filter '{key}={wanted}': {form}")));
        }
    }
    match filters.values("exited").find(|code| code.parse::<i32>().is_err()) {
        None => Ok(()),
        Some(code) => Err(ApiError::invalid(format!("invalid filter 'exited={code}': an exit code is wanted"))),
    }
}

/// `80`, `80/udp` or `7000-7100/tcp`: the ports and their protocol.
fn ports(wanted: &str) -> Option<(RangeInclusive<u16>, &str)> {
    let (numbers, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let range = first.parse().ok()?..=last.parse().ok()?;
    (!range.is_empty() && ["tcp", "udp", "sctp"].contains(&protocol)).then_some((range, protocol))
}

/// Docker's filter of names is a regular expression; what is none matches nothing.
fn patterns(filters: &Filters) -> Vec<Regex> {
    let pattern = |text: &str| RegexBuilder::new(text).size_limit(MAX_PATTERN_BYTES).build().ok();
    filters.values("name").filter_map(pattern).collect()
}

/// With its slash, or without it.
fn is_named(container: &Container, names: &[Regex]) -> bool {
    let name = &container.task.name;
    names.iter().any(|pattern| pattern.is_match(name) || pattern.is_match(&format!("/{name}")))
}

fn matches(container: &Container, filters: &Filters, node: NodeId) -> bool {
    let task = &container.task;
    let spec = &task.spec.container;
    let port = |wanted: &str, of: fn(&PortConfig) -> u16| {
        let Some((range, protocol)) = ports(wanted) else { return false };
        container.host_ports.iter().any(|port| range.contains(&of(port)) && show::protocol(port) == protocol)
    };
    filters.id("id", &container.id)
        && filters.labels("label", &show::labels(container, node))
        && filters.any("status", |wanted| wanted == show::state(container))
        && filters.any("health", |wanted| wanted == show::health(container))
        && filters.any("exited", |wanted| {
            show::state(container) == "exited"
                && container.exit_code.map(|code| code.to_string()).as_deref() == Some(wanted)
        })
        && filters.any("is-task", |wanted| truthy(Some(wanted)))
        && filters.any("isolation", |wanted| wanted == "default")
        && filters.any("runtime", |wanted| wanted == "container" || wanted == "runc")
        && filters.any("ancestor", |wanted| {
            same_image(&spec.image, wanted) || (wanted.len() >= 12 && container.image_digest.contains(wanted))
        })
        && filters.any("network", |wanted| {
            container.networks.iter().any(|place| place.name == wanted || place.id.to_string().starts_with(wanted))
        })
        && filters.any("volume", |wanted| {
            spec.mounts.iter().any(|mount| mount.source.as_deref() == Some(wanted) || mount.target == wanted)
                || container.process.mounts.iter().any(|mount| mount.volume.as_deref() == Some(wanted))
        })
        && filters.any("publish", |wanted| port(wanted, |port| port.published))
        && filters.any("expose", |wanted| port(wanted, |port| port.target))
}

/// `redis` is `redis:latest`, whatever digest it was resolved to.
fn same_image(image: &str, wanted: &str) -> bool {
    let read = |text: &str| {
        text.parse::<crate::spec::image::ImageReference>().ok().map(|mut read| {
            read.digest = None;
            read.familiar()
        })
    };
    let (image, wanted) = (read(image), read(wanted));
    let tagged = |name: &str| if name.contains(':') { name.to_owned() } else { format!("{name}:latest") };
    match (image, wanted) {
        (Some(image), Some(wanted)) => image == wanted || tagged(&image) == tagged(&wanted),
        _ => false,
    }
}

pub fn line(container: &Container, now: Timestamp) -> Value {
    let ports = container.host_ports.iter().map(|port| {
        json!({"IP": "0.0.0.0", "PrivatePort": port.target, "PublicPort": port.published, "Type": show::protocol(port)})
    });
    json!({
        "Id": container.id,
        "Names": [format!("/{}", container.task.name)],
        "Image": container.task.spec.container.image,
        "ImageID": container.image_digest,
        "Command": container.process.args.join(" "),
        "Created": container.created.0 / 1000,
        "Ports": ports.collect::<Vec<_>>(),
        "Labels": show::labels(container, container.node),
        "State": show::state(container),
        "Status": show::status(container, now),
        "HostConfig": {"NetworkMode": show::network_mode(container)},
        "NetworkSettings": {"Networks": show::networks(container)},
        "Mounts": show::mounts(container),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_one_or_a_range() {
        assert_eq!(ports("80"), Some((80..=80, "tcp")));
        assert_eq!(ports("7000-7100/udp"), Some((7000..=7100, "udp")));
        for wrong in ["", "x", "80:80", "70000", "7100-7000", "80/x", "80-", "1-2-3"] {
            assert_eq!(ports(wrong), None, "{wrong}");
        }
    }
}
