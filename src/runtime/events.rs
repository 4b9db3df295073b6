//! Exits of containers, each once or more: from containerd's event stream, and from a list after each (re)connection,
//! since a stream tells only of what happens while it lives.

use std::collections::BTreeSet;
use std::time::Duration;

use containerd_client::events::{TaskExit, TaskOom};
use containerd_client::services::v1::{ListTasksRequest, PublishRequest, SubscribeRequest};
use containerd_client::tonic::Streaming;
use containerd_client::types::Envelope;
use containerd_client::types::v1::Status;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::Runtime;
use super::client::{Client, NAMESPACE, SHORT, call};
use super::error::{Result, RuntimeError};
use crate::agent::Exit;

/// A container's first process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerExit {
    pub container: String,
    /// Tells the runs of one container apart.
    pub pid: u32,
    pub exit: Exit,
}

/// Even with a healthy stream the list is compared this often.
const RELIST_EVERY: Duration = Duration::from_secs(300);
/// How often the marker is published until the stream shows it.
const MARK_EVERY: Duration = Duration::from_millis(50);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
const QUEUE: usize = 1024;

const EXIT: &str = "/tasks/exit";
const OUT_OF_MEMORY: &str = "/tasks/oom";
/// Our own: containerd sends nothing on a new stream before its first event, so the subscriber makes one.
const MARKER: &str = "/flok/subscribed";

impl Runtime {
    /// Follows the exits until the receiver is dropped. Returns when the stream is known to work.
    pub async fn exits(&self) -> Result<mpsc::Receiver<ContainerExit>> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let client = self.shared.client.clone();
        let stream = subscribe(&client).await?;
        tokio::spawn(async move {
            let mut follower = Follower { client, sender, out_of_memory: BTreeSet::new() };
            let mut stream = Some(stream);
            let mut backoff = BACKOFF_FIRST;
            while !follower.sender.is_closed() {
                let followed = match stream.take() {
                    Some(stream) => follower.follow(stream).await,
                    None => match subscribe(&follower.client).await {
                        Ok(new) => {
                            stream = Some(new);
                            backoff = BACKOFF_FIRST;
                            continue;
                        }
                        Err(error) => Err(error),
                    },
                };
                if let Err(error) = followed {
                    tracing::warn!(%error, "containerd's event stream ended, connecting again");
                    sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        });
        Ok(receiver)
    }
}

/// Opens a stream and returns once it has shown an event of our own: from then on nothing is missed.
async fn subscribe(client: &Client) -> Result<Streaming<Envelope>> {
    let topics = [EXIT, OUT_OF_MEMORY, MARKER];
    let filters = topics.iter().map(|topic| format!("namespace=={NAMESPACE},topic==\"{topic}\"")).collect();
    let mut events = client.events();
    let subscribed = events.subscribe(SubscribeRequest { filters });
    let marking = async {
        loop {
            let event = prost_types::Any { type_url: "flok.Subscribed".to_owned(), value: Vec::new() };
            let request = PublishRequest { topic: MARKER.to_owned(), event: Some(event) };
            call("publishing", "a marker event", SHORT, client.events().publish(request)).await?;
            sleep(MARK_EVERY).await;
        }
    };
    let opened = async {
        tokio::select! {
            stream = subscribed => stream.map_err(|status| RuntimeError::Containerd {
                operation: "subscribing to", object: "events".to_owned(), status: Box::new(status),
            }),
            failed = marking => failed,
        }
    };
    match timeout(SHORT, opened).await {
        Ok(Ok(stream)) => Ok(stream.into_inner()),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(RuntimeError::Timeout { operation: "subscribing to", object: "events".to_owned(), after: SHORT }),
    }
}

struct Follower {
    client: Client,
    sender: mpsc::Sender<ContainerExit>,
    out_of_memory: BTreeSet<String>,
}

impl Follower {
    async fn follow(&mut self, mut stream: Streaming<Envelope>) -> Result<()> {
        self.relist().await?;
        let mut relist_at = Instant::now() + RELIST_EVERY;
        loop {
            let next = tokio::select! {
                next = stream.message() => next,
                () = tokio::time::sleep_until(relist_at) => {
                    relist_at = Instant::now() + RELIST_EVERY;
                    self.relist().await?;
                    continue;
                }
                () = self.sender.closed() => return Ok(()),
            };
            match next {
                Ok(Some(envelope)) => self.take(envelope).await,
                Ok(None) => return Err(ended("the stream was closed")),
                Err(status) => return Err(ended(status.message())),
            }
        }
    }

    async fn take(&mut self, envelope: Envelope) {
        let value = envelope.event.map(|event| event.value).unwrap_or_default();
        match envelope.topic.as_str() {
            OUT_OF_MEMORY => {
                if let Ok(event) = TaskOom::decode(value.as_slice()) {
                    self.out_of_memory.insert(event.container_id);
                }
            }
            EXIT => {
                // An exec's exit carries the exec's id beside the container's.
                if let Ok(event) = TaskExit::decode(value.as_slice())
                    && event.id == event.container_id
                {
                    self.tell(event.container_id, event.pid, event.exit_status).await;
                }
            }
            _ => {}
        }
    }

    async fn relist(&mut self) -> Result<()> {
        let request = ListTasksRequest::default();
        let list = call("listing", "tasks", SHORT, self.client.tasks().list(request)).await?;
        for process in list.tasks {
            if process.status == Status::Stopped as i32 {
                let id = if process.container_id.is_empty() { process.id } else { process.container_id };
                self.tell(id, process.pid, process.exit_status).await;
            }
        }
        Ok(())
    }

    async fn tell(&mut self, container: String, pid: u32, status: u32) {
        let out_of_memory = self.out_of_memory.remove(&container);
        let exit = Exit { code: i32::try_from(status).unwrap_or(i32::MAX), out_of_memory };
        // A closed channel ends the loop above.
        let _ = self.sender.send(ContainerExit { container, pid, exit }).await;
    }
}

fn ended(why: &str) -> RuntimeError {
    let status = containerd_client::tonic::Status::unavailable(why);
    RuntimeError::Containerd { operation: "following", object: "events".to_owned(), status: Box::new(status) }
}
