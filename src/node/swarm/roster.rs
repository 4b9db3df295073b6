//! Keeps the transport's member list at what the log, or a manager's stream, says.

use std::collections::BTreeSet;

use crate::dispatcher::Members;
use crate::spec::{NodeId, Role};
use crate::state::State;
use crate::transport::{Member, MemberList};

/// Managers that a node without the log keeps connections to.
const UPLINKS: usize = 3;

pub fn member_list(state: &State) -> MemberList {
    MemberList {
        version: state.swarm().map(|swarm| swarm.membership_version).unwrap_or_default(),
        members: state
            .nodes()
            .map(|node| Member {
                node: node.id,
                public_key: node.public_key,
                role: node.spec.role,
                log_holder: node.raft.is_some(),
                addr: node.transport_addr(),
            })
            .collect(),
    }
}

pub fn member_list_of(members: &Members) -> MemberList {
    let members_of = members.list.iter().map(|(id, member)| Member {
        node: *id,
        public_key: member.public_key,
        role: member.role,
        log_holder: member.raft.is_some(),
        addr: member.transport,
    });
    MemberList { version: members.version, members: members_of.collect() }
}

/// Whom to be connected to at all times: a manager to all managers, a worker to a few. The few differ from worker to
/// worker, so that no manager serves them all.
pub fn wanted(list: &MemberList, me: NodeId) -> BTreeSet<NodeId> {
    let own_role = list.members.iter().find(|member| member.node == me).map_or(Role::Worker, |member| member.role);
    let managers = || list.members.iter().filter(|member| member.role == Role::Manager && member.node != me);
    if own_role == Role::Manager {
        return managers().map(|member| member.node).collect();
    }
    let mut holders: Vec<NodeId> = managers().filter(|member| member.log_holder).map(|member| member.node).collect();
    if holders.is_empty() {
        holders = managers().map(|member| member.node).collect();
    }
    holders.sort_by_key(|manager| (manager.0 ^ me.0).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
    holders.into_iter().take(UPLINKS).collect()
}
