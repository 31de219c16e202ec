//! Reads finished segments again, slowly: what rots while nobody reads it is found before it is needed.
//!
//! A finished segment never changes, and the next one says where it ends; up to there every batch must be whole and follow the one
//! before it. One that is gone meanwhile was let go of. Nothing is changed.

use std::io;
use std::path::{Path, PathBuf};

use super::error::OpenError;
use super::format::{BATCH_HEADER_BYTES, BatchHeader, HeaderFault, Place, SegmentHeader};
use super::segment::{FileKind, kind};
use crate::disk::{Disk, DiskFile};

/// Read of a segment at once to find its header, which names every group.
const HEADER_MAX_BYTES: u64 = 1024 * 1024;

/// A finished segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// Its number.
    pub number: u64,
    /// The file.
    pub path: PathBuf,
    /// Whether raft may still need it; else it is kept for replay.
    pub live: bool,
}

/// Every segment in a folder that is followed by another one, in order.
pub fn finished_segments<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<SegmentFile>, OpenError> {
    let mut segments: Vec<SegmentFile> = disk
        .list(dir)
        .map_err(OpenError::io(dir))?
        .into_iter()
        .filter_map(|path| match kind(&path) {
            FileKind::Segment(number) => Some(SegmentFile { number, path, live: true }),
            FileKind::Journal(number) => Some(SegmentFile { number, path, live: false }),
            FileKind::Spare | FileKind::SecondSpare | FileKind::Part | FileKind::Foreign => None,
        })
        .collect();
    segments.sort_by_key(|segment| segment.number);
    segments.pop();
    Ok(segments)
}

/// A segment that is being read.
pub struct SegmentScrub<F> {
    path: PathBuf,
    file: F,
    header: SegmentHeader,
    /// Up to here.
    end: u64,
    offset: u64,
    batch: Option<u64>,
}

impl<F: DiskFile> SegmentScrub<F> {
    /// Begins. `None` when the file is gone, or nothing says where it ends.
    pub fn begin<D: Disk<File = F>>(
        disk: &D,
        segments: &[SegmentFile],
        at: usize,
        last: &Path,
    ) -> Result<Option<Self>, OpenError> {
        let Some(segment) = segments.get(at) else { return Ok(None) };
        let next = segments.get(at + 1).map_or(last, |next| next.path.as_path());
        let Some((file, header, offset)) = open(disk, &segment.path)? else { return Ok(None) };
        let Some((_, next, _)) = open(disk, next)? else { return Ok(None) };
        if header.number != segment.number {
            return Err(OpenError::rot(&segment.path, 0, "segment carries another number than its name"));
        }
        let ends_here = next.number == header.number + 1 && next.synced.segment == header.number;
        let end = next.synced.offset;
        Ok(ends_here.then_some(Self { path: segment.path.clone(), file, header, end, offset, batch: None }))
    }

    /// Reads about `bytes` more. Returns how many were read; none at the end.
    pub fn read(&mut self, bytes: u64) -> Result<u64, OpenError> {
        let begun = self.offset;
        while self.offset < self.end && self.offset - begun < bytes {
            self.read_batch()?;
        }
        Ok(self.offset - begun)
    }

    fn read_batch(&mut self) -> Result<(), OpenError> {
        let rot = |what| OpenError::rot(&self.path, self.offset, what);
        let get = |out: &mut [u8], at: u64| match self.file.read_exact_at(out, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(rot("segment is too short")),
            read => read.map_err(OpenError::io(&self.path)),
        };
        let mut bytes = [0; BATCH_HEADER_BYTES];
        get(&mut bytes, self.offset)?;
        let place = Place { segment: self.header.number, offset: self.offset };
        let header = BatchHeader::decode_header(self.header.salt, place, &bytes).ok_or_else(|| rot("damaged batch"))?;
        if header.end() > self.end {
            return Err(rot("batch goes beyond the end of its segment"));
        }
        let mut payload = vec![0; header.payload_bytes as usize];
        get(&mut payload, self.offset + BATCH_HEADER_BYTES as u64)?;
        if !header.is_payload(self.header.salt, &payload) {
            return Err(rot("damaged batch"));
        }
        if self.batch.is_some_and(|before| header.batch != before.wrapping_add(1)) {
            return Err(rot("batch out of order"));
        }
        self.batch = Some(header.batch);
        self.offset = header.end();
        Ok(())
    }
}

type Opened<F> = (F, SegmentHeader, u64);

fn open<D: Disk>(disk: &D, path: &Path) -> Result<Option<Opened<D::File>>, OpenError> {
    let file = match disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(OpenError::io(path))?,
    };
    let size_bytes = file.len().map_err(OpenError::io(path))?.min(HEADER_MAX_BYTES);
    let mut bytes = vec![0; size_bytes as usize];
    file.read_exact_at(&mut bytes, 0).map_err(OpenError::io(path))?;
    match SegmentHeader::decode(&bytes) {
        Ok((header, first_offset)) => Ok(Some((file, header, first_offset))),
        Err(HeaderFault::Damaged(what)) => Err(OpenError::rot(path, 0, what)),
        // Written by a newer build: not ours to judge.
        Err(HeaderFault::Newer(_)) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use marchland_types::{GroupId, LogIndex, Position, Term};

    use super::*;
    use crate::disk::SimDisk;
    use crate::log::{LogOptions, LogWriter, SharedLog};
    use crate::raft_log::{LogEntry, LogOp, RaftLog};

    const DIR: &str = "/log";
    const GROUP: GroupId = GroupId(7);

    fn open_log(disk: &SimDisk) -> (SharedLog, LogWriter<SimDisk>) {
        let options = LogOptions { segment_bytes: 1 << 14, reserve_bytes: 0, ..LogOptions::default() };
        SharedLog::open(disk.clone(), Path::new(DIR), options).unwrap()
    }

    fn append(log: &SharedLog, writer: &mut LogWriter<SimDisk>, indices: std::ops::Range<u64>) {
        for index in indices {
            let position = Position { term: Term(1), index: LogIndex(index) };
            log.submit(GROUP, LogOp::Append(vec![LogEntry { position, payload: Bytes::from(vec![7; 700]) }]), Box::new(|_| {}));
            writer.turn();
        }
    }

    /// Reads everything; the first thing that is wrong, and how many segments were sound.
    fn scrub(disk: &SimDisk) -> (usize, Option<String>) {
        let segments = finished_segments(disk, Path::new(DIR)).unwrap();
        let last = super::super::segment::segment_path(Path::new(DIR), segments.last().map_or(1, |last| last.number + 1));
        let mut sound = 0;
        for at in 0..segments.len() {
            let read = SegmentScrub::begin(disk, &segments, at, &last).and_then(|scrub| {
                let mut scrub = scrub.expect("it is there");
                while scrub.read(2000)? > 0 {}
                Ok(())
            });
            match read {
                Ok(()) => sound += 1,
                Err(error) => return (sound, Some(error.to_string())),
            }
        }
        (sound, None)
    }

    #[test]
    fn rot_in_a_finished_segment_is_found_and_superseded_from_memory() {
        let disk = SimDisk::new(1);
        let (log, mut writer) = open_log(&disk);
        append(&log, &mut writer, 0..60);
        let (sound, found) = scrub(&disk);
        assert!(sound >= 3 && found.is_none(), "{sound} {found:?}");
        let rotten = Path::new(DIR).join("000000000002.log");
        disk.rot(&rotten, 5000, 0x10).unwrap();
        let (sound, found) = scrub(&disk);
        assert_eq!(sound, 1);
        assert!(found.is_some_and(|found| found.contains("000000000002.log is damaged at byte")));

        log.supersede(2);
        for _ in 0..20 {
            writer.turn();
        }
        assert!(!disk.exists(&rotten).unwrap() && disk.exists(&rotten.with_extension("journal")).unwrap());
        // All of it is there after a restart, although nothing was purged.
        append(&log, &mut writer, 60..61);
        drop((log, writer));
        let (log, _writer) = open_log(&disk);
        let entries = log.entries(GROUP, LogIndex(0)..LogIndex(100));
        assert_eq!(entries.iter().map(|e| e.position.index.0).collect::<Vec<_>>(), (0..61).collect::<Vec<_>>());
    }

    #[test]
    fn a_damaged_header_is_rot_and_a_segment_that_went_is_nothing() {
        let disk = SimDisk::new(2);
        let (log, mut writer) = open_log(&disk);
        append(&log, &mut writer, 0..40);
        let segments = finished_segments(&disk, Path::new(DIR)).unwrap();
        disk.rot(&segments[0].path, 40, 0x01).unwrap();
        assert!(scrub(&disk).1.is_some());
        disk.remove(&segments[0].path).unwrap();
        assert!(SegmentScrub::begin(&disk, &segments, 0, &segments[1].path).unwrap().is_none());
    }
}
