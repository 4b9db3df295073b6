//! What a node gathers of itself for whoever looks into a trouble of it.

use serde::{Deserialize, Serialize};

/// One file of a support bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupportFile {
    /// Its path in the bundle.
    pub path: String,
    /// What it says; the error is why it could not be had.
    pub text: Result<String, String>,
}
