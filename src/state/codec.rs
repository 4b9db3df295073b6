//! The one place where bincode is used: everything that becomes bytes (log entries, snapshots, gossip records, streams)
//! goes through here, so that the format can be replaced in one place.
//!
//! The encoding names no fields and carries no types: bytes decode only as the type that wrote them. What outlives a
//! process therefore starts with a format number (see [`Entry::to_bytes`](super::Entry::to_bytes) and
//! [`snapshot`](super::snapshot)), and golden bytes in the tests keep each format from changing unnoticed.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Most bytes that [`decode`] reads or allocates for one value.
pub const MAX_DECODE_BYTES: usize = 64 << 20;

/// Most bytes that [`decode_large`] reads or allocates.
const MAX_LARGE_BYTES: usize = 1 << 30;

/// Never changed: other settings are other bytes.
const CONFIG: Configuration<LittleEndian, Varint, Limit<MAX_DECODE_BYTES>> =
    bincode::config::standard().with_limit::<MAX_DECODE_BYTES>();
const LARGE: Configuration<LittleEndian, Varint, Limit<MAX_LARGE_BYTES>> =
    bincode::config::standard().with_limit::<MAX_LARGE_BYTES>();

/// Bytes that are no value of the wanted type.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("the bytes do not decode as {what}: they are cut off, altered, or of another version of flok")]
    Malformed { what: &'static str, source: Box<bincode::error::DecodeError> },
    #[error("{count} bytes are left over behind a {what}")]
    TrailingBytes { what: &'static str, count: usize },
}

/// `value` as bytes. The values are plain data, for which encoding into memory cannot fail.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, CONFIG).expect("plain data always encodes")
}

/// The value that `bytes` hold, all of them, within [`MAX_DECODE_BYTES`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    whole(bytes, bincode::serde::decode_from_slice(bytes, CONFIG))
}

/// [`decode`] for a snapshot, whose checksum has been verified: within [`MAX_LARGE_BYTES`].
pub(super) fn decode_large<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    whole(bytes, bincode::serde::decode_from_slice(bytes, LARGE))
}

fn whole<T>(bytes: &[u8], decoded: Result<(T, usize), bincode::error::DecodeError>) -> Result<T, CodecError> {
    let what = std::any::type_name::<T>();
    match decoded {
        Ok((value, used)) if used == bytes.len() => Ok(value),
        Ok((_, used)) => Err(CodecError::TrailingBytes { what, count: bytes.len() - used }),
        Err(source) => Err(CodecError::Malformed { what, source: Box::new(source) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_reads_back() {
        let value = (7u64, "seven".to_string(), vec![Some(1u32), None]);
        assert_eq!(decode::<(u64, String, Vec<Option<u32>>)>(&encode(&value)).unwrap(), value);
    }

    #[test]
    fn cut_and_padded_bytes_are_refused() {
        let bytes = encode(&"seven".to_string());
        assert!(matches!(decode::<String>(&bytes[..3]), Err(CodecError::Malformed { .. })));
        let padded = [bytes.as_slice(), &[0]].concat();
        assert!(matches!(decode::<String>(&padded), Err(CodecError::TrailingBytes { count: 1, .. })));
    }

    #[test]
    fn a_length_that_lies_allocates_nothing() {
        // 253 announces a u64 length of 2^62 bytes.
        let bytes = [253, 0, 0, 0, 0, 0, 0, 0, 0x40];
        assert!(decode::<Vec<u8>>(&bytes).is_err());
    }
}
