//! What happens to old segments: live entries are copied forward, the segment becomes journal, the journal becomes a spare.
//!
//! Only the oldest segment goes, and only when nothing in it is live: its marks stand in the header of the next one. A decision is
//! taken under the lock, at a moment when the queue is empty, so that memory says exactly what the disk will say after the
//! batch; it is carried out after that batch, or, without one, whatever was written before, has been synced. The copies of one
//! turn are bounded, so that nobody waits long for them.

use std::collections::BTreeMap;
use std::io;

use marchland_types::{GroupId, point};

use super::record::Record;
use super::recover::Kept;
use super::segment::{Spare, is_full, journal_path, second_spare_path, segment_path};
use super::shared::State;
use super::writer::{LogWriter, now_ms};
use crate::disk::Disk;

/// Entry bytes that are copied forward in one turn.
const CARRY_BYTES: u64 = 1024 * 1024;
/// Zeros written to the spare in one turn, at least; and at least thrice what the turn wrote, so that the spare is ready in time.
const FILL_BYTES: u64 = 32 * 1024;
/// Segments beyond twice the live data that may pile up before live data is copied.
const SLACK_SEGMENTS: u64 = 4;

/// What one turn does about old segments.
#[derive(Default)]
pub(super) struct Cleaning {
    /// Copies for this batch.
    pub carried: Vec<(GroupId, Record)>,
    pub carried_bytes: u64,
    /// This segment holds nothing live once the batch is on disk.
    pub retire: Option<u64>,
    /// Look again at the next turn.
    pub more: bool,
    /// The current segment has no room for the next copy, which takes this many bytes.
    pub needs_segment_bytes: Option<u64>,
}

impl Cleaning {
    /// Decides about the oldest segment. The queue is empty. `space_bytes` remain in the current segment.
    pub fn plan(state: &mut State, segments: &BTreeMap<u64, Kept>, segment_bytes: u64, space_bytes: u64) -> Self {
        let mut cleaning = Self::default();
        let Some(oldest) = segments.keys().next().copied().filter(|oldest| *oldest < state.current_segment) else {
            return cleaning;
        };
        let total_bytes: u64 = segments.values().map(|kept| kept.size_bytes).sum();
        let may_carry = oldest <= state.superseded
            || total_bytes > state.live_bytes.saturating_mul(2).saturating_add(SLACK_SEGMENTS * segment_bytes);
        let mut live = false;
        for (id, group) in &mut state.groups {
            while group.lives_in(oldest) {
                live = true;
                if !may_carry {
                    break;
                }
                let next_bytes = group.peek_carry_bytes(oldest);
                if cleaning.carried_bytes + next_bytes > CARRY_BYTES.min(space_bytes) && !cleaning.carried.is_empty() {
                    break;
                }
                if next_bytes > space_bytes {
                    cleaning.needs_segment_bytes = Some(next_bytes);
                    break;
                }
                let room = CARRY_BYTES.min(space_bytes) - cleaning.carried_bytes.min(CARRY_BYTES);
                let record = Record::Carry(group.carry(oldest, state.current_segment, room));
                cleaning.carried_bytes += record.encoded_bytes();
                cleaning.carried.push((*id, record));
                live = false;
            }
            if live {
                break;
            }
        }
        if !live {
            cleaning.retire = Some(oldest);
        }
        cleaning.more = cleaning.retire.is_some() || !cleaning.carried.is_empty() || cleaning.needs_segment_bytes.is_some();
        cleaning
    }
}

impl<D: Disk> LogWriter<D> {
    /// Carries out what was planned, now that it is synced, and prepares the next segment. Whether anything was done.
    pub(super) fn tidy(&mut self, cleaning: &Cleaning, batch_bytes: u64) -> Result<bool, (&'static str, io::Error)> {
        if !cleaning.carried.is_empty() {
            point!("log.copy_forward");
        }
        if let Some(segment) = cleaning.retire {
            self.retire(segment).map_err(|error| ("retire segment", error))?;
            return Ok(true);
        }
        self.prepare(batch_bytes).map_err(|error| ("prepare segment", error))
    }

    fn retire(&mut self, segment: u64) -> io::Result<()> {
        point!("log.before_delete");
        let Some(kept) = self.segments.remove(&segment) else { return Ok(()) };
        self.disk.rename(&segment_path(&self.dir, segment), &journal_path(&self.dir, segment))?;
        // One rename at a time: a hole in the sequence would look like a loss.
        self.disk.sync_dir(&self.dir)?;
        self.journals.insert(segment, kept);
        let now_ms = now_ms(&self.options);
        loop {
            let kept_bytes: u64 = self.journals.values().map(|kept| kept.size_bytes).sum();
            let Some((oldest, kept)) = self.journals.first_key_value() else { return Ok(()) };
            let is_old = self.options.retain_ms > 0 && now_ms.saturating_sub(kept.created_ms) > self.options.retain_ms;
            if kept_bytes <= self.options.retain_bytes && !is_old {
                return Ok(());
            }
            let (oldest, size_bytes) = (*oldest, kept.size_bytes);
            self.drop_journal(oldest, size_bytes)?;
        }
    }

    fn drop_journal(&mut self, number: u64, size_bytes: u64) -> io::Result<()> {
        let path = journal_path(&self.dir, number);
        if !self.second_spare && size_bytes == self.options.segment_bytes {
            // Written again it costs nothing; a new file must be filled, and a large one takes the file system long to remove.
            self.disk.rename(&path, &second_spare_path(&self.dir))?;
            self.second_spare = true;
            self.move_up_second_spare()?;
        } else {
            self.disk.remove(&path)?;
        }
        self.journals.remove(&number);
        self.disk.sync_dir(&self.dir)
    }

    /// Gives all retained segments back: the first two are the next segments, the others go to the file system.
    pub(super) fn drop_journals(&mut self) -> io::Result<()> {
        while let Some((number, kept)) = self.journals.first_key_value() {
            let (number, size_bytes) = (*number, kept.size_bytes);
            self.drop_journal(number, size_bytes)?;
        }
        Ok(())
    }

    /// Prepares the next segment piece by piece, once half of the current one is used: until then an old one may come free.
    fn prepare(&mut self, batch_bytes: u64) -> io::Result<bool> {
        let size_bytes = self.options.segment_bytes;
        if self.spare_refused || matches!(self.spare, Spare::Ready { .. }) || self.end.offset < size_bytes / 2 {
            return Ok(false);
        }
        if matches!(self.spare, Spare::None) {
            // Leave the reserve alone; a segment that is really needed may use it.
            let free_bytes = self.disk.free_bytes(&self.dir)?;
            if free_bytes < self.options.reserve_bytes.saturating_add(size_bytes) {
                self.spare_refused = true;
                return Ok(false);
            }
            self.spare.begin(&self.disk, &self.dir, size_bytes)?;
        }
        match self.spare.fill(&self.disk, &self.dir, FILL_BYTES.max(batch_bytes * 3)) {
            Err(error) if is_full(&error) => {
                self.spare_refused = true;
                Ok(false)
            }
            result => result.map(|()| true),
        }
    }
}
