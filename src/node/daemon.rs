//! The daemon: what lives from start to stop of the process, in a swarm or not, and the changes between the two.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::{Mutex, watch};

use super::addresses::{own_address, parse_addr, resolve};
use super::clock;
use super::config::Config;
use super::host::{Host, Inbox, configured_advertise};
use super::standing::{DataDir, Standing};
use super::swarm::{Session, admission, roster};
use crate::api::{ApiError, InitSwarm, JoinSwarm, LOCKED, NOT_IN_A_SWARM};
use crate::consensus::{self, FIRST_RAFT_ID};
use crate::dispatcher::View;
use crate::network::NetworkError;
use crate::spec::*;
use crate::state::{Command, Meta, Node, NodeHealth, RaftMember, RaftStanding, Swarm};
use crate::transport::{
    Authority, JoinError, JoinRequest, JoinToken, Member, MemberList, Refusal, TokenSecret, check_listen_addr, join,
};

/// Everything a request may ask of this node.
pub struct Daemon {
    pub host: Arc<Host>,
    session: watch::Sender<Option<Arc<Session>>>,
    /// Held while the node's part in a swarm is changed.
    changing: Mutex<()>,
}

impl Daemon {
    /// Starts what runs in or out of a swarm, and takes up the node's part in its swarm, if it has one.
    pub async fn start(config: Config, dir: DataDir) -> anyhow::Result<(Arc<Daemon>, Inbox)> {
        let (host, inbox) = Host::start(config, dir).await?;
        let daemon = Arc::new(Daemon { host, session: watch::Sender::new(None), changing: Mutex::new(()) });
        match daemon.host.dir.standing()? {
            Some(_) if daemon.is_locked() => tracing::warn!(
                "this node is locked: its containers go on, and it takes no part in the swarm until \"flok swarm unlock\""
            ),
            Some(standing) => daemon.resume(standing).await?,
            // Whatever an earlier life in a swarm left running is stopped.
            None => {
                daemon.host.assign(&View::default());
                daemon.host.forget_networks();
            }
        }
        Ok((daemon, inbox))
    }

    async fn resume(&self, standing: Standing) -> anyhow::Result<()> {
        let own = standing.members.members.iter().find(|member| member.node == self.host.node());
        if self.host.config.advertise_addr.is_none()
            && let Some(own) = own
        {
            self.host.set_addresses(self.host.listen_addr().ip(), own.addr);
        }
        let session = Session::start(Arc::clone(&self.host), standing, None).await?;
        self.session.send_replace(Some(Arc::new(session)));
        Ok(())
    }

    /// In a swarm, and waiting for its unlock key.
    pub fn is_locked(&self) -> bool {
        self.host.dir.keyring().is_locked()
    }

    /// Why a request that needs the swarm cannot be answered here.
    pub fn outside(&self) -> ApiError {
        ApiError::Unavailable(if self.is_locked() { LOCKED } else { NOT_IN_A_SWARM }.to_owned())
    }

    /// Takes up this node's part in the swarm that locked it.
    pub async fn unlock(&self, key: &UnlockKey) -> Result<(), ApiError> {
        let _changing = self.changing.lock().await;
        let keyring = self.host.dir.keyring();
        if !keyring.is_locked() {
            return Err(match self.session() {
                Some(_) => ApiError::Conflict("swarm is not locked".into()),
                None => self.outside(),
            });
        }
        if !keyring.unlock(key) {
            return Err(ApiError::Unauthorized(
                "swarm could not be unlocked: invalid key provided. Another manager that is unlocked shows the key by \
                 \"flok swarm unlock-key\"; a node that was down when it was rotated still has the one before"
                    .into(),
            ));
        }
        let standing = self.host.dir.standing().map_err(internal)?.ok_or_else(|| self.outside())?;
        if let Err(error) = self.resume(standing).await {
            keyring.lock_again().map_err(internal)?;
            return Err(internal(error));
        }
        tracing::info!("this node was unlocked");
        Ok(())
    }

    pub fn session(&self) -> Option<Arc<Session>> {
        self.session.borrow().clone()
    }

    pub async fn stop(&self) {
        let _changing = self.changing.lock().await;
        if let Some(session) = self.session.send_replace(None) {
            session.stop().await;
        }
        self.host.worker.shutdown().await;
    }

    /// Makes a new swarm of this node alone.
    pub async fn init(&self, request: InitSwarm) -> Result<NodeId, ApiError> {
        let _changing = self.changing.lock().await;
        if request.force_new_cluster {
            return self.force_new_cluster().await;
        }
        if self.is_locked() {
            return Err(self.outside());
        }
        if self.session().is_some() {
            return Err(ApiError::Unavailable(
                "This node is already part of a swarm. Use \"flok swarm leave\" to leave this swarm and join another one."
                    .into(),
            ));
        }
        self.check_pools(&request.spec)?;
        self.choose_addresses(request.listen_addr.as_deref(), request.advertise_addr.as_deref(), None)?;
        let port = request.spec.data_path_port;
        self.free_data_path(port).await.map_err(|error| {
            ApiError::Unavailable(format!("{error}: free it, or choose another with --data-path-port"))
        })?;
        let (standing, first_entry) = self.new_swarm(request).map_err(internal)?;
        self.enter(standing, Some(consensus::new_swarm())).await.map_err(internal)?;
        let session = self.session().expect("the swarm was just entered");
        let log = session.shared.log().expect("the first node holds the log");
        match log.propose(first_entry).await {
            Ok(Ok(_)) => Ok(self.host.node()),
            failed => {
                session.stop().await;
                self.forget().await.map_err(internal)?;
                Err(ApiError::Internal(format!("the swarm's first entry was not taken: {failed:?}")))
            }
        }
    }

    /// A swarm whose pools all lie in what this host reaches otherwise would never find a subnet.
    fn check_pools(&self, spec: &SwarmSpec) -> Result<(), ApiError> {
        let around = self.host.surroundings().map_err(|error| internal(error.into()))?;
        let held = |pool: &String| Some((pool.clone(), around.covers(&pool.parse().ok()?)?));
        let covered: Vec<(String, Subnet)> = spec.address_pools.iter().filter_map(held).collect();
        match covered.first() {
            Some((pool, held)) if covered.len() == spec.address_pools.len() => Err(ApiError::invalid(format!(
                "the address pool {pool} lies in {held}, which this host reaches outside of the swarm: networks would have no \
                 subnets; give another one with --default-addr-pool"
            ))),
            _ => Ok(()),
        }
    }

    fn new_swarm(&self, request: InitSwarm) -> anyhow::Result<(Standing, Command)> {
        let id = SwarmId(self.host.random_u128());
        let authority = Authority::generate(id);
        let now = clock::unix();
        let meta = Meta { version: Version(0), created_at: now, updated_at: now };
        let identity = self.host.dir.identity()?;
        let unlock_key = request.spec.autolock.then(|| SecretBytes(self.host.random_bytes().to_vec()));
        let node = Node {
            id: self.host.node(),
            meta,
            spec: NodeSpec {
                name: None,
                labels: Labels::new(),
                role: Role::Manager,
                availability: request.availability,
            },
            public_key: identity.public_key(),
            description: self.host.description(),
            raft: Some(RaftMember { raft_id: FIRST_RAFT_ID, standing: RaftStanding::Voter }),
            health: NodeHealth::Up,
            flaps: 0,
        };
        let swarm = Swarm {
            id,
            meta,
            spec: request.spec,
            ca_public_key: authority.public_key(),
            ca_secret_key: SecretBytes(authority.secret().to_vec()),
            worker_token: TokenSecret::generate().to_bytes(),
            manager_token: TokenSecret::generate().to_bytes(),
            token_generation: 0,
            unlock_key,
            feature_level: FEATURE_LEVEL,
            membership_version: Version(1),
        };
        let certificate =
            admission::certificate(&swarm, &node, now).context("the swarm's new CA cannot issue a certificate")?;
        let members = MemberList {
            version: Version(0),
            members: vec![Member {
                node: node.id,
                public_key: node.public_key,
                role: Role::Manager,
                log_holder: true,
                addr: node.transport_addr(),
            }],
        };
        let standing = Standing {
            swarm: id,
            ca_public_key: swarm.ca_public_key,
            certificate,
            members,
            raft_id: Some(FIRST_RAFT_ID),
        };
        Ok((standing, Command::InitSwarm { swarm: Box::new(swarm), node: Box::new(node) }))
    }

    /// Goes on alone, from the log as this node has it, with all services and nodes; other managers must join anew.
    async fn force_new_cluster(&self) -> Result<NodeId, ApiError> {
        if self.is_locked() {
            return Err(self.outside());
        }
        let session = self.session().ok_or_else(|| {
            ApiError::Unavailable(
                "--force-new-cluster goes on from this node's log, but this node is in no swarm".into(),
            )
        })?;
        let standing = session.shared.standing();
        let raft_id = standing.raft_id.ok_or_else(|| {
            ApiError::Unavailable(
                "--force-new-cluster goes on from this node's log, but this node does not hold it".into(),
            )
        })?;
        session.stop().await;
        drop(session);
        self.session.send_replace(None);
        let host = &self.host;
        let identity = consensus::LogIdentity { swarm: standing.swarm, node: host.node(), raft_id };
        let key = host.log_key().map_err(internal)?;
        consensus::force_new_cluster(&host.dir.log_path(), &key, &identity, || host.crypto_rng())
            .map_err(|error| ApiError::Internal(error.to_string()))?;
        self.resume(standing).await.map_err(internal)?;
        Ok(host.node())
    }

    /// Joins the swarm that the token and the addresses lead to.
    pub async fn join(&self, request: JoinSwarm) -> Result<(), ApiError> {
        let _changing = self.changing.lock().await;
        if self.is_locked() {
            return Err(self.outside());
        }
        if self.session().is_some() {
            return Err(ApiError::Unavailable(
                "This node is already part of a swarm. Use \"flok swarm leave\" to leave this swarm and join another one."
                    .into(),
            ));
        }
        let token: JoinToken = request.token.parse().map_err(|error| ApiError::invalid(format!("{error}")))?;
        let remotes = resolve(&request.remote_addrs).await?;
        self.choose_addresses(request.listen_addr.as_deref(), request.advertise_addr.as_deref(), remotes.first())?;
        // Who is admitted and cannot listen would stand in the swarm's list for ever.
        check_listen_addr(self.host.listen_addr()).map_err(|error| ApiError::Unavailable(error.to_string()))?;
        let identity = self.host.dir.identity().map_err(|locked| internal(locked.into()))?;
        let usual = DEFAULT_DATA_PATH_PORT;
        let data_path_port = if self.free_data_path(usual).await.is_ok() { usual } else { 0 };
        let (description, availability) = (self.host.description(), request.availability);
        let around = self.host.surroundings().map_err(|error| internal(error.into()))?;
        let reaches = around.connected.into_iter().chain(around.local).collect();
        let mut ask = JoinRequest { description, availability, data_path_port, reaches };
        let deadline = admission::JOIN_DEADLINE;
        let mut joined = join::join(&identity, &token, &remotes, ask.clone(), deadline).await;
        if let Err(JoinError::Refused { refusal: Refusal::DataPathPort(port), .. }) = joined {
            self.free_data_path(port).await.map_err(|error| {
                ApiError::Unavailable(format!(
                    "{error}: free it. Every node of a swarm has the same one, chosen by `flok swarm init --data-path-port`"
                ))
            })?;
            ask.data_path_port = port;
            joined = join::join(&identity, &token, &remotes, ask, deadline).await;
        }
        let admitted = joined.map_err(|error| ApiError::Unavailable(error.to_string()))?;
        let standing = Standing {
            swarm: admitted.swarm,
            ca_public_key: admitted.ca_public_key,
            certificate: admitted.certificate,
            members: admitted.members,
            raft_id: None,
        };
        self.enter(standing, None).await.map_err(internal)
    }

    async fn free_data_path(&self, port: u16) -> Result<(), NetworkError> {
        self.host.task_networks().check_data_path_port(port).await
    }

    /// Writes the standing down and starts the session; on an error nothing is left of it.
    async fn enter(&self, standing: Standing, first: Option<consensus::First>) -> anyhow::Result<()> {
        self.host.dir.save_standing(&standing)?;
        let list = standing.members.clone();
        match Session::start(Arc::clone(&self.host), standing, first).await {
            Ok(session) => {
                session.shared.transport.set_wanted(roster::wanted(&list, self.host.node()));
                self.session.send_replace(Some(Arc::new(session)));
                Ok(())
            }
            Err(error) => {
                self.host.dir.forget_swarm()?;
                Err(error)
            }
        }
    }

    /// Leaves the swarm and forgets it; tasks are stopped.
    pub async fn leave(&self, force: bool) -> Result<(), ApiError> {
        let _changing = self.changing.lock().await;
        if self.is_locked() {
            return self.leave_locked(force).await;
        }
        let Some(session) = self.session() else {
            return Err(ApiError::Unavailable("This node is not part of a swarm".into()));
        };
        if session.shared.is_manager() && !force {
            return Err(ApiError::Unavailable(
                "You are attempting to leave the swarm on a node that is participating as a manager. Demote it first with \
                 \"flok node demote\", or use --force: the other managers then replace it by themselves."
                    .into(),
            ));
        }
        session.leave().await;
        self.forget().await.map_err(internal)
    }

    /// The others hear nothing of it: they take this node for dead, which it is for them. Its key is gone with the lock, so
    /// the daemon ends, and is another node when it starts again.
    async fn leave_locked(&self, force: bool) -> Result<(), ApiError> {
        if !force {
            return Err(ApiError::Unavailable(
                "This node is locked. Unlock it with \"flok swarm unlock\" before it leaves, or use --force: its part of the \
                 swarm's log and its identity are deleted, and the daemon stops and starts as a new node."
                    .into(),
            ));
        }
        self.forget().await.map_err(internal)?;
        self.host
            .stop_because("this node left a swarm that had locked it: start the daemon again as a new node".into());
        Ok(())
    }

    /// After the swarm removed this node.
    pub async fn forget_removed(&self) -> anyhow::Result<()> {
        let _changing = self.changing.lock().await;
        let Some(session) = self.session() else { return Ok(()) };
        tracing::warn!("this node was removed from the swarm: its tasks are stopped");
        session.stop().await;
        self.forget().await
    }

    async fn forget(&self) -> anyhow::Result<()> {
        self.session.send_replace(None);
        self.host.dir.forget_swarm()?;
        self.host.assign(&View::default());
        self.host.forget_networks();
        Ok(())
    }

    /// From the request, else the configuration, else the address that this machine uses towards `peer` (or at all).
    fn choose_addresses(
        &self,
        listen: Option<&str>,
        advertise: Option<&str>,
        peer: Option<&SocketAddr>,
    ) -> Result<(), ApiError> {
        let configured = self.host.config.listen_addr;
        let listen = match listen {
            // What Docker's CLI sends where nothing was asked for.
            None | Some("0.0.0.0:2377") => configured,
            Some(text) => parse_addr("listen address", text, configured.port())?,
        };
        let advertise = match (advertise, configured_advertise(&self.host.config)) {
            (Some(text), _) => parse_addr("advertise address", text, listen.port())?,
            (None, Some(configured)) => configured,
            (None, None) if !listen.ip().is_unspecified() => listen,
            (None, None) => SocketAddr::new(own_address(peer)?, listen.port()),
        };
        if advertise.ip().is_unspecified() {
            return Err(ApiError::invalid(format!(
                "{} is no address others can reach: use --advertise-addr",
                advertise.ip()
            )));
        }
        self.host.set_addresses(listen.ip(), advertise);
        Ok(())
    }
}

fn internal(error: anyhow::Error) -> ApiError {
    ApiError::Internal(format!("{error:#}"))
}
