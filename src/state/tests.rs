//! The state's behaviour, command by command, and what holds for any sequence of them.

use super::fixture::*;
use super::*;
use crate::spec::*;

#[test]
fn a_failed_task_is_replaced_in_its_slot() {
    let mut swarm = Fixture::nodes(3);
    let web = swarm.service("web", 2, |_| {});
    let task = swarm.running(web, 1, node(2));
    let replacement = swarm.new_task(web, Slot::Replica(1));
    let new = replacement.id;
    let before = swarm.now;
    swarm.change(Change::Finish {
        task,
        outcome: outcome(TaskState::Failed),
        replacement: Some(Box::new(replacement)),
    });
    let old = swarm.state.task(task).unwrap();
    assert_eq!((old.desired, old.finished_at), (DesiredState::Shutdown, Some(before)));
    assert!(swarm.state.task(new).unwrap().is_live());
    assert_eq!(swarm.state.tasks_in_slot(web, Slot::Replica(1)).count(), 2);
}
