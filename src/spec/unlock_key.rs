//! The key that unlocks a locked manager, as its users see it: `FLKKEY-1-` and 43 characters of base64.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::SecretBytes;

const PREFIX: &str = "FLKKEY-1-";
/// Of a key.
pub const UNLOCK_KEY_BYTES: usize = 32;

/// 256 random bits. Shown whole by `Display` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnlockKey(SecretBytes);

/// A text that is no unlock key. It may be one with a slip of the pen: it is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an unlock key is {PREFIX} and 43 characters: copy it whole, as `flok swarm unlock-key` prints it on an unlocked manager"
)]
pub struct NoUnlockKey;

impl UnlockKey {
    pub fn new(bytes: [u8; UNLOCK_KEY_BYTES]) -> UnlockKey {
        UnlockKey(SecretBytes(bytes.to_vec()))
    }

    /// As the log keeps it; `None` where that is not 32 bytes.
    pub fn from_state(bytes: &SecretBytes) -> Option<UnlockKey> {
        (bytes.0.len() == UNLOCK_KEY_BYTES).then(|| UnlockKey(bytes.clone()))
    }

    pub fn bytes(&self) -> &SecretBytes {
        &self.0
    }
}

impl fmt::Display for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(&self.0.0))
    }
}

impl FromStr for UnlockKey {
    type Err = NoUnlockKey;

    fn from_str(text: &str) -> Result<UnlockKey, NoUnlockKey> {
        let key = text.trim().strip_prefix(PREFIX).ok_or(NoUnlockKey)?;
        let bytes = URL_SAFE_NO_PAD.decode(key).map_err(|_| NoUnlockKey)?;
        UnlockKey::from_state(&SecretBytes(bytes)).ok_or(NoUnlockKey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_shown() {
        let key = UnlockKey::new(std::array::from_fn(|at| at as u8));
        let text = key.to_string();
        assert_eq!(text, "FLKKEY-1-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8");
        assert_eq!(format!(" {text}\n").parse(), Ok(key));
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let whole = UnlockKey::new([7; UNLOCK_KEY_BYTES]).to_string();
        for text in ["", "FLKKEY-1-", &whole[..whole.len() - 1], "SWMKEY-1-abc", &whole.replace("-1-", "-2-")] {
            let error = text.parse::<UnlockKey>().unwrap_err().to_string();
            assert!(text.is_empty() || text == PREFIX || !error.contains(text), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", UnlockKey::new([7; UNLOCK_KEY_BYTES])), "UnlockKey(SecretBytes(32 bytes))");
    }
}
