//! The realm: what all worlds of a deployment have in common.
//!
//! It knows the worlds with the members of their directories, which are recorded before a directory is initialised, and it issues
//! the incarnations of the nodes' data folders. Worlds go on without it; what needs it waits.
//!
//! ```text
//! a world begins   ── World, with its plan ──▶ recorded: its directory may be initialised
//! a new folder     ── Node, claims nothing ──▶ the next incarnation, bound to the folder
//! a known folder   ── Node, claims its own ──▶ bound, if it is above all that are known
//! ```

mod genesis;
mod node;
mod world;

use bytes::Bytes;
use marchland_proto::codes::Code;
use marchland_proto::storage::realm_entry::Body;
use marchland_proto::storage::{Cut, RealmAnswer, RealmEntry};
use marchland_types::LogIndex;
use prost::Message;

use crate::group::{ApplyFault, Halt, Stop, Transition, check_format, cut, refuse, run};
use crate::keys::Key;
use crate::records::KEYED_FORMAT;
use crate::txn::{Read, Txn};

pub use world::WORLD_NODES_MAX;

/// Applies one committed entry of the realm.
///
/// The result is a function of the entry and of the records that were read; `index` is only recorded.
pub fn apply_realm(view: &dyn Read, index: LogIndex, entry: &[u8]) -> Result<Transition<RealmAnswer>, Stop> {
    let entry = decode(index, entry).map_err(Stop::Fault)?;
    let refused = |code: Code, reason| RealmAnswer { code: code as u32, reason, ..RealmAnswer::default() };
    run((view, index, entry.now_ms), &[Key::Realm], |txn| handle(txn, entry.body), refused)
}

/// An entry of the current format.
#[must_use]
pub fn encode_realm_entry(now_ms: u64, body: Body) -> Bytes {
    RealmEntry { format: KEYED_FORMAT, now_ms, body: Some(body) }.encode_to_vec().into()
}

fn decode(index: LogIndex, bytes: &[u8]) -> Result<RealmEntry, ApplyFault> {
    let malformed = |e: prost::DecodeError| ApplyFault::Malformed { index, reason: e.to_string() };
    let entry = RealmEntry::decode(bytes).map_err(malformed)?;
    check_format(index, entry.format, entry.body.is_some())?;
    Ok(entry)
}

fn handle(txn: &mut Txn<'_>, body: Option<Body>) -> Result<RealmAnswer, Halt> {
    match body {
        Some(Body::Genesis(genesis)) => genesis::handle(txn, genesis),
        Some(Body::World(world)) => world::handle(txn, world),
        Some(Body::Node(node)) => node::handle(txn, node),
        Some(Body::Cut(order)) => cut_ordered(txn, order),
        None => refuse(Code::Malformed, "no body"),
    }
}

fn cut_ordered(txn: &mut Txn<'_>, order: Cut) -> Result<RealmAnswer, Halt> {
    let cut = cut::ordered(txn, order)?;
    Ok(RealmAnswer { cut, ..RealmAnswer::default() })
}

/// Whatever is recorded belongs to a realm that has begun.
fn begun(txn: &Txn<'_>) -> Result<(), Halt> {
    match txn.realm()? {
        Some(_) => Ok(()),
        None => refuse(Code::Unavailable, "the realm has not begun"),
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
