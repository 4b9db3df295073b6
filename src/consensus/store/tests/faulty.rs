//! A disk in memory that knows what was synced, can lose the rest, fail, and be full.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

#[derive(Debug, Clone, Copy)]
pub enum Crash {
    LoseUnsynced,
    KeepUnsynced,
    /// Of the unsynced writes some are on the disk, one by half.
    Tear,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Debug, Default)]
struct Image {
    synced: Vec<u8>,
    now: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone, Default)]
pub struct FaultyDisk {
    image: Arc<Mutex<Image>>,
    pub operations: Arc<AtomicU64>,
    fail_at: Arc<AtomicU64>,
    failing: Arc<AtomicBool>,
    pub full: Arc<AtomicBool>,
}

impl FaultyDisk {
    pub fn holding(bytes: Vec<u8>) -> FaultyDisk {
        let disk = FaultyDisk::default();
        *disk.image.lock().unwrap() = Image { synced: bytes.clone(), now: bytes, unsynced: Vec::new() };
        disk
    }

    pub fn image(&self) -> Vec<u8> {
        self.image.lock().unwrap().now.clone()
    }

    pub fn contains(&self, text: &[u8]) -> bool {
        self.image().windows(text.len()).any(|window| window == text)
    }

    /// So many more changes work, then none.
    pub fn fail_after(&self, operations: u64) {
        self.fail_at.store(self.operations.load(Ordering::Relaxed) + operations, Ordering::Relaxed);
        self.failing.store(true, Ordering::Relaxed);
    }

    /// What the next start finds.
    pub fn after_crash(&self, crash: Crash, seed: u64) -> Vec<u8> {
        let image = self.image.lock().unwrap();
        let mut bytes = image.synced.clone();
        let changes = match crash {
            Crash::LoseUnsynced => return bytes,
            Crash::KeepUnsynced => image.unsynced.clone(),
            Crash::Tear => torn(&image.unsynced, seed),
        };
        for change in changes {
            apply(&mut bytes, &change);
        }
        bytes
    }

    fn change(&self, change: Option<Change>) -> io::Result<()> {
        let number = self.operations.fetch_add(1, Ordering::Relaxed);
        if self.failing.load(Ordering::Relaxed) && number >= self.fail_at.load(Ordering::Relaxed) {
            return Err(io::Error::other("the power is gone"));
        }
        let mut image = self.image.lock().unwrap();
        match change {
            None => {
                image.synced = image.now.clone();
                image.unsynced.clear();
            }
            Some(change) => {
                let grows = matches!(&change, Change::Length(length) if *length > image.now.len() as u64);
                if self.full.load(Ordering::Relaxed) && (grows || matches!(change, Change::Write(..))) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                apply(&mut image.now, &change);
                image.unsynced.push(change);
            }
        }
        Ok(())
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(length) => bytes.resize(*length as usize, 0),
        Change::Write(offset, data) => {
            let end = *offset as usize + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset as usize..end].copy_from_slice(data);
        }
    }
}

/// Lengths first, as a file system's journal has it; of the data writes every other one, in an order and with a torn one
/// as the seed has it.
fn torn(unsynced: &[Change], seed: u64) -> Vec<Change> {
    let (lengths, mut writes): (Vec<Change>, Vec<Change>) =
        unsynced.iter().cloned().partition(|change| matches!(change, Change::Length(_)));
    if seed % 2 == 1 {
        writes.reverse();
    }
    let mut kept: Vec<Change> = writes.into_iter().skip(seed as usize % 3).step_by(2).collect();
    if let Some(Change::Write(_, data)) = kept.last_mut() {
        data.truncate(data.len() / 2);
    }
    lengths.into_iter().chain(kept).collect()
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.image.lock().unwrap().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let image = self.image.lock().unwrap();
        let from = offset as usize;
        let bytes = image.now.get(from..from + out.len()).ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.change(Some(Change::Length(len)))
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.change(None)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.change(Some(Change::Write(offset, data.to_vec())))
    }
}
