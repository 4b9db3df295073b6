//! What can go wrong between flok and containerd. Messages are shown to users as a task's error.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Nothing is known about what containerd did.
    #[error("containerd at {socket} cannot be reached: {message}; is it running, and may this process use its socket?")]
    Unreachable { socket: PathBuf, message: String },
    #[error("{path} cannot be started; install containerd and runc, or name a running one with --containerd")]
    Spawn { path: PathBuf, source: io::Error },
    #[error("containerd did not become ready within {} s: {last}; see {log}", after.as_secs())]
    NotReady { after: Duration, last: String, log: PathBuf },
    #[error(
        "the containerd socket path {path} has {len} bytes, and a unix socket's may have {max}: use a shorter data directory"
    )]
    SocketPath { path: PathBuf, len: usize, max: usize },
    /// Containerd refused or failed; what it says comes with it.
    #[error("{operation} {object}: {}", status.message())]
    Containerd { operation: &'static str, object: String, status: Box<containerd_client::tonic::Status> },
    /// It may still happen.
    #[error("{operation} {object}: no answer from containerd within {} s", after.as_secs())]
    Timeout { operation: &'static str, object: String, after: Duration },
    #[error("{operation} {path}")]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{0:?} is no image reference: {1}")]
    InvalidReference(String, String),
    /// A registry said no, or nothing; repeating it now is useless.
    #[error("no such image: {image}: {reason}")]
    NoImage { image: String, reason: String },
    /// A registry cannot be reached just now.
    #[error("pulling {image}: {reason}")]
    Pull { image: String, reason: String },
    #[error("image {image} is broken: {reason}; pull or load it again")]
    BrokenImage { image: String, reason: String },
    #[error("{0} is in use by {1}: remove the service, or use force")]
    ImageInUse(String, String),
    #[error("the image archive cannot be read: {0}")]
    Archive(String),
    #[error("no room for {what}: {path} is full; free some space, then the task is tried again")]
    DiskFull { what: String, path: PathBuf },
    #[error("user {user:?}: {reason}")]
    User { user: String, reason: String },
    #[error("mount {target}: {reason}")]
    Mount { target: String, reason: String },
    #[error("volume {volume}: mount of {device} as {kind}: {reason}")]
    VolumeMount { volume: String, kind: String, device: String, reason: String },
    #[error("volume {volume}: {reason}")]
    VolumeOptions { volume: String, reason: String },
    /// Which ones, never their values.
    #[error("volume {volume} is on this node with other options ({options}): remove it, or give this one another name")]
    VolumeDiffers { volume: String, options: String },
    #[error("volume {volume} is in use by task {task}")]
    VolumeInUse { volume: String, task: crate::spec::TaskId },
    #[error("volume name {0:?} must be made of letters, digits, '_', '.' and '-', and begin with a letter or digit")]
    VolumeName(String),
    #[error("device {device}: {reason}")]
    Device { device: String, reason: String },
    #[error(transparent)]
    Spec(#[from] super::oci::SpecError),
    /// What is wrong with a log driver or its options.
    #[error("{0}")]
    LogDriver(String),
    #[error("{0} is not supported yet; leave it out")]
    Unsupported(String),
    #[error("the processes cannot be listed: {0}")]
    Ps(String),
    #[error("{0} copies from and to this node's containers run already; try again when one has ended")]
    TooManyCopies(usize),
    #[error("task {0} has no running container on this node")]
    NotRunning(crate::spec::TaskId),
}

pub type Result<T, E = RuntimeError> = std::result::Result<T, E>;

impl RuntimeError {
    pub fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> RuntimeError {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                RuntimeError::DiskFull { what: operation.to_owned(), path }
            }
            _ => RuntimeError::Io { operation, path, source },
        }
    }

    /// Containerd's own code, where it answered.
    pub fn code(&self) -> Option<containerd_client::tonic::Code> {
        match self {
            RuntimeError::Containerd { status, .. } => Some(status.code()),
            _ => None,
        }
    }

    /// Whether containerd was not there to answer, so that nothing is known of what was asked for.
    pub fn is_no_answer(&self) -> bool {
        matches!(self, RuntimeError::Containerd { status, .. }
            if status.code() == containerd_client::tonic::Code::Unavailable || status.message() == "transport error")
    }

    pub fn is_not_found(&self) -> bool {
        self.code() == Some(containerd_client::tonic::Code::NotFound)
    }

    pub fn already_exists(&self) -> bool {
        self.code() == Some(containerd_client::tonic::Code::AlreadyExists)
    }
}

/// An error with all its causes, for people.
pub fn explained(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Nothing there is what a removal wants.
pub fn gone_is_fine<T>(result: Result<T>) -> Result<()> {
    match result {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
