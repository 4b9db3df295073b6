use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::gossip::{EchoVerdict, Publisher, Repair};
use crate::spec::*;

pub(in crate::gossip) fn description(hostname: &str) -> NodeDescription {
    NodeDescription {
        hostname: hostname.into(),
        platform: Platform { os: "linux".into(), architecture: "amd64".into() },
        resources: NodeResources { nano_cpus: 4_000_000_000, memory_bytes: 8 << 30, generic: Vec::new() },
        engine_version: "0.1.0".into(),
        engine_labels: Labels::new(),
        addr: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        transport_port: 2377,
        probe_port: 7946,
        feature_level: FEATURE_LEVEL,
    }
}

pub(in crate::gossip) fn report(task: TaskId) -> TaskReport {
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

fn record(node: u128, incarnation: u64, sequence: u64) -> NodeRecord {
    NodeRecord::new(
        NodeId(node),
        RecordVersion { incarnation: Incarnation(incarnation), sequence },
        description(&format!("host-{node}")),
    )
}

/// "Signs" with the owner's number, and encodes with the same codec as the shell.
fn sign(instance: u64, record: NodeRecord) -> SignedRecord {
    let signature = record.node.0.to_le_bytes().to_vec();
    let bytes = crate::state::codec::encode(&Statement { instance, record });
    SignedRecord { bytes, signature, public_key: [0; 32] }
}

fn open(signed: &SignedRecord) -> Option<(NodeId, Statement)> {
    let signer = NodeId(u128::from_le_bytes(signed.signature.clone().try_into().ok()?));
    Some((signer, crate::state::codec::decode(&signed.bytes).ok()?))
}

fn take(exchange: &mut Exchange, signed: SignedRecord, now: u64) -> Result<Option<NodeId>, RecordError> {
    exchange.handle_record(signed, &open, |_| true, MonoMs(now))
}

fn holding(nodes: std::ops::Range<u128>) -> Exchange {
    let mut exchange = Exchange::default();
    for node in nodes {
        take(&mut exchange, sign(1, record(node, 1, 1)), 0).unwrap();
    }
    exchange
}

/// One whole conversation; the number of requests it took.
fn converse(asker: &mut Exchange, answerer: &mut Exchange) -> usize {
    let mut rng = StdRng::seed_from_u64(1);
    let mut repair = Repair::default();
    let peer = NodeId(999_999);
    let mut request = repair.poll_request(asker, &[peer], MonoMs(0), &mut rng).map(|(_, request)| request);
    let mut requests = 0;
    while let Some(sent) = request {
        requests += 1;
        let answer = match sent {
            RepairRequest::Compare(digest) => answerer.answer(&digest),
            RepairRequest::Offer(records) => {
                records.into_iter().for_each(|signed| _ = take(answerer, signed, 1).unwrap());
                RepairAnswer::default()
            }
        };
        answer.records.iter().for_each(|signed| _ = take(asker, signed.clone(), 1).unwrap());
        request = repair.handle_answer(asker, peer, &answer, MonoMs(1), &mut rng);
    }
    assert!(repair.has_compared());
    requests
}

#[test]
fn a_late_joiner_gets_the_whole_table_in_one_conversation() {
    let (mut late, mut full) = (Exchange::default(), holding(0..1000));
    let requests = converse(&mut late, &mut full);
    assert_eq!(late.table().versions(), full.table().versions());
    assert!(requests <= 1000 * 1024 / MAX_RECORDS_BYTES + 2, "{requests}");
}

#[test]
fn a_conversation_repairs_both_sides() {
    let mut left = holding(0..600);
    let mut right = holding(400..1300);
    take(&mut left, sign(1, record(500, 2, 0)), 0).unwrap();
    take(&mut right, sign(1, record(550, 1, 7)), 0).unwrap();
    converse(&mut left, &mut right);
    assert_eq!(left.table().versions(), right.table().versions());
    assert_eq!(left.table().get(NodeId(500)).unwrap().record.version.incarnation, Incarnation(2));
    assert_eq!(left.table().get(NodeId(550)).unwrap().record.version.sequence, 7);
}

#[test]
fn messages_are_bounded() {
    let mut full = Exchange::default();
    for node in 0..100 {
        let images = (0..64).map(|n| format!("{n:0>200}")).collect();
        take(&mut full, sign(1, NodeRecord { images, ..record(node, 1, 1) }), 0).unwrap();
    }
    let answer = full.answer(&Exchange::default().digest(NodeId(0)));
    let bytes: usize = answer.records.iter().map(|signed| signed.bytes.len()).sum();
    assert!(bytes <= MAX_RECORDS_BYTES && answer.resume.is_some());
    let mut late = Exchange::default();
    converse(&mut late, &mut full);
    assert_eq!(late.table().iter().count(), 100);
}

#[test]
fn only_members_own_signed_records_are_taken() {
    let mut exchange = Exchange::default();
    let mut forged = sign(1, record(5, 1, 1));
    forged.bytes.truncate(3);
    assert_eq!(take(&mut exchange, forged, 0), Err(RecordError::Forged));
    let mut of_another = sign(1, record(5, 1, 1));
    of_another.signature = 6u128.to_le_bytes().to_vec();
    let refused = Err(RecordError::NotItsOwn { signer: NodeId(6), subject: NodeId(5) });
    assert_eq!(take(&mut exchange, of_another, 0), refused);
    let stranger = exchange.handle_record(sign(1, record(5, 1, 1)), &open, |_| false, MonoMs(0));
    assert_eq!(stranger, Err(RecordError::Stranger(NodeId(5))));
    assert_eq!(exchange.table().iter().count(), 0);
}

#[test]
fn an_older_record_changes_nothing() {
    let mut exchange = Exchange::default();
    assert_eq!(take(&mut exchange, sign(1, record(5, 2, 1)), 0), Ok(Some(NodeId(5))));
    assert_eq!(take(&mut exchange, sign(1, record(5, 1, 900)), 0), Ok(None));
    assert_eq!(take(&mut exchange, sign(1, record(5, 2, 1)), 0), Ok(None));
}

#[test]
fn whoever_is_no_member_any_more_is_forgotten() {
    let mut exchange = holding(0..4);
    let members: BTreeSet<NodeId> = [NodeId(0), NodeId(2)].into();
    exchange.retain_members(|node| members.contains(&node));
    assert_eq!(exchange.table().versions().into_keys().collect::<BTreeSet<_>>(), members);
    assert!(exchange.echo(NodeId(1)).is_none());
}

/// One daemon: its publisher, and what the manager's echo makes of it.
struct Daemon {
    publisher: Publisher,
    refused: bool,
}

impl Daemon {
    fn new(instance: u64, incarnation: u64, hostname: &str) -> Daemon {
        let publisher = Publisher::new(NodeId(5), instance, Incarnation(incarnation), description(hostname));
        Daemon { publisher, refused: false }
    }

    fn step(&mut self, manager: &mut Exchange, now: MonoMs) {
        if let Some(echo) = manager.echo(NodeId(5)) {
            match self.publisher.handle_echo(&echo) {
                EchoVerdict::Fine => {}
                EchoVerdict::TakeIncarnation(incarnation) => self.publisher.set_incarnation(incarnation, now),
                EchoVerdict::Refused(_) => self.refused = true,
            }
        }
        if let Some(record) = self.publisher.poll_publish(now).filter(|_| !self.refused) {
            _ = take(manager, sign(self.publisher.instance(), record), now.0);
        }
    }
}

#[test]
fn a_second_live_holder_of_a_key_is_refused_and_named() {
    for clone_incarnation in [3, 4, 5] {
        let mut manager = Exchange::default();
        let mut original = Daemon::new(10, 4, "original");
        let mut clone = Daemon::new(11, clone_incarnation, "clone");
        original.step(&mut manager, MonoMs(0));
        for second in 1..60 {
            let now = MonoMs(second * 1000);
            clone.step(&mut manager, now);
            original.step(&mut manager, now + Duration::from_millis(500));
        }
        assert!(clone.refused && !original.refused, "clone at incarnation {clone_incarnation}");
        let refused = manager.echo(NodeId(5)).unwrap().refused;
        assert_eq!((&*refused[0].hostname, &*refused[0].holder_hostname), ("clone", "original"));
    }
}

#[test]
fn a_restored_node_goes_on_under_a_higher_incarnation() {
    let mut manager = Exchange::default();
    Daemon::new(10, 9, "before").step(&mut manager, MonoMs(0));
    let mut restored = Daemon::new(11, 4, "restored");
    for second in 1..60 {
        restored.step(&mut manager, MonoMs(second * 1000));
    }
    assert!(!restored.refused);
    let held = manager.table().get(NodeId(5)).unwrap();
    assert_eq!(held.record.version.incarnation, Incarnation(10));
    assert_eq!(held.record.description.hostname, "restored");
}

#[test]
fn restarts_are_no_second_holders() {
    let mut manager = Exchange::default();
    for life in 1..20 {
        let mut daemon = Daemon::new(100 + life, life, "host");
        for tick in 0..3 {
            daemon.step(&mut manager, MonoMs(life * 10_000 + tick * 3000));
        }
        assert!(!daemon.refused);
    }
}
