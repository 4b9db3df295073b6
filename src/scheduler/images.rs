//! Which nodes have the images that waiting tasks need.

use std::collections::BTreeMap;

use super::nodes::Nodes;
use crate::spec::image::ImageReference;
use crate::spec::{ServiceId, Version};
use crate::state::State;

/// Indices of nodes by the image they have, for the images asked for.
pub(super) struct Images {
    by_image: BTreeMap<String, Vec<usize>>,
}

impl Images {
    /// One pass over the records, however many groups wait.
    pub fn find(state: &State, groups: impl Iterator<Item = (ServiceId, Version)>, nodes: &Nodes) -> Images {
        let mut by_image: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut by_spelling: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for spec in groups.filter_map(|(service, version)| state.task_spec(service, version)) {
            let image = &spec.container.image;
            if by_image.insert(image.clone(), Vec::new()).is_none() {
                for spelling in spellings(image) {
                    by_spelling.entry(spelling).or_default().push(image.clone());
                }
            }
        }
        for (index, info) in nodes.infos.iter().enumerate() {
            let present = info.record.iter().flat_map(|record| &record.images);
            for image in present.filter_map(|spelling| by_spelling.get(spelling)).flatten() {
                let holders = by_image.get_mut(image).expect("spellings are those of wanted images");
                if holders.last() != Some(&index) {
                    holders.push(index);
                }
            }
        }
        Images { by_image }
    }

    /// Nodes that have the image, in order.
    pub fn holders(&self, image: &str) -> &[usize] {
        self.by_image.get(image).map_or(&[], Vec::as_slice)
    }
}

/// How a record may name an image: as the user wrote it, in full, in short, or by its digest
/// with or without the repository.
fn spellings(image: &str) -> Vec<String> {
    let mut spellings = vec![image.to_owned()];
    if let Ok(reference) = image.parse::<ImageReference>() {
        spellings.extend([reference.to_string(), reference.familiar()]);
        let repository = format!("{}/{}", reference.registry, reference.repository);
        if let Some(digest) = reference.digest {
            spellings.extend([format!("{repository}@{digest}"), digest]);
        }
    }
    spellings.sort();
    spellings.dedup();
    spellings
}
