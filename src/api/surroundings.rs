//! Whether a network that a user asks for would cut a node off from what is around it. Observed state, which the log does
//! not know: whoever takes a command looks before it is proposed.

use super::{ApiError, Read};
use crate::spec::{InvalidSubnet, MTU_OPTION, NetworkSpec, Subnet};

/// Names the setting, and which node has what in its way.
pub fn refuse_unfit(spec: &NetworkSpec, read: &Read) -> Result<(), ApiError> {
    for asked in &spec.subnets {
        let subnet: Subnet = asked.subnet.parse().map_err(|why: InvalidSubnet| ApiError::invalid(why.to_string()))?;
        let mut nodes = read.observed.iter().filter_map(|(node, held)| {
            let name = read.state.node(node)?.name();
            held.record.surroundings.overlapping(&subnet).map(|occupied| occupied.on(name))
        });
        let Some(what) = nodes.next() else { continue };
        let others = match nodes.count() {
            0 => String::new(),
            more => format!(" ({more} more nodes have such a conflict)"),
        };
        return Err(ApiError::invalid(format!(
            "subnet {subnet} of network {} overlaps with {what}{others}: choose another one",
            spec.name
        )));
    }
    refuse_large(spec, read)
}

/// Packets of that size would not reach the tasks on some node.
fn refuse_large(spec: &NetworkSpec, read: &Read) -> Result<(), ApiError> {
    let Some(mtu) = spec.mtu() else { return Ok(()) };
    let least = read
        .observed
        .iter()
        .filter_map(|(node, held)| Some((held.record.surroundings.overlay_mtu?, read.state.node(node)?.name())));
    match least.min() {
        Some((path, node)) if path < mtu => Err(ApiError::invalid(format!(
            "network {}: {MTU_OPTION} is {mtu}, and the path between the nodes takes {path} bytes of a packet at node {node}: ask \
             for no more, or leave it out",
            spec.name
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::gossip::{NodeRecord, RecordVersion, Surroundings, Table};
    use crate::spec::{Incarnation, MonoMs};
    use crate::state::fixture::{Fixture, network_spec};

    fn read(around: &[Surroundings]) -> Read {
        let swarm = Fixture::nodes(around.len() as u128);
        let mut table = Table::default();
        for (node, surroundings) in swarm.state.nodes().zip(around) {
            let version = RecordVersion { incarnation: Incarnation(1), sequence: 1 };
            let record = NodeRecord::new(node.id, version, node.description.clone());
            table.merge(Arc::new(NodeRecord { surroundings: surroundings.clone(), ..record }), MonoMs(1));
        }
        Read { state: Arc::new(swarm.state), observed: Arc::new(table), leader: None, stale: None }
    }

    fn around(connected: &str, local: &str) -> Surroundings {
        Surroundings::new(vec![connected.parse().unwrap()], local.parse().ok())
    }

    #[test]
    fn a_subnet_that_a_node_reaches_otherwise_is_refused_by_name() {
        let read = read(&[
            around("192.168.0.0/24", "172.29.0.0/16"),
            around("10.0.0.0/16", "10.200.0.0/16"),
            around("10.0.1.0/24", "172.29.0.0/16"),
        ]);
        let said = |subnet: &str| refuse_unfit(&network_spec("net", &[subnet]), &read).map_err(|e| e.to_string());
        assert_eq!(
            said("10.0.1.0/24").unwrap_err(),
            "subnet 10.0.1.0/24 of network net overlaps with 10.0.0.0/16, which node node-2 reaches outside of the swarm (1 \
             more nodes have such a conflict): choose another one"
        );
        assert!(said("10.200.7.0/24").unwrap_err().contains("node node-2 gives its tasks their local addresses"));
        assert_eq!(said("10.1.0.0/16"), Ok(()));
        assert!(said("10.1.0.0").unwrap_err().contains("is not a subnet"));
    }

    #[test]
    fn packets_larger_than_a_nodes_path_takes_are_refused() {
        let narrow = Surroundings { overlay_mtu: Some(1350), ..Surroundings::default() };
        let read = read(&[
            Surroundings { overlay_mtu: Some(1450), ..Surroundings::default() },
            narrow,
            Surroundings::default(),
        ]);
        let said = |mtu: &str| {
            let driver_options = [(MTU_OPTION.to_owned(), mtu.to_owned())].into();
            refuse_unfit(&NetworkSpec { driver_options, ..network_spec("net", &[]) }, &read).map_err(|e| e.to_string())
        };
        assert_eq!(said("1350"), Ok(()));
        assert!(
            said("1400")
                .unwrap_err()
                .contains("is 1400, and the path between the nodes takes 1350 bytes of a packet at node node-2")
        );
    }
}
