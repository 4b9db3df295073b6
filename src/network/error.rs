//! What can go wrong with a task's network.

use std::io;
use std::path::PathBuf;

use crate::program::ProgramError;
use crate::spec::{NetworkId, Protocol, Subnet, TaskId};

/// Unless said otherwise, what was made before the error has been undone.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("{0:?} is not an IPv4 subnet such as 198.19.0.0/17, with a prefix of 8 to 30 bits")]
    Subnet(String),
    #[error(
        "no free address left in {0}: set a larger `local-subnet` in the configuration, or run fewer tasks on this node"
    )]
    Exhausted(String),
    #[error(
        "{tasks} tasks run with addresses of {former}, and local-subnet is {subnet} now: set it back to {former}; to change it, drain \
         the node first (flok node update --availability drain) and wait until no task runs on it"
    )]
    OtherSubnet { tasks: usize, former: String, subnet: String },
    #[error(
        "local-subnet {subnet} of this node overlaps with {held} of the swarm's network {network}: choose a block that no network \
         has with --local-subnet, FLOK_LOCAL_SUBNET or local-subnet in the configuration file"
    )]
    SubnetOfNetwork { subnet: String, held: Subnet, network: String },
    #[error("port {port}/{} is taken by another process on this node: free it, or publish another port", .protocol.as_str())]
    PortTaken { port: u16, protocol: Protocol },
    #[error("port {port}/{} is already published by task {task}", .protocol.as_str())]
    PortPublished { port: u16, protocol: Protocol, task: TaskId },
    #[error("UDP port {port}, for the tunnels between nodes, is taken by {holder}")]
    DataPathPort { port: u16, holder: String },
    #[error("the kernel refuses a network namespace: flok needs root and a kernel with network namespaces")]
    Namespace(#[source] io::Error),
    #[error("netlink: {operation}")]
    Netlink {
        operation: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot open a netlink socket")]
    NetlinkSocket(#[source] io::Error),
    #[error("the kernel's network: {0}")]
    Kernel(String),
    #[error("the task is on network {0}, which no manager has told this node of yet: are managers reached?")]
    UnknownNetwork(NetworkId),
    #[error("nftables did not take a change (does the kernel have nf_tables with NAT?): {0}")]
    Nft(ProgramError),
    #[error("cannot write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot set {path} to {value}")]
    Sysctl {
        path: PathBuf,
        value: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the resolver cannot serve task {task}: {why}")]
    ResolverRefuses { task: TaskId, why: String },
    #[error("the resolver of this node's tasks does not answer: see {}", log.display())]
    ResolverAway { log: PathBuf },
    #[error("the network room has stopped")]
    Stopped,
}
