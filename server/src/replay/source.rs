//! A node's data folder as something to replay from: which region it has, where to begin, what the log holds.
//!
//! Nothing is written, synced or locked, so the node may run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use marchland_proto::storage::CheckpointHeader;
use marchland_region_core::{Game, Region};
use marchland_storage::checkpoint::{CheckpointInfo, Checkpoints};
use marchland_storage::disk::ReadOnlyDisk;
use marchland_storage::folder::{FolderError, FolderOwner, checkpoints_dir, log_dir};
use marchland_storage::log::{self, History};
use marchland_types::{GroupId, GroupKind, LogIndex};
use prost::Message;

/// The format of a region's checkpoint header that this build reads.
const HEADER_FORMAT: u32 = 1;

/// A folder, opened.
pub(super) struct Source {
    pub folder: PathBuf,
    pub owner: FolderOwner,
    pub group: GroupId,
    pub history: History<ReadOnlyDisk>,
    /// Checkpoints by the last entry that they hold.
    pub checkpoints: BTreeMap<LogIndex, Stored>,
    /// Checkpoints that are not readable.
    pub damage: Vec<String>,
    reader: Checkpoints<ReadOnlyDisk>,
}

/// A checkpoint whose header was read.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub info: CheckpointInfo,
    pub header: CheckpointHeader,
}

/// Where a replay begins.
#[derive(Clone, Debug)]
pub(super) enum Start {
    /// Before the world was made.
    Nothing,
    /// After the entries that a checkpoint holds.
    Checkpoint(Box<Stored>),
}

impl Start {
    /// The first entry that is applied.
    pub fn first(&self) -> LogIndex {
        match self {
            Self::Nothing => LogIndex(0),
            Self::Checkpoint(stored) => stored.info.position.index.next(),
        }
    }

    /// The tick that is there before it.
    pub fn tick(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Checkpoint(stored) => stored.header.tick,
        }
    }
}

/// The data folder that `path` is, or that lies in it.
fn locate(path: &Path) -> anyhow::Result<(PathBuf, FolderOwner)> {
    ensure!(path.is_dir(), "{} is no folder", path.display());
    for folder in [path.to_owned(), path.join("data")] {
        match FolderOwner::read(&ReadOnlyDisk, &folder) {
            Ok(owner) => return Ok((folder, owner)),
            Err(FolderError::Absent { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if path.join("cluster.toml").is_file() {
        bail!(
            "{} is the folder of a cluster, with a folder for each node: name one of them, for example --data {}",
            path.display(),
            path.join("node-1").display()
        );
    }
    Err(FolderError::Absent { path: path.to_owned() }.into())
}

impl Source {
    /// Opens what a folder has of a region.
    pub fn open(path: &Path, region: u32) -> anyhow::Result<Self> {
        let disk = ReadOnlyDisk;
        let (folder, owner) = locate(path)?;
        let (log, states) = (log_dir(&folder), checkpoints_dir(&folder));
        ensure!(log.is_dir(), "data folder {} is incomplete: it has no log", folder.display());
        ensure!(states.is_dir(), "data folder {} is incomplete: it has no checkpoints", folder.display());
        let reader = Checkpoints::looked_at(disk, &states);
        let infos = reader.list()?;
        let is_region = |group: &GroupId| group.kind() == Some(GroupKind::Region);
        let mut groups: BTreeSet<GroupId> = infos.iter().map(|info| info.group).filter(is_region).collect();
        if !groups.iter().any(|group| group.serial() == region) {
            // A young region has no checkpoint yet.
            groups.extend(log::groups(&disk, &log)?.iter().filter(|group| is_region(group)));
        }
        let Some(group) = groups.iter().copied().find(|group| group.serial() == region) else {
            let known: Vec<String> = groups.iter().map(|group| group.serial().to_string()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            bail!("data folder {} has nothing of region {region}; regions that it has: {known}", folder.display());
        };
        let mut source = Self {
            history: History::read(&disk, &log, group)?,
            folder,
            owner,
            group,
            checkpoints: BTreeMap::new(),
            damage: Vec::new(),
            reader,
        };
        source.damage.extend(source.history.damage().iter().map(ToString::to_string));
        for info in infos.into_iter().filter(|info| info.group == group) {
            // A checkpoint holds what is committed, and nothing else.
            source.history.know_committed(info.position.index);
            match source.header(&info) {
                Ok(header) => {
                    source.checkpoints.insert(info.position.index, Stored { info, header });
                }
                // The node that runs has let go of it.
                Err(_) if !info.path.exists() => {}
                Err(error) => source.damage.push(format!("{error:#}")),
            }
        }
        Ok(source)
    }

    fn header(&self, info: &CheckpointInfo) -> anyhow::Result<CheckpointHeader> {
        let reader = self.reader.read(info)?;
        let header = CheckpointHeader::decode(reader.header().meta.clone())
            .with_context(|| format!("checkpoint {} has a damaged header", info.path.display()))?;
        ensure!(
            header.format == HEADER_FORMAT,
            "checkpoint {} has header format {}, this build reads {HEADER_FORMAT}",
            info.path.display(),
            header.format
        );
        Ok(header)
    }

    /// Refuses a checkpoint that was made by rules or content that this build does not have.
    pub fn check_rules<G: Game>(&self, stored: &Stored, game: &G) -> anyhow::Result<()> {
        let (rules, content) = (stored.header.rules_version, stored.header.content_hash);
        ensure!(
            (rules, content) == (game.rules_version(), game.content_hash()),
            "checkpoint {} was made by rules {rules} with content {content:#018x}; this build has rules {} with content {:#018x} and \
             can not replay it: take the build that ran (version {})",
            stored.info.path.display(),
            game.rules_version(),
            game.content_hash(),
            stored.header.build
        );
        Ok(())
    }

    fn decode<G: Game>(&self, stored: &Stored, game: &Arc<G>) -> anyhow::Result<Region<G>> {
        let body = self.reader.read(&stored.info)?.body()?.concat();
        Region::decode(game.clone(), &body).with_context(|| format!("checkpoint {}", stored.info.path.display()))
    }

    /// The state in a checkpoint. Refused when it is not what its header says.
    pub fn load<G: Game>(&self, stored: &Stored, game: &Arc<G>) -> anyhow::Result<Region<G>> {
        let region = self.decode(stored, game)?;
        ensure!(
            region.state_hash() == stored.header.state_hash,
            "checkpoint {} is not the state that it says it is: hash {:#018x}, recorded {:#018x}",
            stored.info.path.display(),
            region.state_hash(),
            stored.header.state_hash
        );
        Ok(region)
    }

    /// Reads a checkpoint to its end, and notes it if it is damaged.
    pub fn check(&mut self, stored: &Stored) {
        match self.reader.read(&stored.info).and_then(|reader| reader.body()) {
            Ok(_) => {}
            // The node that runs has let go of it.
            Err(_) if !stored.info.path.exists() => {}
            Err(error) => self.damage.push(error.to_string()),
        }
    }

    /// Every part of the state in a checkpoint with its hash.
    pub fn components<G: Game>(&self, stored: &Stored, game: &Arc<G>) -> anyhow::Result<Vec<(&'static str, u64)>> {
        Ok(self.decode(stored, game)?.component_hashes())
    }

    /// Where replays can begin, the earliest first: only where the log goes on.
    pub fn starts(&self) -> Vec<Start> {
        let runs = self.history.runs();
        let mut starts = Vec::new();
        if runs.first().is_some_and(|run| *run.start() == LogIndex(0)) {
            starts.push(Start::Nothing);
        }
        for (index, stored) in &self.checkpoints {
            if runs.iter().any(|run| run.contains(&index.next())) {
                starts.push(Start::Checkpoint(Box::new(stored.clone())));
            }
        }
        starts
    }

    /// The start from which `from` is reached, or without it, the earliest from which the end is.
    pub fn start(&self, from: Option<u64>) -> anyhow::Result<Start> {
        let starts = self.starts();
        let Some(earliest) = starts.first() else {
            let damage = self.damage.first().map_or_else(String::new, |damage| format!(": {damage}"));
            bail!("data folder {} has no checkpoint of {} from which its log goes on{damage}", self.folder.display(), self.group);
        };
        let Some(from) = from else {
            let last_run = self.history.runs().last().map_or(LogIndex(0), |run| *run.start());
            let reaches_end = starts.iter().find(|start| start.first() >= last_run);
            return Ok(reaches_end.unwrap_or(earliest).clone());
        };
        // The newest from which it is reached without a gap; the last entry of a tick before it is enough.
        let found = starts.iter().rev().find(|start| start.tick() < from);
        found.cloned().with_context(|| {
            format!(
                "tick {from} can not be reached: the earliest that can be is {}, for there the oldest checkpoint is from which the log goes on",
                earliest.tick() + 1
            )
        })
    }

    /// The first tick that can be reached behind a gap.
    pub fn reached_behind(&self, gap: LogIndex) -> Option<u64> {
        self.starts().iter().find(|start| start.first() > gap).map(|start| start.tick() + 1)
    }
}
