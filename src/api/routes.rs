//! Every route of the API, in one list: the router is made of it, the document of what is served is held to it, and how
//! often each was asked for is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::routing::{MethodRouter, delete, get, head, post, put};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::docker::containers::{self, files, life, list, logs as output, show, stats};
use super::docker::{
    configs, events, exec, images, logs, networks, nodes, secrets, services, swarm, system, tasks, volumes,
};
use super::{Backend, flok};

/// What a request to a route is about, and so who answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Any manager answers.
    Swarm,
    /// The node that is asked answers for itself.
    Node,
    /// The node that is asked, or the one that the filter `node` names.
    Containers,
    /// The node that has the container, whichever is asked; `{id}` names it.
    Container,
    /// The same of a command in a container.
    Exec,
}

pub struct Route<B> {
    pub method: &'static str,
    pub path: &'static str,
    pub about: About,
    handler: MethodRouter<Arc<B>>,
}

/// One line of the list.
macro_rules! routes {
    ($($about:ident $method:ident $path:literal $handler:expr;)*) => {
        vec![$(Route { method: stringify!($method), path: $path, about: About::$about, handler: $method($handler) },)*]
    };
}

#[rustfmt::skip]
pub fn all<B: Backend>() -> Vec<Route<B>> {
    routes! {
        Node get "/_ping" system::ping::<B>;
        Node get "/version" system::version::<B>;
        Node get "/info" system::info::<B>;
        Node get "/plugins" system::plugins;
        Node get "/events" events::events::<B>;

        Swarm get "/swarm" swarm::inspect::<B>;
        Node post "/swarm/init" swarm::init::<B>;
        Node post "/swarm/join" swarm::join::<B>;
        Node post "/swarm/leave" swarm::leave::<B>;
        Swarm post "/swarm/update" swarm::update::<B>;
        Swarm get "/swarm/unlockkey" swarm::unlock_key::<B>;
        Node post "/swarm/unlock" swarm::unlock::<B>;

        Swarm get "/nodes" nodes::list::<B>;
        Swarm get "/nodes/{id}" nodes::inspect::<B>;
        Swarm delete "/nodes/{id}" nodes::remove::<B>;
        Swarm post "/nodes/{id}/update" nodes::update::<B>;

        Swarm get "/networks" networks::list::<B>;
        Swarm post "/networks/create" networks::create::<B>;
        Swarm post "/networks/prune" networks::prune::<B>;
        Swarm get "/networks/{id}" networks::inspect::<B>;
        Swarm delete "/networks/{id}" networks::remove::<B>;

        Swarm get "/services" services::list::<B>;
        Swarm post "/services/create" services::create::<B>;
        Swarm get "/services/{id}" services::inspect::<B>;
        Swarm delete "/services/{id}" services::remove::<B>;
        Swarm post "/services/{id}/update" services::update::<B>;
        Swarm get "/services/{id}/logs" logs::of_service::<B>;

        Swarm get "/tasks" tasks::list::<B>;
        Swarm get "/tasks/{id}" tasks::inspect::<B>;
        Swarm get "/tasks/{id}/logs" logs::of_task::<B>;

        Swarm get "/secrets" secrets::list::<B>;
        Swarm post "/secrets/create" secrets::create::<B>;
        Swarm get "/secrets/{id}" secrets::inspect::<B>;
        Swarm delete "/secrets/{id}" secrets::remove::<B>;
        Swarm post "/secrets/{id}/update" secrets::update::<B>;

        Swarm get "/configs" configs::list::<B>;
        Swarm post "/configs/create" configs::create::<B>;
        Swarm get "/configs/{id}" configs::inspect::<B>;
        Swarm delete "/configs/{id}" configs::remove::<B>;
        Swarm post "/configs/{id}/update" configs::update::<B>;

        Containers get "/containers/json" list::list::<B>;
        Node post "/containers/prune" life::prune;
        Container get "/containers/{id}/json" show::inspect;
        Container get "/containers/{id}/logs" output::logs::<B>;
        Container post "/containers/{id}/attach" output::attach::<B>;
        Container get "/containers/{id}/top" stats::top::<B>;
        Container get "/containers/{id}/stats" stats::stats::<B>;
        Container post "/containers/{id}/kill" life::kill::<B>;
        Container post "/containers/{id}/stop" life::stop::<B>;
        Container post "/containers/{id}/restart" life::restart::<B>;
        Container post "/containers/{id}/wait" life::wait::<B>;
        Container post "/containers/{id}/resize" life::resize::<B>;
        Container head "/containers/{id}/archive" files::stat::<B>;
        Container get "/containers/{id}/archive" files::read::<B>;
        Container put "/containers/{id}/archive" files::write::<B>;
        Container post "/containers/{id}/exec" exec::create::<B>;
        Exec post "/exec/{id}/start" exec::start::<B>;
        Exec post "/exec/{id}/resize" exec::resize::<B>;
        Exec get "/exec/{id}/json" exec::inspect::<B>;

        Node get "/images/json" images::list::<B>;
        Node post "/images/load" images::load::<B>;
        Node post "/images/create" images::pull::<B>;
        Node post "/images/prune" images::prune::<B>;
        Node get "/images/get" images::save::<B>;
        Node get "/images/{*name}" images::look::<B>;
        Node post "/images/{*name}" images::tag::<B>;
        Node delete "/images/{*name}" images::remove::<B>;
        Node get "/distribution/{*name}" images::distribution::<B>;

        Node get "/volumes" volumes::list::<B>;
        Node post "/volumes/create" volumes::create::<B>;
        Node post "/volumes/prune" volumes::prune::<B>;
        Node get "/volumes/{name}" volumes::inspect::<B>;
        Node delete "/volumes/{name}" volumes::remove::<B>;
        Node post "/build/prune" system::prune_builds;
        Node post "/auth" system::log_in::<B>;
        Node get "/system/df" volumes::disk_usage::<B>;

        Swarm post "/flok/v1/stacks/{name}" flok::stack::deploy::<B>;
        Swarm delete "/flok/v1/stacks/{name}" flok::stack::remove::<B>;
        Swarm post "/flok/v1/stacks/{name}/plan" flok::plan::plan::<B>;
        Swarm get "/flok/v1/services/{name}/explain" flok::explain::explain::<B>;
        Swarm post "/flok/v1/secrets/{name}/data" flok::data::replace_secret::<B>;
        Swarm post "/flok/v1/secrets/{name}/rollback" flok::data::roll_back_secret::<B>;
        Swarm get "/flok/v1/secrets/{name}/versions" flok::data::secret_versions::<B>;
        Swarm post "/flok/v1/configs/{name}/data" flok::data::replace_config::<B>;
        Swarm post "/flok/v1/configs/{name}/rollback" flok::data::roll_back_config::<B>;
        Swarm get "/flok/v1/configs/{name}/versions" flok::data::config_versions::<B>;
        Swarm get "/flok/v1/services/{name}/runs" flok::runs::list::<B>;
        Swarm post "/flok/v1/services/{name}/run" flok::runs::run::<B>;
        Node post "/flok/v1/images/resolve" flok::images::resolve::<B>;
        Node get "/flok/v1/network/doctor" flok::doctor::doctor::<B>;
        Swarm get "/flok/v1/status" flok::status::status::<B>;
        Node get "/flok/v1/support-bundle" flok::support::bundle::<B>;
        Swarm get "/flok/v1/containers/{name}" flok::containers::find::<B>;
        Container post "/flok/v1/forward/{id}" flok::containers::forward::<B>;
    }
}

/// How often each route was asked for since the daemon started: `GET /flok/v1/routes`, for tests that are to reach all.
#[derive(Clone)]
struct Asked(Arc<Vec<(&'static str, &'static str, AtomicU64)>>);

impl Asked {
    fn shown(&self) -> Value {
        let line = |(method, path, count): &(&str, &str, AtomicU64)| json!({"Method": method.to_uppercase(), "Path": path, "Asked": count.load(Ordering::Relaxed)});
        self.0.iter().map(line).collect()
    }
}

/// The routes that `wanted` picks.
pub fn router<B: Backend>(backend: &Arc<B>, wanted: impl Fn(About) -> bool) -> Router<Arc<B>> {
    let routes: Vec<Route<B>> = all().into_iter().filter(|route| wanted(route.about)).collect();
    let asked = Asked(Arc::new(routes.iter().map(|route| (route.method, route.path, AtomicU64::new(0))).collect()));
    let mut router = Router::new();
    for (at, route) in routes.into_iter().enumerate() {
        let handler = match route.about {
            About::Swarm | About::Node | About::Containers => route.handler,
            About::Container => {
                route.handler.layer(middleware::from_fn_with_state(Arc::clone(backend), containers::reach::<B>))
            }
            About::Exec => {
                route.handler.layer(middleware::from_fn_with_state(Arc::clone(backend), containers::reach_exec::<B>))
            }
        };
        let count = asked.clone();
        let counted = handler.layer(middleware::from_fn(move |request: Request, next: Next| {
            count.0[at].2.fetch_add(1, Ordering::Relaxed);
            next.run(request)
        }));
        router = router.route(route.path, counted);
    }
    router.route("/flok/v1/routes", get(async move || Json(asked.shown())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// The lines of the list above, as the document has them.
    fn listed() -> BTreeSet<String> {
        let lines = include_str!("routes.rs").lines().skip_while(|line| !line.contains("routes! {")).skip(1);
        let lines = lines.take_while(|line| line.trim() != "}").filter(|line| !line.trim().is_empty());
        let told = |line: &str| {
            let mut words = line.split_whitespace();
            let (about, method, path) = (words.next()?, words.next()?, words.next()?.trim_matches('"'));
            let who = match about {
                "Swarm" => "any manager",
                "Node" | "Containers" => "this node",
                "Container" => "the container's node",
                "Exec" => "the command's node",
                _ => return None,
            };
            Some(format!("| `{} {path}` | {who} |", method.to_uppercase()))
        };
        lines.map(|line| told(line).expect("a line of the list")).collect()
    }

    #[test]
    fn the_document_lists_what_is_served() {
        let document = include_str!("../../docs/docker-compatibility.md");
        let told: BTreeSet<String> =
            document.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect();
        let listed = listed();
        assert!(listed.len() > 50);
        assert_eq!(listed, told);
    }
}
