//! The transition function: one file a kind of entry.

mod ack;
mod cut;
mod genesis;
mod message;
mod node;
mod plan;
mod post;
mod sign_in;

use std::collections::BTreeSet;

use bytes::Bytes;
use marchland_proto::codes::Code;
use marchland_proto::storage::directory_entry::Body;
use marchland_proto::storage::{DirectoryAnswer, DirectoryEntry};
use marchland_types::{GroupId, LogIndex};
use prost::Message;

use crate::keys::Key;
use crate::records::DIRECTORY_FORMAT;
use crate::txn::{Changes, Read, Txn};

pub use message::SET_ASIDE_MAX;
pub use post::SIGN_IN_CHANNEL_MESSAGES_MAX;
pub use sign_in::REQUESTS_KEPT;

/// What applying an entry does.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// Keys in order, with their new values, or `None` for those that go. To be stored together with the applied position.
    pub writes: Vec<(Bytes, Option<Bytes>)>,
    /// For the proposer.
    pub answer: DirectoryAnswer,
    /// Groups that there are new messages for.
    pub posted: BTreeSet<GroupId>,
}

/// Why a replica can not apply an entry. It stops: going on would make it differ from the others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyFault {
    /// The entry's bytes are not of the schema.
    #[error("entry {index} is no directory entry: {reason}")]
    Malformed {
        /// Which.
        index: LogIndex,
        /// What is wrong.
        reason: String,
    },
    /// The entry was written by a newer version.
    #[error("entry {index} has format {found}, this build knows up to {DIRECTORY_FORMAT}")]
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

/// Why [`apply`] did not come to an end.
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

/// Applies one committed entry.
///
/// The result is a function of the entry and of the records that were read; `index` is only recorded.
pub fn apply(view: &dyn Read, index: LogIndex, entry: &[u8]) -> Result<Transition, Stop> {
    let entry = decode(index, entry).map_err(Stop::Fault)?;
    run(view, index, entry).map_err(|halt| match halt {
        Halt::Missing(keys) => Stop::Missing(keys),
        Halt::Fault(fault) => Stop::Fault(fault),
        // `run` answers refusals itself; one that reached this place would have no state to belong to.
        Halt::Refused(code, reason) => Stop::Fault(ApplyFault::Malformed { index, reason: format!("{code:?}: {reason}") }),
    })
}

/// Refuses what [`apply`] would stop at: for whoever proposes bytes that it did not encode itself.
pub fn check_entry(entry: &[u8]) -> Result<(), ApplyFault> {
    decode(LogIndex(0), entry).map(drop)
}

/// An entry of the current format.
#[must_use]
pub fn encode_entry(now_ms: u64, body: Body) -> Bytes {
    DirectoryEntry { format: DIRECTORY_FORMAT, now_ms, body: Some(body) }.encode_to_vec().into()
}

fn decode(index: LogIndex, bytes: &[u8]) -> Result<DirectoryEntry, ApplyFault> {
    let malformed = |reason: String| ApplyFault::Malformed { index, reason };
    let entry = DirectoryEntry::decode(bytes).map_err(|e| malformed(e.to_string()))?;
    match entry.format {
        0 => Err(malformed("format 0".into())),
        found if found > DIRECTORY_FORMAT => Err(ApplyFault::NewerFormat { index, found }),
        _ if entry.body.is_none() => Err(malformed("no body that this build knows".into())),
        _ => Ok(entry),
    }
}

fn run(view: &dyn Read, index: LogIndex, entry: DirectoryEntry) -> Result<Transition, Halt> {
    let mut txn = Txn::begin(view, index)?;
    let before = txn.counters;
    // Clocks of successive leaders differ; time as records see it never goes back.
    txn.counters.now_ms = txn.counters.now_ms.max(entry.now_ms);
    let answer = match handle(&mut txn, entry) {
        Ok(answer) => answer,
        Err(Halt::Refused(code, reason)) => {
            txn.changes = Changes::default();
            txn.counters = before;
            DirectoryAnswer { code: code as u32, reason, ..DirectoryAnswer::default() }
        }
        Err(halt) => return Err(halt),
    };
    let written = txn.finish()?;
    Ok(Transition { writes: written.writes, answer, posted: written.posted })
}

fn handle(txn: &mut Txn<'_>, entry: DirectoryEntry) -> Result<DirectoryAnswer, Halt> {
    match entry.body {
        Some(Body::Genesis(genesis)) => genesis::handle(txn, genesis),
        Some(Body::Plan(plan)) => plan::handle(txn, plan),
        Some(Body::Node(node)) => node::handle(txn, node),
        Some(Body::SignIn(order)) => sign_in::handle(txn, order),
        Some(Body::Message(message)) => message::handle(txn, vec![message]),
        Some(Body::Messages(messages)) => message::handle(txn, messages.messages),
        Some(Body::Ack(ack)) => ack::handle(txn, ack),
        Some(Body::Cut(cut)) => cut::handle(txn, cut),
        None => refuse(Code::Malformed, "no body"),
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
