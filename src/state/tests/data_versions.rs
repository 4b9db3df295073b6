//! Data of secrets and configs that is replaced: which services get which version, what is kept, what is refused.

use super::words;
use crate::spec::*;
use crate::state::fixture::*;
use crate::state::*;

const KEY: SecretId = SecretId(1);
const SITE: ConfigId = ConfigId(2);

fn new_data(data: &str) -> NewData {
    NewData { labels: Labels::new(), data: SecretBytes(data.into()), templating: None, restored: None, roll_out: true }
}

fn target(name: &str) -> FileTarget {
    FileTarget { name: name.into(), uid: "0".into(), gid: "0".into(), mode: 0o444 }
}

fn uses_key(spec: &mut ServiceSpec) {
    let reference = SecretReference { id: KEY, name: "key".into(), file: target("key"), data_version: DataVersion(0) };
    spec.task.container.secrets = vec![reference];
}

fn uses_site(spec: &mut ServiceSpec) {
    let reference =
        ConfigReference { id: SITE, name: "site".into(), file: target("site"), data_version: DataVersion(0) };
    spec.task.container.configs = vec![reference];
}

/// A swarm with the secret `key` and the config `site`, each with the data `first`.
fn swarm() -> Fixture {
    let mut swarm = Fixture::nodes(1);
    let data = b"first".to_vec();
    let (labels, templating) = (Labels::new(), None);
    let secret = SecretSpec { name: "key".into(), labels: labels.clone(), data: SecretBytes(data.clone()), templating };
    swarm.command(Command::CreateSecret { id: KEY, spec: secret });
    let config = ConfigSpec { name: "site".into(), labels, data, templating: None };
    swarm.command(Command::CreateConfig { id: SITE, spec: config });
    swarm
}

fn replacement(swarm: &Fixture, id: DataId, new: NewData) -> Command {
    let version = match id {
        DataId::Secret(id) => swarm.state.secret(id).unwrap().meta.version,
        DataId::Config(id) => swarm.state.config(id).unwrap().meta.version,
    };
    Command::ReplaceData { id, version, new: Box::new(new) }
}

fn replace(swarm: &mut Fixture, id: DataId, new: NewData) {
    let command = replacement(swarm, id, new);
    swarm.command(command);
}

fn replace_key(swarm: &mut Fixture, data: &str) {
    replace(swarm, DataId::Secret(KEY), new_data(data));
}

/// What the tasks of the service's spec in force find in their one secret or config.
fn data_of(swarm: &Fixture, service: ServiceId) -> String {
    let container = &swarm.state.service(service).unwrap().spec.task.container;
    let (id, version) = container.data_used().next().unwrap();
    let found = swarm.state.data(id, version).expect("data in use is kept");
    String::from_utf8(found.bytes.to_vec()).unwrap()
}

fn kept(swarm: &Fixture, id: DataId) -> Vec<u64> {
    swarm.state.data_history(id).unwrap().records().map(|record| record.number.0).collect()
}

fn update_status(state: UpdateState) -> UpdateStatus {
    UpdateStatus { state, since: Version(0), started_at: UnixMs(1), completed_at: None, message: String::new() }
}

#[test]
fn new_data_is_an_update_of_each_service_that_uses_it() {
    let mut swarm = swarm();
    let (web, other) = (swarm.service("web", 2, uses_key), swarm.service("other", 1, uses_site));
    let before = swarm.state.clone();
    let update = update_status(UpdateState::Paused);
    swarm.change(Change::SetUpdateStatus { service: web, status: Some(update) });
    replace_key(&mut swarm, "second");
    assert_eq!((data_of(&swarm, web).as_str(), data_of(&swarm, other).as_str()), ("second", "first"));
    let service = swarm.state.service(web).unwrap();
    let old = before.service(web).unwrap();
    assert_eq!(service.previous.as_ref().unwrap().spec, old.spec);
    assert_eq!((service.spec_version, service.update.is_none()), (Version(swarm.state.applied()), true));
    assert_eq!(swarm.state.service(other), before.service(other));
    assert_eq!(swarm.state.secret(KEY).unwrap().spec.data.0, b"second");

    replace(&mut swarm, DataId::Config(SITE), new_data("other page"));
    assert_eq!((data_of(&swarm, web).as_str(), data_of(&swarm, other).as_str()), ("second", "other page"));
}

#[test]
fn a_service_goes_back_to_the_data_it_had() {
    let mut swarm = swarm();
    let web = swarm.service("web", 1, uses_key);
    replace_key(&mut swarm, "second");
    let version = swarm.state.service(web).unwrap().meta.version;
    swarm.command(Command::RollbackService { id: web, version });
    assert_eq!(data_of(&swarm, web), "first");
    let version = swarm.state.service(web).unwrap().meta.version;
    swarm.command(Command::RollbackService { id: web, version });
    assert_eq!(data_of(&swarm, web), "second");

    replace_key(&mut swarm, "third");
    swarm.change(Change::AutoRollback { service: web, message: "failed".into() });
    assert_eq!(data_of(&swarm, web), "second");
}

#[test]
fn a_service_that_has_the_data_is_left_alone() {
    let mut swarm = swarm();
    let web = swarm.service("web", 1, uses_key);
    replace_key(&mut swarm, "second");
    swarm.change(Change::AutoRollback { service: web, message: "failed".into() });
    let before = swarm.state.service(web).cloned();
    replace(&mut swarm, DataId::Secret(KEY), NewData { restored: Some(DataVersion(1)), ..new_data("first") });
    assert_eq!(swarm.state.service(web).cloned(), before);
    assert_eq!(kept(&swarm, DataId::Secret(KEY)), [1, 2, 3]);
    assert_eq!(swarm.state.newest_data(DataId::Secret(KEY)).unwrap().record.restored, Some(DataVersion(1)));
}

#[test]
fn the_same_data_changes_nothing_but_labels() {
    let mut swarm = swarm();
    swarm.service("web", 1, uses_key);
    let before = swarm.state.clone();
    replace_key(&mut swarm, "first");
    assert!(before.secrets().eq(swarm.state.secrets()) && before.services().eq(swarm.state.services()));
    let labels = Labels::from([("a".to_string(), "b".to_string())]);
    replace(&mut swarm, DataId::Secret(KEY), NewData { labels: labels.clone(), ..new_data("first") });
    let secret = swarm.state.secret(KEY).unwrap();
    assert_eq!((&secret.spec.labels, secret.meta.version), (&labels, Version(swarm.state.applied())));
    assert_eq!(kept(&swarm, DataId::Secret(KEY)), [1]);
    assert!(before.services().eq(swarm.state.services()));
}

/// Tasks that are replaced anyway get the newest; those that are not, as by a scale, are not replaced for it.
#[test]
fn a_service_left_behind_gets_the_data_with_its_next_tasks() {
    let mut swarm = swarm();
    let (web, new) = (swarm.service("web", 1, uses_key), NewData { roll_out: false, ..new_data("second") });
    replace(&mut swarm, DataId::Secret(KEY), new);
    let spec_version = swarm.state.service(web).unwrap().spec_version;
    assert_eq!(data_of(&swarm, web), "first");
    swarm.update(web, |spec| {
        uses_key(spec);
        spec.mode = ServiceMode::Replicated { replicas: 5 };
    });
    assert_eq!(
        (data_of(&swarm, web).as_str(), swarm.state.service(web).unwrap().spec_version),
        ("first", spec_version)
    );
    // As docker sends it, which does not know of versions.
    swarm.update(web, |spec| {
        uses_key(spec);
        spec.task.force_update += 1;
    });
    assert_eq!(data_of(&swarm, web), "second");
    let late = swarm.service("late", 1, uses_key);
    assert_eq!(data_of(&swarm, late), "second");
    // No client chooses.
    swarm.update(late, |spec| {
        spec.task.container.secrets[0].data_version = DataVersion(1);
        spec.task.force_update += 1;
    });
    assert_eq!(data_of(&swarm, late), "second");
}

#[test]
fn a_deployment_that_changes_data_and_service_is_one_update() {
    let mut swarm = swarm();
    let (web, labelled) = (swarm.service("web", 1, uses_key), swarm.service("labelled", 1, uses_key));
    let old = [web, labelled].map(|id| swarm.state.service(id).unwrap().spec.clone());
    let mut commands = vec![replacement(&swarm, DataId::Secret(KEY), new_data("second"))];
    for id in [web, labelled] {
        let service = swarm.state.service(id).unwrap();
        let mut spec = service.spec.clone();
        if id == web {
            spec.task.force_update += 1;
        } else {
            spec.labels.insert("a".into(), "b".into());
        }
        let (version, credentials) = (service.meta.version, CredentialsUpdate::Keep);
        commands.push(Command::UpdateService { id, version, spec: Box::new(spec), credentials });
    }
    swarm.command(Command::Transaction(commands));
    for (id, old) in [web, labelled].into_iter().zip(old) {
        assert_eq!(data_of(&swarm, id), "second");
        assert_eq!(swarm.state.service(id).unwrap().previous.as_ref().unwrap().spec, old);
    }
}

#[test]
fn services_that_restart_with_one_do_so_when_it_gets_other_data() {
    let mut swarm = swarm();
    swarm.service("db", 1, uses_key);
    let api = swarm.service("api", 1, |spec| {
        let condition = StartCondition::Started;
        spec.depends_on = vec![DependsOn { service: "db".into(), condition, required: true, restart: true }];
    });
    replace_key(&mut swarm, "second");
    assert_eq!(swarm.state.service(api).unwrap().spec_version, Version(swarm.state.applied()));
}

#[test]
fn a_job_does_not_run_again_for_other_data() {
    let mut swarm = swarm();
    let job = swarm.service("job", 1, |spec| {
        uses_key(spec);
        spec.mode = ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 1 };
    });
    replace_key(&mut swarm, "second");
    assert_eq!((data_of(&swarm, job).as_str(), swarm.state.service(job).unwrap().job.unwrap().iteration), ("first", 0));
    swarm.update(job, |spec| spec.task.force_update += 1);
    assert_eq!(data_of(&swarm, job), "second");
}

#[test]
fn a_job_with_a_schedule_gets_other_data_with_its_next_run() {
    let mut swarm = swarm();
    let job = swarm.service("job", 1, |spec| {
        uses_key(spec);
        spec.mode = ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 1 };
        spec.schedule = Some(Schedule::new("@daily"));
    });
    let iteration = |swarm: &Fixture| swarm.state.service(job).unwrap().job.map(|job| job.iteration);
    let before = iteration(&swarm);
    replace_key(&mut swarm, "second");
    assert_eq!((data_of(&swarm, job), iteration(&swarm)), ("second".to_owned(), before), "no run begins for it");
}

#[test]
fn the_newest_versions_stay_and_those_in_use() {
    let mut swarm = swarm();
    let behind = swarm.service("behind", 1, uses_key);
    let stops = swarm.service("stops", 1, uses_key);
    let task = swarm.running(stops, 1, node(1));
    swarm.command(Command::RemoveService { id: stops });
    for data in ["b", "c", "d", "e", "f", "g"] {
        replace(&mut swarm, DataId::Secret(KEY), NewData { roll_out: false, ..new_data(data) });
    }
    assert_eq!(kept(&swarm, DataId::Secret(KEY)), [1, 3, 4, 5, 6, 7]);
    // Used by what it was before, and by a task that has not ended, still.
    swarm.update(behind, |spec| spec.task.force_update += 1);
    replace_key(&mut swarm, "h");
    assert_eq!(kept(&swarm, DataId::Secret(KEY)), [1, 4, 5, 6, 7, 8]);
    replace_key(&mut swarm, "i");
    assert_eq!(kept(&swarm, DataId::Secret(KEY)), [1, 5, 6, 7, 8, 9]);
    swarm.finish(task, TaskState::Shutdown);
    replace_key(&mut swarm, "j");
    assert_eq!(kept(&swarm, DataId::Secret(KEY)), [6, 7, 8, 9, 10]);
}

#[test]
fn versions_and_their_bytes_are_bounded() {
    let mut many = swarm();
    let mut services = Vec::new();
    let refused = (0..=MAX_DATA_VERSIONS).find_map(|number| {
        services.push(many.service(&format!("web{number}"), 1, uses_key));
        let new = NewData { roll_out: false, ..new_data(&number.to_string()) };
        let command = replacement(&many, DataId::Secret(KEY), new);
        many.try_command(command).err()
    });
    let refused = refused.expect("there is a bound").to_string();
    assert!(refused.contains("secret key has too many earlier versions in use"), "{refused}");
    assert!(refused.contains("version 1 is used by web0; update"), "{refused}");
    assert_eq!(kept(&many, DataId::Secret(KEY)).len(), MAX_DATA_VERSIONS);
    // As the message says.
    for _ in 0..2 {
        many.update(services[0], |spec| spec.task.force_update += 1);
    }
    replace_key(&mut many, "goes");

    let mut big = swarm();
    let refused = (0..MAX_DATA_VERSIONS).find_map(|number| {
        big.service(&format!("web{number}"), 1, uses_site);
        let data = format!("{number}{}", "x".repeat(MAX_CONFIG_BYTES - 2));
        let new = NewData { roll_out: false, ..new_data(&data) };
        let command = replacement(&big, DataId::Config(SITE), new);
        big.try_command(command).err()
    });
    assert!(matches!(refused, Some(Refusal::Precondition(_))), "{refused:?}");
    let older = &big.state.config(SITE).unwrap().history.older;
    assert!(older.iter().map(|older| older.data.0.len()).sum::<usize>() <= MAX_OLDER_DATA_BYTES);
}

#[test]
fn data_is_replaced_only_as_it_was_read_and_within_its_size() {
    let mut swarm = swarm();
    let again = replacement(&swarm, DataId::Secret(KEY), new_data("third"));
    replace_key(&mut swarm, "second");
    assert_eq!(words(swarm.try_command(again)), "update out of sequence");
    let big = replacement(&swarm, DataId::Secret(KEY), new_data(&"x".repeat(MAX_SECRET_BYTES + 1)));
    assert!(words(swarm.try_command(big)).contains("secret data must be larger than 0"));
    let nothing = replacement(&swarm, DataId::Config(SITE), new_data(""));
    assert!(swarm.try_command(nothing).is_err());
    let unknown = Command::ReplaceData {
        id: DataId::Config(ConfigId(9)),
        version: Version(1),
        new: Box::new(new_data("second")),
    };
    assert!(matches!(swarm.try_command(unknown), Err(Refusal::NotFound(_))));
    assert_eq!(kept(&swarm, DataId::Secret(KEY)), [1, 2]);
}
