//! Members among themselves.

use super::*;

#[tokio::test]
async fn a_request_is_answered_and_its_sender_is_known() {
    let [one, mut two] = managers(&[1, 2]).await.try_into().ok().unwrap();
    let (asker, server) = (one.id(), two.id());
    let asking = tokio::spawn(async move { one.ask(server, Protocol::Forward).await });
    let (from, protocol, reply) = two
        .until(|incoming| match incoming {
            Incoming::Request { from, protocol, request, reply } => {
                assert_eq!(request, "hello");
                Some((from, protocol, reply))
            }
            _ => None,
        })
        .await;
    assert_eq!((from.node, from.role, from.log_holder), (asker, Role::Manager, true));
    assert_eq!(protocol, Protocol::Forward);
    reply.answer("world");
    assert_eq!(asking.await.unwrap().unwrap(), "world");
}

#[tokio::test]
async fn many_requests_at_once_are_all_answered() {
    let [one, two] = managers(&[1, 2]).await.try_into().ok().unwrap();
    let server = two.id();
    let _serving = two.echo();
    let asking = (0..200u32).map(|number| {
        let transport = one.transport.clone();
        async move {
            let request = Bytes::copy_from_slice(&number.to_be_bytes());
            let answer = transport.request(server, Protocol::Forward, request.clone(), PATIENCE).await.unwrap();
            assert_eq!(answer, request);
        }
    });
    futures::future::join_all(asking).await;
}

#[tokio::test]
async fn a_request_that_nobody_takes_is_refused_and_one_that_takes_too_long_ends() {
    let [one, mut two] = managers(&[1, 2]).await.try_into().ok().unwrap();
    let server = two.id();
    let serving = tokio::spawn(async move {
        let first = two.until(|i| if let Incoming::Request { reply, .. } = i { Some(reply) } else { None }).await;
        drop(first);
        let second = two.until(|i| if let Incoming::Request { reply, .. } = i { Some(reply) } else { None }).await;
        (two, second)
    });
    let refused = one.ask(server, Protocol::Forward).await.unwrap_err();
    assert!(matches!(refused, TransportError::Refused { .. }), "{refused}");
    let short = Duration::from_millis(100);
    let late = one.transport.request(server, Protocol::Forward, Bytes::new(), short).await.unwrap_err();
    assert!(matches!(late, TransportError::TimedOut { .. }), "{late}");
    serving.await.unwrap();
}

#[tokio::test]
async fn one_way_messages_arrive_in_order() {
    let [one, mut two] = managers(&[1, 2]).await.try_into().ok().unwrap();
    for number in 0..500u32 {
        one.transport.send(two.id(), Protocol::Raft, Bytes::copy_from_slice(&number.to_be_bytes())).unwrap();
    }
    for number in 0..500u32 {
        let message = two.until(|i| if let Incoming::Message { message, .. } = i { Some(message) } else { None }).await;
        assert_eq!(message, number.to_be_bytes().as_slice());
    }
}

#[tokio::test]
async fn a_stream_carries_messages_both_ways_and_ends() {
    let [one, mut two] = managers(&[1, 2]).await.try_into().ok().unwrap();
    let mut stream = one.transport.open(two.id(), Protocol::Dispatch, PATIENCE).await.unwrap();
    stream.send(b"ping").await.unwrap();
    let mut other = two.until(|i| if let Incoming::Stream { stream, .. } = i { Some(stream) } else { None }).await;
    assert_eq!(other.receive().await.unwrap().unwrap(), "ping");
    other.send(b"pong").await.unwrap();
    assert_eq!(stream.receive().await.unwrap().unwrap(), "pong");
    drop(stream);
    assert!(matches!(other.receive().await, Ok(None) | Err(_)));
}

#[tokio::test]
async fn bulk_has_a_connection_of_its_own() {
    let [one, mut two] = managers(&[1, 2]).await.try_into().ok().unwrap();
    one.transport.set_wanted([two.id()].into());
    one.is_connected_to(&two).await;
    assert_eq!(one.transport.counters().dials.load(std::sync::atomic::Ordering::Relaxed), 1);
    let mut bulk = one.transport.open(two.id(), Protocol::Bulk, PATIENCE).await.unwrap();
    assert_eq!(one.transport.counters().dials.load(std::sync::atomic::Ordering::Relaxed), 2);
    let piece = vec![9; Protocol::Bulk.max_message_bytes()];
    let sending = tokio::spawn(async move {
        for _ in 0..4 {
            bulk.send(&piece).await.unwrap();
        }
        bulk
    });
    let mut other = two.until(|i| if let Incoming::Stream { stream, .. } = i { Some(stream) } else { None }).await;
    for _ in 0..4 {
        assert_eq!(other.receive().await.unwrap().unwrap().len(), Protocol::Bulk.max_message_bytes());
    }
    sending.await.unwrap();
    // The main connection is the one that the other side uses for its own words.
    two.transport.send(one.id(), Protocol::Raft, Bytes::from_static(b"back")).unwrap();
    let mut one = one;
    one.until(|i| matches!(i, Incoming::Message { .. }).then_some(())).await;
    assert_eq!(two.transport.counters().dials.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn gossip_reaches_managers_with_its_author() {
    let [one, mut two, mut three] = managers(&[1, 2, 3]).await.try_into().ok().unwrap();
    one.transport.set_wanted([two.id()].into());
    three.transport.set_wanted([two.id()].into());
    gossip_reaches(&one, &mut two).await;
    // By way of the second: the first and the third have no connection.
    gossip_reaches(&one, &mut three).await;
}

#[tokio::test]
async fn publishing_to_nobody_is_no_failure() {
    let [one] = managers(&[1]).await.try_into().ok().unwrap();
    assert!(one.transport.publish(Bytes::from_static(b"alone")));
    assert!(!one.transport.publish(Bytes::from(vec![0; MAX_GOSSIP_BYTES + 1])), "too large");
}

#[tokio::test]
async fn a_worker_publishes_and_hears_nothing() {
    let mut manager = Node::start(1, Role::Manager).await;
    let mut worker = Node::start(2, Role::Worker).await;
    acquaint(1, &[&manager, &worker]);
    worker.transport.set_wanted([manager.id()].into());
    gossip_reaches(&worker, &mut manager).await;
    for _ in 0..20 {
        manager.transport.publish(Bytes::from_static(b"for managers"));
    }
    // Whatever is on its way to the worker arrives before this answer.
    let transport = manager.transport.clone();
    let (server, _serving) = (manager.id(), manager.echo());
    transport.publish(Bytes::from_static(b"more"));
    worker.ask(server, Protocol::Dispatch).await.unwrap();
    while let Ok(incoming) = worker.incoming.try_recv() {
        assert!(!matches!(incoming, Incoming::Gossip { .. }));
    }
}

#[tokio::test]
async fn after_a_redial_words_and_gossip_flow_again_both_ways() {
    let [mut one, mut two] = managers(&[1, 2]).await.try_into().ok().unwrap();
    one.transport.set_wanted([two.id()].into());
    for _ in 0..3 {
        gossip_reaches(&one, &mut two).await;
        gossip_reaches(&two, &mut one).await;
        one.transport.redial(two.id());
        one.until(|i| matches!(i, Incoming::Disconnected(_)).then_some(())).await;
        one.until(|i| matches!(i, Incoming::Connected(_)).then_some(())).await;
    }
    // Both at once, as both sides of a healed cut do.
    one.transport.redial(two.id());
    two.transport.redial(one.id());
    gossip_reaches(&one, &mut two).await;
    gossip_reaches(&two, &mut one).await;
}

#[tokio::test]
async fn two_that_dial_each_other_at_once_are_connected() {
    let nodes = managers(&[1, 2, 3, 4, 5]).await;
    let all: BTreeSet<_> = nodes.iter().map(Node::id).collect();
    for node in &nodes {
        node.transport.set_wanted(all.clone());
    }
    for node in &nodes {
        for other in &nodes {
            if node.id() != other.id() {
                node.is_connected_to(other).await;
            }
        }
    }
}

#[tokio::test]
async fn who_is_not_there_is_unreachable_and_found_when_he_comes() {
    let [one, two] = managers(&[1, 2]).await.try_into().ok().unwrap();
    let members = list(2, &[&one, &two]);
    let (gone, addr) = (two.id(), two.transport.local_addr());
    two.transport.shutdown().await;
    drop(two);
    let error = one.ask(gone, Protocol::Forward).await.unwrap_err();
    assert!(matches!(error, TransportError::Unreachable { .. }), "{error}");
    one.transport.set_wanted([gone].into());
    let config = Config {
        identity: identity(2),
        listen: addr,
        advertise: None,
        ca_public_key: authority().public_key(),
        certificate: certificate(2, Role::Manager, 1),
        members,
        admission: None,
    };
    let (transport, incoming) = Transport::start(config).await.unwrap();
    let two = Node { seed: 2, role: Role::Manager, transport, incoming };
    one.is_connected_to(&two).await;
    let _serving = two.echo();
    one.ask(gone, Protocol::Forward).await.unwrap();
}

#[tokio::test]
async fn messages_to_an_unreachable_node_are_dropped_and_said_to_be() {
    let [one, two] = managers(&[1, 2]).await.try_into().ok().unwrap();
    let gone = two.id();
    two.transport.shutdown().await;
    let mut refused = false;
    for _ in 0..10_000 {
        refused |= one.transport.send(gone, Protocol::Raft, Bytes::from_static(b"x")) == Err(Unsent::Unreachable);
        tokio::task::yield_now().await;
        if refused {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(refused);
}

#[tokio::test]
async fn a_port_in_use_is_a_clear_error() {
    let one = Node::start(1, Role::Manager).await;
    let config = Config {
        identity: identity(2),
        listen: one.transport.local_addr(),
        advertise: None,
        ca_public_key: authority().public_key(),
        certificate: certificate(2, Role::Manager, 1),
        members: MemberList::default(),
        admission: None,
    };
    let error = Transport::start(config).await.err().unwrap().to_string();
    assert!(error.contains("in use"), "{error}");
}

#[tokio::test]
async fn traffic_is_counted_by_protocol() {
    let [one, two] = managers(&[1, 2]).await.try_into().ok().unwrap();
    let server = two.id();
    let serving = two.echo();
    one.ask(server, Protocol::Forward).await.unwrap();
    let sent = one.transport.counters().traffic(Protocol::Forward);
    assert_eq!((sent.messages_sent, sent.bytes_sent, sent.messages_received), (1, 5, 1));
    assert_eq!(serving.counters().traffic(Protocol::Forward).bytes_received, 5);
    assert_eq!(one.transport.counters().traffic(Protocol::Raft), TrafficCount::default());
}

#[tokio::test]
async fn bytes_go_both_ways_until_each_side_has_said_all() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let [one, mut two] = managers(&[1, 2]).await.try_into().ok().unwrap();
    let mut here = one.transport.open(two.id(), Protocol::Call, PATIENCE).await.unwrap().into_bytes();
    // More than any buffer between the two holds: the writer waits for the reader.
    let sent = vec![7; 4 << 20];
    let writing = tokio::spawn(async move {
        here.write_all(&sent).await.unwrap();
        here.shutdown().await.unwrap();
        let mut answer = String::new();
        here.read_to_string(&mut answer).await.unwrap();
        answer
    });
    let stream = two.until(|i| if let Incoming::Stream { stream, .. } = i { Some(stream) } else { None }).await;
    let mut there = stream.into_bytes();
    let mut read = Vec::new();
    there.read_to_end(&mut read).await.unwrap();
    assert!(read.len() == 4 << 20 && read.iter().all(|byte| *byte == 7));
    there.write_all(b"all of it").await.unwrap();
    there.shutdown().await.unwrap();
    assert_eq!(writing.await.unwrap(), "all of it");
}

#[tokio::test]
async fn bytes_of_a_node_that_is_given_up_end() {
    use tokio::io::AsyncReadExt;
    let [one, two] = managers(&[1, 2]).await.try_into().ok().unwrap();
    let mut here = one.transport.open(two.id(), Protocol::Call, PATIENCE).await.unwrap().into_bytes();
    one.transport.disconnect(two.id());
    let ended = timeout(PATIENCE, here.read_u8()).await.expect("the read ends");
    assert!(ended.is_err());
}
