//! What tags mean now.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `POST /flok/v1/images/resolve`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ResolveImages {
    /// Docker's `X-Registry-Auth` for each image; empty where there is none.
    pub images: BTreeMap<String, String>,
}

/// An image that was loaded into the node by hand is in neither.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedImages {
    /// `sha256:...` by image.
    pub digests: BTreeMap<String, String>,
    /// Why a registry did not say.
    pub failed: BTreeMap<String, String>,
}
