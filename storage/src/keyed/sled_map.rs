//! [`SledMap`]: the map over sled, opened so that what it says is durable is.
//!
//! sled 0.34.7 as it ships loses acknowledged data at a power cut: it does not wait for the disk (see [`super::durable`]), the names
//! of its files are not synced, and half-written `snap.*.generating` files make the next start panic. Hence
//! [`sync_names`] at the opening, a sync by a descriptor of our own after every flush, and the removal of what was half written.
//! Its threads, which nobody can join, keep the data file locked a moment longer than the store lives: see [`wait_released`].

use std::fs::{File, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use super::KeyedError;
use super::durable::calls;
use super::layout::{OPENED_KEY, SLED_PIECE_BYTES};
use super::map::{Changes, DAMAGED, Durable, Map, OpenError, Visit};
use super::open::fault;
use crate::disk::{Disk, DiskFile, RealDisk, RealFile};

/// Keys removed in one batch when a space is cleared.
const CLEAR_KEYS: usize = 512;
/// sled's data file; a folder that has it is sled's.
pub(super) const DATA_FILE: &str = "db";
/// Written before the data file; a folder that has it is sled's.
pub(super) const CONF_FILE: &str = "conf";

/// How long the opening waits for the threads of a store that was closed in this process.
const RELEASED_WITHIN: Duration = Duration::from_secs(2);
/// How often it looks whether they are done.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// The map over sled.
pub(super) struct SledMap(sled::Tree);

/// Flushes sled and syncs what it wrote.
pub(super) struct SledSync {
    db: sled::Db,
    /// sled's data file.
    file: RealFile,
    dir: PathBuf,
}

fn is_corruption(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Corruption { .. })
}

fn is_unusable(error: &sled::Error) -> bool {
    match error {
        sled::Error::Io(error) => matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof),
        sled::Error::ReportableBug(_) => true,
        error => is_corruption(error),
    }
}

impl From<sled::Error> for KeyedError {
    fn from(error: sled::Error) -> Self {
        let kind = if is_corruption(&error) { DAMAGED } else { "" };
        Self::Fault(format!("{kind}{error}"))
    }
}

/// Opens sled in `dir`, which exists.
pub(super) fn open(dir: &Path, cache_bytes: u64) -> Result<(SledMap, SledSync), OpenError> {
    let failed = |error| OpenError::Failed(fault(dir)(error));
    wait_released(&dir.join(DATA_FILE)).map_err(failed)?;
    remove_half_written(dir).map_err(failed)?;
    let calls_before = calls();
    let config = sled::Config::new().path(dir).flush_every_ms(None).cache_capacity(cache_bytes).print_profile_on_drop(false);
    // sled panics on some damage.
    let db = match catch_unwind(AssertUnwindSafe(|| config.open())) {
        Ok(Ok(db)) => db,
        Ok(Err(error)) if is_unusable(&error) => return Err(OpenError::Unusable(error.to_string())),
        Ok(Err(error)) => return Err(OpenError::Failed(error.into())),
        Err(_) => return Err(OpenError::Unusable("the engine panicked".to_owned())),
    };
    // Something is written, so that it can be seen whether it reaches the disk.
    catch_unwind(AssertUnwindSafe(|| {
        let opened = db.get(OPENED_KEY)?.and_then(|count| count.as_ref().try_into().map(u64::from_be_bytes).ok());
        db.insert(OPENED_KEY, &opened.unwrap_or(0).wrapping_add(1).to_be_bytes())?;
        db.flush().map(|_| ())
    }))
    .unwrap_or_else(|_| Err(sled::Error::ReportableBug("the engine panicked".to_owned())))
    .map_err(
        |error| if is_unusable(&error) { OpenError::Unusable(error.to_string()) } else { OpenError::Failed(error.into()) },
    )?;
    if cfg!(target_os = "linux") && calls() == calls_before {
        let reason = "the engine does not wait for the disk in this build".to_owned();
        return Err(OpenError::Failed(KeyedError::Fault(reason)));
    }
    let mut file = RealDisk.open(&dir.join(DATA_FILE)).map_err(failed)?;
    file.sync_data().map_err(failed)?;
    sync_names(dir).map_err(failed)?;
    Ok((SledMap((*db).clone()), SledSync { db, file, dir: dir.to_owned() }))
}

/// Waits until nobody holds sled's lock. sled tells whoever flushes that a write is done before its thread lets go of the file, and
/// joins no thread when it is dropped: a store that is opened just after it was closed would be refused. One that somebody uses is
/// refused all the same, after [`RELEASED_WITHIN`].
fn wait_released(data: &Path) -> std::io::Result<()> {
    let file = match File::open(data) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let mut left = RELEASED_WITHIN;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if !left.is_zero() => {
                std::thread::sleep(LOOK_EVERY);
                left = left.saturating_sub(LOOK_EVERY);
            }
            Err(TryLockError::WouldBlock) => {
                let message = format!("{} is in use, still after {} s", data.display(), RELEASED_WITHIN.as_secs());
                return Err(std::io::Error::new(std::io::ErrorKind::WouldBlock, message));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn remove_half_written(dir: &Path) -> std::io::Result<()> {
    for path in RealDisk.list(dir)? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            RealDisk.remove(&path)?;
        }
    }
    RealDisk.sync_dir(dir)
}

/// Syncs the names of sled's files and the small ones among them.
fn sync_names(dir: &Path) -> std::io::Result<()> {
    let conf = dir.join(CONF_FILE);
    if RealDisk.exists(&conf)? {
        RealDisk.open(&conf)?.sync_data()?;
    }
    let blobs = dir.join("blobs");
    if RealDisk.exists(&blobs)? {
        RealDisk.sync_dir(&blobs)?;
    }
    RealDisk.sync_dir(dir)
}

/// Syncs what sled has put into files of its own. The layout avoids that it ever does.
fn sync_blobs(dir: &Path) -> std::io::Result<()> {
    let blobs = dir.join("blobs");
    if !RealDisk.exists(&blobs)? {
        return Ok(());
    }
    let files = RealDisk.list(&blobs)?;
    for path in &files {
        match RealDisk.open(path) {
            Ok(mut file) => file.sync_data()?,
            // Removed since it was listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    if files.is_empty() { Ok(()) } else { RealDisk.sync_dir(&blobs) }
}

impl Map for SledMap {
    fn piece_bytes(&self) -> usize {
        SLED_PIECE_BYTES
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, KeyedError> {
        Ok(self.0.get(key)?.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&mut self, from: &[u8], to: Option<&[u8]>, visit: Visit<'_>) -> Result<(), KeyedError> {
        let pairs = match to {
            // sled panics if the end is before the beginning.
            Some(to) if to <= from => return Ok(()),
            Some(to) => self.0.range(from..to),
            None => self.0.range(from..),
        };
        for pair in pairs {
            let (key, value) = pair?;
            if !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn write(&mut self, changes: Changes) -> Result<(), KeyedError> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        Ok(self.0.apply_batch(batch)?)
    }

    fn clear(&mut self, prefix: &[u8]) -> Result<(), KeyedError> {
        loop {
            let mut batch = sled::Batch::default();
            let mut count = 0;
            for key in self.0.scan_prefix(prefix).keys().take(CLEAR_KEYS) {
                batch.remove(key?);
                count += 1;
            }
            if count == 0 {
                return Ok(());
            }
            self.0.apply_batch(batch)?;
        }
    }

    fn commit(&mut self) -> Result<(), KeyedError> {
        Ok(())
    }
}

impl Durable for SledSync {
    fn sync(&mut self) -> Result<(), KeyedError> {
        self.db.flush()?;
        self.file.sync_data().and_then(|()| sync_blobs(&self.dir)).map_err(|error| KeyedError::Fault(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_and_count(dir: &Path) -> Result<u64, OpenError> {
        let (mut map, _sync) = open(dir, 1 << 20)?;
        let count = map.get(&OPENED_KEY).unwrap().expect("counted");
        Ok(u64::from_be_bytes(count.as_ref().try_into().unwrap()))
    }

    #[test]
    fn a_lock_that_is_released_late_is_waited_for_and_one_that_is_kept_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = open_and_count(dir.path()).expect("opens");
        let held = || {
            let file = File::open(dir.path().join(DATA_FILE)).unwrap();
            file.lock().unwrap();
            file
        };
        let late = held();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(200));
                drop(late);
            });
            assert_eq!(open_and_count(dir.path()).expect("opens when it is released"), first + 1);
        });
        let kept = held();
        let Err(OpenError::Failed(refused)) = open_and_count(dir.path()) else { panic!("opened what is in use") };
        assert!(refused.to_string().contains("is in use"), "{refused}");
        drop(kept);
        assert_eq!(open_and_count(dir.path()).expect("opens again"), first + 2);
    }
}
