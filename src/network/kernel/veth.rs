//! One task's veth pair, and all that is inside of the task's namespace. Doing it again to one that is whole changes
//! nothing, so it serves for repairs too.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use nix::sys::socket::SockProtocol;

use super::netlink::{Body, Netlink, Request, attribute, word};
use super::sysctl;
use crate::network::names::*;
use crate::network::state::{Interface, Mac};
use crate::network::{NetworkError, namespace};
use crate::spec::Subnet;

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const NEWROUTE: u16 = 24;
const NEWNEIGH: u16 = 28;
const REPLACE: u16 = 0x100;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const UP: u32 = 1;
const PERMANENT: u16 = 0x80;
const NO_DAD: u8 = 2;
const ONLINK: u32 = 4;

/// How a task is wired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wire {
    pub namespace: PathBuf,
    pub interface: Interface,
    pub mac: Mac,
    /// Host-local.
    pub address: Ipv4Addr,
    /// On overlay networks.
    pub addresses: Vec<IpAddr>,
    /// One of each family: the source of what goes to none of the networks' subnets.
    pub outward: Vec<IpAddr>,
    /// To the networks' subnets, each from the task's own address there.
    /// With what a packet there may be; `None` while that is not known.
    pub routes: Vec<(Subnet, IpAddr, Option<u32>)>,
    pub ipv6: bool,
}

/// Makes the pair where it is missing, puts the host's end up, and sets up the inside.
pub fn connect(wire: &Wire) -> Result<(), NetworkError> {
    match add_pair(wire) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => put_up(wire.interface)?,
        added => added.map_err(failed("add the task's veth pair"))?,
    }
    sysctl::prepare_interface(wire.interface.name())?;
    let (path, wire) = (wire.namespace.clone(), wire.clone());
    namespace::within(&path, move || Ok(inside(&wire))).map_err(NetworkError::Namespace)?
}

fn put_up(interface: Interface) -> Result<(), NetworkError> {
    let mut body = link(0, UP);
    body.text(3, interface.name());
    let refused = open()?.each(&[Request { kind: NEWLINK, flags: 0, body: body.done() }]);
    let refused = refused.map_err(failed("put the veth up"))?;
    refused.into_iter().next().map_or(Ok(()), |(_, error)| Err(failed("put the veth up")(error)))
}

/// Deletes the host's end, and with it the pair. Nothing there is success.
pub fn disconnect(interface: Interface) -> Result<(), NetworkError> {
    let mut netlink = open()?;
    let mut body = Body::new(&[0; 16]);
    body.text(3, interface.name());
    let delete = Request { kind: DELLINK, flags: 0, body: body.done() };
    let failed_ones = netlink.each(&[delete]).map_err(failed("delete the veth"))?;
    match failed_ones.into_iter().find(|(_, error)| error.raw_os_error() != Some(libc::ENODEV)) {
        Some((_, error)) => Err(failed("delete the veth")(error)),
        None => Ok(()),
    }
}

fn add_pair(wire: &Wire) -> io::Result<()> {
    let namespace = File::open(&wire.namespace)?;
    let mut body = link(0, UP);
    body.put(1, &GATEWAY_MAC.0).text(3, wire.interface.name());
    body.nest(18, |info| {
        info.put(1, b"veth").nest(2, |data| {
            let peer = link(0, 0)
                .put(1, &wire.mac.0)
                .text(3, TASK_INTERFACE)
                .put(28, &namespace.as_raw_fd().cast_unsigned().to_ne_bytes())
                .done();
            data.put(1 | 0x8000, &peer)
        })
    });
    let mut netlink = Netlink::open(SockProtocol::NetlinkRoute)?;
    let request = Request { kind: NEWLINK, flags: CREATE | EXCLUSIVE, body: body.done() };
    netlink.each(&[request])?.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
}

/// The task's side: loopback up, its addresses, and everything through the gateway.
fn inside(wire: &Wire) -> Result<(), NetworkError> {
    if !wire.ipv6 {
        // Without this the kernel solicits IPv6 routers from each task.
        let _ = fs::write(sysctl::path(&format!("ipv6/conf/{TASK_INTERFACE}/disable_ipv6")), "1");
    }
    let mut netlink = open()?;
    let index =
        |netlink: &mut Netlink, name: &str| index_of(netlink, name).map_err(failed("find the task's interface"));
    let (lo, eth) = (index(&mut netlink, "lo")?, index(&mut netlink, TASK_INTERFACE)?);
    let up =
        |index, name: &str| (Request { kind: NEWLINK, flags: 0, body: link(index, UP).done() }, format!("{name} up"));
    let mut steps = vec![up(lo, "lo"), up(eth, TASK_INTERFACE)];
    let speaks = |address: IpAddr| wire.ipv6 || address.is_ipv4();
    let local6 = IpAddr::V6(local6(wire.address));
    let own = [IpAddr::V4(wire.address), local6].into_iter().chain(wire.addresses.iter().copied());
    let give = |address| (give(eth, address), format!("the address {address}"));
    steps.extend(own.filter(|address| speaks(*address)).map(give));
    for source in wire.outward.iter().copied().filter(|source| speaks(*source)) {
        let (gateway, none) = match source {
            IpAddr::V4(_) => (IpAddr::V4(GATEWAY4), IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            IpAddr::V6(_) => (GATEWAY6.into(), Ipv6Addr::UNSPECIFIED.into()),
        };
        steps.push((neighbour(eth, gateway), format!("the neighbour {gateway}")));
        let way_out = Subnet::new(none, 0).map(|everything| route(eth, everything, source, None));
        steps.extend(way_out.map(|route| (route, format!("the default route from {source}"))));
    }
    for (subnet, source, mtu) in wire.routes.iter().filter(|(_, source, _)| speaks(*source)) {
        steps.push((route(eth, *subnet, *source, *mtu), format!("the route to {subnet} from {source}")));
    }
    let (requests, words): (Vec<Request>, Vec<String>) = steps.into_iter().unzip();
    let refused = netlink.each(&requests).map_err(failed("set up the task's interface"))?;
    let first = refused.into_iter().next();
    first.map_or(Ok(()), |(place, error)| Err(NetworkError::Kernel(format!("in the task, {}: {error}", words[place]))))
}

fn open() -> Result<Netlink, NetworkError> {
    Netlink::open(SockProtocol::NetlinkRoute).map_err(NetworkError::NetlinkSocket)
}

fn index_of(netlink: &mut Netlink, name: &str) -> io::Result<u32> {
    let replies = netlink.dump(GETLINK, &[0; 16])?;
    let wanted = format!("{name}\0");
    let named =
        |body: &[u8]| body.get(16..).and_then(|rest| attribute(rest, 3)).is_some_and(|is| is == wanted.as_bytes());
    let found = replies.iter().find(|reply| named(&reply.body)).map(|reply| word(&reply.body, 4));
    found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
}

fn link(index: u32, flags: u32) -> Body {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    Body::new(&header)
}

fn give(index: u32, address: IpAddr) -> Request {
    let (family, width, octets) = parts(address);
    let mut header = [family, width, NO_DAD, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    Request { kind: NEWADDR, flags: CREATE | REPLACE, body: Body::new(&header).put(2, &octets).put(1, &octets).done() }
}

fn neighbour(index: u32, address: IpAddr) -> Request {
    let (family, _, octets) = parts(address);
    let mut header = [family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&PERMANENT.to_ne_bytes());
    let body = Body::new(&header).put(1, &octets).put(2, &GATEWAY_MAC.0).done();
    Request { kind: NEWNEIGH, flags: CREATE | REPLACE, body }
}

fn route(index: u32, to: Subnet, source: IpAddr, mtu: Option<u32>) -> Request {
    const MAIN: u8 = 254;
    const UNICAST: u8 = 1;
    const METRICS: u16 = 8;
    const METRIC_MTU: u16 = 2;
    let (family, _, octets) = parts(to.base());
    let mut header = [family, to.prefix(), 0, 0, MAIN, ROUTE_PROTOCOL, 0, UNICAST, 0, 0, 0, 0];
    header[8..12].copy_from_slice(&ONLINK.to_ne_bytes());
    let mut body = Body::new(&header);
    if to.prefix() > 0 {
        body.put(1, &octets);
    }
    let gateway = if source.is_ipv6() { IpAddr::V6(GATEWAY6) } else { GATEWAY4.into() };
    body.put(4, &index.to_ne_bytes()).put(5, &parts(gateway).2).put(7, &parts(source).2);
    if let Some(mtu) = mtu {
        body.nest(METRICS, |metrics| metrics.put(METRIC_MTU, &mtu.to_ne_bytes()));
    }
    Request { kind: NEWROUTE, flags: CREATE | REPLACE, body: body.done() }
}

fn parts(address: IpAddr) -> (u8, u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (libc::AF_INET as u8, 32, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6 as u8, 128, address.octets().to_vec()),
    }
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> NetworkError {
    move |source| NetworkError::Netlink { operation, source }
}

/// Whether the host's end of a pair is there.
pub fn exists(interface: Interface) -> bool {
    open().is_ok_and(|mut netlink| index_of(&mut netlink, interface.name()).is_ok())
}
