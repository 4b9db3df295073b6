//! The door of a real log, asked as joiners ask; and how long members' certificates last.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::consensus::{Config, Courier, Lane, LogIdentity, LogStore, NoAnswer, SealingKey, new_swarm};
use crate::state::fixture::{Fixture, a_node, a_swarm, node};
use crate::transport::join::join;
use crate::transport::{self, Identity, JoinError, JoinRequest, JoinToken, Member, MemberList, TokenSecret, Transport};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A lone log holder has nobody to send to.
struct NoCourier;

impl Courier for NoCourier {
    fn send(&self, _: NodeId, _: Bytes) {}

    fn request(&self, to: NodeId, _: Lane, _: Bytes, _: Duration) -> BoxFuture<'static, Result<Bytes, NoAnswer>> {
        async move { Err(NoAnswer { node: to, why: "there is nobody".into() }) }.boxed()
    }
}

/// A swarm of one manager with a log on disk, whose transport lets in whom its [`Doorkeeper`] does.
struct Door {
    log: Consensus,
    transport: Transport,
    worker: JoinToken,
    _folder: tempfile::TempDir,
}

impl Door {
    async fn open() -> Door {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::from_secret(&[1; 32]);
        let authority = Authority::from_secret(SwarmId(7), &[9; 32]);
        let secret = TokenSecret::generate();
        let worker = JoinToken::new(&authority.public_key(), secret.clone());
        let swarm = Swarm {
            ca_public_key: authority.public_key(),
            ca_secret_key: SecretBytes(authority.secret().to_vec()),
            worker_token: secret.to_bytes(),
            ..a_swarm()
        };
        let first = Node { id: identity.node(), public_key: identity.public_key(), ..a_node(1) };
        let log = start_log(&folder.path().join("log"), identity.node());
        let certificate = certificate(&swarm, &first, clock::unix()).unwrap();
        let init = Command::InitSwarm { swarm: Box::new(swarm), node: Box::new(first) };
        log.propose(init).await.unwrap().unwrap();

        let doorkeeper = Doorkeeper { log: watch::channel(Some(log.clone())).1 };
        let config = transport::Config {
            identity: Identity::from_secret(&[1; 32]),
            listen: ([127, 0, 0, 1], 0).into(),
            advertise: None,
            ca_public_key: authority.public_key(),
            certificate,
            members: MemberList::default(),
            admission: Some(Arc::new(doorkeeper)),
        };
        let (transport, _) = Transport::start(config).await.unwrap();
        let own = Member {
            node: identity.node(),
            public_key: identity.public_key(),
            role: Role::Manager,
            log_holder: true,
            addr: transport.local_addr(),
        };
        assert!(transport.set_members(MemberList { version: Version(1), members: vec![own] }));
        Door { log, transport, worker, _folder: folder }
    }

    /// A join by a build that knows features up to `level`.
    async fn knock(&self, token: &JoinToken, level: FeatureLevel) -> Result<Admitted, JoinError> {
        self.knock_with(token, level, DEFAULT_DATA_PATH_PORT, &[]).await
    }

    /// The same, of a machine with this port for the tunnels, that reaches these blocks otherwise.
    async fn knock_with(
        &self,
        token: &JoinToken,
        level: FeatureLevel,
        data_path_port: u16,
        reaches: &[&str],
    ) -> Result<Admitted, JoinError> {
        let description = NodeDescription {
            addr: [127, 0, 0, 1].into(),
            feature_level: level,
            hostname: "newcomer".into(),
            ..a_node(2).description
        };
        let reaches = reaches.iter().map(|text| text.parse().unwrap()).collect();
        let request = JoinRequest { description, availability: Availability::Active, data_path_port, reaches };
        let at: [SocketAddr; 1] = [self.transport.local_addr()];
        join(&Identity::from_secret(&[2; 32]), token, &at, request, JOIN_DEADLINE).await
    }
}

fn start_log(path: &std::path::Path, me: NodeId) -> Consensus {
    let rng = || Box::new(StdRng::seed_from_u64(1));
    let (key, identity) = (SealingKey::new([7; 32]), LogIdentity { swarm: SwarmId(7), node: me, raft_id: 1 });
    LogStore::create(path, &key, identity, new_swarm(), rng()).unwrap();
    let identity = LogIdentity { swarm: SwarmId(7), node: me, raft_id: 1 };
    let store = LogStore::open(path, &key, &identity, rng()).unwrap();
    let config = Config { peers: BTreeMap::new(), client: ClientId(1), seed: 1, now: clock::unix };
    Consensus::start(store, config, Arc::new(NoCourier)).unwrap()
}

fn older() -> FeatureLevel {
    FeatureLevel(FEATURE_LEVEL.0 - 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joiner_that_knows_less_than_the_swarm_is_told_to_install_a_newer_version() {
    let door = Door::open().await;
    let error = door.knock(&door.worker, older()).await.unwrap_err();
    let refusal = Refusal::VersionTooOld { needed: FEATURE_LEVEL, offered: older() };
    assert!(matches!(&error, JoinError::Refused { refusal: said, .. } if *said == refusal), "{error}");
    assert!(error.to_string().contains("install a newer version here"), "{error}");
    assert_eq!(door.log.state().nodes().count(), 1, "nothing was changed");

    let admitted = door.knock(&door.worker, FEATURE_LEVEL).await.unwrap();
    assert_eq!(admitted.role, Role::Worker);
    let state = door.log.state();
    assert_eq!(state.node(admitted.certificate.node).unwrap().description.hostname, "newcomer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joiner_whose_lan_a_network_would_take_is_refused() {
    let door = Door::open().await;
    let spec = crate::state::fixture::network_spec("back", &["10.0.1.0/24"]);
    door.log.propose(Command::CreateNetwork { id: NetworkId(5), spec }).await.unwrap().unwrap();
    let error =
        door.knock_with(&door.worker, FEATURE_LEVEL, DEFAULT_DATA_PATH_PORT, &["10.0.0.0/16"]).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("reaches 10.0.0.0/16 outside of the swarm, and the swarm's network back has 10.0.1.0/24"),
        "{error}"
    );
    assert_eq!(door.log.state().nodes().count(), 1, "nothing was changed");
    door.knock_with(&door.worker, FEATURE_LEVEL, DEFAULT_DATA_PATH_PORT, &["192.168.0.0/16", "10.0.2.0/24"])
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_token_is_not_told_which_version_the_swarm_has() {
    let door = Door::open().await;
    let ca = door.log.state().swarm().unwrap().ca_public_key;
    let error = door.knock(&JoinToken::new(&ca, TokenSecret::generate()), older()).await.unwrap_err();
    assert!(matches!(error, JoinError::Refused { refusal: Refusal::WrongToken, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joiner_is_let_in_once_the_port_of_the_swarms_tunnels_is_free_there() {
    let door = Door::open().await;
    for found_free in [0, 5000] {
        let error = door.knock_with(&door.worker, FEATURE_LEVEL, found_free, &[]).await.unwrap_err();
        let refusal = Refusal::DataPathPort(DEFAULT_DATA_PATH_PORT);
        assert!(matches!(&error, JoinError::Refused { refusal: said, .. } if *said == refusal), "{error}");
    }
    assert_eq!(door.log.state().nodes().count(), 1, "nothing was changed");
    door.knock(&door.worker, FEATURE_LEVEL).await.unwrap();
}

/// The days on which a member gets a certificate within three years, when it is asked for each day. `jitter` is the
/// asker's, of [`Certificate::renew_at`].
fn renewals(fixture: &Fixture, jitter: f64) -> Vec<u64> {
    let mut held: Option<Certificate> = None;
    let mut days = Vec::new();
    for day in 0..3 * 365 {
        let now = fixture.now + DAY * day;
        let due = held.as_ref().map(|held| (held.role, held.renew_at(jitter)));
        if let Some(new) = renewal(&fixture.state, node(2), due, now) {
            days.push(u64::from(day));
            held = Some(new);
        }
        let held = held.as_ref().expect("there is one at the start");
        held.check_time(now).expect("no member is ever without a valid certificate");
    }
    days
}

#[test]
fn certificates_are_renewed_at_two_thirds_of_their_life_and_never_run_out() {
    let fixture = Fixture::nodes(2);
    assert_eq!(fixture.state.swarm().unwrap().spec.cert_expiry, DAY * 90);
    // As a manager's stream does it for a worker, and as a log holder does it for itself.
    for (jitter, apart) in [(0.0, 60..=61), (0.5, 67..=68)] {
        let days = renewals(&fixture, jitter);
        assert!(days.windows(2).all(|pair| apart.contains(&(pair[1] - pair[0]))), "{days:?}");
    }
}

#[test]
fn a_changed_role_is_a_new_certificate_at_once() {
    let mut fixture = Fixture::nodes(2);
    let first = renewal(&fixture.state, node(2), None, fixture.now).unwrap();
    let held = Some((first.role, first.renew_at(0.0)));
    assert_eq!(renewal(&fixture.state, node(2), held, fixture.now), None);
    fixture.update_node(node(2), |spec| spec.role = Role::Worker);
    let next = renewal(&fixture.state, node(2), held, fixture.now).unwrap();
    assert_eq!((first.role, next.role), (Role::Manager, Role::Worker));
    assert!(next.membership_version > first.membership_version);
}
