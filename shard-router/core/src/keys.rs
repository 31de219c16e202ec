//! The keys of a keyed group's records.
//!
//! The first byte is the key type's ordinal, which is on disk and never reused. Numbers follow big-endian, so that records
//! of a type lie in the order of their numbers; at most one text per key, at its end. Every key has one spelling.

use bytes::{BufMut, Bytes, BytesMut};
use marchland_types::{CharacterId, CutNumber, GroupId, NodeId, WorldId};

/// Identifies a sign-in order: SHA-256 over account, name, secret hash and request id, cut to 16 bytes.
pub type RequestDigest = [u8; 16];

/// Which record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The last applied entry (`DirectoryApplied`). First of all keys, written by the shell, not part of the state hash.
    Applied,
    /// The counters (`DirectoryCounters`), state hash among them; not part of it.
    Counters,
    /// What the world began with (`DirectoryGenesis` without its plans), its map kept current.
    World,
    /// Members of a group (`GroupPlan`).
    Plan(GroupId),
    /// A node as it registered last (`DirectoryNode`).
    Node(NodeId),
    /// The incarnation of a node's data folder (`DirectoryFolder`). Kept for folders that were replaced.
    Folder(NodeId, [u8; 16]),
    /// A character (`DirectoryCharacter`).
    Character(CharacterId),
    /// Who holds a folded name: the character's number, 8 bytes big-endian.
    Name(String),
    /// The characters of an account (`DirectoryAccount`).
    Account(String),
    /// What a sign-in order was answered (`DirectoryRequest`).
    Request(RequestDigest),
    /// Which order came at this place, to forget the oldest: the digest.
    RequestOrder(u64),
    /// Groups with a channel to or from here (`DirectoryChannelList`).
    Channels,
    /// Counters of the channels to and from a group (`DirectoryChannel`).
    Channel(GroupId),
    /// A message that a group has not acknowledged (`ChannelMessage`).
    Posted(GroupId, u64),
    /// A message that was taken from a group but could not be used (`ChannelMessage`).
    SetAside(GroupId, u64),
    /// What stood at a cut (`DirectoryCut`).
    Cut(CutNumber),
    /// A character that a vault keeps (`VaultCharacter`).
    Kept(CharacterId),
    /// Where a character went that a vault kept (`VaultStub`).
    Stub(CharacterId),
    /// What changed in a vault after a cut (`VaultUndo`).
    Undo(u64),
    /// Characters that were seeded in a vault, by the first of them: how many, 4 bytes big-endian.
    Seeded(CharacterId),
    /// What the realm began with (`RealmGenesis` without its plan).
    Realm,
    /// A world of the realm (`RealmWorld` without its plan).
    RealmWorld(WorldId),
    /// Which world has a name: its number, 4 bytes big-endian.
    WorldName(String),
    /// Which world a node belongs to: its number, 4 bytes big-endian.
    WorldOf(NodeId),
}

/// Bytes that are no key: rot, or a newer version's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key of a keyed group: {0:02x?}")]
pub struct BadKey(pub Bytes);

impl Key {
    /// Stable number of the key type.
    #[must_use]
    pub const fn ordinal(&self) -> u8 {
        match self {
            Self::Applied => 1,
            Self::Counters => 2,
            Self::World => 3,
            Self::Plan(_) => 4,
            Self::Node(_) => 5,
            Self::Folder(..) => 6,
            Self::Character(_) => 7,
            Self::Name(_) => 8,
            Self::Account(_) => 9,
            Self::Request(_) => 10,
            Self::RequestOrder(_) => 11,
            Self::Channels => 12,
            Self::Channel(_) => 13,
            Self::Posted(..) => 14,
            Self::SetAside(..) => 15,
            Self::Cut(_) => 16,
            Self::Kept(_) => 17,
            Self::Stub(_) => 18,
            Self::Undo(_) => 19,
            Self::Seeded(_) => 20,
            Self::Realm => 21,
            Self::RealmWorld(_) => 22,
            Self::WorldName(_) => 23,
            Self::WorldOf(_) => 24,
        }
    }

    /// The bytes under which the record is stored.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(32);
        out.put_u8(self.ordinal());
        match self {
            Self::Applied | Self::Counters | Self::World | Self::Channels | Self::Realm => {}
            Self::Plan(group) | Self::Channel(group) => out.put_u64(group.0),
            Self::Node(node) | Self::WorldOf(node) => out.put_u32(node.0),
            Self::RealmWorld(world) => out.put_u32(world.0),
            Self::Folder(node, folder) => {
                out.put_u32(node.0);
                out.put_slice(folder);
            }
            Self::Character(character) | Self::Kept(character) | Self::Stub(character) | Self::Seeded(character) => {
                out.put_u64(character.0);
            }
            Self::Name(text) | Self::Account(text) | Self::WorldName(text) => out.put_slice(text.as_bytes()),
            Self::Request(digest) => out.put_slice(digest),
            Self::RequestOrder(order) | Self::Undo(order) => out.put_u64(*order),
            Self::Posted(group, seq) | Self::SetAside(group, seq) => {
                out.put_u64(group.0);
                out.put_u64(*seq);
            }
            Self::Cut(number) => out.put_u64(number.0),
        }
        out.freeze()
    }

    /// Inverse of [`Key::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BadKey> {
        let bad = || BadKey(Bytes::copy_from_slice(bytes));
        let (&ordinal, rest) = bytes.split_first().ok_or_else(bad)?;
        let number = |rest: &[u8]| Some(u64::from_be_bytes(rest.try_into().ok()?));
        let short = |rest: &[u8]| Some(u32::from_be_bytes(rest.try_into().ok()?));
        let two = |rest: &[u8]| {
            let (group, seq) = rest.split_at_checked(8)?;
            Some((GroupId(number(group)?), number(seq)?))
        };
        let text = |rest: &[u8]| String::from_utf8(rest.to_vec()).ok();
        let key = match ordinal {
            1 | 2 | 3 | 12 | 21 if !rest.is_empty() => None,
            1 => Some(Self::Applied),
            2 => Some(Self::Counters),
            3 => Some(Self::World),
            4 => number(rest).map(|n| Self::Plan(GroupId(n))),
            5 => short(rest).map(|n| Self::Node(NodeId(n))),
            6 => rest
                .split_at_checked(4)
                .and_then(|(node, folder)| Some(Self::Folder(NodeId(short(node)?), folder.try_into().ok()?))),
            7 => number(rest).map(|n| Self::Character(CharacterId(n))),
            8 => text(rest).map(Self::Name),
            9 => text(rest).map(Self::Account),
            10 => rest.try_into().ok().map(Self::Request),
            11 => number(rest).map(Self::RequestOrder),
            12 => Some(Self::Channels),
            13 => number(rest).map(|n| Self::Channel(GroupId(n))),
            14 => two(rest).map(|(group, seq)| Self::Posted(group, seq)),
            15 => two(rest).map(|(group, seq)| Self::SetAside(group, seq)),
            16 => number(rest).map(|n| Self::Cut(CutNumber(n))),
            17 => number(rest).map(|n| Self::Kept(CharacterId(n))),
            18 => number(rest).map(|n| Self::Stub(CharacterId(n))),
            19 => number(rest).map(Self::Undo),
            20 => number(rest).map(|n| Self::Seeded(CharacterId(n))),
            21 => Some(Self::Realm),
            22 => short(rest).map(|n| Self::RealmWorld(WorldId(n))),
            23 => text(rest).map(Self::WorldName),
            24 => short(rest).map(|n| Self::WorldOf(NodeId(n))),
            _ => None,
        };
        key.ok_or_else(bad)
    }

    /// The keys of all records with this ordinal, for a range read: from the first, up to but without the second.
    #[must_use]
    pub fn range(ordinal: u8) -> (Bytes, Bytes) {
        (Bytes::copy_from_slice(&[ordinal]), Bytes::copy_from_slice(&[ordinal + 1]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(key: Key) {
        let bytes = key.encode();
        assert_eq!(Key::decode(&bytes).as_ref(), Ok(&key));
        assert_eq!(bytes[0], key.ordinal());
        let (from, to) = Key::range(key.ordinal());
        assert!(from <= bytes && bytes < to);
    }

    #[test]
    fn ordinals_are_what_is_on_disk() {
        let all = [
            (Key::Applied, 1),
            (Key::Counters, 2),
            (Key::World, 3),
            (Key::Plan(GroupId(1)), 4),
            (Key::Node(NodeId(1)), 5),
            (Key::Folder(NodeId(1), [0; 16]), 6),
            (Key::Character(CharacterId(1)), 7),
            (Key::Name("a".into()), 8),
            (Key::Account("a".into()), 9),
            (Key::Request([0; 16]), 10),
            (Key::RequestOrder(1), 11),
            (Key::Channels, 12),
            (Key::Channel(GroupId(1)), 13),
            (Key::Posted(GroupId(1), 1), 14),
            (Key::SetAside(GroupId(1), 1), 15),
            (Key::Cut(CutNumber(1)), 16),
            (Key::Kept(CharacterId(1)), 17),
            (Key::Stub(CharacterId(1)), 18),
            (Key::Undo(1), 19),
            (Key::Seeded(CharacterId(1)), 20),
            (Key::Realm, 21),
            (Key::RealmWorld(WorldId(1)), 22),
            (Key::WorldName("a".into()), 23),
            (Key::WorldOf(NodeId(1)), 24),
        ];
        for (key, ordinal) in all {
            assert_eq!(key.ordinal(), ordinal);
            round_trip(key);
        }
    }

    proptest! {
        #[test]
        fn plan(group: u64) { round_trip(Key::Plan(GroupId(group))); }
        #[test]
        fn node(node: u32) { round_trip(Key::Node(NodeId(node))); }
        #[test]
        fn folder(node: u32, folder: [u8; 16]) { round_trip(Key::Folder(NodeId(node), folder)); }
        #[test]
        fn character(character: u64) { round_trip(Key::Character(CharacterId(character))); }
        #[test]
        fn name(name: String) { round_trip(Key::Name(name)); }
        #[test]
        fn account(account: String) { round_trip(Key::Account(account)); }
        #[test]
        fn request(digest: [u8; 16]) { round_trip(Key::Request(digest)); }
        #[test]
        fn request_order(order: u64) { round_trip(Key::RequestOrder(order)); }
        #[test]
        fn channel(group: u64) { round_trip(Key::Channel(GroupId(group))); }
        #[test]
        fn posted(group: u64, seq: u64) { round_trip(Key::Posted(GroupId(group), seq)); }
        #[test]
        fn set_aside(group: u64, seq: u64) { round_trip(Key::SetAside(GroupId(group), seq)); }
        #[test]
        fn cut(number: u64) { round_trip(Key::Cut(CutNumber(number))); }

        #[test]
        fn kept(character: u64) { round_trip(Key::Kept(CharacterId(character))); }
        #[test]
        fn stub(character: u64) { round_trip(Key::Stub(CharacterId(character))); }
        #[test]
        fn undo(number: u64) { round_trip(Key::Undo(number)); }
        #[test]
        fn seeded(character: u64) { round_trip(Key::Seeded(CharacterId(character))); }
        #[test]
        fn realm_world(world: u32) { round_trip(Key::RealmWorld(WorldId(world))); }
        #[test]
        fn world_name(name: String) { round_trip(Key::WorldName(name)); }
        #[test]
        fn world_of(node: u32) { round_trip(Key::WorldOf(NodeId(node))); }

        #[test]
        fn numbers_keep_their_order(a: (u64, u64), b: (u64, u64)) {
            let posted = |(group, seq)| Key::Posted(GroupId(group), seq).encode();
            prop_assert_eq!(posted(a).cmp(&posted(b)), a.cmp(&b));
        }

        #[test]
        fn bytes_are_a_key_in_one_spelling_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..24), ordinal in 0u8..28) {
            for bytes in [bytes.clone(), [&[ordinal][..], &bytes].concat()] {
                if let Ok(key) = Key::decode(&bytes) {
                    prop_assert_eq!(key.encode(), bytes);
                }
            }
        }
    }
}
