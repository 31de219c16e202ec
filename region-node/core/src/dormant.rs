//! Characters that are not in the world: whole, as one record each, until they are admitted or attach again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use marchland_types::{CharacterId, SessionEpoch};

use crate::codec::{CodecError, Reader, Row, Writer};
use crate::hash::{hash, mix};

/// Parts that a view shares one by one, so that a write after a view copies a small part of a large table.
const SHARDS: u64 = 256;

/// A character that is not in the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dormant {
    /// The session epoch that it had.
    pub epoch: SessionEpoch,
    /// Whether the session may be taken up again without a new sign-in: it was lost, not ended.
    pub resumable: bool,
    /// The character, as the `record` module encodes it.
    pub record: Bytes,
}

impl Row for Dormant {
    fn put(&self, out: &mut Writer) {
        out.u64(self.epoch.0);
        out.bool(self.resumable);
        out.bytes(&self.record);
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self { epoch: SessionEpoch(input.u64()?), resumable: input.bool()?, record: input.owned()? })
    }
}

/// All dormant characters of a region, by shard and then by id.
#[derive(Clone, Debug)]
pub(crate) struct Dormants {
    shards: Vec<Arc<BTreeMap<CharacterId, Dormant>>>,
    count: usize,
    sum: u64,
}

fn dormant_hash(character: CharacterId, dormant: &Dormant) -> u64 {
    hash(mix(character.0, mix(dormant.epoch.0, u64::from(dormant.resumable))), &dormant.record)
}

impl Dormants {
    pub(crate) fn new() -> Self {
        Self { shards: vec![Arc::default(); SHARDS as usize], count: 0, sum: 0 }
    }

    fn shard(character: CharacterId) -> usize {
        (character.0 % SHARDS) as usize
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn get(&self, character: CharacterId) -> Option<&Dormant> {
        self.shards[Self::shard(character)].get(&character)
    }

    pub(crate) fn insert(&mut self, character: CharacterId, dormant: Dormant) {
        self.sum = self.sum.wrapping_add(dormant_hash(character, &dormant));
        self.count += 1;
        if let Some(old) = Arc::make_mut(&mut self.shards[Self::shard(character)]).insert(character, dormant) {
            self.sum = self.sum.wrapping_sub(dormant_hash(character, &old));
            self.count -= 1;
        }
    }

    pub(crate) fn remove(&mut self, character: CharacterId) -> Option<Dormant> {
        self.get(character)?;
        let old = Arc::make_mut(&mut self.shards[Self::shard(character)]).remove(&character)?;
        self.sum = self.sum.wrapping_sub(dormant_hash(character, &old));
        self.count -= 1;
        Some(old)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (CharacterId, &Dormant)> {
        self.shards.iter().flat_map(|shard| shard.iter().map(|(character, dormant)| (*character, dormant)))
    }

    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }

    pub(crate) fn full_sum(&self) -> u64 {
        self.iter().fold(0, |sum, (character, dormant)| sum.wrapping_add(dormant_hash(character, dormant)))
    }

    pub(crate) fn put(&self, out: &mut Writer) {
        out.count(self.count);
        for (character, dormant) in self.iter() {
            out.u64(character.0);
            dormant.put(out);
        }
    }

    pub(crate) fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut dormants = Self::new();
        for _ in 0..input.count(21)? {
            let character = CharacterId(input.u64()?);
            dormants.insert(character, Dormant::take(input)?);
        }
        Ok(dormants)
    }
}
