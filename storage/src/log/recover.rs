//! Opening a log: read every segment, tell rot from a torn tail, write the tail anew, sync, and only then report.
//!
//! ```text
//!   segment n (older)                     segment n+1 (last)
//!   [header][batch][batch]|               [header][batch][batch][batch]xxxx000
//!                         └ its end is in n+1's header       │      │   └ X: first bytes that are no batch
//!                                                            │      └ may be unsynced: written anew
//!                                                            └ H: highest synced end that any header names
//! ```
//! X below H is rot. Otherwise everything from X on is zeroed, H..X is written again, and the file is synced.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use marchland_types::{GroupId, planted};

use super::error::OpenError;
use super::format::{FORMAT_VERSION, HeaderFault, Place, SegmentHeader};
use super::memory::GroupLog;
use super::options::LogOptions;
use super::replay::{Batches, Replay, records};
use super::segment::{FileKind, Spare, kind, part_path, read_file, second_spare_path, segment_path, spare_path};
use crate::disk::{Disk, DiskFile};

/// A purged segment that is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub size_bytes: u64,
    pub created_ms: u64,
}

/// The last segment, to be continued.
pub(super) struct Tail<F> {
    pub file: F,
    pub salt: u64,
    pub end: Place,
    pub size_bytes: u64,
    pub batch: u64,
}

/// What was found.
pub(super) struct Recovered<F> {
    pub groups: BTreeMap<GroupId, GroupLog>,
    pub segments: BTreeMap<u64, Kept>,
    pub journals: BTreeMap<u64, Kept>,
    pub spare: Spare<F>,
    /// There is a `second.spare` of the usual size.
    pub second_spare: bool,
    /// `None` in an empty folder.
    pub tail: Option<Tail<F>>,
    /// Bytes behind the end that were cleared: a torn tail, or what a recycled file held before.
    pub cleared_bytes: u64,
}

/// Decodes the header of the segment in `path`, which must have this number.
pub(super) fn segment_header(path: &Path, number: u64, bytes: &[u8]) -> Result<(SegmentHeader, u64), OpenError> {
    let (header, first_offset) = SegmentHeader::decode(bytes).map_err(|fault| match fault {
        HeaderFault::Damaged(what) => OpenError::rot(path, 0, what),
        HeaderFault::Newer(found) => OpenError::NewerVersion { path: path.to_owned(), found, supported: FORMAT_VERSION },
    })?;
    if header.number != number {
        return Err(OpenError::rot(path, 0, "segment carries another number than its name"));
    }
    Ok((header, first_offset))
}

/// Reads the log in `dir`, which exists and is locked.
pub(super) fn recover<D: Disk>(disk: &D, dir: &Path, options: &LogOptions) -> Result<Recovered<D::File>, OpenError> {
    let mut recovered = Recovered {
        groups: BTreeMap::new(),
        segments: BTreeMap::new(),
        journals: BTreeMap::new(),
        spare: Spare::None,
        second_spare: false,
        tail: None,
        cleared_bytes: 0,
    };
    for path in disk.list(dir).map_err(OpenError::io(dir))? {
        take_file(disk, dir, &path, options, &mut recovered)?;
    }
    if let Some((first, last)) = recovered.segments.keys().next().zip(recovered.segments.keys().next_back()) {
        for segment in *first..=*last {
            if !recovered.segments.contains_key(&segment) {
                return Err(OpenError::MissingSegment { dir: dir.to_owned(), segment });
            }
        }
    }
    if let Some(kept) = recovered.journals.keys().next_back() {
        let segment = kept + 1;
        if !recovered.segments.contains_key(&segment) {
            return Err(OpenError::MissingSegment { dir: dir.to_owned(), segment });
        }
    }
    read_segments(disk, dir, &mut recovered)?;
    disk.sync_dir(dir).map_err(OpenError::io(dir))?;
    Ok(recovered)
}

fn take_file<D: Disk>(
    disk: &D,
    dir: &Path,
    path: &Path,
    options: &LogOptions,
    recovered: &mut Recovered<D::File>,
) -> Result<(), OpenError> {
    let size = || disk.open(path).and_then(|file| file.len()).map_err(OpenError::io(path));
    match kind(path) {
        FileKind::Segment(number) => {
            recovered.segments.insert(number, Kept { size_bytes: size()?, created_ms: 0 });
        }
        FileKind::Journal(number) => {
            // Whatever is wrong with a journal is told to whoever reads it; it never keeps a node from starting.
            let mut head = [0; 64];
            let file = disk.open(path).map_err(OpenError::io(path))?;
            let created_ms = match file.read_exact_at(&mut head, 0) {
                Ok(()) => u64::from_le_bytes(head[32..40].try_into().expect("eight bytes")),
                Err(_) => 0,
            };
            recovered.journals.insert(number, Kept { size_bytes: size()?, created_ms });
        }
        FileKind::Spare if size()? == options.segment_bytes => {
            recovered.spare = Spare::Ready { size_bytes: options.segment_bytes };
        }
        FileKind::SecondSpare if size()? == options.segment_bytes => recovered.second_spare = true,
        FileKind::SecondSpare => disk.remove(&second_spare_path(dir)).map_err(OpenError::io(path))?,
        FileKind::Spare => disk.remove(&spare_path(dir)).map_err(OpenError::io(path))?,
        FileKind::Part => disk.remove(&part_path(dir)).map_err(OpenError::io(path))?,
        FileKind::Foreign => {}
    }
    Ok(())
}

fn read_segments<D: Disk>(disk: &D, dir: &Path, recovered: &mut Recovered<D::File>) -> Result<(), OpenError> {
    let numbers: Vec<u64> = recovered.segments.keys().copied().collect();
    let mut replay: Option<Replay> = None;
    let mut batch_number = None;
    // The end of the segment before, to be compared with what this one's header says of it.
    let mut previous: Option<(PathBuf, Vec<u8>, SegmentHeader, u64)> = None;
    for &number in &numbers {
        let path = segment_path(dir, number);
        let (file, bytes) = read_file(disk, &path)?;
        let (header, first_offset) = segment_header(&path, number, &bytes)?;
        if let Some(kept) = recovered.segments.get_mut(&number) {
            kept.created_ms = header.created_ms;
        }
        let replay = replay.get_or_insert_with(|| Replay::begin(&header.marks));
        if let Some((path, bytes, older, first_offset)) = previous.take() {
            if header.synced.segment != older.number {
                return Err(OpenError::rot(&segment_path(dir, number), 0, "segment header names another predecessor"));
            }
            let mut batches = Batches::new(&older, first_offset, &bytes);
            let stop = header.synced.offset;
            apply_batches(&path, &mut batches, stop, replay, &mut batch_number)?;
            if batches.place.offset < stop {
                return Err(OpenError::rot(&path, batches.place.offset, "damaged batch in a finished segment"));
            }
        }
        if number != numbers[numbers.len() - 1] {
            previous = Some((path, bytes, header, first_offset));
            continue;
        }
        let mut batches = Batches::new(&header, first_offset, &bytes);
        let newest = apply_batches(&path, &mut batches, u64::MAX, replay, &mut batch_number)?;
        let floor = Place { segment: number, offset: first_offset };
        let highest = batches.highest_synced_ahead().max(newest).unwrap_or(floor).max(floor);
        if batches.place < highest {
            return Err(OpenError::rot(&path, batches.place.offset, "damaged batch below the synced end"));
        }
        let mut file = file;
        // Planted: what a killed process had written is reported without being synced.
        if !planted!("unsynced-recovered") {
            recovered.cleared_bytes =
                rewrite_tail(&mut file, &bytes, highest.offset, batches.place.offset).map_err(OpenError::io(&path))?;
        }
        recovered.tail = Some(Tail {
            file,
            salt: header.salt,
            end: batches.place,
            size_bytes: bytes.len() as u64,
            batch: batch_number.map_or(0, |batch| batch + 1),
        });
    }
    if let Some(replay) = replay {
        recovered.groups = replay.finish(dir)?;
    }
    Ok(())
}

/// Applies batches up to `stop`; the highest synced end that they name.
fn apply_batches(
    path: &Path,
    batches: &mut Batches<'_>,
    stop: u64,
    replay: &mut Replay,
    batch_number: &mut Option<u64>,
) -> Result<Option<Place>, OpenError> {
    let mut highest = None;
    while batches.place.offset < stop {
        let place = batches.place;
        let Some((header, payload)) = batches.next() else { break };
        if batch_number.is_some_and(|before| header.batch != before.wrapping_add(1)) {
            return Err(OpenError::rot(path, place.offset, "batch out of order"));
        }
        *batch_number = Some(header.batch);
        highest = highest.max(Some(header.synced));
        let records =
            records(&header, payload).ok_or_else(|| OpenError::rot(path, place.offset, "batch holds no valid records"))?;
        for (group, record) in records {
            replay.apply(group, record, place.segment).map_err(|what| OpenError::rot(path, place.offset, what))?;
        }
    }
    Ok(highest)
}

/// Writes `from..end` again and zeros behind it, then syncs. Returns how many bytes behind `end` were not zero.
///
/// Zeros go first over everything behind the end, so that no stale batch can ever follow a new one.
fn rewrite_tail<F: DiskFile>(file: &mut F, bytes: &[u8], from: u64, end: u64) -> std::io::Result<u64> {
    const PIECE: usize = 64 * 1024;
    let zeros = [0; PIECE];
    let mut cleared_bytes = 0;
    let mut at = end as usize;
    while at < bytes.len() {
        let piece = &bytes[at..(at + PIECE).min(bytes.len())];
        let used = piece.iter().filter(|byte| **byte != 0).count();
        if used > 0 {
            cleared_bytes += used as u64;
            file.write_all_at(&zeros[..piece.len()], at as u64)?;
        }
        at += piece.len();
    }
    if from < end {
        file.write_all_at(&bytes[from as usize..end as usize], from)?;
    }
    file.sync_data()?;
    Ok(cleared_bytes)
}
