//! Keys and values as they are in the engine.
//!
//! One map holds everything; a key begins with what it is. The ordinals are on disk and never change.
//!
//! ```text
//! 0                                                         the format of the store, u32
//! 1 group:u64                                               the group's current generation, u64
//! 2 group:u64 generation:u64 key                            0 value, or 1 pieces:u32 (a value in pieces)
//! 3 group:u64 generation:u64 length:u16 key piece:u32       a piece of a value
//! 4                                                         how often sled opened the store, u64
//! ```
//! Big endian, so that order is the order of the numbers. A generation that is not the current one is the rest of an
//! install that was not finished, or that replaced it; it is removed at the next start.

use bytes::Bytes;
use marchland_types::GroupId;
use marchland_types::limits::KEYED_VALUE_MAX_BYTES;

use super::KEY_MAX_BYTES;

pub(super) const FORMAT_VERSION: u32 = 1;
pub(super) const FORMAT_KEY: [u8; 1] = [0];
pub(super) const OPENED_KEY: [u8; 1] = [4];
const GENERATION: u8 = 1;
const PAIR: u8 = 2;
const PIECE: u8 = 3;

const INLINE: u8 = 0;
const PIECES: u8 = 1;

/// Values of this size and above go to sled in pieces of it.
///
/// sled writes a page whose size exceeds a quarter of its segment, 128 KiB, to a file of its own, which it never syncs: a power cut then
/// loses the page and all that was written after it. A leaf page splits above 16 items and merges two below 4 and up to 16;
/// [`LEAF_ITEMS_MAX`] of the largest items stay below that size.
pub(super) const SLED_PIECE_BYTES: usize = 4 * 1024;
const LEAF_ITEMS_MAX: usize = 22;
/// sled's default, a quarter of it.
const PAGE_MAX_BYTES: usize = 512 * 1024 / 4;
const _: () = assert!(LEAF_ITEMS_MAX * (SLED_PIECE_BYTES + KEY_MAX_BYTES + 64) < PAGE_MAX_BYTES);
const _: () = assert!(SLED_PIECE_BYTES <= KEYED_VALUE_MAX_BYTES);

/// A namespace in one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Space {
    pub group: GroupId,
    pub generation: u64,
}

/// How a stored value begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Inline(Bytes),
    Pieces(u32),
}

pub(super) fn generation_key(group: GroupId) -> Vec<u8> {
    let mut key = vec![GENERATION];
    key.extend_from_slice(&group.0.to_be_bytes());
    key
}

/// Every generation key has this prefix.
pub(super) const GENERATION_PREFIX: [u8; 1] = [GENERATION];

pub(super) fn parse_generation_key(key: &[u8]) -> Option<GroupId> {
    let group = key.strip_prefix(&GENERATION_PREFIX)?;
    Some(GroupId(u64::from_be_bytes(group.try_into().ok()?)))
}

impl Space {
    fn prefix(self, kind: u8) -> Vec<u8> {
        let mut key = Vec::with_capacity(64);
        key.push(kind);
        key.extend_from_slice(&self.group.0.to_be_bytes());
        key.extend_from_slice(&self.generation.to_be_bytes());
        key
    }

    /// Every pair of the space begins with this.
    pub fn pair_prefix(self) -> Vec<u8> {
        self.prefix(PAIR)
    }

    /// Every piece of the space begins with this.
    pub fn piece_prefix(self) -> Vec<u8> {
        self.prefix(PIECE)
    }

    pub fn pair(self, key: &[u8]) -> Vec<u8> {
        let mut out = self.pair_prefix();
        out.extend_from_slice(key);
        out
    }

    pub fn piece(self, key: &[u8], piece: u32) -> Vec<u8> {
        let mut out = self.piece_prefix();
        out.extend_from_slice(&(key.len() as u16).to_be_bytes());
        out.extend_from_slice(key);
        out.extend_from_slice(&piece.to_be_bytes());
        out
    }

    /// The space that a pair or a piece belongs to.
    pub fn of(key: &[u8]) -> Option<Self> {
        let (kind, rest) = key.split_first()?;
        if ![PAIR, PIECE].contains(kind) || rest.len() < 16 {
            return None;
        }
        let word = |at: usize| u64::from_be_bytes(rest[at..at + 8].try_into().expect("eight bytes"));
        Some(Self { group: GroupId(word(0)), generation: word(8) })
    }
}

/// First keys of pairs and of pieces, and the key after the last of each.
pub(super) fn kinds() -> [(u8, u8); 2] {
    [(PAIR, PAIR + 1), (PIECE, PIECE + 1)]
}

/// The first key after all that begin with `prefix`; `None` if there is no such key.
pub(super) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut key = prefix.to_vec();
    while let Some(last) = key.pop() {
        if last < u8::MAX {
            key.push(last + 1);
            return Some(key);
        }
    }
    None
}

/// What is stored under the pair's key, and the pieces, which are of `piece_bytes`.
pub(super) fn encode_value(value: &[u8], piece_bytes: usize) -> (Vec<u8>, Vec<&[u8]>) {
    if value.len() < piece_bytes {
        let mut stored = Vec::with_capacity(value.len() + 1);
        stored.push(INLINE);
        stored.extend_from_slice(value);
        return (stored, Vec::new());
    }
    let pieces: Vec<&[u8]> = value.chunks(piece_bytes).collect();
    let mut stored = vec![PIECES];
    stored.extend_from_slice(&(pieces.len() as u32).to_be_bytes());
    (stored, pieces)
}

pub(super) fn decode_value(stored: &[u8]) -> Option<Stored> {
    let (tag, rest) = stored.split_first()?;
    match *tag {
        INLINE => Some(Stored::Inline(Bytes::copy_from_slice(rest))),
        PIECES => Some(Stored::Pieces(u32::from_be_bytes(rest.try_into().ok()?))),
        _ => None,
    }
}

/// Largest size of the value that a stored one stands for.
pub(super) fn value_bytes_max(stored: &[u8], piece_bytes: usize) -> usize {
    match stored.split_first() {
        Some((&PIECES, count)) => {
            count.try_into().map_or(0, |count| (u32::from_be_bytes(count) as usize).saturating_mul(piece_bytes))
        }
        _ => stored.len(),
    }
}

/// How much of a key names the table that it is in, where an engine has several: the group, its generation, and the first byte of
/// the group's own key, by which keyed groups tell their kinds of records. So each kind whose keys ascend does so alone.
pub(super) fn table_of(key: &[u8]) -> usize {
    const OF_SPACE: usize = 1 + 8 + 8 + 1;
    match key.first() {
        Some(&(PAIR | PIECE)) => key.len().min(OF_SPACE),
        Some(_) | None => key.len().min(1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pairs_sort_like_their_keys_and_spaces_do_not_mix(a in prop::collection::vec(any::<u8>(), 0..20), b in prop::collection::vec(any::<u8>(), 0..20), group in any::<u64>(), generation in any::<u64>()) {
            let space = Space { group: GroupId(group), generation };
            prop_assert_eq!(space.pair(&a).cmp(&space.pair(&b)), a.cmp(&b));
            prop_assert_eq!(Space::of(&space.pair(&a)), Some(space));
            prop_assert_eq!(Space::of(&space.piece(&a, 7)), Some(space));
            let end = after_prefix(&space.pair_prefix()).unwrap();
            prop_assert!(space.pair(&a) < end);
            if a != b {
                prop_assert!(space.piece(&a, 1) != space.piece(&b, 1));
            }
        }

        #[test]
        fn values_round_trip_in_pieces_that_the_engine_likes(size in prop_oneof![0usize..10, 4_090usize..4_100, 8_190usize..8_200, 0usize..70_000]) {
            let value = vec![9; size];
            let (stored, pieces) = encode_value(&value, SLED_PIECE_BYTES);
            prop_assert!(stored.len() <= SLED_PIECE_BYTES);
            prop_assert!(pieces.iter().all(|piece| piece.len() <= SLED_PIECE_BYTES));
            prop_assert!((size..size + SLED_PIECE_BYTES).contains(&value_bytes_max(&stored, SLED_PIECE_BYTES)));
            prop_assert!(encode_value(&value, usize::MAX).1.is_empty());
            match decode_value(&stored).unwrap() {
                Stored::Inline(inline) => prop_assert_eq!(inline, value),
                Stored::Pieces(count) => {
                    prop_assert_eq!(count as usize, pieces.len());
                    prop_assert_eq!(pieces.concat(), value);
                }
            }
        }
    }

    #[test]
    fn the_end_of_a_prefix_is_found_past_full_bytes() {
        assert_eq!(after_prefix(&[1, 255, 255]), Some(vec![2]));
        assert_eq!(after_prefix(&[255]), None);
    }
}
