//! What the keeper's thread is told, bounded: of the swarm's view only the newest counts, that something was touched is a
//! note, and who waits for an answer takes one of a few places until it is taken in.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::NetworkError;
use super::plane::{Question, SwarmView};
use super::state::Interface;

/// Questions that wait to be taken in; who has another waits before he asks.
const PLACES: usize = 256;
/// Interfaces that were touched, by name; more are as good as all.
const TOUCHED: usize = 64;

pub struct Inbox {
    told: Mutex<Told>,
    news: Condvar,
    places: Arc<Semaphore>,
}

/// Closes it when dropped: held by who tells, and by the thread that is told.
pub struct Closing(pub Arc<Inbox>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// All there is since the last time.
#[derive(Default)]
pub struct Told {
    /// In the order in which they were asked. What was told before a question was asked is here with it.
    pub questions: Vec<Question>,
    pub swarm: Option<Box<SwarmView>>,
    pub rung: Rung,
    /// Nobody tells anything any more.
    pub closed: bool,
    places: Vec<OwnedSemaphorePermit>,
}

/// What another may have touched of ours.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rung {
    pub anything: bool,
    pub interfaces: BTreeSet<Interface>,
}

impl Default for Inbox {
    fn default() -> Self {
        Inbox { told: Mutex::default(), news: Condvar::new(), places: Arc::new(Semaphore::new(PLACES)) }
    }
}

impl Inbox {
    /// Asks what `question` makes of the place where the answer goes, and waits for the answer.
    pub async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<Result<T, NetworkError>>) -> Question,
    ) -> Result<T, NetworkError> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| NetworkError::Stopped)?;
        let (asked, answer) = oneshot::channel();
        self.tell(|told| {
            if !told.closed {
                told.questions.push(question(asked));
                told.places.push(place);
            }
        });
        answer.await.unwrap_or(Err(NetworkError::Stopped))
    }

    /// The newest counts. Never blocks.
    pub fn set_swarm(&self, view: SwarmView) {
        self.tell(|told| told.swarm = Some(Box::new(view)));
    }

    /// This interface may have been touched, or anything.
    pub fn ring(&self, interface: Option<Interface>) {
        self.tell(|told| {
            let Rung { anything, interfaces } = &mut told.rung;
            interfaces.extend(interface);
            *anything |= interface.is_none() || interfaces.len() > TOUCHED;
            if *anything {
                interfaces.clear();
            }
        });
    }

    /// The thread ends once it has seen it, or has ended: nothing that is asked from here on is answered.
    pub fn close(&self) {
        self.tell(|told| {
            told.closed = true;
            told.questions.clear();
        });
    }

    /// Waits for something to do, at most for so long, and takes all of it.
    pub fn wait(&self, at_most: Duration) -> Told {
        let waited = self.news.wait_timeout_while(self.lock(), at_most, |told| told.is_empty());
        let (mut told, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let closed = told.closed;
        Told { closed, ..std::mem::replace(&mut *told, Told { closed, ..Told::default() }) }
    }

    fn tell(&self, what: impl FnOnce(&mut Told)) {
        what(&mut self.lock());
        self.news.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    pub fn is_empty(&self) -> bool {
        !self.closed && self.questions.is_empty() && self.swarm.is_none() && self.rung == Rung::default()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::spec::NodeId;

    const AT_ONCE: Duration = Duration::ZERO;

    fn view(node: u128) -> SwarmView {
        let members = [(NodeId(node), IpAddr::V4(Ipv4Addr::LOCALHOST))].into();
        SwarmView { members, ..SwarmView::default() }
    }

    #[test]
    fn of_the_swarms_views_the_newest_counts_and_rings_are_one() {
        let inbox = Inbox::default();
        (1..100).for_each(|node| inbox.set_swarm(view(node)));
        (0..1000).for_each(|_| inbox.ring(Some(Interface::new("flok0"))));
        let told = inbox.wait(AT_ONCE);
        assert_eq!(told.swarm.as_deref(), Some(&view(99)));
        assert_eq!(told.rung, Rung { anything: false, interfaces: [Interface::new("flok0")].into() });
        (0..100).for_each(|number| inbox.ring(Some(Interface::new(&format!("fk{number}")))));
        assert_eq!(inbox.wait(AT_ONCE).rung, Rung { anything: true, interfaces: [].into() });
        assert!(inbox.wait(AT_ONCE).is_empty());
    }

    #[tokio::test]
    async fn questions_wait_for_a_place_and_none_is_lost() {
        let inbox = Arc::new(Inbox::default());
        let asking: Vec<_> = (0..PLACES + 10)
            .map(|_| {
                let inbox = Arc::clone(&inbox);
                tokio::spawn(async move { inbox.ask(Question::Settle).await })
            })
            .collect();
        let mut answered = 0;
        while answered < asking.len() {
            tokio::task::yield_now().await;
            let told = inbox.wait(AT_ONCE);
            assert!(told.questions.len() <= PLACES);
            for question in told.questions {
                let Question::Settle(done) = question else { panic!("another question") };
                done.send(Ok(())).unwrap();
                answered += 1;
            }
        }
        for asked in asking {
            asked.await.unwrap().unwrap();
        }
        let late = {
            let inbox = Arc::clone(&inbox);
            tokio::spawn(async move { inbox.ask(Question::Settle).await })
        };
        tokio::task::yield_now().await;
        inbox.close();
        assert!(matches!(late.await.unwrap(), Err(NetworkError::Stopped)));
        assert!(matches!(inbox.ask(Question::Settle).await, Err(NetworkError::Stopped)));
        assert!(inbox.wait(AT_ONCE).closed);
    }
}
