//! Whether a network that a user asks for would cut a node off from what is around it. Observed state, which the log does
//! not know: whoever takes a command looks before it is proposed.

use super::{ApiError, Read};
use crate::spec::{InvalidSubnet, NetworkSpec, Subnet};

/// Names the subnet, and which node has what in its way.
pub fn refuse_occupied(spec: &NetworkSpec, read: &Read) -> Result<(), ApiError> {
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
    Ok(())
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
        let said = |subnet: &str| refuse_occupied(&network_spec("net", &[subnet]), &read).map_err(|e| e.to_string());
        assert_eq!(
            said("10.0.1.0/24").unwrap_err(),
            "subnet 10.0.1.0/24 of network net overlaps with 10.0.0.0/16, which node node-2 reaches outside of the swarm (1 \
             more nodes have such a conflict): choose another one"
        );
        assert!(said("10.200.7.0/24").unwrap_err().contains("node node-2 gives its tasks their local addresses"));
        assert_eq!(said("10.1.0.0/16"), Ok(()));
        assert!(said("10.1.0.0").unwrap_err().contains("is not a subnet"));
    }
}
