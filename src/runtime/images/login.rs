//! Whether a registry takes a login: asked of it when somebody logs in, and kept by nobody here.

use hyper::http::uri::Authority;
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};

use super::{Images, registry, resolve};
use crate::spec::SecretBytes;

/// Docker Hub, however its clients write it.
const HUB: &str = "docker.io";
/// Registries that hand out tokens do so for a repository; whether it is there does not count.
const ANY_REPOSITORY: &str = "library/busybox";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginRefused {
    /// The registry does not take it.
    Denied(String),
    /// That is no registry's name, or no password.
    Invalid(String),
    /// The registry could not be asked.
    Unanswered(String),
}

impl Images {
    /// `server`: `host[:port]`, a URL of it, or nothing for Docker Hub. One attempt.
    pub async fn log_in(&self, server: &str, user: &str, password: &SecretBytes) -> Result<(), LoginRefused> {
        let host =
            host(server).ok_or_else(|| LoginRefused::Invalid(format!("{server:?} is no registry: HOST[:PORT]")))?;
        let password = String::from_utf8(password.0.clone());
        let password = password.map_err(|_| LoginRefused::Invalid("the password is no text".to_owned()))?;
        let auth = RegistryAuth::Basic(user.to_owned(), password);
        let reference = Reference::with_tag(host.to_owned(), ANY_REPOSITORY.to_owned(), "latest".to_owned());
        let client = self.shared.registries.client(reference.resolve_registry());
        let asking = async {
            match client.auth(&reference, &auth, RegistryOperation::Pull).await {
                // A token was given for it.
                Ok(Some(_)) => Ok(()),
                // It asks for none, or for the login itself, with each request.
                Ok(None) => match client.list_tags(&reference, &auth, Some(1), None).await {
                    Err(error) if is_denial(&error) || is_silence(&error) => Err(error),
                    _ => Ok(()),
                },
                Err(error) => Err(error),
            }
        };
        match tokio::time::timeout(resolve::ANSWER_WITHIN, asking).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if is_denial(&error) => Err(LoginRefused::Denied(format!(
                "registry {host} denies access: unauthorized: incorrect username or password"
            ))),
            Ok(Err(error)) => Err(LoginRefused::Unanswered(registry::explain(error, host).reason)),
            Err(_) => Err(LoginRefused::Unanswered(format!("registry {host} does not answer"))),
        }
    }
}

fn is_denial(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => true,
        OciDistributionError::ServerError { code, .. } => matches!(code, 401 | 403),
        OciDistributionError::RegistryError { envelope, .. } => envelope.errors.iter().any(|error| {
            matches!(
                error.code,
                oci_client::errors::OciErrorCode::Unauthorized | oci_client::errors::OciErrorCode::Denied
            )
        }),
        _ => false,
    }
}

fn is_silence(error: &OciDistributionError) -> bool {
    matches!(error, OciDistributionError::RequestError(_) | OciDistributionError::IoError(_))
        || matches!(error, OciDistributionError::ServerError { code, .. } if *code >= 500)
}

/// `None` where it cannot be one.
fn host(server: &str) -> Option<&str> {
    let rest = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    let host = rest.split('/').next().unwrap_or_default();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    match host {
        "" if server.is_empty() => Some(HUB),
        "index.docker.io" | "registry-1.docker.io" | "docker.io" => Some(HUB),
        host => Some(host).filter(|host| host.bytes().all(fits) && host.parse::<Authority>().is_ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_named_by_its_host_or_by_a_url() {
        for (server, wanted) in [
            ("", Some(HUB)),
            ("https://index.docker.io/v1/", Some(HUB)),
            ("10.0.0.1:5000", Some("10.0.0.1:5000")),
            ("http://registry.example/v2/", Some("registry.example")),
            ("https:///", None),
            ("a b", None),
            ("http://[::1", None),
            ("[::1]:5000", Some("[::1]:5000")),
        ] {
            assert_eq!(host(server), wanted, "{server:?}");
        }
    }
}
