//! Blobs in containerd's content store.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use containerd_client::services::v1::{
    Info, InfoRequest, ReadContentRequest, ReadContentResponse, UpdateRequest, WriteAction, WriteContentRequest,
    WriteContentResponse,
};
use containerd_client::tonic::{Code, Streaming};
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;

use super::manifest::MAX_DOCUMENT_BYTES;
use crate::runtime::client::{Client, LONG, SHORT, call};
use crate::runtime::error::{Result, RuntimeError};

/// Bytes of a blob sent to containerd at once.
const CHUNK_BYTES: usize = 512 * 1024;

/// How long another writer of the same blob is waited for, looking this often.
const LOCKED_FOR: Duration = Duration::from_secs(15 * 60);
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub type LabelMap = HashMap<String, String>;

/// A document, whole.
pub async fn read(client: &Client, digest: &str) -> Result<Vec<u8>> {
    let mut pieces = pieces(client, digest).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
            return Err(RuntimeError::BrokenImage {
                image: digest.to_owned(),
                reason: "a document of it is far too large".to_owned(),
            });
        }
    }
    Ok(bytes)
}

/// Bytes of a blob; an error where it is not here.
pub async fn size(client: &Client, digest: &str) -> Result<u64> {
    let request = InfoRequest { digest: digest.to_owned() };
    let found = call("looking at blob", digest, SHORT, client.content().info(request)).await?;
    Ok(found.info.map_or(0, |info| u64::try_from(info.size).unwrap_or(0)))
}

/// A blob from its beginning, of any size.
pub async fn pieces(client: &Client, digest: &str) -> Result<Pieces> {
    let request = ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
    let stream = call("reading blob", digest, SHORT, client.content().read(request)).await?;
    Ok(Pieces { stream, digest: digest.to_owned() })
}

pub struct Pieces {
    stream: Streaming<ReadContentResponse>,
    digest: String,
}

impl Pieces {
    /// `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let (operation, object) = ("reading blob", || self.digest.clone());
        match tokio::time::timeout(SHORT, self.stream.message()).await {
            Ok(Ok(part)) => Ok(part.map(|part| part.data.into())),
            Ok(Err(status)) => Err(RuntimeError::Containerd { operation, object: object(), status: Box::new(status) }),
            Err(_) => Err(RuntimeError::Timeout { operation, object: object(), after: SHORT }),
        }
    }
}

/// Adds labels to a blob that is there.
pub async fn label(client: &Client, digest: &str, labels: LabelMap) -> Result<()> {
    if labels.is_empty() {
        return Ok(());
    }
    let paths = labels.keys().map(|name| format!("labels.{name}")).collect();
    let request = UpdateRequest {
        info: Some(Info { digest: digest.to_owned(), labels, ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths }),
    };
    call("labelling blob", digest, SHORT, client.content().update(request)).await.map(|_| ())
}

/// Writes a blob that is in memory.
pub async fn write_bytes(client: &Client, digest: &str, bytes: Vec<u8>, labels: LabelMap) -> Result<()> {
    let total = bytes.len() as u64;
    if let Some(mut writer) = Writer::open(client, digest, total, labels).await? {
        writer.restart_at(0);
        writer.write(bytes.into()).await?;
        writer.commit().await?;
    }
    Ok(())
}

/// An ingest under way. Left alone it stays, and a later writer of the same digest goes on where it stopped.
pub struct Writer {
    requests: mpsc::Sender<WriteContentRequest>,
    answers: Streaming<WriteContentResponse>,
    digest: String,
    total: u64,
    offset: u64,
    labels: LabelMap,
}

impl Writer {
    /// `None`: the blob is there already, and has the labels now. Waits while another writer is at the same blob: two images
    /// may share a layer.
    pub async fn open(client: &Client, digest: &str, total: u64, labels: LabelMap) -> Result<Option<Writer>> {
        let mut waited = Duration::ZERO;
        loop {
            match Writer::try_open(client, digest, total, labels.clone()).await {
                Err(RuntimeError::Containerd { status, .. })
                    if status.code() == Code::Unavailable
                        && status.message().contains("locked")
                        && waited < LOCKED_FOR =>
                {
                    tokio::time::sleep(LOOK_EVERY).await;
                    waited += LOOK_EVERY;
                }
                opened => return opened,
            }
        }
    }

    async fn try_open(client: &Client, digest: &str, total: u64, labels: LabelMap) -> Result<Option<Writer>> {
        let (requests, outgoing) = mpsc::channel(1);
        let first = WriteContentRequest {
            action: WriteAction::Stat as i32,
            r#ref: format!("flok-{digest}"),
            total: signed(total),
            expected: digest.to_owned(),
            ..Default::default()
        };
        requests.send(first).await.expect("the receiver is held below");
        let outgoing =
            futures::stream::unfold(outgoing, |mut from| async { from.recv().await.map(|next| (next, from)) });
        let opened = call("writing blob", digest, SHORT, client.content().write(outgoing)).await;
        let answers = match opened {
            Ok(answers) => answers,
            Err(error) if error.already_exists() => return label(client, digest, labels).await.map(|()| None),
            Err(error) => return Err(error),
        };
        let mut writer = Writer { requests, answers, digest: digest.to_owned(), total, offset: 0, labels };
        match writer.answer(SHORT).await {
            // One that is all there and was not committed has a wrong digest: it begins anew.
            Ok(status) => writer.offset = u64::try_from(status.offset).ok().filter(|at| *at < total).unwrap_or(0),
            Err(error) if error.already_exists() => return label(client, digest, writer.labels).await.map(|()| None),
            Err(error) => return Err(error),
        }
        Ok(Some(writer))
    }

    /// Bytes that are there from an earlier attempt.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The source cannot go on where the last attempt stopped: containerd truncates when it sees the smaller offset.
    pub fn restart_at(&mut self, offset: u64) {
        self.offset = offset;
    }

    pub async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(CHUNK_BYTES));
            let len = part.len() as u64;
            self.request(WriteAction::Write, part.into(), LabelMap::new()).await?;
            self.answer(LONG).await?;
            self.offset += len;
        }
        Ok(())
    }

    /// Writes all of `source`, telling `progress` of each part; the error of the source comes as it is.
    pub async fn copy<E>(
        &mut self,
        mut source: impl Stream<Item = Result<Bytes, E>> + Unpin,
        stall: Duration,
        mut progress: impl FnMut(u64),
    ) -> Result<Result<(), CopyError<E>>> {
        loop {
            match tokio::time::timeout(stall, source.next()).await {
                Err(_) => return Ok(Err(CopyError::Stalled(stall))),
                Ok(None) => return Ok(Ok(())),
                Ok(Some(Err(error))) => return Ok(Err(CopyError::Source(error))),
                Ok(Some(Ok(part))) => {
                    let len = part.len() as u64;
                    self.write(part).await?;
                    progress(len);
                }
            }
        }
    }

    /// Containerd checks the digest.
    pub async fn commit(mut self) -> Result<()> {
        let labels = std::mem::take(&mut self.labels);
        self.request(WriteAction::Commit, Vec::new(), labels).await?;
        match self.answer(LONG).await {
            Err(error) if !error.already_exists() => Err(error),
            _ => Ok(()),
        }
    }

    async fn request(&self, action: WriteAction, data: Vec<u8>, labels: LabelMap) -> Result<()> {
        let request = WriteContentRequest {
            action: action as i32,
            r#ref: format!("flok-{}", self.digest),
            total: signed(self.total),
            expected: self.digest.clone(),
            offset: signed(self.offset),
            data,
            labels,
        };
        // A closed channel means that containerd ended the stream; its answer says why.
        let _ = self.requests.send(request).await;
        Ok(())
    }

    async fn answer(&mut self, within: Duration) -> Result<WriteContentResponse> {
        let operation = "writing blob";
        let object = || self.digest.clone();
        match tokio::time::timeout(within, self.answers.message()).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => {
                let status = containerd_client::tonic::Status::unavailable("containerd ended the stream");
                Err(RuntimeError::Containerd { operation, object: object(), status: Box::new(status) })
            }
            Ok(Err(status)) => {
                call(operation, object(), within, async { Err::<containerd_client::tonic::Response<_>, _>(status) })
                    .await
            }
            Err(_) => Err(RuntimeError::Timeout { operation, object: object(), after: within }),
        }
    }
}

pub enum CopyError<E> {
    Stalled(Duration),
    Source(E),
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
