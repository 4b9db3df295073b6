//! `ContainerSpec` and what is in it.

use bollard::models as docker;
use bollard::models::TaskSpecContainerSpecPrivilegesAppArmorModeEnum as AppArmor;
use bollard::models::TaskSpecContainerSpecPrivilegesSeccompModeEnum as Seccomp;

use super::{duration, labels_in, labels_out, list_out, nanos, optional_duration, signed, some_if, unsigned};
use crate::api::ApiError;
use crate::spec::*;

pub fn container_in(spec: docker::TaskSpecContainerSpec) -> Result<ContainerSpec, ApiError> {
    if spec.privileges.as_ref().is_some_and(|p| p.credential_spec.is_some()) {
        return Err(ApiError::invalid("Privileges.CredentialSpec is for Windows containers, which flok does not run"));
    }
    let dns = spec.dns_config.unwrap_or_default();
    Ok(ContainerSpec {
        image: spec.image.unwrap_or_default(),
        command: spec.command.unwrap_or_default(),
        args: spec.args.unwrap_or_default(),
        env: spec.env.unwrap_or_default(),
        dir: spec.dir.filter(|dir| !dir.is_empty()),
        user: spec.user.filter(|user| !user.is_empty()),
        groups: spec.groups.unwrap_or_default(),
        hostname: spec.hostname.filter(|name| !name.is_empty()),
        labels: labels_in(spec.labels),
        mounts: spec.mounts.unwrap_or_default().into_iter().map(mount_in).collect::<Result<_, _>>()?,
        stop_signal: spec.stop_signal.filter(|signal| !signal.is_empty()),
        stop_grace: optional_duration("StopGracePeriod", spec.stop_grace_period)?,
        drain: None,
        healthcheck: spec.health_check.map(health_in).transpose()?,
        hosts: spec.hosts.unwrap_or_default(),
        dns: DnsConfig {
            nameservers: dns.nameservers.unwrap_or_default(),
            search: dns.search.unwrap_or_default(),
            options: dns.options.unwrap_or_default(),
        },
        secrets: spec.secrets.unwrap_or_default().into_iter().map(secret_in).collect::<Result<_, _>>()?,
        configs: spec.configs.unwrap_or_default().into_iter().map(config_in).collect::<Result<_, _>>()?,
        cap_add: spec.capability_add.unwrap_or_default(),
        cap_drop: spec.capability_drop.unwrap_or_default(),
        sysctls: labels_in(spec.sysctls),
        ulimits: spec.ulimits.unwrap_or_default().into_iter().map(ulimit_in).collect(),
        read_only: spec.read_only.unwrap_or(false),
        init: spec.init,
        tty: spec.tty.unwrap_or(false),
        stdin_open: spec.open_stdin.unwrap_or(false),
        isolation: spec.isolation.map(|isolation| isolation.to_string()).filter(|text| !text.is_empty()),
        oom_score_adj: spec.oom_score_adj.unwrap_or(0),
        security_opt: spec.privileges.map(privileges_in).transpose()?.unwrap_or_default(),
        ..ContainerSpec::default()
    })
}

pub fn container_out(spec: &ContainerSpec) -> docker::TaskSpecContainerSpec {
    docker::TaskSpecContainerSpec {
        image: Some(spec.image.clone()),
        labels: (!spec.labels.is_empty()).then(|| labels_out(&spec.labels)).flatten(),
        command: list_out(&spec.command),
        args: list_out(&spec.args),
        hostname: spec.hostname.clone(),
        env: list_out(&spec.env),
        dir: spec.dir.clone(),
        user: spec.user.clone(),
        groups: list_out(&spec.groups),
        privileges: privileges_out(&spec.security_opt),
        tty: some_if(spec.tty, &false),
        open_stdin: some_if(spec.stdin_open, &false),
        read_only: some_if(spec.read_only, &false),
        mounts: list_out(&spec.mounts.iter().map(mount_out).collect::<Vec<_>>()),
        stop_signal: spec.stop_signal.clone(),
        stop_grace_period: spec.stop_grace.map(nanos),
        health_check: spec.healthcheck.as_ref().map(health_out),
        hosts: list_out(&spec.hosts),
        dns_config: Some(docker::TaskSpecContainerSpecDnsConfig {
            nameservers: list_out(&spec.dns.nameservers),
            search: list_out(&spec.dns.search),
            options: list_out(&spec.dns.options),
        }),
        secrets: list_out(&spec.secrets.iter().map(secret_out).collect::<Vec<_>>()),
        configs: list_out(&spec.configs.iter().map(config_out).collect::<Vec<_>>()),
        oom_score_adj: some_if(spec.oom_score_adj, &0),
        isolation: spec.isolation.as_deref().and_then(|text| text.parse().ok()),
        init: spec.init,
        sysctls: (!spec.sysctls.is_empty()).then(|| labels_out(&spec.sysctls)).flatten(),
        capability_add: list_out(&spec.cap_add),
        capability_drop: list_out(&spec.cap_drop),
        ulimits: list_out(&spec.ulimits.iter().map(ulimit_out).collect::<Vec<_>>()),
    }
}

/// What is asked for and cannot be had is refused: a task without its profile is less safe than its user thinks.
fn privileges_in(privileges: docker::TaskSpecContainerSpecPrivileges) -> Result<Vec<String>, ApiError> {
    let refused =
        |what: &str| Err(ApiError::invalid(format!("ContainerSpec.Privileges: {what} is not supported: leave it out")));
    let is_any_said = |texts: &[Option<String>]| texts.iter().flatten().any(|text| !text.is_empty());
    let credentials = privileges.credential_spec.unwrap_or_default();
    if is_any_said(&[credentials.config, credentials.file, credentials.registry]) {
        return refused("a CredentialSpec (of Windows)");
    }
    let context = privileges.se_linux_context.unwrap_or_default();
    if is_any_said(&[context.user, context.role, context.typ, context.level]) {
        return refused("an SELinuxContext");
    }
    let seccomp = match privileges.seccomp.and_then(|seccomp| seccomp.mode) {
        Some(Seccomp::CUSTOM) => return refused("a Seccomp profile of one's own"),
        Some(Seccomp::UNCONFINED) => Some(Confinement::Unconfined),
        Some(Seccomp::DEFAULT) => Some(Confinement::Default),
        Some(Seccomp::EMPTY) | None => None,
    };
    let apparmor = match privileges.app_armor.and_then(|armor| armor.mode) {
        Some(AppArmor::DISABLED) => Some(Confinement::Unconfined),
        Some(AppArmor::DEFAULT) => Some(Confinement::Default),
        Some(AppArmor::EMPTY) | None => None,
    };
    let no_new_privileges = privileges.no_new_privileges == Some(true);
    Ok(Security { no_new_privileges, seccomp, apparmor }.options())
}

fn privileges_out(options: &[String]) -> Option<docker::TaskSpecContainerSpecPrivileges> {
    let Security { no_new_privileges, seccomp, apparmor } = Security::read(options).unwrap_or_default();
    let seccomp = seccomp.map(|said| docker::TaskSpecContainerSpecPrivilegesSeccomp {
        mode: Some(match said {
            Confinement::Default => Seccomp::DEFAULT,
            Confinement::Unconfined => Seccomp::UNCONFINED,
        }),
        profile: None,
    });
    let app_armor = apparmor.map(|said| docker::TaskSpecContainerSpecPrivilegesAppArmor {
        mode: Some(match said {
            Confinement::Default => AppArmor::DEFAULT,
            Confinement::Unconfined => AppArmor::DISABLED,
        }),
    });
    let no_new_privileges = no_new_privileges.then_some(true);
    let privileges =
        docker::TaskSpecContainerSpecPrivileges { no_new_privileges, seccomp, app_armor, ..Default::default() };
    (privileges != Default::default()).then_some(privileges)
}

fn mount_in(mount: docker::Mount) -> Result<Mount, ApiError> {
    if mount.image_options.is_some() {
        return Err(ApiError::invalid("mounts of type image are not supported"));
    }
    let kind = match mount.typ.unwrap_or(docker::MountType::BIND) {
        docker::MountType::BIND => MountKind::Bind,
        docker::MountType::VOLUME => MountKind::Volume,
        docker::MountType::TMPFS => MountKind::Tmpfs,
        docker::MountType::CLUSTER => MountKind::Cluster,
        docker::MountType::NPIPE => MountKind::NamedPipe,
        other => return Err(ApiError::invalid(format!("mounts of type {other} are not supported"))),
    };
    let bind = mount.bind_options.unwrap_or_default();
    let volume = mount.volume_options.unwrap_or_default();
    let driver = volume.driver_config.unwrap_or_default();
    let tmpfs = mount.tmpfs_options.unwrap_or_default();
    Ok(Mount {
        kind,
        source: mount.source.filter(|source| !source.is_empty()),
        target: mount.target.unwrap_or_default(),
        read_only: mount.read_only.unwrap_or(false),
        bind: BindOptions {
            propagation: bind.propagation.map(|p| p.to_string()).filter(|text| !text.is_empty()),
            non_recursive: bind.non_recursive.unwrap_or(false),
            create_host_path: bind.create_mountpoint.unwrap_or(false),
            read_only_non_recursive: bind.read_only_non_recursive.unwrap_or(false),
            read_only_force_recursive: bind.read_only_force_recursive.unwrap_or(false),
        },
        volume: VolumeOptions {
            no_copy: volume.no_copy.unwrap_or(false),
            subpath: volume.subpath.filter(|path| !path.is_empty()),
            labels: labels_in(volume.labels),
            driver: driver.name.filter(|name| !name.is_empty()),
            driver_options: labels_in(driver.options),
        },
        tmpfs: TmpfsOptions {
            size_bytes: tmpfs.size_bytes.map(|size| unsigned("TmpfsOptions.SizeBytes", Some(size))).transpose()?,
            mode: tmpfs.mode.and_then(|mode| u32::try_from(mode).ok()),
            exec: exec_in(tmpfs.options.unwrap_or_default())?,
        },
    })
}

/// Docker's options of a tmpfs, `[["exec"]]` or `[["noexec"]]`; the last one counts.
fn exec_in(options: Vec<Vec<String>>) -> Result<Option<bool>, ApiError> {
    let mut exec = None;
    for option in options {
        exec = match option.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["exec"] => Some(true),
            ["noexec"] => Some(false),
            _ => {
                let text = option.join("=");
                return Err(ApiError::invalid(format!(
                    "TmpfsOptions.Options: invalid option {text:?}: write [\"exec\"] or [\"noexec\"]"
                )));
            }
        };
    }
    Ok(exec)
}

fn exec_out(exec: bool) -> Vec<Vec<String>> {
    vec![vec![if exec { "exec" } else { "noexec" }.to_owned()]]
}

pub fn mount_out(mount: &Mount) -> docker::Mount {
    let typ = match mount.kind {
        MountKind::Bind => docker::MountType::BIND,
        MountKind::Volume => docker::MountType::VOLUME,
        MountKind::Tmpfs => docker::MountType::TMPFS,
        MountKind::Cluster => docker::MountType::CLUSTER,
        MountKind::NamedPipe => docker::MountType::NPIPE,
    };
    let driver = docker::MountVolumeOptionsDriverConfig {
        name: mount.volume.driver.clone(),
        options: (!mount.volume.driver_options.is_empty()).then(|| labels_out(&mount.volume.driver_options)).flatten(),
    };
    docker::Mount {
        target: Some(mount.target.clone()),
        source: mount.source.clone(),
        typ: Some(typ),
        read_only: some_if(mount.read_only, &false),
        bind_options: (mount.bind != BindOptions::default()).then(|| docker::MountBindOptions {
            propagation: mount.bind.propagation.as_deref().and_then(|text| text.parse().ok()),
            non_recursive: some_if(mount.bind.non_recursive, &false),
            create_mountpoint: some_if(mount.bind.create_host_path, &false),
            read_only_non_recursive: some_if(mount.bind.read_only_non_recursive, &false),
            read_only_force_recursive: some_if(mount.bind.read_only_force_recursive, &false),
        }),
        volume_options: (mount.volume != VolumeOptions::default()).then(|| docker::MountVolumeOptions {
            no_copy: some_if(mount.volume.no_copy, &false),
            labels: (!mount.volume.labels.is_empty()).then(|| labels_out(&mount.volume.labels)).flatten(),
            driver_config: (driver.name.is_some() || driver.options.is_some()).then_some(driver),
            subpath: mount.volume.subpath.clone(),
        }),
        tmpfs_options: (mount.tmpfs != TmpfsOptions::default()).then(|| docker::MountTmpfsOptions {
            size_bytes: mount.tmpfs.size_bytes.and_then(signed),
            mode: mount.tmpfs.mode.map(i64::from),
            options: mount.tmpfs.exec.map(exec_out),
        }),
        ..Default::default()
    }
}

fn health_in(check: docker::HealthConfig) -> Result<Healthcheck, ApiError> {
    Ok(Healthcheck {
        test: check.test.unwrap_or_default(),
        interval: optional_duration("Healthcheck.Interval", check.interval)?,
        timeout: optional_duration("Healthcheck.Timeout", check.timeout)?,
        retries: check.retries.map(retries_in).transpose()?,
        start_period: optional_duration("Healthcheck.StartPeriod", check.start_period)?,
        start_interval: check.start_interval.map(|n| duration("Healthcheck.StartInterval", n)).transpose()?,
    })
}

fn retries_in(retries: i64) -> Result<u32, ApiError> {
    u32::try_from(retries).map_err(|_| ApiError::invalid("Retries in Healthcheck cannot be negative"))
}

pub fn health_out(check: &Healthcheck) -> docker::HealthConfig {
    docker::HealthConfig {
        test: list_out(&check.test),
        interval: check.interval.map(nanos),
        timeout: check.timeout.map(nanos),
        retries: check.retries.map(i64::from),
        start_period: check.start_period.map(nanos),
        start_interval: check.start_interval.map(nanos),
    }
}

fn file_in(file: Option<docker::TaskSpecContainerSpecFile>, name: &str) -> FileTarget {
    let file = file.unwrap_or_default();
    FileTarget {
        name: file.name.unwrap_or_else(|| name.to_owned()),
        uid: file.uid.unwrap_or_else(|| "0".into()),
        gid: file.gid.unwrap_or_else(|| "0".into()),
        mode: file.mode.unwrap_or(0o444),
    }
}

fn secret_in(secret: docker::TaskSpecContainerSpecSecrets) -> Result<SecretReference, ApiError> {
    let name = secret.secret_name.unwrap_or_default();
    let id = secret.secret_id.unwrap_or_default();
    let id = id.parse().map_err(|_| ApiError::invalid(format!("secret {name}: {id:?} is not a secret id")))?;
    Ok(SecretReference { id, file: file_in(secret.file, &name), name, data_version: DataVersion(0) })
}

fn config_in(config: docker::TaskSpecContainerSpecConfigs) -> Result<ConfigReference, ApiError> {
    let name = config.config_name.unwrap_or_default();
    if config.runtime.is_some() {
        return Err(ApiError::invalid(format!("config {name}: a runtime target is for Windows' credential specs")));
    }
    let id = config.config_id.unwrap_or_default();
    let id = id.parse().map_err(|_| ApiError::invalid(format!("config {name}: {id:?} is not a config id")))?;
    let file = config.file.map(|file| docker::TaskSpecContainerSpecFile {
        name: file.name,
        uid: file.uid,
        gid: file.gid,
        mode: file.mode,
    });
    Ok(ConfigReference { id, file: file_in(file, &name), name, data_version: DataVersion(0) })
}

fn secret_out(secret: &SecretReference) -> docker::TaskSpecContainerSpecSecrets {
    docker::TaskSpecContainerSpecSecrets {
        file: Some(docker::TaskSpecContainerSpecFile {
            name: Some(secret.file.name.clone()),
            uid: Some(secret.file.uid.clone()),
            gid: Some(secret.file.gid.clone()),
            mode: Some(secret.file.mode),
        }),
        secret_id: Some(secret.id.to_string()),
        secret_name: Some(secret.name.clone()),
    }
}

fn config_out(config: &ConfigReference) -> docker::TaskSpecContainerSpecConfigs {
    docker::TaskSpecContainerSpecConfigs {
        file: Some(docker::TaskSpecContainerSpecFile1 {
            name: Some(config.file.name.clone()),
            uid: Some(config.file.uid.clone()),
            gid: Some(config.file.gid.clone()),
            mode: Some(config.file.mode),
        }),
        config_id: Some(config.id.to_string()),
        config_name: Some(config.name.clone()),
        ..Default::default()
    }
}

fn ulimit_in(ulimit: docker::ResourcesUlimits) -> Ulimit {
    Ulimit { name: ulimit.name.unwrap_or_default(), soft: ulimit.soft.unwrap_or(0), hard: ulimit.hard.unwrap_or(0) }
}

pub fn ulimit_out(ulimit: &Ulimit) -> docker::ResourcesUlimits {
    docker::ResourcesUlimits { name: Some(ulimit.name.clone()), soft: Some(ulimit.soft), hard: Some(ulimit.hard) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(mount: Value) -> Result<Mount, ApiError> {
        mount_in(serde_json::from_value(mount).unwrap())
    }

    #[test]
    fn how_far_a_bind_is_read_only_comes_back_as_it_was_sent() {
        for (key, non_recursive, force) in
            [("ReadOnlyNonRecursive", true, false), ("ReadOnlyForceRecursive", false, true)]
        {
            let sent =
                json!({"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true, "BindOptions": {key: true}});
            let mount = read(sent.clone()).unwrap();
            let bind = &mount.bind;
            assert_eq!((bind.read_only_non_recursive, bind.read_only_force_recursive), (non_recursive, force));
            assert_eq!(serde_json::to_value(mount_out(&mount)).unwrap(), sent);
        }
    }

    #[test]
    fn a_tmpfs_has_dockers_options_and_no_others() {
        let tmpfs = |options: Value| json!({"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"Options": options}});
        for (word, exec) in [("exec", true), ("noexec", false)] {
            let sent = tmpfs(json!([[word]]));
            let mount = read(sent.clone()).unwrap();
            assert_eq!(mount.tmpfs.exec, Some(exec));
            assert_eq!(serde_json::to_value(mount_out(&mount)).unwrap(), sent);
        }
        assert_eq!(read(tmpfs(json!([]))).unwrap().tmpfs.exec, None);
        for wrong in [json!([["huge", "always"]]), json!([["exec", "x"]]), json!([[]])] {
            let ApiError::Invalid(said) = read(tmpfs(wrong.clone())).unwrap_err() else { panic!("{wrong}") };
            assert!(said.contains("TmpfsOptions.Options"), "{said}");
        }
    }
}
