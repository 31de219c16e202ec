//! Timers: the game's deadlines in region time, in the order in which they fall due.

use std::collections::BTreeMap;
use std::sync::Arc;

use marchland_types::EntityId;

use crate::codec::{CodecError, Reader, Row, Writer};
use crate::hash::{hash, mix};

/// Timers that one region holds.
pub const TIMERS_MAX: usize = 1 << 20;

/// Names a timer: when it is due, and a number that tells apart those due at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerId {
    /// Region time in milliseconds.
    pub due_ms: u64,
    /// Counts the region's timers.
    pub number: u64,
}

/// What the game is told when time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// The entity that it belongs to: it goes where that one goes, and ceases with it.
    pub entity: Option<EntityId>,
    /// The game's.
    pub code: u32,
    /// The game's.
    pub argument: u64,
}

impl Row for Timer {
    fn put(&self, out: &mut Writer) {
        out.u64(self.entity.map_or(0, |entity| entity.0));
        out.u32(self.code);
        out.u64(self.argument);
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            entity: Some(EntityId(input.u64()?)).filter(|entity| entity.0 != 0),
            code: input.u32()?,
            argument: input.u64()?,
        })
    }
}

/// All timers of a region.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers {
    by_time: Arc<BTreeMap<TimerId, Timer>>,
    sum: u64,
}

fn timer_hash(id: TimerId, timer: &Timer) -> u64 {
    let mut out = Writer::new();
    timer.put(&mut out);
    hash(mix(id.due_ms, id.number), out.as_slice())
}

impl Timers {
    pub(crate) fn len(&self) -> usize {
        self.by_time.len()
    }

    pub(crate) fn insert(&mut self, id: TimerId, timer: Timer) {
        self.sum = self.sum.wrapping_add(timer_hash(id, &timer));
        if let Some(old) = Arc::make_mut(&mut self.by_time).insert(id, timer) {
            self.sum = self.sum.wrapping_sub(timer_hash(id, &old));
        }
    }

    pub(crate) fn remove(&mut self, id: TimerId) -> Option<Timer> {
        if !self.by_time.contains_key(&id) {
            return None;
        }
        let old = Arc::make_mut(&mut self.by_time).remove(&id)?;
        self.sum = self.sum.wrapping_sub(timer_hash(id, &old));
        Some(old)
    }

    /// The first timer that is due and older than `below`, the number that the next new one would get.
    pub(crate) fn due(&self, now_ms: u64, below: u64) -> Option<TimerId> {
        self.by_time.keys().take_while(|id| id.due_ms <= now_ms).find(|id| id.number < below).copied()
    }

    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.by_time.keys().next().map(|id| id.due_ms)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TimerId, &Timer)> {
        self.by_time.iter()
    }

    pub(crate) fn of(&self, entity: EntityId) -> Vec<(TimerId, Timer)> {
        self.by_time.iter().filter(|(_, timer)| timer.entity == Some(entity)).map(|(id, timer)| (*id, *timer)).collect()
    }

    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }

    pub(crate) fn full_sum(&self) -> u64 {
        self.by_time.iter().fold(0, |sum, (id, timer)| sum.wrapping_add(timer_hash(*id, timer)))
    }

    pub(crate) fn put(&self, out: &mut Writer) {
        out.count(self.by_time.len());
        for (id, timer) in self.by_time.iter() {
            out.u64(id.due_ms);
            out.u64(id.number);
            timer.put(out);
        }
    }

    pub(crate) fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut timers = Self::default();
        for _ in 0..input.count(36)? {
            let id = TimerId { due_ms: input.u64()?, number: input.u64()? };
            timers.insert(id, Timer::take(input)?);
        }
        Ok(timers)
    }
}
