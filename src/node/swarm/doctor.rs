//! How nodes' networks stand: this one's own, and what another says of itself when it is asked.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};

use super::Shared;
use crate::network::NetworkError;
use crate::node::support;
use crate::spec::*;
use crate::state::{NodeHealth, codec};
use crate::transport::{Protocol, Reply, Sender, TransportError};

/// A node reads its kernel and tries a way or two meanwhile.
const ANSWER_WITHIN: Duration = Duration::from_secs(6);
const SUPPORT_WITHIN: Duration = Duration::from_secs(12);
const HELLO_WITHIN: Duration = Duration::from_millis(1500);
/// Members asked at once.
const AT_ONCE: usize = 256;
/// Members that are named where they do not answer.
const NAMED: usize = 16;

#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    Hello,
    Way(Way),
    /// All that a support bundle has of the node.
    Support,
}

/// This node's network as a whole.
pub async fn examine(shared: &Arc<Shared>) -> Result<Vec<Finding>, NetworkError> {
    let (network, members) = tokio::join!(shared.host.task_networks().examine(), members(shared));
    let mut findings = network?;
    findings.extend(members);
    Ok(findings)
}

/// One half of a way, as the node that has the task sees it.
pub async fn examine_way(shared: &Shared, node: NodeId, way: Way) -> Vec<Finding> {
    let answer = match node == shared.me {
        true => shared.host.task_networks().examine_way(way).await.map_err(|error| error.to_string()),
        false => ask(shared, node, &Ask::Way(way), ANSWER_WITHIN).await.map_err(|error| error.to_string()),
    };
    answer.unwrap_or_else(|why| {
        vec![Finding::broken("node", format!("{why}; run `flok network doctor` on it for its half"))]
    })
}

async fn ask(shared: &Shared, node: NodeId, ask: &Ask, within: Duration) -> Result<Vec<Finding>, TransportError> {
    let answer = shared.transport.request(node, Protocol::Doctor, codec::encode(ask).into(), within).await?;
    // Of a version that says it in another way.
    Ok(codec::decode(&answer)
        .unwrap_or_else(|error| vec![Finding::broken("node", format!("its answer cannot be read: {error}"))]))
}

/// Which of those that this node may speak to answer it: a manager asks all, a worker the managers.
async fn members(shared: &Shared) -> Vec<Finding> {
    let view = shared.view();
    let manager = shared.is_manager();
    let wanted = view.members.list.iter().filter(|(id, member)| {
        let spoken_to = manager || member.role == Role::Manager;
        **id != shared.me && spoken_to && !matches!(member.health, NodeHealth::Left { .. })
    });
    let asked = wanted.map(|(id, member)| {
        let (id, at) = (*id, member.transport);
        async move { (id, at, ask(shared, id, &Ask::Hello, HELLO_WITHIN).await) }
    });
    let asked: Vec<_> = asked.collect();
    let answers: Vec<_> = stream::iter(asked).buffered(AT_ONCE).collect().await;
    let all = answers.len();
    let mut silent: Vec<Finding> = answers
        .into_iter()
        .filter_map(|(id, at, answer)| Some((id, at, answer.err()?)))
        .map(|(id, at, why)| Finding::broken("member", format!("node {id} at {at} does not answer: {why}")))
        .collect();
    let count = silent.len();
    silent.truncate(NAMED);
    if count > NAMED {
        silent.push(Finding::broken("member", format!("{} more do not answer", count - NAMED)));
    }
    if count < all || all == 0 {
        silent.push(Finding::ok("members", format!("{} of {all} asked answer", all - count)));
    }
    silent
}

/// What another node tells of itself for a support bundle.
pub async fn support_files(shared: &Shared, node: NodeId) -> Vec<SupportFile> {
    let request = codec::encode(&Ask::Support).into();
    let answer = shared.transport.request(node, Protocol::Doctor, request, SUPPORT_WITHIN).await;
    let files = answer.map_err(|error| error.to_string()).and_then(|answer| support::unpack(&answer));
    files.unwrap_or_else(|why| vec![SupportFile { path: format!("node of {node}"), text: Err(why) }])
}

/// Answers another node's question.
pub async fn answer(shared: &Arc<Shared>, from: &Sender, request: Bytes, reply: Reply) {
    match codec::decode(&request) {
        Ok(Ask::Hello) => reply.answer(codec::encode(&Vec::<Finding>::new())),
        Ok(Ask::Way(way)) => match shared.host.task_networks().examine_way(way).await {
            Ok(findings) => reply.answer(codec::encode(&findings)),
            Err(error) => reply.refuse(error.to_string()),
        },
        // It tells of all members.
        Ok(Ask::Support) if from.role != Role::Manager => reply.refuse("only managers are told"),
        Ok(Ask::Support) => {
            let files = support::collect(&shared.host, Some(shared)).await;
            reply.answer(support::pack(files, Protocol::Doctor.max_message_bytes() - 1024));
        }
        Err(error) => reply.refuse(format!("the question cannot be read: {error}")),
    }
}
