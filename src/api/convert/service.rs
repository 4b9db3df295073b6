//! Services.

use std::net::IpAddr;

use bollard::models as docker;
use serde::Serialize;

use super::container::{container_in, container_out};
use super::network::cidr;
use super::{date, labels_in, labels_out, list_out, nanos, optional_duration, signed, some_if, unsigned, version};
use crate::api::ApiError;
use crate::spec::*;
use crate::state::{Service, State, UpdateState};

/// Reads a spec as a client sent it. Names of networks stay names; [`ServiceSpec`]'s own validation is the state's.
pub fn service_spec_from_docker(spec: docker::ServiceSpec) -> Result<ServiceSpec, ApiError> {
    let template = spec.task_template.unwrap_or_default();
    let runtime = template.runtime.as_deref().unwrap_or_default();
    let is_of_containers = runtime.is_empty() || runtime.eq_ignore_ascii_case("container");
    if template.plugin_spec.is_some() || template.network_attachment_spec.is_some() || !is_of_containers {
        return Err(ApiError::NotImplemented(
            "only container services are supported, no plugins or attachments".into(),
        ));
    }
    let container =
        template.container_spec.ok_or_else(|| ApiError::invalid("TaskTemplate.ContainerSpec is missing"))?;
    let endpoint = endpoint_in(spec.endpoint_spec.unwrap_or_default())?;
    let networks = template.networks.or(spec.networks).unwrap_or_default();
    let mut task = TaskSpec {
        container: container_in(container)?,
        resources: resources_in(template.resources.unwrap_or_default())?,
        restart: restart_in(template.restart_policy.unwrap_or_default())?,
        placement: placement_in(template.placement.unwrap_or_default())?,
        networks: networks.into_iter().map(network_in).collect(),
        log_driver: template.log_driver.and_then(log_driver_in),
        force_update: template.force_update.unwrap_or(0),
        host_ports: Vec::new(),
        volume_policy: VolumePolicy::Wait,
        ingress: false,
    };
    task.derive_from_ports(&endpoint.ports);
    let mut spec = ServiceSpec {
        name: spec.name.unwrap_or_default(),
        labels: labels_in(spec.labels),
        mode: mode_in(spec.mode)?,
        task,
        update: spec.update_config.map(update_in).transpose()?.unwrap_or_default(),
        rollback: spec.rollback_config.map(rollback_in).transpose()?.unwrap_or_default(),
        endpoint,
        depends_on: Vec::new(),
        schedule: None,
    };
    spec.read_additions().map_err(ApiError::invalid)?;
    Ok(spec)
}

/// Options without a driver are the default one's: a stack file's `logging` may well have no more.
fn log_driver_in(driver: docker::TaskSpecLogDriver) -> Option<LogDriver> {
    let (name, options) = (driver.name.unwrap_or_default(), labels_in(driver.options));
    match (name.is_empty(), options.is_empty()) {
        (true, true) => None,
        (true, false) => Some(LogDriver { name: logging::DEFAULT_LOG_DRIVER.to_owned(), options }),
        (false, _) => Some(LogDriver { name, options }),
    }
}

/// A service as `GET /services` shows it, without its status.
pub fn service_to_docker(service: &Service, state: &State) -> docker::Service {
    docker::Service {
        id: Some(service.id.to_string()),
        version: version(service.meta.version),
        created_at: Some(date(service.meta.created_at)),
        updated_at: Some(date(service.meta.updated_at)),
        spec: Some(spec_out(&service.spec)),
        endpoint: Some(docker::ServiceEndpoint {
            spec: Some(endpoint_out(&service.spec.endpoint)),
            ports: list_out(&ports_to_docker(&service.ports)),
            virtual_ips: list_out(&virtual_ips(service, state)),
        }),
        update_status: service.update.as_ref().map(|update| docker::ServiceUpdateStatus {
            state: Some(update_state(update.state)),
            started_at: Some(date(update.started_at)),
            completed_at: update.completed_at.map(date),
            message: Some(update.message.clone()),
        }),
        service_status: None,
        job_status: service.job.map(|job| docker::ServiceJobStatus {
            job_iteration: Some(docker::ObjectVersion { index: Some(job.iteration) }),
            last_execution: Some(date(job.last_execution)),
        }),
    }
}

pub fn update_state(state: UpdateState) -> docker::ServiceUpdateStatusStateEnum {
    match state {
        UpdateState::Updating => docker::ServiceUpdateStatusStateEnum::UPDATING,
        UpdateState::Paused => docker::ServiceUpdateStatusStateEnum::PAUSED,
        UpdateState::Completed => docker::ServiceUpdateStatusStateEnum::COMPLETED,
        UpdateState::RollbackStarted => docker::ServiceUpdateStatusStateEnum::ROLLBACK_STARTED,
        UpdateState::RollbackPaused => docker::ServiceUpdateStatusStateEnum::ROLLBACK_PAUSED,
        UpdateState::RollbackCompleted => docker::ServiceUpdateStatusStateEnum::ROLLBACK_COMPLETED,
    }
}

/// A service as Docker's clients read it: its model, and what that lacks.
#[derive(Debug, Serialize)]
pub struct ServiceShown {
    #[serde(flatten)]
    service: docker::Service,
    #[serde(rename = "PreviousSpec", skip_serializing_if = "Option::is_none")]
    previous: Option<docker::ServiceSpec>,
}

impl ServiceShown {
    pub fn new(service: &Service, state: &State) -> ServiceShown {
        let previous = service.previous.as_ref().map(|previous| spec_out(&previous.spec));
        ServiceShown { service: service_to_docker(service, state), previous }
    }

    pub fn with_status(mut self, status: docker::ServiceServiceStatus) -> ServiceShown {
        self.service.service_status = Some(status);
        self
    }

    /// With what is in force where the spec says nothing (`insertDefaults`).
    pub fn with_defaults(mut self) -> ServiceShown {
        if let Some(spec) = &mut self.service.spec {
            insert_defaults(spec);
        }
        self
    }
}

/// Docker's daemon names these; the spec that is stored does not.
fn insert_defaults(spec: &mut docker::ServiceSpec) {
    let watched = Some(nanos(UpdateConfig::DEFAULT_MONITOR));
    let update = spec.update_config.get_or_insert_with(|| update_out(&UpdateConfig::default()));
    update.monitor = update.monitor.or(watched);
    update.delay = update.delay.or(Some(0));
    let rollback = spec.rollback_config.get_or_insert_with(|| rollback_out(&UpdateConfig::default()));
    rollback.monitor = rollback.monitor.or(watched);
    rollback.delay = rollback.delay.or(Some(0));
    let Some(task) = &mut spec.task_template else { return };
    if let Some(container) = &mut task.container_spec {
        container.stop_grace_period = container.stop_grace_period.or(Some(nanos(DEFAULT_STOP_GRACE)));
    }
    if let Some(resources) = &mut task.resources {
        resources.limits.get_or_insert_default();
        resources.reservations.get_or_insert_default();
    }
    if let Some(restart) = &mut task.restart_policy {
        restart.max_attempts = restart.max_attempts.or(Some(0));
    }
}

fn virtual_ips(service: &Service, state: &State) -> Vec<docker::ServiceEndpointVirtualIps> {
    let vip = |network: NetworkId, addr: &IpAddr| docker::ServiceEndpointVirtualIps {
        network_id: Some(network.to_string()),
        addr: Some(cidr(state, network, *addr)),
    };
    service.vips.iter().flat_map(|(network, all)| all.iter().map(|addr| vip(*network, addr))).collect()
}

fn spec_out(spec: &ServiceSpec) -> docker::ServiceSpec {
    docker::ServiceSpec {
        name: Some(spec.name.clone()),
        labels: labels_out(&spec.labels),
        task_template: Some(task_spec_out(&spec.task)),
        mode: Some(mode_out(spec.mode)),
        update_config: some_if(update_out(&spec.update), &update_out(&UpdateConfig::default())),
        rollback_config: some_if(rollback_out(&spec.rollback), &rollback_out(&UpdateConfig::default())),
        networks: None,
        endpoint_spec: Some(endpoint_out(&spec.endpoint)),
    }
}

pub fn task_spec_out(task: &TaskSpec) -> docker::TaskSpec {
    docker::TaskSpec {
        container_spec: Some(container_out(&task.container)),
        resources: Some(resources_out(&task.resources)),
        restart_policy: Some(restart_out(&task.restart)),
        placement: Some(placement_out(&task.placement)),
        force_update: Some(task.force_update),
        runtime: Some("container".into()),
        networks: list_out(&task.networks.iter().map(network_out).collect::<Vec<_>>()),
        log_driver: task.log_driver.as_ref().map(|driver| docker::TaskSpecLogDriver {
            name: Some(driver.name.clone()),
            options: labels_out(&driver.options),
        }),
        ..Default::default()
    }
}

fn mode_in(mode: Option<docker::ServiceSpecMode>) -> Result<ServiceMode, ApiError> {
    let mode = mode.unwrap_or_default();
    let chosen =
        [mode.replicated.is_some(), mode.global.is_some(), mode.replicated_job.is_some(), mode.global_job.is_some()];
    if chosen.iter().filter(|chosen| **chosen).count() > 1 {
        return Err(ApiError::invalid("must specify only one service mode"));
    }
    if mode.global.is_some() {
        return Ok(ServiceMode::Global);
    }
    if mode.global_job.is_some() {
        return Ok(ServiceMode::GlobalJob);
    }
    if let Some(job) = mode.replicated_job {
        let max_concurrent = unsigned("Mode.ReplicatedJob.MaxConcurrent", job.max_concurrent.or(Some(1)))?;
        let total = job.total_completions.or(job.max_concurrent).or(Some(1));
        let total_completions = unsigned("Mode.ReplicatedJob.TotalCompletions", total)?;
        return Ok(ServiceMode::ReplicatedJob { max_concurrent, total_completions });
    }
    let replicas = mode.replicated.and_then(|replicated| replicated.replicas).or(Some(1));
    Ok(ServiceMode::Replicated { replicas: unsigned("Mode.Replicated.Replicas", replicas)? })
}

fn mode_out(mode: ServiceMode) -> docker::ServiceSpecMode {
    let empty = docker::ServiceSpecMode::default();
    match mode {
        ServiceMode::Replicated { replicas } => docker::ServiceSpecMode {
            replicated: Some(docker::ServiceSpecModeReplicated { replicas: signed(replicas) }),
            ..empty
        },
        ServiceMode::Global => docker::ServiceSpecMode { global: Some(Default::default()), ..empty },
        ServiceMode::ReplicatedJob { max_concurrent, total_completions } => docker::ServiceSpecMode {
            replicated_job: Some(docker::ServiceSpecModeReplicatedJob {
                max_concurrent: signed(max_concurrent),
                total_completions: signed(total_completions),
            }),
            ..empty
        },
        ServiceMode::GlobalJob => docker::ServiceSpecMode { global_job: Some(Default::default()), ..empty },
    }
}

fn resources_in(resources: docker::TaskSpecResources) -> Result<Resources, ApiError> {
    let limits = resources.limits.unwrap_or_default();
    let reservations = resources.reservations.unwrap_or_default();
    Ok(Resources {
        limits: ResourceLimits {
            nano_cpus: unsigned("Resources.Limits.NanoCPUs", limits.nano_cpus)?,
            memory_bytes: unsigned("Resources.Limits.MemoryBytes", limits.memory_bytes)?,
            pids: unsigned("Resources.Limits.Pids", limits.pids)?,
        },
        reservations: ResourceReservations {
            nano_cpus: unsigned("Resources.Reservations.NanoCPUs", reservations.nano_cpus)?,
            memory_bytes: unsigned("Resources.Reservations.MemoryBytes", reservations.memory_bytes)?,
            generic: generic_all_in(reservations.generic_resources.unwrap_or_default())?,
        },
    })
}

/// As a count of Docker's device requests: all there are.
const ALL: i64 = -1;

fn generic_all_in(resources: Vec<docker::GenericResourcesInner>) -> Result<Vec<GenericResource>, ApiError> {
    let read = |resource: docker::GenericResourcesInner| {
        let (named, discrete) = (resource.named_resource_spec, resource.discrete_resource_spec);
        match (named, discrete) {
            (Some(named), _) => Ok(GenericResource::Named {
                kind: named.kind.unwrap_or_default(),
                value: named.value.unwrap_or_default(),
            }),
            (None, discrete) => {
                let discrete = discrete.unwrap_or_default();
                let kind = discrete.kind.unwrap_or_default();
                if discrete.value == Some(ALL) {
                    return Ok(GenericResource::All { kind });
                }
                let value = unsigned("Resources.Reservations.GenericResources.Value", discrete.value)?;
                Ok(GenericResource::Discrete { kind, value })
            }
        }
    };
    resources.into_iter().map(read).collect()
}

pub fn generic_out(resource: &GenericResource) -> docker::GenericResourcesInner {
    match resource.clone() {
        GenericResource::Named { kind, value } => docker::GenericResourcesInner {
            named_resource_spec: Some(docker::GenericResourcesInnerNamedResourceSpec {
                kind: Some(kind),
                value: Some(value),
            }),
            discrete_resource_spec: None,
        },
        GenericResource::Discrete { kind, value } => counted(kind, signed(value)),
        GenericResource::All { kind } => counted(kind, Some(ALL)),
    }
}

fn counted(kind: String, value: Option<i64>) -> docker::GenericResourcesInner {
    let spec = docker::GenericResourcesInnerDiscreteResourceSpec { kind: Some(kind), value };
    docker::GenericResourcesInner { named_resource_spec: None, discrete_resource_spec: Some(spec) }
}

fn resources_out(resources: &Resources) -> docker::TaskSpecResources {
    let limits = resources.limits;
    let reserved = &resources.reservations;
    docker::TaskSpecResources {
        limits: (limits != ResourceLimits::default()).then(|| docker::Limit {
            nano_cpus: some_if(limits.nano_cpus, &0).and_then(signed),
            memory_bytes: some_if(limits.memory_bytes, &0).and_then(signed),
            pids: some_if(limits.pids, &0).and_then(signed),
        }),
        reservations: (*reserved != ResourceReservations::default()).then(|| docker::ResourceObject {
            nano_cpus: some_if(reserved.nano_cpus, &0).and_then(signed),
            memory_bytes: some_if(reserved.memory_bytes, &0).and_then(signed),
            generic_resources: list_out(&reserved.generic.iter().map(generic_out).collect::<Vec<_>>()),
        }),
        ..Default::default()
    }
}

fn restart_in(policy: docker::TaskSpecRestartPolicy) -> Result<RestartPolicy, ApiError> {
    use docker::TaskSpecRestartPolicyConditionEnum as Condition;
    Ok(RestartPolicy {
        condition: match policy.condition.unwrap_or(Condition::EMPTY) {
            Condition::NONE => RestartCondition::None,
            Condition::ON_FAILURE => RestartCondition::OnFailure,
            Condition::ANY | Condition::EMPTY => RestartCondition::Any,
        },
        delay: optional_duration("RestartPolicy.Delay", policy.delay)?,
        max_attempts: policy.max_attempts.map(|n| unsigned("RestartPolicy.MaxAttempts", Some(n))).transpose()?,
        window: optional_duration("RestartPolicy.Window", policy.window)?,
    })
}

fn restart_out(policy: &RestartPolicy) -> docker::TaskSpecRestartPolicy {
    use docker::TaskSpecRestartPolicyConditionEnum as Condition;
    docker::TaskSpecRestartPolicy {
        condition: Some(match policy.condition {
            RestartCondition::None => Condition::NONE,
            RestartCondition::OnFailure => Condition::ON_FAILURE,
            RestartCondition::Any => Condition::ANY,
        }),
        delay: policy.delay.map(nanos),
        max_attempts: policy.max_attempts.and_then(signed),
        window: policy.window.map(nanos),
    }
}

fn placement_in(placement: docker::TaskSpecPlacement) -> Result<Placement, ApiError> {
    Ok(Placement {
        constraints: placement.constraints.unwrap_or_default(),
        spread: placement
            .preferences
            .unwrap_or_default()
            .into_iter()
            .filter_map(|preference| preference.spread?.spread_descriptor)
            .collect(),
        max_replicas: unsigned("Placement.MaxReplicas", placement.max_replicas)?,
        platforms: placement
            .platforms
            .unwrap_or_default()
            .into_iter()
            .map(|p| Platform { os: p.os.unwrap_or_default(), architecture: p.architecture.unwrap_or_default() })
            .collect(),
    })
}

fn placement_out(placement: &Placement) -> docker::TaskSpecPlacement {
    docker::TaskSpecPlacement {
        constraints: list_out(&placement.constraints),
        preferences: list_out(
            &placement
                .spread
                .iter()
                .map(|path| docker::TaskSpecPlacementPreferences {
                    spread: Some(docker::TaskSpecPlacementSpread { spread_descriptor: Some(path.clone()) }),
                })
                .collect::<Vec<_>>(),
        ),
        max_replicas: some_if(placement.max_replicas, &0).and_then(signed),
        platforms: list_out(&placement.platforms.iter().map(super::node::platform_out).collect::<Vec<_>>()),
    }
}

fn network_in(network: docker::NetworkAttachmentConfig) -> NetworkAttachment {
    let target = network.target.unwrap_or_default();
    NetworkAttachment {
        target: target.parse().map(NetworkTarget::Id).unwrap_or(NetworkTarget::Name(target)),
        aliases: network.aliases.unwrap_or_default(),
        driver_options: labels_in(network.driver_opts),
    }
}

fn network_out(network: &NetworkAttachment) -> docker::NetworkAttachmentConfig {
    docker::NetworkAttachmentConfig {
        target: Some(match &network.target {
            NetworkTarget::Id(id) => id.to_string(),
            NetworkTarget::Name(name) => name.clone(),
        }),
        aliases: list_out(&network.aliases),
        driver_opts: (!network.driver_options.is_empty()).then(|| labels_out(&network.driver_options)).flatten(),
    }
}

fn endpoint_in(endpoint: docker::EndpointSpec) -> Result<EndpointSpec, ApiError> {
    Ok(EndpointSpec {
        mode: match endpoint.mode {
            Some(docker::EndpointSpecModeEnum::DNSRR) => EndpointMode::Dnsrr,
            _ => EndpointMode::Vip,
        },
        ports: endpoint.ports.unwrap_or_default().into_iter().map(port_in).collect::<Result<_, _>>()?,
    })
}

fn port_in(port: docker::EndpointPortConfig) -> Result<PortConfig, ApiError> {
    let number = |field: &str, value: Option<i64>| {
        let value = value.unwrap_or(0);
        u16::try_from(value).map_err(|_| ApiError::invalid(format!("{field}: {value} is not a port (1 to 65535)")))
    };
    Ok(PortConfig {
        name: port.name.filter(|name| !name.is_empty()),
        protocol: match port.protocol {
            Some(docker::EndpointPortConfigProtocolEnum::UDP) => Protocol::Udp,
            Some(docker::EndpointPortConfigProtocolEnum::SCTP) => Protocol::Sctp,
            _ => Protocol::Tcp,
        },
        target: number("TargetPort", port.target_port)?,
        published: number("PublishedPort", port.published_port)?,
        mode: match port.publish_mode {
            Some(docker::EndpointPortConfigPublishModeEnum::HOST) => PublishMode::Host,
            _ => PublishMode::Ingress,
        },
    })
}

fn endpoint_out(endpoint: &EndpointSpec) -> docker::EndpointSpec {
    docker::EndpointSpec {
        mode: Some(match endpoint.mode {
            EndpointMode::Vip => docker::EndpointSpecModeEnum::VIP,
            EndpointMode::Dnsrr => docker::EndpointSpecModeEnum::DNSRR,
        }),
        ports: list_out(&ports_to_docker(&endpoint.ports)),
    }
}

pub fn ports_to_docker(ports: &[PortConfig]) -> Vec<docker::EndpointPortConfig> {
    let port_out = |port: &PortConfig| docker::EndpointPortConfig {
        name: port.name.clone(),
        protocol: Some(match port.protocol {
            Protocol::Tcp => docker::EndpointPortConfigProtocolEnum::TCP,
            Protocol::Udp => docker::EndpointPortConfigProtocolEnum::UDP,
            Protocol::Sctp => docker::EndpointPortConfigProtocolEnum::SCTP,
        }),
        target_port: Some(i64::from(port.target)),
        published_port: some_if(i64::from(port.published), &0),
        publish_mode: Some(match port.mode {
            PublishMode::Ingress => docker::EndpointPortConfigPublishModeEnum::INGRESS,
            PublishMode::Host => docker::EndpointPortConfigPublishModeEnum::HOST,
        }),
    };
    ports.iter().map(port_out).collect()
}

/// `0.3` for the nearest number that a spec can hold, and not all of its digits.
fn as_written(ratio: f32) -> f64 {
    ratio.to_string().parse().unwrap_or_default()
}

/// Reads one of Docker's two update configurations, which differ in name alone.
macro_rules! update_config {
    ($read:ident, $write:ident, $config:ident, $action:ident, $order:ident, rollback: $rollback:expr) => {
        fn $read(config: docker::$config) -> Result<UpdateConfig, ApiError> {
            Ok(UpdateConfig {
                parallelism: unsigned("UpdateConfig.Parallelism", config.parallelism.or(Some(1)))?,
                delay: optional_duration("UpdateConfig.Delay", config.delay)?.unwrap_or_default(),
                failure_action: match config.failure_action.map(|action| action.to_string()).as_deref() {
                    Some("continue") => FailureAction::Continue,
                    Some("rollback") => $rollback,
                    _ => FailureAction::Pause,
                },
                monitor: optional_duration("UpdateConfig.Monitor", config.monitor)?.filter(|m| !m.is_zero()),
                max_failure_ratio: config.max_failure_ratio.unwrap_or(0.0) as f32,
                order: match config.order {
                    Some(docker::$order::START_FIRST) => UpdateOrder::StartFirst,
                    _ => UpdateOrder::StopFirst,
                },
            })
        }

        fn $write(config: &UpdateConfig) -> docker::$config {
            docker::$config {
                parallelism: signed(config.parallelism),
                delay: some_if(nanos(config.delay), &0),
                failure_action: match config.failure_action {
                    FailureAction::Pause => "pause",
                    FailureAction::Continue => "continue",
                    FailureAction::Rollback => "rollback",
                }
                .parse::<docker::$action>()
                .ok(),
                monitor: config.monitor.map(nanos),
                max_failure_ratio: Some(as_written(config.max_failure_ratio)),
                order: Some(match config.order {
                    UpdateOrder::StopFirst => docker::$order::STOP_FIRST,
                    UpdateOrder::StartFirst => docker::$order::START_FIRST,
                }),
            }
        }
    };
}

update_config!(
    update_in, update_out, ServiceSpecUpdateConfig, ServiceSpecUpdateConfigFailureActionEnum,
    ServiceSpecUpdateConfigOrderEnum, rollback: FailureAction::Rollback
);
update_config!(
    rollback_in, rollback_out, ServiceSpecRollbackConfig, ServiceSpecRollbackConfigFailureActionEnum,
    ServiceSpecRollbackConfigOrderEnum, rollback: FailureAction::Pause
);
