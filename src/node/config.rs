//! placeholder until cli lands
use crate::spec::Labels;
#[derive(Clone)]
pub struct Config {
    pub data_dir: std::path::PathBuf,
    pub socket: std::path::PathBuf,
    pub listen_addr: std::net::SocketAddr,
    pub advertise_addr: Option<std::net::SocketAddr>,
    pub labels: Labels,
    pub hostname: Option<String>,
    pub containerd: Option<std::path::PathBuf>,
    pub task_subnet: String,
}
