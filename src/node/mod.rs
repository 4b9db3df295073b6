//! The composition root: the one room that knows all others, and the only one that reads a clock or draws randomness
//! for the core.
//!
//! [`run`] is a daemon's whole life. `daemon` is what lives from start to stop of the process; `swarm` what lives from
//! joining a swarm to leaving it; `worker` runs this node's tasks in either case.

mod addresses;
mod backend;
mod clock;
pub mod config;
mod containers;
mod daemon;
mod execs;
mod facts;
mod files;
mod host;
pub mod keyring;
mod logging;
mod preflight;
mod socket;
mod standing;
mod store;
mod support;
mod swarm;
mod systemd;
pub mod watcher;
pub mod worker;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::config::Config;
use self::daemon::Daemon;
use self::host::{Inbox, Order};
pub use self::socket::HandedOver;
use self::socket::Sockets;
use self::standing::DataDir;
pub use self::swarm::decisions;
use crate::api::Journal;

/// For requests under way and for handing leadership over.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Runs a daemon until SIGTERM or SIGINT. Containers go on running after it.
pub async fn run(config: Config, handed: HandedOver) -> anyhow::Result<()> {
    logging::start(&config)?;
    if !nix::unistd::geteuid().is_root() {
        anyhow::bail!(
            "the flok daemon needs root, for containers and their networks: run it as root, or by the unit file"
        );
    }
    let dir = DataDir::open(&config.data_dir)?;
    preflight::check(&config)?;
    let socket = config.socket.clone();
    let mut sockets = Sockets::open(handed, config.sockets())?;
    let (daemon, inbox) = Daemon::start(config, dir).await?;

    let Inbox { mut orders, calls } = inbox;
    let journal = Journal::default();
    tokio::spawn(containers::serve(Arc::clone(&daemon), calls, journal.clone()));
    let closing = CancellationToken::new();
    let shutdown = closing.clone().cancelled_owned();
    let serving = tokio::spawn(crate::api::serve(sockets.take(), Arc::clone(&daemon), journal, shutdown));
    systemd::ready();
    tracing::info!(socket = %socket.display(), node = %daemon.host.node(), "ready");

    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let reason = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            order = orders.recv() => match order {
                Some(Order::Removed) => {
                    if let Err(error) = daemon.forget_removed().await {
                        tracing::error!(error = format!("{error:#}"), "the swarm cannot be forgotten");
                    }
                }
                Some(Order::Stop(reason)) => break Some(reason),
                None => break None,
            },
        }
    };
    systemd::stopping();
    tracing::info!("stopping; containers go on");
    closing.cancel();
    let stopped = timeout(STOP_WITHIN, async {
        daemon.stop().await;
        serving.await
    });
    if stopped.await.is_err() {
        tracing::warn!("not everything stopped in time");
    }
    drop(sockets);
    match reason {
        Some(reason) => Err(anyhow::anyhow!(reason)),
        None => Ok(()),
    }
}
