//! The joiner's side. It has no member list and no swarm yet, so it brings a small libp2p swarm of its own, which offers
//! nothing and is gone when the conversation is over.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use libp2p::PeerId;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{Swarm, SwarmEvent};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    Admitted, Answer, Hello, JoinError, JoinRequest, MAX_CLOCK_SKEW, NotRecognised, Refusal, Request, VERSION, Welcome,
};
use crate::spec::UnixMs;
use crate::transport::certificate::{Certificate, CertificateError};
use crate::transport::clock;
use crate::transport::counters::Counters;
use crate::transport::identity::{self, Identity, PublicKey};
use crate::transport::protocol::{Protocol, Topic};
use crate::transport::streams::{self, Admits};
use crate::transport::swarm::{build_swarm, multiaddr};
use crate::transport::token::JoinToken;
use crate::transport::wire::{MessageStream, StreamError};

/// Addresses tried in one join, those that others named among them.
const MAX_ADDRESSES: usize = 16;

/// To read what came before the connection's end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A joiner is asked nothing: whoever it dials is offered no protocol.
struct Nobody;

impl Admits for Nobody {
    fn offered(&self, _: &PeerId) -> Vec<Topic> {
        Vec::new()
    }

    fn is_member(&self, _: &PeerId) -> bool {
        true
    }
}

/// What a member says first.
#[derive(Debug, Clone)]
pub struct Greeting {
    pub ca_public_key: PublicKey,
    /// The member's own, which is the CA's and belongs to the key at the other end.
    pub certificate: Certificate,
}

/// Joins at the first of `addresses` that lets this node in, following those that are no managers to managers. Answers
/// within `deadline`, with the refusal or error that says most.
pub async fn join(
    identity: &Identity,
    token: &JoinToken,
    addresses: &[SocketAddr],
    request: JoinRequest,
    deadline: Duration,
) -> Result<Admitted, JoinError> {
    let until = Instant::now() + deadline;
    let mut to_try = addresses.to_vec();
    let mut error = JoinError::NoAddress;
    let mut next = 0;
    while let Some(&addr) = to_try.get(next) {
        next += 1;
        // What is left of the time is shared with the addresses not tried yet, so that one dead address costs no join.
        let left = until.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(to_try.len() - next + 1).unwrap_or(u32::MAX);
        tracing::info!(%addr, "joining");
        match join_at(identity, token, addr, &request, share).await {
            Ok(admitted) => return Ok(admitted),
            Err(JoinError::Refused { refusal: Refusal::NotAManager { managers }, .. }) => {
                let unknown: Vec<_> = managers.into_iter().filter(|m| !to_try.contains(m)).collect();
                to_try.extend(unknown);
                to_try.truncate(MAX_ADDRESSES);
                error = prefer(error, JoinError::Refused { addr, refusal: Refusal::NotAManager { managers: vec![] } });
            }
            // Any other manager would say the same.
            Err(last @ JoinError::Refused { refusal: Refusal::WrongToken | Refusal::DataPathPort(_), .. }) => {
                return Err(last);
            }
            Err(last) => {
                tracing::info!(%addr, error = %last, "not joined");
                error = prefer(error, last);
            }
        }
    }
    Err(error)
}

/// Of two failures, the one that a person can do something about: what a swarm said over what it did not.
fn prefer(first: JoinError, second: JoinError) -> JoinError {
    let weight = |error: &JoinError| match error {
        JoinError::NoAddress => 0,
        JoinError::Unreachable { .. } | JoinError::TimedOut { .. } => 1,
        JoinError::Refused { refusal: Refusal::NotAManager { .. }, .. } => 2,
        JoinError::Broken { .. } | JoinError::Unexpected { .. } => 3,
        _ => 4,
    };
    if weight(&second) > weight(&first) { second } else { first }
}

async fn join_at(
    identity: &Identity,
    token: &JoinToken,
    addr: SocketAddr,
    request: &JoinRequest,
    deadline: Duration,
) -> Result<Admitted, JoinError> {
    with_member(identity, addr, deadline, async |stream, peer| {
        let greeting = exchange_greetings(stream, peer, addr).await?;
        if !token.is_for(&greeting.ca_public_key) {
            return Err(JoinError::WrongSwarm { addr });
        }
        let asked = Request::Join { secret: token.secret().clone(), request: Box::new(request.clone()) };
        stream.send_value(&asked).await.map_err(|source| JoinError::Broken { addr, source })?;
        let answer = stream.receive_value().await.map_err(|source| JoinError::Broken { addr, source })?;
        match answer {
            Answer::Admitted(admitted) => check_admitted(identity, &greeting, *admitted, addr),
            Answer::Refused(refusal) => Err(JoinError::Refused { addr, refusal }),
            Answer::Known | Answer::NotKnown(_) | Answer::NoMember => Err(JoinError::Unexpected { addr }),
        }
    })
    .await
}

/// Asks who listens at an address, and has it prove that `ca` counts it among the swarm's members: for a node whose
/// member list is so old that nobody in it answers.
pub async fn greet(
    identity: &Identity,
    ca: &PublicKey,
    addr: SocketAddr,
    deadline: Duration,
) -> Result<Greeting, JoinError> {
    with_member(identity, addr, deadline, async |stream, peer| {
        let greeting = exchange_greetings(stream, peer, addr).await?;
        if greeting.ca_public_key == *ca { Ok(greeting) } else { Err(JoinError::WrongSwarm { addr }) }
    })
    .await
}

/// Shows this node's certificate on a connection to a member that does not list it. `Err` says why it did not help.
pub(in crate::transport) async fn present(
    mut stream: MessageStream,
    certificate: Certificate,
    addr: SocketAddr,
) -> Result<(), NotRecognised> {
    let talk = async {
        stream.send_value(&Hello { version: VERSION }).await?;
        let Welcome::Member { .. } = stream.receive_value().await? else { return Ok(Answer::NotKnown(String::new())) };
        stream.send_value(&Request::Present { certificate, addr }).await?;
        stream.receive_value().await
    };
    match talk.await {
        Ok(Answer::Known) => Ok(()),
        Ok(Answer::NoMember) => Err(NotRecognised::Removed),
        Ok(Answer::NotKnown(reason)) => Err(NotRecognised::Other(reason)),
        Ok(Answer::Admitted(_) | Answer::Refused(_)) => Err(NotRecognised::Other("an unexpected answer".into())),
        Err::<_, StreamError>(error) => Err(NotRecognised::Other(error.to_string())),
    }
}

/// Sends nothing but the version, and checks everything that can be checked without the token.
async fn exchange_greetings(stream: &mut MessageStream, peer: PeerId, addr: SocketAddr) -> Result<Greeting, JoinError> {
    let broken = |source| JoinError::Broken { addr, source };
    let hello = Hello { version: VERSION };
    stream.send_value(&hello).await.map_err(broken)?;
    let (ca_public_key, certificate, now) = match stream.receive_value().await.map_err(broken)? {
        Welcome::Member { ca_public_key, certificate, now } => (ca_public_key, certificate, now),
        Welcome::Refused(refusal) => return Err(JoinError::Refused { addr, refusal }),
    };
    let not_proven = |source| JoinError::NotProven { addr, source };
    certificate.verify(&ca_public_key).map_err(not_proven)?;
    if identity::peer_id(&certificate.public_key) != Some(peer) {
        return Err(not_proven(CertificateError::WrongKey));
    }
    // The clock before the expiry: a clock that is off is the likelier reason for a certificate that seems expired.
    let skew = skew(clock::unix_now(), now);
    if skew > MAX_CLOCK_SKEW {
        return Err(JoinError::ClockOff { addr, skew });
    }
    certificate.check_time(clock::unix_now()).map_err(not_proven)?;
    Ok(Greeting { ca_public_key, certificate })
}

fn skew(one: UnixMs, other: UnixMs) -> Duration {
    Duration::from_millis(one.0.abs_diff(other.0))
}

fn check_admitted(
    identity: &Identity,
    greeting: &Greeting,
    admitted: Admitted,
    addr: SocketAddr,
) -> Result<Admitted, JoinError> {
    let not_proven = |source| JoinError::NotProven { addr, source };
    let certificate = &admitted.certificate;
    certificate.verify(&greeting.ca_public_key).map_err(not_proven)?;
    if certificate.swarm != greeting.certificate.swarm || admitted.swarm != certificate.swarm {
        return Err(not_proven(CertificateError::WrongSwarm(certificate.swarm)));
    }
    if certificate.public_key != identity.public_key() || admitted.ca_public_key != greeting.ca_public_key {
        return Err(not_proven(CertificateError::WrongKey));
    }
    Ok(admitted)
}

/// Dials `addr`, opens a join stream and has `talk` on it.
async fn with_member<T>(
    identity: &Identity,
    addr: SocketAddr,
    deadline: Duration,
    talk: impl AsyncFnOnce(&mut MessageStream, PeerId) -> Result<T, JoinError>,
) -> Result<T, JoinError> {
    let mut swarm = build_swarm(identity, streams::Behaviour::new(Arc::new(Nobody)));
    let work = async {
        let (peer, answer) = connect(&mut swarm, addr).await?;
        let talking = async {
            let stream = match answer.await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return Err(unreachable(addr, error)),
                Err(_) => return Err(unreachable(addr, "the connection closed")),
            };
            let counters = Arc::new(Counters::default());
            let mut stream = MessageStream::new(stream, Protocol::Join, counters, CancellationToken::new());
            let result = talk(&mut stream, peer).await;
            // The other side may have closed already.
            let _ = stream.writer.close().await;
            result
        };
        hear_out(talking, drive(&mut swarm), addr).await
    };
    let until = Instant::now() + deadline;
    timeout_at(until, work).await.unwrap_or(Err(JoinError::TimedOut { addr, after: deadline }))
}

/// What a member said before it closed the connection counts, also where the end of it is noticed first.
async fn hear_out<T>(
    talking: impl Future<Output = Result<T, JoinError>>,
    closed: impl Future<Output = ()>,
    addr: SocketAddr,
) -> Result<T, JoinError> {
    let mut talking = pin!(talking);
    tokio::select! {
        result = &mut talking => return result,
        () = closed => {}
    }
    timeout(LAST_WORDS, talking).await.unwrap_or_else(|_| Err(unreachable(addr, "the connection closed")))
}

type Answering = oneshot::Receiver<Result<libp2p::Stream, streams::OpenError>>;

async fn connect(swarm: &mut Swarm<streams::Behaviour>, addr: SocketAddr) -> Result<(PeerId, Answering), JoinError> {
    let dial = DialOpts::unknown_peer_id().address(multiaddr(addr)).build();
    swarm.dial(dial).map_err(|error| unreachable(addr, error))?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                let (sender, answer) = oneshot::channel();
                swarm.behaviour_mut().open(peer_id, connection_id, Topic::Of(Protocol::Join), sender);
                return Ok((peer_id, answer));
            }
            SwarmEvent::OutgoingConnectionError { error, .. } => {
                return Err(unreachable(addr, crate::transport::swarm::dial_reason(&error)));
            }
            _ => {}
        }
    }
}

/// Until the connection is closed.
async fn drive(swarm: &mut Swarm<streams::Behaviour>) {
    loop {
        if let SwarmEvent::ConnectionClosed { .. } = swarm.select_next_some().await {
            return;
        }
    }
}

fn unreachable(addr: SocketAddr, reason: impl ToString) -> JoinError {
    JoinError::Unreachable { addr, reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_that_comes_with_the_end_of_the_connection_is_heard() {
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let answered = async {
            tokio::task::yield_now().await;
            Ok("admitted")
        };
        assert_eq!(hear_out(answered, std::future::ready(()), addr).await.ok(), Some("admitted"));
    }
}
