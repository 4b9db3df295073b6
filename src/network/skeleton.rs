//! The table `inet flok` without its elements: its sets, and the base chains that a packet walks. It never changes while
//! a node has its address; all that comes and goes are elements and balancer chains.
//!
//! The order of the hooks tells a packet's way. `arrive` sees it first, before connection tracking: who may send this
//! here, and which node's zone is it in. `remember` notes by which node a connection came, and sends replies back that
//! way. `balance` chooses a target for a new connection. `vanished` resets what goes to a task that is gone. `isolate`
//! holds networks apart. `translate` and `leave` see it last.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use super::names::*;
use super::pool;
use super::state::Set;
use crate::spec::NodeId;

/// What the base chains depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skeleton {
    /// Of host-local addresses.
    pub subnet: pool::Subnet,
    pub overlay: Option<Overlay>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlay {
    pub node: NodeId,
    pub address: IpAddr,
    /// Of the overlay's datagrams.
    pub port: u16,
}

impl Skeleton {
    /// One transaction. `anew`: whatever is there under the name goes; else its sets and balancers stay as they are.
    pub fn script(&self, anew: bool) -> String {
        let mut script = format!("add table {TABLE}\n");
        if anew {
            let _ = writeln!(script, "delete table {TABLE}\nadd table {TABLE}");
        }
        let text = self.chains();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let Some(name) = line.strip_prefix("    chain ").and_then(|rest| rest.strip_suffix(" {")) else { continue };
            let hook = lines.peek().map(|line| line.trim()).filter(|line| line.starts_with("type "));
            let _ = writeln!(script, "add chain {TABLE} {name} {{ {} }}", hook.unwrap_or_default());
            let _ = writeln!(script, "flush chain {TABLE} {name}");
        }
        let _ = writeln!(script, "table {TABLE} {{");
        for set in Set::ALL {
            let _ = writeln!(script, "    {}", set.declaration());
        }
        script + &text + "}\n"
    }

    fn chains(&self) -> String {
        let (host, subnet) = (self.subnet.host(), self.subnet);
        let (local6, host6) = (format!("{LOCAL6}/{LOCAL6_PREFIX}"), local6(host));
        let datagrams = self.overlay.map_or_else(String::new, |overlay| {
            let filter = format!("udp dport {} @th,96,24 {VNI} fib daddr type local", overlay.port);
            format!(
                "        {filter} ip saddr != @members4 drop
        {filter} ip6 saddr != @members6 drop
        {filter} notrack;\n"
            )
        });
        let sent = self.overlay.map_or_else(String::new, |overlay| {
            format!("        udp dport {} @th,96,24 {VNI} notrack;\n", overlay.port)
        });
        // What a task sends to the outside bears its node's address, which is a member's.
        let smuggled = self.overlay.map_or_else(String::new, |overlay| {
            let outside = format!("iifname \"{VETH_PREFIX}*\" oifname != {{ \"{OVERLAY}\", \"{VETH_PREFIX}*\" }}");
            format!("        {outside} udp dport {} @th,96,24 {VNI} drop\n", overlay.port)
        });
        let (spokesman, spokesman6) = match self.overlay {
            Some(Overlay { node, address: IpAddr::V4(address), .. }) => (address, spokesman6(node)),
            // RFC 7600's address of a host that has none.
            Some(Overlay { node, .. }) => (Ipv4Addr::new(192, 0, 0, 8), spokesman6(node)),
            None => (host, host6),
        };
        format!(
            r#"    # A task has NET_RAW: it may send only from its own addresses. The overlay is for members only.
    chain arrive {{
        type filter hook prerouting priority -310; policy accept;
        iifname "{VETH_PREFIX}*" meta protocol ip iifname . ip saddr != @sources4 drop
        iifname "{VETH_PREFIX}*" meta protocol ip6 iifname . ip6 saddr != @sources6 drop
        iifname "{OVERLAY}" ct original zone set ether saddr map @node_zones
{datagrams}    }}
    chain depart {{
        type filter hook output priority -310; policy accept;
{sent}    }}
    # Replies go back by the node the connection came in by, which knows the client.
    chain remember {{
        type filter hook prerouting priority -150; policy accept;
        iifname "{OVERLAY}" ct state new ct mark set ether saddr map @node_marks
        iifname "{VETH_PREFIX}*" ct direction reply ct mark and {MARK_MASK:#x} == {NODE_MARK:#x} meta mark set ct mark;
    }}
    chain remember_own {{
        type route hook output priority -150; policy accept;
        ct mark and {MARK_MASK:#x} == {NODE_MARK:#x} meta mark set ct mark;
    }}
    chain balance {{
        type nat hook prerouting priority -100; policy accept;
        iifname "{VETH_PREFIX}*" ip saddr . ip daddr @same_network4 ip daddr vmap @vips4
        iifname "{VETH_PREFIX}*" ip6 saddr . ip6 daddr @same_network6 ip6 daddr vmap @vips6
        iifname "{OVERLAY}" accept
        iifname @confined accept
        goto publish
    }}
    chain balance_own {{
        type nat hook output priority -100; policy accept;
        goto publish
    }}
    chain publish {{
        ip6 daddr ::1 return
        fib daddr type != local return
        meta nfproto ipv4 dnat ip to meta l4proto . th dport map @host_ports4
        meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @host_ports6
        meta nfproto ipv4 meta l4proto . th dport vmap @ports4
        meta nfproto ipv6 meta l4proto . th dport vmap @ports6
    }}
    # Connections to a task that is gone are reset, not left to time out. A VIP without targets is nobody's address too.
    chain vanished {{
        type filter hook prerouting priority -90; policy accept;
        ip daddr {subnet} ip daddr != @endpoints4 goto turn_away
        ip6 daddr {local6} ip6 daddr != @endpoints6 goto turn_away
        iifname "{VETH_PREFIX}*" ip daddr != @endpoints4 ip saddr . ip daddr @same_network4 goto turn_away
        iifname "{VETH_PREFIX}*" ip6 daddr != @endpoints6 ip6 saddr . ip6 daddr @same_network6 goto turn_away
        iifname "{OVERLAY}" ct direction original ip daddr != @endpoints4 goto turn_away
        iifname "{OVERLAY}" ct direction original ip6 daddr != @endpoints6 goto turn_away
        ct mark {PUBLISHED_MARK:#x} ct direction original ip daddr != @endpoints4 goto turn_away
        ct mark {PUBLISHED_MARK:#x} ct direction original ip6 daddr != @endpoints6 goto turn_away
    }}
    chain turn_away {{
        meta l4proto tcp reject with tcp reset
        reject
    }}
    # Tasks meet on a network they share or through a published port, nowhere else.
    chain isolate {{
        type filter hook forward priority 0; policy accept;
        iifname != {{ "{OVERLAY}", "{VETH_PREFIX}*" }} oifname != {{ "{OVERLAY}", "{VETH_PREFIX}*" }} accept
        ct direction reply accept
        ct state established,related accept
        iifname {{ "{OVERLAY}", "{VETH_PREFIX}*" }} ip saddr . ip daddr @same_network4 accept
        iifname {{ "{OVERLAY}", "{VETH_PREFIX}*" }} ip6 saddr . ip6 daddr @same_network6 accept
        iifname "{OVERLAY}" ip daddr @ingress4 accept
        iifname "{OVERLAY}" ip6 daddr @ingress6 accept
        iifname "{OVERLAY}" drop
        iifname @confined goto turn_away
{smuggled}        ct status dnat accept
        iifname "{VETH_PREFIX}*" oifname {{ "{OVERLAY}", "{VETH_PREFIX}*" }} goto turn_away
        oifname {{ "{OVERLAY}", "{VETH_PREFIX}*" }} drop
    }}
    # Nothing of this host is reached over the overlay, and no host by a task that is on internal networks only.
    chain guard {{
        type filter hook input priority 0; policy accept;
        iifname "{OVERLAY}" ct direction original ct state != {{ established, related }} drop
        iifname @confined ct direction original goto turn_away
    }}
    # Tasks see their clients' real addresses, save where a reply could not find its way back: a task that reaches
    # itself, the node's own loopback, and a node that is served by a task of its own through another node.
    chain translate {{
        type nat hook postrouting priority 100; policy accept;
        oifname . ip saddr @sources4 snat ip to ct original ip daddr
        oifname . ip6 saddr @sources6 snat ip6 to ct original ip6 daddr
        oifname "{VETH_PREFIX}*" ip saddr 127.0.0.0/8 snat ip to {host}
        oifname "{OVERLAY}" ip saddr {{ 127.0.0.0/8, {subnet} }} snat ip to {spokesman}
        oifname "{OVERLAY}" rt ip nexthop . ip saddr @turning4 snat ip to {spokesman}
        oifname "{OVERLAY}" ip6 saddr {local6} snat ip6 to {spokesman6}
        oifname "{OVERLAY}" rt ip6 nexthop . ip6 saddr @turning6 snat ip6 to {spokesman6}
        oifname {{ "{OVERLAY}", "{VETH_PREFIX}*" }} accept
        iifname "{VETH_PREFIX}*" masquerade
    }}
    # The mark has done its work: on the datagram around the packet it would lead back here.
    chain leave {{
        type filter hook postrouting priority 300; policy accept;
        oifname "{OVERLAY}" meta mark set 0
        oifname {{ "{OVERLAY}", "{VETH_PREFIX}*" }} tcp flags syn tcp option maxseg size set rt mtu
    }}
"#
        )
    }
}
