//! Opening the keyed store with the engine that its folder has, so that a damaged store costs a rebuild and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::engine::Engine;
use super::map::{Durable, Map, OpenError, damaged};
use super::redb_map::RedbOptions;
use super::{KeyedError, redb_map, sled_map};
use crate::disk::{Disk, RealDisk, create_dir_synced};

/// What keeps the keyed store on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyedEngine {
    /// redb: its memory does not grow with what is stored.
    #[default]
    Redb,
    /// sled: keeps an entry in memory for each of its pages.
    Sled,
}

impl KeyedEngine {
    /// Every engine.
    pub const ALL: [Self; 2] = [Self::Redb, Self::Sled];

    /// Its name in configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redb => "redb",
            Self::Sled => "sled",
        }
    }

    /// The engine of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|engine| engine.name() == name)
    }
}

impl std::fmt::Display for KeyedEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Engine and sizes of the keyed store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyedOptions {
    /// Size of the engine's cache. What sled takes is several times as large.
    pub cache_bytes: u64,
    /// The engine of a new store. One that exists keeps its own.
    pub engine: KeyedEngine,
}

impl Default for KeyedOptions {
    fn default() -> Self {
        Self { cache_bytes: 8 * 1024 * 1024, engine: KeyedEngine::default() }
    }
}

impl KeyedOptions {
    /// Checks the values.
    pub fn validate(&self) -> Result<(), KeyedError> {
        if !(1 << 20..=1 << 32).contains(&self.cache_bytes) {
            return Err(KeyedError::Fault(format!("cache_bytes is {}, expected 2^20..=2^32", self.cache_bytes)));
        }
        Ok(())
    }
}

/// An opened store.
pub(super) struct OpenStore {
    pub engine: Engine,
    pub durable: Box<dyn Durable>,
    /// Where an unusable store was put.
    pub set_aside: Option<PathBuf>,
}

pub(super) fn fault(path: &Path) -> impl FnOnce(std::io::Error) -> KeyedError + '_ {
    move |error| KeyedError::Fault(format!("{}: {error}", path.display()))
}

/// A file beside the store that tells the next start of what was found while it was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The content is damaged: the store is set aside.
    Damaged,
    /// The engine panicked, on damage or not: every page is verified first, where the engine can.
    Suspect,
}

impl Mark {
    fn path(self, dir: &Path) -> PathBuf {
        with_suffix(
            dir,
            match self {
                Self::Damaged => ".damaged",
                Self::Suspect => ".suspect",
            },
        )
    }

    fn is_there(self, dir: &Path) -> std::io::Result<bool> {
        RealDisk.exists(&self.path(dir))
    }

    /// Leaves the mark for the next start.
    pub fn leave(self, dir: &Path) {
        let path = self.path(dir);
        let marked = RealDisk.exists(&path).and_then(|exists| {
            if !exists {
                RealDisk.create(&path)?;
            }
            path.parent().map_or(Ok(()), |parent| RealDisk.sync_dir(parent))
        });
        if let Err(error) = marked {
            tracing::error!(path = %path.display(), %error, "cannot note what was found in the keyed store");
        }
    }

    fn remove(self, dir: &Path) -> std::io::Result<()> {
        if self.is_there(dir)? { RealDisk.remove(&self.path(dir)) } else { Ok(()) }
    }
}

fn with_suffix(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Opens the store in `dir`, created if absent. A store that cannot be opened because of its content is set aside.
pub(super) fn open(dir: &Path, options: KeyedOptions) -> Result<OpenStore, KeyedError> {
    options.validate()?;
    let reason = if Mark::Damaged.is_there(dir).map_err(fault(dir))? {
        "it was found to be damaged before".to_owned()
    } else {
        let verify = Mark::Suspect.is_there(dir).map_err(fault(dir))?;
        match attempt(dir, options, verify) {
            Ok(store) => {
                Mark::Suspect.remove(dir).map_err(fault(dir))?;
                return Ok(store);
            }
            Err(OpenError::Failed(error)) => return Err(error),
            Err(OpenError::Unusable(reason)) => reason,
        }
    };
    let aside = set_aside(dir).map_err(fault(dir))?;
    tracing::error!(dir = %dir.display(), aside = %aside.display(), reason, "keyed store is unusable and was set aside; its groups are rebuilt from their peers");
    match attempt(dir, options, false) {
        Ok(store) => Ok(OpenStore { set_aside: Some(aside), ..store }),
        Err(OpenError::Failed(error)) => Err(error),
        Err(OpenError::Unusable(reason)) => Err(KeyedError::Fault(format!("a fresh store cannot be opened: {reason}"))),
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
    Mark::Damaged.remove(dir)?;
    Mark::Suspect.remove(dir)?;
    dir.parent().map_or(Ok(()), |parent| RealDisk.sync_dir(parent))?;
    Ok(aside)
}

/// The engine whose files are in the folder.
fn engine_of(dir: &Path) -> Result<Option<KeyedEngine>, KeyedError> {
    let has = |name: &str| RealDisk.exists(&dir.join(name)).map_err(fault(dir));
    let is_sled = has(sled_map::DATA_FILE)? || has(sled_map::CONF_FILE)?;
    match (has(redb_map::DATA_FILE)?, is_sled) {
        (true, true) => {
            Err(KeyedError::Fault(format!("{} holds a store of redb and one of sled, expected one of them", dir.display())))
        }
        (true, false) => Ok(Some(KeyedEngine::Redb)),
        (false, true) => Ok(Some(KeyedEngine::Sled)),
        (false, false) => Ok(None),
    }
}

fn attempt(dir: &Path, options: KeyedOptions, verify: bool) -> Result<OpenStore, OpenError> {
    create_dir_synced(&RealDisk, dir).map_err(fault(dir))?;
    let found = engine_of(dir)?;
    let engine = found.unwrap_or(options.engine);
    if engine != options.engine {
        tracing::warn!(dir = %dir.display(), engine = %engine, configured = %options.engine, "keyed store keeps the engine that made it");
    }
    let (map, mut durable): (Box<dyn Map>, Box<dyn Durable>) = match engine {
        KeyedEngine::Redb => {
            let options = RedbOptions { cache_bytes: options.cache_bytes, verify };
            let (map, durable) = redb_map::open(&RealDisk, dir, options)?;
            (Box::new(map), Box::new(durable))
        }
        KeyedEngine::Sled => {
            let (map, durable) = sled_map::open(dir, options.cache_bytes)?;
            (Box::new(map), Box::new(durable))
        }
    };
    let engine = start(map, &mut *durable)?;
    Ok(OpenStore { engine, durable, set_aside: None })
}

/// What every opening does with its map. What was found may never have been synced, as when the process died between write and sync: it
/// is made durable before anybody hears of it.
pub(super) fn start(map: Box<dyn Map>, durable: &mut dyn Durable) -> Result<Engine, OpenError> {
    // Engines panic on some damage.
    let started = catch_unwind(AssertUnwindSafe(|| {
        let mut engine = Engine::new(map)?;
        durable.sync()?;
        engine.commit()?;
        Ok(engine)
    }));
    started.unwrap_or_else(|_| Err(damaged("the engine panicked"))).map_err(OpenError::from)
}
