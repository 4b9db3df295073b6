//! The connection to containerd: every call carries the namespace, is bounded in time, and fails with what it was about.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_client::services::v1 as services;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::tonic::metadata::{Ascii, MetadataValue};
use containerd_client::tonic::service::Interceptor;
use containerd_client::tonic::service::interceptor::InterceptedService;
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Code, Request, Response, Status};

use super::error::{Result, RuntimeError};

/// All of flok's objects in containerd are here, apart from Docker's and Kubernetes'.
pub const NAMESPACE: &str = "flok";

pub const SNAPSHOTTER: &str = "overlayfs";

/// For calls that touch containerd's own records.
pub const SHORT: Duration = Duration::from_secs(30);
/// For calls that run a process (shim, runc) or unpack a layer, on a loaded machine.
pub const LONG: Duration = Duration::from_secs(120);

/// Cheap to clone; reconnects by itself.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    headers: Headers,
}

/// Adds the namespace and, for what a collection of garbage must not take, the lease.
#[derive(Clone)]
pub struct Headers {
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        if let Some(lease) = &self.lease {
            request.metadata_mut().insert("containerd-lease", lease.clone());
        }
        Ok(request)
    }
}

type Service = InterceptedService<Channel, Headers>;

macro_rules! services {
    ($($(#[$doc:meta])* $name:ident: $client:path),* $(,)?) => {
        impl Client {
            $($(#[$doc])* pub fn $name(&self) -> $client {
                <$client>::new(InterceptedService::new(self.channel.clone(), self.headers.clone()))
            })*
        }
    };
}
services! {
    containers: services::containers_client::ContainersClient<Service>,
    content: services::content_client::ContentClient<Service>,
    diff: services::diff_client::DiffClient<Service>,
    events: services::events_client::EventsClient<Service>,
    images: services::images_client::ImagesClient<Service>,
    leases: services::leases_client::LeasesClient<Service>,
    namespaces: services::namespaces_client::NamespacesClient<Service>,
    snapshots: SnapshotsClient<Service>,
    tasks: services::tasks_client::TasksClient<Service>,
    version: services::version_client::VersionClient<Service>,
}

impl Client {
    /// Connects, and makes the namespace where it is missing.
    pub async fn connect(socket: &Path) -> Result<Client> {
        let unreachable = |message: String| RuntimeError::Unreachable { socket: socket.to_owned(), message };
        let connected = tokio::time::timeout(SHORT, containerd_client::connect(socket)).await;
        let channel = connected
            .map_err(|_| unreachable("no answer".to_owned()))?
            .map_err(|error| unreachable(innermost(&error)))?;
        let headers = Headers { namespace: MetadataValue::from_static(NAMESPACE), lease: None };
        let client = Client { channel, headers };
        client.make_namespace().await?;
        Ok(client)
    }

    /// What is written through this one is held by `lease` until that is deleted or expires.
    pub fn with_lease(&self, lease: &str) -> Client {
        let mut client = self.clone();
        client.headers.lease = Some(lease.parse().expect("lease ids are ASCII"));
        client
    }

    pub async fn server_version(&self) -> Result<String> {
        let version = call("asking the version of", "containerd", SHORT, self.version().version(())).await?;
        Ok(version.version)
    }

    async fn make_namespace(&self) -> Result<()> {
        let request = services::CreateNamespaceRequest {
            namespace: Some(services::Namespace { name: NAMESPACE.to_owned(), labels: Default::default() }),
        };
        match call("creating the namespace", NAMESPACE, SHORT, self.namespaces().create(request)).await {
            Err(error) if !error.already_exists() => Err(error),
            _ => Ok(()),
        }
    }
}

/// The path of a private containerd's socket must fit in a `sockaddr_un`, with `.ttrpc` behind it.
pub fn check_socket_path(path: &Path) -> Result<()> {
    const MAX: usize = 100;
    let len = path.as_os_str().len();
    if len > MAX {
        return Err(RuntimeError::SocketPath { path: PathBuf::from(path), len, max: MAX });
    }
    Ok(())
}

/// One call, bounded.
pub async fn call<T>(
    operation: &'static str,
    object: impl Into<String>,
    within: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T> {
    match tokio::time::timeout(within, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(refused(operation, object.into(), status)),
        Err(_) => Err(RuntimeError::Timeout { operation, object: object.into(), after: within }),
    }
}

fn refused(operation: &'static str, object: String, status: Status) -> RuntimeError {
    if status.message().contains("no space left on device") || status.code() == Code::ResourceExhausted {
        return RuntimeError::DiskFull { what: format!("{operation} {object}"), path: "containerd's directory".into() };
    }
    RuntimeError::Containerd { operation, object, status: Box::new(status) }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
