//! Transactions, plans, drafts, and retries.

use super::words;
use crate::spec::*;
use crate::state::fixture::*;
use crate::state::*;

fn create(number: u128, name: &str) -> Command {
    Command::CreateService { id: ServiceId(number), spec: Box::new(service_spec(name, 1)), credentials: None }
}

fn entry(client: u128, sequence: u64, answered_below: u64, command: Command) -> Entry {
    Entry { proposal: Proposal { client: ClientId(client), sequence, answered_below }, at: UnixMs(5), command }
}

fn apply(swarm: &mut Fixture, entry: &Entry) -> Applied {
    swarm.state.apply(swarm.state.applied() + 1, entry).unwrap()
}

#[test]
fn a_transaction_is_all_or_nothing() {
    let mut swarm = Fixture::nodes(1);
    let failing = Command::Transaction(vec![create(1, "a"), create(2, "b"), create(3, "a")]);
    assert!(words(swarm.try_command(failing)).contains("service a already exists"));
    assert_eq!(swarm.state.services().count(), 0);
    let whole = Command::Transaction(vec![create(1, "a"), create(2, "b")]);
    assert_eq!(swarm.try_command(whole), Ok(Reply::Plan { applied: 2, refused: 0 }));
    assert_eq!(swarm.state.services().count(), 2);
}

#[test]
fn transactions_do_not_nest() {
    let mut swarm = Fixture::nodes(1);
    let nested = Command::Transaction(vec![create(1, "a"), Command::Transaction(vec![])]);
    assert!(words(swarm.try_command(nested)).contains("single commands"));
    assert_eq!(swarm.state.services().count(), 0);
}

#[test]
fn a_step_holds_only_while_what_it_read_is_unchanged() {
    let mut swarm = Fixture::nodes(2);
    let web = swarm.service("web", 2, |_| {});
    let tasks = [swarm.new_task(web, Slot::Replica(1)), swarm.new_task(web, Slot::Replica(2))];
    let mut draft = swarm.draft();
    draft.change(&[ObjectId::Node(node(1))], Change::CreateTask(Box::new(tasks[0].clone()))).unwrap();
    draft.change(&[ObjectId::Node(node(2))], Change::CreateTask(Box::new(tasks[1].clone()))).unwrap();
    swarm.health(node(2), NodeHealth::Left { since: UnixMs(1) });
    assert_eq!(swarm.plan(draft.into_steps()), (1, 1));
    assert!(swarm.state.task(tasks[0].id).is_some() && swarm.state.task(tasks[1].id).is_none());
}

#[test]
fn steps_of_one_plan_do_not_invalidate_one_another() {
    let mut swarm = Fixture::nodes(1);
    let web = swarm.service("web", 1, |_| {});
    let new = swarm.new_task(web, Slot::Replica(1));
    let task = new.id;
    let status = UpdateStatus {
        state: UpdateState::Updating,
        since: Version(0),
        started_at: UnixMs(1),
        completed_at: None,
        message: String::new(),
    };
    let mut draft = swarm.draft();
    draft.change(&[], Change::SetUpdateStatus { service: web, status: Some(status) }).unwrap();
    draft.change(&[], Change::CreateTask(Box::new(new))).unwrap();
    let placed = Placed { task, node: node(1), host_ports: vec![], generic: vec![], attachments: vec![] };
    draft.change(&[], Change::Assign(Box::new(placed))).unwrap();
    let drafted = draft.state().task(task).unwrap().node;
    assert_eq!(swarm.plan(draft.into_steps()), (3, 0));
    assert_eq!(swarm.state.task(task).unwrap().node, drafted);
}

#[test]
fn steps_split_over_two_entries_still_hold() {
    let mut swarm = Fixture::nodes(1);
    let web = swarm.service("web", 1, |_| {});
    let task = swarm.running(web, 1, node(1));
    let mut draft = swarm.draft();
    draft.change(&[], Change::SetDesired { task, desired: DesiredState::Shutdown }).unwrap();
    draft.change(&[], Change::Finish { task, outcome: outcome(TaskState::Shutdown), replacement: None }).unwrap();
    for step in draft.into_steps() {
        assert_eq!(swarm.plan(vec![step]), (1, 0));
    }
}

#[test]
fn a_plan_counts_what_it_could_not_do() {
    let mut swarm = Fixture::nodes(1);
    let gone = Step { reads: vec![], change: Change::ForgetTask { task: TaskId(99) } };
    let unread = Step { reads: vec![(ObjectId::Task(TaskId(99)), Version(1))], ..gone.clone() };
    assert_eq!(swarm.plan(vec![gone, unread]), (0, 2));
}

#[test]
fn a_retry_is_applied_once_and_answered_alike() {
    let mut swarm = Fixture::nodes(1);
    let first = entry(2, 1, 0, create(1, "web"));
    let conflict = entry(2, 2, 0, create(2, "web"));
    assert_eq!(apply(&mut swarm, &first), Ok(Reply::Done));
    let refused = apply(&mut swarm, &conflict);
    swarm.command(Command::RemoveService { id: ServiceId(1) });
    assert_eq!(apply(&mut swarm, &first), Ok(Reply::Done));
    assert_eq!(apply(&mut swarm, &conflict), refused);
    assert_eq!(swarm.state.services().count(), 0);
}

#[test]
fn proposals_of_one_client_may_be_applied_in_any_order() {
    let mut swarm = Fixture::nodes(1);
    assert_eq!(apply(&mut swarm, &entry(2, 7, 5, create(7, "g"))), Ok(Reply::Done));
    assert_eq!(apply(&mut swarm, &entry(2, 5, 5, create(5, "e"))), Ok(Reply::Done));
    assert_eq!(swarm.state.services().count(), 2);
}

#[test]
fn a_copy_that_comes_after_its_answer_was_received_is_not_applied() {
    let mut swarm = Fixture::nodes(1);
    let first = entry(2, 1, 0, create(1, "web"));
    apply(&mut swarm, &first).unwrap();
    apply(&mut swarm, &entry(2, 2, 2, Command::RemoveService { id: ServiceId(1) })).unwrap();
    assert_eq!(apply(&mut swarm, &first), Err(Refusal::AnswerForgotten));
    assert_eq!(swarm.state.services().count(), 0);
}

#[test]
fn answers_kept_are_bounded_for_each_client_and_in_all() {
    let mut swarm = Fixture::nodes(1);
    let removal = || Command::RemoveService { id: ServiceId(1) };
    let last = MAX_ANSWERS as u64 + 1;
    for sequence in 1..=last {
        let _ = apply(&mut swarm, &entry(2, sequence, 0, removal()));
    }
    assert_eq!(apply(&mut swarm, &entry(2, 1, 0, removal())), Err(Refusal::AnswerForgotten));
    assert!(matches!(apply(&mut swarm, &entry(2, 2, 0, removal())), Err(Refusal::NotFound(_))));

    // The client that proposed longest ago is forgotten first: its old proposal counts as a new one.
    apply(&mut swarm, &entry(3, 1, 0, create(1, "web"))).unwrap();
    for client in 0..MAX_SESSIONS as u128 {
        let _ = apply(&mut swarm, &entry(100 + client, 1, 0, Command::Noop));
    }
    assert!(matches!(apply(&mut swarm, &entry(3, 1, 0, create(1, "web"))), Err(Refusal::AlreadyExists(_))));
}

#[test]
fn an_entry_of_another_format_is_named() {
    let bytes = entry(1, 1, 0, Command::Noop).to_bytes();
    assert_eq!(Entry::from_bytes(&bytes).unwrap(), entry(1, 1, 0, Command::Noop));
    let mut newer = bytes.clone();
    newer[0] = 2;
    assert!(Entry::from_bytes(&newer).unwrap_err().to_string().contains("upgrade flok"));
    assert!(matches!(Entry::from_bytes(&bytes[..bytes.len() - 1]), Err(EntryError::Malformed(_))));
    assert!(matches!(Entry::from_bytes(&[]), Err(EntryError::Empty)));
}
