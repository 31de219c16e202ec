//! Bytes of a segment: its header, and the headers of the batches in it.
//!
//! Little endian. Everything starts on a [`SECTOR_BYTES`] boundary and is padded with zeros up to the next one.
//!
//! ```text
//! segment  magic[8] version:u32 crc:u32 salt:u64 number:u64 created_ms:u64 synced_segment:u64 synced_offset:u64
//!          body_bytes:u32 groups:u32, then for each group: id:u64 flags:u8 [vote: u16 length, bytes] [committed] [purged]
//! batch    magic:u32 crc:u32 payload_bytes:u32 payload_crc:u32 segment:u64 offset:u64 synced_segment:u64 synced_offset:u64
//!          batch:u64 records:u32 0:u32, then the payload
//! position term:u64 index:u64
//! ```
//!
//! All three checksums start from the salt and the segment's number, so what a recycled file held before never counts. "synced"
//! is the end up to which the log was known to be on disk when these bytes were written.

use bytes::Bytes;
use marchland_types::{GroupId, LogIndex, Position, Term, planted};

/// Format of the segments that this build writes.
pub const FORMAT_VERSION: u32 = 1;

pub(super) const SECTOR_BYTES: u64 = 512;
pub(super) const SEGMENT_HEADER_BYTES: usize = 64;
pub(super) const BATCH_HEADER_BYTES: usize = 64;
/// Votes are opaque but small; a longer one is a caller's mistake.
pub(super) const VOTE_MAX_BYTES: usize = 1024;

const SEGMENT_MAGIC: [u8; 8] = *b"MARCHLOG";
const BATCH_MAGIC: u32 = 0x4c_42_4d_31;

/// A place in the log: segment number and byte offset. Ordered as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub segment: u64,
    pub offset: u64,
}

/// What a segment header keeps of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub vote: Option<Bytes>,
    pub committed: Option<Position>,
    pub purged: Option<Position>,
}

/// The beginning of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub salt: u64,
    pub number: u64,
    pub created_ms: u64,
    pub synced: Place,
    pub marks: Vec<(GroupId, Marks)>,
}

/// The beginning of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub payload_bytes: u32,
    pub payload_crc: u32,
    pub place: Place,
    pub synced: Place,
    pub batch: u64,
    pub records: u32,
}

/// Why a segment header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    Damaged(&'static str),
    Newer(u32),
}

/// Rounded up to whole sectors.
pub(super) const fn padded(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(SECTOR_BYTES) * SECTOR_BYTES
}

/// Reads little-endian values off a slice, or nothing at all.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.bytes(1).map(|b| b[0])
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.bytes(2).map(|b| u16::from_le_bytes(b.try_into().expect("two bytes")))
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.bytes(4).map(|b| u32::from_le_bytes(b.try_into().expect("four bytes")))
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.bytes(8).map(|b| u64::from_le_bytes(b.try_into().expect("eight bytes")))
    }

    /// A position; `u64::MAX` is no index, so that the one after it always exists.
    pub fn position(&mut self) -> Option<Position> {
        let (term, index) = (Term(self.u64()?), LogIndex(self.u64()?));
        (index.0 != u64::MAX).then_some(Position { term, index })
    }
}

pub(super) fn put_position(out: &mut Vec<u8>, position: Position) {
    out.extend_from_slice(&position.term.0.to_le_bytes());
    out.extend_from_slice(&position.index.0.to_le_bytes());
}

fn checksum(salt: u64, segment: u64, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&segment.to_le_bytes());
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

impl SegmentHeader {
    /// Encoded and padded.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; SEGMENT_HEADER_BYTES];
        for (group, marks) in &self.marks {
            out.extend_from_slice(&group.0.to_le_bytes());
            let flags =
                u8::from(marks.vote.is_some()) | u8::from(marks.committed.is_some()) << 1 | u8::from(marks.purged.is_some()) << 2;
            out.push(flags);
            if let Some(vote) = &marks.vote {
                out.extend_from_slice(&(vote.len() as u16).to_le_bytes());
                out.extend_from_slice(vote);
            }
            for position in [marks.committed, marks.purged].into_iter().flatten() {
                put_position(&mut out, position);
            }
        }
        let body_bytes = (out.len() - SEGMENT_HEADER_BYTES) as u32;
        out[..8].copy_from_slice(&SEGMENT_MAGIC);
        out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        let words = [self.salt, self.number, self.created_ms, self.synced.segment, self.synced.offset];
        for (at, word) in words.iter().enumerate() {
            out[16 + at * 8..24 + at * 8].copy_from_slice(&word.to_le_bytes());
        }
        out[56..60].copy_from_slice(&body_bytes.to_le_bytes());
        out[60..64].copy_from_slice(&(self.marks.len() as u32).to_le_bytes());
        let crc = checksum(self.salt, self.number, &[&out[..12], &out[16..]]);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out.resize(padded(out.len() as u64) as usize, 0);
        out
    }

    /// Decodes what a file begins with; also the offset of its first batch.
    pub fn decode(file: &[u8]) -> Result<(Self, u64), HeaderFault> {
        let damaged = HeaderFault::Damaged;
        let mut reader = Reader(file);
        if reader.bytes(8) != Some(&SEGMENT_MAGIC[..]) {
            return Err(damaged("no segment header"));
        }
        let version = reader.u32().ok_or(damaged("short segment header"))?;
        if version > FORMAT_VERSION {
            return Err(HeaderFault::Newer(version));
        }
        if version == 0 {
            return Err(damaged("segment format 0"));
        }
        let mut decode = || {
            let crc = reader.u32()?;
            let (salt, number, created_ms) = (reader.u64()?, reader.u64()?, reader.u64()?);
            let synced = Place { segment: reader.u64()?, offset: reader.u64()? };
            let (body_bytes, groups) = (reader.u32()?, reader.u32()?);
            let body = reader.bytes(body_bytes as usize)?;
            let end = SEGMENT_HEADER_BYTES + body.len();
            if checksum(salt, number, &[&file[..12], &file[16..end]]) != crc {
                return None;
            }
            let mut body = Reader(body);
            let mut marks = Vec::new();
            for _ in 0..groups {
                let group = GroupId(body.u64()?);
                let flags = body.u8()?;
                let mut mark = Marks::default();
                if flags & 1 != 0 {
                    let length = body.u16()?;
                    mark.vote = Some(Bytes::copy_from_slice(body.bytes(length.into())?));
                }
                if flags & 2 != 0 {
                    mark.committed = Some(body.position()?);
                }
                if flags & 4 != 0 {
                    mark.purged = Some(body.position()?);
                }
                marks.push((group, mark));
            }
            body.0.is_empty().then_some((Self { salt, number, created_ms, synced, marks }, padded(end as u64)))
        };
        decode().ok_or(damaged("segment header fails its checksum"))
    }
}

impl BatchHeader {
    /// Fills in the header of `batch`, which has room for it before its payload.
    pub fn seal(mut self, salt: u64, batch: &mut [u8]) {
        let (header, payload) = batch.split_at_mut(BATCH_HEADER_BYTES);
        self.payload_bytes = payload.len() as u32;
        self.payload_crc = checksum(salt, self.place.segment, &[payload]);
        header[..4].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
        header[8..12].copy_from_slice(&self.payload_bytes.to_le_bytes());
        header[12..16].copy_from_slice(&self.payload_crc.to_le_bytes());
        let words = [self.place.segment, self.place.offset, self.synced.segment, self.synced.offset, self.batch];
        for (at, word) in words.iter().enumerate() {
            header[16 + at * 8..24 + at * 8].copy_from_slice(&word.to_le_bytes());
        }
        header[56..60].copy_from_slice(&self.records.to_le_bytes());
        header[60..64].fill(0);
        let crc = checksum(salt, self.place.segment, &[&header[..4], &header[8..]]);
        header[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// The valid header at this place of a segment's bytes, if there is one.
    pub fn decode(salt: u64, place: Place, segment: &[u8]) -> Option<Self> {
        let start = usize::try_from(place.offset).ok()?;
        Self::decode_header(salt, place, segment.get(start..start.checked_add(BATCH_HEADER_BYTES)?)?)
    }

    /// The same, of these bytes alone.
    pub fn decode_header(salt: u64, place: Place, header: &[u8]) -> Option<Self> {
        let mut reader = Reader(header);
        if reader.u32()? != BATCH_MAGIC {
            return None;
        }
        let crc = reader.u32()?;
        let (payload_bytes, payload_crc) = (reader.u32()?, reader.u32()?);
        let own = Place { segment: reader.u64()?, offset: reader.u64()? };
        let synced = Place { segment: reader.u64()?, offset: reader.u64()? };
        let (batch, records) = (reader.u64()?, reader.u32()?);
        if own != place || checksum(salt, place.segment, &[&header[..4], &header[8..]]) != crc {
            return None;
        }
        Some(Self { payload_bytes, payload_crc, place, synced, batch, records })
    }

    /// The payload, if it is whole.
    pub fn payload<'a>(&self, salt: u64, segment: &'a [u8]) -> Option<&'a [u8]> {
        let start = self.place.offset as usize + BATCH_HEADER_BYTES;
        let payload = segment.get(start..start.checked_add(self.payload_bytes as usize)?)?;
        // Planted: a batch whose header is whole counts, torn or not.
        let whole = planted!("torn-tail-accepted") || checksum(salt, self.place.segment, &[payload]) == self.payload_crc;
        whole.then_some(payload)
    }

    /// Whether this is the payload.
    pub fn is_payload(&self, salt: u64, payload: &[u8]) -> bool {
        checksum(salt, self.place.segment, &[payload]) == self.payload_crc
    }

    /// Offset of the next batch.
    pub fn end(&self) -> u64 {
        padded(self.place.offset + BATCH_HEADER_BYTES as u64 + u64::from(self.payload_bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> SegmentHeader {
        let at = |index| Some(Position { term: Term(3), index: LogIndex(index) });
        SegmentHeader {
            salt: 9,
            number: 4,
            created_ms: 77,
            synced: Place { segment: 3, offset: 1024 },
            marks: vec![
                (GroupId(1), Marks { vote: Some(Bytes::from_static(b"me")), committed: at(8), purged: None }),
                (GroupId(2), Marks { vote: None, committed: None, purged: at(5) }),
            ],
        }
    }

    #[test]
    fn a_segment_header_round_trips() {
        let bytes = header().encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok((header(), 512)));
    }

    #[test]
    fn a_newer_format_is_told_apart_from_damage() {
        let mut bytes = header().encode();
        bytes[8] = 2;
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderFault::Newer(2)));
    }

    proptest! {
        #[test]
        fn every_changed_byte_of_a_header_is_noticed(at in 0usize..160, flip in 1u8..) {
            let mut bytes = header().encode();
            let used = 64 + 8 + 1 + 2 + 2 + 16 + 8 + 1 + 16;
            let at = at % used;
            bytes[at] ^= flip;
            prop_assert!(SegmentHeader::decode(&bytes).is_err());
        }

        #[test]
        fn every_changed_byte_of_a_batch_is_noticed(payload in prop::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index, flip in 1u8..) {
            let place = Place { segment: 7, offset: 0 };
            let mut batch = vec![0; BATCH_HEADER_BYTES];
            batch.extend_from_slice(&payload);
            BatchHeader { place, records: 1, ..BatchHeader::default() }.seal(5, &mut batch);
            let whole = |batch: &[u8]| BatchHeader::decode(5, place, batch).and_then(|h| h.payload(5, batch).map(<[u8]>::to_vec));
            prop_assert_eq!(whole(&batch), Some(payload));
            prop_assert!(BatchHeader::decode(6, place, &batch).is_none(), "another salt");
            let at = at.index(batch.len());
            batch[at] ^= flip;
            prop_assert_eq!(whole(&batch), None);
        }

        #[test]
        fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = SegmentHeader::decode(&bytes);
            let _ = BatchHeader::decode(0, Place::default(), &bytes);
        }
    }
}
