//! A node of nobody's swarm, speaking flok's own protocols to a real daemon.

use std::fs::File;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flok::node::keyring::Keyring;
use flok::spec::{Role, SwarmId, UnixMs, Version};
use flok::transport::{Authority, Config, Identity, Member, MemberList, Protocol, Subject, Transport};
use nix::sched::{CloneFlags, setns};

use super::swarm::Swarm;

const WITHIN: Duration = Duration::from_secs(10);

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_stranger_gets_no_answer_but_to_joining() {
    let swarm = Swarm::of(3);
    let id: SwarmId = swarm.status(0).unwrap()["swarm"].as_str().unwrap().parse().unwrap();
    // It even knows the daemon's public key and the swarm's id; what it lacks is a certificate of the swarm's CA.
    let daemon = Keyring::open(&swarm.hosts[0].data_dir().join("node.key")).unwrap().identity().unwrap();
    let known = Member {
        node: daemon.node(),
        public_key: daemon.public_key(),
        role: Role::Manager,
        log_holder: true,
        addr: format!("{}:2377", swarm.hosts[0].addr()).parse().unwrap(),
    };
    let switch = File::open(swarm.switch_netns()).unwrap();
    let asked = std::thread::spawn(move || {
        setns(&switch, CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ask_everything(id, known))
    });
    for (protocol, answer) in asked.join().unwrap() {
        assert!(answer.is_err(), "{protocol:?} was answered");
    }
    swarm.nodes_are(0, 3, "ready");
}

async fn ask_everything(swarm: SwarmId, daemon: Member) -> Vec<(Protocol, Result<(), String>)> {
    let identity = Identity::generate();
    let authority = Authority::generate(swarm);
    let subject =
        Subject { public_key: identity.public_key(), role: Role::Manager, membership_version: Version(1 << 40) };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let certificate = authority.issue(subject, UnixMs(now.as_millis().try_into().unwrap()), Duration::from_secs(3600));
    let target = daemon.node;
    let itself = Member {
        node: identity.node(),
        public_key: identity.public_key(),
        addr: "10.99.0.254:2377".parse().unwrap(),
        ..daemon.clone()
    };
    let config = Config {
        identity,
        listen: itself.addr,
        advertise: None,
        ca_public_key: authority.public_key(),
        certificate,
        members: MemberList { version: Version(1 << 40), members: vec![daemon, itself] },
        admission: None,
    };
    let (transport, mut incoming) = Transport::start(config).await.unwrap();
    transport.set_wanted([target].into());
    let mut answers = Vec::new();
    for protocol in Protocol::ALL.into_iter().filter(|protocol| *protocol != Protocol::Join) {
        let request = transport.request(target, protocol, Bytes::from_static(b"hello"), WITHIN).await;
        answers.push((protocol, request.map(drop).map_err(|error| error.to_string())));
        let stream = async {
            let mut stream = transport.open(target, protocol, WITHIN).await.map_err(|error| error.to_string())?;
            stream.send(b"hello").await.map_err(|error| error.to_string())?;
            match tokio::time::timeout(WITHIN, stream.receive()).await {
                Ok(Ok(Some(_))) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        };
        answers.push((protocol, stream.await));
    }
    assert!(incoming.try_recv().is_err(), "something was sent to a stranger");
    transport.shutdown().await;
    answers
}
