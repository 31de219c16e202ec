//! The small part of the state: clocks, counters, versions. It is hashed whole at every tick.

use std::collections::VecDeque;

use marchland_types::{CutNumber, LogIndex, MapEpoch, Tick, planted};

use crate::codec::{CodecError, Reader, Row, Writer};
use crate::inventory::Ledger;

/// Ids of admin orders that are remembered, so that one that comes twice is taken once.
pub(crate) const ORDERS_REMEMBERED: usize = 256;

/// New rules that wait for their nodes: ticks have no effect meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierTo {
    /// Rules version after the barrier.
    pub rules_version: u64,
    /// Content hash after the barrier.
    pub content_hash: u64,
}

/// What happened that somebody should look at. Part of the state, so every replica counts alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries that an operator had skipped.
    pub skipped_entries: u64,
    /// Ticks that came while a barrier was up and had no effect.
    pub barred_ticks: u64,
    /// Handlers of the game that panicked; each was undone.
    pub panics: u64,
    /// Messages that came in order and could not be used; they were acknowledged and their content refused.
    pub messages_refused: u64,
    /// Handoffs that were sent back because this region takes none.
    pub handoffs_returned: u64,
    /// Handoffs that could neither be taken nor sent back; they are kept.
    pub handoffs_set_aside: u64,
    /// Posts that were refused because the channel was full.
    pub posts_refused: u64,
    /// Characters that were not admitted because the region was full.
    pub admissions_refused: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Core {
    pub(crate) applied: LogIndex,
    pub(crate) tick: Tick,
    pub(crate) now_ms: u64,
    pub(crate) cut: CutNumber,
    pub(crate) rules_version: u64,
    pub(crate) content_hash: u64,
    pub(crate) map_epoch: MapEpoch,
    pub(crate) barrier: Option<BarrierTo>,
    /// When the region is to be woken, while it sleeps.
    pub(crate) asleep_until_ms: Option<u64>,
    pub(crate) next_entity: u64,
    pub(crate) next_item: u64,
    pub(crate) next_timer: u64,
    pub(crate) ledger: Ledger,
    pub(crate) counters: Counters,
    pub(crate) orders: VecDeque<u64>,
}

impl Row for Core {
    fn put(&self, out: &mut Writer) {
        out.u64(self.applied.0);
        out.u64(self.tick.0);
        out.u64(self.now_ms);
        out.u64(self.cut.0);
        out.u64(self.rules_version);
        out.u64(self.content_hash);
        out.u64(self.map_epoch.0);
        out.bool(self.barrier.is_some());
        if let Some(barrier) = self.barrier {
            out.u64(barrier.rules_version);
            out.u64(barrier.content_hash);
        }
        out.bool(self.asleep_until_ms.is_some());
        if let Some(until_ms) = self.asleep_until_ms {
            out.u64(until_ms);
        }
        for value in [self.next_entity, self.next_item, self.next_timer] {
            out.u64(value);
        }
        for value in [self.ledger.minted, self.ledger.destroyed, self.ledger.arrived, self.ledger.left] {
            out.u64(value);
        }
        let counters = &self.counters;
        for value in [
            counters.skipped_entries,
            counters.barred_ticks,
            counters.panics,
            counters.messages_refused,
            counters.handoffs_returned,
            counters.handoffs_set_aside,
            counters.posts_refused,
            counters.admissions_refused,
        ] {
            out.u64(value);
        }
        out.count(self.orders.len());
        for order in &self.orders {
            out.u64(*order);
        }
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut core = Self {
            applied: LogIndex(input.u64()?),
            tick: Tick(input.u64()?),
            now_ms: input.u64()?,
            cut: CutNumber(input.u64()?),
            rules_version: input.u64()?,
            content_hash: input.u64()?,
            map_epoch: MapEpoch(input.u64()?),
            ..Self::default()
        };
        if input.bool()? {
            core.barrier = Some(BarrierTo { rules_version: input.u64()?, content_hash: input.u64()? });
        }
        if input.bool()? {
            let until_ms = input.u64()?;
            core.asleep_until_ms = Some(until_ms).filter(|_| !planted!("sleep-not-in-checkpoint"));
        }
        (core.next_entity, core.next_item, core.next_timer) = (input.u64()?, input.u64()?, input.u64()?);
        core.ledger = Ledger { minted: input.u64()?, destroyed: input.u64()?, arrived: input.u64()?, left: input.u64()? };
        core.counters = Counters {
            skipped_entries: input.u64()?,
            barred_ticks: input.u64()?,
            panics: input.u64()?,
            messages_refused: input.u64()?,
            handoffs_returned: input.u64()?,
            handoffs_set_aside: input.u64()?,
            posts_refused: input.u64()?,
            admissions_refused: input.u64()?,
        };
        for _ in 0..input.count(8)? {
            core.orders.push_back(input.u64()?);
        }
        Ok(core)
    }
}
