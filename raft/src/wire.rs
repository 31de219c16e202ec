//! Raft's messages on the wire, and back. Whatever a peer sent is checked here: absent fields, unknown outcomes, gaps and
//! unreadable entries are refused as malformed, before the library sees them.

use bytes::Bytes;
use marchland_proto::cluster::raft_envelope::Body;
use marchland_proto::cluster::{
    RaftAppend, RaftAppendAnswer, RaftEntry as WireEntry, RaftError, RaftLogId, RaftTransfer, RaftTransferAnswer, RaftVote,
    RaftVoteAnswer, RaftVoteId,
};
use openraft::entry::RaftEntry as _;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
    VoteResponse,
};

use crate::record;
use crate::standby::Word;
use crate::types::{LogId, RaftEntry, TypeConfig, Vote, log_id, position, vote};

/// Why a peer's request was not handled; the numbers are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Refusal {
    /// The group is not open here.
    UnknownGroup = 1,
    /// This is another replica, or another incarnation of it; or the sender is not who it says.
    OtherReplica = 2,
    /// The group has stopped here.
    Stopped = 3,
    /// The sender's certificate lacks the role or the world.
    Forbidden = 4,
    /// Too much at once.
    Busy = 5,
    /// Not a request that this build understands.
    Malformed = 6,
    /// A snapshot did not arrive as it was sent.
    Damaged = 7,
}

impl Refusal {
    /// As a message.
    pub(crate) fn with(self, reason: impl Into<String>) -> RaftError {
        RaftError { code: self as u32, reason: reason.into() }
    }
}

/// A message that can not be understood.
#[derive(Debug, thiserror::Error)]
#[error("malformed raft message: {0}")]
pub(crate) struct Malformed(pub(crate) String);

impl From<Malformed> for RaftError {
    fn from(malformed: Malformed) -> Self {
        Refusal::Malformed.with(malformed.0)
    }
}

fn malformed<T>(what: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed(what.into()))
}

pub(crate) fn id_out(id: &LogId) -> RaftLogId {
    RaftLogId { term: id.leader_id.term, index: id.index }
}

/// Terms and indices above this are no real ones: nothing that counts from them can overflow.
const NUMBER_MAX: u64 = 1 << 62;

pub(crate) fn id_in(id: &RaftLogId) -> Result<LogId, Malformed> {
    if id.term > NUMBER_MAX || id.index > NUMBER_MAX {
        return malformed(format!("log id {}@{}", id.index, id.term));
    }
    Ok(log_id(record::position_of(id)))
}

fn opt_out(id: &Option<LogId>) -> Option<RaftLogId> {
    id.as_ref().map(id_out)
}

fn opt_in(id: &Option<RaftLogId>) -> Result<Option<LogId>, Malformed> {
    id.as_ref().map(id_in).transpose()
}

pub(crate) fn vote_out(vote: &Vote) -> RaftVoteId {
    RaftVoteId { term: vote.leader_id.term, replica: vote.leader_id.voted_for, committed: vote.committed }
}

pub(crate) fn vote_in(id: &Option<RaftVoteId>) -> Result<Vote, Malformed> {
    match id {
        Some(id) if id.term > NUMBER_MAX => malformed(format!("vote for term {}", id.term)),
        Some(id) => Ok(vote(id.term, id.replica, id.committed)),
        None => malformed("no vote"),
    }
}

pub(crate) fn append_out(request: &AppendEntriesRequest<TypeConfig>) -> RaftAppend {
    RaftAppend {
        vote: Some(vote_out(&request.vote)),
        prev: opt_out(&request.prev_log_id),
        entries: request
            .entries
            .iter()
            .map(|entry| WireEntry { id: Some(id_out(&entry.log_id)), record: record::of_entry(entry) })
            .collect(),
        committed: opt_out(&request.leader_commit),
    }
}

pub(crate) fn append_in(append: RaftAppend) -> Result<AppendEntriesRequest<TypeConfig>, Malformed> {
    let prev_log_id = opt_in(&append.prev)?;
    let first = prev_log_id.as_ref().map_or(0, |prev| prev.index + 1);
    let mut entries = Vec::with_capacity(append.entries.len());
    for (index, entry) in (first..).zip(append.entries) {
        entries.push(entry_in(entry, index)?);
    }
    Ok(AppendEntriesRequest { vote: vote_in(&append.vote)?, prev_log_id, entries, leader_commit: opt_in(&append.committed)? })
}

fn entry_in(entry: WireEntry, expected_index: u64) -> Result<RaftEntry, Malformed> {
    let Some(id) = entry.id else { return malformed("entry without id") };
    if id.index != expected_index {
        return malformed(format!("entry {} where {expected_index} was expected", id.index));
    }
    id_in(&id)?;
    // A copy: the log keeps it for minutes, and would keep the whole buffer that it was received in.
    let record = Bytes::copy_from_slice(&entry.record);
    record::to_entry(record::position_of(&id), record).map_err(|e| Malformed(e.to_string()))
}

pub(crate) fn append_answer_out(answer: &AppendEntriesResponse<TypeConfig>, state: Word) -> RaftAppendAnswer {
    let (outcome, matched, vote) = match answer {
        AppendEntriesResponse::Success => (1, None, None),
        AppendEntriesResponse::PartialSuccess(matched) => (2, opt_out(matched), None),
        AppendEntriesResponse::Conflict => (3, None, None),
        AppendEntriesResponse::HigherVote(vote) => (4, None, Some(vote_out(vote))),
    };
    RaftAppendAnswer { outcome, matched, vote, applied: state.applied.0, short_of_room: state.short_of_room }
}

pub(crate) fn append_answer_in(answer: &RaftAppendAnswer) -> Result<AppendEntriesResponse<TypeConfig>, Malformed> {
    match answer.outcome {
        1 => Ok(AppendEntriesResponse::Success),
        2 => Ok(AppendEntriesResponse::PartialSuccess(opt_in(&answer.matched)?)),
        3 => Ok(AppendEntriesResponse::Conflict),
        4 => Ok(AppendEntriesResponse::HigherVote(vote_in(&answer.vote)?)),
        other => malformed(format!("append answer {other}")),
    }
}

pub(crate) fn vote_request_out(request: &VoteRequest<TypeConfig>, pre: bool) -> RaftVote {
    RaftVote {
        vote: Some(vote_out(&request.vote)),
        last: opt_out(&request.last_log_id),
        pre,
        transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_in(request: &RaftVote) -> Result<VoteRequest<TypeConfig>, Malformed> {
    let mut vote = VoteRequest::new(vote_in(&request.vote)?, opt_in(&request.last)?);
    vote.leadership_transfer = request.transfer;
    Ok(vote)
}

pub(crate) fn vote_answer_out(answer: &VoteResponse<TypeConfig>) -> RaftVoteAnswer {
    RaftVoteAnswer { vote: Some(vote_out(&answer.vote)), last: opt_out(&answer.last_log_id), granted: answer.vote_granted }
}

pub(crate) fn vote_answer_in(answer: &RaftVoteAnswer) -> Result<VoteResponse<TypeConfig>, Malformed> {
    Ok(VoteResponse::new(vote_in(&answer.vote)?, opt_in(&answer.last)?, answer.granted))
}

pub(crate) fn transfer_out(request: &TransferLeaderRequest<TypeConfig>) -> RaftTransfer {
    RaftTransfer {
        from_leader: Some(vote_out(request.from_leader())),
        to: *request.to_node_id(),
        last: request.last_log_id().map(id_out),
    }
}

pub(crate) fn transfer_in(request: &RaftTransfer) -> Result<TransferLeaderRequest<TypeConfig>, Malformed> {
    Ok(TransferLeaderRequest::new(vote_in(&request.from_leader)?, request.to, opt_in(&request.last)?))
}

pub(crate) fn transfer_answer_out(answer: &TransferLeaderResponse<TypeConfig>) -> RaftTransferAnswer {
    match answer {
        Ok(()) => RaftTransferAnswer { outcome: 1, ..Default::default() },
        Err(TransferLeaderError::VoteChanged { expected, actual }) => RaftTransferAnswer {
            outcome: 2,
            expected_vote: Some(vote_out(expected)),
            actual_vote: Some(vote_out(actual)),
            ..Default::default()
        },
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            RaftTransferAnswer { outcome: 3, expected_log: opt_out(expected), actual_log: opt_out(actual), ..Default::default() }
        }
    }
}

pub(crate) fn transfer_answer_in(answer: &RaftTransferAnswer) -> Result<TransferLeaderResponse<TypeConfig>, Malformed> {
    match answer.outcome {
        1 => Ok(Ok(())),
        2 => Ok(Err(TransferLeaderError::VoteChanged {
            expected: vote_in(&answer.expected_vote)?,
            actual: vote_in(&answer.actual_vote)?,
        })),
        3 => Ok(Err(TransferLeaderError::LogNotFlushed {
            expected: opt_in(&answer.expected_log)?,
            actual: opt_in(&answer.actual_log)?,
        })),
        other => malformed(format!("transfer answer {other}")),
    }
}

/// Bytes that a body takes on the wire, about.
pub(crate) fn size_of(body: &Body) -> usize {
    match body {
        Body::Append(append) => 64 + append.entries.iter().map(|entry| entry.record.len() + 24).sum::<usize>(),
        _ => 64,
    }
}

/// What the request's last entry is, for the answer to be understood.
pub(crate) fn last_of(request: &AppendEntriesRequest<TypeConfig>) -> Option<LogId> {
    request.entries.last().map(|entry| log_id(position(&entry.log_id()))).or(request.prev_log_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::EntryPayload;
    use proptest::prelude::*;

    fn id(term: u64, index: u64) -> LogId {
        log_id(marchland_types::Position { term: marchland_types::Term(term), index: marchland_types::LogIndex(index) })
    }

    fn request(prev: Option<u64>, bodies: Vec<Vec<u8>>) -> AppendEntriesRequest<TypeConfig> {
        let first = prev.map_or(0, |p| p + 1);
        AppendEntriesRequest {
            vote: vote(2, 1, true),
            prev_log_id: prev.map(|p| id(1, p)),
            entries: bodies
                .iter()
                .enumerate()
                .map(|(i, body)| RaftEntry::new(id(2, first + i as u64), EntryPayload::Normal(record::command(body))))
                .collect(),
            leader_commit: prev.map(|p| id(1, p)),
        }
    }

    proptest! {
        #[test]
        fn appends_round_trip(
            prev in prop::option::of(0u64..1000),
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..5),
        ) {
            let request = request(prev, bodies);
            let read = append_in(append_out(&request)).unwrap();
            prop_assert_eq!(read.entries, request.entries);
            prop_assert_eq!(read.prev_log_id, request.prev_log_id);
            prop_assert_eq!(read.leader_commit, request.leader_commit);
            prop_assert_eq!(read.vote, request.vote);
        }
    }

    #[test]
    fn gaps_and_absent_fields_are_refused() {
        let good = append_out(&request(Some(3), vec![vec![1], vec![2]]));
        let mut gap = good.clone();
        gap.entries.remove(0);
        assert!(append_in(gap).is_err());
        let mut no_vote = good.clone();
        no_vote.vote = None;
        assert!(append_in(no_vote).is_err());
        let mut last = good.clone();
        last.prev = Some(RaftLogId { term: 1, index: u64::MAX });
        assert!(append_in(last).is_err());
        assert!(vote_in(&Some(RaftVoteId { term: u64::MAX, replica: 1, committed: true })).is_err());
        let mut no_id = good;
        no_id.entries[1].id = None;
        assert!(append_in(no_id).is_err());
        assert!(append_answer_in(&RaftAppendAnswer { outcome: 9, ..Default::default() }).is_err());
        assert!(transfer_answer_in(&RaftTransferAnswer::default()).is_err());
    }

    #[test]
    fn answers_round_trip() {
        for answer in [
            AppendEntriesResponse::Success,
            AppendEntriesResponse::PartialSuccess(Some(id(1, 2))),
            AppendEntriesResponse::Conflict,
            AppendEntriesResponse::HigherVote(vote(9, 3, false)),
        ] {
            assert_eq!(append_answer_in(&append_answer_out(&answer, Word::default())).unwrap(), answer);
        }
        let mut request = VoteRequest::new(vote(4, 2, false), Some(id(3, 8)));
        request.leadership_transfer = true;
        assert_eq!(vote_request_in(&vote_request_out(&request, true)).unwrap(), request);
        let answer = VoteResponse::new(vote(4, 2, false), None, true);
        assert_eq!(vote_answer_in(&vote_answer_out(&answer)).unwrap(), answer);
        let request = TransferLeaderRequest::new(vote(4, 2, true), 3, Some(id(4, 9)));
        assert_eq!(transfer_in(&transfer_out(&request)).unwrap(), request);
        for answer in [
            Ok(()),
            Err(TransferLeaderError::VoteChanged { expected: vote(1, 1, true), actual: vote(2, 2, false) }),
            Err(TransferLeaderError::LogNotFlushed { expected: Some(id(1, 1)), actual: None }),
        ] {
            assert_eq!(transfer_answer_in(&transfer_answer_out(&answer)).unwrap(), answer);
        }
    }
}
