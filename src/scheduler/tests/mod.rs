//! The scheduler on a swarm of records.

mod demands;
mod placing;
mod properties;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use super::*;
use crate::gossip::{Load, NodeRecord, RecordVersion};
use crate::spec::*;
use crate::state::fixture::{Fixture, LowestFree, attach_to, host_port, local_volume, node, outcome};
use crate::state::{Change, NodeHealth};

const GIB: u64 = 1 << 30;
const CPU: u64 = 1_000_000_000;

/// A swarm whose nodes all have an idle record.
struct Swarm {
    fixture: Fixture,
    table: Table,
    seed: u64,
}

impl Swarm {
    fn of(nodes: u128) -> Swarm {
        let mut swarm = Swarm { fixture: Fixture::nodes(nodes), table: Table::default(), seed: 1 };
        (1..=nodes).for_each(|number| swarm.record(number, |_| {}));
        swarm
    }

    fn record(&mut self, number: u128, adjust: impl FnOnce(&mut NodeRecord)) {
        let id = node(number);
        let before = self.table.get(id).map(|held| held.record.as_ref().clone());
        let description = self.fixture.state.node(id).expect("the node exists").description.clone();
        let mut record = before.unwrap_or_else(|| {
            NodeRecord::new(id, RecordVersion { incarnation: Incarnation(1), sequence: 0 }, description)
        });
        record.version.sequence += 1;
        adjust(&mut record);
        assert!(self.table.merge(Arc::new(record), MonoMs(0)));
    }

    fn load(&mut self, number: u128, load: Load) {
        self.record(number, |record| record.load = load);
    }

    fn describe(&mut self, number: u128, adjust: impl FnOnce(&mut NodeDescription)) {
        let mut description = self.fixture.state.node(node(number)).expect("the node exists").description.clone();
        adjust(&mut description);
        self.fixture.change(Change::DescribeNode { node: node(number), description: Box::new(description) });
    }

    fn label(&mut self, number: u128, name: &str, value: &str) {
        self.fixture.update_node(node(number), |spec| drop(spec.labels.insert(name.into(), value.into())));
    }

    fn service(&mut self, name: &str, replicas: u64, adjust: impl FnOnce(&mut TaskSpec)) -> ServiceId {
        let service = self.fixture.service(name, replicas, |spec| {
            adjust(&mut spec.task);
            // Where the log's host ports come from.
            spec.endpoint.ports = spec.task.host_ports.clone();
        });
        for slot in 1..=replicas {
            self.fixture.pending(service, slot);
        }
        service
    }

    fn now(&self) -> Now {
        Now { mono: MonoMs(0), unix: self.fixture.now }
    }

    /// One tick, applied; how many steps it had.
    fn tick(&mut self) -> usize {
        self.seed += 1;
        let mut draft = self.fixture.draft();
        plan(&mut draft, &self.table, self.now(), &mut ChaCha8Rng::seed_from_u64(self.seed), &mut LowestFree);
        let steps = draft.into_steps();
        let count = steps.len();
        if count > 0 {
            assert_eq!(self.fixture.plan(steps).1, 0, "the log refuses nothing of a plan made on its own state");
        }
        count
    }

    /// Tasks of the service on each node, in order of the nodes.
    fn spread(&self, service: ServiceId) -> Vec<usize> {
        let on =
            |id| self.fixture.state.tasks_of_service(service).filter(|t| t.is_live() && t.node == Some(id)).count();
        self.fixture.state.nodes().map(|node| on(node.id)).collect()
    }

    fn reasons(&self, service: ServiceId) -> Vec<String> {
        let waiting = self.fixture.state.tasks_of_service(service).filter(|task| task.assigned_at.is_none());
        waiting.map(|task| task.pending_reason.clone()).collect()
    }
}

fn busy() -> Load {
    Load { used_nano_cpus: 4 * CPU, cpu_pressure: 60.0, ..Load::default() }
}

fn runs(task: TaskId) -> TaskReport {
    TaskReport {
        task,
        state: TaskState::Running,
        message: String::new(),
        container_id: None,
        pid: None,
        exit_code: None,
        ran_for: None,
        health: Health::None,
        restarts_in_place: 0,
        host_ports: Vec::new(),
    }
}

fn gpu(value: u64) -> GenericResource {
    GenericResource::Discrete { kind: "gpu".into(), value }
}
