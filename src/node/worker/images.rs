//! Which images this node has, listed beside the worker's loop: containerd may take its time, and no task waits for it.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::Images;
use crate::gossip::MAX_RECORD_IMAGES;
use crate::runtime::images::ImageSummary;
use crate::runtime::{Result, explained};

/// The images as they are listed now and after each change; where a listing fails, those of the one before, until it is made
/// again. Ends with the last receiver.
pub fn follow<L, F>(list: L, mut changes: watch::Receiver<u64>, again_after: Duration) -> watch::Receiver<Images>
where
    L: Fn() -> F + Send + 'static,
    F: Future<Output = Result<Vec<ImageSummary>>> + Send,
{
    let (known, told) = watch::channel(Images::default());
    let closed = known.clone();
    let following = async move {
        loop {
            // A change while it is listed is listed again.
            changes.mark_unchanged();
            let failed = match list().await {
                Ok(images) => {
                    known.send_replace(shortened(images));
                    false
                }
                Err(error) => {
                    tracing::warn!(error = explained(&error), "listing images failed; it is tried again");
                    true
                }
            };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = sleep(again_after), if failed => {}
            }
        }
    };
    tokio::spawn(async move {
        tokio::select! {
            () = following => {}
            () = closed.closed() => {}
        }
    });
    told
}

fn shortened(images: Vec<ImageSummary>) -> Images {
    let digests: BTreeSet<&str> = images.iter().map(|image| image.digest.as_str()).collect();
    let count = digests.len();
    Images { names: images.into_iter().map(|image| image.name).take(MAX_RECORD_IMAGES).collect(), count }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use tokio::sync::{mpsc, oneshot};

    use super::*;
    use crate::runtime::RuntimeError;

    type Listing = oneshot::Sender<Result<Vec<ImageSummary>>>;

    type Listed = Pin<Box<dyn Future<Output = Result<Vec<ImageSummary>>> + Send>>;

    /// Each listing waits for the answer that its test gives it.
    fn asked() -> (impl Fn() -> Listed, mpsc::UnboundedReceiver<Listing>) {
        let (ask, asked) = mpsc::unbounded_channel();
        let list = move || {
            let (answer, told) = oneshot::channel();
            ask.send(answer).unwrap();
            Box::pin(async move { told.await.unwrap() }) as Listed
        };
        (list, asked)
    }

    fn image(name: &str, digest: &str) -> ImageSummary {
        ImageSummary { name: name.into(), digest: digest.into(), created_unix_s: 0 }
    }

    #[tokio::test]
    async fn what_was_listed_last_is_known_while_a_listing_takes_its_time() {
        let (list, mut listings) = asked();
        let changes = watch::Sender::new(0);
        let mut images = follow(list, changes.subscribe(), Duration::from_millis(1));
        assert_eq!(*images.borrow(), Images::default(), "nobody waits for the first");
        let first = listings.recv().await.unwrap();
        // Another one came while it was listed.
        changes.send_modify(|count| *count += 1);
        first.send(Ok(vec![image("b:1", "b"), image("a:1", "a"), image("a:2", "a")])).unwrap();
        images.changed().await.unwrap();
        let known = images.borrow_and_update().clone();
        assert_eq!((known.names.len(), known.count), (3, 2));
        let second = listings.recv().await.unwrap();
        assert_eq!(*images.borrow(), known);
        second.send(Err(RuntimeError::Ps("containerd does not answer".into()))).unwrap();
        // It is asked again by itself.
        let third = listings.recv().await.unwrap();
        assert_eq!(*images.borrow(), known);
        third.send(Ok(vec![image("c:1", "c")])).unwrap();
        images.changed().await.unwrap();
        assert_eq!(images.borrow_and_update().names, ["c:1"]);
        drop(images);
        assert!(listings.recv().await.is_none(), "it ends with who asked");
    }
}
