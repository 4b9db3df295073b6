//! The socket that answers. Bound to all addresses of a host with several, it still answers from the one that was asked,
//! since a prober's connected socket takes no answer from another.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::cmsg_space;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt};

#[derive(Debug)]
pub(super) struct EchoSocket(UdpSocket);

/// Who asked, and at which of our addresses.
pub(super) struct Asker {
    from: SockaddrStorage,
    asked: Option<Asked>,
}

enum Asked {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

impl EchoSocket {
    pub(super) fn bind(addr: SocketAddr) -> io::Result<EchoSocket> {
        let socket = UdpSocket::bind(addr)?;
        socket.set_nonblocking(true)?;
        match addr {
            SocketAddr::V4(_) => setsockopt(&socket, Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket, Ipv6RecvPacketInfo, &true)?,
        }
        Ok(EchoSocket(socket))
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// `WouldBlock` when nothing has come.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Asker)> {
        let mut control = cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
        let mut parts = [IoSliceMut::new(buffer)];
        let received =
            recvmsg::<SockaddrStorage>(self.0.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
        let asked = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(Asked::V4(info)),
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(Asked::V6(info)),
            _ => None,
        });
        let from = received.address.ok_or(io::ErrorKind::InvalidData)?;
        Ok((received.bytes, Asker { from, asked }))
    }

    pub(super) fn reply(&self, bytes: &[u8], to: &Asker) -> io::Result<()> {
        let parts = [IoSlice::new(bytes)];
        // No interface is named, save where an address means nothing without: the route decides, as for any datagram.
        let (v4, v6);
        let control = match to.asked {
            Some(Asked::V4(info)) => {
                v4 = libc::in_pktinfo { ipi_ifindex: 0, ..info };
                Some(ControlMessage::Ipv4PacketInfo(&v4))
            }
            Some(Asked::V6(info)) => {
                let link_local = info.ipi6_addr.s6_addr[0] == 0xfe && info.ipi6_addr.s6_addr[1] & 0xc0 == 0x80;
                v6 = libc::in6_pktinfo { ipi6_ifindex: if link_local { info.ipi6_ifindex } else { 0 }, ..info };
                Some(ControlMessage::Ipv6PacketInfo(&v6))
            }
            None => None,
        };
        sendmsg(self.0.as_raw_fd(), &parts, control.as_slice(), MsgFlags::MSG_DONTWAIT, Some(&to.from))?;
        Ok(())
    }
}

impl AsFd for EchoSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
