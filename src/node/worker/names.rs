//! Which tasks look names up at the node's resolver, and as whom: those on a network of the swarm, as in Docker. The
//! others have the host's servers in their `/etc/resolv.conf`.

use std::net::IpAddr;
use std::path::Path;

use crate::network::dns::{self, Client, ServedTask};
use crate::spec::Assignment;
use crate::spec::stack::NAMESPACE_LABEL;

/// `None`: the task is on no network of the swarm.
pub fn served(assignment: &Assignment, netns: &Path) -> Option<ServedTask> {
    if assignment.attachments.is_empty() {
        return None;
    }
    let servers = assignment.spec.container.dns.nameservers.iter().filter_map(|server| server.parse::<IpAddr>().ok());
    let client = Client {
        networks: assignment.attachments.iter().map(|attachment| attachment.network).collect(),
        stack: assignment.service_labels.get(NAMESPACE_LABEL).cloned(),
        // To ask the resolver itself would be a circle.
        servers: servers.filter(|server| *server != dns::ADDRESS).collect(),
    };
    Some(ServedTask { task: assignment.task, netns: netns.to_owned(), client })
}

/// What the task's hostname means in its own `/etc/hosts`: its addresses in the swarm, else the one on its host.
pub fn addresses(assignment: &Assignment, on_host: &[IpAddr]) -> Vec<IpAddr> {
    let in_swarm: Vec<IpAddr> =
        assignment.attachments.iter().flat_map(|attachment| attachment.addresses.iter().copied()).collect();
    if in_swarm.is_empty() { on_host.to_vec() } else { in_swarm }
}
