//! Messages on a stream: a length of four bytes, big-endian, then the bytes.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::io::{ReadHalf, WriteHalf};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::byte_stream::ByteStream;
use super::counters::Counters;
use super::protocol::Protocol;
use crate::state::codec;

/// Up to here, length and message leave in one write.
const ONE_WRITE_BYTES: usize = 64 << 10;

/// Why a message could not be sent or received. The stream is of no use afterwards.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("the stream broke")]
    Io(#[from] io::Error),
    #[error("a message of {found} bytes is too large: {} takes at most {max}", protocol.as_str())]
    TooLarge { protocol: Protocol, found: usize, max: usize },
    #[error("a message on {} does not decode", protocol.as_str())]
    Malformed { protocol: Protocol, source: Box<codec::CodecError> },
    #[error("the connection was closed")]
    Lost,
}

/// A stream of messages in both directions.
#[derive(Debug)]
pub struct MessageStream {
    pub(super) reader: MessageReader,
    pub(super) writer: MessageWriter,
}

#[derive(Debug)]
pub struct MessageReader {
    io: ReadHalf<libp2p::Stream>,
    about: About,
}

#[derive(Debug)]
pub struct MessageWriter {
    io: WriteHalf<libp2p::Stream>,
    about: About,
}

/// What both halves know of their stream.
#[derive(Debug, Clone)]
struct About {
    protocol: Protocol,
    counters: Arc<Counters>,
    /// Cancelled when the connection is given up, which a dead one does not tell by itself.
    lost: CancellationToken,
}

impl MessageStream {
    pub(super) fn new(
        stream: libp2p::Stream,
        protocol: Protocol,
        counters: Arc<Counters>,
        lost: CancellationToken,
    ) -> MessageStream {
        let (read, write) = stream.split();
        let about = About { protocol, counters, lost };
        MessageStream {
            reader: MessageReader { io: read, about: about.clone() },
            writer: MessageWriter { io: write, about },
        }
    }

    pub fn split(self) -> (MessageReader, MessageWriter) {
        (self.reader, self.writer)
    }

    /// The stream without its messages, for a protocol of the two sides' own.
    pub fn into_bytes(self) -> ByteStream {
        let About { protocol, counters, lost } = self.reader.about;
        let stream = self.reader.io.reunite(self.writer.io).expect("both halves are of one stream");
        ByteStream::new(stream, protocol, counters, lost)
    }

    pub async fn send(&mut self, message: &[u8]) -> Result<(), StreamError> {
        self.writer.send(message).await
    }

    pub async fn receive(&mut self) -> Result<Option<Bytes>, StreamError> {
        self.reader.receive().await
    }

    pub(super) async fn send_value<T: Serialize>(&mut self, value: &T) -> Result<(), StreamError> {
        self.send(&codec::encode(value)).await
    }

    /// The end of the stream is an error here: a value is owed.
    pub(super) async fn receive_value<T: DeserializeOwned>(&mut self) -> Result<T, StreamError> {
        let protocol = self.reader.about.protocol;
        let bytes = self.receive().await?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        codec::decode(&bytes).map_err(|source| StreamError::Malformed { protocol, source: Box::new(source) })
    }

    pub(super) fn is_lost(&self) -> bool {
        self.reader.about.lost.is_cancelled()
    }
}

impl MessageReader {
    /// The next message; `None` at the end of the stream. Not to be dropped half-way: the rest of the message would be
    /// taken for the next one.
    pub async fn receive(&mut self) -> Result<Option<Bytes>, StreamError> {
        let MessageReader { io, about } = self;
        let read = read_message(io, about.protocol);
        let message = until_lost(&about.lost, read).await?;
        if let Some(message) = &message {
            about.counters.received(about.protocol, message.len());
        }
        Ok(message)
    }

    pub(super) async fn receive_byte(&mut self) -> Result<u8, StreamError> {
        let mut byte = [0];
        let MessageReader { io, about } = self;
        until_lost(&about.lost, async { Ok(io.read_exact(&mut byte).await?) }).await?;
        Ok(byte[0])
    }
}

impl MessageWriter {
    /// Sends and flushes.
    pub async fn send(&mut self, message: &[u8]) -> Result<(), StreamError> {
        self.write(message).await?;
        self.flush().await
    }

    /// Into the stream's buffer; [`Self::flush`] sends.
    pub(super) async fn write(&mut self, message: &[u8]) -> Result<(), StreamError> {
        let MessageWriter { io, about } = self;
        until_lost(&about.lost, write_message(io, about.protocol, message)).await?;
        about.counters.sent(about.protocol, message.len());
        Ok(())
    }

    pub(super) async fn flush(&mut self) -> Result<(), StreamError> {
        let MessageWriter { io, about } = self;
        until_lost(&about.lost, async { Ok(io.flush().await?) }).await
    }

    pub(super) async fn write_byte(&mut self, byte: u8) -> Result<(), StreamError> {
        let MessageWriter { io, about } = self;
        until_lost(&about.lost, async { Ok(io.write_all(&[byte]).await?) }).await
    }

    /// Says that nothing follows.
    pub async fn close(&mut self) -> Result<(), StreamError> {
        let MessageWriter { io, about } = self;
        until_lost(&about.lost, async { Ok(io.close().await?) }).await
    }
}

async fn until_lost<T>(
    lost: &CancellationToken,
    work: impl Future<Output = Result<T, StreamError>>,
) -> Result<T, StreamError> {
    tokio::select! {
        biased;
        () = lost.cancelled() => Err(StreamError::Lost),
        done = work => done,
    }
}

async fn write_message(
    io: &mut (impl AsyncWrite + Unpin),
    protocol: Protocol,
    message: &[u8],
) -> Result<(), StreamError> {
    let (found, max) = (message.len(), protocol.max_message_bytes());
    if found > max {
        return Err(StreamError::TooLarge { protocol, found, max });
    }
    let length = u32::try_from(found).expect("the largest message is far below 4 GiB").to_be_bytes();
    if found <= ONE_WRITE_BYTES {
        io.write_all(&[&length, message].concat()).await?;
    } else {
        io.write_all(&length).await?;
        io.write_all(message).await?;
    }
    Ok(())
}

async fn read_message(io: &mut (impl AsyncRead + Unpin), protocol: Protocol) -> Result<Option<Bytes>, StreamError> {
    let mut length = [0; 4];
    let mut filled = 0;
    while filled < length.len() {
        match io.read(&mut length[filled..]).await? {
            0 if filled == 0 => return Ok(None),
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            count => filled += count,
        }
    }
    let (found, max) = (u32::from_be_bytes(length) as usize, protocol.max_message_bytes());
    if found > max {
        return Err(StreamError::TooLarge { protocol, found, max });
    }
    // Memory is given as bytes arrive, not as the other side promises them.
    let mut message = Vec::with_capacity(found.min(ONE_WRITE_BYTES));
    io.take(found as u64).read_to_end(&mut message).await?;
    if message.len() < found {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(Some(message.into()))
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::*;

    async fn written(messages: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            write_message(&mut bytes, Protocol::Raft, message).await.unwrap();
        }
        bytes
    }

    #[tokio::test]
    async fn messages_come_back_one_by_one_and_then_the_end() {
        let large = vec![7; ONE_WRITE_BYTES + 1];
        let mut stream = Cursor::new(written(&[b"", b"hello", &large]).await);
        for expected in [b"".as_slice(), b"hello", &large] {
            assert_eq!(read_message(&mut stream, Protocol::Raft).await.unwrap().unwrap(), expected);
        }
        assert!(read_message(&mut stream, Protocol::Raft).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_message_cut_off_anywhere_is_an_error_and_not_an_end() {
        let whole = written(&[b"hello"]).await;
        for cut in 1..whole.len() {
            let mut stream = Cursor::new(&whole[..cut]);
            assert!(read_message(&mut stream, Protocol::Raft).await.is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn streams_of_any_bytes_are_read_to_their_ends() {
        bolero::check!().with_iterations(2000).for_each(|bytes: &[u8]| {
            // Lengths that lie, and such as fit.
            let short = [&[0, 0, 0][..], bytes].concat();
            for bytes in [bytes, &short] {
                let mut stream = Cursor::new(bytes);
                let mut read = 0;
                while let Ok(Some(message)) = futures::executor::block_on(read_message(&mut stream, Protocol::Raft)) {
                    read += 4 + message.len();
                    assert!(message.len() <= Protocol::Raft.max_message_bytes() && read <= bytes.len());
                }
            }
        });
    }

    #[tokio::test]
    async fn too_large_a_message_is_refused_on_both_sides() {
        let max = Protocol::Alarm.max_message_bytes();
        let mut bytes = Vec::new();
        let error = write_message(&mut bytes, Protocol::Alarm, &vec![0; max + 1]).await.unwrap_err();
        assert!(matches!(error, StreamError::TooLarge { .. }));
        assert!(bytes.is_empty());
        let mut stream = Cursor::new(u32::MAX.to_be_bytes());
        assert!(matches!(read_message(&mut stream, Protocol::Alarm).await, Err(StreamError::TooLarge { .. })));
    }
}
