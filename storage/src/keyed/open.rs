//! Opening sled so that what it says is durable is, and so that a damaged store costs a rebuild and nothing else.
//!
//! sled 0.34.7 as it ships loses acknowledged data at a power cut: it does not wait for the disk (see [`super::durable`]), the names
//! of its files are not synced, and half-written `snap.*.generating` files make the next start panic. Hence
//! [`sync_names`] at the opening, a sync by a descriptor of our own after every flush, and the removal of what was half written.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::KeyedError;
use super::durable::calls;
use super::engine::{Engine, is_corruption};
use crate::disk::{Disk, DiskFile, RealDisk, RealFile, create_dir_synced};

/// Sizes of the keyed store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyedOptions {
    /// Nominal size of sled's cache. The memory that it takes is several times as large.
    pub cache_bytes: u64,
}

impl Default for KeyedOptions {
    fn default() -> Self {
        Self { cache_bytes: 8 * 1024 * 1024 }
    }
}

impl KeyedOptions {
    /// Checks the values.
    pub fn validate(&self) -> Result<(), KeyedError> {
        if !(1 << 20..=1 << 30).contains(&self.cache_bytes) {
            return Err(KeyedError::Fault(format!("cache_bytes is {}, expected 2^20..=2^30", self.cache_bytes)));
        }
        Ok(())
    }
}

/// An opened store.
pub(super) struct OpenStore {
    pub engine: Engine,
    pub db: sled::Db,
    /// sled's data file, for syncing.
    pub file: RealFile,
    /// Where an unusable store was put.
    pub set_aside: Option<PathBuf>,
}

fn fault(path: &Path) -> impl FnOnce(std::io::Error) -> KeyedError + '_ {
    move |error| KeyedError::Fault(format!("{}: {error}", path.display()))
}

/// Present beside a store that turned out to be damaged while it was used.
fn marker(dir: &Path) -> PathBuf {
    with_suffix(dir, ".damaged")
}

fn with_suffix(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Notes that the store in `dir` is damaged, so that the next start sets it aside.
pub(super) fn mark_damaged(dir: &Path) {
    let path = marker(dir);
    let marked = RealDisk.exists(&path).and_then(|exists| {
        if !exists {
            RealDisk.create(&path)?;
        }
        path.parent().map_or(Ok(()), |parent| RealDisk.sync_dir(parent))
    });
    if let Err(error) = marked {
        tracing::error!(path = %path.display(), %error, "cannot note that the keyed store is damaged");
    }
}

enum Attempt {
    Open(Box<OpenStore>),
    /// The content is damaged: rebuilding helps.
    Unusable(String),
    /// The disk failed: rebuilding does not help.
    Failed(KeyedError),
}

/// Opens the store in `dir`, created if absent. A store that cannot be opened because of its content is set aside.
pub(super) fn open(dir: &Path, options: KeyedOptions) -> Result<OpenStore, KeyedError> {
    options.validate()?;
    let reason = if RealDisk.exists(&marker(dir)).map_err(fault(dir))? {
        "it was found to be damaged before".to_owned()
    } else {
        match attempt(dir, options) {
            Attempt::Open(store) => return Ok(*store),
            Attempt::Failed(error) => return Err(error),
            Attempt::Unusable(reason) => reason,
        }
    };
    let aside = set_aside(dir).map_err(fault(dir))?;
    tracing::error!(dir = %dir.display(), aside = %aside.display(), reason, "keyed store is unusable and was set aside; its groups are rebuilt from their peers");
    match attempt(dir, options) {
        Attempt::Open(mut store) => {
            store.set_aside = Some(aside);
            Ok(*store)
        }
        Attempt::Failed(error) => Err(error),
        Attempt::Unusable(reason) => Err(KeyedError::Fault(format!("a fresh store cannot be opened: {reason}"))),
    }
}

/// Renames an unusable store to the first free `….unusable-N`. Nothing is ever deleted.
fn set_aside(dir: &Path) -> std::io::Result<PathBuf> {
    let mut number = 1;
    let aside = loop {
        let aside = with_suffix(dir, &format!(".unusable-{number}"));
        if !RealDisk.exists(&aside)? {
            break aside;
        }
        number += 1;
    };
    if RealDisk.exists(dir)? {
        RealDisk.rename(dir, &aside)?;
    }
    if RealDisk.exists(&marker(dir))? {
        RealDisk.remove(&marker(dir))?;
    }
    dir.parent().map_or(Ok(()), |parent| RealDisk.sync_dir(parent))?;
    Ok(aside)
}

fn attempt(dir: &Path, options: KeyedOptions) -> Attempt {
    match prepare(dir) {
        Ok(()) => {}
        Err(error) => return Attempt::Failed(fault(dir)(error)),
    }
    let calls_before = calls();
    let config =
        sled::Config::new().path(dir).flush_every_ms(None).cache_capacity(options.cache_bytes).print_profile_on_drop(false);
    // sled panics on some damage.
    let db = match catch_unwind(AssertUnwindSafe(|| config.open())) {
        Ok(Ok(db)) => db,
        Ok(Err(error)) if is_unusable(&error) => return Attempt::Unusable(error.to_string()),
        Ok(Err(error)) => return Attempt::Failed(error.into()),
        Err(_) => return Attempt::Unusable("the engine panicked".to_owned()),
    };
    let tree = (*db).clone();
    let engine = match catch_unwind(AssertUnwindSafe(|| Engine::new(tree))) {
        Ok(Ok(engine)) => engine,
        Ok(Err(KeyedError::Fault(reason))) if reason.starts_with("damaged: ") => return Attempt::Unusable(reason),
        Ok(Err(error)) => return Attempt::Failed(error),
        Err(_) => return Attempt::Unusable("the engine panicked".to_owned()),
    };
    let synced = engine.count_opening().and_then(|()| Ok(db.flush()?)).and_then(|_| {
        if cfg!(target_os = "linux") && calls() == calls_before {
            return Err(KeyedError::Fault("the engine does not wait for the disk in this build".to_owned()));
        }
        let mut file = RealDisk.open(&dir.join("db")).map_err(fault(dir))?;
        file.sync_data().map_err(fault(dir))?;
        sync_names(dir).map_err(fault(dir))?;
        Ok(file)
    });
    match synced {
        Ok(file) => Attempt::Open(Box::new(OpenStore { engine, db, file, set_aside: None })),
        Err(error) => Attempt::Failed(error),
    }
}

fn is_unusable(error: &sled::Error) -> bool {
    match error {
        sled::Error::Io(error) => matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof),
        sled::Error::ReportableBug(_) => true,
        error => is_corruption(error),
    }
}

fn prepare(dir: &Path) -> std::io::Result<()> {
    create_dir_synced(&RealDisk, dir)?;
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
    let conf = dir.join("conf");
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
pub(super) fn sync_blobs(dir: &Path) -> std::io::Result<()> {
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
