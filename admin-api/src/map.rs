//! `marchland admin map`: which ground each region of a world has, and how borders between them are moved.
//!
//! The directory keeps the map. An order to change it is given to whoever leads the directory, again until its outcome is known; then
//! every region is told, and the answer waits until all of them go by the new map. A region that can not be told yet does so later: the
//! change stands.
//!
//! A world keeps its regions and its ground. What changes is which of them has which part of it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use marchland_proto::cluster::{ChangeMapReply, ChangeMapRequest};
use marchland_proto::codes::Code;
use marchland_proto::storage::Neighbour;
use marchland_types::{GroupId, GroupKind, RegionId};
use serde::{Deserialize, Serialize};

use crate::client::{AdminCluster, AdminNode, CallError};

/// Most regions of a map.
pub const MAP_REGIONS_MAX: usize = 4096;
/// Largest file with a map, in bytes: one of as many regions as there may be, as it is printed, takes a third of it.
pub const MAP_FILE_MAX_BYTES: u64 = 2 * 1024 * 1024;
/// How often an order is given before that is an error: as long as an election takes, and then some.
const ATTEMPTS: usize = 40;
const PAUSE: Duration = Duration::from_millis(250);

/// A region's ground: `min ≤ v < max` on both axes, in metres. `x` grows east, `z` grows south.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegionGround {
    /// The region's number.
    pub region: u32,
    /// Its west edge.
    pub min_x: f32,
    /// Its north edge.
    pub min_z: f32,
    /// Its east edge.
    pub max_x: f32,
    /// Its south edge.
    pub max_z: f32,
}

/// A world's region map: the document that `--json` prints and `--change` reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorldMap {
    /// Its epoch, raised by every change. Of a map that is to be: the epoch of the one that it was made from.
    pub epoch: u64,
    /// Regions that have not taken it yet. Means nothing in a map that is to be.
    #[serde(default)]
    pub waiting: u32,
    /// Every region, in the order of their numbers.
    pub regions: Vec<RegionGround>,
}

/// Why there is no map, or why it was not changed. Unless it says otherwise, nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// There is nobody to ask.
    #[error("no node that answers has a directory")]
    NoDirectory,
    /// A node refuses this caller.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Nobody leads the directory, or it can not answer.
    #[error("{group} has no leader that answers: {reason}")]
    NoLeader {
        /// The directory.
        group: GroupId,
        /// What was heard last.
        reason: String,
    },
    /// The directory does not take this map.
    #[error("{group} refuses: {reason}")]
    Refused {
        /// The directory.
        group: GroupId,
        /// Why.
        reason: String,
    },
    /// The map may or may not have been changed.
    #[error("outcome unknown, look at `map`: {0}")]
    Unknown(String),
    /// Somebody else changed the map since this one was made.
    #[error("this map was made from epoch {from}, but epoch {in_force} is in force: make it anew")]
    Stale {
        /// The epoch that it was made from.
        from: u64,
        /// The epoch in force.
        in_force: u64,
    },
    /// The map was changed, and then changed again by somebody else.
    #[error("the map was changed, epoch {epoch}, but somebody changed it again: epoch {in_force} is in force")]
    Overtaken {
        /// The epoch of this change.
        epoch: u64,
        /// The epoch in force.
        in_force: u64,
    },
    /// A region that the world does not have.
    #[error("the world has no region {0}")]
    NoRegion(RegionId),
    /// A region of the world that the new map leaves out.
    #[error("the new map lacks region {0}: a world keeps its regions")]
    Missing(RegionId),
    /// A region that is on a map more than once.
    #[error("region {0} is on the map twice")]
    Twice(RegionId),
    /// Edges that are not numbers, or enclose nothing.
    #[error("region {0} would have no ground")]
    NoGround(RegionId),
    /// Regions without a border that can be moved.
    #[error("regions {0} and {1} do not share a whole edge")]
    NoBorder(RegionId, RegionId),
    /// A distance that is none.
    #[error("a border can not be moved by {0} m")]
    NoDistance(f32),
    /// A file could not be read.
    #[error("can not read {path}: {error}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not what `map --json` prints.
    #[error("{path} is not a map: {reason}")]
    NotMapFile {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl RegionGround {
    fn check(&self) -> Result<(), MapError> {
        let finite = [self.min_x, self.min_z, self.max_x, self.max_z].iter().all(|v| v.is_finite());
        let encloses = self.min_x < self.max_x && self.min_z < self.max_z;
        if finite && encloses { Ok(()) } else { Err(MapError::NoGround(RegionId(self.region))) }
    }

    /// As the directory keeps it.
    fn record(&self, group: u64) -> Neighbour {
        let Self { region, min_x, min_z, max_x, max_z } = *self;
        Neighbour { region, group, min_x, min_z, max_x, max_z }
    }
}

impl From<&Neighbour> for RegionGround {
    fn from(n: &Neighbour) -> Self {
        Self { region: n.region, min_x: n.min_x, min_z: n.min_z, max_x: n.max_x, max_z: n.max_z }
    }
}

impl From<&ChangeMapReply> for WorldMap {
    fn from(reply: &ChangeMapReply) -> Self {
        Self { epoch: reply.map_epoch, waiting: reply.waiting, regions: sorted(reply.map.iter().map(RegionGround::from)) }
    }
}

impl WorldMap {
    /// From a file as `map --json` prints it, of at most [`MAP_FILE_MAX_BYTES`].
    ///
    /// # Errors
    /// It can not be read, or holds something else; regions of it are there twice, or enclose nothing.
    pub fn from_file(path: &Path) -> Result<Self, MapError> {
        let mut text = Vec::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(MAP_FILE_MAX_BYTES + 1).read_to_end(&mut text));
        read.map_err(|error| MapError::Unreadable { path: path.to_owned(), error })?;
        let no_map = |reason: String| MapError::NotMapFile { path: path.to_owned(), reason };
        if text.len() as u64 > MAP_FILE_MAX_BYTES {
            return Err(no_map(format!("it has more than {MAP_FILE_MAX_BYTES} bytes")));
        }
        let mut map: Self = serde_json::from_slice(&text).map_err(|error| no_map(error.to_string()))?;
        map.regions = sorted(map.regions);
        map.check()?;
        Ok(map)
    }

    /// Checks what can be checked without the map in force; regions may be in any order.
    fn check(&self) -> Result<(), MapError> {
        self.regions.iter().try_for_each(RegionGround::check)?;
        let regions = sorted(self.regions.iter().copied());
        match regions.windows(2).find(|pair| pair[0].region == pair[1].region) {
            Some(pair) => Err(MapError::Twice(RegionId(pair[0].region))),
            None => Ok(()),
        }
    }

    fn find(&self, region: RegionId) -> Result<&RegionGround, MapError> {
        self.regions.iter().find(|ground| ground.region == region.0).ok_or(MapError::NoRegion(region))
    }
}

fn sorted(regions: impl IntoIterator<Item = RegionGround>) -> Vec<RegionGround> {
    let mut regions: Vec<_> = regions.into_iter().collect();
    regions.sort_by_key(|ground| ground.region);
    regions
}

/// The map in force.
///
/// # Errors
/// Nobody leads the directory for some ten seconds, or a node refuses this caller.
pub async fn world_map(cluster: &AdminCluster) -> Result<WorldMap, MapError> {
    Ok(WorldMap::from(&Directory::find(cluster).await?.ask(ATTEMPTS).await?))
}

/// Gives a world's regions the ground that `map` says, if its epoch is the one in force, and waits for at most `within` until all of them
/// go by it; `waits` is told how many do not yet. Nothing is ordered when the map in force is this very one: that is waited for.
///
/// Returns the new map. If its `waiting` is not 0, that many regions had not taken it in time; they will.
///
/// # Errors
/// Nothing was done, or [`MapError::Unknown`] or [`MapError::Overtaken`].
pub async fn change_map(
    cluster: &AdminCluster,
    map: &WorldMap,
    within: Duration,
    mut waits: impl FnMut(u32),
) -> Result<WorldMap, MapError> {
    map.check()?;
    let mut directory = Directory::find(cluster).await?;
    let in_force = directory.ask(ATTEMPTS).await?;
    let regions = sorted(map.regions.iter().copied());
    let (epoch, mut told) = if WorldMap::from(&in_force).regions == regions {
        (in_force.map_epoch, in_force)
    } else {
        let map = records(map, &in_force)?;
        let map_epoch = in_force.map_epoch.saturating_add(1);
        let request = ChangeMapRequest { group: directory.group.0, map_epoch, map };
        (map_epoch, directory.give(&request, ATTEMPTS).await?)
    };
    let mut waiting = told.waiting;
    let all_have_it = async {
        loop {
            if told.map_epoch > epoch {
                return Err(MapError::Overtaken { epoch, in_force: told.map_epoch });
            }
            waiting = told.waiting;
            waits(waiting);
            if waiting == 0 {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
            match directory.ask(1).await {
                Ok(reply) => told = reply,
                // It is asked again, and the change stands.
                Err(error) => tracing::debug!(%error, "the directory is asked again"),
            }
        }
    };
    match tokio::time::timeout(within, all_have_it).await {
        Ok(Err(overtaken)) => Err(overtaken),
        Ok(Ok(())) | Err(_) => Ok(WorldMap { epoch, waiting, regions }),
    }
}

/// The map with the border between two regions moved: by so many metres to the east or south, or to the west or north if it is negative.
/// It must be a whole edge of both.
///
/// # Errors
/// One of them is not on the map, would have no ground left, or has more or less in common with the other than one whole edge; or the
/// border would stay where it is.
pub fn move_border(map: &WorldMap, a: RegionId, b: RegionId, by_m: f32) -> Result<WorldMap, MapError> {
    if !by_m.is_finite() || by_m == 0.0 {
        return Err(MapError::NoDistance(by_m));
    }
    let (mut one, mut other) = (*map.find(a)?, *map.find(b)?);
    let beside = (one.min_z, one.max_z) == (other.min_z, other.max_z);
    let below = (one.min_x, one.max_x) == (other.min_x, other.max_x);
    let (high_edge, low_edge) = if beside && one.max_x == other.min_x {
        (&mut one.max_x, &mut other.min_x)
    } else if beside && other.max_x == one.min_x {
        (&mut other.max_x, &mut one.min_x)
    } else if below && one.max_z == other.min_z {
        (&mut one.max_z, &mut other.min_z)
    } else if below && other.max_z == one.min_z {
        (&mut other.max_z, &mut one.min_z)
    } else {
        return Err(MapError::NoBorder(a, b));
    };
    let border = *high_edge + by_m;
    // So far out, there is no number between the two.
    if border == *high_edge {
        return Err(MapError::NoDistance(by_m));
    }
    (*high_edge, *low_edge) = (border, border);
    one.check()?;
    other.check()?;
    let moved = |ground: &RegionGround| [one, other].into_iter().find(|new| new.region == ground.region).unwrap_or(*ground);
    Ok(WorldMap { epoch: map.epoch, waiting: map.waiting, regions: map.regions.iter().map(moved).collect() })
}

/// A new map as the directory takes it: its regions keep their groups.
fn records(map: &WorldMap, in_force: &ChangeMapReply) -> Result<Vec<Neighbour>, MapError> {
    if map.epoch != in_force.map_epoch {
        return Err(MapError::Stale { from: map.epoch, in_force: in_force.map_epoch });
    }
    let mut groups: BTreeMap<u32, u64> = in_force.map.iter().map(|n| (n.region, n.group)).collect();
    let record = |ground: &RegionGround| {
        let group = groups.remove(&ground.region).ok_or(MapError::NoRegion(RegionId(ground.region)))?;
        Ok(ground.record(group))
    };
    let records = map.regions.iter().map(record).collect::<Result<_, MapError>>()?;
    match groups.first_key_value() {
        Some((region, _)) => Err(MapError::Missing(RegionId(*region))),
        None => Ok(records),
    }
}

/// A world's directory, whoever leads it.
struct Directory<'a> {
    group: GroupId,
    nodes: &'a [AdminNode],
    /// Place of the node that was the leader when one was last found: it is asked first.
    leader: usize,
}

impl<'a> Directory<'a> {
    /// The directory, as any node knows it.
    async fn find(cluster: &'a AdminCluster) -> Result<Self, MapError> {
        let mut none = MapError::NoDirectory;
        for (leader, node) in cluster.nodes.iter().enumerate() {
            match node.status().await {
                Ok(status) => {
                    let mut groups = status.groups.iter().map(|group| GroupId(group.group));
                    if let Some(group) = groups.find(|group| group.kind() == Some(GroupKind::Directory)) {
                        return Ok(Self { group, nodes: &cluster.nodes, leader });
                    }
                }
                Err(error @ CallError::Refused { .. }) => none = error.into(),
                Err(CallError::NoAnswer { .. }) => {}
            }
        }
        Err(none)
    }

    /// The map in force.
    async fn ask(&mut self, attempts: usize) -> Result<ChangeMapReply, MapError> {
        self.give(&ChangeMapRequest { group: self.group.0, ..ChangeMapRequest::default() }, attempts).await
    }

    /// Gives an order to whoever leads, again until its outcome is known; the reply is that one's, and says that it is obeyed.
    async fn give(&mut self, request: &ChangeMapRequest, attempts: usize) -> Result<ChangeMapReply, MapError> {
        let group = self.group;
        // Whether it may have been obeyed, though nobody said so.
        let mut open = false;
        let mut reason = "nobody was asked".to_owned();
        for attempt in 0..attempts {
            if attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            for _ in self.nodes {
                let Some(node) = self.nodes.get(self.leader) else { break };
                match node.change_map(request.clone()).await {
                    Ok(reply) => match Code::from_u32(reply.code) {
                        Some(Code::Ok) => return Ok(reply),
                        Some(Code::NotLeader) => reason = reply.reason,
                        Some(Code::Unavailable) => (open, reason) = (true, reply.reason),
                        // With this epoch in force, it is another order that has it; with a later one, nobody knows.
                        _ if open && reply.map_epoch > request.map_epoch => return Err(unknown(request, reply.reason, group)),
                        _ => return Err(MapError::Refused { group, reason: reply.reason }),
                    },
                    Err(error @ CallError::Refused { .. }) if open => return Err(unknown(request, error.to_string(), group)),
                    Err(error @ CallError::Refused { .. }) => return Err(error.into()),
                    Err(error @ CallError::NoAnswer { .. }) => (open, reason) = (true, error.to_string()),
                }
                self.leader = (self.leader + 1) % self.nodes.len();
            }
        }
        Err(if open { unknown(request, reason, group) } else { MapError::NoLeader { group, reason } })
    }
}

/// A call without an answer: whoever only asked has changed nothing.
fn unknown(request: &ChangeMapRequest, reason: String, group: GroupId) -> MapError {
    if request.map_epoch == 0 { MapError::NoLeader { group, reason } } else { MapError::Unknown(reason) }
}
