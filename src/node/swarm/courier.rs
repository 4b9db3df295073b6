//! Consensus's way to the other log holders, over the transport.

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::consensus::{Courier, Lane, NoAnswer};
use crate::spec::NodeId;
use crate::transport::{Protocol, Transport};

pub struct Couriers(pub Transport);

impl Courier for Couriers {
    fn send(&self, to: NodeId, message: Bytes) {
        // What cannot be sent is lost; Raft sends it again.
        if let Err(error) = self.0.send(to, Protocol::Raft, message) {
            tracing::trace!(%to, ?error, "a raft message was not sent");
        }
    }

    fn request(
        &self,
        to: NodeId,
        lane: Lane,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, NoAnswer>> {
        let transport = self.0.clone();
        let protocol = match lane {
            Lane::Forward => Protocol::Forward,
            Lane::Bulk => Protocol::Bulk,
        };
        async move {
            let answer = transport.request(to, protocol, request, deadline).await;
            answer.map_err(|error| NoAnswer { node: to, why: error.to_string() })
        }
        .boxed()
    }
}
