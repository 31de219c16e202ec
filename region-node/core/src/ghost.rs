//! What neighbours show: copies of what stands near the common border, read only.
//!
//! Ghosts come at 10 Hz as inputs of ticks, so that every replica sees the same. The newest batch of a neighbour replaces the one before;
//! one that is silent for [`NEIGHBOUR_SILENT_MS`] shows nothing any more, and nothing is handed to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use marchland_types::{CharacterId, EntityId, GroupId, MoveNumber};

use crate::codec::{CodecError, Reader, Row as _, Writer};
use crate::entity::{Body, Identity};
use crate::hash::{hash, mix};

/// How far from a neighbour's ground an entity is shown to it, in metres.
pub const GHOST_BAND_M: f32 = 40.0;
/// Region time after which a neighbour that shows nothing counts as one without an owner, in milliseconds.
pub const NEIGHBOUR_SILENT_MS: u64 = 1_500;
/// Ghosts that one neighbour shows; more are not taken, and not sent.
pub const GHOSTS_MAX: usize = 4_096;
/// Bytes of one ghost, packed.
const GHOST_BYTES: usize = 8 + 4 + 8 + 8 + 12 + 12 + 1 + 2 + 4;

/// Whether an entity near a border is a reason for the region beyond it to be awake: things that only stand there are none.
pub(crate) fn is_lively(identity: &Identity, body: &Body) -> bool {
    identity.character.is_some() || body.velocity != [0.0; 3]
}

/// An entity of a neighbour.
#[derive(Clone, Debug, PartialEq)]
pub struct Ghost {
    /// What it is; without name, look and audience.
    pub identity: Identity,
    /// Where it was when its region showed it.
    pub body: Body,
}

impl Ghost {
    pub(crate) fn put(identity: &Identity, body: &Body, out: &mut Writer) {
        out.u64(identity.entity.0);
        out.u32(identity.kind);
        out.u64(identity.character.map_or(0, |character| character.0));
        out.u64(identity.move_number.0);
        body.put(out);
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let identity = Identity {
            entity: EntityId(input.u64()?),
            kind: input.u32()?,
            character: Some(CharacterId(input.u64()?)).filter(|character| character.0 != 0),
            name: "".into(),
            look: Bytes::new(),
            priority: 0,
            audience: crate::entity::Audience::Public,
            move_number: MoveNumber(input.u64()?),
        };
        Ok(Self { identity, body: Body::take(input)? })
    }
}

/// What one neighbour showed last.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shown {
    /// Its tick.
    pub(crate) tick: u64,
    /// Region time here when it came.
    pub(crate) heard_ms: u64,
    /// By entity.
    pub(crate) ghosts: Arc<[Ghost]>,
    /// The rectangle that holds them: least and greatest (east, south). Not state, but made from it.
    low: [f32; 2],
    high: [f32; 2],
    sum: u64,
}

impl Shown {
    fn new(tick: u64, heard_ms: u64, ghosts: Vec<Ghost>, sum: u64) -> Self {
        let (mut low, mut high) = ([f32::MAX; 2], [f32::MIN; 2]);
        for ghost in &ghosts {
            for (axis, at) in [ghost.body.position[0], ghost.body.position[2]].into_iter().enumerate() {
                low[axis] = low[axis].min(at);
                high[axis] = high[axis].max(at);
            }
        }
        Self { tick, heard_ms, ghosts: ghosts.into(), low, high, sum }
    }

    fn read(tick: u64, heard_ms: u64, bytes: &[u8]) -> Result<Self, CodecError> {
        if !bytes.len().is_multiple_of(GHOST_BYTES) || bytes.len() / GHOST_BYTES > GHOSTS_MAX {
            return Err(CodecError::Invalid("ghosts that are cut short, or too many"));
        }
        let mut input = Reader::new(bytes);
        let mut ghosts = Vec::with_capacity(bytes.len() / GHOST_BYTES);
        while input.left() > 0 {
            ghosts.push(Ghost::take(&mut input)?);
        }
        if ghosts.windows(2).any(|pair| pair[0].identity.entity >= pair[1].identity.entity) {
            return Err(CodecError::Invalid("ghosts that are out of order"));
        }
        Ok(Self::new(tick, heard_ms, ghosts, hash(20, bytes)))
    }

    /// Whether any of them may stand within `radius_m` of a place.
    pub(crate) fn may_reach(&self, center: [f32; 3], radius_m: f32) -> bool {
        let near = |axis: usize, at: f32| self.low[axis] - radius_m <= at && at <= self.high[axis] + radius_m;
        !self.ghosts.is_empty() && near(0, center[0]) && near(1, center[2])
    }

    fn find(&self, entity: EntityId) -> Option<&Ghost> {
        let at = self.ghosts.binary_search_by_key(&entity, |ghost| ghost.identity.entity).ok()?;
        self.ghosts.get(at)
    }

    fn bytes(&self) -> Writer {
        let mut out = Writer::new();
        self.ghosts.iter().for_each(|ghost| Ghost::put(&ghost.identity, &ghost.body, &mut out));
        out
    }
}

/// What all neighbours show.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ghosts(BTreeMap<GroupId, Shown>);

impl Ghosts {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a batch unless a newer one was taken. The bytes may be anything.
    pub(crate) fn show(&mut self, from: GroupId, tick: u64, now_ms: u64, bytes: &[u8]) -> Result<(), CodecError> {
        if self.0.get(&from).is_some_and(|shown| shown.tick >= tick) {
            return Ok(());
        }
        self.0.insert(from, Shown::read(tick, now_ms, bytes)?);
        Ok(())
    }

    /// Whoever was silent for too long shows nothing.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        for shown in self.0.values_mut() {
            if !shown.ghosts.is_empty() && is_silent(shown, now_ms) {
                *shown = Shown::new(shown.tick, shown.heard_ms, Vec::new(), hash(20, &[]));
            }
        }
    }

    /// Whether a neighbour was heard lately.
    pub(crate) fn is_heard(&self, from: GroupId, now_ms: u64) -> bool {
        self.0.get(&from).is_some_and(|shown| !is_silent(shown, now_ms))
    }

    /// Whether any neighbour shows somebody, or something that moves.
    pub(crate) fn are_lively(&self) -> bool {
        self.0.values().any(|shown| shown.ghosts.iter().any(|ghost| is_lively(&ghost.identity, &ghost.body)))
    }

    /// Whether a neighbour shows anything.
    pub(crate) fn shows(&self, from: GroupId) -> bool {
        self.0.get(&from).is_some_and(|shown| !shown.ghosts.is_empty())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (GroupId, &Shown)> {
        self.0.iter().map(|(from, shown)| (*from, shown))
    }

    /// The newest copy of an entity, and whose it is.
    pub(crate) fn find(&self, entity: EntityId) -> Option<(GroupId, &Ghost)> {
        let found = self.iter().filter_map(|(from, shown)| Some((from, shown.find(entity)?)));
        // Of several, the one that moved last; of equal ones, the first.
        found.fold(None, |best: Option<(GroupId, &Ghost)>, (from, ghost)| match best {
            Some((_, known)) if known.identity.move_number >= ghost.identity.move_number => best,
            _ => Some((from, ghost)),
        })
    }

    /// 0 while nobody ever showed anything.
    pub(crate) fn sum(&self, state: u64) -> u64 {
        self.0.iter().fold(state, |state, (from, shown)| {
            mix(mix(mix(state, from.0), mix(shown.tick, shown.heard_ms)), mix(shown.ghosts.len() as u64, shown.sum))
        })
    }

    /// The same with every ghost hashed anew.
    pub(crate) fn full_sum(&self, state: u64) -> u64 {
        let mut copy = self.clone();
        for shown in copy.0.values_mut() {
            shown.sum = hash(20, shown.bytes().as_slice());
        }
        copy.sum(state)
    }

    pub(crate) fn put(&self, out: &mut Writer) {
        out.count(self.0.len());
        for (from, shown) in &self.0 {
            out.u64(from.0);
            out.u64(shown.tick);
            out.u64(shown.heard_ms);
            out.bytes(shown.bytes().as_slice());
        }
    }

    pub(crate) fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut ghosts = Self::default();
        for _ in 0..input.count(28)? {
            let from = GroupId(input.u64()?);
            let (tick, heard_ms) = (input.u64()?, input.u64()?);
            ghosts.0.insert(from, Shown::read(tick, heard_ms, input.bytes()?)?);
        }
        Ok(ghosts)
    }
}

fn is_silent(shown: &Shown, now_ms: u64) -> bool {
    shown.heard_ms.saturating_add(NEIGHBOUR_SILENT_MS) <= now_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(entities: &[(u64, f32, u64)]) -> Vec<u8> {
        let mut out = Writer::new();
        for &(entity, x, move_number) in entities {
            let identity = Identity {
                entity: EntityId(entity),
                kind: 3,
                character: None,
                name: "".into(),
                look: Bytes::new(),
                priority: 0,
                audience: crate::entity::Audience::Public,
                move_number: MoveNumber(move_number),
            };
            Ghost::put(&identity, &Body { position: [x, 0.0, 5.0], ..Body::default() }, &mut out);
        }
        out.into_vec()
    }

    #[test]
    fn the_newest_batch_counts_until_its_region_is_silent() {
        let (mut ghosts, from) = (Ghosts::default(), GroupId(7));
        ghosts.show(from, 10, 1_000, &packed(&[(1, 2.0, 1)])).unwrap();
        ghosts.show(from, 9, 1_100, &packed(&[(2, 2.0, 1)])).unwrap();
        assert!(ghosts.find(EntityId(1)).is_some() && ghosts.find(EntityId(2)).is_none());
        ghosts.show(from, 11, 1_100, &packed(&[(2, 2.0, 1), (5, 2.0, 1)])).unwrap();
        assert!(ghosts.find(EntityId(1)).is_none() && ghosts.find(EntityId(5)).is_some());
        assert!(ghosts.is_heard(from, 2_599) && !ghosts.is_heard(from, 2_600) && !ghosts.is_heard(GroupId(8), 0));
        ghosts.expire(2_599);
        assert!(ghosts.shows(from));
        ghosts.expire(2_600);
        assert!(!ghosts.shows(from) && !ghosts.is_empty());
    }

    #[test]
    fn what_only_stands_near_a_border_is_no_reason_to_be_awake() {
        let mut ghosts = Ghosts::default();
        ghosts.show(GroupId(7), 1, 0, &packed(&[(1, 2.0, 1), (2, 3.0, 1)])).unwrap();
        assert!(ghosts.shows(GroupId(7)) && !ghosts.are_lively());
        let stands = Body::default();
        let stone = ghosts.find(EntityId(1)).unwrap().1.identity.clone();
        assert!(!is_lively(&stone, &stands) && is_lively(&stone, &Body { velocity: [0.0, 0.0, 0.1], ..stands }));
        assert!(is_lively(&Identity { character: Some(CharacterId(4)), ..stone }, &stands));
    }

    #[test]
    fn of_two_copies_the_one_that_moved_last_counts() {
        let mut ghosts = Ghosts::default();
        for (from, move_number) in [(1, 4), (2, 6), (3, 5)] {
            ghosts.show(GroupId(from), 1, 0, &packed(&[(9, 0.0, move_number)])).unwrap();
        }
        assert_eq!(ghosts.find(EntityId(9)).map(|(from, _)| from), Some(GroupId(2)));
    }

    #[test]
    fn they_survive_a_checkpoint_and_rubbish_is_refused() {
        let mut ghosts = Ghosts::default();
        assert_eq!(ghosts.sum(0), 0);
        ghosts.show(GroupId(1), 3, 50, &packed(&[(4, 1.0, 2), (5, -1.0, 2)])).unwrap();
        ghosts.show(GroupId(2), 4, 60, &[]).unwrap();
        assert_eq!(ghosts.sum(1), ghosts.full_sum(1));
        let mut out = Writer::new();
        ghosts.put(&mut out);
        let copy = Ghosts::take(&mut Reader::new(out.as_slice())).unwrap();
        assert_eq!(copy.sum(1), ghosts.sum(1));
        let good = packed(&[(4, 1.0, 2)]);
        assert!(ghosts.show(GroupId(1), 9, 0, &good[1..]).is_err());
        assert!(ghosts.show(GroupId(1), 9, 0, &vec![0; GHOST_BYTES * (GHOSTS_MAX + 1)]).is_err());
        assert!(ghosts.show(GroupId(1), 9, 0, &packed(&[(5, 1.0, 2), (4, 1.0, 2)])).is_err());
        let far = packed(&[(4, f32::NAN, 2)]);
        assert!(ghosts.show(GroupId(1), 9, 0, &far).is_err());
        assert_eq!(ghosts.sum(1), copy.sum(1));
    }
}
