//! Subnets in CIDR form, of either address family.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A block of addresses. The base address has no bits below the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(IpAddr, u8)", into = "(IpAddr, u8)")]
pub struct Subnet {
    base: IpAddr,
    prefix: u8,
}

/// A text that is no subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a subnet: {why}")]
pub struct InvalidSubnet {
    pub text: String,
    pub why: &'static str,
}

impl Subnet {
    /// `None` where the prefix is longer than the address. Bits below the prefix are cleared.
    pub fn new(addr: IpAddr, prefix: u8) -> Option<Subnet> {
        if prefix > width(addr) {
            return None;
        }
        let base = match addr {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & (high_bits(32, prefix) as u32))),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & high_bits(128, prefix))),
        };
        Some(Subnet { base, prefix })
    }

    pub fn base(&self) -> IpAddr {
        self.base
    }

    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Its last address; of IPv4, the one for broadcasts.
    pub fn last(&self) -> IpAddr {
        self.at(self.highest())
    }

    /// The address so far behind the base, or the last one.
    pub fn at(&self, offset: u128) -> IpAddr {
        number_to_addr(self.base.is_ipv4(), addr_to_number(self.base) + offset.min(self.highest()))
    }

    /// How far an address lies behind the base; for addresses of this subnet.
    pub fn offset_of(&self, addr: IpAddr) -> u128 {
        addr_to_number(addr).saturating_sub(addr_to_number(self.base))
    }

    /// Offsets that tasks and gateways may have: not the base, nor, of IPv4, the address for broadcasts.
    pub fn host_offsets(&self) -> std::ops::RangeInclusive<u128> {
        let most = if self.base.is_ipv4() { self.highest().saturating_sub(1) } else { self.highest() };
        1..=most
    }

    /// The offset of the last address.
    fn highest(&self) -> u128 {
        u128::MAX.checked_shr(128 - u32::from(width(self.base)) + u32::from(self.prefix)).unwrap_or(0)
    }

    pub fn contains(&self, addr: IpAddr) -> bool {
        width(addr) == width(self.base) && Subnet::new(addr, self.prefix) == Some(*self)
    }

    /// Two subnets share addresses exactly where one lies in the other.
    pub fn overlaps(&self, other: &Subnet) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }
}

impl From<Subnet> for (IpAddr, u8) {
    fn from(subnet: Subnet) -> (IpAddr, u8) {
        (subnet.base, subnet.prefix)
    }
}

impl TryFrom<(IpAddr, u8)> for Subnet {
    type Error = &'static str;

    fn try_from((addr, prefix): (IpAddr, u8)) -> Result<Subnet, &'static str> {
        Subnet::new(addr, prefix).ok_or("the prefix is longer than the address")
    }
}

fn addr_to_number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn number_to_addr(is_ipv4: bool, number: u128) -> IpAddr {
    if is_ipv4 { IpAddr::V4(Ipv4Addr::from_bits(number as u32)) } else { IpAddr::V6(Ipv6Addr::from_bits(number)) }
}

fn width(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

/// The highest `prefix` of the lowest `width` bits.
fn high_bits(width: u8, prefix: u8) -> u128 {
    let all = u128::MAX >> (128 - u32::from(width));
    all & !all.checked_shr(u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Subnet {
    type Err = InvalidSubnet;

    fn from_str(text: &str) -> Result<Subnet, InvalidSubnet> {
        let invalid = |why| InvalidSubnet { text: text.chars().take(64).collect(), why };
        let (addr, prefix) =
            text.split_once('/').ok_or_else(|| invalid("write an address and a prefix, for example 10.1.0.0/16"))?;
        let addr: IpAddr = addr.parse().map_err(|_| invalid("the part before the slash is no IP address"))?;
        let prefix: u8 = prefix.parse().map_err(|_| invalid("the part after the slash is no prefix length"))?;
        let subnet = Subnet::new(addr, prefix).ok_or_else(|| invalid("the prefix is longer than the address"))?;
        if subnet.base != addr {
            return Err(invalid("the address has bits set below the prefix"));
        }
        Ok(subnet)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn a_subnet_reads_back_from_its_text() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "192.168.1.7/32", "fd00::/64", "::/0", "fd00::1/128"] {
            assert_eq!(subnet(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_subnet_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.1/24", "fd00::/129", "a/8", "10.0.0.0/-1", "10.0.0.0/8/8"] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }

    #[test]
    fn subnets_hold_addresses_of_their_own_family() {
        let all = subnet("0.0.0.0/0");
        assert!(all.contains("255.255.255.255".parse().unwrap()));
        assert!(!all.contains("::1".parse().unwrap()));
        assert!(!subnet("10.1.0.0/16").contains("10.2.0.0".parse().unwrap()));
    }

    #[test]
    fn addresses_are_counted_from_the_base() {
        let small = subnet("10.1.2.0/24");
        assert_eq!(small.last().to_string(), "10.1.2.255");
        assert_eq!(small.at(7).to_string(), "10.1.2.7");
        assert_eq!(small.at(1000), small.last());
        assert_eq!(small.offset_of("10.1.2.9".parse().unwrap()), 9);
        assert_eq!(small.host_offsets(), 1..=254);
        assert_eq!(subnet("fd00::/64").last().to_string(), "fd00::ffff:ffff:ffff:ffff");
        assert_eq!(subnet("::/0").last().to_string(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        assert_eq!(subnet("0.0.0.0/0").last().to_string(), "255.255.255.255");
        assert!(subnet("fd00::1/128").host_offsets().is_empty(), "a single address has no room");
    }

    #[test]
    fn overlap_is_symmetric() {
        let (outer, inner, beside) = (subnet("10.0.0.0/8"), subnet("10.9.0.0/16"), subnet("11.0.0.0/8"));
        assert!(outer.overlaps(&inner) && inner.overlaps(&outer));
        assert!(!outer.overlaps(&beside) && !beside.overlaps(&inner));
    }
}
