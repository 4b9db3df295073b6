//! A disk that keeps what was synced, and may keep or lose anything else, sector by sector.
//!
//! Between two syncs a sector may have been written several times; after a power cut it holds any one of those versions or
//! the one before. So a write that spans sectors may be torn, and writes may reach the disk in any order. A cut can be
//! set to fall on the n-th operation from now.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redb::StorageBackend;

const SECTOR: usize = 512;

#[derive(Debug, Default)]
struct Inner {
    /// As a reader sees it.
    current: Vec<u8>,
    /// As it was at the last sync.
    durable: Vec<u8>,
    /// Versions of each sector, and lengths, since the last sync, oldest first.
    unsynced: BTreeMap<usize, Vec<Vec<u8>>>,
    lengths: Vec<usize>,
    /// Handles of an older generation belong to a dead process.
    generation: u64,
    /// Operations left before the power fails.
    cut_in: Option<u32>,
    /// The next sync reports an error, and what it should have kept may be lost.
    fail_sync: bool,
    cut: bool,
}

/// One host's disk. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<Inner>>);

impl Disk {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no holder of the disk panics")
    }

    /// For a new process; those of earlier processes stop working.
    pub fn open(&self) -> Handle {
        let mut inner = self.inner();
        inner.generation += 1;
        Handle { disk: self.clone(), generation: inner.generation }
    }

    /// The process that holds the disk has died; what it wrote is in the host's memory.
    pub fn kill_process(&self) {
        self.inner().generation += 1;
    }

    /// The power fails: what was not synced survives or not, as `seed` has it.
    pub fn power_cut(&self, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut inner = self.inner();
        let inner = &mut *inner;
        let lengths = std::mem::take(&mut inner.lengths);
        let kept = rng.random_range(0..=lengths.len());
        let length = if kept == 0 { inner.durable.len() } else { lengths[kept - 1] };
        inner.durable.resize(length, 0);
        // Everything, nothing, or some: the last is what happens, the others are the edges.
        let mood = rng.random_range(0..4);
        for (sector, versions) in std::mem::take(&mut inner.unsynced) {
            let kept = match mood {
                0 => 0,
                1 => versions.len(),
                _ => rng.random_range(0..=versions.len()),
            };
            if kept > 0 {
                put(&mut inner.durable, sector, &versions[kept - 1]);
            }
        }
        inner.current = inner.durable.clone();
        inner.generation += 1;
        (inner.cut_in, inner.cut, inner.fail_sync) = (None, false, false);
    }

    /// The power is to fail at the n-th write or sync from now.
    pub fn cut_in(&self, operations: u32) {
        self.inner().cut_in = Some(operations);
    }

    pub fn fail_next_sync(&self) {
        self.inner().fail_sync = true;
    }

    /// Faults that were set and have not struck yet never will.
    pub fn mend(&self) {
        let mut inner = self.inner();
        (inner.cut_in, inner.fail_sync) = (None, false);
    }

    /// Whether the set cut has fallen.
    pub fn is_cut(&self) -> bool {
        self.inner().cut
    }

    /// All of it, as a reader sees it.
    pub fn image(&self) -> Vec<u8> {
        self.inner().current.clone()
    }

    /// Becomes what `image` says.
    pub fn restore(&self, image: Vec<u8>) {
        let mut inner = self.inner();
        let generation = inner.generation + 1;
        *inner = Inner { generation, current: image.clone(), durable: image, ..Inner::default() };
    }

    pub fn wipe(&self) {
        let mut inner = self.inner();
        let generation = inner.generation + 1;
        *inner = Inner { generation, ..Inner::default() };
    }
}

/// Writes as much of a sector as the disk is long.
fn put(bytes: &mut [u8], sector: usize, version: &[u8]) {
    let start = sector * SECTOR;
    if start < bytes.len() {
        let end = (start + version.len()).min(bytes.len());
        bytes[start..end].copy_from_slice(&version[..end - start]);
    }
}

/// A process's hold on a disk.
#[derive(Debug)]
pub struct Handle {
    disk: Disk,
    generation: u64,
}

impl Handle {
    fn alive(&self) -> Result<MutexGuard<'_, Inner>, io::Error> {
        let inner = self.disk.inner();
        if inner.generation != self.generation || inner.cut {
            return Err(io::Error::other("the process is dead"));
        }
        Ok(inner)
    }

    /// Counts an operation that changes the disk, and fails where the power does.
    fn change(&self) -> Result<MutexGuard<'_, Inner>, io::Error> {
        let mut inner = self.alive()?;
        if let Some(left) = &mut inner.cut_in {
            if *left == 0 {
                inner.cut = true;
                return Err(io::Error::other("the power failed"));
            }
            *left -= 1;
        }
        Ok(inner)
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.alive()?.current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let inner = self.alive()?;
        let start = offset as usize;
        let bytes = inner.current.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut inner = self.change()?;
        inner.current.resize(len as usize, 0);
        inner.lengths.push(len as usize);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut inner = self.change()?;
        if std::mem::take(&mut inner.fail_sync) {
            return Err(io::Error::other("the disk failed"));
        }
        let inner = &mut *inner;
        inner.durable.resize(inner.current.len(), 0);
        inner.lengths.clear();
        for (sector, versions) in std::mem::take(&mut inner.unsynced) {
            put(&mut inner.durable, sector, versions.last().expect("a written sector has a version"));
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut inner = self.change()?;
        let inner = &mut *inner;
        let (start, end) = (offset as usize, offset as usize + data.len());
        if end > inner.current.len() {
            inner.current.resize(end, 0);
            inner.lengths.push(end);
        }
        inner.current[start..end].copy_from_slice(data);
        for sector in start / SECTOR..end.div_ceil(SECTOR) {
            let range = sector * SECTOR..((sector + 1) * SECTOR).min(inner.current.len());
            inner.unsynced.entry(sector).or_default().push(inner.current[range].to_vec());
        }
        Ok(())
    }
}
