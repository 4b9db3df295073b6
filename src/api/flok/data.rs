//! New data for secrets and configs that exist, rolled out to the services that use them; Docker has labels change alone.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::api::convert::date;
use crate::api::docker::{Body, answer};
use crate::api::model::data::{DataReplaced, DataRollback, DataUpdate, DataVersionShown, DataVersions};
use crate::api::{ApiError, Backend, Read, lookup};
use crate::spec::{DataId, DataVersion, Labels, SecretBytes, Version};
use crate::state::{self, Command, DataRecord, NewData, Service};

pub async fn replace_secret<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
    Body(asked): Body<DataUpdate>,
) -> Result<Json<DataReplaced>, ApiError> {
    let read = backend.read().await?;
    let id = DataId::Secret(lookup::secret(&read.state, &wanted)?.id);
    replace(backend.as_ref(), &read.state, id, asked).await
}

pub async fn replace_config<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
    Body(asked): Body<DataUpdate>,
) -> Result<Json<DataReplaced>, ApiError> {
    let read = backend.read().await?;
    let id = DataId::Config(lookup::config(&read.state, &wanted)?.id);
    replace(backend.as_ref(), &read.state, id, asked).await
}

pub async fn roll_back_secret<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
    Body(asked): Body<DataRollback>,
) -> Result<Json<DataReplaced>, ApiError> {
    let read = backend.read().await?;
    let id = DataId::Secret(lookup::secret(&read.state, &wanted)?.id);
    roll_back(backend.as_ref(), &read.state, id, &asked).await
}

pub async fn roll_back_config<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
    Body(asked): Body<DataRollback>,
) -> Result<Json<DataReplaced>, ApiError> {
    let read = backend.read().await?;
    let id = DataId::Config(lookup::config(&read.state, &wanted)?.id);
    roll_back(backend.as_ref(), &read.state, id, &asked).await
}

pub async fn secret_versions<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
) -> Result<Response, ApiError> {
    let read = backend.read().await?;
    let id = DataId::Secret(lookup::secret(&read.state, &wanted)?.id);
    versions(&read, id)
}

pub async fn config_versions<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(wanted): Path<String>,
) -> Result<Response, ApiError> {
    let read = backend.read().await?;
    let id = DataId::Config(lookup::config(&read.state, &wanted)?.id);
    versions(&read, id)
}

/// An error says nothing of the data.
async fn replace<B: Backend>(
    backend: &B,
    state: &state::State,
    id: DataId,
    asked: DataUpdate,
) -> Result<Json<DataReplaced>, ApiError> {
    let name = state.data_name(id).unwrap_or_default();
    let data = STANDARD.decode(&asked.data);
    let data = data.map_err(|_| ApiError::invalid(format!("{} {name}: data is not base64", id.kind())))?;
    let templating = state.newest_data(id).and_then(|newest| newest.templating.map(str::to_owned));
    let new = NewData {
        labels: asked.labels.unwrap_or_else(|| labels(state, id).clone()),
        data: SecretBytes(data),
        templating,
        restored: None,
        roll_out: asked.roll_out,
    };
    propose(backend, state, id, Version(asked.version), new).await
}

async fn roll_back<B: Backend>(
    backend: &B,
    state: &state::State,
    id: DataId,
    asked: &DataRollback,
) -> Result<Json<DataReplaced>, ApiError> {
    let new = restored(state, id, asked)?;
    propose(backend, state, id, Version(asked.version), new).await
}

/// The data of the version to go back to, as a new version.
fn restored(state: &state::State, id: DataId, asked: &DataRollback) -> Result<NewData, ApiError> {
    let (kind, name) = (id.kind(), state.data_name(id).unwrap_or_default());
    let records: Vec<DataRecord> = state.data_history(id).into_iter().flat_map(|history| history.records()).collect();
    let before_newest = records.iter().rev().nth(1).map(|record| record.number);
    let to = asked.to.map(DataVersion).or(before_newest).ok_or_else(|| {
        ApiError::invalid(format!("{kind} {name} has one version of its data, and none to go back to"))
    })?;
    let found = state.data(id, to).ok_or_else(|| {
        let kept: Vec<String> = records.iter().map(|record| record.number.to_string()).collect();
        ApiError::NotFound(format!("{kind} {name} has no version {to}: the versions kept are {}", kept.join(", ")))
    })?;
    Ok(NewData {
        labels: labels(state, id).clone(),
        data: SecretBytes(found.bytes.to_vec()),
        templating: found.templating.map(str::to_owned),
        restored: Some(found.record.restored.unwrap_or(to)),
        roll_out: asked.roll_out,
    })
}

fn labels(state: &state::State, id: DataId) -> &Labels {
    let labels = match id {
        DataId::Secret(id) => state.secret(id).map(|secret| &secret.spec.labels),
        DataId::Config(id) => state.config(id).map(|config| &config.spec.labels),
    };
    labels.expect("the caller has found it")
}

async fn propose<B: Backend>(
    backend: &B,
    before: &state::State,
    id: DataId,
    version: Version,
    new: NewData,
) -> Result<Json<DataReplaced>, ApiError> {
    backend.propose(Command::ReplaceData { id, version, new: Box::new(new) }).await?;
    let after = backend.read().await?;
    Ok(Json(outcome(before, &after.state, id)))
}

/// What became of the services that use it.
fn outcome(before: &state::State, after: &state::State, id: DataId) -> DataReplaced {
    let Some(newest) = after.newest_data(id) else { return DataReplaced::default() };
    let version = |service: &Service| {
        let used = service.spec.task.container.data_used().find(|(used, _)| *used == id);
        used.map(|(_, version)| version)
    };
    let mut outcome = DataReplaced {
        name: after.data_name(id).unwrap_or_default().to_owned(),
        version: newest.record.number.0,
        restored: newest.record.restored.map(|number| number.0),
        changed: before.newest_data(id).is_none_or(|old| old.record.number != newest.record.number),
        ..DataReplaced::default()
    };
    for service in after.data_users(id) {
        let (now, name) = (version(service), service.spec.name.clone());
        if now == Some(newest.record.number) {
            if before.service(service.id).and_then(|old| version(old)) != now {
                outcome.rolled_out.push(name);
            }
        } else if now.and_then(|now| after.data(id, now)).is_none_or(|has| !has.is_same(&newest)) {
            outcome.later.push(name);
        }
    }
    outcome.rolled_out.sort();
    outcome.later.sort();
    outcome
}

fn versions(read: &Read, id: DataId) -> Result<Response, ApiError> {
    Ok(answer(read, shown(&read.state, id)))
}

fn shown(state: &state::State, id: DataId) -> DataVersions {
    let object = match id {
        DataId::Secret(id) => state.secret(id).map(|secret| secret.meta.version),
        DataId::Config(id) => state.config(id).map(|config| config.meta.version),
    };
    let records = state.data_history(id).into_iter().flat_map(|history| history.records().rev());
    DataVersions {
        name: state.data_name(id).unwrap_or_default().to_owned(),
        object_version: object.unwrap_or_default().0,
        versions: records.map(|record| version_shown(state, id, record)).collect(),
    }
}

fn version_shown(state: &state::State, id: DataId, record: DataRecord) -> DataVersionShown {
    let wanted = (id, record.number);
    let named = |uses: &dyn Fn(&Service) -> bool| {
        let mut names: Vec<String> =
            state.services().filter(|service| uses(service)).map(|service| service.spec.name.clone()).collect();
        names.sort();
        names
    };
    let uses = |spec: &crate::spec::ServiceSpec| spec.task.container.data_used().any(|used| used == wanted);
    let is_config = matches!(id, DataId::Config(_));
    let size = state.data(id, record.number).map(|found| found.bytes.len() as u64);
    DataVersionShown {
        version: record.number.0,
        created_at: date(record.created_at),
        restored: record.restored.map(|number| number.0),
        size_bytes: size.filter(|_| is_config),
        services: named(&|service| uses(&service.spec)),
        previously: named(&|service| {
            !uses(&service.spec) && service.previous.as_ref().is_some_and(|previous| uses(&previous.spec))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::*;
    use crate::state::fixture::Fixture;

    const KEY: SecretId = SecretId(1);
    const ID: DataId = DataId::Secret(KEY);

    fn swarm() -> Fixture {
        let mut swarm = Fixture::nodes(1);
        let labels = Labels::from([("a".to_owned(), "b".to_owned())]);
        let spec = SecretSpec { name: "key".into(), labels, data: SecretBytes(b"first".to_vec()), templating: None };
        swarm.command(Command::CreateSecret { id: KEY, spec });
        swarm
    }

    fn uses_key(spec: &mut ServiceSpec) {
        let file = FileTarget { name: "key".into(), uid: "0".into(), gid: "0".into(), mode: 0o444 };
        let reference = SecretReference { id: KEY, name: "key".into(), file, data_version: DataVersion(0) };
        spec.task.container.secrets = vec![reference];
    }

    fn propose(swarm: &mut Fixture, new: NewData) -> DataReplaced {
        let before = swarm.state.clone();
        let version = before.secret(KEY).unwrap().meta.version;
        swarm.command(Command::ReplaceData { id: ID, version, new: Box::new(new) });
        outcome(&before, &swarm.state, ID)
    }

    fn replace(swarm: &mut Fixture, data: &str, roll_out: bool) -> DataReplaced {
        let labels = labels(&swarm.state, ID).clone();
        let data = SecretBytes(data.into());
        propose(swarm, NewData { labels, data, templating: None, restored: None, roll_out })
    }

    fn back(swarm: &mut Fixture, to: Option<u64>) -> Result<DataReplaced, ApiError> {
        let new = restored(&swarm.state, ID, &DataRollback { version: 0, to, roll_out: true })?;
        Ok(propose(swarm, new))
    }

    #[test]
    fn what_becomes_of_each_service_is_told() {
        let mut swarm = swarm();
        swarm.service("web", 1, uses_key);
        swarm.service("other", 1, |_| {});
        swarm.service("job", 1, |spec| {
            uses_key(spec);
            spec.mode = ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 1 };
        });
        let told = replace(&mut swarm, "second", true);
        assert_eq!((told.version, told.changed, told.restored), (2, true, None));
        assert_eq!((told.rolled_out, told.later), (vec!["web".to_owned()], vec!["job".to_owned()]));
        let told = replace(&mut swarm, "second", true);
        assert_eq!((told.version, told.changed, told.rolled_out.len()), (2, false, 0));
        let told = replace(&mut swarm, "third", false);
        let web = swarm.state.service_by_name("web").unwrap();
        let notes = crate::api::flok::explain::older_data(&swarm.state, web);
        assert_eq!(notes, ["secret key: tasks get version 2 of its data, until an update; the newest is 3"]);
        assert_eq!((told.rolled_out.len(), told.later), (0, vec!["job".to_owned(), "web".to_owned()]));
    }

    #[test]
    fn a_rollback_is_a_version_that_names_whose_data_it_has() {
        let mut swarm = swarm();
        let none = back(&mut swarm, None).unwrap_err().to_string();
        assert_eq!(none, "secret key has one version of its data, and none to go back to");
        let web = swarm.service("web", 1, uses_key);
        replace(&mut swarm, "second", true);
        let told = back(&mut swarm, None).unwrap();
        assert_eq!((told.version, told.restored, told.rolled_out), (3, Some(1), vec!["web".to_owned()]));
        assert_eq!(swarm.state.secret(KEY).unwrap().spec.labels.len(), 1, "labels stay");
        // Of a version that was one itself, the first that had the data is named.
        replace(&mut swarm, "fourth", true);
        assert_eq!(back(&mut swarm, Some(3)).unwrap().restored, Some(1));
        let unknown = back(&mut swarm, Some(9)).unwrap_err().to_string();
        assert_eq!(unknown, "secret key has no version 9: the versions kept are 1, 2, 3, 4, 5");

        let shown = shown(&swarm.state, ID);
        let numbers: Vec<u64> = shown.versions.iter().map(|version| version.version).collect();
        assert_eq!((numbers, shown.object_version), (vec![5, 4, 3, 2, 1], swarm.state.applied()));
        let name = swarm.state.service(web).unwrap().spec.name.clone();
        assert_eq!((&shown.versions[0].services, &shown.versions[1].previously), (&vec![name.clone()], &vec![name]));
        let text = serde_json::to_string(&shown).unwrap();
        assert!(shown.versions.iter().all(|version| version.size_bytes.is_none()), "{text}");
        assert!(!text.contains("first") && !text.contains(&STANDARD.encode("first")), "{text}");
    }
}
