//! Bytes of a checkpoint file.

use bytes::Bytes;
use marchland_types::{GroupId, LogIndex, Position, Term};

/// Format of the checkpoints that this build writes.
pub const CHECKPOINT_FORMAT_VERSION: u32 = 1;

pub(super) const MAGIC: [u8; 8] = *b"MARCHCKP";
/// Magic, version, header size, checksum.
pub(super) const PREFIX_BYTES: usize = 20;
/// Length and checksum before each chunk.
pub(super) const CHUNK_PREFIX_BYTES: usize = 8;
/// Larger pieces are split, so that a reader never has to trust a length for more than this.
pub(super) const CHUNK_MAX_BYTES: usize = 1024 * 1024;
pub(super) const HEADER_MAX_BYTES: usize = 4 * 1024 * 1024;

/// What a checkpoint says of itself before its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointHeader {
    /// The group.
    pub group: GroupId,
    /// The last entry that the state contains.
    pub position: Position,
    /// Raft's membership at that entry; opaque here.
    pub membership: Bytes,
    /// The state machine's own header; opaque here.
    pub meta: Bytes,
}

impl CheckpointHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.membership.len() + self.meta.len());
        for word in [self.group.0, self.position.term.0, self.position.index.0] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for bytes in [&self.membership, &self.meta] {
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut take = |count: usize| {
            let (head, tail) = rest.split_at_checked(count)?;
            rest = tail;
            Some(head)
        };
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        let size = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes")) as usize;
        let group = GroupId(word(take(8)?));
        let position = Position { term: Term(word(take(8)?)), index: LogIndex(word(take(8)?)) };
        let membership_bytes = size(take(4)?);
        let membership = Bytes::copy_from_slice(take(membership_bytes)?);
        let meta_bytes = size(take(4)?);
        let meta = Bytes::copy_from_slice(take(meta_bytes)?);
        rest.is_empty().then_some(Self { group, position, membership, meta })
    }
}

/// Checksum of a chunk, or with `bytes` the size, of the end.
pub(super) fn chunk_crc(number: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}
