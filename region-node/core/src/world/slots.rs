//! Which slots are taken. A slot that came free is not used again within its tick, so that "left" and "appeared" of one
//! tick never speak of the same slot.

use crate::codec::{CodecError, Reader, Row, Writer};
use crate::entity::ENTITIES_MAX;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slots {
    /// Slots that were ever used: all of them are below.
    pub(crate) end: u32,
    /// Slots below `end` that are free; the last one is used next.
    free: Vec<u32>,
    /// Slots that came free in this tick.
    resting: Vec<u32>,
    pub(crate) changed: bool,
}

/// How a slot was taken or freed, so that it can be undone.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SlotChange {
    /// It is the newest slot.
    Fresh,
    /// It came from the free list.
    Reused(u32),
    /// It was freed.
    Freed,
}

impl Slots {
    /// No slot was ever used.
    pub(crate) fn new() -> Self {
        Self { changed: true, ..Self::default() }
    }

    /// Takes a slot, or `None` when there is no room.
    pub(crate) fn acquire(&mut self) -> Option<(u32, SlotChange)> {
        let taken = if let Some(slot) = self.free.pop() {
            (slot, SlotChange::Reused(slot))
        } else if self.end < ENTITIES_MAX {
            self.end += 1;
            (self.end - 1, SlotChange::Fresh)
        } else {
            return None;
        };
        self.changed = true;
        Some(taken)
    }

    pub(crate) fn free(&mut self, slot: u32) -> SlotChange {
        self.changed = true;
        self.resting.push(slot);
        SlotChange::Freed
    }

    /// Undoes the newest change.
    pub(crate) fn undo(&mut self, change: SlotChange) {
        match change {
            SlotChange::Fresh => self.end -= 1,
            SlotChange::Reused(slot) => self.free.push(slot),
            SlotChange::Freed => {
                self.resting.pop();
            }
        }
    }

    /// At the end of a tick, what came free in it may be used again.
    pub(crate) fn rested(&mut self) {
        self.free.append(&mut self.resting);
    }

    /// Free slots, resting ones included.
    pub(crate) fn free_slots(&self) -> impl Iterator<Item = u32> {
        self.free.iter().chain(&self.resting).copied()
    }
}

impl Row for Slots {
    fn put(&self, out: &mut Writer) {
        out.u32(self.end);
        out.count(self.free.len() + self.resting.len());
        for slot in self.free_slots() {
            out.u32(slot);
        }
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let end = input.u32()?;
        let mut free = Vec::new();
        for _ in 0..input.count(4)? {
            free.push(input.u32()?);
        }
        let mut sorted = free.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if end > ENTITIES_MAX || sorted.len() != free.len() || sorted.last().is_some_and(|slot| *slot >= end) {
            return Err(CodecError::Invalid("the free list is not one"));
        }
        Ok(Self { end, free, resting: Vec::new(), changed: true })
    }
}
