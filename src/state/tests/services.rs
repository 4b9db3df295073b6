use super::words;
use crate::spec::*;
use crate::state::fixture::*;
use crate::state::*;

fn update_command(swarm: &Fixture, id: ServiceId, adjust: impl FnOnce(&mut ServiceSpec)) -> Command {
    let service = swarm.state.service(id).unwrap();
    let mut spec = service.spec.clone();
    adjust(&mut spec);
    let (version, credentials) = (service.meta.version, CredentialsUpdate::Keep);
    Command::UpdateService { id, version, spec: Box::new(spec), credentials }
}

fn create_command(number: u128, spec: ServiceSpec) -> Command {
    Command::CreateService { id: ServiceId(number), spec: Box::new(spec), credentials: None }
}

#[test]
fn a_name_is_taken_once_and_free_again_after_removal() {
    let mut swarm = Fixture::nodes(1);
    let web = swarm.service("web", 1, |_| {});
    let again = || create_command(5, service_spec("web", 1));
    let refused = swarm.try_command(again());
    assert!(matches!(refused, Err(Refusal::AlreadyExists(_))));
    assert_eq!(words(refused), "name conflicts with an existing object: service web already exists");
    let mut wrong = service_spec("web", 1);
    wrong.task.container.dns.search = vec!["a b".into()];
    let refused = words(swarm.try_command(create_command(5, wrong)));
    assert_eq!(refused, "DNS search domain \"a b\" is no domain", "the spec itself is looked at first");
    swarm.command(Command::RemoveService { id: web });
    swarm.command(again());
}

#[test]
fn only_another_task_spec_makes_a_new_spec_version() {
    let mut swarm = Fixture::nodes(1);
    let web = swarm.service("web", 1, |_| {});
    let first = swarm.state.service(web).unwrap().spec_version;
    swarm.update(web, |spec| spec.mode = ServiceMode::Replicated { replicas: 7 });
    swarm.update(web, |spec| spec.update.parallelism = 3);
    assert_eq!(swarm.state.service(web).unwrap().spec_version, first);
    swarm.update(web, |spec| spec.task.force_update += 1);
    let second = swarm.state.service(web).unwrap().spec_version;
    assert!(second > first);
    assert_eq!(swarm.state.task_spec(web, second).unwrap().force_update, 1);
}

#[test]
fn an_update_clears_the_status_of_the_one_before() {
    let mut swarm = Fixture::nodes(1);
    let web = swarm.service("web", 1, |_| {});
    let status = UpdateStatus {
        state: UpdateState::Completed,
        since: Version(0),
        started_at: UnixMs(1),
        completed_at: Some(UnixMs(2)),
        message: "update completed".into(),
    };
    swarm.change(Change::SetUpdateStatus { service: web, status: Some(status) });
    swarm.update(web, |_| {});
    assert_eq!(swarm.state.service(web).unwrap().update, None);
}

#[test]
fn an_update_that_changes_nothing_keeps_the_way_back() {
    let mut swarm = Fixture::nodes(1);
    let web = swarm.service("web", 1, |_| {});
    swarm.update(web, |spec| spec.task.force_update = 1);
    swarm.update(web, |_| {});
    let service = swarm.state.service(web).unwrap();
    assert_eq!(service.previous.as_ref().unwrap().spec.task.force_update, 0);
}

#[test]
fn a_rollback_and_its_undoing_bring_back_the_same_tasks() {
    let mut swarm = Fixture::nodes(1);
    let web = swarm.service("web", 1, |_| {});
    let first = swarm.state.service(web).unwrap().spec_version;
    swarm.update(web, |spec| spec.task.force_update = 1);
    let second = swarm.state.service(web).unwrap().spec_version;
    for expected in [first, second] {
        let version = swarm.state.service(web).unwrap().meta.version;
        swarm.command(Command::RollbackService { id: web, version });
        let service = swarm.state.service(web).unwrap();
        assert_eq!(service.spec_version, expected);
        assert_eq!(service.update.as_ref().unwrap().state, UpdateState::RollbackStarted);
        assert!(swarm.state.task_spec(web, expected).is_some());
    }
}

#[test]
fn there_is_nothing_to_roll_back_to_at_first_nor_after_a_failed_update() {
    let mut swarm = Fixture::nodes(1);
    let web = swarm.service("web", 1, |_| {});
    let rollback =
        |swarm: &Fixture| Command::RollbackService { id: web, version: swarm.state.service(web).unwrap().meta.version };
    let refused = words(swarm.try_command(rollback(&swarm)));
    assert_eq!(refused, "service web does not have a previous spec");

    let first = swarm.state.service(web).unwrap().spec_version;
    swarm.update(web, |spec| spec.task.force_update = 1);
    let failed = swarm.state.service(web).unwrap().spec_version;
    swarm.change(Change::AutoRollback { service: web, message: "update rolled back".into() });
    let service = swarm.state.service(web).unwrap();
    assert_eq!((service.spec_version, &service.previous), (first, &None));
    assert!(swarm.state.task_spec(web, failed).is_none());
    assert!(swarm.try_command(rollback(&swarm)).is_err());
}

#[test]
fn a_service_keeps_its_name_and_its_mode() {
    let mut swarm = Fixture::nodes(1);
    let web = swarm.service("web", 1, |_| {});
    let renamed = update_command(&swarm, web, |spec| spec.name = "other".into());
    assert_eq!(words(swarm.try_command(renamed)), "renaming services is not supported");
    let global = update_command(&swarm, web, |spec| spec.mode = ServiceMode::Global);
    assert_eq!(words(swarm.try_command(global)), "service mode change is not allowed");
}

#[test]
fn two_writers_of_one_version_do_not_overwrite_each_other() {
    let mut swarm = Fixture::nodes(1);
    let web = swarm.service("web", 1, |_| {});
    let mine = update_command(&swarm, web, |spec| spec.task.force_update = 1);
    let theirs = update_command(&swarm, web, |spec| spec.task.force_update = 2);
    swarm.command(mine);
    assert_eq!(words(swarm.try_command(theirs)), "update out of sequence");
    assert_eq!(swarm.state.service(web).unwrap().spec.task.force_update, 1);
}

#[test]
fn a_task_spec_is_kept_while_a_task_or_a_rollback_may_need_it() {
    let mut swarm = Fixture::nodes(1);
    let web = swarm.service("web", 1, |_| {});
    let first = swarm.state.service(web).unwrap().spec_version;
    let task = swarm.running(web, 1, node(1));
    for generation in 1..=3 {
        swarm.update(web, |spec| spec.task.force_update = generation);
    }
    assert!(swarm.state.task_spec(web, first).is_some());
    swarm.finish(task, TaskState::Shutdown);
    swarm.change(Change::ForgetTask { task });
    assert!(swarm.state.task_spec(web, first).is_none());
    let service = swarm.state.service(web).unwrap();
    let previous = service.previous.as_ref().unwrap().spec_version;
    assert!(swarm.state.task_spec(web, previous).is_some());
    assert!(swarm.state.task_spec(web, service.spec_version).is_some());
}

#[test]
fn removing_a_service_wants_its_tasks_gone() {
    let mut swarm = Fixture::nodes(1);
    let web = swarm.service("web", 3, |_| {});
    let running = swarm.running(web, 1, node(1));
    let pending = swarm.pending(web, 2);
    let ended = swarm.running(web, 3, node(1));
    swarm.finish(ended, TaskState::Failed);
    let spec_version = swarm.state.service(web).unwrap().spec_version;
    swarm.command(Command::RemoveService { id: web });
    assert_eq!(swarm.state.task(running).unwrap().desired, DesiredState::Remove);
    assert!(swarm.state.task_spec(web, spec_version).is_some());
    assert!(swarm.state.task(pending).is_none() && swarm.state.task(ended).is_none());

    swarm.finish(running, TaskState::Shutdown);
    assert_eq!(swarm.state.tasks().count(), 0);
    assert!(swarm.state.task_spec(web, spec_version).is_none());
}

#[test]
fn an_ingress_port_belongs_to_one_service() {
    let mut swarm = Fixture::nodes(1);
    let port = |mode| PortConfig { name: None, protocol: Protocol::Tcp, target: 80, published: 8080, mode };
    let with = |name: &str, mode| {
        let mut spec = service_spec(name, 1);
        spec.endpoint.ports = vec![port(mode)];
        spec
    };
    swarm.command(create_command(1, with("a", PublishMode::Host)));
    swarm.command(create_command(2, with("b", PublishMode::Host)));
    let refused = words(swarm.try_command(create_command(3, with("c", PublishMode::Ingress))));
    assert!(refused.contains("port '8080' is already in use by service 'a'"), "{refused}");
    let ports = vec![port(PublishMode::Ingress)];
    let taken = Change::SetServicePorts { service: ServiceId(1), ports };
    assert!(swarm.state.apply_change(&taken, UnixMs(1)).is_err());
}

#[test]
fn ports_of_host_mode_are_part_of_the_task() {
    let mut swarm = Fixture::nodes(1);
    let web = swarm.service("web", 1, |spec| spec.endpoint.ports = vec![host_port(8080, 80)]);
    let service = swarm.state.service(web).unwrap();
    let version = service.spec_version;
    assert_eq!(service.spec.task.host_ports, [host_port(8080, 80)]);
    swarm.update(web, |spec| spec.endpoint.ports = vec![host_port(8081, 80)]);
    assert!(swarm.state.service(web).unwrap().spec_version > version);
}

#[test]
fn a_port_that_the_swarm_chose_stays_through_updates() {
    let mut swarm = Fixture::nodes(1);
    let free = PortConfig { published: 0, mode: PublishMode::Ingress, ..host_port(0, 80) };
    let web = swarm.service("web", 1, |spec| spec.endpoint.ports = vec![free.clone()]);
    let chosen = PortConfig { published: 30000, ..free };
    swarm.change(Change::SetServicePorts { service: web, ports: vec![chosen.clone()] });
    swarm.update(web, |spec| spec.task.force_update = 1);
    assert_eq!(swarm.state.service(web).unwrap().ports, [chosen]);
}

#[test]
fn a_job_runs_again_when_it_has_something_new_to_run() {
    let mut swarm = Fixture::nodes(1);
    let job = swarm.service("job", 0, |spec| {
        spec.mode = ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 2 };
    });
    let status = |swarm: &Fixture| swarm.state.service(job).unwrap().job.unwrap();
    let task = swarm.running(job, 0, node(1));
    swarm.finish(task, TaskState::Complete);
    assert_eq!((status(&swarm).iteration, status(&swarm).completed), (0, 1));

    swarm.update(job, |spec| drop(spec.labels.insert("a".into(), "b".into())));
    assert_eq!((status(&swarm).iteration, status(&swarm).completed), (0, 1));
    let late = swarm.running(job, 1, node(1));
    swarm.update(job, |spec| spec.task.force_update = 1);
    swarm.finish(late, TaskState::Complete);
    assert_eq!((status(&swarm).iteration, status(&swarm).completed), (1, 0));
}

#[test]
fn a_job_that_is_rolled_back_runs_what_it_was_before() {
    let mut swarm = Fixture::nodes(1);
    let job = swarm.service("job", 0, |spec| {
        spec.mode = ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 1 };
    });
    swarm.update(job, |spec| spec.task.force_update = 1);
    let task = swarm.running(job, 0, node(1));
    swarm.finish(task, TaskState::Complete);
    let version = swarm.state.service(job).unwrap().meta.version;
    swarm.command(Command::RollbackService { id: job, version });
    let service = swarm.state.service(job).unwrap();
    let status = service.job.unwrap();
    assert_eq!((status.iteration, status.completed), (2, 0), "what the newer spec completed is not its work");
    assert_eq!(service.update, None, "nothing is rolled out that could end");
}

#[test]
fn credentials_come_and_go_with_their_service() {
    let mut swarm = Fixture::nodes(1);
    let (id, spec) = (ServiceId(1), Box::new(service_spec("web", 1)));
    swarm.command(Command::CreateService { id, spec, credentials: Some(SecretBytes(vec![1])) });
    assert_eq!(swarm.state.credentials(id).unwrap().auth, SecretBytes(vec![1]));
    swarm.update(id, |_| {});
    assert!(swarm.state.credentials(id).is_some());
    let Command::UpdateService { version, spec, .. } = update_command(&swarm, id, |_| {}) else { unreachable!() };
    let credentials = CredentialsUpdate::Replace(SecretBytes(vec![2]));
    swarm.command(Command::UpdateService { id, version, spec, credentials });
    assert_eq!(swarm.state.credentials(id).unwrap().auth, SecretBytes(vec![2]));
    swarm.command(Command::RemoveService { id });
    assert!(swarm.state.credentials(id).is_none());
}

#[test]
fn scaling_by_the_swarm_leaves_the_way_back() {
    let mut swarm = Fixture::nodes(1);
    let web = swarm.service("web", 1, |_| {});
    swarm.change(Change::ScaleService { service: web, replicas: 9 });
    let service = swarm.state.service(web).unwrap();
    assert_eq!((service.spec.mode, &service.previous), (ServiceMode::Replicated { replicas: 9 }, &None));
    let everywhere = swarm.global("everywhere", |_| {});
    let scale = Change::ScaleService { service: everywhere, replicas: 1 };
    assert!(swarm.state.apply_change(&scale, UnixMs(1)).is_err());
}

#[test]
fn what_is_invalid_does_not_get_into_the_log() {
    let mut swarm = Fixture::nodes(1);
    let mut spec = service_spec("web", 1);
    spec.task.container.image = "NO IMAGE".into();
    assert!(matches!(swarm.try_command(create_command(1, spec)), Err(Refusal::Invalid(_))));
    let web = swarm.service("web", 1, |_| {});
    let bad = update_command(&swarm, web, |spec| spec.task.placement.constraints = vec!["zone".into()]);
    assert!(matches!(swarm.try_command(bad), Err(Refusal::Invalid(_))));
}

#[test]
fn what_a_leader_did_for_an_update_that_stands_otherwise_by_now_is_void() {
    let mut swarm = Fixture::nodes(1);
    let (web, other) = (swarm.service("web", 1, |_| {}), swarm.service("other", 1, |_| {}));
    let (task, beside) = (swarm.pending(web, 1), swarm.pending(other, 1));
    let begins = |message: &str| {
        let status = UpdateStatus {
            state: UpdateState::Updating,
            since: Version(0),
            started_at: UnixMs(0),
            completed_at: None,
            message: message.into(),
        };
        Change::SetUpdateStatus { service: web, status: Some(status) }
    };
    let removed = |task| Change::SetDesired { task, desired: DesiredState::Remove };
    let mut draft = swarm.draft();
    for change in [begins("of this leader"), removed(task), removed(beside)] {
        draft.change(&[], change).unwrap();
    }
    // Its predecessor's last entry, which it did not know.
    swarm.change(begins("of another leader"));
    assert_eq!(swarm.plan(draft.into_steps()), (1, 2));
    assert_eq!(swarm.state.service(web).unwrap().update.as_ref().unwrap().message, "of another leader");
    assert_eq!(swarm.state.task(task).unwrap().desired, DesiredState::Running);
}
