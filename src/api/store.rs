//! What the API asks of its node about the images and volumes there.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::stream::BoxStream;
use serde_json::Value;
use tokio::sync::mpsc;

use super::ApiError;
use crate::spec::*;

/// Implemented by the composition root.
pub trait Store: Send + Sync + 'static {
    /// Loads a docker-archive or OCI layout from a tar stream; returns the names loaded.
    fn load_image(
        &self,
        tar: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> impl Future<Output = Result<Vec<String>, ApiError>> + Send;
    /// A tar of images of this node, each with the names that it is to have where it is loaded.
    fn save_images(
        &self,
        images: Vec<(LocalImage, Vec<String>)>,
    ) -> impl Future<Output = Result<BoxStream<'static, std::io::Result<Bytes>>, ApiError>> + Send;
    /// The digest that a tag has in its registry now; `None` for an image that was loaded into this node by hand.
    fn resolve_image(
        &self,
        image: &str,
        credentials: Option<SecretBytes>,
    ) -> impl Future<Output = Result<Option<String>, ApiError>> + Send;
    /// What the registry says of a name.
    fn describe_image(
        &self,
        image: &str,
        credentials: Option<SecretBytes>,
    ) -> impl Future<Output = Result<ImageDescribed, ApiError>> + Send;
    /// The tags that a repository has in its registry.
    fn image_tags(
        &self,
        repository: &str,
        credentials: Option<SecretBytes>,
    ) -> impl Future<Output = Result<Vec<String>, ApiError>> + Send;
    /// Whether a registry (`host[:port]` or a URL; empty: Docker Hub) takes the login.
    fn log_in(
        &self,
        server: &str,
        user: &str,
        password: SecretBytes,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// Images of this node, each once, under all of its names.
    fn images(&self) -> impl Future<Output = Result<Vec<LocalImage>, ApiError>> + Send;
    /// Pulls; tells the bytes done and to do meanwhile. The digest, and whether it is new here.
    fn pull_image(
        &self,
        image: &str,
        credentials: Option<SecretBytes>,
        progress: mpsc::Sender<(u64, u64)>,
    ) -> impl Future<Output = Result<(String, bool), ApiError>> + Send;
    /// The containers of this node, whether they run or not, with their images; whether it is locked or not.
    fn image_users(&self) -> impl Future<Output = Result<Vec<ImageUser>, ApiError>> + Send;
    fn tag_image(&self, image: &str, name: &str) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// Removes one name.
    fn remove_image(&self, name: &str, force: bool) -> impl Future<Output = Result<(), ApiError>> + Send;

    fn volumes(&self) -> Vec<LocalVolume>;
    /// The ids of the containers that have a volume mounted, whether they run or not, by its name.
    fn volume_users(&self) -> impl Future<Output = Result<BTreeMap<String, Vec<String>>, ApiError>> + Send;
    /// What is there already is given as it is, and refused where it has other options.
    fn create_volume(&self, name: &str, labels: Labels, options: Labels) -> Result<LocalVolume, ApiError>;
    fn remove_volume(&self, name: &str) -> Result<(), ApiError>;
    /// Bytes in a volume; `None` where it is no directory of this node. Walks its files.
    fn volume_size(&self, name: &str) -> impl Future<Output = Option<u64>> + Send;
}

#[derive(Debug, Clone)]
pub struct LocalImage {
    /// Full names, with a tag or a digest.
    pub names: Vec<String>,
    /// `sha256:...` of its manifest or index.
    pub digest: String,
    pub size_bytes: u64,
    /// Of each layer as it is kept here, the lowest first.
    pub layers_bytes: Vec<u64>,
    /// When it came to this node.
    pub arrived: UnixMs,
    /// The image's configuration, as OCI writes it.
    pub config: Value,
    /// No registry has it.
    pub loaded: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUser {
    pub container: String,
    /// The full name that its image was asked for by.
    pub image: String,
    /// It has not ended.
    pub runs: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDescribed {
    pub media_type: String,
    pub digest: String,
    pub size_bytes: u64,
    pub platforms: Vec<Platform>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalVolume {
    pub name: String,
    pub mountpoint: String,
    pub labels: Labels,
    /// Of the driver, without passwords.
    pub options: Labels,
    pub created: UnixMs,
}
