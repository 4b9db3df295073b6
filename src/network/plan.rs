//! What nftables has to hold, as a pure function of the tasks present, and the least change from one plan to the next.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::Ipv4Addr;

use super::error::protocol_name;
use super::pool::Subnet;
use crate::spec::{PortConfig, Protocol};

/// flok's one table, in its own namespace of names: nothing else is ever touched.
pub const TABLE: &str = "inet flok";

/// Every host end of a task's veth is named so.
pub const VETH_PREFIX: &str = "fk";

/// What one task needs of the firewall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRules {
    pub interface: String,
    pub address: Ipv4Addr,
    /// Bound ports of `host` mode.
    pub ports: Vec<PortConfig>,
}

/// The elements of the table's sets and maps. The table's chains never change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Interface and the only source address it may use.
    sources: BTreeSet<(String, Ipv4Addr)>,
    /// Protocol and port on the node, address and port of the task.
    ports: BTreeSet<(Protocol, u16, Ipv4Addr, u16)>,
}

impl Plan {
    pub fn new<'a>(tasks: impl IntoIterator<Item = &'a TaskRules>) -> Plan {
        let mut plan = Plan::default();
        for task in tasks {
            plan.sources.insert((task.interface.clone(), task.address));
            for port in &task.ports {
                plan.ports.insert((port.protocol, port.published, task.address, port.target));
            }
        }
        plan
    }

    /// The `nft` script that turns `from` into this plan; empty where they are the same. Elements that go come first,
    /// so that a port may move between tasks in one script.
    pub fn script_from(&self, from: &Plan) -> String {
        let mut script = String::new();
        for (interface, address) in from.sources.difference(&self.sources) {
            let _ = writeln!(script, "delete element {TABLE} task_sources {{ {interface} . {address} }}");
        }
        for (protocol, published, ..) in from.ports.difference(&self.ports) {
            let _ =
                writeln!(script, "delete element {TABLE} host_ports {{ {} . {published} }}", protocol_name(*protocol));
        }
        for (interface, address) in self.sources.difference(&from.sources) {
            let _ = writeln!(script, "add element {TABLE} task_sources {{ {interface} . {address} }}");
        }
        for (protocol, published, address, target) in self.ports.difference(&from.ports) {
            let name = protocol_name(*protocol);
            let _ =
                writeln!(script, "add element {TABLE} host_ports {{ {name} . {published} : {address} . {target} }}");
        }
        script
    }
}

/// The whole table, empty of tasks, in one transaction: made anew whatever was there under its name.
pub fn table_script(subnet: Subnet) -> String {
    let host = subnet.host();
    format!(
        r#"add table {TABLE}
delete table {TABLE}
table {TABLE} {{
    set task_sources {{
        type ifname . ipv4_addr
    }}
    map host_ports {{
        type inet_proto . inet_service : ipv4_addr . inet_service
    }}
    # A task has NET_RAW: it may send only from its own address.
    chain task_source {{
        type filter hook prerouting priority -310; policy accept;
        iifname "{VETH_PREFIX}*" meta protocol ip iifname . ip saddr != @task_sources drop
        iifname "{VETH_PREFIX}*" meta protocol ip6 drop
    }}
    chain publish {{
        type nat hook prerouting priority -100; policy accept;
        fib daddr type local dnat ip to meta l4proto . th dport map @host_ports
    }}
    chain publish_local {{
        type nat hook output priority -100; policy accept;
        meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @host_ports
    }}
    # Tasks see their clients' real addresses, save where a reply could not find its way back: a task that reaches itself
    # through a published port, and the node's own loopback.
    chain source {{
        type nat hook postrouting priority 100; policy accept;
        oifname "{VETH_PREFIX}*" ip saddr 127.0.0.0/8 snat ip to {host}
        oifname "{VETH_PREFIX}*" ip saddr {subnet} ct status dnat snat ip to {host}
        oifname != "{VETH_PREFIX}*" ip saddr {subnet} masquerade
    }}
    # Tasks meet on a network they share or through a published port, nowhere else.
    chain isolate {{
        type filter hook forward priority 0; policy accept;
        ct state established,related accept
        ct status dnat accept
        oifname "{VETH_PREFIX}*" drop
    }}
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::PublishMode;

    fn port(published: u16, target: u16) -> PortConfig {
        PortConfig { name: None, protocol: Protocol::Tcp, target, published, mode: PublishMode::Host }
    }

    fn rules(last: u8, ports: Vec<PortConfig>) -> TaskRules {
        TaskRules { interface: format!("fk{last}"), address: Ipv4Addr::new(172, 29, 0, last), ports }
    }

    #[test]
    fn a_plan_that_is_in_force_changes_nothing() {
        let plan = Plan::new(&[rules(2, vec![port(80, 8080)]), rules(3, vec![])]);
        assert_eq!(plan.script_from(&plan), "");
    }

    #[test]
    fn a_port_that_moves_is_deleted_before_it_is_added() {
        let old = Plan::new(&[rules(2, vec![port(80, 8080)])]);
        let new = Plan::new(&[rules(3, vec![port(80, 8080)])]);
        assert_eq!(
            new.script_from(&old),
            "delete element inet flok task_sources { fk2 . 172.29.0.2 }\n\
             delete element inet flok host_ports { tcp . 80 }\n\
             add element inet flok task_sources { fk3 . 172.29.0.3 }\n\
             add element inet flok host_ports { tcp . 80 : 172.29.0.3 . 8080 }\n"
        );
    }
}
