//! Strangers who become members, and those who are refused.

use std::net::SocketAddr;
use std::sync::Mutex;

use futures::future::BoxFuture;

use super::super::join::{JoinRequest, join};
use super::*;
use crate::spec::{Availability, FEATURE_LEVEL, NodeDescription, NodeResources, Platform, SecretBytes};

/// Lets in who has a token, and keeps what it was told.
struct Door {
    worker: SecretBytes,
    manager: SecretBytes,
    seen: Mutex<Vec<Candidate>>,
}

impl Admission for Door {
    fn admit(&self, candidate: Candidate) -> BoxFuture<'_, Result<Admitted, Refusal>> {
        Box::pin(async move {
            let role = candidate.secret.role(&self.worker, &self.manager).ok_or(Refusal::WrongToken)?;
            let subject = Subject { public_key: candidate.public_key, role, membership_version: Version(2) };
            self.seen.lock().unwrap().push(candidate);
            Ok(Admitted {
                swarm: SwarmId(77),
                ca_public_key: authority().public_key(),
                certificate: authority().issue(subject, clock::unix_now(), Duration::from_secs(3600)),
                role,
                members: MemberList::default(),
                payload: b"more".to_vec(),
            })
        })
    }
}

struct Swarm {
    node: Node,
    door: Arc<Door>,
    worker: JoinToken,
}

async fn swarm() -> Swarm {
    let (worker, manager) = (TokenSecret::generate(), TokenSecret::generate());
    let door = Arc::new(Door { worker: worker.to_bytes(), manager: manager.to_bytes(), seen: Mutex::default() });
    let node = Node::start_with(1, Role::Manager, MemberList::default(), Some(door.clone())).await;
    acquaint(1, &[&node]);
    Swarm { node, door, worker: JoinToken::new(&authority().public_key(), worker) }
}

fn request() -> JoinRequest {
    JoinRequest {
        description: NodeDescription {
            hostname: "newcomer".into(),
            platform: Platform { os: "linux".into(), architecture: "amd64".into() },
            resources: NodeResources::default(),
            engine_version: "0".into(),
            engine_labels: Default::default(),
            addr: [127, 0, 0, 1].into(),
            transport_port: 1,
            probe_port: 2,
            feature_level: FEATURE_LEVEL,
        },
        availability: Availability::Active,
        data_path_port: 4789,
        reaches: Vec::new(),
    }
}

async fn try_join(token: &JoinToken, addresses: &[SocketAddr]) -> Result<Admitted, JoinError> {
    join(&identity(9), token, addresses, request(), PATIENCE).await
}

#[tokio::test]
async fn the_token_admits_in_its_role_and_the_certificate_is_for_the_joiners_key() {
    let swarm = swarm().await;
    let admitted = try_join(&swarm.worker, &[swarm.node.transport.local_addr()]).await.unwrap();
    assert_eq!((admitted.role, admitted.payload.as_slice()), (Role::Worker, b"more".as_slice()));
    assert_eq!(admitted.certificate.node, identity(9).node());
    admitted.certificate.verify(&authority().public_key()).unwrap();
    let seen = swarm.door.seen.lock().unwrap();
    assert_eq!(seen[0].node, identity(9).node());
    assert_eq!(seen[0].request.description.hostname, "newcomer");
    assert!(seen[0].remote.is_loopback());
}

#[tokio::test]
async fn a_wrong_secret_is_refused() {
    let swarm = swarm().await;
    let wrong = JoinToken::new(&authority().public_key(), TokenSecret::generate());
    let error = try_join(&wrong, &[swarm.node.transport.local_addr()]).await.unwrap_err();
    assert!(matches!(error, JoinError::Refused { refusal: Refusal::WrongToken, .. }), "{error}");
}

#[tokio::test]
async fn another_swarm_is_noticed_before_the_secret_is_sent() {
    let swarm = swarm().await;
    let other = Authority::from_secret(SwarmId(5), &[123; 32]);
    let foreign = JoinToken::new(&other.public_key(), swarm.worker.secret().clone());
    let error = try_join(&foreign, &[swarm.node.transport.local_addr()]).await.unwrap_err();
    assert!(matches!(error, JoinError::WrongSwarm { .. }), "{error}");
    assert!(swarm.door.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn who_replays_a_certificate_that_is_not_his_gets_no_secret() {
    // A listener with a key of its own that shows a member's certificate.
    let config = Config {
        identity: identity(66),
        listen: ([127, 0, 0, 1], 0).into(),
        advertise: None,
        ca_public_key: authority().public_key(),
        certificate: certificate(1, Role::Manager, 1),
        members: MemberList::default(),
        admission: None,
    };
    let (impostor, _incoming) = Transport::start(config).await.unwrap();
    let token = JoinToken::new(&authority().public_key(), TokenSecret::generate());
    let error = try_join(&token, &[impostor.local_addr()]).await.unwrap_err();
    assert!(matches!(error, JoinError::NotProven { source: CertificateError::WrongKey, .. }), "{error}");
}

#[tokio::test]
async fn an_expired_member_cannot_pass_for_one() {
    let subject = Subject { public_key: identity(1).public_key(), role: Role::Manager, membership_version: Version(1) };
    let node = Node::start(1, Role::Manager).await;
    node.transport.set_certificate(authority().issue(subject, long_ago(), Duration::from_secs(3600)));
    let token = JoinToken::new(&authority().public_key(), TokenSecret::generate());
    let error = try_join(&token, &[node.transport.local_addr()]).await.unwrap_err();
    assert!(matches!(error, JoinError::NotProven { source: CertificateError::Expired(_), .. }), "{error}");
}

#[tokio::test]
async fn a_worker_sends_the_joiner_to_the_managers() {
    let swarm = swarm().await;
    let worker = Node::start(2, Role::Worker).await;
    acquaint(2, &[&swarm.node, &worker]);
    let admitted = try_join(&swarm.worker, &[worker.transport.local_addr()]).await.unwrap();
    assert_eq!(admitted.role, Role::Worker);
}

#[tokio::test]
async fn a_dead_address_does_not_keep_from_the_next() {
    let swarm = swarm().await;
    let gone = Node::start(3, Role::Manager).await;
    let dead = gone.transport.local_addr();
    gone.transport.shutdown().await;
    drop(gone);
    let error = try_join(&swarm.worker, &[dead]).await.unwrap_err();
    assert!(matches!(error, JoinError::Unreachable { addr, .. } if addr == dead), "{error}");
    try_join(&swarm.worker, &[dead, swarm.node.transport.local_addr()]).await.unwrap();
    assert!(matches!(try_join(&swarm.worker, &[]).await, Err(JoinError::NoAddress)));
}

#[tokio::test]
async fn what_listens_but_is_no_flok_daemon_is_an_error_in_time() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let token = JoinToken::new(&authority().public_key(), TokenSecret::generate());
    let short = Duration::from_millis(300);
    let error = join(&identity(9), &token, &[addr], request(), short).await.unwrap_err();
    assert!(matches!(error, JoinError::TimedOut { .. } | JoinError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn who_has_joined_speaks_as_a_member() {
    let swarm = swarm().await;
    let addr = swarm.node.transport.local_addr();
    let admitted = try_join(&swarm.worker, &[addr]).await.unwrap();
    let member = swarm.node.member();
    let server = swarm.node.id();
    let config = Config {
        identity: identity(9),
        listen: ([127, 0, 0, 1], 0).into(),
        advertise: None,
        ca_public_key: admitted.ca_public_key,
        certificate: admitted.certificate,
        members: MemberList { version: Version(2), members: vec![member] },
        admission: None,
    };
    let (transport, incoming) = Transport::start(config).await.unwrap();
    let joined = Node { seed: 9, role: Role::Worker, transport, incoming };
    // The member that let it in has not read its own log yet: the certificate speaks for the newcomer.
    let _serving = swarm.node.echo();
    joined.ask(server, Protocol::Dispatch).await.unwrap();
}
