use crate::spec::*;
use crate::state::fixture::*;
use crate::state::*;

fn refused(swarm: &mut Fixture, change: Change) -> String {
    let before = swarm.state.clone();
    let refusal = swarm.state.apply_change(&change, swarm.now).expect_err("it is refused");
    assert_eq!(swarm.state, before, "a refusal changes nothing");
    refusal.to_string()
}

fn placed(task: TaskId, node: NodeId) -> Change {
    Change::Assign(Box::new(Placed { task, node, host_ports: vec![], generic: vec![], attachments: vec![] }))
}

fn finish(task: TaskId, state: TaskState) -> Change {
    Change::Finish { task, outcome: outcome(state), replacement: None }
}

#[test]
fn a_failed_task_is_replaced_in_its_slot() {
    let mut swarm = Fixture::nodes(3);
    let web = swarm.service("web", 2, |_| {});
    let task = swarm.running(web, 1, node(2));
    let replacement = Box::new(swarm.new_task(web, Slot::Replica(1)));
    let new = replacement.id;
    let outcome = outcome(TaskState::Failed);
    swarm.change(Change::Finish { task, outcome, replacement: Some(replacement) });
    let old = swarm.state.task(task).unwrap();
    assert_eq!((old.desired, old.finished_at), (DesiredState::Shutdown, Some(swarm.now)));
    assert!(swarm.state.task(new).unwrap().is_live());
    assert_eq!(swarm.state.tasks_in_slot(web, Slot::Replica(1)).count(), 2);
}

#[test]
fn an_outcome_is_final() {
    let mut swarm = Fixture::nodes(1);
    let web = swarm.service("web", 1, |_| {});
    let task = swarm.running(web, 1, node(1));
    assert!(refused(&mut swarm, finish(task, TaskState::Running)).contains("no outcome"));
    assert!(refused(&mut swarm, finish(task, TaskState::Remove)).contains("no outcome"));
    swarm.finish(task, TaskState::Complete);
    assert!(refused(&mut swarm, finish(task, TaskState::Failed)).contains("ended already"));
}

#[test]
fn a_slot_has_one_live_task_or_two_when_updates_start_first() {
    let mut swarm = Fixture::nodes(1);
    let web = swarm.service("web", 1, |_| {});
    swarm.pending(web, 1);
    let second = Box::new(swarm.new_task(web, Slot::Replica(1)));
    assert!(refused(&mut swarm, Change::CreateTask(second)).contains("already has a task"));

    let start_first = swarm.service("start-first", 1, |spec| spec.update.order = UpdateOrder::StartFirst);
    swarm.pending(start_first, 1);
    swarm.pending(start_first, 1);
    let third = Box::new(swarm.new_task(start_first, Slot::Replica(1)));
    assert!(refused(&mut swarm, Change::CreateTask(third)).contains("already has a task"));
}

#[test]
fn a_new_task_fits_its_service() {
    let mut swarm = Fixture::nodes(1);
    let web = swarm.service("web", 1, |_| {});
    let everywhere = swarm.global("everywhere", |_| {});
    type Misfit = (ServiceId, Slot, fn(&mut NewTask));
    let misfits: [Misfit; 6] = [
        (web, Slot::Replica(0), |_| {}),
        (web, Slot::Node(node(1)), |_| {}),
        (everywhere, Slot::Replica(1), |_| {}),
        (everywhere, Slot::Node(node(1)), |new| new.node = None),
        (web, Slot::Replica(1), |new| new.spec_version = Version(1)),
        (web, Slot::Replica(1), |new| new.desired = DesiredState::Shutdown),
    ];
    for (service, slot, spoil) in misfits {
        let mut new = swarm.new_task(service, slot);
        spoil(&mut new);
        refused(&mut swarm, Change::CreateTask(Box::new(new)));
    }
    let mut nowhere = swarm.new_task(everywhere, Slot::Node(node(9)));
    nowhere.node = Some(node(9));
    assert!(refused(&mut swarm, Change::CreateTask(Box::new(nowhere))).contains("not found"));
}

#[test]
fn a_task_only_moves_forward() {
    let mut swarm = Fixture::nodes(1);
    let web = swarm.service("web", 1, |_| {});
    let task = swarm.running(web, 1, node(1));
    swarm.set_desired(task, DesiredState::Shutdown);
    for desired in [DesiredState::Ready, DesiredState::Running, DesiredState::Shutdown] {
        assert!(refused(&mut swarm, Change::SetDesired { task, desired }).contains("forward"));
    }
    assert!(refused(&mut swarm, Change::ForgetTask { task }).contains("not ended"));
}

#[test]
fn a_task_wanted_gone_is_forgotten_when_it_has_ended() {
    let mut swarm = Fixture::nodes(1);
    let web = swarm.service("web", 2, |_| {});
    let (running, pending) = (swarm.running(web, 1, node(1)), swarm.pending(web, 2));
    swarm.set_desired(pending, DesiredState::Remove);
    assert!(swarm.state.task(pending).is_none());
    swarm.set_desired(running, DesiredState::Remove);
    assert!(swarm.state.task(running).is_some());
    swarm.finish(running, TaskState::Shutdown);
    assert!(swarm.state.task(running).is_none());
}

#[test]
fn a_task_is_placed_once_on_a_node_that_takes_tasks() {
    let mut swarm = Fixture::nodes(4);
    let web = swarm.service("web", 2, |_| {});
    let task = swarm.pending(web, 1);
    swarm.change(Change::SetPendingReason { task, reason: "4 nodes: busy".into() });
    swarm.health(node(2), NodeHealth::Down { incarnation: Incarnation(1), since: UnixMs(1) });
    swarm.update_node(node(3), |spec| spec.availability = Availability::Pause);
    for unfit in [node(2), node(3)] {
        assert!(refused(&mut swarm, placed(task, unfit)).contains("takes no tasks"));
    }
    assert!(refused(&mut swarm, placed(task, node(9))).contains("not found"));
    swarm.change(placed(task, node(4)));
    let assigned = swarm.state.task(task).unwrap();
    assert_eq!((assigned.node, assigned.assigned_at), (Some(node(4)), Some(swarm.now)));
    assert_eq!(assigned.pending_reason, "");
    refused(&mut swarm, placed(task, node(1)));
    refused(&mut swarm, Change::SetPendingReason { task, reason: "late".into() });
}

#[test]
fn a_global_task_goes_to_its_own_node_only() {
    let mut swarm = Fixture::nodes(2);
    let everywhere = swarm.global("everywhere", |_| {});
    let new = swarm.new_task(everywhere, Slot::Node(node(2)));
    let task = swarm.create(new);
    refused(&mut swarm, placed(task, node(1)));
    swarm.change(placed(task, node(2)));
}

#[test]
fn a_host_port_is_given_once_on_a_node() {
    let mut swarm = Fixture::nodes(2);
    let web = swarm.service("web", 3, |spec| spec.endpoint.ports = vec![host_port(8080, 80)]);
    let first = swarm.running(web, 1, node(1));
    let second = swarm.pending(web, 2);
    let to = |node| {
        let host_ports = vec![host_port(8080, 80)];
        Change::Assign(Box::new(Placed { task: second, node, host_ports, generic: vec![], attachments: vec![] }))
    };
    assert!(refused(&mut swarm, to(node(1))).contains("port 8080"));
    // Told to stop, it may still hold the port; only its end frees it.
    swarm.set_desired(first, DesiredState::Shutdown);
    refused(&mut swarm, to(node(1)));
    swarm.finish(first, TaskState::Shutdown);
    swarm.change(to(node(1)));
}

#[test]
fn a_named_resource_is_given_once_on_a_node() {
    let mut swarm = Fixture::nodes(1);
    let web = swarm.service("web", 2, |_| {});
    let gpu = || vec![GenericResource::Named { kind: "gpu".into(), value: "card0".into() }];
    let (first, second) = (swarm.pending(web, 1), swarm.pending(web, 2));
    let give = |task| {
        let node = node(1);
        Change::Assign(Box::new(Placed { task, node, host_ports: vec![], generic: gpu(), attachments: vec![] }))
    };
    swarm.change(give(first));
    assert!(refused(&mut swarm, give(second)).contains("card0"));
}

#[test]
fn a_named_local_volume_holds_its_slot_to_its_first_node() {
    let mut swarm = Fixture::nodes(2);
    let db = swarm.service("db", 2, |spec| spec.task.container.mounts = vec![local_volume("data")]);
    let task = swarm.running(db, 1, node(1));
    assert_eq!(swarm.state.volume_home(db, Slot::Replica(1), "data"), Some(node(1)));
    assert_eq!(swarm.state.volume_home(db, Slot::Replica(2), "data"), None);
    swarm.finish(task, TaskState::Failed);
    let next = swarm.pending(db, 1);
    assert!(refused(&mut swarm, placed(next, node(2))).contains("volume data"));
    swarm.change(placed(next, node(1)));

    swarm.finish(next, TaskState::Failed);
    swarm.update(db, |spec| spec.task.volume_policy = VolumePolicy::StartEmpty);
    swarm.running(db, 1, node(2));
    assert_eq!(swarm.state.volume_home(db, Slot::Replica(1), "data"), Some(node(2)));
    swarm.command(Command::RemoveService { id: db });
    assert_eq!(swarm.state.volume_home(db, Slot::Replica(1), "data"), None);
}

#[test]
fn a_refused_replacement_leaves_the_task_unfinished() {
    let mut swarm = Fixture::nodes(1);
    let web = swarm.service("web", 2, |_| {});
    let task = swarm.running(web, 1, node(1));
    let elsewhere = Box::new(swarm.new_task(web, Slot::Replica(2)));
    let outcome = outcome(TaskState::Failed);
    let change = Change::Finish { task, outcome, replacement: Some(elsewhere) };
    assert!(refused(&mut swarm, change).contains("slot"));
}

#[test]
fn the_restart_history_is_bounded() {
    let mut swarm = Fixture::nodes(1);
    let web = swarm.service("web", 1, |_| {});
    let mut new = swarm.new_task(web, Slot::Replica(1));
    new.restarts = (0..100).map(UnixMs).collect();
    let task = swarm.create(new);
    let kept = &swarm.state.task(task).unwrap().restarts;
    assert_eq!((kept.len(), kept.last()), (MAX_RESTART_HISTORY, Some(&UnixMs(99))));
}

#[test]
fn a_jobs_tasks_belong_to_its_iteration() {
    let mut swarm = Fixture::nodes(1);
    let job = swarm.service("job", 0, |spec| {
        spec.mode = ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 2 };
    });
    let stale = Box::new(swarm.new_task(job, Slot::Replica(0)));
    swarm.update(job, |spec| spec.task.force_update = 1);
    assert!(refused(&mut swarm, Change::CreateTask(stale)).contains("iteration"));
    let beyond = Box::new(swarm.new_task(job, Slot::Replica(2)));
    assert!(refused(&mut swarm, Change::CreateTask(beyond)).contains("no slot 2"));
}

#[test]
fn what_a_job_has_completed_does_not_run_again() {
    let mut swarm = Fixture::nodes(1);
    let job = swarm.service("job", 0, |spec| {
        spec.mode = ServiceMode::ReplicatedJob { max_concurrent: 2, total_completions: 2 };
    });
    let tasks = [0, 1].map(|slot| swarm.running(job, slot, node(1)));
    swarm.finish(tasks[0], TaskState::Complete);
    let again = Box::new(swarm.new_task(job, Slot::Replica(0)));
    assert!(refused(&mut swarm, Change::CreateTask(again)).contains("has been completed"));
    // Nor can the record of it be lost before the job runs anew.
    let forget = Change::ForgetTask { task: tasks[0] };
    assert!(refused(&mut swarm, forget.clone()).contains("still counts it"));
    swarm.set_desired(tasks[1], DesiredState::Remove);
    swarm.finish(tasks[1], TaskState::Complete);
    assert!(swarm.state.task(tasks[1]).is_some());
    swarm.update(job, |spec| spec.task.force_update = 1);
    swarm.change(forget);
}

#[test]
fn tasks_are_listed_by_slot_and_by_node() {
    let mut swarm = Fixture::nodes(2);
    let web = swarm.service("web", 3, |_| {});
    let other = swarm.service("other", 1, |_| {});
    let third = swarm.running(web, 3, node(2));
    let first = swarm.running(web, 1, node(1));
    let apart = swarm.running(other, 1, node(2));
    let ids = |tasks: &mut dyn Iterator<Item = &std::sync::Arc<Task>>| tasks.map(|task| task.id).collect::<Vec<_>>();
    assert_eq!(ids(&mut swarm.state.tasks_of_service(web)), [first, third]);
    assert_eq!(ids(&mut swarm.state.tasks_of_node(node(2))), [third, apart]);
    assert_eq!(ids(&mut swarm.state.tasks_in_slot(web, Slot::Replica(3))), [third]);
}
