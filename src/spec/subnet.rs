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
    fn overlap_is_symmetric() {
        let (outer, inner, beside) = (subnet("10.0.0.0/8"), subnet("10.9.0.0/16"), subnet("11.0.0.0/8"));
        assert!(outer.overlaps(&inner) && inner.overlaps(&outer));
        assert!(!outer.overlaps(&beside) && !beside.overlaps(&inner));
    }
}
