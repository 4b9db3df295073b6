//! Who we are at registries: what `docker login` keeps in its `config.json`, or in the helper that this names.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bollard::auth::DockerCredentials;
use serde::Deserialize;

use crate::program::{Program, ProgramError};
use crate::spec::image::{DEFAULT_REGISTRY, ImageReference};

/// Docker Hub's key in the file.
const HUB: &str = "https://index.docker.io/v1/";
/// For a helper, which may ask its user for a password first.
const HELPER_WITHIN: Duration = Duration::from_secs(120);

#[derive(Debug, Default, Deserialize)]
pub struct Logins {
    #[serde(default)]
    auths: BTreeMap<String, Login>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Login {
    /// `user:password` in base64.
    #[serde(default)]
    auth: String,
}

/// Without what must not be shown.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login")
    }
}

/// What a helper answers.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

impl Logins {
    /// From `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`; no file is no logins.
    pub fn load() -> anyhow::Result<Logins> {
        let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
        let Some(folder) = folder.or(home) else { return Ok(Logins::default()) };
        let path = folder.join("config.json");
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{} is no configuration of `docker login`", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Logins::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// For the registry that has this image; `None` where nobody logged in there.
    pub fn of(&self, image: &str) -> anyhow::Result<Option<DockerCredentials>> {
        let registry = image.parse::<ImageReference>()?.registry;
        let server = if registry == DEFAULT_REGISTRY { HUB } else { &registry };
        if let Some(helper) = self.helpers.get(&registry).or_else(|| self.helpers.get(server)).or(self.store.as_ref())
            && let Some(answer) = ask(helper, server)?
        {
            return Ok(Some(credentials(server, answer.username, answer.secret)));
        }
        let login = self.auths.iter().find(|(key, login)| !login.auth.is_empty() && host(key) == host(server));
        let Some((_, login)) = login else { return Ok(None) };
        let pair = STANDARD.decode(&login.auth).ok().and_then(|pair| String::from_utf8(pair).ok());
        match pair.as_deref().and_then(|pair| pair.split_once(':')) {
            Some((user, password)) => Ok(Some(credentials(server, user.into(), password.into()))),
            None => bail!("the login at {registry} cannot be read: log in again with `docker login {registry}`"),
        }
    }

    /// The same, as the `X-Registry-Auth` header has it.
    pub fn header_of(&self, image: &str) -> anyhow::Result<Option<String>> {
        let header = |found| URL_SAFE.encode(serde_json::to_vec(&found).expect("credentials are plain text"));
        Ok(self.of(image)?.map(header))
    }
}

/// Keys are hosts, in older files URLs.
fn host(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    rest.split('/').next().unwrap_or(rest)
}

fn credentials(server: &str, username: String, password: String) -> DockerCredentials {
    DockerCredentials {
        username: Some(username),
        password: Some(password),
        serveraddress: Some(server.to_owned()),
        ..Default::default()
    }
}

/// Asks `docker-credential-HELPER get`, the server's name on its input, an answer in JSON on its output.
fn ask(helper: &str, server: &str) -> anyhow::Result<Option<Answer>> {
    let program = format!("docker-credential-{helper}");
    match Program::new(&program, HELPER_WITHIN).args(["get"]).input(server).run() {
        Ok(answer) => Ok(serde_json::from_slice(&answer).ok()),
        // That it knows no login there is a failure, too, in the helpers' protocol.
        Err(ProgramError::Failed { .. }) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{program} keeps the logins of `docker login`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logins(json: &str) -> Logins {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn logins_are_found_by_the_images_registry() {
        let pair = STANDARD.encode("me:pass:word");
        let logins = logins(&format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{pair}"}}, "https://old.example/v2/": {{"auth": "{pair}"}},
                "registry.example:5000": {{"auth": "{pair}"}}, "empty.example": {{}}}}, "detachKeys": "x"}}"#
        ));
        for image in [
            "redis",
            "team/app:1",
            "registry.example:5000/a",
            "old.example/a@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        ] {
            let found = logins.of(image).unwrap().unwrap_or_else(|| panic!("{image}"));
            assert_eq!((found.username.as_deref(), found.password.as_deref()), (Some("me"), Some("pass:word")));
        }
        for image in ["registry.example/a", "empty.example/a", "other.example/a"] {
            assert!(logins.of(image).unwrap().is_none(), "{image}");
        }
        let header = logins.header_of("redis").unwrap().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&URL_SAFE.decode(header).unwrap()).unwrap();
        assert_eq!((&json["username"], &json["serveraddress"]), (&"me".into(), &HUB.into()));
    }

    #[test]
    fn a_broken_login_is_named_without_being_shown() {
        let logins = logins(r#"{"auths": {"a.example": {"auth": "aHVudGVyMg=="}}}"#);
        let said = logins.of("a.example/x").unwrap_err().to_string();
        assert!(said.contains("docker login a.example") && !said.contains("hunter2"), "{said}");
        assert!(!format!("{logins:?}").contains("aHVudGVyMg"));
    }

    #[test]
    fn a_helper_that_is_not_there_is_named() {
        let logins = logins(r#"{"credHelpers": {"a.example": "no-such-helper"}}"#);
        let said = logins.of("a.example/x").unwrap_err().to_string();
        assert!(said.contains("docker-credential-no-such-helper"), "{said}");
        assert!(logins.of("b.example/x").unwrap().is_none());
    }
}
