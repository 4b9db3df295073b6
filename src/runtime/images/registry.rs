//! Registries: how each is reached, who we are there, and what their errors mean.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

use crate::spec::SecretBytes;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Between two reads of an answer.
pub const STALL_AFTER: Duration = Duration::from_secs(30);

/// How registries are reached, by `host[:port]`; one that is not named is reached by HTTPS with the system's roots.
/// `localhost` and `127.0.0.0/8` may always be plain HTTP, as for Docker.
#[derive(Debug, Clone, Default)]
pub struct Registries {
    pub by_host: BTreeMap<String, RegistryConfig>,
}

#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    /// Speak HTTP without TLS.
    pub plain_http: bool,
    /// PEM certificates of a private CA.
    pub ca_pem: Option<Vec<u8>>,
}

impl Registries {
    /// A client for one pull: credentials are a service's own, so clients are not shared.
    pub fn client(&self, host: &str) -> oci_client::Client {
        let config = self.by_host.get(host);
        let plain = config.map_or_else(|| is_loopback(host), |config| config.plain_http);
        let roots = config.and_then(|config| config.ca_pem.clone()).into_iter();
        let extra_root_certificates =
            roots.map(|data| Certificate { encoding: CertificateEncoding::Pem, data }).collect();
        oci_client::Client::new(ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            extra_root_certificates,
            platform_resolver: None,
            connect_timeout: Some(CONNECT_WITHIN),
            read_timeout: Some(STALL_AFTER),
            user_agent: concat!("flok/", env!("CARGO_PKG_VERSION")),
            ..Default::default()
        })
    }
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.parse::<std::net::Ipv4Addr>().is_ok_and(|addr| addr.is_loopback())
}

/// Docker's `X-Registry-Auth`. Clients leave out what they have not, or send null, or nothing between quotes.
#[derive(Deserialize)]
struct DockerAuth {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
    registrytoken: Option<String>,
}

/// Reads Docker's `X-Registry-Auth` (JSON in base64, either alphabet, padded or not). The error never shows it.
pub fn parse_auth(header: &SecretBytes) -> Result<RegistryAuth, String> {
    if header.0.is_empty() {
        return Ok(RegistryAuth::Anonymous);
    }
    let json = decode(&header.0).ok_or("the registry credentials are no base64; log in again with `docker login`")?;
    let auth: DockerAuth = serde_json::from_slice(&json)
        .map_err(|_| "the registry credentials are no JSON; log in again with `docker login`".to_owned())?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    if let Some(token) = given(auth.registrytoken) {
        return Ok(RegistryAuth::Bearer(token));
    }
    if let Some(user) = given(auth.username) {
        return Ok(RegistryAuth::Basic(user, auth.password.unwrap_or_default()));
    }
    let pair = decode(auth.auth.unwrap_or_default().as_bytes()).and_then(|pair| String::from_utf8(pair).ok());
    Ok(match pair.as_deref().and_then(|pair| pair.split_once(':')) {
        Some((user, password)) => RegistryAuth::Basic(user.to_owned(), password.to_owned()),
        None => RegistryAuth::Anonymous,
    })
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabets = [alphabet::URL_SAFE, alphabet::STANDARD];
    alphabets.iter().find_map(|alphabet| GeneralPurpose::new(alphabet, config).decode(text).ok())
}

/// What a registry's error means for the pull.
pub struct Failure {
    pub reason: String,
    /// Trying again may help.
    pub transient: bool,
}

pub fn explain(error: OciDistributionError, host: &str) -> Failure {
    let (reason, transient) = match error {
        OciDistributionError::RegistryError { envelope, .. } => {
            let missing = |code: &OciErrorCode| {
                matches!(
                    code,
                    OciErrorCode::ManifestUnknown
                        | OciErrorCode::NameUnknown
                        | OciErrorCode::NotFound
                        | OciErrorCode::BlobUnknown
                )
            };
            let denied = |code: &OciErrorCode| matches!(code, OciErrorCode::Unauthorized | OciErrorCode::Denied);
            if envelope.errors.iter().any(|error| missing(&error.code)) {
                (format!("registry {host} does not have it; check its name and tag"), false)
            } else if envelope.errors.iter().any(|error| denied(&error.code)) {
                (format!("registry {host} denies access; check its name and `--with-registry-auth`"), false)
            } else {
                let busy = envelope.errors.iter().any(|error| matches!(error.code, OciErrorCode::Toomanyrequests));
                (format!("registry {host} says: {envelope}"), busy)
            }
        }
        OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
            (format!("registry {host} denies access; check its name and `--with-registry-auth`"), false)
        }
        OciDistributionError::ImageManifestNotFoundError(_) => {
            (format!("registry {host} does not have it; check its name and tag"), false)
        }
        OciDistributionError::ServerError { code, message, .. } => match code {
            404 => (format!("registry {host} does not have it; check its name and tag"), false),
            _ => (format!("registry {host} answers {code}: {}", message.trim()), code >= 500 || code == 429),
        },
        OciDistributionError::RequestError(error) => {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(source) = cause.source() {
                cause = source;
            }
            (format!("registry {host} cannot be reached: {cause}"), true)
        }
        OciDistributionError::IoError(error) => (format!("registry {host}: {error}"), true),
        other => (format!("registry {host}: {other}"), false),
    };
    Failure { reason, transient }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    fn basic(user: &str, password: &str) -> RegistryAuth {
        RegistryAuth::Basic(user.into(), password.into())
    }

    #[test]
    fn credentials_are_read_in_each_of_dockers_forms() {
        let pair = STANDARD.encode("me:pass:word");
        for json in [
            r#"{"username":"me","password":"pass:word","serveraddress":"x"}"#.to_owned(),
            format!(r#"{{"auth":"{pair}"}}"#),
            r#"{"username":"me","password":"pass:word","auth":null,"identitytoken":null,"registrytoken":""}"#
                .to_owned(),
        ] {
            for header in [STANDARD.encode(&json), URL_SAFE_NO_PAD.encode(&json)] {
                assert_eq!(parse_auth(&SecretBytes(header.into_bytes())).unwrap(), basic("me", "pass:word"));
            }
        }
        assert_eq!(parse_auth(&SecretBytes(b"e30=".to_vec())).unwrap(), RegistryAuth::Anonymous);
    }

    #[test]
    fn unreadable_credentials_are_not_shown() {
        let said = parse_auth(&SecretBytes(b"hunter2!".to_vec())).unwrap_err();
        assert!(!said.contains("hunter2"));
    }

    #[test]
    fn loopback_registries_may_be_plain() {
        assert!(is_loopback("localhost:5000") && is_loopback("127.3.2.1:80"));
        assert!(!is_loopback("registry.example:5000") && !is_loopback("10.0.0.1:5000"));
    }
}
