//! [`LogWriter`]: the one writer of a node's raft log.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use marchland_types::{GroupId, planted, point};

use super::clean::Cleaning;
use super::error::OpenError;
use super::format::{BATCH_HEADER_BYTES, BatchHeader, Marks, Place, SegmentHeader, padded};
use super::options::LogOptions;
use super::record::Record;
use super::recover::{Kept, recover};
use super::segment::{Spare, is_full, second_spare_path, segment_path, spare_path};
use super::shared::{Inner, Queued};
use crate::disk::{Disk, DiskFile, create_dir_synced};
use crate::raft_log::LogError;

/// What one call of [`LogWriter::turn`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There was nothing to do.
    Idle,
    /// Something was written or tidied up; there may be more.
    Wrote {
        /// Operations that were completed.
        operations: usize,
        /// Bytes written.
        bytes: u64,
    },
    /// The disk has no room. Nothing was lost or refused that was taken on before; try again later.
    Stalled,
    /// A write or sync failed, now or earlier; nothing is written any more.
    Poisoned,
    /// Every handle is gone and everything is written: run no more.
    Closed,
}

/// The one writer of a node's raft log.
///
/// Synchronous: [`LogWriter::turn`] drains the queue, writes once, syncs once and calls every callback.
/// [`LogWriter::run_thread`] and [`LogWriter::run_task`] call it when there is work.
pub struct LogWriter<D: Disk> {
    pub(super) disk: D,
    pub(super) dir: PathBuf,
    pub(super) options: LogOptions,
    pub(super) shared: Arc<Inner>,
    file: D::File,
    /// Where the next batch goes.
    pub(super) end: Place,
    /// Size of the current segment.
    size_bytes: u64,
    salt: u64,
    /// Everything before this is on disk.
    synced: Place,
    batch: u64,
    /// Marks as far as they are written, for the header of the next segment.
    marks: BTreeMap<GroupId, Marks>,
    pub(super) segments: BTreeMap<u64, Kept>,
    pub(super) journals: BTreeMap<u64, Kept>,
    pub(super) spare: Spare<D::File>,
    /// There is another one, `second.spare`, of the usual size.
    pub(super) second_spare: bool,
    /// The preparation of a spare failed for lack of room; it is tried again with the next segment.
    pub(super) spare_refused: bool,
    /// Old segments may be due.
    pub(super) clean_wanted: bool,
    /// Carried entries did not fit any more: continue in a new segment.
    roll_wanted_bytes: Option<u64>,
    buffer: Vec<u8>,
    free_age: FreeAge,
}

/// What happened since the free space was looked at.
#[derive(Clone, Copy, Debug, Default)]
struct FreeAge {
    turns: u32,
    bytes: u64,
}

/// The free space is looked at again after this many turns, for others write to the same disk,
const FREE_MAX_TURNS: u32 = 16;
/// and after this many bytes of our own. Both are far below the reserve, which is what they may eat into.
const FREE_MAX_BYTES: u64 = 256 * 1024;

/// What was taken off the queue for one batch.
#[derive(Default)]
struct Taken {
    operations: Vec<Queued>,
    bytes: u64,
    cleaning: Cleaning,
}

impl<D: Disk> LogWriter<D> {
    pub(super) fn open(disk: D, dir: &Path, mut options: LogOptions, shared: Arc<Inner>) -> Result<Self, OpenError> {
        options.segment_bytes = padded(options.segment_bytes);
        create_dir_synced(&disk, dir).map_err(OpenError::io(dir))?;
        let mut recovered = recover(&disk, dir, &options)?;
        if recovered.cleared_bytes > 0 {
            tracing::info!(dir = %dir.display(), bytes = recovered.cleared_bytes, "cleared what lay behind the end of the raft log");
        }
        let free_bytes = disk.free_bytes(dir).map_err(OpenError::io(dir))?;
        let marks = recovered
            .groups
            .iter()
            .map(|(id, group)| {
                let state = group.state();
                (*id, Marks { vote: state.vote, committed: state.committed, purged: state.purged })
            })
            .collect();
        let fresh = recovered.tail.is_none();
        let (file, end, size_bytes, salt, batch) = match recovered.tail.take() {
            Some(tail) => (tail.file, tail.end, tail.size_bytes, tail.salt, tail.batch),
            None => {
                let place = Place { segment: 1, offset: 0 };
                let (file, end, size_bytes) = new_segment(&disk, dir, &options, &mut recovered.spare, place, &BTreeMap::new(), 0)
                    .map_err(OpenError::io(dir))?;
                (file, Place { segment: 1, offset: end }, size_bytes, options.salt, 0)
            }
        };
        if fresh {
            recovered.segments.insert(1, Kept { size_bytes, created_ms: now_ms(&options) });
        }
        {
            let mut state = shared.lock();
            state.live_bytes = recovered.groups.values().map(super::memory::GroupLog::bytes).sum();
            state.groups = recovered.groups;
            state.current_segment = end.segment;
            state.free_bytes = free_bytes;
        }
        Ok(Self {
            disk,
            dir: dir.to_owned(),
            options,
            shared,
            file,
            end,
            size_bytes,
            salt,
            synced: end,
            batch,
            marks,
            segments: recovered.segments,
            journals: recovered.journals,
            spare: recovered.spare,
            second_spare: recovered.second_spare,
            spare_refused: false,
            clean_wanted: true,
            roll_wanted_bytes: None,
            buffer: Vec::new(),
            free_age: FreeAge::default(),
        })
    }

    /// Drains the queue, writes once, syncs once, calls every callback, and tidies up a little.
    pub fn turn(&mut self) -> Turn {
        self.refresh_free();
        let first_bytes = {
            let state = self.shared.lock();
            if state.poisoned.is_some() {
                return if state.handles_gone { Turn::Closed } else { Turn::Poisoned };
            }
            state.queue.front().map(|queued| queued.bytes)
        };
        let needed_bytes = padded(BATCH_HEADER_BYTES as u64 + first_bytes.max(self.roll_wanted_bytes).unwrap_or(0));
        let is_full_segment = first_bytes.is_some() && self.end.offset + needed_bytes > self.size_bytes;
        if is_full_segment || self.roll_wanted_bytes.is_some() {
            match self.roll(needed_bytes) {
                Ok(()) => {}
                Err(error) if is_full(&error) => return self.stalled(),
                Err(error) => return self.poison("new segment", &error),
            }
        }
        let mut taken = self.take();
        let (operations, batch_bytes) = (taken.operations.len(), taken.bytes);
        if let Err((what, error)) = self.write(&mut taken) {
            self.fail(taken.operations, &format!("{what}: {error}"));
            return self.poison(what, &error);
        }
        self.shared.counters.operations.fetch_add(operations as u64, Ordering::Relaxed);
        for done in taken.operations.into_iter().filter_map(|queued| queued.done) {
            done(Ok(()));
        }
        match self.tidy(&taken.cleaning, batch_bytes) {
            Err((what, error)) => self.poison(what, &error),
            Ok(tidied) if tidied || operations > 0 || taken.cleaning.more => Turn::Wrote { operations, bytes: batch_bytes },
            Ok(_) => {
                let state = self.shared.lock();
                if state.handles_gone && state.queue.is_empty() { Turn::Closed } else { Turn::Idle }
            }
        }
    }

    /// Whether another turn would find something to do.
    pub(super) fn has_work(&self) -> bool {
        !self.shared.lock().queue.is_empty()
    }

    /// Whether room is short, so that the free space must be looked at again without anybody asking.
    pub(super) fn is_short_of_room(&self) -> bool {
        self.shared.lock().free_bytes < self.options.reserve_bytes
    }

    /// Looks at the free space again, if what was known of it may be out of date.
    fn refresh_free(&mut self) {
        let is_due = self.free_age.turns >= FREE_MAX_TURNS || self.free_age.bytes >= FREE_MAX_BYTES || self.is_short_of_room();
        if !is_due {
            self.free_age.turns += 1;
            return;
        }
        if let Ok(free_bytes) = self.disk.free_bytes(&self.dir) {
            self.shared.lock().free_bytes = free_bytes;
            self.free_age = FreeAge::default();
        }
    }

    /// Takes as much off the queue as fits in the current segment, and decides about old segments if nothing remains.
    fn take(&mut self) -> Taken {
        let space = self.size_bytes.saturating_sub(self.end.offset + BATCH_HEADER_BYTES as u64);
        let mut taken = Taken::default();
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        while state.queue.front().is_some_and(|queued| taken.bytes + queued.bytes <= space) {
            let queued = state.queue.pop_front().expect("looked at");
            taken.bytes += queued.bytes;
            state.queue_bytes -= queued.bytes;
            self.clean_wanted |= matches!(queued.record, Record::Purge(_) | Record::Forget);
            taken.operations.push(queued);
        }
        if !state.queue.is_empty() {
            return taken;
        }
        // From here on memory and what this batch makes of the disk are the same.
        while let Some(group) = state.committed_dirty.first().copied() {
            let record = Record::Committed(state.groups.get(&group).and_then(super::memory::GroupLog::committed));
            let bytes = record.encoded_bytes();
            if taken.operations.is_empty() && !self.clean_wanted || taken.bytes + bytes > space {
                break;
            }
            taken.bytes += bytes;
            taken.operations.push(Queued { group, record, bytes, done: None });
            state.committed_dirty.remove(&group);
        }
        self.clean_wanted |= self.segments.keys().next().is_some_and(|oldest| *oldest <= state.superseded);
        if self.clean_wanted {
            taken.cleaning = Cleaning::plan(state, &self.segments, self.options.segment_bytes, space - taken.bytes);
            self.clean_wanted = taken.cleaning.more;
            self.roll_wanted_bytes = taken.cleaning.needs_segment_bytes;
            taken.bytes += taken.cleaning.carried_bytes;
        }
        taken
    }

    /// Writes what was taken as one batch and syncs if any of it asks for that.
    fn write(&mut self, taken: &mut Taken) -> Result<(), (&'static str, io::Error)> {
        let records = taken.operations.len() + taken.cleaning.carried.len();
        if records > 0 {
            self.buffer.clear();
            self.buffer.resize(BATCH_HEADER_BYTES, 0);
            let mut must_sync = taken.cleaning.retire.is_some();
            for queued in &taken.operations {
                queued.record.encode(queued.group, &mut self.buffer);
                must_sync |= queued.record.must_be_synced();
                self.mark(queued.group, &queued.record);
            }
            for (group, record) in &taken.cleaning.carried {
                record.encode(*group, &mut self.buffer);
                must_sync = true;
            }
            self.write_batch(records as u32).map_err(|error| ("write", error))?;
            if must_sync {
                self.sync().map_err(|error| ("sync", error))?;
            }
            self.shared.counters.carried_bytes.fetch_add(taken.cleaning.carried_bytes, Ordering::Relaxed);
        } else if taken.cleaning.retire.is_some() {
            self.sync().map_err(|error| ("sync", error))?;
        }
        Ok(())
    }

    /// Writes the buffer, which has room for the header, as the next batch.
    fn write_batch(&mut self, records: u32) -> io::Result<()> {
        let header = BatchHeader { place: self.end, synced: self.synced, batch: self.batch, records, ..BatchHeader::default() };
        header.seal(self.salt, &mut self.buffer);
        self.buffer.resize(padded(self.buffer.len() as u64) as usize, 0);
        point!("log.before_write");
        self.file.write_all_at(&self.buffer, self.end.offset)?;
        point!("log.written");
        self.end.offset += self.buffer.len() as u64;
        self.free_age.bytes += self.buffer.len() as u64;
        self.batch += 1;
        self.shared.counters.batches.fetch_add(1, Ordering::Relaxed);
        self.shared.counters.bytes.fetch_add(self.buffer.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Syncs the current segment, unless that would say nothing new.
    fn sync(&mut self) -> io::Result<()> {
        if self.synced != self.end {
            self.file.sync_data()?;
            self.synced = self.end;
            self.shared.counters.syncs.fetch_add(1, Ordering::Relaxed);
            point!("log.synced");
        }
        Ok(())
    }

    fn mark(&mut self, group: GroupId, record: &Record) {
        match record {
            // Planted: the next segment's header repeats no vote, which is lost with the segment that has it.
            Record::Vote(_) if planted!("vote-lost-with-segment") => {}
            Record::Vote(vote) => self.marks.entry(group).or_default().vote = Some(vote.clone()),
            Record::Purge(to) => {
                let purged = &mut self.marks.entry(group).or_default().purged;
                if purged.is_none_or(|purged| purged.index < to.index) {
                    *purged = Some(*to);
                }
            }
            Record::Committed(committed) => self.marks.entry(group).or_default().committed = *committed,
            Record::Forget => {
                self.marks.remove(&group);
            }
            Record::Append(_) | Record::TruncateAfter(_) | Record::Carry(_) => {
                self.marks.entry(group).or_default();
            }
        }
    }

    /// Goes on in a new segment with room for at least `needed_bytes` behind its header.
    fn roll(&mut self, needed_bytes: u64) -> io::Result<()> {
        self.sync()?;
        let place = Place { segment: self.end.segment + 1, offset: 0 };
        let made = self.make_segment(place, needed_bytes);
        let (file, offset, size_bytes) = match made {
            Err(error) if is_full(&error) && !self.journals.is_empty() => {
                // What is kept for replay gives way to what must not be lost.
                self.drop_journals()?;
                self.make_segment(place, needed_bytes)?
            }
            made => made?,
        };
        self.file = file;
        self.size_bytes = size_bytes;
        self.salt = self.options.salt;
        self.end = Place { offset, ..place };
        self.synced = self.end;
        self.segments.insert(place.segment, Kept { size_bytes, created_ms: now_ms(&self.options) });
        self.shared.lock().current_segment = place.segment;
        self.spare_refused = false;
        self.clean_wanted = true;
        self.roll_wanted_bytes = None;
        point!("log.segment_rolled");
        Ok(())
    }

    fn make_segment(&mut self, place: Place, needed_bytes: u64) -> io::Result<(D::File, u64, u64)> {
        self.move_up_second_spare()?;
        let synced = self.synced;
        let (file, offset, size_bytes) =
            new_segment_after(&self.disk, &self.dir, &self.options, &mut self.spare, place, synced, &self.marks, needed_bytes)?;
        Ok((file, offset, size_bytes))
    }

    /// Makes the second spare the next one, if there is no next one.
    pub(super) fn move_up_second_spare(&mut self) -> io::Result<()> {
        if self.second_spare && !matches!(self.spare, Spare::Ready { .. }) {
            self.spare.discard(&self.disk, &self.dir)?;
            self.disk.rename(&second_spare_path(&self.dir), &spare_path(&self.dir))?;
            self.second_spare = false;
            self.spare = Spare::Ready { size_bytes: self.options.segment_bytes };
        }
        Ok(())
    }

    fn stalled(&self) -> Turn {
        if self.shared.lock().handles_gone {
            return Turn::Closed;
        }
        tracing::warn!(dir = %self.dir.display(), "no room for another segment of the raft log; waiting");
        Turn::Stalled
    }

    /// Fails everything that waits, and everything to come.
    fn poison(&mut self, what: &'static str, error: &io::Error) -> Turn {
        let reason = format!("{what}: {error}");
        tracing::error!(dir = %self.dir.display(), reason, "raft log failed; the node must stop");
        let waiting = {
            let mut state = self.shared.lock();
            state.poisoned.get_or_insert(reason.clone());
            state.queue_bytes = 0;
            std::mem::take(&mut state.queue)
        };
        self.fail(waiting.into(), &reason);
        Turn::Poisoned
    }

    fn fail(&self, operations: Vec<Queued>, reason: &str) {
        self.shared.lock().poisoned.get_or_insert(reason.to_owned());
        for done in operations.into_iter().filter_map(|queued| queued.done) {
            done(Err(LogError::Poisoned(reason.to_owned())));
        }
    }

    /// Ends a clean run with an empty batch, which proves that everything before it was on disk: damage there is rot from now on.
    pub(super) fn seal(&mut self) {
        if self.shared.lock().poisoned.is_some() || self.end.offset + padded(BATCH_HEADER_BYTES as u64) > self.size_bytes {
            return;
        }
        self.buffer.clear();
        self.buffer.resize(BATCH_HEADER_BYTES, 0);
        let sealed = self.sync().and_then(|()| self.write_batch(0)).and_then(|()| self.sync());
        if let Err(error) = sealed {
            self.poison("seal", &error);
        }
    }
}

impl<D: Disk> Drop for LogWriter<D> {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.shared.lock();
            state.writer_gone = true;
            state.queue_bytes = 0;
            std::mem::take(&mut state.queue)
        };
        for done in waiting.into_iter().filter_map(|queued| queued.done) {
            done(Err(LogError::Closed));
        }
    }
}

pub(super) fn now_ms(options: &LogOptions) -> u64 {
    options.wall_clock.as_ref().map_or(0, |clock| clock())
}

fn new_segment<D: Disk>(
    disk: &D,
    dir: &Path,
    options: &LogOptions,
    spare: &mut Spare<D::File>,
    place: Place,
    marks: &BTreeMap<GroupId, Marks>,
    needed_bytes: u64,
) -> io::Result<(D::File, u64, u64)> {
    new_segment_after(disk, dir, options, spare, place, Place::default(), marks, needed_bytes)
}

/// Makes the segment at `place` out of the spare. Its header is on disk before its name is, so a name stands for a header.
#[expect(clippy::too_many_arguments, reason = "the parts of a writer, half of which does not exist at the first call")]
fn new_segment_after<D: Disk>(
    disk: &D,
    dir: &Path,
    options: &LogOptions,
    spare: &mut Spare<D::File>,
    place: Place,
    synced: Place,
    marks: &BTreeMap<GroupId, Marks>,
    needed_bytes: u64,
) -> io::Result<(D::File, u64, u64)> {
    let header = SegmentHeader {
        salt: options.salt,
        number: place.segment,
        created_ms: now_ms(options),
        synced,
        marks: marks.iter().map(|(group, marks)| (*group, marks.clone())).collect(),
    }
    .encode();
    let size_bytes = options.segment_bytes.max(padded(header.len() as u64 + needed_bytes));
    let fits = match spare {
        Spare::None => true,
        Spare::Filling { size_bytes: size, .. } | Spare::Ready { size_bytes: size } => *size >= size_bytes,
    };
    if !fits {
        spare.discard(disk, dir)?;
    }
    spare.begin(disk, dir, size_bytes)?;
    spare.fill(disk, dir, u64::MAX)?;
    let Spare::Ready { size_bytes } = *spare else { return Err(io::Error::other("spare segment is not ready")) };
    let path = segment_path(dir, place.segment);
    let mut file = disk.open(&spare_path(dir))?;
    file.write_all_at(&header, 0)?;
    file.sync_data()?;
    disk.rename(&spare_path(dir), &path)?;
    *spare = Spare::None;
    disk.sync_dir(dir)?;
    Ok((file, header.len() as u64, size_bytes))
}
