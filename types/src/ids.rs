//! Newtypes for every id, index and count that could be taken for another one.
//!
//! All of them are plain integers on the wire. None is ever reused: an id that named one thing never names another.

use std::fmt;

macro_rules! newtype {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }

        impl $name {
            /// The next value. Panics on overflow, which at these widths means a corrupt counter.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("counter overflow"))
            }
        }
    };
}

newtype!(
    /// A node: one process with one data folder. Chosen by the operator, from 1.
    NodeId(u32)
);
newtype!(
    /// How often the data folder of a node was made anew. Part of [`ReplicaId`], so that a node that forgot its votes never
    /// speaks for the one that cast them. From 1.
    Incarnation(u32)
);
newtype!(
    /// A world within a realm. From 1.
    WorldId(u32)
);
newtype!(
    /// A region within a world. From 1.
    RegionId(u32)
);
newtype!(
    /// A raft term.
    Term(u64)
);
newtype!(
    /// An index in one group's raft log. The first entry has index 0 (the initial membership).
    LogIndex(u64)
);
newtype!(
    /// Number of a region's tick, assigned when the tick is applied. The first one is 1.
    Tick(u64)
);
newtype!(
    /// A player's character, unique in its world.
    CharacterId(u64)
);
newtype!(
    /// An entity, unique in its world: the region that minted it in the upper 32 bits, a counter below.
    EntityId(u64)
);
newtype!(
    /// A unique item, unique in its world: the region that minted it in the upper 32 bits, a counter below.
    ItemId(u64)
);
newtype!(
    /// Fencing number of a character's session, raised by the directory at every sign-in.
    SessionEpoch(u64)
);
newtype!(
    /// Counted up by a client at every attach within one session epoch, so that two edges can race.
    AttachNumber(u32)
);
newtype!(
    /// A client's number for one of its commands. The first one is 1; there are no gaps.
    CommandSeq(u64)
);
newtype!(
    /// Number of a reply or an event addressed to a session. The first one is 1; there are no gaps.
    ReplySeq(u64)
);
newtype!(
    /// Raised at every handoff of an entity; the higher number is the newer place.
    MoveNumber(u64)
);
newtype!(
    /// Number of a cut through a world. 0 is "before the first cut".
    CutNumber(u64)
);
newtype!(
    /// Version of a world's region map.
    MapEpoch(u64)
);

/// A replica's identity in raft: a node in one incarnation.
///
/// Packed as `node << 32 | incarnation`, which is also the id that raft sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u64);

impl ReplicaId {
    /// The replica of `node` in `incarnation`.
    #[must_use]
    pub const fn new(node: NodeId, incarnation: Incarnation) -> Self {
        Self(((node.0 as u64) << 32) | incarnation.0 as u64)
    }

    /// The node that this replica lives on.
    #[must_use]
    pub const fn node(self) -> NodeId {
        NodeId((self.0 >> 32) as u32)
    }

    /// The incarnation of the node's data folder.
    #[must_use]
    pub const fn incarnation(self) -> Incarnation {
        Incarnation(self.0 as u32)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node(), self.incarnation())
    }
}

/// What a raft group's state machine is. The discriminants are on disk and on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum GroupKind {
    /// Accounts, node and world registry of a deployment.
    Realm = 1,
    /// Region map, characters and session epochs of one world.
    Directory = 2,
    /// Characters that are logged out.
    Vault = 3,
    /// The simulation of one region.
    Region = 4,
    /// A studio's world-wide service.
    Service = 5,
    /// Used by benchmarks and tests only.
    Bench = 6,
}

impl GroupKind {
    /// The kind with this discriminant.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Realm,
            2 => Self::Directory,
            3 => Self::Vault,
            4 => Self::Region,
            5 => Self::Service,
            6 => Self::Bench,
            _ => return None,
        })
    }

    /// Lower-case name, as in logs, metrics and the admin interface.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Realm => "realm",
            Self::Directory => "directory",
            Self::Vault => "vault",
            Self::Region => "region",
            Self::Service => "service",
            Self::Bench => "bench",
        }
    }
}

/// A raft group: `kind << 56 | world << 32 | serial`. A changed plan takes a new serial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

impl GroupId {
    /// Packs a group id. `world` must fit in 24 bits.
    #[must_use]
    pub const fn new(kind: GroupKind, world: WorldId, serial: u32) -> Self {
        assert!(world.0 < 1 << 24, "world id exceeds 24 bits");
        Self(((kind as u64) << 56) | ((world.0 as u64) << 32) | serial as u64)
    }

    /// The directory of `world`.
    #[must_use]
    pub const fn directory(world: WorldId) -> Self {
        Self::new(GroupKind::Directory, world, 1)
    }

    /// The group that was made first for `region` of `world`.
    #[must_use]
    pub const fn region(world: WorldId, region: RegionId) -> Self {
        Self::new(GroupKind::Region, world, region.0)
    }

    /// Vault `k` of `world`, from 1.
    #[must_use]
    pub const fn vault(world: WorldId, k: u32) -> Self {
        Self::new(GroupKind::Vault, world, k)
    }

    /// The realm. It belongs to no world.
    #[must_use]
    pub const fn realm() -> Self {
        Self::new(GroupKind::Realm, WorldId(0), 1)
    }

    /// The kind, or `None` for an id that this build does not know.
    #[must_use]
    pub const fn kind(self) -> Option<GroupKind> {
        GroupKind::from_u8((self.0 >> 56) as u8)
    }

    /// The world (0 for the realm).
    #[must_use]
    pub const fn world(self) -> WorldId {
        WorldId(((self.0 >> 32) & 0xff_ffff) as u32)
    }

    /// The number within kind and world.
    #[must_use]
    pub const fn serial(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            Some(kind) => write!(f, "{}({},{})", kind.name(), self.world(), self.serial()),
            None => write!(f, "group({:#x})", self.0),
        }
    }
}

/// The vault that keeps a character while it is logged out, in a world with `vaults` of them; 0 counts as 1.
///
/// Vault `1 + mix(character) % vaults`, where `mix` is the output function of SplitMix64 (Steele, Lea, Flood: "Fast splittable
/// pseudorandom number generators", 2014, as in `java.util.SplittableRandom`). Ids that follow one another spread evenly. Where
/// characters are kept depends on it: it never changes.
#[must_use]
pub const fn vault_of(world: WorldId, vaults: u32, character: CharacterId) -> GroupId {
    let mut mixed = character.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let vaults = if vaults == 0 { 1 } else { vaults };
    GroupId::vault(world, 1 + (mixed % vaults as u64) as u32)
}

/// A position in a raft log: which entry, and the term it was proposed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Term of the leader that proposed the entry.
    pub term: Term,
    /// Index of the entry.
    pub index: LogIndex,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// A square of ground, [`crate::limits::CELL_SIZE_M`] wide, that an edge subscribes to. Cell (0, 0) has its corner at the
/// world's origin; `x` grows east, `z` grows south.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellId {
    /// Column.
    pub x: i16,
    /// Row.
    pub z: i16,
}

impl CellId {
    /// The cell that holds a position, in metres. Positions beyond the range of cells go to the outermost ones; NaN to (0, 0).
    #[must_use]
    pub fn of(x_m: f32, z_m: f32) -> Self {
        let cell = |v: f32| (v / crate::limits::CELL_SIZE_M).floor() as i16;
        Self { x: cell(x_m), z: cell(z_m) }
    }

    /// As one integer, for wire and maps: `x` in the upper 16 bits, `z` in the lower.
    #[must_use]
    pub const fn pack(self) -> u32 {
        ((self.x as u16 as u32) << 16) | self.z as u16 as u32
    }

    /// Inverse of [`CellId::pack`].
    #[must_use]
    pub const fn unpack(packed: u32) -> Self {
        Self { x: (packed >> 16) as u16 as i16, z: packed as u16 as i16 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_ids_round_trip() {
        let replica = ReplicaId::new(NodeId(7), Incarnation(3));
        assert_eq!((replica.node(), replica.incarnation()), (NodeId(7), Incarnation(3)));
        let group = GroupId::region(WorldId(0xabcdef), RegionId(9));
        assert_eq!((group.kind(), group.world(), group.serial()), (Some(GroupKind::Region), WorldId(0xabcdef), 9));
        for cell in [CellId { x: -1, z: 3 }, CellId { x: i16::MIN, z: i16::MAX }] {
            assert_eq!(CellId::unpack(cell.pack()), cell);
        }
    }

    #[test]
    fn vaults_of_characters_never_change_and_are_evenly_filled() {
        let world = WorldId(3);
        let vault = |character| vault_of(world, 4, CharacterId(character)).serial();
        // SplitMix64 with the seed 0 gives 0xe220a8397b1dcdaf first.
        assert_eq!(vault_of(world, u32::MAX, CharacterId(0)).serial() as u64, 1 + 0xe220_a839_7b1d_cdaf % u64::from(u32::MAX));
        assert_eq!([1, 2, 3, 4, 5, 1_000_000].map(vault), [2, 3, 2, 3, 3, 4]);
        let mut filled = [0u32; 4];
        (1..=40_000).for_each(|character| filled[vault(character) as usize - 1] += 1);
        assert!(filled.iter().all(|n| (9_600..10_400).contains(n)), "{filled:?}");
        assert_eq!(vault_of(world, 0, CharacterId(9)), GroupId::vault(world, 1));
        assert_eq!((GroupId::realm().kind(), GroupId::realm().world()), (Some(GroupKind::Realm), WorldId(0)));
    }

    #[test]
    fn cells_cover_negative_ground_and_survive_rubbish() {
        assert_eq!(CellId::of(-0.1, 24.9), CellId { x: -1, z: 0 });
        assert_eq!(CellId::of(25.0, 50.0), CellId { x: 1, z: 2 });
        assert_eq!(CellId::of(f32::NAN, f32::INFINITY), CellId { x: 0, z: i16::MAX });
    }
}
