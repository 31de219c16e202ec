//! Suite of [`RaftLog`].

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use marchland_types::{GroupId, LogIndex, Position, Term};

use crate::raft_log::{LogEntry, LogError, LogOp, RaftLog};

/// A log that the suite can drive and restart.
pub trait LogUnderTest {
    /// The log.
    type Log: RaftLog;

    /// The log as it is open now.
    fn log(&self) -> Self::Log;

    /// Returns when everything that was submitted is complete.
    fn settle(&mut self);

    /// Ends the log without ceremony, as a killed process does, and opens it again.
    fn restart(&mut self);
}

const A: GroupId = GroupId(0x0600_0001_0000_0001);
const B: GroupId = GroupId(0x0600_0001_0000_0002);

fn position(term: u64, index: u64) -> Position {
    Position { term: Term(term), index: LogIndex(index) }
}

fn entry(term: u64, index: u64) -> LogEntry {
    LogEntry { position: position(term, index), payload: Bytes::from(format!("{index}@{term}")) }
}

fn entries(term: u64, indices: std::ops::Range<u64>) -> LogOp {
    LogOp::Append(indices.map(|index| entry(term, index)).collect())
}

fn submit<L: LogUnderTest>(under_test: &mut L, group: GroupId, op: LogOp) -> Result<(), LogError> {
    let slot = Arc::new(Mutex::new(None));
    let filled = slot.clone();
    let done = Box::new(move |result| {
        let before = filled.lock().expect("slot").replace(result);
        assert!(before.is_none(), "completed twice");
    });
    under_test.log().submit(group, op, done);
    under_test.settle();
    let result = slot.lock().expect("slot").take();
    result.expect("completed after settling")
}

fn ok<L: LogUnderTest>(under_test: &mut L, group: GroupId, op: LogOp) {
    if let Err(error) = submit(under_test, group, op.clone()) {
        panic!("{op:?} failed: {error}");
    }
}

fn indices<L: LogUnderTest>(under_test: &L, group: GroupId) -> Vec<Position> {
    under_test.log().entries(group, LogIndex(0)..LogIndex(u64::MAX)).into_iter().map(|entry| entry.position).collect()
}

/// Checks a log, which is empty.
pub fn check_raft_log<L: LogUnderTest>(mut under_test: L) {
    let t = &mut under_test;
    assert_eq!(t.log().groups(), vec![]);
    assert_eq!(t.log().state(A), Default::default());
    reads_see_what_was_submitted(t);
    groups_are_apart(t);
    misuse_changes_nothing(t);
    truncation_and_purge(t);
    everything_survives_a_restart(t);
    a_forgotten_group_is_gone(t);
}

fn reads_see_what_was_submitted<L: LogUnderTest>(t: &mut L) {
    t.log().submit(A, entries(1, 0..4), Box::new(|_| {}));
    assert_eq!(t.log().state(A).last, Some(position(1, 3)), "before it is durable");
    t.settle();
    assert_eq!(t.log().entries(A, LogIndex(1)..LogIndex(3)), vec![entry(1, 1), entry(1, 2)]);
    assert_eq!(t.log().entries(A, LogIndex(3)..LogIndex(9)), vec![entry(1, 3)]);
    assert_eq!(t.log().entries(A, LogIndex(4)..LogIndex(9)), vec![]);
    assert_eq!(t.log().entries(A, LogIndex(5)..LogIndex(2)), vec![]);
    assert!(t.log().memory_bytes(A) >= 4 * 3);
    ok(t, A, LogOp::Append(vec![]));
}

fn groups_are_apart<L: LogUnderTest>(t: &mut L) {
    ok(t, B, LogOp::Vote(Bytes::from_static(b"b")));
    ok(t, B, entries(5, 0..2));
    assert_eq!(t.log().groups(), vec![A, B]);
    assert_eq!(t.log().state(A).vote, None);
    assert_eq!(t.log().state(B).last, Some(position(5, 1)));
}

fn misuse_changes_nothing<L: LogUnderTest>(t: &mut L) {
    let before = (t.log().state(A), indices(t, A));
    let misused = [
        entries(1, 5..6),
        entries(1, 3..4),
        entries(0, 4..5),
        LogOp::Append(vec![entry(2, 4), entry(1, 5)]),
        LogOp::Purge(position(9, 2)),
        LogOp::Vote(Bytes::from(vec![0; 5000])),
    ];
    for op in misused {
        let result = submit(t, A, op.clone());
        assert!(matches!(result, Err(LogError::Misuse(_))), "{op:?} gave {result:?}");
    }
    assert_eq!((t.log().state(A), indices(t, A)), before);
}

fn truncation_and_purge<L: LogUnderTest>(t: &mut L) {
    ok(t, A, LogOp::TruncateAfter(Some(LogIndex(1))));
    assert_eq!(indices(t, A), vec![position(1, 0), position(1, 1)]);
    ok(t, A, entries(2, 2..6));
    ok(t, A, LogOp::Purge(position(1, 1)));
    ok(t, A, LogOp::Purge(position(1, 0)));
    assert_eq!(t.log().state(A).purged, Some(position(1, 1)), "an older purge is no news");
    assert_eq!(indices(t, A), (2..6).map(|index| position(2, index)).collect::<Vec<_>>());
    let below = submit(t, A, LogOp::TruncateAfter(Some(LogIndex(0))));
    assert!(matches!(below, Err(LogError::Misuse(_))));
    // A snapshot reaches beyond the last entry.
    ok(t, B, LogOp::Purge(position(7, 100)));
    assert_eq!((t.log().state(B).last, t.log().state(B).purged), (Some(position(7, 100)), Some(position(7, 100))));
    assert_eq!(t.log().memory_bytes(B), 0);
    ok(t, B, entries(7, 101..103));
    ok(t, B, LogOp::TruncateAfter(None));
    assert_eq!(t.log().state(B).last, Some(position(7, 100)), "what is purged is not taken back");
    ok(t, B, entries(8, 101..102));
}

fn everything_survives_a_restart<L: LogUnderTest>(t: &mut L) {
    ok(t, A, LogOp::Vote(Bytes::from_static(b"first")));
    ok(t, A, LogOp::Vote(Bytes::from_static(b"second")));
    ok(t, A, LogOp::Committed(Some(position(2, 4))));
    assert_eq!(t.log().state(A).committed, Some(position(2, 4)));
    ok(t, A, entries(2, 6..7));
    let before: Vec<_> = [A, B].map(|group| (t.log().state(group), indices(t, group))).into();
    for _ in 0..3 {
        t.restart();
        let after: Vec<_> = [A, B].map(|group| (t.log().state(group), indices(t, group))).into();
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(
                (&after.0.vote, after.0.purged, after.0.last, &after.1),
                (&before.0.vote, before.0.purged, before.0.last, &before.1)
            );
            assert!(after.0.committed <= after.0.last, "the committed mark is a hint, but never beyond the log");
        }
    }
    assert_eq!(t.log().entries(A, LogIndex(6)..LogIndex(7)), vec![entry(2, 6)]);
}

fn a_forgotten_group_is_gone<L: LogUnderTest>(t: &mut L) {
    ok(t, A, LogOp::Forget);
    assert_eq!((t.log().groups(), t.log().state(A)), (vec![B], Default::default()));
    t.restart();
    assert_eq!((t.log().groups(), t.log().state(A)), (vec![B], Default::default()));
    ok(t, A, entries(1, 0..1));
    t.restart();
    assert_eq!(indices(t, A), vec![position(1, 0)]);
}
