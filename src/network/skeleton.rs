//! The table `inet flok` without its elements: its sets, and the base chains that a packet walks. It never changes while
//! a node has its address; all that comes and goes are elements and balancer chains.
//!
//! The order of the hooks tells a packet's way. `arrive` sees it first, before connection tracking: who may send this
//! here, and which node's zone is it in. `balance` chooses a target for a new connection. `steer` notes by which node a
//! connection came, sends replies back that way, and resets what goes to a task that is gone. `isolate` holds networks
//! apart. `translate` and `leave` see it last.
//!
//! Every packet walks them, so each chain begins with what most packets are done with: one look-up, or a bit of the
//! connection's state. A wildcard of interfaces in a set costs a search in a tree, and so has a rule of its own.

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
    /// One transaction. `anew`: whatever is there under the name goes; else its sets and balancers stay as they are, and
    /// of its base chains, `present`, those that are none of ours go.
    pub fn script(&self, anew: bool, present: &[String]) -> String {
        let mut script = format!("add table {TABLE}\n");
        if anew {
            let _ = writeln!(script, "delete table {TABLE}\nadd table {TABLE}");
        }
        let present = if anew { &[] } else { present };
        for name in present {
            let _ = writeln!(script, "flush chain {TABLE} {name}");
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
        for (name, address) in [(ASKED4, "ipv4_addr"), (ASKED6, "ipv6_addr")] {
            let _ = writeln!(script, "    set {name} {{ type {address} . inet_proto; flags dynamic; size 65535; }}");
        }
        script += &text;
        script += "}\n";
        for name in present.iter().filter(|name| !text.contains(&format!("    chain {name} {{"))) {
            let _ = writeln!(script, "delete chain {TABLE} {name}");
        }
        script
    }

    fn chains(&self) -> String {
        let (host, subnet) = (self.subnet.host(), self.subnet);
        let (local6, host6) = (format!("{LOCAL6}/{LOCAL6_PREFIX}"), local6(host));
        let rule = |port: u16, verdict: &str| format!("        udp dport {port} @th,96,24 {VNI} {verdict}\n");
        let datagrams = |verdict| self.overlay.map_or_else(String::new, |overlay| rule(overlay.port, verdict));
        let (received, sent) = (datagrams("goto datagram"), datagrams("notrack"));
        let smuggled = datagrams("jump smuggled");
        // What a member of the swarm serves itself is not for tasks: not their own node's either.
        let own_host = self.overlay.map_or_else(String::new, |overlay| {
            let family = if overlay.address.is_ipv6() { "ip6" } else { "ip" };
            let to_own = format!("{family} daddr {} ct direction original", overlay.address);
            format!("        iifname \"{VETH_PREFIX}*\" {to_own} goto turn_away\n")
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
        iifname "{VETH_PREFIX}*" goto sent
        iifname "{OVERLAY}" ct original zone set ether saddr map @node_zones accept
{received}    }}
    # What a task sends to the outside bears its node's address, which is a member's: no datagram of the overlay's leaves
    # a task, but to those on its own network, which may run what they like. Each one is looked at, whatever flow it is of.
    chain smuggled {{
        ip saddr . ip daddr @same_network4 return
        ip6 saddr . ip6 daddr @same_network6 return
        drop
    }}
    chain sent {{
{smuggled}        iifname . ip saddr @sources4 accept
        iifname . ip6 saddr @sources6 accept
        meta protocol {{ ip, ip6 }} drop
    }}
    chain datagram {{
        ip saddr @members4 notrack accept
        ip6 saddr @members6 notrack accept
        fib daddr type local drop
    }}
    chain depart {{
        type filter hook output priority -310; policy accept;
{sent}    }}
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
    # To a task that is there, there is nothing to do, once it is noted by which node a connection came. From one that is
    # reached by published ports, replies to anybody else go back by that node, which knows the client. Connections to a
    # task that is gone are reset, not left to time out. A VIP without targets is nobody's address too.
    chain steer {{
        type filter hook prerouting priority -90; policy accept;
        ct state untracked accept
        ct state new iifname "{OVERLAY}" ct mark set ether saddr map @node_marks
        ip daddr @endpoints4 accept
        ip6 daddr @endpoints6 accept
        ip daddr {subnet} goto turn_away
        ip6 daddr {local6} goto turn_away
        ct direction reply ip saddr @ingress4 goto return_by_node
        ct direction reply ip6 saddr @ingress6 goto return_by_node
        iifname "{VETH_PREFIX}*" ip saddr . ip daddr @same_network4 goto turn_away
        iifname "{VETH_PREFIX}*" ip6 saddr . ip6 daddr @same_network6 goto turn_away
        iifname "{OVERLAY}" ct direction original goto turn_away
        ct mark {PUBLISHED_MARK:#x} ct direction original goto turn_away
    }}
    chain return_by_node {{
        iifname "{VETH_PREFIX}*" ct mark and {MARK_MASK:#x} == {NODE_MARK:#x} meta mark set ct mark
    }}
    chain return_own {{
        type route hook output priority -150; policy accept;
        ct mark and {MARK_MASK:#x} == {NODE_MARK:#x} meta mark set ct mark;
    }}
    chain turn_away {{
        meta l4proto tcp reject with tcp reset
        reject
    }}
    # Tasks meet on a network they share or through a published port, nowhere else.
    chain isolate {{
        type filter hook forward priority 0; policy accept;
        ct state established,related accept
        ct state invalid goto unknown
        iifname "{VETH_PREFIX}*" goto from_task
        iifname "{OVERLAY}" goto from_node
        oifname "{VETH_PREFIX}*" goto from_outside
        oifname "{OVERLAY}" goto from_outside
    }}
    # What is of no connection that is known is not translated either: it would arrive from, or at, an address that its
    # receiver knows nothing of, and have the connection reset that it seems to be of.
    chain unknown {{
        iifname "{VETH_PREFIX}*" drop
        iifname "{OVERLAY}" drop
        oifname "{VETH_PREFIX}*" drop
        oifname "{OVERLAY}" drop
    }}
    chain from_task {{
        ip saddr . ip daddr @same_network4 accept
        ip6 saddr . ip6 daddr @same_network6 accept
        iifname @confined goto turn_away
        ct status dnat accept
        oifname "{VETH_PREFIX}*" goto turn_away
        oifname "{OVERLAY}" goto turn_away
        ip daddr @members4 goto to_member
        ip6 daddr @members6 goto to_member
    }}
    # Of a host that is a member only what is published is reached, which it sees to itself.
    chain to_member {{
        meta l4proto . th dport @published accept
        goto turn_away
    }}
    chain from_node {{
        ip saddr . ip daddr @same_network4 accept
        ip6 saddr . ip6 daddr @same_network6 accept
        ip daddr @ingress4 accept
        ip6 daddr @ingress6 accept
        drop
    }}
    chain from_outside {{
        ct status dnat accept
        drop
    }}
    # Nothing of this host is reached over the overlay, nor by tasks at the address that the swarm knows it by, and no host
    # by a task that is on internal networks only.
    chain guard {{
        type filter hook input priority 0; policy accept;
        ct state established,related,untracked accept
        ct state invalid goto unknown
        iifname "{OVERLAY}" ct direction original drop
        iifname @confined ct direction original goto turn_away
{own_host}    }}
    # A reset of `steer`'s answers what is of no known connection, and is of none itself.
    chain guard_own {{
        type filter hook output priority 0; policy accept;
        ct state established,related,untracked accept
        tcp flags rst accept
        ct state invalid goto unknown
    }}
    # Tasks see their clients' real addresses, save where a reply could not find its way back: a task that reaches
    # itself, the node's own loopback, and a node that is served by a task of its own through another node.
    chain translate {{
        type nat hook postrouting priority 100; policy accept;
        ct status dnat meta l4proto {{ tcp, udp }} add @{ASKED4} {{ ip daddr . meta l4proto }}
        ct status dnat meta l4proto {{ tcp, udp }} add @{ASKED6} {{ ip6 daddr . meta l4proto }}
        oifname "{VETH_PREFIX}*" goto for_task
        oifname "{OVERLAY}" goto for_node
        iifname "{VETH_PREFIX}*" masquerade
    }}
    chain for_task {{
        oifname . ip saddr @sources4 snat ip to ct original ip daddr
        oifname . ip6 saddr @sources6 snat ip6 to ct original ip6 daddr
        ip saddr 127.0.0.0/8 snat ip to {host}
    }}
    chain for_node {{
        ip saddr {{ 127.0.0.0/8, {subnet} }} snat ip to {spokesman}
        rt ip nexthop . ip saddr @turning4 snat ip to {spokesman}
        ip6 saddr {local6} snat ip6 to {spokesman6}
        rt ip6 nexthop . ip6 saddr @turning6 snat ip6 to {spokesman6}
    }}
    # The mark has done its work: on the datagram around the packet it would lead back here.
    chain leave {{
        type filter hook postrouting priority 300; policy accept;
        meta mark != 0 oifname "{OVERLAY}" meta mark set 0
        tcp flags syn goto open
    }}
    chain open {{
        oifname "{VETH_PREFIX}*" tcp option maxseg size set rt mtu
        oifname "{OVERLAY}" tcp option maxseg size set rt mtu
    }}
"#
        )
    }
}
