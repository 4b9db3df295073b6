//! Whatever happens in whatever order: when it is over, what is wanted runs, and never more than that on the way.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Event {
    Scale(u64),
    Update(&'static str),
    Order(UpdateOrder),
    Rollback,
    Down(u128),
    Return(u128),
    Silence(u128),
    Availability(u128, Availability),
    Kill(usize),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let images = prop_oneof![Just("v1"), Just("v2"), Just("v3"), Just(CRASHES), Just(MISSING)];
    let availability = prop_oneof![Just(Availability::Active), Just(Availability::Pause), Just(Availability::Drain)];
    let order = prop_oneof![Just(UpdateOrder::StopFirst), Just(UpdateOrder::StartFirst)];
    prop_oneof![
        (0u64..6).prop_map(Event::Scale),
        images.prop_map(Event::Update),
        order.prop_map(Event::Order),
        Just(Event::Rollback),
        (1u128..=3).prop_map(Event::Down),
        (1u128..=3).prop_map(Event::Return),
        (1u128..=3).prop_map(Event::Silence),
        (1u128..=3, availability).prop_map(|(n, a)| Event::Availability(n, a)),
        any::<usize>().prop_map(Event::Kill),
        (1u64..20).prop_map(Event::Pass),
    ]
}

fn happen(sim: &mut Sim, services: &[ServiceId], event: &Event) {
    let web = services[0];
    match event {
        Event::Scale(count) => sim.swarm.update(web, replicas(*count)),
        Event::Update(image) => {
            for service in services {
                sim.swarm.update(*service, |spec| spec.task.container.image = (*image).into());
            }
        }
        Event::Order(order) => sim.swarm.update(web, |spec| {
            spec.update.order = *order;
            spec.update.failure_action = FailureAction::Rollback;
        }),
        Event::Rollback => {
            let service = sim.of(web);
            if service.previous.is_some() {
                sim.swarm.command(Command::RollbackService { id: web, version: service.meta.version });
            }
        }
        Event::Down(n) => sim.verdict(node(*n)),
        Event::Return(n) => {
            sim.silent.remove(&node(*n));
            sim.swarm.health(node(*n), NodeHealth::Up);
        }
        Event::Silence(n) => drop(sim.silent.insert(node(*n))),
        Event::Availability(n, availability) => {
            sim.swarm.update_node(node(*n), |spec| spec.availability = *availability);
        }
        Event::Kill(which) => kill(sim, web, *which),
        Event::Pass(tenths) => sim.step(Duration::from_millis(tenths * 100)),
    }
}

/// One of the running tasks fails.
fn kill(sim: &mut Sim, service: ServiceId, which: usize) {
    let running = sim.running(service);
    let Some(task) = running.get(which % running.len().max(1)) else { return };
    let holder = task.node.expect("it runs");
    let mut record = sim.table.get(holder).expect("it reports").record.as_ref().clone();
    sim.sequence += 1;
    record.version.sequence = sim.sequence;
    record.tasks.insert(task.id, a_report(task.id, TaskState::Failed, Some(SECOND)));
    sim.table.merge(Arc::new(record), sim.mono);
}

/// Nothing may start in a slot where something may still run, unless the update order is start-first.
fn check_never_too_many(sim: &Sim, services: &[ServiceId]) -> Result<(), TestCaseError> {
    for service in services {
        let mut started: BTreeMap<Slot, usize> = BTreeMap::new();
        let mut stopping: BTreeSet<Slot> = BTreeSet::new();
        for task in sim.swarm.state.tasks_of_service(*service).filter(|task| task.outcome.is_none()) {
            match task.desired {
                DesiredState::Ready => {}
                DesiredState::Running => *started.entry(task.slot).or_default() += 1,
                DesiredState::Shutdown | DesiredState::Remove => drop(stopping.insert(task.slot)),
            }
        }
        let may_run = |(slot, started): (&Slot, &usize)| started + usize::from(stopping.contains(slot));
        let most = started.iter().map(may_run).max().unwrap_or_default();
        // One that stops and two that change over, where a start-first update was overtaken by the next.
        prop_assert!(most <= if sim.starts_first { 3 } else { 1 }, "{started:?}, {stopping:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn what_is_wanted_runs_in_the_end(events in prop::collection::vec(event(), 1..30), seed in any::<u64>()) {
        let mut sim = Sim::with(Fixture::nodes(3), seed);
        let web = sim.swarm.service("web", 3, image("v1"));
        let agent = sim.swarm.global("agent", image("v1"));
        let services = [web, agent];
        let mut finals: BTreeMap<TaskId, Outcome> = BTreeMap::new();
        for event in &events {
            happen(&mut sim, &services, event);
            sim.starts_first |= sim.of(web).starts_first();
            sim.steps(2);
            check_never_too_many(&sim, &services)?;
            for task in sim.swarm.state.tasks() {
                if let Some(before) = finals.get(&task.id) {
                    prop_assert_eq!(Some(before), task.outcome.as_ref(), "an outcome is final");
                }
            }
            finals.extend(sim.swarm.state.tasks().filter_map(|task| Some((task.id, task.outcome.clone()?))));
        }
        // All is well again, and the last spec is a good one.
        for n in 1..=3 {
            happen(&mut sim, &services, &Event::Return(n));
            happen(&mut sim, &services, &Event::Availability(n, Availability::Active));
        }
        happen(&mut sim, &services, &Event::Scale(4));
        happen(&mut sim, &services, &Event::Update("good"));
        sim.steps(50);
        for _ in 0..60 {
            sim.step(SECOND * 2);
        }
        for (service, count) in [(web, 4), (agent, 3)] {
            let current = sim.of(service).spec_version;
            let running = sim.running(service);
            prop_assert_eq!(running.len(), count);
            prop_assert!(running.iter().all(|task| task.spec_version == current));
            prop_assert_eq!(sim.live(service).len(), count);
        }
        prop_assert_eq!(sim.tick(), 0);
    }
}
