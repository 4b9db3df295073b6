//! The member's side of the conversation.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use libp2p::PeerId;
use tokio::time::timeout;

use super::{Admission, Answer, Candidate, Hello, Refusal, Request, VERSION, Welcome};
use crate::spec::Role;
use crate::transport::certificate::{Certificate, CertificateError};
use crate::transport::clock;
use crate::transport::identity;
use crate::transport::members::{NotAdmitted, Roster};
use crate::transport::wire::{MessageStream, StreamError};

/// For a whole conversation, admission by the log included.
const TALK_LIMIT: Duration = Duration::from_secs(30);

/// Talks to one stranger.
pub(in crate::transport) struct Doorkeeper {
    pub peer: PeerId,
    pub remote: IpAddr,
    pub stream: MessageStream,
    pub roster: Arc<Roster>,
    pub certificate: Certificate,
    pub admission: Option<Arc<dyn Admission>>,
    /// Held while the conversation lasts, so that its connection is not closed under it.
    pub _joining: Arc<()>,
}

impl Doorkeeper {
    pub(in crate::transport) async fn run(mut self) {
        match timeout(TALK_LIMIT, self.talk()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(remote = %self.remote, %error, "a join broke off"),
            Err(_) => tracing::debug!(remote = %self.remote, "a join took too long"),
        }
    }

    async fn talk(&mut self) -> Result<(), StreamError> {
        let hello: Hello = self.stream.receive_value().await?;
        if hello.version != VERSION {
            let refusal = Refusal::ProtocolVersion { spoken: VERSION, offered: hello.version };
            self.stream.send_value(&Welcome::Refused(refusal)).await?;
            return self.stream.writer.close().await;
        }
        let welcome = Welcome::Member {
            ca_public_key: self.roster.ca(),
            certificate: self.certificate.clone(),
            now: clock::unix_now(),
        };
        self.stream.send_value(&welcome).await?;
        let answer = match self.stream.receive().await? {
            // It only wanted to know who is here, or did not like what it saw.
            None => return Ok(()),
            Some(request) => match crate::state::codec::decode(&request) {
                Ok(Request::Join { secret, request }) => self.decide(secret, *request).await,
                Ok(Request::Present { certificate, addr }) => match self.recognise(&certificate, addr) {
                    Ok(()) => Answer::Known,
                    Err(NotAdmitted::NoMember { .. }) => Answer::NoMember,
                    Err(reason) => Answer::NotKnown(reason.to_string()),
                },
                Err(_) => Answer::NotKnown("the request does not decode".into()),
            },
        };
        self.stream.send_value(&answer).await?;
        self.stream.writer.close().await
    }

    async fn decide(&self, secret: super::TokenSecret, request: super::JoinRequest) -> Answer {
        let managers = || Refusal::NotAManager { managers: self.roster.managers() };
        let Some(admission) = self.admission.as_ref().filter(|_| self.roster.local_role() == Role::Manager) else {
            return Answer::Refused(managers());
        };
        let Some(public_key) = identity::public_key(&self.peer) else {
            return Answer::Refused(Refusal::TryAgain("its key is not an ed25519 key".into()));
        };
        let node = identity::node_id(&public_key);
        let candidate = Candidate { node, public_key, remote: self.remote, secret, request };
        match admission.admit(candidate).await {
            Ok(admitted) => {
                tracing::info!(%node, remote = %self.remote, "admitted a node");
                Answer::Admitted(Box::new(admitted))
            }
            Err(refusal) => {
                tracing::info!(%node, remote = %self.remote, %refusal, "refused a node");
                Answer::Refused(refusal)
            }
        }
    }

    fn recognise(&self, certificate: &Certificate, addr: std::net::SocketAddr) -> Result<(), NotAdmitted> {
        if identity::peer_id(&certificate.public_key) != Some(self.peer) {
            return Err(CertificateError::WrongKey.into());
        }
        self.roster.admit(certificate, addr)
    }
}
