//! The kernel's side of the room: reads what of it is ours, and changes it. Blocking; nothing here decides anything.

pub mod conntrack;
pub mod netlink;
pub mod nftables;
pub mod routing;
pub mod sysctl;
pub mod veth;
