//! The runtime: what runs on this node, in containerd.
//!
//! Containerd is a private one that this room starts and watches, or one whose socket it is given; either way containers
//! and their logs outlive the daemon, and the next daemon adopts them by their labels. Nothing here decides what runs:
//! `node::worker` carries the agent's actions here.

mod anonymous_volumes;
mod attached;
mod cdi;
mod client;
mod containers;
mod copy;
mod error;
mod events;
mod exec;
mod files;
mod health;
pub mod host;
pub mod images;
mod input;
mod inspect;
pub mod logs;
pub mod mounting;
pub mod oci;
mod rootfs;
mod stats;
mod supervisor;
mod task_files;
pub mod usage;
mod users;
mod volume_list;
mod volume_mounts;
mod volumes;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use attached::{Attached, AttachedHandle, Printed};
pub use containers::{Created, Prepare, container_id};
pub use copy::{PathStat, Unpack};
pub use error::{Result, RuntimeError, explained};
pub use events::ContainerExit;
pub use exec::{Exec, ExecOutput};
pub use images::{ImageHealth, ImageInfo, Images, LoginRefused, Progress, Registries, RegistryConfig, Saved};
pub use inspect::{Made, ProcessTable, Running as RunningProcess};
pub use stats::{DiskUsage, TaskStats};
pub use volume_list::Volume;
pub use volumes::Volumes;

use crate::spec::GenericResource;
use client::Client;
use supervisor::{Paths, Supervisor};
use task_files::TaskFiles;

#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// flok's data directory; must exist. Containers' files, volumes and logs are below it.
    pub data_dir: PathBuf,
    /// A containerd that somebody else runs; `None`: a private one.
    pub containerd: Option<PathBuf>,
    /// The program of the private one, by name or path.
    pub containerd_binary: PathBuf,
    pub registries: Registries,
    /// flok's own binary, which containerd starts as the writer of each container's log.
    pub logger: PathBuf,
    pub log_defaults: logs::LogDefaults,
    /// Where descriptions of devices are looked for (Container Device Interface).
    pub cdi_dirs: Vec<PathBuf>,
}

impl RuntimeConfig {
    /// A private containerd below `data_dir`, public registries, this very program as log writer.
    pub fn new(data_dir: impl Into<PathBuf>) -> std::io::Result<RuntimeConfig> {
        Ok(RuntimeConfig {
            data_dir: data_dir.into(),
            containerd: None,
            containerd_binary: "containerd".into(),
            registries: Registries::default(),
            logger: std::env::current_exe()?,
            log_defaults: logs::LogDefaults::default(),
            cdi_dirs: cdi::DIRS.map(PathBuf::from).to_vec(),
        })
    }
}

/// Cheap to clone. Dropping the last one stops nothing but the watching.
#[derive(Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    images: Images,
    volumes: Volumes,
    task_files: TaskFiles,
    dir: PathBuf,
    runc_root: PathBuf,
    logger: PathBuf,
    log_defaults: logs::LogDefaults,
    cdi_dirs: Vec<PathBuf>,
    cgroup: oci::Cgroup,
    known: containers::Known,
    users: users::Users,
    copies: copy::Copies,
    _supervisor: Option<Supervisor>,
}

impl Runtime {
    /// Adopts or starts containerd; returns when it answers.
    pub async fn start(config: RuntimeConfig) -> Result<Runtime> {
        let paths = Paths::new(&config.data_dir);
        let runc_root = paths.runc_root();
        let (supervisor, client) = match &config.containerd {
            Some(socket) => (None, Client::connect(socket).await?),
            None => {
                let (supervisor, client) = Supervisor::start(paths, config.containerd_binary).await?;
                (Some(supervisor), client)
            }
        };
        let spool = config.data_dir.join("tmp");
        let images = Images::new(client.clone(), config.registries, host::platform(), spool);
        let shared = Shared {
            client,
            images,
            volumes: Volumes::new(config.data_dir.join("volumes"), config.logger.clone()),
            task_files: TaskFiles::new(config.data_dir.join(task_files::DIR)),
            dir: config.data_dir.join("tasks"),
            runc_root,
            logger: config.logger,
            log_defaults: config.log_defaults,
            cdi_dirs: config.cdi_dirs,
            cgroup: host::cgroup(Path::new("/sys/fs/cgroup")),
            known: containers::Known::default(),
            users: users::Users::default(),
            copies: copy::Copies::default(),
            _supervisor: supervisor,
        };
        shared.task_files.keep_only(|task| shared.dir.join(task.to_string()).exists());
        shared.volumes.keep_only(|task| shared.dir.join(task.to_string()).exists()).await;
        Ok(Runtime { shared: Arc::new(shared) })
    }

    pub async fn containerd_version(&self) -> Result<String> {
        self.shared.client.server_version().await
    }

    pub fn cgroup_version(&self) -> oci::CgroupVersion {
        self.shared.cgroup.version
    }

    /// The devices that this node's vendors describe, as what the node has to give.
    pub fn devices(&self) -> Vec<GenericResource> {
        cdi::Devices::read(&self.shared.cdi_dirs).resources()
    }

    pub fn images(&self) -> &Images {
        &self.shared.images
    }

    pub fn volumes(&self) -> &Volumes {
        &self.shared.volumes
    }
}
