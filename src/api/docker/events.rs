//! `GET /events`: what was told since a time, and what is told until one.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;

use super::logs::time;
use crate::api::filters::Filters;
use crate::api::journal::{Event, Journal};
use crate::api::query::Query;
use crate::api::{ApiError, Backend};
use crate::spec::UnixMs;

const FILTERS: [&str; 16] = [
    "builder",
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "stack",
    "type",
    "volume",
];

/// Keys that name an object of the kind of the same name.
const KINDS: [&str; 8] = ["config", "container", "image", "network", "node", "secret", "service", "volume"];

#[derive(Debug, Deserialize)]
pub struct EventsQuery {
    since: Option<String>,
    until: Option<String>,
    filters: Option<String>,
}

pub async fn events<B: Backend>(
    State(backend): State<Arc<B>>,
    Extension(journal): Extension<Journal>,
    Query(query): Query<EventsQuery>,
) -> Result<Response, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), &FILTERS)?;
    let (since, until) = (time("since", query.since.as_deref())?, time("until", query.until.as_deref())?);
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        return Err(ApiError::invalid("`since` time cannot be after `until` time"));
    }
    let (kept, told) = journal.listen();
    let ms = |event: &Event| UnixMs(u64::try_from(event.at.as_millisecond()).unwrap_or(0));
    let wanted = move |event: &Event| until.is_none_or(|until| ms(event) <= until) && matches(event, &filters);
    let earlier: Vec<Arc<Event>> =
        kept.into_iter().filter(|event| since.is_some_and(|since| ms(event) >= since) && wanted(event)).collect();
    let now = u64::try_from(backend.now().as_millisecond()).unwrap_or(0);
    let left = until.map(|until| Duration::from_millis(until.0.saturating_sub(now)));
    let later = stream::unfold(told, |mut told| async move {
        loop {
            match told.recv().await {
                Ok(event) => return Some((event, told)),
                // Too slow a reader misses some.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    let end = async move {
        match left {
            Some(left) => tokio::time::sleep(left).await,
            None => std::future::pending().await,
        }
    };
    let later = later.filter(move |event| std::future::ready(wanted(event))).take_until(end);
    let lines = stream::iter(earlier).chain(later);
    let lines = lines.map(|event| Ok::<_, std::convert::Infallible>(format!("{}\n", event.shown())));
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response())
}

fn matches(event: &Event, filters: &Filters) -> bool {
    let name = event.attributes.get("name").map_or("", String::as_str);
    // `health_status` means each of them.
    let action = event.action.split(':').next().unwrap_or_default();
    let object =
        |wanted: &str| event.id.starts_with(wanted) || name == wanted || name.starts_with(&format!("{wanted}."));
    filters.any("type", |wanted| wanted == event.kind)
        && filters.any("scope", |wanted| wanted == event.scope)
        && filters.any("event", |wanted| wanted == event.action || wanted == action)
        && filters.labels("label", &event.attributes)
        && KINDS.iter().all(|kind| {
            let of_image = *kind == "image" && event.kind == "container";
            filters.any(kind, |wanted| match of_image {
                true => event.attributes.get("image").is_some_and(|image| image.starts_with(wanted)),
                // By its repository, too.
                false if *kind == "image" => {
                    let repository = name.rsplit_once(':').map_or(name, |(repository, _)| repository);
                    event.kind == *kind && (object(wanted) || repository == wanted)
                }
                false => event.kind == *kind && object(wanted),
            })
        })
        && ["builder", "daemon", "plugin", "stack"].iter().all(|key| !filters.has(key))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn filters_pick_events() {
        let attributes = [("name", "web.1.t"), ("image", "redis:7"), ("team", "a")];
        let event = Event {
            kind: "container",
            action: "health_status: healthy".into(),
            id: "abc".into(),
            attributes: attributes.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            scope: "local",
            at: Timestamp::UNIX_EPOCH,
        };
        let picks = |filters: &str| matches(&event, &Filters::parse(Some(filters), &FILTERS).unwrap());
        for wanted in [
            r#"{"type":["container"]}"#,
            r#"{"event":{"health_status":true},"container":{"web.1":true}}"#,
            r#"{"container":["ab"],"image":["redis"],"label":["team=a"],"scope":["local"]}"#,
        ] {
            assert!(picks(wanted), "{wanted}");
        }
        for other in
            [r#"{"type":["node"]}"#, r#"{"service":["web"]}"#, r#"{"event":["die"]}"#, r#"{"label":["team=b"]}"#]
        {
            assert!(!picks(other), "{other}");
        }
    }
}
