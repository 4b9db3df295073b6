//! What operators of nodes have to mend, where it concerns what a command shows.

use std::collections::BTreeSet;

use bollard::models::{EndpointPortConfigPublishModeEnum as Mode, Service};

use crate::api::client::Client;
use crate::api::model::status::{NodeStatus, SwarmStatus};

/// Says on which nodes ports of `services` are another process', on standard error: what is listed stays as it is.
pub async fn warn_of_taken_ports(client: &Client, services: &[Service]) -> anyhow::Result<()> {
    let ports: BTreeSet<String> = services.iter().flat_map(ingress_ports).collect();
    if ports.is_empty() {
        return Ok(());
    }
    let status: SwarmStatus = client.get("/status").await?;
    taken(&status.nodes, &ports).iter().for_each(|line| eprintln!("Warning: {line}"));
    Ok(())
}

/// As in `8080/tcp`.
fn ingress_ports(service: &Service) -> impl Iterator<Item = String> {
    let ports = service.endpoint.iter().filter_map(|endpoint| endpoint.ports.as_ref()).flatten();
    let ingress = ports.filter(|port| port.publish_mode != Some(Mode::HOST));
    ingress.filter_map(|port| {
        let protocol = port.protocol.map_or_else(|| "tcp".to_owned(), |protocol| protocol.to_string());
        Some(format!("{}/{protocol}", port.published_port?))
    })
}

fn taken(nodes: &[NodeStatus], ports: &BTreeSet<String>) -> Vec<String> {
    let of_node = |node: &NodeStatus| {
        let taken = node.conditions.iter().filter(|it| it.port.as_ref().is_some_and(|port| ports.contains(port)));
        taken.map(|it| format!("{}: {}", node.name, it.detail)).collect::<Vec<_>>()
    };
    nodes.iter().flat_map(of_node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::model::status::ConditionStatus;

    #[test]
    fn a_taken_port_is_told_with_the_node_for_the_services_that_publish_it() {
        let service: Service = serde_json::from_value(serde_json::json!({"Endpoint": {"Ports": [
            {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"},
            {"Protocol": "udp", "TargetPort": 53, "PublishedPort": 53, "PublishMode": "host"},
        ]}}))
        .unwrap();
        let ports: BTreeSet<String> = ingress_ports(&service).collect();
        assert_eq!(ports, ["8080/tcp".to_owned()].into(), "ports in host mode are the task's own");
        let condition = |concern: &str, port: Option<&str>| ConditionStatus {
            concern: concern.into(),
            port: port.map(str::to_owned),
            detail: format!("{concern} {port:?}"),
        };
        let conditions =
            vec![condition("port", Some("8080/tcp")), condition("port", Some("53/udp")), condition("kernel", None)];
        let node = NodeStatus {
            id: "1".into(),
            name: "n1".into(),
            role: "manager".into(),
            raft: String::new(),
            health: "up".into(),
            availability: "active".into(),
            address: String::new(),
            tasks: 0,
            load: None,
            conditions,
        };
        assert_eq!(taken(&[node], &ports), [r#"n1: port Some("8080/tcp")"#]);
    }
}
