//! Hands what arrives from other nodes to whom it concerns.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::dispatch;
use crate::gossip::{RepairRequest, SignedRecord};
use crate::membership::AlarmReport;
use crate::state::codec;
use crate::transport::{Incoming, MessageStream, Protocol, Reply, Sender};

pub async fn run(shared: Arc<Shared>, mut incoming: mpsc::Receiver<Incoming>, cancel: CancellationToken) {
    while let Some(arrival) = incoming.recv().await {
        match arrival {
            Incoming::Message { from, protocol, message } => take_message(&shared, from, protocol, message),
            Incoming::Request { from, protocol, request, reply } => {
                // Requests may wait (for a quorum, for a disk): none holds up the next.
                let shared = Arc::clone(&shared);
                tokio::spawn(async move { answer(&shared, from, protocol, request, reply).await });
            }
            Incoming::Stream { from, protocol, stream } => take_stream(&shared, from, protocol, stream, &cancel),
            Incoming::Gossip { message, .. } => {
                if shared.is_manager()
                    && let Ok(signed) = codec::decode::<SignedRecord>(&message)
                {
                    shared.observed.handle_record(signed, |node| shared.is_member(node));
                }
            }
            Incoming::Connected(node) => {
                tracing::debug!(%node, "connected");
                shared.observed.hurry();
            }
            Incoming::Disconnected(node) => tracing::debug!(%node, "disconnected"),
            // It was away when it was removed: neither its log nor a stream could tell it.
            Incoming::Disowned(manager) => {
                tracing::warn!(%manager, "a manager says that this node was removed");
                shared.host.removed_from_swarm();
            }
        }
    }
}

fn take_message(shared: &Shared, from: Sender, protocol: Protocol, message: Bytes) {
    match protocol {
        Protocol::Raft => {
            if let Some(log) = shared.log() {
                log.receive(from.node, message);
            }
        }
        Protocol::Alarm => match codec::decode::<AlarmReport>(&message) {
            Ok(report) => shared.observed.handle_alarms(from.node, report),
            Err(error) => tracing::warn!(from = %from.node, %error, "an alarm cannot be read"),
        },
        other => tracing::warn!(from = %from.node, protocol = other.as_str(), "an unexpected message"),
    }
}

async fn answer(shared: &Arc<Shared>, from: Sender, protocol: Protocol, request: Bytes, reply: Reply) {
    match protocol {
        Protocol::Forward | Protocol::Bulk => match shared.log() {
            Some(log) => reply.answer(log.serve(from.node, request).await),
            None => reply.refuse("this node does not hold the log"),
        },
        Protocol::Repair => match codec::decode::<RepairRequest>(&request) {
            Ok(request) => {
                let answer = shared.observed.answer(request, |node| shared.is_member(node));
                reply.answer(codec::encode(&answer));
            }
            Err(error) => reply.refuse(format!("the repair request cannot be read: {error}")),
        },
        Protocol::Doctor => super::doctor::answer(shared, &from, request, reply).await,
        other => reply.refuse(format!("nothing is asked on {}", other.as_str())),
    }
}

fn take_stream(
    shared: &Arc<Shared>,
    from: Sender,
    protocol: Protocol,
    stream: MessageStream,
    cancel: &CancellationToken,
) {
    match (protocol, shared.log()) {
        (Protocol::Dispatch, Some(log)) => {
            let sources = dispatch::Sources {
                log,
                observed: Arc::clone(&shared.observed),
                networks: shared.networks.subscribe(),
            };
            tokio::spawn(dispatch::serve(from.node, stream, sources, cancel.clone()));
        }
        (Protocol::Logs, _) => {
            let shared = Arc::clone(shared);
            tokio::spawn(cancel.clone().run_until_cancelled_owned(async move {
                super::logs::serve(&shared, stream).await;
            }));
        }
        (Protocol::Call, _) => shared.host.take_call(stream.into_bytes()),
        // Dropped: the node tries another manager.
        _ => {}
    }
}
