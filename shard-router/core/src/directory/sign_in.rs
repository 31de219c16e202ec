//! Sign-in: an account takes a character into a new session.
//!
//! A free name makes a new character, a name of the account's own is signed in again, another's is refused. Each sign-in
//! raises the character's session epoch and posts `Admit` to the region that has it, or `Withdraw` to its vault. The same order gives the same answer,
//! for as long as the last [`REQUESTS_KEPT`] orders go back.

use marchland_proto::codes::Code;
use marchland_proto::storage::channel_message::Body;
use marchland_proto::storage::{Admit, DirectoryAnswer, DirectoryCharacter, DirectoryRequest, Expel, SignInAnswer, SignInOrder};
use marchland_types::limits::{CHANNEL_MESSAGES_MAX, NAME_MAX_BYTES};
use marchland_types::{CharacterId, GroupId};

use super::place;
use crate::accounts::{CHARACTERS_PER_ACCOUNT_MAX, check_account};
use crate::group::post::post;
use crate::group::{ApplyFault, Halt, refuse};
use crate::keys::{Key, RequestDigest};
use crate::map::RegionMap;
use crate::names::FOLDED_NAME_MAX_BYTES;
use crate::records::request_digest;
use crate::txn::Txn;

/// Sign-in orders whose answers are kept. At 3,000 sign-ins a second they cover the 10 s within which a sign-in is retried.
pub const REQUESTS_KEPT: u64 = 32_768;
/// Messages that may wait for a receiver before sign-ins that need it are refused. The rest is kept for what follows
/// from messages that came in, which can not be refused as easily.
pub const SIGN_IN_CHANNEL_MESSAGES_MAX: usize = CHANNEL_MESSAGES_MAX * 3 / 4;
/// Length of the hash of a resume secret (SHA-256).
const SECRET_HASH_BYTES: usize = 32;

pub(super) fn handle(txn: &mut Txn<'_>, order: SignInOrder) -> Result<DirectoryAnswer, Halt> {
    let digest = request_digest(&order);
    txn.want([
        Key::Request(digest),
        Key::Name(order.folded_name.clone()),
        Key::Account(order.account.clone()),
        Key::RequestOrder(txn.counters.requests_end),
        Key::RequestOrder(txn.counters.requests_begin),
    ])?;
    if let Some(kept) = txn.request(digest)? {
        return Ok(answer(kept.answer.unwrap_or_default(), kept.reason));
    }
    check_order(&order)?;
    let Some(world) = txn.world()? else {
        return refuse(Code::Unavailable, "the world has not begun");
    };
    let map = place::map_of(&world)?;
    let mut character = match txn.name_holder(&order.folded_name)? {
        Some(id) => {
            let damaged = || Halt::Fault(ApplyFault::Damaged { key: Key::Character(id) });
            let character = txn.character(id)?.ok_or_else(damaged)?;
            if character.account != order.account {
                let reason = format!("the name {:?} belongs to another account", character.name);
                return decided(txn, digest, SignInAnswer { code: Code::NameTaken as u32, ..SignInAnswer::default() }, reason);
            }
            character
        }
        None => match create(txn, &order, &map)? {
            Some(character) => character,
            None => {
                let reason = format!("the account has {CHARACTERS_PER_ACCOUNT_MAX} characters");
                return decided(txn, digest, SignInAnswer { code: Code::Full as u32, ..SignInAnswer::default() }, reason);
            }
        },
    };

    character.epoch += 1;
    character.waiting = None;
    let at = place::admission(&map, &character);
    if character.admitted_group != 0 && character.admitted_group != at.group.0 {
        // The older session was admitted elsewhere, and may not have followed the character.
        let expel = Expel { character: character.character, epoch: character.epoch };
        post(txn, GroupId(character.admitted_group), SIGN_IN_CHANNEL_MESSAGES_MAX, Body::Expel(expel))?;
    }
    let admit = Admit {
        character: character.character,
        epoch: character.epoch,
        secret_hash: order.secret_hash,
        name: character.name.clone(),
        account: character.account.clone(),
        ..Admit::default()
    };
    place::admit(txn, &map, &mut character, admit, SIGN_IN_CHANNEL_MESSAGES_MAX)?;
    txn.put(&Key::Character(CharacterId(character.character)), &character);
    let given = SignInAnswer {
        code: 0,
        character: character.character,
        epoch: character.epoch,
        group: at.group.0,
        region: at.region,
        move_number: at.move_number,
    };
    decided(txn, digest, given, String::new())
}

/// What needs no tables of the toolchain. The rest of a name's rules is the proposer's business.
fn check_order(order: &SignInOrder) -> Result<(), Halt> {
    if let Err(bad) = check_account(&order.account) {
        return refuse(Code::BadToken, bad.to_string());
    }
    let (shown, folded) = (order.character_name.len(), order.folded_name.len());
    if shown == 0 || shown > NAME_MAX_BYTES || folded == 0 || folded > FOLDED_NAME_MAX_BYTES {
        return refuse(Code::BadName, format!("name of {shown} bytes, folded {folded}"));
    }
    if order.secret_hash.len() != SECRET_HASH_BYTES {
        return refuse(
            Code::Malformed,
            format!("secret hash of {} bytes, {SECRET_HASH_BYTES} expected", order.secret_hash.len()),
        );
    }
    Ok(())
}

/// A new character at its entrance to the world, not stored yet; `None` if the account has its share.
fn create(txn: &mut Txn<'_>, order: &SignInOrder, map: &RegionMap) -> Result<Option<DirectoryCharacter>, Halt> {
    let mut account = txn.account(&order.account)?;
    if account.characters.len() >= CHARACTERS_PER_ACCOUNT_MAX {
        return Ok(None);
    }
    let id = CharacterId(txn.counters.last_character).next();
    txn.counters.last_character = id.0;
    account.characters.push(id.0);
    txn.put(&Key::Account(order.account.clone()), &account);
    txn.put_bytes(&Key::Name(order.folded_name.clone()), bytes::Bytes::copy_from_slice(&id.0.to_be_bytes()));
    let entrance = map.entrance_for(id);
    Ok(Some(DirectoryCharacter {
        character: id.0,
        name: order.character_name.clone(),
        folded_name: order.folded_name.clone(),
        account: order.account.clone(),
        move_number: 1,
        group: entrance.group.0,
        region: entrance.region.0,
        created_ms: txn.counters.now_ms,
        last_region: entrance.region.0,
        ..DirectoryCharacter::default()
    }))
}

/// Remembers the answer, forgets the oldest one beyond the bound, and gives it.
fn decided(txn: &mut Txn<'_>, digest: RequestDigest, given: SignInAnswer, reason: String) -> Result<DirectoryAnswer, Halt> {
    let order = txn.counters.requests_end;
    txn.counters.requests_end += 1;
    txn.put(&Key::Request(digest), &DirectoryRequest { order, answer: Some(given), reason: reason.clone() });
    txn.put_bytes(&Key::RequestOrder(order), bytes::Bytes::copy_from_slice(&digest));
    if txn.counters.requests_end - txn.counters.requests_begin > REQUESTS_KEPT {
        let oldest = Key::RequestOrder(txn.counters.requests_begin);
        let forgotten = txn.get(&oldest)?.and_then(|digest| RequestDigest::try_from(&digest[..]).ok());
        let Some(forgotten) = forgotten else {
            return Err(Halt::Fault(ApplyFault::Damaged { key: oldest }));
        };
        txn.remove(&oldest);
        txn.remove(&Key::Request(forgotten));
        txn.counters.requests_begin += 1;
    }
    Ok(answer(given, reason))
}

fn answer(given: SignInAnswer, reason: String) -> DirectoryAnswer {
    DirectoryAnswer { code: given.code, reason, sign_in: Some(given), ..DirectoryAnswer::default() }
}
