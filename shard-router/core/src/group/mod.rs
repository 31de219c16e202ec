//! What all keyed groups have in common: how a transition ends, channels, cuts.
//!
//! A group's transition function is its own; it decides what its entries mean. Here is what must be the same in all of them:
//! messages are taken at last + 1 only, posted ones wait until they are acknowledged, and a cut is taken before whatever was
//! sent after it.

pub(crate) mod ack;
pub(crate) mod cut;
pub(crate) mod inbox;
pub(crate) mod node;
pub(crate) mod plan;
pub(crate) mod post;

use std::collections::BTreeSet;

use bytes::Bytes;
use marchland_proto::codes::Code;
use marchland_types::{GroupId, LogIndex};

use crate::keys::Key;
use crate::records::KEYED_FORMAT;
use crate::txn::{Changes, Read, Txn};

/// What applying an entry does.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition<A> {
    /// Keys in order, with their new values, or `None` for those that go. To be stored together with the applied position.
    pub writes: Vec<(Bytes, Option<Bytes>)>,
    /// For the proposer.
    pub answer: A,
    /// Groups that there are new messages for.
    pub posted: BTreeSet<GroupId>,
}

/// Why a replica can not apply an entry. It stops: going on would make it differ from the others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyFault {
    /// The entry's bytes are not of the schema.
    #[error("entry {index} is none of this group: {reason}")]
    Malformed {
        /// Which.
        index: LogIndex,
        /// What is wrong.
        reason: String,
    },
    /// The entry was written by a newer version.
    #[error("entry {index} has format {found}, this build knows up to {KEYED_FORMAT}")]
    NewerFormat {
        /// Which.
        index: LogIndex,
        /// Its format.
        found: u32,
    },
    /// A stored record is unreadable or contradicts another.
    #[error("record {key:?} is damaged")]
    Damaged {
        /// Which.
        key: Key,
    },
}

/// Why a transition did not come to an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// These keys are needed: fetch them and apply again.
    Missing(Vec<Bytes>),
    /// The replica must stop.
    Fault(ApplyFault),
}

/// Why a handler ended early.
#[derive(Clone, Debug)]
pub(crate) enum Halt {
    /// The order is refused; whatever it wrote is dropped.
    Refused(Code, String),
    Missing(Vec<Bytes>),
    Fault(ApplyFault),
}

pub(crate) fn refuse<T>(code: Code, reason: impl Into<String>) -> Result<T, Halt> {
    Err(Halt::Refused(code, reason.into()))
}

/// Refuses entries of another format or without content.
pub(crate) fn check_format(index: LogIndex, format: u32, any: bool) -> Result<(), ApplyFault> {
    let malformed = |reason: &str| ApplyFault::Malformed { index, reason: reason.into() };
    match format {
        0 => Err(malformed("format 0")),
        found if found > KEYED_FORMAT => Err(ApplyFault::NewerFormat { index, found }),
        _ if !any => Err(malformed("no body that this build knows")),
        _ => Ok(()),
    }
}

/// Runs a handler over a view. What it refuses leaves no trace but the answer that `refused` makes of it.
pub(crate) fn run<A>(
    (view, index, now_ms): (&dyn Read, LogIndex, u64),
    wanted: &[Key],
    handle: impl FnOnce(&mut Txn<'_>) -> Result<A, Halt>,
    refused: impl FnOnce(Code, String) -> A,
) -> Result<Transition<A>, Stop> {
    let body = || -> Result<Transition<A>, Halt> {
        let mut txn = Txn::begin(view, index, wanted)?;
        let before = txn.counters;
        // Clocks of successive leaders differ; time as records see it never goes back.
        txn.counters.now_ms = txn.counters.now_ms.max(now_ms);
        let answer = match handle(&mut txn) {
            Ok(answer) => answer,
            Err(Halt::Refused(code, reason)) => {
                txn.changes = Changes::default();
                txn.counters = before;
                refused(code, reason)
            }
            Err(halt) => return Err(halt),
        };
        let written = txn.finish()?;
        Ok(Transition { writes: written.writes, answer, posted: written.posted })
    };
    body().map_err(|halt| match halt {
        Halt::Missing(keys) => Stop::Missing(keys),
        Halt::Fault(fault) => Stop::Fault(fault),
        // Handlers' refusals are answered above; one that comes from elsewhere would have no state to belong to.
        Halt::Refused(code, reason) => Stop::Fault(ApplyFault::Malformed { index, reason: format!("{code:?}: {reason}") }),
    })
}
