//! The directory's transition function: one file a kind of entry.

mod borders;
mod genesis;
mod message;
mod node;
mod place;
mod plan;
mod seed;
mod sign_in;

use bytes::Bytes;
use marchland_proto::codes::Code;
use marchland_proto::storage::directory_entry::Body;
use marchland_proto::storage::{ChannelAck, Cut, DirectoryAnswer, DirectoryEntry};
use marchland_types::{GroupId, LogIndex, MapEpoch, WorldId};
use prost::Message;

use crate::group::{ApplyFault, Halt, Stop, Transition, ack, check_format, cut, refuse, run};
use crate::keys::Key;
use crate::records::KEYED_FORMAT;
use crate::txn::{Read, Sender, Txn};

pub use genesis::VAULTS_MAX;
pub(crate) use genesis::WORLD_NAME_MAX_BYTES;
pub use seed::SEED_COUNT_MAX;
pub(crate) use seed::check_count;
pub use sign_in::{REQUESTS_KEPT, SIGN_IN_CHANNEL_MESSAGES_MAX};

/// Applies one committed entry of a directory.
///
/// The result is a function of the entry and of the records that were read; `index` is only recorded.
pub fn apply(view: &dyn Read, index: LogIndex, entry: &[u8]) -> Result<Transition<DirectoryAnswer>, Stop> {
    let entry = decode(index, entry).map_err(Stop::Fault)?;
    let refused = |code: Code, reason| DirectoryAnswer { code: code as u32, reason, ..DirectoryAnswer::default() };
    let handle = |txn: &mut Txn<'_>| {
        txn.sender = txn
            .world()?
            .map(|world| Sender { group: GroupId::directory(WorldId(world.world)), map_epoch: MapEpoch(world.map_epoch) });
        handle(txn, entry.body)
    };
    run((view, index, entry.now_ms), &[Key::World], handle, refused)
}

/// Refuses what [`apply`] would stop at: for whoever proposes bytes that it did not encode itself.
pub fn check_entry(entry: &[u8]) -> Result<(), ApplyFault> {
    decode(LogIndex(0), entry).map(drop)
}

/// An entry of the current format.
#[must_use]
pub fn encode_entry(now_ms: u64, body: Body) -> Bytes {
    DirectoryEntry { format: KEYED_FORMAT, now_ms, body: Some(body) }.encode_to_vec().into()
}

fn decode(index: LogIndex, bytes: &[u8]) -> Result<DirectoryEntry, ApplyFault> {
    let malformed = |e: prost::DecodeError| ApplyFault::Malformed { index, reason: e.to_string() };
    let entry = DirectoryEntry::decode(bytes).map_err(malformed)?;
    check_format(index, entry.format, entry.body.is_some())?;
    Ok(entry)
}

fn handle(txn: &mut Txn<'_>, body: Option<Body>) -> Result<DirectoryAnswer, Halt> {
    match body {
        Some(Body::Genesis(genesis)) => genesis::handle(txn, genesis),
        Some(Body::Plan(plan)) => plan::handle(txn, plan),
        Some(Body::Node(node)) => node::handle(txn, node),
        Some(Body::SignIn(order)) => sign_in::handle(txn, order),
        Some(Body::Message(message)) => message::handle(txn, vec![message]),
        Some(Body::Messages(messages)) => message::handle(txn, messages.messages),
        Some(Body::Ack(ack)) => acked(txn, ack),
        Some(Body::Cut(cut)) => cut_ordered(txn, cut),
        Some(Body::Seed(seed)) => seed::handle(txn, &seed),
        Some(Body::Map(order)) => borders::handle(txn, order),
        None => refuse(Code::Malformed, "no body"),
    }
}

fn acked(txn: &mut Txn<'_>, ack: ChannelAck) -> Result<DirectoryAnswer, Halt> {
    let taken_seq = ack::take(txn, ack, |_, _, _| Ok(()))?;
    Ok(DirectoryAnswer { taken_seq, ..DirectoryAnswer::default() })
}

fn cut_ordered(txn: &mut Txn<'_>, order: Cut) -> Result<DirectoryAnswer, Halt> {
    let cut = cut::ordered(txn, order)?;
    Ok(DirectoryAnswer { cut, ..DirectoryAnswer::default() })
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
