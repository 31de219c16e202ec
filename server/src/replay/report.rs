//! What replaying one entry showed, in the form in which it is printed.

use marchland_region_core::Holder;
use serde::{Serialize, Serializer};

/// A 64-bit hash; `0x` and sixteen digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hash(pub u64);

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An applied entry.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct EntryReport {
    /// Index in the log.
    pub entry: u64,
    /// The term in which it was proposed.
    pub term: u64,
    /// What kind it is.
    pub kind: &'static str,
    /// The tick that ran.
    pub tick: Option<u64>,
    /// Region time after it.
    pub now_ms: u64,
    /// Hash of the state after it.
    pub hash: Option<Hash>,
    /// What the cluster recorded of that tick, if it did.
    pub recorded: Option<Hash>,
    /// Movement inputs in the entry.
    pub moves: usize,
    /// Commands in the entry.
    pub commands_sent: usize,
    /// Entities that moved.
    pub moved: usize,
    /// Commands that were taken.
    pub commands: Vec<CommandReport>,
    /// What other handlers did.
    pub deeds: Vec<DeedReport>,
    /// Clients that came, were refused, or went.
    pub sessions: Vec<SessionReport>,
    /// Entities that came into the world.
    pub appeared: Vec<EntityReport>,
    /// Entities whose looks changed.
    pub changed: Vec<EntityReport>,
    /// Entities that left the world.
    pub vanished: Vec<EntityReport>,
    /// Replies and events to sessions.
    pub replies: usize,
    /// Events to areas.
    pub area_events: usize,
    /// Cuts that were taken.
    pub cuts: Vec<u64>,
    /// Movement of the entity that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<PositionReport>,
}

impl EntryReport {
    /// Whether anything in it is worth a line of its own, beyond counts.
    pub fn has_events(&self) -> bool {
        !(self.commands.is_empty()
            && self.deeds.is_empty()
            && self.sessions.is_empty()
            && self.appeared.is_empty()
            && self.changed.is_empty()
            && self.vanished.is_empty()
            && self.cuts.is_empty()
            && self.position.is_none())
    }
}

/// A command that was taken.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CommandReport {
    /// Who gave it.
    pub character: u64,
    /// Its entity.
    pub entity: u64,
    /// Its name.
    pub name: String,
    /// The client's number.
    pub seq: u64,
    /// The game's code.
    pub action: u32,
    /// In words.
    pub what: String,
    /// Stable code of the answer.
    pub code: u32,
    /// In words.
    pub answer: String,
    /// Items that changed hands.
    pub items: Vec<ItemReport>,
}

/// What another handler did.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DeedReport {
    /// Which.
    pub handler: String,
    /// `done`, `refused` or `panicked`.
    pub outcome: &'static str,
    /// The entity that it is about, if any.
    pub entity: Option<u64>,
    /// Items that changed hands.
    pub items: Vec<ItemReport>,
}

/// An item that changed hands.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ItemReport {
    /// Which.
    pub item: u64,
    /// The game's kind.
    pub kind: u32,
    /// Who held it.
    pub from: HolderReport,
    /// Who holds it.
    pub to: HolderReport,
}

/// Who holds an item.
#[derive(Clone, Debug, Serialize)]
pub(super) struct HolderReport {
    /// The entity, if it is one in the world.
    pub entity: Option<u64>,
    /// The character, if it is one that is not in the world.
    pub dormant: Option<u64>,
    /// In words.
    pub name: String,
}

impl HolderReport {
    pub fn of(holder: Holder, name: impl FnOnce(u64) -> String) -> Self {
        match holder {
            Holder::Nobody => Self { entity: None, dormant: None, name: "nobody".into() },
            Holder::Entity(entity) => Self { entity: Some(entity.0), dormant: None, name: name(entity.0) },
            Holder::Dormant(character) => {
                Self { entity: None, dormant: Some(character.0), name: format!("character {character}, not in the world") }
            }
        }
    }
}

/// A client that came, was refused, or went.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SessionReport {
    /// Whose.
    pub character: u64,
    /// In which sign-in.
    pub epoch: u64,
    /// Which connection.
    pub attach: u32,
    /// `attached`, `refused` or `ended`.
    pub what: &'static str,
    /// Stable code.
    pub code: u32,
    /// Its name.
    pub why: String,
}

/// An entity that came, changed or went.
#[derive(Clone, Debug, Serialize)]
pub(super) struct EntityReport {
    /// Its id.
    pub entity: u64,
    /// Its name, or what kind it is of.
    pub name: String,
}

/// The way of one entity in one tick.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PositionReport {
    /// Which.
    pub entity: u64,
    /// East, up, south, in metres, before.
    pub from: Option<[f32; 3]>,
    /// And after; none when it is not in the world.
    pub to: Option<[f32; 3]>,
    /// Movement inputs that came for it.
    pub inputs: Vec<MoveReport>,
}

/// A movement input.
#[derive(Clone, Debug, Serialize)]
pub(super) struct MoveReport {
    /// The client's number.
    pub seq: u64,
    /// East.
    pub x: f32,
    /// South.
    pub z: f32,
    /// For how long.
    pub duration_ms: u32,
}

/// State hashes that differ.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Mismatch {
    /// After which tick.
    pub tick: u64,
    /// What the cluster recorded.
    pub recorded: Hash,
    /// What replaying came to.
    pub replayed: Hash,
    /// Where it was recorded.
    pub recorded_in: String,
    /// The first part of the state that differs, and where that was compared; known only at a checkpoint.
    pub component: Option<String>,
}

/// How a replay ended.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Summary {
    /// Every recorded hash agrees, nothing is damaged or absent.
    pub agrees: bool,
    /// Ticks that were replayed, those before the first one asked for included.
    pub ticks: u64,
    /// The first of them.
    pub first_tick: Option<u64>,
    /// The last of them.
    pub last_tick: Option<u64>,
    /// Entries that were replayed.
    pub entries: u64,
    /// Recorded hashes of ticks that were compared.
    pub hashes_compared: u64,
    /// Of those, how many agree.
    pub hashes_equal: u64,
    /// Ticks of which no hash of their own was recorded; the next recorded one covers them.
    pub ticks_not_recorded: u64,
    /// Checkpoints that were passed and compared.
    pub checkpoints_compared: u64,
    /// Where the item that is asked for is at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// Entries behind the end that are not known to be committed here.
    pub undecided: usize,
    /// World time that was replayed, in seconds.
    pub world_s: f64,
    /// How long it took, in seconds.
    pub wall_s: f64,
    /// World time by wall time.
    pub speed: f64,
    /// The first difference.
    pub mismatch: Option<Mismatch>,
    /// What is damaged or absent in the folder, whether or not it was needed.
    pub damage: Vec<String>,
    /// Why the replay could not go on.
    pub error: Option<String>,
}
