//! Names of fields in Docker's JSON, which its daemon reads in any case: clients send `Mode.replicated`, `Healthcheck`.

use serde_json::{Map, Value};

/// Fields of the models of services, secrets, configs, networks, nodes and the swarm, as the models have them.
#[rustfmt::skip]
const FIELDS: &[&str] = &[
    "Aliases", "AppArmor", "Architecture", "Args", "AttachStderr", "AttachStdin", "AttachStdout", "Attachable",
    "AuxiliaryAddresses", "Availability", "BindOptions", "CapabilityAdd", "CapabilityDrop", "ClusterVolumeSpec", "Cmd",
    "Command", "Condition", "Config", "ConfigFrom", "ConfigID", "ConfigName", "ConfigOnly", "Configs", "Consistency",
    "ConsoleSize", "Constraints", "ContainerSpec", "CreateMountpoint", "CredentialSpec", "DNSConfig", "Data", "Delay",
    "Detach", "DetachKeys", "Dir", "DiscreteResourceSpec", "Driver", "DriverConfig", "DriverOpts", "EnableIPv4",
    "EnableIPv6", "EndpointSpec", "Env", "FailureAction", "File", "ForceUpdate", "GID", "Gateway", "GenericResources",
    "Global", "GlobalJob", "Groups", "Hard", "HealthCheck", "Hostname", "Hosts", "IPAM", "IPRange", "Image",
    "ImageOptions", "Ingress", "Init", "Internal", "Interval", "Isolation", "Kind", "Labels", "Limits", "LogDriver",
    "MaxAttempts", "MaxConcurrent", "MaxFailureRatio", "MaxReplicas", "MemoryBytes", "MemorySwappiness", "Mode",
    "Monitor", "Mounts", "Name", "NamedResourceSpec", "Nameservers", "NanoCPUs", "NetworkAttachmentSpec", "Networks",
    "NoCopy", "NoNewPrivileges", "NonRecursive", "OS", "OomScoreAdj", "OpenStdin", "Options", "Order", "Parallelism",
    "Pids", "Placement", "Platforms", "PluginSpec", "Ports", "Preferences", "Privileged", "Privileges", "Propagation",
    "Protocol", "PublishMode", "PublishedPort", "ReadOnly", "ReadOnlyForceRecursive", "ReadOnlyNonRecursive", "Registry",
    "Replicas", "Replicated", "ReplicatedJob", "Reservations", "Resources", "RestartPolicy", "Retries", "Role",
    "RollbackConfig", "Runtime", "SELinuxContext", "Scope", "Search", "Seccomp", "SecretID", "SecretName", "Secrets",
    "SizeBytes", "Soft", "Source", "Spread", "SpreadDescriptor", "StartInterval", "StartPeriod", "StopGracePeriod",
    "StopSignal", "Subnet", "Subpath", "SwapBytes", "Sysctls", "TTY", "Target", "TargetPort", "TaskTemplate",
    "Templating", "Test", "Timeout", "TmpfsOptions", "TotalCompletions", "Type", "UID", "Ulimits", "UpdateConfig", "User",
    "Value", "VolumeOptions", "Window", "WorkingDir",
];

/// What users name themselves is below these.
const USERS_OWN: &[&str] = &["Labels", "Options", "DriverOpts", "Sysctls", "AuxiliaryAddresses"];

/// The names that the models have; an unknown one stays as it is.
pub fn canonical(value: Value) -> Value {
    match value {
        Value::Array(list) => Value::Array(list.into_iter().map(canonical).collect()),
        Value::Object(object) => {
            let mut out = Map::new();
            for (key, value) in object {
                let known = FIELDS.iter().find(|field| field.eq_ignore_ascii_case(&key));
                let key = known.map_or(key, |field| (*field).to_owned());
                let value = if USERS_OWN.contains(&key.as_str()) { value } else { canonical(value) };
                out.insert(key, value);
            }
            Value::Object(out)
        }
        other => other,
    }
}

/// The one field that the models and Docker write differently is told under both names.
pub fn with_dockers_names(json: String) -> String {
    if !json.contains("\"HealthCheck\":") {
        return json;
    }
    let Ok(mut value) = serde_json::from_str::<Value>(&json) else { return json };
    add_healthcheck(&mut value);
    value.to_string()
}

fn add_healthcheck(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(add_healthcheck),
        Value::Object(object) => {
            for (key, value) in object.iter_mut() {
                match value {
                    Value::Object(spec) if key == "ContainerSpec" => {
                        if let Some(check) = spec.get("HealthCheck").cloned() {
                            spec.insert("Healthcheck".into(), check);
                        }
                    }
                    other if !USERS_OWN.contains(&key.as_str()) => add_healthcheck(other),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_read_in_any_case_and_labels_stay_as_they_are() {
        let sent = json!({"Mode": {"replicated": {"replicas": 2}}, "labels": {"mode": "x"}, "Other": {"NAME": 1},
            "TaskTemplate": {"ContainerSpec": {"Healthcheck": {"test": ["NONE"]}}}});
        let read = json!({"Mode": {"Replicated": {"Replicas": 2}}, "Labels": {"mode": "x"}, "Other": {"Name": 1},
            "TaskTemplate": {"ContainerSpec": {"HealthCheck": {"Test": ["NONE"]}}}});
        assert_eq!(canonical(sent), read);
    }

    #[test]
    fn the_health_check_is_told_under_dockers_name_too() {
        let told = json!([{"Spec": {"TaskTemplate": {"ContainerSpec": {"HealthCheck": {"Retries": 1}}}}}]);
        let value: Value = serde_json::from_str(&with_dockers_names(told.to_string())).unwrap();
        let container = &value[0]["Spec"]["TaskTemplate"]["ContainerSpec"];
        assert_eq!(
            (&container["Healthcheck"], &container["HealthCheck"]),
            (&json!({"Retries": 1}), &json!({"Retries": 1}))
        );
        let label = json!({"Labels": {"ContainerSpec": "\"HealthCheck\":"}}).to_string();
        assert_eq!(with_dockers_names(label.clone()), label);
    }
}
