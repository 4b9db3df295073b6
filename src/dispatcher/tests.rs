use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::spec::*;
use crate::state::NodeHealth;

fn dependency(id: u128, version: u64) -> Dependency {
    Dependency {
        id: DependencyId::Secret(SecretId(id)),
        version: Version(version),
        data: SecretBytes(version.to_be_bytes().to_vec()),
    }
}

fn member(id: u128, port: u16) -> Member {
    Member {
        public_key: [id as u8; 32],
        role: Role::Worker,
        transport: ([10, 0, 0, id as u8], port).into(),
        probe: ([10, 0, 0, id as u8], port).into(),
        raft: None,
        health: NodeHealth::Up,
    }
}

prop_compose! {
    /// Views without their generation: a few dependencies and members out of a small pool, so that they collide.
    fn contents()(
        dependencies in prop::collection::btree_map(0u128..6, 0u64..3, 0..6),
        members in prop::collection::btree_map(0u128..6, 1u16..3, 0..6),
        version in 0u64..3,
    ) -> View {
        View {
            generation: Generation(0),
            assignments: BTreeMap::new(),
            dependencies: dependencies.into_iter().map(|(id, v)| dependency(id, v)).map(|d| (d.id, d)).collect(),
            members: Arc::new(Members {
                version: Version(version),
                list: members.into_iter().map(|(id, port)| (NodeId(id), member(id, port))).collect(),
            }),
        }
    }
}

proptest! {
    #[test]
    fn updates_in_order_lead_to_the_newest_view(views in prop::collection::vec((contents(), any::<bool>()), 1..12)) {
        let mut sent = View::default();
        let mut held = View::default();
        for (index, (mut newest, restart)) in views.into_iter().enumerate() {
            newest.generation = Generation(index as u64 + 1);
            let update = if restart { Update::snapshot(&newest) } else { diff(&sent, &newest) };
            if update.is_empty() {
                prop_assert_eq!(&sent.dependencies, &newest.dependencies);
                continue;
            }
            sent = newest;
            update.apply(&mut held).expect("updates come in order");
            prop_assert_eq!(&held, &sent);
        }
    }
}

#[test]
fn an_older_generation_is_refused() {
    let newer = View { generation: Generation(7), ..View::default() };
    let older = View { generation: Generation(6), ..View::default() };
    let mut held = newer.clone();
    let refused = Update::snapshot(&older).apply(&mut held);
    assert_eq!(refused, Err(UpdateError::Older { have: 7, got: 6 }));
    assert_eq!(held, newer);
}

#[test]
fn a_lost_update_is_noticed() {
    let at = |generation| View { generation: Generation(generation), ..View::default() };
    let mut held = at(1);
    assert_eq!(diff(&at(2), &at(3)).apply(&mut held), Err(UpdateError::Gap { have: 1, base: 2 }));
    assert_eq!(Update::snapshot(&at(3)).apply(&mut held), Ok(()));
    assert_eq!(held, at(3));
}
