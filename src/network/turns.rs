//! One after another, what is made and removed for one task; different tasks at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::spec::TaskId;

/// Those of the tasks that are worked on now.
#[derive(Default)]
pub struct Turns(Mutex<BTreeMap<TaskId, Arc<AsyncMutex<()>>>>);

impl Turns {
    /// The task's next turn, until it is dropped.
    pub async fn take(&self, task: TaskId) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody works on those that only this map knows.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(task).or_default())
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_of_a_task_follow_each_other_and_leave_nothing() {
        let turns = Turns::default();
        let first = turns.take(TaskId(1)).await;
        let _other = turns.take(TaskId(2)).await;
        let second = turns.take(TaskId(1));
        tokio::pin!(second);
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        drop(second.await);
        let _next = turns.take(TaskId(3)).await;
        assert!(!turns.0.lock().unwrap().contains_key(&TaskId(1)));
    }
}
