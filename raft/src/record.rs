//! What raft writes into the log and hands to state machines as opaque bytes.
//!
//! ```text
//! entry       format and kind u8 · payload       0x10 blank · 0x11 command · 0x12 membership (RaftMembership)
//! vote        format u8 = 1 · committed u8 · term u64 · replica u64        little-endian
//! membership  format u8 = 1 · RaftMembership with the id of its entry      Applied::membership
//! ```
//!
//! The upper half of an entry's first byte is the format. What can not be read is refused: never guessed at, never a panic.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use marchland_proto::cluster::{RaftLogId, RaftMembership, raft_membership::Config};
use marchland_storage::raft_log::LogEntry;
use marchland_types::Position;
use openraft::EntryPayload;
use openraft::entry::RaftEntry as _;
use prost::Message;

use crate::types::{Command, LogId, Membership, RaftEntry, StoredMembership, Vote, log_id, position, vote};

const BLANK: u8 = 0x10;
const COMMAND: u8 = 0x11;
const MEMBERSHIP: u8 = 0x12;
const VOTE_FORMAT: u8 = 1;
const VOTE_BYTES: usize = 18;
const MEMBERSHIP_FORMAT: u8 = 1;
/// Members that a group may have. Far more than makes sense; bounds what a damaged record can ask for.
const MEMBERS_MAX: usize = 64;

/// Bytes that are no record of a format that this build knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unreadable raft record: {0}")]
pub struct BadRecord(pub String);

fn bad(what: impl Into<String>) -> BadRecord {
    BadRecord(what.into())
}

/// A command's record: one copy, here, for its whole life.
pub(crate) fn command(body: &[u8]) -> Command {
    let mut record = BytesMut::with_capacity(1 + body.len());
    record.put_u8(COMMAND);
    record.extend_from_slice(body);
    Command(record.freeze())
}

/// What the proposer gave to [`command`].
pub(crate) fn command_body(command: &Command) -> Bytes {
    command.0.slice(command.0.len().min(1)..)
}

/// The record of an entry.
pub(crate) fn of_entry(entry: &RaftEntry) -> Bytes {
    match &entry.payload {
        EntryPayload::Blank => Bytes::from_static(&[BLANK]),
        EntryPayload::Normal(command) => command.0.clone(),
        EntryPayload::Membership(members) => {
            let message = message_of(None, members);
            let mut record = BytesMut::with_capacity(1 + message.encoded_len());
            record.put_u8(MEMBERSHIP);
            // A buffer that grows takes everything.
            message.encode(&mut record).expect("encoding into memory");
            record.freeze()
        }
    }
}

/// The entry of a record.
pub(crate) fn to_entry(at: Position, record: Bytes) -> Result<RaftEntry, BadRecord> {
    let payload = match record.first() {
        Some(&BLANK) => EntryPayload::Blank,
        Some(&COMMAND) => EntryPayload::Normal(Command(record)),
        Some(&MEMBERSHIP) => {
            let message = RaftMembership::decode(record.slice(1..)).map_err(|e| bad(format!("membership at {at}: {e}")))?;
            EntryPayload::Membership(members_of(&message)?)
        }
        Some(kind) => return Err(bad(format!("entry {at} has format and kind {kind:#04x}, this build reads 0x10 to 0x12"))),
        None => return Err(bad(format!("entry {at} is empty"))),
    };
    Ok(RaftEntry::new(log_id(at), payload))
}

/// As the log stores it.
pub(crate) fn to_log(entry: &RaftEntry) -> LogEntry {
    LogEntry { position: position(&entry.log_id), payload: of_entry(entry) }
}

/// A vote's record.
pub(crate) fn of_vote(vote: &Vote) -> Bytes {
    let mut record = BytesMut::with_capacity(VOTE_BYTES);
    record.put_u8(VOTE_FORMAT);
    record.put_u8(u8::from(vote.committed));
    record.put_u64_le(vote.leader_id.term);
    record.put_u64_le(vote.leader_id.voted_for);
    record.freeze()
}

/// The vote of a record.
pub(crate) fn to_vote(record: &[u8]) -> Result<Vote, BadRecord> {
    let number = |at: usize| record[at..at + 8].iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
    match record {
        [VOTE_FORMAT, committed @ (0 | 1), rest @ ..] if rest.len() == VOTE_BYTES - 2 => {
            Ok(vote(number(2), number(10), *committed == 1))
        }
        _ => Err(bad(format!("vote of {} bytes, format {:?}", record.len(), record.first()))),
    }
}

/// [`crate::Applied::membership`].
pub(crate) fn of_membership(membership: &StoredMembership) -> Bytes {
    let message = message_of(membership.log_id().as_ref(), membership.membership());
    let mut record = BytesMut::with_capacity(1 + message.encoded_len());
    record.put_u8(MEMBERSHIP_FORMAT);
    message.encode(&mut record).expect("encoding into memory");
    record.freeze()
}

/// What [`of_membership`] made; nothing stands for "no members yet".
pub(crate) fn to_membership(record: &Bytes) -> Result<StoredMembership, BadRecord> {
    match record.first() {
        None => Ok(StoredMembership::default()),
        Some(&MEMBERSHIP_FORMAT) => {
            let message = RaftMembership::decode(record.slice(1..)).map_err(|e| bad(format!("membership: {e}")))?;
            let id = message.id.as_ref().map(|id| log_id(position_of(id)));
            let members = if message.configs.is_empty() { Membership::default() } else { members_of(&message)? };
            Ok(StoredMembership::new(id, members))
        }
        Some(format) => Err(bad(format!("membership of format {format}, this build reads {MEMBERSHIP_FORMAT}"))),
    }
}

pub(crate) fn position_of(id: &RaftLogId) -> Position {
    Position { term: marchland_types::Term(id.term), index: marchland_types::LogIndex(id.index) }
}

fn message_of(id: Option<&LogId>, members: &Membership) -> RaftMembership {
    RaftMembership {
        id: id.map(|id| RaftLogId { term: id.leader_id.term, index: id.index }),
        configs: members.get_joint_config().iter().map(|c| Config { voters: c.iter().copied().collect() }).collect(),
        replicas: members.nodes().map(|(id, _)| *id).collect(),
    }
}

fn members_of(message: &RaftMembership) -> Result<Membership, BadRecord> {
    let count = message.replicas.len() + message.configs.iter().map(|c| c.voters.len()).sum::<usize>();
    if count > MEMBERS_MAX * 3 || message.configs.len() > 4 {
        return Err(bad(format!("membership with {} configurations and {count} members", message.configs.len())));
    }
    let configs: Vec<BTreeSet<u64>> = message.configs.iter().map(|c| c.voters.iter().copied().collect()).collect();
    let replicas: BTreeSet<u64> = message.replicas.iter().copied().collect();
    let nodes: std::collections::BTreeMap<u64, openraft::EmptyNode> =
        replicas.into_iter().map(|id| (id, openraft::EmptyNode::default())).collect();
    Membership::new(configs, nodes).map_err(|e| bad(format!("membership: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use marchland_types::{LogIndex, Term};
    use proptest::prelude::*;

    fn at(term: u64, index: u64) -> Position {
        Position { term: Term(term), index: LogIndex(index) }
    }

    fn membership(configs: Vec<BTreeSet<u64>>, learners: BTreeSet<u64>) -> Membership {
        let nodes: std::collections::BTreeMap<u64, openraft::EmptyNode> =
            configs.iter().flatten().chain(&learners).map(|id| (*id, openraft::EmptyNode::default())).collect();
        Membership::new(configs, nodes).unwrap()
    }

    #[test]
    fn a_command_keeps_its_body() {
        let command = command(b"tick");
        assert_eq!(command_body(&command), "tick");
        let entry = to_entry(at(3, 7), command.0.clone()).unwrap();
        assert_eq!(entry.payload, EntryPayload::Normal(command));
        assert_eq!(position(&entry.log_id), at(3, 7));
    }

    #[test]
    fn unknown_formats_are_refused() {
        for record in [&[][..], &[0x00], &[0x13], &[0x21, 1], &[MEMBERSHIP, 0xff]] {
            assert!(to_entry(at(1, 1), Bytes::copy_from_slice(record)).is_err(), "{record:?}");
        }
        assert!(to_vote(&[2; VOTE_BYTES]).is_err());
        assert!(to_membership(&Bytes::from_static(&[9, 9])).is_err());
        assert_eq!(to_membership(&Bytes::new()).unwrap(), StoredMembership::default());
    }

    proptest! {
        #[test]
        fn votes_round_trip(term: u64, replica: u64, committed: bool) {
            let saved = vote(term, replica, committed);
            prop_assert_eq!(to_vote(&of_vote(&saved)).unwrap(), saved);
        }

        #[test]
        fn memberships_round_trip(
            configs in prop::collection::vec(prop::collection::btree_set(0u64..99, 1..6), 1..3),
            learners in prop::collection::btree_set(100u64..110, 0..4),
            id in prop::option::of((0u64..9, 0u64..1000)),
        ) {
            let members = membership(configs, learners);
            let stored = StoredMembership::new(id.map(|(t, i)| log_id(at(t, i))), members.clone());
            prop_assert_eq!(to_membership(&of_membership(&stored)).unwrap(), stored);
            let entry = RaftEntry::new(log_id(at(1, 2)), EntryPayload::Membership(members));
            prop_assert_eq!(to_entry(at(1, 2), of_entry(&entry)).unwrap(), entry);
        }

        #[test]
        fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let bytes = Bytes::from(bytes);
            let _ = to_entry(at(1, 1), bytes.clone());
            let _ = to_vote(&bytes);
            let _ = to_membership(&bytes);
        }
    }
}
