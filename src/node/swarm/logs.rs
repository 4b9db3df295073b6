//! Logs of tasks on other nodes: asked for on a stream, answered line by line until the end or until nobody listens.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::Shared;
use crate::api::{LogLine, LogOptions};
use crate::node::host::Host;
use crate::runtime::logs::{LogQuery, LogStream};
use crate::spec::*;
use crate::state::codec;
use crate::transport::{MessageStream, Protocol};

const OPEN_WITHIN: Duration = Duration::from_secs(2);
/// A listener that takes no line for this long is gone.
const SEND_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize, Deserialize)]
struct Ask {
    tasks: Vec<TaskId>,
    stdout: bool,
    stderr: bool,
    follow: bool,
    tail: Option<u64>,
    since: Option<UnixMs>,
    until: Option<UnixMs>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    task: TaskId,
    stderr: bool,
    time: String,
    line: Vec<u8>,
    attributes: Labels,
}

/// Lines of tasks on one node; a node that cannot be reached gives a line that says so.
pub async fn from_node(
    shared: &Arc<Shared>,
    node: NodeId,
    tasks: Vec<TaskId>,
    options: LogOptions,
) -> BoxStream<'static, LogLine> {
    if node == shared.me {
        return local(&shared.host, tasks, options);
    }
    let complaint = tasks.first().copied();
    match open(shared, node, tasks, options).await {
        Ok(stream) => stream::unfold(stream, move |mut stream| async move {
            let message = stream.receive().await.ok()??;
            let Line { task, stderr, time, line, attributes } = codec::decode(&message).ok()?;
            Some((LogLine { node, task, stderr, time, line: Bytes::from(line), attributes }, stream))
        })
        .boxed(),
        Err(error) => {
            let line = Bytes::from(format!("flok: the logs on node {node} cannot be read: {error}\n"));
            let (time, attributes) = (String::new(), Labels::new());
            let lines = complaint.map(|task| LogLine { node, task, stderr: true, time, line, attributes });
            stream::iter(lines).boxed()
        }
    }
}

async fn open(shared: &Shared, node: NodeId, tasks: Vec<TaskId>, options: LogOptions) -> anyhow::Result<MessageStream> {
    let LogOptions { stdout, stderr, follow, tail, since, until } = options;
    let ask = Ask { tasks, stdout, stderr, follow, tail, since, until };
    let mut stream = shared.transport.open(node, Protocol::Logs, OPEN_WITHIN).await?;
    stream.send(&codec::encode(&ask)).await?;
    Ok(stream)
}

/// Lines of this node's own tasks.
pub fn local(host: &Host, tasks: Vec<TaskId>, options: LogOptions) -> BoxStream<'static, LogLine> {
    let node = host.node();
    let at = |time: UnixMs| Timestamp::from_millisecond(i64::try_from(time.0).ok()?).ok();
    let query = LogQuery {
        tail: options.tail,
        since: options.since.and_then(at),
        until: options.until.and_then(at),
        follow: options.follow,
    };
    let logs = tasks.into_iter().filter_map(|task| match host.runtime.logs(task, query.clone()) {
        Ok(lines) => Some((task, lines)),
        // A task that has not written yet, or whose log is gone with it.
        Err(error) => {
            tracing::debug!(%task, %error, "no log");
            None
        }
    });
    let streams = logs.map(|(task, lines)| {
        let lines = stream::unfold(lines, |mut lines| async move { Some((lines.recv().await?, lines)) });
        lines.map(move |line| (task, line)).boxed()
    });
    let wanted = move |stream: LogStream| match stream {
        LogStream::Stdout => options.stdout,
        LogStream::Stderr => options.stderr,
    };
    stream::select_all(streams.collect::<Vec<_>>())
        .filter(move |(_, line)| std::future::ready(wanted(line.stream)))
        .map(move |(task, line)| LogLine {
            node,
            task,
            stderr: line.stream == LogStream::Stderr,
            time: format!("{:.9}", line.time),
            line: Bytes::from(line.text),
            attributes: line.attributes,
        })
        .boxed()
}

/// Answers another node's question.
pub async fn serve(shared: &Shared, mut stream: MessageStream) {
    let Ok(Ok(Some(message))) = timeout(OPEN_WITHIN, stream.receive()).await else { return };
    let Ok(Ask { tasks, stdout, stderr, follow, tail, since, until }) = codec::decode(&message) else { return };
    let mut lines = local(&shared.host, tasks, LogOptions { stdout, stderr, follow, tail, since, until });
    let (mut reader, mut writer) = stream.split();
    loop {
        let line = tokio::select! {
            line = lines.next() => line,
            // The listener says nothing more: its end is the end.
            _ = reader.receive() => return,
        };
        let Some(LogLine { task, stderr, time, line, attributes, .. }) = line else { break };
        let message = codec::encode(&Line { task, stderr, time, line: line.to_vec(), attributes });
        if !matches!(timeout(SEND_WITHIN, writer.send(&message)).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = writer.close().await;
}
