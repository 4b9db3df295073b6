//! What those can do who are no members, and those who were.

use futures::StreamExt;
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use tokio::sync::oneshot;

use super::super::protocol::Topic;
use super::super::streams::{self, Admits, OpenError};
use super::super::swarm::{build_swarm, multiaddr};
use super::*;

/// Offers and takes everything.
struct Everything;

impl Admits for Everything {
    fn offered(&self, _: &libp2p::PeerId) -> Vec<Topic> {
        Protocol::ALL.into_iter().map(Topic::Of).chain([Topic::Link]).collect()
    }

    fn is_member(&self, _: &libp2p::PeerId) -> bool {
        true
    }
}

/// A libp2p node of the stranger's own making.
#[derive(NetworkBehaviour)]
struct Stranger {
    streams: streams::Behaviour,
    gossip: gossipsub::Behaviour,
}

#[tokio::test]
async fn a_stranger_is_offered_joining_and_nothing_else() {
    let node = Node::start(1, Role::Manager).await;
    acquaint(1, &[&node]);
    let behaviour = Stranger { streams: streams::Behaviour::new(Arc::new(Everything)), gossip: gossip(9) };
    let mut swarm = build_swarm(&identity(9), behaviour);
    swarm.dial(DialOpts::unknown_peer_id().address(multiaddr(node.transport.local_addr())).build()).unwrap();
    let mut answers = Vec::new();
    let mut open = Vec::new();
    while answers.len() < Protocol::ALL.len() + 1 {
        tokio::select! {
            event = swarm.select_next_some() => {
                if let SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } = event {
                    for topic in Everything.offered(&peer_id) {
                        let (sender, answer) = oneshot::channel();
                        swarm.behaviour_mut().streams.open(peer_id, connection_id, topic, sender);
                        open.push(async move { (topic, answer.await) });
                    }
                }
            }
            answer = async { open.pop().unwrap().await }, if !open.is_empty() => answers.push(answer),
        }
    }
    for (topic, answer) in answers {
        match topic {
            Topic::Of(Protocol::Join) => assert!(matches!(answer, Ok(Ok(_))), "{answer:?}"),
            _ => assert!(matches!(answer, Ok(Err(OpenError::NotOffered))), "{topic:?}: {answer:?}"),
        }
    }
}

fn gossip(seed: u8) -> gossipsub::Behaviour {
    let config = gossipsub::Config::default();
    gossipsub::Behaviour::new(MessageAuthenticity::Signed(identity(seed).keypair()), config).unwrap()
}

#[tokio::test]
async fn a_stranger_who_subscribes_and_publishes_neither_reads_gossip_nor_is_heard() {
    let [one, mut two] = managers(&[1, 2]).await.try_into().ok().unwrap();
    one.transport.set_wanted([two.id()].into());
    one.is_connected_to(&two).await;
    let topic = IdentTopic::new(format!("flok/{}/1", SwarmId(77)));
    let behaviour = Stranger { streams: streams::Behaviour::new(Arc::new(Everything)), gossip: gossip(9) };
    let mut swarm = build_swarm(&identity(9), behaviour);
    swarm.behaviour_mut().gossip.subscribe(&topic).unwrap();
    for node in [&one, &two] {
        swarm.dial(DialOpts::unknown_peer_id().address(multiaddr(node.transport.local_addr())).build()).unwrap();
    }
    // Until both have said that they do not speak gossip with it, members publish all the while.
    let mut deaf = BTreeSet::new();
    while deaf.len() < 2 {
        one.transport.publish(Bytes::from_static(b"secret"));
        two.transport.publish(Bytes::from_static(b"secret"));
        // Nobody to publish to is what is hoped for.
        let _ = swarm.behaviour_mut().gossip.publish(topic.clone(), b"forged".to_vec());
        match timeout(Duration::from_millis(20), swarm.select_next_some()).await {
            Ok(SwarmEvent::Behaviour(StrangerEvent::Gossip(gossipsub::Event::GossipsubNotSupported { peer_id }))) => {
                deaf.insert(peer_id);
            }
            Ok(SwarmEvent::Behaviour(StrangerEvent::Gossip(event))) => panic!("{event:?}"),
            _ => {}
        }
    }
    let stranger = identity(9).node();
    gossip_reaches(&one, &mut two).await;
    while let Ok(incoming) = two.incoming.try_recv() {
        assert!(!matches!(incoming, Incoming::Gossip { author, .. } if author.node == stranger));
    }
}

#[tokio::test]
async fn a_node_that_believes_itself_a_member_is_told_that_it_is_none() {
    let node = Node::start(1, Role::Manager).await;
    acquaint(1, &[&node]);
    let mut stranger = Node::start(9, Role::Manager).await;
    stranger.transport.set_members(list(1, &[&node, &stranger]));
    let error = stranger.ask(node.id(), Protocol::Forward).await.unwrap_err().to_string();
    assert!(error.contains("does not count this node as a member"), "{error}");
    let by = stranger.until(|incoming| if let Incoming::Disowned(by) = incoming { Some(by) } else { None }).await;
    assert_eq!(by, node.id());
}

#[tokio::test]
async fn who_shows_its_certificate_in_vain_shows_it_again() {
    let node = Node::start(1, Role::Manager).await;
    acquaint(1, &[&node]);
    let mut stranger = Node::start(9, Role::Manager).await;
    // The word of a worker is none, and as good as lost.
    let mut outdated = list(1, &[&node, &stranger]);
    outdated.members[0].role = Role::Worker;
    stranger.transport.set_members(outdated);
    stranger.ask(node.id(), Protocol::Logs).await.unwrap_err();
    stranger.transport.set_members(list(2, &[&node, &stranger]));
    let told = async {
        loop {
            stranger.ask(node.id(), Protocol::Forward).await.unwrap_err();
            if let Ok(Incoming::Disowned(by)) = stranger.incoming.try_recv() {
                return by;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(timeout(PATIENCE, told).await.unwrap(), node.id());
}

#[tokio::test]
async fn a_workers_word_that_a_node_was_removed_is_not_taken() {
    let worker = Node::start(1, Role::Worker).await;
    acquaint(1, &[&worker]);
    let mut node = Node::start(9, Role::Manager).await;
    node.transport.set_members(list(1, &[&worker, &node]));
    node.ask(worker.id(), Protocol::Logs).await.unwrap_err();
    while let Ok(incoming) = node.incoming.try_recv() {
        assert!(!matches!(incoming, Incoming::Disowned(_)));
    }
}

#[tokio::test]
async fn a_removed_node_is_cut_off_at_once() {
    let [mut one, two] = managers(&[1, 2]).await.try_into().ok().unwrap();
    two.transport.set_wanted([one.id()].into());
    two.is_connected_to(&one).await;
    let mut stream = two.transport.open(one.id(), Protocol::Dispatch, PATIENCE).await.unwrap();
    stream.send(b"x").await.unwrap();
    one.until(|i| matches!(i, Incoming::Stream { .. }).then_some(())).await;
    one.transport.set_members(list(2, &[&one]));
    assert!(matches!(timeout(PATIENCE, stream.receive()).await.unwrap(), Ok(None) | Err(_)));
    one.is_disconnected_from(&two).await;
    assert!(two.ask(one.id(), Protocol::Forward).await.is_err());
    assert_eq!(one.transport.send(two.id(), Protocol::Raft, Bytes::new()), Err(Unsent::NotAMember));
    assert!(matches!(one.ask(two.id(), Protocol::Forward).await, Err(TransportError::NotAMember(_))));
}

#[tokio::test]
async fn a_demoted_manager_speaks_raft_no_more() {
    let [one, mut two] = managers(&[1, 2]).await.try_into().ok().unwrap();
    two.transport.set_wanted([one.id()].into());
    two.is_connected_to(&one).await;
    two.role = Role::Worker;
    one.transport.set_members(list(2, &[&one, &two]));
    // It has not heard of its demotion and goes on.
    let server = one.id();
    let _serving = one.echo();
    let error = two.ask(server, Protocol::Forward).await.unwrap_err();
    assert!(!matches!(error, TransportError::NotPermitted { .. }), "{error}");
    two.transport.redial(server);
    two.ask(server, Protocol::Dispatch).await.unwrap();
}

#[tokio::test]
async fn a_worker_speaks_neither_raft_nor_commands_to_a_manager() {
    let manager = Node::start(1, Role::Manager).await;
    let worker = Node::start(2, Role::Worker).await;
    acquaint(1, &[&manager, &worker]);
    let error = worker.ask(manager.id(), Protocol::Forward).await.unwrap_err();
    assert!(matches!(error, TransportError::NotPermitted { .. }), "{error}");
    // One that pretends to be a manager gets no further.
    let mut pretender = worker.member();
    pretender.role = Role::Manager;
    let forged = MemberList { version: Version(2), members: vec![manager.member(), pretender] };
    worker.transport.set_members(forged);
    let server = manager.id();
    let _serving = manager.echo();
    let error = worker.ask(server, Protocol::Forward).await.unwrap_err();
    assert!(matches!(error, TransportError::Refused { .. }), "{error}");
    worker.ask(server, Protocol::Dispatch).await.unwrap();
}

#[tokio::test]
async fn a_newcomer_convinces_a_lagging_member_by_its_certificate() {
    let lagging = Node::start(1, Role::Manager).await;
    acquaint(4, &[&lagging]);
    let newcomer = Node::start(2, Role::Manager).await;
    newcomer.transport.set_certificate(certificate(2, Role::Manager, 5));
    newcomer.transport.set_members(list(5, &[&lagging, &newcomer]));
    newcomer.transport.set_wanted([lagging.id()].into());
    newcomer.is_connected_to(&lagging).await;
    lagging.is_connected_to(&newcomer).await;
    let mut newcomer = newcomer;
    gossip_reaches(&lagging, &mut newcomer).await;
    // Its list catches up, and does not hold the newcomer any more.
    lagging.transport.set_members(list(6, &[&lagging]));
    lagging.is_disconnected_from(&newcomer).await;
}

#[tokio::test]
async fn a_member_known_late_is_connected_once_it_is_known() {
    let [one] = managers(&[1]).await.try_into().ok().unwrap();
    let two = Node::start(2, Role::Manager).await;
    two.transport.set_members(list(1, &[&one, &two]));
    two.transport.set_wanted([one.id()].into());
    assert!(two.ask(one.id(), Protocol::Forward).await.is_err());
    one.transport.set_members(list(2, &[&one, &two]));
    two.is_connected_to(&one).await;
    one.is_connected_to(&two).await;
}

#[tokio::test]
async fn a_node_whose_list_is_stale_is_introduced_by_address() {
    let manager = Node::start(1, Role::Manager).await;
    let worker = Node::start(2, Role::Worker).await;
    manager.transport.set_certificate(certificate(1, Role::Manager, 9));
    manager.transport.set_members(list(9, &[&manager, &worker]));
    worker.transport.set_members(list(3, &[&worker]));
    let met = worker.transport.introduce(&identity(2), manager.transport.local_addr(), PATIENCE).await.unwrap();
    assert_eq!(met, manager.id());
    let _serving = manager.echo();
    worker.ask(met, Protocol::Members).await.unwrap();
    worker.transport.set_wanted(nobody());
}
