//! The subnet from which tasks on this node take their host-local addresses. It means nothing outside the node.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::NetworkError;

/// An IPv4 subnet; its first address is the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    base: u32,
    prefix: u8,
}

impl Subnet {
    /// The host's own address in the subnet, the source of what it sends to tasks.
    pub fn host(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    pub fn base(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base)
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The same in the form of the swarm's networks.
    pub fn block(self) -> crate::spec::Subnet {
        crate::spec::Subnet::new(self.base().into(), self.prefix).expect("it was read with a prefix of at most 30")
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits().wrapping_sub(self.base) < self.size()
    }

    fn size(self) -> u32 {
        1u32 << (32 - self.prefix)
    }

    /// A free address, at or after `start` (any number, wrapped into the subnet), so that an address just given back
    /// is not the next one given out.
    pub(super) fn pick(self, start: u32, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        // Without the network's address, the host's and the broadcast address.
        let usable = self.size() - 3;
        (0..usable)
            .map(|offset| Ipv4Addr::from(self.base + 2 + (start.wrapping_add(offset)) % usable))
            .find(|address| !taken.contains(address))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let invalid = || NetworkError::Subnet(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let base = u32::from(address.parse::<Ipv4Addr>().map_err(|_| invalid())?);
        let prefix = prefix.parse::<u8>().ok().filter(|prefix| (8..=30).contains(prefix)).ok_or_else(invalid)?;
        let subnet = Subnet { base, prefix };
        if !base.is_multiple_of(subnet.size()) {
            return Err(invalid());
        }
        Ok(subnet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_usable_address_is_given_once_and_then_none() {
        let subnet: Subnet = "10.0.0.0/29".parse().unwrap();
        let mut taken = BTreeSet::new();
        while let Some(address) = subnet.pick(4, &taken) {
            assert!(taken.insert(address));
        }
        let expected: BTreeSet<Ipv4Addr> = (2..7).map(|last| Ipv4Addr::new(10, 0, 0, last)).collect();
        assert_eq!(taken, expected);
        assert_eq!(subnet.host(), Ipv4Addr::new(10, 0, 0, 1));
    }

    #[test]
    fn what_is_no_subnet_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.1/24", "10.0.0.0/31", "10.0.0.0/4", "fd00::/64", "10.0.0.0/x"] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }
}
