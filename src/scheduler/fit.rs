//! How the nodes stand to one more task of a service: the filters and costs of a placement, asked without placing.

use std::iter::once;

use rand::Rng;

use super::conditions::Conditions;
use super::filter::{Asked, Demands};
use super::images::Images;
use super::nodes::Nodes;
use super::score::Rank;
use crate::gossip::Table;
use crate::spec::{NodeFit, NodeId, Now, TaskSpec};
use crate::state::{Service, State, Task};

/// Every node of the swarm, in order of id. The error is a spec that no node could meet.
pub fn fits(
    state: &State,
    table: &Table,
    now: Now,
    service: &Service,
    rng: &mut impl Rng,
) -> Result<Vec<NodeFit>, String> {
    let key = (service.id, service.spec_version);
    let nodes = Nodes::build(state, table, once(service.id), rng);
    let images = Images::find(state, once(key), &nodes);
    let spec = &service.spec.task;
    let mut demands = Demands::of(spec, &mut Conditions::default(), nodes.infos.len())?;
    demands.learn(spec, state);
    let holders = images.holders(&spec.container.image);
    let on_node = nodes.on_node(key, now.unix);
    let fit = |index: usize| {
        let (info, on_node) = (&nodes.infos[index], on_node[index]);
        let refusal = info.unready.or_else(|| demands.check(Asked { index, info, on_node }).err());
        let has_image = holders.binary_search(&index).is_ok();
        let alone = Rank::of(info, index);
        let rank = alone.with(on_node, has_image);
        NodeFit {
            node: info.node.id,
            refusal: refusal.map(|reason| demands.text(reason)),
            cost: rank.cost,
            busy: alone.cost,
            avoided: rank.avoided,
            tasks: on_node.tasks,
            has_image,
        }
    };
    Ok((0..nodes.infos.len()).map(fit).collect())
}

/// The volume that ties a task to the node which holds its data.
pub fn volume_home(state: &State, spec: &TaskSpec, task: &Task) -> Option<(String, NodeId)> {
    let home = |volume: &str| Some((volume.to_owned(), state.volume_home(task.service, task.slot, volume)?));
    spec.named_local_volumes().find_map(home)
}
