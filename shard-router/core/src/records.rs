//! Records as bytes, and the hash over them.

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::keys::RequestDigest;

/// Format of every entry and record of a keyed group, as [`DirectoryApplied`](marchland_proto::storage::DirectoryApplied) names it.
pub const KEYED_FORMAT: u32 = 1;

/// What a record adds to the state hash: the first 8 bytes, little-endian, of SHA-256 over the key's length, key and value.
#[must_use]
pub fn record_hash(key: &[u8], value: &[u8]) -> u64 {
    let mut hash = Sha256::new();
    hash.update((key.len() as u32).to_le_bytes());
    hash.update(key);
    hash.update(value);
    first_bytes::<8>(&hash.finalize()).map_or(0, u64::from_le_bytes)
}

/// The digest under which a sign-in order is remembered.
pub(crate) fn request_digest(order: &marchland_proto::storage::SignInOrder) -> RequestDigest {
    let mut hash = Sha256::new();
    for part in [order.account.as_bytes(), order.character_name.as_bytes(), &order.secret_hash] {
        hash.update((part.len() as u32).to_le_bytes());
        hash.update(part);
    }
    hash.update(order.request_id.to_le_bytes());
    first_bytes::<16>(&hash.finalize()).unwrap_or_default()
}

fn first_bytes<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.first_chunk::<N>().copied()
}

/// A message as stored bytes.
pub(crate) fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}
