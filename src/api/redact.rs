//! What specs say, without what people put into them in confidence: for reports that leave the swarm. Pure.
//!
//! Names and structure stay, values go wherever a password is likely to stand: environment, arguments, labels of
//! others, options of drivers, data.

use serde_json::{Map, Value};

const REDACTED: &str = "(redacted)";
/// Labels that the swarm itself goes by.
const OWN_LABELS: [&str; 3] = ["com.docker.stack.", "flok.", "com.docker.swarm."];
/// Lists of words whose first one, the program, stays.
const WORDS: [&str; 3] = ["Args", "Command", "Test"];
/// Maps whose keys stay.
const MAPS: [&str; 3] = ["Options", "DriverOpts", "Sysctls"];
/// What is left out with its key.
const LEFT_OUT: [&str; 4] = ["Data", "JoinTokens", "UnlockKey", "PullOptions"];

/// A value of Docker's API.
pub fn redact(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(redact),
        Value::Object(object) => {
            object.retain(|key, _| !LEFT_OUT.contains(&key.as_str()));
            object.iter_mut().for_each(|(key, value)| member(key, value));
        }
        _ => {}
    }
}

fn member(key: &str, value: &mut Value) {
    match value {
        Value::Array(words) if key == "Env" => words.iter_mut().for_each(assignment),
        Value::Array(words) if WORDS.contains(&key) => words.iter_mut().skip(1).for_each(hide),
        Value::Object(map) if key == "Labels" => labels(map),
        Value::Object(map) if MAPS.contains(&key) => map.values_mut().for_each(hide),
        other => redact(other),
    }
}

fn hide(value: &mut Value) {
    *value = Value::from(REDACTED);
}

/// `NAME=VALUE`; a name alone says nothing.
fn assignment(value: &mut Value) {
    let name = value.as_str().and_then(|text| text.split_once('=')).map(|(name, _)| name.to_owned());
    if let Some(name) = name {
        *value = Value::from(format!("{name}={REDACTED}"));
    }
}

fn labels(map: &mut Map<String, Value>) {
    let others = map.iter_mut().filter(|(key, _)| !OWN_LABELS.iter().any(|own| key.starts_with(own)));
    others.for_each(|(_, value)| hide(value));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_go_and_names_stay() {
        let mut service = json!({"Spec": {
            "Name": "web",
            "Labels": {"com.docker.stack.namespace": "s", "proxy.basicauth": "s3cret"},
            "TaskTemplate": {"ContainerSpec": {
                "Image": "redis:7",
                "Env": ["PASSWORD=s3cret", "BARE"],
                "Command": ["redis-server", "--requirepass", "s3cret"],
                "Args": ["serve", "s3cret"],
                "Labels": {"token": "s3cret"},
                "Healthcheck": {"Test": ["CMD", "curl", "user:s3cret@web"]},
                "Mounts": [{"Target": "/data", "VolumeOptions": {"DriverConfig": {"Options": {"o": "password=s3cret"}}}}],
                "DNSConfig": {"Options": ["ndots:1"]},
                "Secrets": [{"SecretName": "key", "SecretID": "1"}],
            }},
        }, "Data": "s3cret", "JoinTokens": {"Worker": "s3cret"}});
        redact(&mut service);
        let text = service.to_string();
        assert!(!text.contains("s3cret"), "{text}");
        for kept in
            ["redis:7", "PASSWORD=(redacted)", "BARE", "redis-server", "serve", "namespace\":\"s", "ndots:1", "\"key\""]
        {
            assert!(text.contains(kept), "{kept} in {text}");
        }
    }
}
