//! Secrets and configs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::models as docker;

use super::{date, labels_in, labels_out, version};
use crate::api::ApiError;
use crate::spec::*;
use crate::state::{Config, Secret};

pub fn secret_spec_from_docker(spec: docker::SecretSpec) -> Result<SecretSpec, ApiError> {
    let name = spec.name.unwrap_or_default();
    if let Some(driver) = spec.driver.filter(|driver| !driver.name.is_empty()) {
        return Err(ApiError::NotImplemented(format!(
            "secret {name}: secret driver {:?} is not supported: leave --driver out, and give the data",
            driver.name
        )));
    }
    Ok(SecretSpec {
        labels: labels_in(spec.labels),
        data: SecretBytes(data_in("secret", &name, spec.data)?),
        templating: templating_in(spec.templating),
        name,
    })
}

pub fn config_spec_from_docker(spec: docker::ConfigSpec) -> Result<ConfigSpec, ApiError> {
    let name = spec.name.unwrap_or_default();
    Ok(ConfigSpec {
        labels: labels_in(spec.labels),
        data: data_in("config", &name, spec.data)?,
        templating: templating_in(spec.templating),
        name,
    })
}

/// Without its data.
pub fn secret_to_docker(secret: &Secret) -> docker::Secret {
    docker::Secret {
        id: Some(secret.id.to_string()),
        version: version(secret.meta.version),
        created_at: Some(date(secret.meta.created_at)),
        updated_at: Some(date(secret.meta.updated_at)),
        spec: Some(docker::SecretSpec {
            name: Some(secret.spec.name.clone()),
            labels: labels_out(&secret.spec.labels),
            data: None,
            driver: None,
            templating: templating_out(secret.spec.templating.as_deref()),
        }),
    }
}

pub fn config_to_docker(config: &Config) -> docker::Config {
    docker::Config {
        id: Some(config.id.to_string()),
        version: version(config.meta.version),
        created_at: Some(date(config.meta.created_at)),
        updated_at: Some(date(config.meta.updated_at)),
        spec: Some(docker::ConfigSpec {
            name: Some(config.spec.name.clone()),
            labels: labels_out(&config.spec.labels),
            data: Some(STANDARD.encode(&config.spec.data)),
            templating: templating_out(config.spec.templating.as_deref()),
        }),
    }
}

/// The error says nothing of what was sent.
fn data_in(kind: &str, name: &str, data: Option<String>) -> Result<Vec<u8>, ApiError> {
    let decoded = STANDARD.decode(data.unwrap_or_default());
    decoded.map_err(|_| ApiError::invalid(format!("{kind} {name}: Data is not base64")))
}

fn templating_in(driver: Option<docker::Driver>) -> Option<String> {
    driver.map(|driver| driver.name).filter(|name| !name.is_empty())
}

fn templating_out(driver: Option<&str>) -> Option<docker::Driver> {
    driver.map(|name| docker::Driver { name: name.to_owned(), options: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{DataHistory, Meta};

    #[test]
    fn a_secrets_data_is_read_and_never_told() {
        let sent = docker::SecretSpec {
            name: Some("key".into()),
            data: Some(STANDARD.encode("hidden")),
            templating: Some(docker::Driver { name: "golang".into(), options: None }),
            ..Default::default()
        };
        let spec = secret_spec_from_docker(sent).unwrap();
        assert_eq!((spec.data.0.as_slice(), spec.templating.as_deref()), (b"hidden".as_slice(), Some("golang")));
        let shown = secret_to_docker(&Secret {
            id: SecretId(1),
            meta: Meta::default(),
            spec,
            history: DataHistory::begun(Version(1), UnixMs(0)),
        });
        assert_eq!(shown.spec.unwrap().data, None);
    }

    #[test]
    fn what_is_no_base64_is_refused_without_being_repeated() {
        let sent = docker::SecretSpec { name: Some("key".into()), data: Some("hidden!".into()), ..Default::default() };
        let error = secret_spec_from_docker(sent).unwrap_err().to_string();
        assert_eq!(error, "secret key: Data is not base64");
    }
}
