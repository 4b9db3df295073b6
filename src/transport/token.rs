//! Join tokens: `FLKTKN-1-<hash of the CA's key>-<secret>`, 50 and 25 characters of base 36, as Docker Swarm's users
//! know them.
//!
//! The hash tells the joiner that it has reached the right swarm; the secret tells the swarm that the joiner was
//! invited, and in which role, by which of the swarm's two secrets it is.

use std::fmt;
use std::str::FromStr;

use rand::TryRng;
use rand::rngs::SysRng;
use serde::{Deserialize, Serialize};

use super::certificate::ca_hash;
use super::identity::PublicKey;
use crate::spec::{Role, SecretBytes};

const PREFIX: &str = "FLKTKN";
const FORMAT: &str = "1";
const HASH_CHARS: usize = 50;
const SECRET_CHARS: usize = 25;

/// A text that is no join token, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("a join token starts with {PREFIX}-: this is none. `flok swarm join-token` on a manager prints one")]
    NotAToken,
    #[error("this is a join token of Docker Swarm; a flok swarm's starts with {PREFIX}-")]
    OfDockerSwarm,
    #[error("the join token has format {0}, this flok knows format {FORMAT}: install the version the swarm runs")]
    UnknownFormat(String),
    #[error("the join token is incomplete or altered ({0}): copy it whole")]
    Malformed(&'static str),
}

/// 128 random bits that admit whoever knows them.
#[derive(Clone, Serialize, Deserialize)]
pub struct TokenSecret([u8; 16]);

impl TokenSecret {
    pub fn generate() -> TokenSecret {
        let mut bytes = [0; 16];
        SysRng.try_fill_bytes(&mut bytes).expect("the kernel gives random bytes");
        TokenSecret(bytes)
    }

    pub fn to_bytes(&self) -> SecretBytes {
        SecretBytes(self.0.to_vec())
    }

    /// The role this secret admits to, if it is one of the swarm's. Takes the same time whichever matches, and
    /// wherever one differs.
    pub fn role(&self, worker: &SecretBytes, manager: &SecretBytes) -> Option<Role> {
        let (is_worker, is_manager) = (same(&self.0, &worker.0), same(&self.0, &manager.0));
        if is_manager {
            Some(Role::Manager)
        } else if is_worker {
            Some(Role::Worker)
        } else {
            None
        }
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(..)")
    }
}

#[derive(Debug, Clone)]
pub struct JoinToken {
    ca_hash: [u8; 32],
    secret: TokenSecret,
}

impl JoinToken {
    pub fn new(ca: &PublicKey, secret: TokenSecret) -> JoinToken {
        JoinToken { ca_hash: ca_hash(ca), secret }
    }

    /// From the secret as the log keeps it; `None` where that is not 16 bytes.
    pub fn from_state(ca: &PublicKey, secret: &SecretBytes) -> Option<JoinToken> {
        Some(JoinToken::new(ca, TokenSecret(secret.0.as_slice().try_into().ok()?)))
    }

    /// Whether `ca` is the key of the swarm that the token was made for.
    pub fn is_for(&self, ca: &PublicKey) -> bool {
        self.ca_hash == ca_hash(ca)
    }

    pub fn secret(&self) -> &TokenSecret {
        &self.secret
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = base36(&self.ca_hash, HASH_CHARS);
        let secret = base36(&self.secret.0, SECRET_CHARS);
        write!(f, "{PREFIX}-{FORMAT}-{hash}-{secret}")
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<JoinToken, TokenError> {
        let mut parts = text.trim().split('-');
        match parts.next() {
            Some(PREFIX) => {}
            Some("SWMTKN") => return Err(TokenError::OfDockerSwarm),
            _ => return Err(TokenError::NotAToken),
        }
        let format = parts.next().ok_or(TokenError::Malformed("it ends after its first word"))?;
        if format != FORMAT {
            return Err(TokenError::UnknownFormat(format.chars().take(16).collect()));
        }
        let hash = parts.next().ok_or(TokenError::Malformed("the swarm's part is missing"))?;
        let secret = parts.next().ok_or(TokenError::Malformed("the secret part is missing"))?;
        if parts.next().is_some() {
            return Err(TokenError::Malformed("something follows the secret part"));
        }
        Ok(JoinToken {
            ca_hash: parse36::<32>(hash, HASH_CHARS).ok_or(TokenError::Malformed("in the swarm's part"))?,
            secret: TokenSecret(
                parse36::<16>(secret, SECRET_CHARS).ok_or(TokenError::Malformed("in the secret part"))?,
            ),
        })
    }
}

/// Without an early exit; the lengths are no secret.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |differs, (x, y)| differs | (x ^ y))) == 0
}

/// `bytes` as one big-endian number in base 36, filled up with zeros to `width`.
fn base36(bytes: &[u8], width: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = vec![b'0'; width];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0u32;
        for byte in &mut number {
            let value = rest << 8 | u32::from(*byte);
            *byte = u8::try_from(value / 36).expect("rest is below 36, so the quotient is below 256");
            rest = value % 36;
        }
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[rest as usize];
    }
    String::from_utf8(digits).expect("base-36 digits are ASCII")
}

/// The number that [`base36`] wrote; `None` where a character is no digit or the number needs more than `N` bytes.
fn parse36<const N: usize>(text: &str, width: usize) -> Option<[u8; N]> {
    if text.len() != width {
        return None;
    }
    let mut number = [0u8; N];
    for character in text.bytes() {
        let mut carry = match character {
            b'0'..=b'9' => u32::from(character - b'0'),
            b'a'..=b'z' => u32::from(character - b'a') + 10,
            _ => return None,
        };
        for byte in number.iter_mut().rev() {
            let value = u32::from(*byte) * 36 + carry;
            *byte = value.to_le_bytes()[0];
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::SwarmId;
    use crate::transport::certificate::Authority;

    fn token() -> JoinToken {
        let ca = Authority::from_secret(SwarmId(1), &[3; 32]);
        JoinToken::new(&ca.public_key(), TokenSecret::generate())
    }

    #[test]
    fn a_token_reads_back_from_its_text() {
        let token = token();
        let text = token.to_string();
        assert_eq!(text.split('-').map(str::len).collect::<Vec<_>>(), [6, 1, 50, 25]);
        let read: JoinToken = text.parse().unwrap();
        assert_eq!((read.ca_hash, read.secret.0), (token.ca_hash, token.secret.0));
    }

    #[test]
    fn the_largest_numbers_fit_and_larger_ones_are_refused() {
        assert_eq!(parse36::<32>(&base36(&[255; 32], HASH_CHARS), HASH_CHARS), Some([255; 32]));
        assert_eq!(parse36::<16>(&base36(&[255; 16], SECRET_CHARS), SECRET_CHARS), Some([255; 16]));
        assert_eq!(parse36::<16>(&"z".repeat(SECRET_CHARS), SECRET_CHARS), None);
    }

    #[test]
    fn what_is_no_token_is_told_apart() {
        let good = token().to_string();
        let cases = [
            ("", TokenError::NotAToken),
            ("hello", TokenError::NotAToken),
            ("SWMTKN-1-abc-def", TokenError::OfDockerSwarm),
            (&good.replace("TKN-1-", "TKN-7-"), TokenError::UnknownFormat("7".into())),
            (&good[..good.len() - 1], TokenError::Malformed("in the secret part")),
            (&good.replace("TKN-1-", "TKN-1-!"), TokenError::Malformed("in the swarm's part")),
            (&format!("{good}-x"), TokenError::Malformed("something follows the secret part")),
            ("FLKTKN-1", TokenError::Malformed("the swarm's part is missing")),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<JoinToken>().unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn the_secret_decides_the_role() {
        let (worker, manager) = (TokenSecret::generate(), TokenSecret::generate());
        let role = |secret: &TokenSecret| secret.role(&worker.to_bytes(), &manager.to_bytes());
        assert_eq!(role(&worker), Some(Role::Worker));
        assert_eq!(role(&manager), Some(Role::Manager));
        assert_eq!(role(&TokenSecret::generate()), None);
        assert_eq!(worker.role(&SecretBytes(vec![]), &SecretBytes(vec![])), None);
    }

    #[test]
    fn a_token_names_its_swarm_by_the_ca() {
        let token = token();
        assert!(token.is_for(&Authority::from_secret(SwarmId(1), &[3; 32]).public_key()));
        assert!(!token.is_for(&Authority::from_secret(SwarmId(1), &[4; 32]).public_key()));
    }

    #[test]
    fn debug_shows_no_secret() {
        let token = token();
        let secret = token.to_string().rsplit('-').next().unwrap().to_string();
        assert!(!format!("{token:?}").contains(&secret));
        assert!(format!("{:?}", token.secret()).contains(".."));
    }
}
