//! What the daemon tells its resolver, over a unix socket: JSON behind a length of four bytes, so that a daemon and a
//! resolver of different versions read what they have in common.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::zone::Client;
use crate::dispatcher::NetworksUpdate;
use crate::spec::TaskId;

/// Raised when an older side would misunderstand what it can read.
pub const FORMAT: u32 = 1;
/// A hundred thousand endpoints are a third of it.
const MAX_FRAME: usize = 128 << 20;

/// A task whose look-ups are answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedTask {
    pub task: TaskId,
    /// The path of its network namespace.
    pub netns: PathBuf,
    pub client: Client,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// First of all.
    Hello {
        format: u32,
    },
    /// From the resolver that is to take over: everything, please, and the sockets behind it.
    TakeOver,
    Update(Update),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Update {
    pub number: u64,
    /// `tasks` are all there are.
    pub all: bool,
    pub tasks: Vec<ServedTask>,
    pub removed: Vec<TaskId>,
    pub networks: Option<NetworksUpdate>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Response {
    Hello {
        format: u32,
        version: String,
    },
    /// The update of this number is in force but for the tasks that are named.
    Applied {
        number: u64,
        failed: Vec<(TaskId, String)>,
        /// It spoke of networks that are not known here: nothing of it was done, and all has to be told anew.
        lost: bool,
    },
    State(State),
}

/// All that a resolver knows; the sockets of `tasks` follow, two for each, in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub tasks: Vec<ServedTask>,
    pub networks: NetworksUpdate,
}

pub fn socket_path(dir: &Path) -> PathBuf {
    dir.join("resolver.sock")
}

pub fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec(message)?;
    let length = u32::try_from(text.len()).ok().filter(|length| *length as usize <= MAX_FRAME);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a message beyond all bounds"))?;
    Ok([&length.to_be_bytes()[..], &text].concat())
}

pub fn decode<T: DeserializeOwned>(text: &[u8]) -> io::Result<T> {
    Ok(serde_json::from_slice(text)?)
}

/// How many bytes follow.
pub fn length(header: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(header) as usize;
    if length <= MAX_FRAME { Ok(length) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "an endless message")) }
}

pub async fn send(stream: &mut (impl AsyncWriteExt + Unpin), message: &impl Serialize) -> io::Result<()> {
    stream.write_all(&encode(message)?).await
}

pub async fn receive<T: DeserializeOwned>(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<T> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await?;
    let mut text = Vec::new();
    let wanted = length(header)?;
    // Read as it comes: a length that lies allocates nothing.
    let read = AsyncReadExt::take(stream, wanted as u64).read_to_end(&mut text).await?;
    if read < wanted {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    decode(&text)
}
