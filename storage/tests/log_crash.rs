//! The raft log under power cuts: random operations, a cut at any change of the disk, and what must be true afterwards.
//!
//! - The log that is recovered is the one after some prefix of what was submitted, no shorter than what was acknowledged.
//! - What recovery reports is on disk: a power cut right afterwards changes nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use marchland_storage::disk::SimDisk;
use marchland_storage::log::{LogOptions, LogWriter, SharedLog, Turn};
use marchland_storage::raft_log::{LogEntry, LogOp, RaftLog};
use marchland_types::{GroupId, LogIndex, Position, Term};
use proptest::prelude::*;

/// Vote, purge mark and entries of a group, as far as a crash must preserve them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    vote: Option<Bytes>,
    purged: Option<Position>,
    entries: Vec<LogEntry>,
}

type Models = BTreeMap<GroupId, Model>;

impl Model {
    fn end(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index.0 + 1) + self.entries.len() as u64
    }

    fn last_term(&self) -> u64 {
        self.entries.last().map(|entry| entry.position).or(self.purged).map_or(1, |position| position.term.0)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Vote(u8),
    Append {
        count: usize,
        size: usize,
        new_term: bool,
    },
    Truncate {
        keep: u8,
    },
    Purge {
        part: u8,
    },
    Install {
        ahead: u8,
    },
    Committed,
    Forget,
    /// Let the writer take turns.
    Turns(u8),
}

#[derive(Clone, Debug)]
enum End {
    /// The power fails after so many changes of the disk, during the steps.
    Cut(u64),
    /// The power fails after the steps.
    Crash,
    /// The process dies after the steps.
    Kill,
    /// A sync fails, the process dies and is started again; then the power fails.
    FailedSync,
}

fn step() -> impl Strategy<Value = (u64, Step)> {
    let step = prop_oneof![
        2 => any::<u8>().prop_map(Step::Vote),
        8 => (1usize..6, prop_oneof![0usize..60, 0usize..3000], any::<bool>())
            .prop_map(|(count, size, new_term)| Step::Append { count, size, new_term }),
        1 => any::<u8>().prop_map(|keep| Step::Truncate { keep }),
        2 => any::<u8>().prop_map(|part| Step::Purge { part }),
        1 => any::<u8>().prop_map(|ahead| Step::Install { ahead }),
        1 => Just(Step::Committed),
        1 => Just(Step::Forget),
        6 => (1u8..4).prop_map(Step::Turns),
    ];
    (0u64..4, step)
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![4 => (0u64..60).prop_map(End::Cut), 2 => Just(End::Crash), 1 => Just(End::Kill), 2 => Just(End::FailedSync)]
}

/// The operation that a step stands for in this state, and the state after it.
fn operation(models: &Models, group: GroupId, step: &Step, salt: u64) -> Option<(LogOp, Models)> {
    let mut after = models.clone();
    let model = after.entry(group).or_default();
    let op = match step {
        Step::Vote(byte) => {
            model.vote = Some(Bytes::from(vec![*byte; 9]));
            LogOp::Vote(Bytes::from(vec![*byte; 9]))
        }
        Step::Append { count, size, new_term } => {
            let term = model.last_term() + u64::from(*new_term);
            let entry = |index| LogEntry {
                position: Position { term: Term(term), index: LogIndex(index) },
                payload: Bytes::from(vec![(salt ^ index) as u8; *size]),
            };
            let entries: Vec<_> = (model.end()..).take(*count).map(entry).collect();
            model.entries.extend(entries.iter().cloned());
            LogOp::Append(entries)
        }
        Step::Truncate { keep } => {
            let keep = *keep as usize % (model.entries.len() + 1);
            let index = (model.end() - model.entries.len() as u64 + keep as u64).checked_sub(1).map(LogIndex);
            model.entries.truncate(keep);
            LogOp::TruncateAfter(index)
        }
        Step::Purge { part } => {
            let to = model.entries.get(*part as usize % model.entries.len().max(1))?.position;
            model.entries.retain(|entry| entry.position.index > to.index);
            model.purged = Some(to);
            LogOp::Purge(to)
        }
        Step::Install { ahead } => {
            let to = Position { term: Term(model.last_term()), index: LogIndex(model.end() + u64::from(*ahead)) };
            (model.purged, model.entries) = (Some(to), vec![]);
            LogOp::Purge(to)
        }
        Step::Committed => LogOp::Committed(Some(model.entries.first()?.position)),
        Step::Forget => {
            after.remove(&group);
            LogOp::Forget
        }
        Step::Turns(_) => return None,
    };
    Some((op, after))
}

fn read(log: &SharedLog) -> Models {
    let read = |group| {
        let state = log.state(group);
        let entries = log.entries(group, LogIndex(0)..LogIndex(u64::MAX));
        if let Some(committed) = state.committed {
            let held = state.purged == Some(committed) || entries.iter().any(|entry| entry.position == committed);
            assert!(held, "committed mark {committed} is not in the log");
        }
        (group, Model { vote: state.vote, purged: state.purged, entries })
    };
    log.groups().into_iter().map(read).collect()
}

fn normal(models: &Models) -> Models {
    models.iter().filter(|(_, model)| **model != Model::default()).map(|(group, model)| (*group, model.clone())).collect()
}

fn open(disk: &SimDisk) -> (SharedLog, LogWriter<SimDisk>) {
    let options =
        LogOptions { segment_bytes: 16 * 1024, retain_bytes: 20 * 1024, reserve_bytes: 0, salt: 3, ..LogOptions::default() };
    SharedLog::open(disk.clone(), Path::new("/n/log"), options).expect("the log opens after every crash")
}

/// One life of a process; what the next one must find.
fn live(disk: &SimDisk, models: &Models, steps: &[(u64, Step)], end: &End) -> (Vec<Models>, usize) {
    let (log, mut writer) = open(disk);
    assert_eq!(normal(&read(&log)), normal(models));
    // States after 0, 1, 2, ... operations; and how many of the operations must survive.
    let mut states = vec![models.clone()];
    let acknowledged = Arc::new(Mutex::new(0));
    match end {
        End::Cut(operations) => disk.cut_after(*operations),
        End::FailedSync => disk.fail_syncs(1),
        End::Crash | End::Kill => {}
    }
    for (at, (group, step)) in steps.iter().enumerate() {
        if let Step::Turns(turns) = step {
            for _ in 0..*turns {
                if writer.turn() == Turn::Poisoned {
                    break;
                }
            }
            continue;
        }
        let before = states.last().unwrap();
        let Some((op, after)) = operation(before, GroupId(*group), step, at as u64) else { continue };
        let must_survive = !matches!(op, LogOp::Purge(_) | LogOp::Committed(_));
        states.push(after);
        let number = states.len() - 1;
        let acknowledged = acknowledged.clone();
        log.submit(
            GroupId(*group),
            op,
            Box::new(move |result| {
                if must_survive && result.is_ok() {
                    let mut acknowledged = acknowledged.lock().unwrap();
                    assert!(number > *acknowledged, "acknowledged out of order");
                    *acknowledged = number;
                }
            }),
        );
    }
    let acknowledged = *acknowledged.lock().unwrap();
    (states, acknowledged)
}

fn survives(states: &[Models], acknowledged: usize, found: &Models) {
    let found = normal(found);
    let whole = states[acknowledged..].iter().any(|state| normal(state) == found);
    assert!(
        whole,
        "found {found:#?}, which is not the state after any prefix of {} operations from {acknowledged} on",
        states.len() - 1
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    #[test]
    fn acknowledged_operations_survive_and_what_survives_is_a_prefix(
        lives in prop::collection::vec((prop::collection::vec(step(), 0..60), end()), 1..6),
        seed in any::<u64>(),
    ) {
        let disk = SimDisk::new(seed);
        let mut models = Models::new();
        for (at, (steps, end)) in lives.iter().enumerate() {
            let (states, acknowledged) = live(&disk, &models, steps, end);
            let crash_seed = seed.wrapping_add(at as u64);
            match end {
                End::Cut(_) | End::Crash => disk.crash(crash_seed),
                End::Kill | End::FailedSync => {
                    disk.fail_syncs(0);
                    disk.kill();
                }
            }
            models = read(&open(&disk).0);
            survives(&states, acknowledged, &models);
            disk.crash(!crash_seed);
            prop_assert_eq!(read(&open(&disk).0), models.clone(), "recovery reported what was not on disk");
        }
    }
}
