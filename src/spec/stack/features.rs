//! What of the Compose grammar this build can carry out. All of it is read; a key whose feature is off is refused by
//! name, so nothing in a stack file is ever dropped in silence. An issue that builds a feature flips its switch here.

/// Something a stack file may ask for that not every build does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    Networks,
    IngressPorts,
    ClusterVolumes,
    /// `depends_on`.
    StartOrder,
    /// extends, include, profiles.
    Composition,
}

impl Feature {
    /// What a refused key's message says.
    pub(super) fn refusal(self) -> &'static str {
        match self {
            Feature::Networks => "overlay networks are not supported yet: remove it, and publish ports with mode: host",
            Feature::IngressPorts => {
                "ingress publishing is not supported yet: use the long form (target, published) with mode: host"
            }
            Feature::ClusterVolumes => "cluster volumes are not supported yet",
            Feature::StartOrder => "start order is not supported yet: remove it and let the service wait or retry",
            Feature::Composition => "it is not supported yet: give several files with -c instead",
        }
    }
}

/// The switches; a key needs its feature on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    all: bool,
}

impl Features {
    /// What this build carries out.
    pub fn supported() -> Features {
        Features { all: false }
    }

    /// The whole grammar: for `stack config`, which deploys nothing, and for tests.
    pub fn all() -> Features {
        Features { all: true }
    }

    pub fn has(self, feature: Feature) -> bool {
        self.all || SUPPORTED.contains(&feature)
    }
}

/// Features that are built.
const SUPPORTED: &[Feature] = &[Feature::Networks, Feature::IngressPorts, Feature::StartOrder, Feature::Composition];
