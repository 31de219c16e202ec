//! Records inside a batch.
//!
//! ```text
//! kind:u8 group:u64, then by kind
//!   1 vote       length:u32 bytes
//!   2 append     first_index:u64 count:u32, then for each entry term:u64 length:u32 bytes
//!   3 truncate   has:u8 index:u64       everything above the index goes (has = 0: everything)
//!   4 purge      term:u64 index:u64     everything up to the index goes
//!   5 committed  has:u8 term:u64 index:u64
//!   6 forget
//!   7 carry      as append: entries copied from a segment that is about to go; they replace nothing
//! ```

use bytes::Bytes;
use marchland_types::{GroupId, LogIndex, Position, Term, planted};

use super::format::{Reader, put_position};
use crate::raft_log::LogEntry;

const VOTE: u8 = 1;
const APPEND: u8 = 2;
const TRUNCATE: u8 = 3;
const PURGE: u8 = 4;
const COMMITTED: u8 = 5;
const FORGET: u8 = 6;
const CARRY: u8 = 7;

const RECORD_BYTES: u64 = 9;
const ENTRY_BYTES: u64 = 12;

/// One change of one group, as it is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Vote(Bytes),
    Append(Vec<LogEntry>),
    TruncateAfter(Option<LogIndex>),
    Purge(Position),
    Committed(Option<Position>),
    Forget,
    Carry(Vec<LogEntry>),
}

impl Record {
    /// Size when encoded.
    pub fn encoded_bytes(&self) -> u64 {
        RECORD_BYTES
            + match self {
                Self::Vote(vote) => 4 + vote.len() as u64,
                Self::Append(entries) | Self::Carry(entries) => 12 + entries.iter().map(entry_bytes).sum::<u64>(),
                Self::TruncateAfter(_) => 9,
                Self::Purge(_) => 16,
                Self::Committed(_) => 17,
                Self::Forget => 0,
            }
    }

    /// Whether completion of the operation means that it survives a power cut.
    pub fn must_be_synced(&self) -> bool {
        match self {
            // Planted: entries are acknowledged, or votes answered, before they are on disk.
            Self::Append(_) => !planted!("ack-before-fsync"),
            Self::Vote(_) => !planted!("vote-not-synced"),
            Self::TruncateAfter(_) | Self::Forget | Self::Carry(_) => true,
            Self::Purge(_) | Self::Committed(_) => false,
        }
    }

    pub fn encode(&self, group: GroupId, out: &mut Vec<u8>) {
        let kind = match self {
            Self::Vote(_) => VOTE,
            Self::Append(_) => APPEND,
            Self::TruncateAfter(_) => TRUNCATE,
            Self::Purge(_) => PURGE,
            Self::Committed(_) => COMMITTED,
            Self::Forget => FORGET,
            Self::Carry(_) => CARRY,
        };
        out.push(kind);
        out.extend_from_slice(&group.0.to_le_bytes());
        match self {
            Self::Vote(vote) => {
                out.extend_from_slice(&(vote.len() as u32).to_le_bytes());
                out.extend_from_slice(vote);
            }
            Self::Append(entries) | Self::Carry(entries) => {
                let first = entries.first().map_or(0, |entry| entry.position.index.0);
                out.extend_from_slice(&first.to_le_bytes());
                out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
                for entry in entries {
                    out.extend_from_slice(&entry.position.term.0.to_le_bytes());
                    out.extend_from_slice(&(entry.payload.len() as u32).to_le_bytes());
                    out.extend_from_slice(&entry.payload);
                }
            }
            Self::TruncateAfter(index) => {
                out.push(u8::from(index.is_some()));
                out.extend_from_slice(&index.unwrap_or_default().0.to_le_bytes());
            }
            Self::Purge(position) => put_position(out, *position),
            Self::Committed(position) => {
                out.push(u8::from(position.is_some()));
                put_position(out, position.unwrap_or_default());
            }
            Self::Forget => {}
        }
    }

    /// The next record; `None` when the bytes are none.
    pub fn decode(reader: &mut Reader<'_>) -> Option<(GroupId, Self)> {
        let kind = reader.u8()?;
        let group = GroupId(reader.u64()?);
        let record = match kind {
            VOTE => {
                let length = reader.u32()?;
                Self::Vote(Bytes::copy_from_slice(reader.bytes(length as usize)?))
            }
            APPEND => Self::Append(decode_entries(reader)?),
            CARRY => Self::Carry(decode_entries(reader)?),
            TRUNCATE => {
                let (has, index) = (reader.u8()?, LogIndex(reader.u64()?));
                Self::TruncateAfter((has != 0).then_some(index))
            }
            PURGE => Self::Purge(reader.position()?),
            COMMITTED => {
                let (has, position) = (reader.u8()?, reader.position()?);
                Self::Committed((has != 0).then_some(position))
            }
            FORGET => Self::Forget,
            _ => return None,
        };
        Some((group, record))
    }
}

/// Size of one entry when encoded.
pub(super) fn entry_bytes(entry: &LogEntry) -> u64 {
    ENTRY_BYTES + entry.payload.len() as u64
}

fn decode_entries(reader: &mut Reader<'_>) -> Option<Vec<LogEntry>> {
    let first = reader.u64()?;
    let count = u64::from(reader.u32()?);
    // The index after the last one must exist, and the declared count must be there in bytes.
    first.checked_add(count)?;
    if count > reader.0.len() as u64 / ENTRY_BYTES {
        return None;
    }
    let mut entries = Vec::with_capacity(count as usize);
    for index in first..first + count {
        let term = Term(reader.u64()?);
        let length = reader.u32()?;
        let payload = Bytes::copy_from_slice(reader.bytes(length as usize)?);
        entries.push(LogEntry { position: Position { term, index: LogIndex(index) }, payload });
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position() -> impl Strategy<Value = Position> {
        (any::<u64>(), 0..u64::MAX).prop_map(|(term, index)| Position { term: Term(term), index: LogIndex(index) })
    }

    fn entries() -> impl Strategy<Value = Vec<LogEntry>> {
        (0..u64::MAX / 2, prop::collection::vec((any::<u64>(), prop::collection::vec(any::<u8>(), 0..40)), 1..5)).prop_map(
            |(first, entries)| {
                let entry = |(at, (term, payload)): (usize, (u64, Vec<u8>))| LogEntry {
                    position: Position { term: Term(term), index: LogIndex(first + at as u64) },
                    payload: payload.into(),
                };
                entries.into_iter().enumerate().map(entry).collect()
            },
        )
    }

    fn record() -> impl Strategy<Value = Record> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40).prop_map(|vote| Record::Vote(vote.into())),
            entries().prop_map(Record::Append),
            prop::option::of(any::<u64>().prop_map(LogIndex)).prop_map(Record::TruncateAfter),
            position().prop_map(Record::Purge),
            prop::option::of(position()).prop_map(Record::Committed),
            Just(Record::Forget),
            entries().prop_map(Record::Carry),
        ]
    }

    proptest! {
        #[test]
        fn records_round_trip_and_know_their_size(records in prop::collection::vec((any::<u64>().prop_map(GroupId), record()), 0..6)) {
            let mut bytes = Vec::new();
            for (group, record) in &records {
                let before = bytes.len() as u64;
                record.encode(*group, &mut bytes);
                prop_assert_eq!(bytes.len() as u64 - before, record.encoded_bytes());
            }
            let mut reader = Reader(&bytes);
            for expected in &records {
                prop_assert_eq!(Record::decode(&mut reader), Some(expected.clone()));
            }
            prop_assert!(reader.0.is_empty());
        }

        #[test]
        fn rubbish_never_panics_nor_allocates_what_it_declares(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Record::decode(&mut Reader(&bytes));
        }
    }
}
