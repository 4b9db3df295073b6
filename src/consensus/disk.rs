//! The thread that owns the log store, since its writes block.
//!
//! Jobs are done in order. The driver has at most one write under way and gathers the next meanwhile, so the queue is as
//! short as the kinds of jobs are few.

use std::sync::mpsc;
use std::thread::JoinHandle;

use raft::eraftpb::SnapshotMetadata;
use tokio::sync::{mpsc as async_mpsc, oneshot};

use super::error::StoreError;
use super::machine::Write;
use super::store::LogStore;
use crate::spec::FeatureLevel;

pub enum Job {
    Write(Vec<Write>),
    SaveSnapshot {
        meta: SnapshotMetadata,
        data: Vec<u8>,
        compact_to: (u64, u64),
    },
    /// The bytes of the stored snapshot, if it is still the one at `index`.
    LoadSnapshot {
        index: u64,
        reply: oneshot::Sender<Option<Vec<u8>>>,
    },
    FeatureLevel(FeatureLevel),
}

/// What was done. After an error nothing more is.
pub enum Done {
    /// Writes up to this number are durable.
    Written(u64),
    SnapshotSaved {
        meta: SnapshotMetadata,
        compacted: u64,
        bytes: u64,
    },
    Failed(StoreError),
}

pub struct Disk {
    jobs: mpsc::Sender<Job>,
    thread: Option<JoinHandle<()>>,
}

impl Disk {
    pub fn start(store: LogStore) -> std::io::Result<(Disk, async_mpsc::UnboundedReceiver<Done>)> {
        let (jobs, inbox) = mpsc::channel();
        // Never more than one answer for each job under way.
        let (outbox, done) = async_mpsc::unbounded_channel();
        let thread = std::thread::Builder::new().name("raft-log".into()).spawn(move || run(store, &inbox, &outbox))?;
        Ok((Disk { jobs, thread: Some(thread) }, done))
    }

    /// Ignored once the thread has failed: it has said so.
    pub fn enqueue(&self, job: Job) {
        let _ = self.jobs.send(job);
    }

    /// Lets the jobs finish and closes the file.
    pub async fn stop(mut self) {
        let thread = self.thread.take();
        drop(self);
        let joined = tokio::task::spawn_blocking(move || thread.map(JoinHandle::join));
        if let Ok(Some(Err(_))) = joined.await {
            tracing::error!("the log's thread panicked");
        }
    }
}

fn run(mut store: LogStore, jobs: &mpsc::Receiver<Job>, done: &async_mpsc::UnboundedSender<Done>) {
    while let Ok(job) = jobs.recv() {
        let result = perform(&mut store, job);
        let failed = result.is_err();
        let report = result.unwrap_or_else(|error| Some(Done::Failed(error)));
        if report.is_some_and(|report| done.send(report).is_err()) || failed {
            return;
        }
    }
}

fn perform(store: &mut LogStore, job: Job) -> Result<Option<Done>, StoreError> {
    match job {
        Job::Write(writes) => {
            store.write(&writes)?;
            Ok(writes.last().map(|write| Done::Written(write.number)))
        }
        Job::SaveSnapshot { meta, data, compact_to } => {
            store.save_snapshot(&meta, &data, compact_to)?;
            Ok(Some(Done::SnapshotSaved { meta, compacted: compact_to.0, bytes: data.len() as u64 }))
        }
        Job::LoadSnapshot { index, reply } => {
            let data = store.snapshot(index)?;
            // Whoever asked may have given up.
            let _ = reply.send(data);
            Ok(None)
        }
        Job::FeatureLevel(level) => store.set_feature_level(level).map(|()| None),
    }
}
