//! What a region keeps of characters that went elsewhere, until the directory knows: where they went, under which move number.
//!
//! As long as a stub is there, whoever asks here for the character is sent on.

use std::collections::BTreeMap;

use marchland_types::{CharacterId, GroupId, MoveNumber, RegionId, SessionEpoch};

use crate::codec::{CodecError, Reader, Writer};
use crate::hash::mix;

/// Where a character went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stub {
    /// The group that has it, or will.
    pub group: GroupId,
    /// Its region; 0 for a vault.
    pub region: RegionId,
    /// Under which it arrives there.
    pub move_number: MoveNumber,
    /// Of the session that it had.
    pub epoch: SessionEpoch,
}

/// All stubs of a region.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stubs {
    stubs: BTreeMap<CharacterId, Stub>,
    sum: u64,
}

fn stub_hash(character: CharacterId, stub: &Stub) -> u64 {
    mix(mix(character.0, stub.group.0), mix(mix(u64::from(stub.region.0), stub.epoch.0), stub.move_number.0))
}

impl Stubs {
    pub(crate) fn len(&self) -> usize {
        self.stubs.len()
    }

    pub(crate) fn get(&self, character: CharacterId) -> Option<&Stub> {
        self.stubs.get(&character)
    }

    pub(crate) fn insert(&mut self, character: CharacterId, stub: Stub) {
        self.remove(character);
        self.sum = self.sum.wrapping_add(stub_hash(character, &stub));
        self.stubs.insert(character, stub);
    }

    pub(crate) fn remove(&mut self, character: CharacterId) {
        if let Some(old) = self.stubs.remove(&character) {
            self.sum = self.sum.wrapping_sub(stub_hash(character, &old));
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (CharacterId, &Stub)> {
        self.stubs.iter().map(|(character, stub)| (*character, stub))
    }

    /// 0 while there is none.
    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }

    pub(crate) fn full_sum(&self) -> u64 {
        self.iter().fold(0, |sum, (character, stub)| sum.wrapping_add(stub_hash(character, stub)))
    }

    pub(crate) fn put(&self, out: &mut Writer) {
        out.count(self.stubs.len());
        for (character, stub) in &self.stubs {
            out.u64(character.0);
            out.u64(stub.group.0);
            out.u32(stub.region.0);
            out.u64(stub.move_number.0);
            out.u64(stub.epoch.0);
        }
    }

    pub(crate) fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut stubs = Self::default();
        for _ in 0..input.count(36)? {
            let character = CharacterId(input.u64()?);
            let (group, region) = (GroupId(input.u64()?), RegionId(input.u32()?));
            let (move_number, epoch) = (MoveNumber(input.u64()?), SessionEpoch(input.u64()?));
            stubs.insert(character, Stub { group, region, move_number, epoch });
        }
        Ok(stubs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_follows_and_survives_a_checkpoint() {
        let mut stubs = Stubs::default();
        let stub = |group, number| Stub {
            group: GroupId(group),
            region: RegionId(2),
            move_number: MoveNumber(number),
            epoch: SessionEpoch(3),
        };
        for (character, group, number) in [(1, 5, 2), (2, 6, 2), (1, 7, 4)] {
            stubs.insert(CharacterId(character), stub(group, number));
        }
        assert_eq!((stubs.len(), stubs.sum()), (2, stubs.full_sum()));
        assert_eq!(stubs.get(CharacterId(1)), Some(&stub(7, 4)));
        let mut out = Writer::new();
        stubs.put(&mut out);
        assert_eq!(Stubs::take(&mut Reader::new(out.as_slice())).unwrap().sum(), stubs.sum());
        stubs.remove(CharacterId(1));
        stubs.remove(CharacterId(2));
        assert_eq!(stubs.sum(), 0);
    }
}
