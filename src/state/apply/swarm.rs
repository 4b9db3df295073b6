//! Commands about the swarm as a whole.

use std::sync::Arc;

use super::{At, check_version};
use crate::spec::*;
use crate::state::{Network, Node, Refusal, State, Swarm};

/// Most bytes of a join token's secret.
const MAX_TOKEN_SECRET_BYTES: usize = 256;

impl State {
    pub(super) fn init_swarm(&mut self, swarm: &Swarm, node: &Node, at: At) -> Result<(), Refusal> {
        if let Some(existing) = &self.swarm {
            return Err(Refusal::Precondition(format!(
                "this log already belongs to swarm {}; leave it before making another",
                existing.id
            )));
        }
        swarm.spec.validate()?;
        check_unlock_key(&swarm.spec, swarm.unlock_key.as_ref())?;
        node.spec.validate()?;
        if node.spec.role != Role::Manager {
            return Err(Refusal::Invalid("the first node of a swarm is a manager".into()));
        }
        let level = swarm.feature_level;
        if node.description.feature_level < level {
            return Err(Refusal::Unsupported { need: level, have: node.description.feature_level });
        }
        let swarm = Swarm { meta: at.created(), membership_version: at.version, ..swarm.clone() };
        self.put_network(first_ingress_network(swarm.id, at));
        self.swarm = Some(Arc::new(swarm));
        self.put_node(Node { meta: at.created(), ..node.clone() });
        Ok(())
    }

    pub(super) fn update_swarm(
        &mut self,
        version: Version,
        spec: &SwarmSpec,
        unlock_key: Option<&SecretBytes>,
        at: At,
    ) -> Result<(), Refusal> {
        check_version(self.the_swarm().meta.version, version)?;
        spec.validate()?;
        if spec.data_path_port != self.the_swarm().spec.data_path_port {
            return Err(Refusal::Invalid("the data path port is fixed when the swarm is made".into()));
        }
        let kept = self.the_swarm().unlock_key.as_ref().filter(|_| spec.autolock);
        let unlock_key = unlock_key.or(kept).cloned();
        check_unlock_key(spec, unlock_key.as_ref())?;
        self.change_swarm(at, |swarm| {
            swarm.spec = spec.clone();
            swarm.unlock_key = unlock_key;
        });
        Ok(())
    }

    pub(super) fn rotate_token(
        &mut self,
        version: Option<Version>,
        role: Role,
        secret: &SecretBytes,
        at: At,
    ) -> Result<(), Refusal> {
        if let Some(version) = version {
            check_version(self.the_swarm().meta.version, version)?;
        }
        if secret.0.is_empty() || secret.0.len() > MAX_TOKEN_SECRET_BYTES {
            return Err(Refusal::Invalid(format!("a join token's secret has 1 to {MAX_TOKEN_SECRET_BYTES} bytes")));
        }
        self.change_swarm(at, |swarm| {
            swarm.token_generation += 1;
            match role {
                Role::Worker => swarm.worker_token = secret.clone(),
                Role::Manager => swarm.manager_token = secret.clone(),
            }
        });
        Ok(())
    }

    /// Only upwards, and only to what every member's build knows. Raising it to what it is already does nothing.
    pub(super) fn raise_feature_level(&mut self, to: FeatureLevel, at: At) -> Result<(), Refusal> {
        let level = self.feature_level();
        if to == level {
            return Ok(());
        }
        if to < level {
            return Err(Refusal::Precondition(format!(
                "the swarm is at feature level {level}, which only ever rises; level {to} is lower"
            )));
        }
        if let Some(behind) = self.nodes().find(|node| node.description.feature_level < to) {
            return Err(Refusal::Precondition(format!(
                "node {} knows feature levels up to {}: upgrade flok on it, or remove it, before level {to}",
                behind.name(),
                behind.description.feature_level
            )));
        }
        self.change_swarm(at, |swarm| swarm.feature_level = to);
        Ok(())
    }

    /// The level that formats and rules follow; the lowest before there is a swarm.
    pub fn feature_level(&self) -> FeatureLevel {
        self.swarm.as_ref().map_or(FeatureLevel(1), |swarm| swarm.feature_level)
    }

    /// Raises the membership version, after a change of who is a member, in which role or at which address.
    pub(super) fn membership_changed(&mut self, at: At) {
        if let Some(swarm) = &mut self.swarm {
            Arc::make_mut(swarm).membership_version = at.version;
        }
    }

    fn the_swarm(&self) -> &Swarm {
        self.swarm.as_deref().expect("commands before there is a swarm were refused")
    }

    fn change_swarm(&mut self, at: At, change: impl FnOnce(&mut Swarm)) {
        let swarm = self.swarm.as_mut().expect("commands before there is a swarm were refused");
        let swarm = Arc::make_mut(swarm);
        at.changed(&mut swarm.meta);
        change(swarm);
    }
}

fn check_unlock_key(spec: &SwarmSpec, key: Option<&SecretBytes>) -> Result<(), Refusal> {
    match (spec.autolock, key) {
        (false, None) => Ok(()),
        (false, Some(_)) => Err(Refusal::Invalid(
            "there is no unlock key to set: managers are not locked; turn autolock on first, by \"flok swarm update --autolock\""
                .into(),
        )),
        (true, Some(key)) if UnlockKey::from_state(key).is_some() => Ok(()),
        (true, _) => Err(Refusal::Invalid(format!("autolock needs an unlock key of {UNLOCK_KEY_BYTES} bytes"))),
    }
}

/// Made with the swarm, so that ports can be published from the first service on. Its subnets are allocated as any other's,
/// and it may be removed and made anew. Ids are random, so the swarm's serves for its first network as well.
fn first_ingress_network(swarm: SwarmId, at: At) -> Network {
    let spec = NetworkSpec {
        name: "ingress".into(),
        labels: Labels::new(),
        driver: "overlay".into(),
        driver_options: Labels::new(),
        internal: false,
        attachable: false,
        ingress: true,
        ipv6: true,
        subnets: Vec::new(),
    };
    Network { id: NetworkId(swarm.0), meta: at.created(), spec, subnets: Vec::new() }
}
