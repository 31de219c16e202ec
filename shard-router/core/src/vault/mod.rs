//! A vault: characters that are logged out, kept as bytes that only regions read.
//!
//! A character comes by `Deposit` from the region that it left, and goes by `Admit` to the region that the directory names.
//! Every move raises its move number. What the vault keeps of one that went is a stub, until the directory drops it:
//!
//! ```text
//! region A       vault                    directory           region B
//!    ── Deposit 6 ─▶ kept 6
//!                      ── Location 6 ───────▶ is in the vault
//!    ◀───────────────────────── DropStub 6 ──┤
//!                      ◀─ Withdraw to B ─────┤ sign-in
//!                    stub 7 ── Admit 7, with the record ────────▶ takes it, always
//!                                            ◀──── Location 7 ────┤
//!                      ◀─ DropStub 7 ────────┘
//! ```
//!
//! A vault knows its world and number from its group, so it needs no genesis. It takes messages of regions and of the
//! directory of its world alone.

mod at_cut;
mod deposit;
mod seed;
mod undo;
mod withdraw;

use bytes::Bytes;
use marchland_proto::codes::Code;
use marchland_proto::storage::channel_message::Body as Message;
use marchland_proto::storage::vault_entry::Body;
use marchland_proto::storage::{ChannelMessage, VaultAnswer, VaultEntry};
use marchland_types::{CharacterId, GroupId, GroupKind, LogIndex, MapEpoch};
use prost::Message as _;

use crate::group::inbox::{self, Verdict};
use crate::group::{ApplyFault, Halt, Stop, Transition, ack, check_format, cut, refuse, run};
use crate::keys::Key;
use crate::records::KEYED_FORMAT;
use crate::txn::{Read, Sender, Txn};

pub use at_cut::{VaultAtCut, taken_at};
pub use undo::UNDO_MAX;

/// Applies one committed entry of the vault `own`.
///
/// The result is a function of the entry and of the records that were read; `index` is only recorded.
pub fn apply_vault(view: &dyn Read, own: GroupId, index: LogIndex, entry: &[u8]) -> Result<Transition<VaultAnswer>, Stop> {
    let entry = decode(index, entry).map_err(Stop::Fault)?;
    let refused = |code: Code, reason| VaultAnswer { code: code as u32, reason, ..VaultAnswer::default() };
    let handle = |txn: &mut Txn<'_>| {
        txn.sender = Some(Sender { group: own, map_epoch: MapEpoch(0) });
        handle(txn, own, entry.body)
    };
    run((view, index, entry.now_ms), &[], handle, refused)
}

/// An entry of the current format.
#[must_use]
pub fn encode_vault_entry(now_ms: u64, body: Body) -> Bytes {
    VaultEntry { format: KEYED_FORMAT, now_ms, body: Some(body) }.encode_to_vec().into()
}

fn decode(index: LogIndex, bytes: &[u8]) -> Result<VaultEntry, ApplyFault> {
    let malformed = |e: prost::DecodeError| ApplyFault::Malformed { index, reason: e.to_string() };
    let entry = VaultEntry::decode(bytes).map_err(malformed)?;
    check_format(index, entry.format, entry.body.is_some())?;
    Ok(entry)
}

fn handle(txn: &mut Txn<'_>, own: GroupId, body: Option<Body>) -> Result<VaultAnswer, Halt> {
    match body {
        Some(Body::Messages(messages)) => take(txn, own, messages.messages),
        Some(Body::Ack(ack)) => {
            let taken_seq = ack::take(txn, ack, undo::trimmed)?;
            Ok(VaultAnswer { taken_seq, ..VaultAnswer::default() })
        }
        Some(Body::Cut(order)) => {
            let cut = cut::ordered(txn, order)?;
            Ok(VaultAnswer { cut, ..VaultAnswer::default() })
        }
        Some(Body::Seed(seed)) => seed::handle(txn, own, &seed),
        None => refuse(Code::Malformed, "no body"),
    }
}

fn take(txn: &mut Txn<'_>, own: GroupId, messages: Vec<ChannelMessage>) -> Result<VaultAnswer, Halt> {
    let from = inbox::sender(&messages)?;
    let known = from == GroupId::directory(own.world()) || is_region_of(own, from);
    if !known {
        return refuse(Code::Forbidden, format!("{from} has no business with {own}"));
    }
    txn.want(messages.iter().filter_map(about).flat_map(|id| [Key::Kept(id), Key::Stub(id)]))?;
    let taken = inbox::take(txn, from, messages, |txn, message| take_one(txn, own, message))?;
    Ok(VaultAnswer {
        code: taken.code as u32,
        reason: taken.reason,
        taken_seq: taken.seq,
        cut: txn.counters.cut,
        ..VaultAnswer::default()
    })
}

fn take_one(txn: &mut Txn<'_>, own: GroupId, message: &ChannelMessage) -> Result<Verdict, Halt> {
    let from = GroupId(message.from_group);
    let of_directory = from == GroupId::directory(own.world());
    match &message.body {
        Some(Message::Deposit(deposit)) if !of_directory => deposit::take(txn, own, message, deposit),
        Some(Message::Moved(moved)) if !of_directory => deposit::take_back(txn, own, message, moved),
        Some(Message::Withdraw(withdraw)) if of_directory => withdraw::take(txn, own, message, withdraw),
        Some(Message::DropStub(stub)) if of_directory => withdraw::drop_stub(txn, *stub),
        Some(Message::Fin(_)) => {
            inbox::finished(txn, from)?;
            Ok(Verdict::Used)
        }
        Some(
            Message::Admit(_)
            | Message::Expel(_)
            | Message::MapChange(_)
            | Message::Handoff(_)
            | Message::Location(_)
            | Message::DropStub(_)
            | Message::Moved(_)
            | Message::Game(_)
            | Message::Deposit(_)
            | Message::Withdraw(_),
        )
        | None => Ok(Verdict::SetAside(message.clone())),
    }
}

/// The character that a message is about, if a vault has to do with it.
fn about(message: &ChannelMessage) -> Option<CharacterId> {
    let character = match message.body.as_ref()? {
        Message::Deposit(deposit) => deposit.character,
        Message::Withdraw(withdraw) => withdraw.admit.as_ref()?.character,
        Message::DropStub(stub) => stub.character,
        Message::Moved(moved) => moved.character,
        Message::Admit(_)
        | Message::Expel(_)
        | Message::MapChange(_)
        | Message::Handoff(_)
        | Message::Location(_)
        | Message::Game(_)
        | Message::Fin(_) => return None,
    };
    Some(CharacterId(character))
}

fn is_region_of(own: GroupId, group: GroupId) -> bool {
    group.kind() == Some(GroupKind::Region) && group.world() == own.world()
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
