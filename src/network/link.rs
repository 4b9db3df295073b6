//! One task's veth pair, addresses, neighbours and routes, over netlink.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Error, Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection};

use super::{NetworkError, namespace};

/// What a task sees as its gateway. It is no host's address: a permanent neighbour leads it to the veth's other end.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const GATEWAY_MAC: [u8; 6] = [0xee, 0xee, 0xee, 0xee, 0xee, 0xee];

/// The interface's name inside a task.
const TASK_INTERFACE: &str = "eth0";

/// Netlink in the daemon's own network namespace.
#[derive(Clone)]
pub struct Links {
    handle: Handle,
    loopback: u32,
}

impl Links {
    pub async fn open() -> Result<Links, NetworkError> {
        let (connection, handle, _) = new_connection().map_err(NetworkError::NetlinkSocket)?;
        tokio::spawn(connection);
        let loopback = index_of(&handle, "lo").await.map_err(failed("find lo"))?;
        Ok(Links { handle, loopback })
    }

    /// Lets the host speak to its tasks from `host`, and forward for them.
    pub async fn prepare_host(&self, host: Ipv4Addr) -> Result<(), NetworkError> {
        set_sysctl("net/ipv4/ip_forward", "1")?;
        let lo = LinkUnspec::new_with_index(self.loopback).up().build();
        self.handle.link().set(lo).execute().await.map_err(failed("bring lo up"))?;
        let added = self.handle.address().add(self.loopback, IpAddr::V4(host), 32).execute().await;
        ignore(libc::EEXIST, added).map_err(failed("give lo the tasks' gateway address"))
    }

    /// Connects the namespace at `path` to the host by a veth pair. `interface` is the host's end.
    pub async fn connect(
        &self,
        path: &Path,
        interface: &str,
        address: Ipv4Addr,
        host: Ipv4Addr,
    ) -> Result<(), NetworkError> {
        let task_mac = task_mac(address);
        self.add_pair(path, interface, task_mac).await?;
        set_sysctl(&format!("net/ipv4/conf/{interface}/route_localnet"), "1")?;
        let index = index_of(&self.handle, interface).await.map_err(failed("find the veth"))?;
        self.handle
            .neighbours()
            .add(index, IpAddr::V4(address))
            .link_layer_address(&task_mac)
            .state(NeighbourState::Permanent)
            .replace()
            .execute()
            .await
            .map_err(failed("set the task's neighbour"))?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .output_interface(index)
            .scope(RouteScope::Link)
            .pref_source(host)
            .build();
        self.handle.route().add(route).replace().execute().await.map_err(failed("route to the task"))?;

        let path = path.to_owned();
        let configured = tokio::task::spawn_blocking(move || configure_inside(&path, address)).await;
        configured.unwrap_or(Err(NetworkError::Stopped))
    }

    /// Deletes the host's end, and with it the pair. Nothing there is success.
    pub async fn disconnect(&self, interface: &str) -> Result<(), NetworkError> {
        let index = match index_of(&self.handle, interface).await {
            Ok(index) => index,
            Err(error) if is_errno(&error, libc::ENODEV) => return Ok(()),
            Err(error) => return Err(failed("find the veth")(error)),
        };
        let deleted = self.handle.link().del(index).execute().await;
        ignore(libc::ENODEV, deleted).map_err(failed("delete the veth"))
    }

    /// Whether the host's end of a pair is there.
    pub async fn exists(&self, interface: &str) -> bool {
        index_of(&self.handle, interface).await.is_ok()
    }

    async fn add_pair(&self, path: &Path, interface: &str, task_mac: [u8; 6]) -> Result<(), NetworkError> {
        let namespace = File::open(path).map_err(|source| NetworkError::Read { path: path.to_owned(), source })?;
        let inner = LinkMessageBuilder::<LinkUnspec>::new()
            .name(TASK_INTERFACE)
            .address(task_mac.to_vec())
            .setns_by_fd(namespace.as_raw_fd())
            .build();
        let pair = LinkVeth::new(interface, TASK_INTERFACE)
            .address(GATEWAY_MAC.to_vec())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(inner)))
            .up()
            .build();
        self.handle.link().add(pair).execute().await.map_err(failed("add the task's veth pair"))
    }
}

/// The task's side: loopback up, its address, and everything else through the gateway.
fn configure_inside(path: &Path, address: Ipv4Addr) -> Result<(), NetworkError> {
    let configured = namespace::within(path, move || {
        // The overlay is IPv4 so far: without this the kernel solicits IPv6 routers from each task.
        let _ = fs::write(sysctl_path(&format!("net/ipv6/conf/{TASK_INTERFACE}/disable_ipv6")), "1");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        Ok(runtime.block_on(async {
            let (connection, handle, _) = new_connection().map_err(NetworkError::NetlinkSocket)?;
            let driver = tokio::spawn(connection);
            let done = address_inside(&handle, address).await;
            driver.abort();
            done
        }))
    });
    configured.map_err(NetworkError::Namespace)?
}

async fn address_inside(handle: &Handle, address: Ipv4Addr) -> Result<(), NetworkError> {
    let lo = LinkUnspec::new_with_name("lo").up().build();
    handle.link().set(lo).execute().await.map_err(failed("bring the task's lo up"))?;
    let index = index_of(handle, TASK_INTERFACE).await.map_err(failed("find the task's interface"))?;
    let up = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(up).execute().await.map_err(failed("bring the task's interface up"))?;
    handle
        .address()
        .add(index, IpAddr::V4(address), 32)
        .execute()
        .await
        .map_err(failed("give the task its address"))?;
    handle
        .neighbours()
        .add(index, IpAddr::V4(GATEWAY))
        .link_layer_address(&GATEWAY_MAC)
        .state(NeighbourState::Permanent)
        .execute()
        .await
        .map_err(failed("set the task's gateway neighbour"))?;
    let default = RouteMessageBuilder::<Ipv4Addr>::new()
        .gateway(GATEWAY)
        .output_interface(index)
        .onlink()
        .pref_source(address)
        .build();
    handle.route().add(default).execute().await.map_err(failed("set the task's default route"))
}

async fn index_of(handle: &Handle, name: &str) -> Result<u32, Error> {
    let mut found = handle.link().get().match_name(name).execute();
    match found.try_next().await? {
        Some(link) => Ok(link.header.index),
        None => Err(Error::RequestFailed),
    }
}

/// Names of all links on the host that start with `prefix`.
pub async fn names_with_prefix(links: &Links, prefix: &str) -> Result<Vec<String>, NetworkError> {
    let mut all = links.handle.link().get().execute();
    let mut names = Vec::new();
    while let Some(link) = all.try_next().await.map_err(failed("list links"))? {
        names.extend(link.attributes.into_iter().filter_map(|attribute| match attribute {
            LinkAttribute::IfName(name) if name.starts_with(prefix) => Some(name),
            _ => None,
        }));
    }
    Ok(names)
}

/// A locally administered MAC address, from the task's address.
fn task_mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

fn sysctl_path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key)
}

fn set_sysctl(key: &str, value: &'static str) -> Result<(), NetworkError> {
    let path = sysctl_path(key);
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(|source| NetworkError::Sysctl { path, value, source })
}

fn failed(operation: &'static str) -> impl Fn(Error) -> NetworkError {
    move |source| NetworkError::Netlink { operation, source }
}

fn is_errno(error: &Error, errno: i32) -> bool {
    matches!(error, Error::NetlinkError(message) if message.code.is_some_and(|code| code.get() == -errno))
}

fn ignore(errno: i32, result: Result<(), Error>) -> Result<(), Error> {
    result.or_else(|error| if is_errno(&error, errno) { Ok(()) } else { Err(error) })
}
