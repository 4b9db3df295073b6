//! Changes that are made again, from what is there now, where somebody else changed the same object meanwhile.

use std::time::Duration;

use rand::TryRng;

use crate::api::client::ClientError;

/// Looks and changes in a row before it is given up.
const MAX_TRIES: u32 = 8;
/// Doubled with each try: those who collided draw their times from more and more.
const FIRST_WAIT_MS: u32 = 25;

/// Looks at `what` and changes it, in one call; again where somebody else's change came between.
pub async fn retried<T>(what: &str, mut change: impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    for tried in 0..MAX_TRIES {
        match change().await {
            Err(error) if is_overtaken(&error) => tokio::time::sleep(wait(tried, random())).await,
            done => return done,
        }
    }
    anyhow::bail!(
        "{what} was changed by somebody else each of the {MAX_TRIES} times that this was tried: nothing was changed; \
         run the command again when the others are done"
    )
}

/// Whether somebody else's change came between a look at an object and its change.
pub fn is_overtaken(error: &anyhow::Error) -> bool {
    let refused = error.chain().filter_map(|cause| cause.downcast_ref::<ClientError>());
    refused.into_iter().any(ClientError::is_out_of_sequence)
}

fn wait(tried: u32, draw: u32) -> Duration {
    Duration::from_millis(u64::from(draw % (FIRST_WAIT_MS << tried)))
}

fn random() -> u32 {
    rand::rngs::SysRng.try_next_u32().unwrap_or(FIRST_WAIT_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overtaken() -> anyhow::Error {
        let message = "rpc error: code = Unknown desc = update out of sequence".to_owned();
        ClientError::Refused { status: 500, message }.into()
    }

    #[tokio::test]
    async fn a_change_that_was_overtaken_is_made_again() {
        let mut tries = 0;
        let done = retried("service web", async || {
            tries += 1;
            if tries < 3 { Err(overtaken().context("update")) } else { Ok(tries) }
        })
        .await;
        assert_eq!(done.unwrap(), 3);
    }

    #[tokio::test]
    async fn other_failures_are_told_at_once_and_endless_ones_by_name() {
        let mut tries = 0;
        let refused = retried::<()>("service web", async || {
            tries += 1;
            anyhow::bail!("no")
        })
        .await;
        assert_eq!((refused.unwrap_err().to_string(), tries), ("no".to_owned(), 1));
    }

    #[test]
    fn waits_are_bounded_and_drawn_from_more_and_more() {
        assert!((0..1000).all(|draw| wait(0, draw) < Duration::from_millis(25)));
        assert_eq!(wait(MAX_TRIES - 1, u32::MAX), Duration::from_millis(u64::from(u32::MAX % (25 << 7))));
    }
}
