//! Many characters at once: names and accounts of characters that their vaults are told to keep.
//!
//! The order names the id that its first character gets, so that a repeated one is known for what it is. The directory comes
//! first, for it gives out the ids; then the vaults make the characters. Whoever signs in as one of them in between waits for
//! its vault to have it, and has to sign in again.

use marchland_proto::codes::Code;
use marchland_proto::storage::{CharacterSeed, DirectoryAccount, DirectoryAnswer, DirectoryCharacter};
use marchland_types::limits::NAME_MAX_BYTES;
use marchland_types::{CharacterId, WorldId, vault_of};

use crate::group::{Halt, refuse};
use crate::keys::Key;
use crate::txn::Txn;

/// Characters of one seed order: about as much as a delivery of messages writes.
pub const SEED_COUNT_MAX: u32 = 1024;
/// Digits of the largest id.
const ID_DIGITS_MAX: usize = 20;

pub(super) fn handle(txn: &mut Txn<'_>, seed: &CharacterSeed) -> Result<DirectoryAnswer, Halt> {
    let Some(world) = txn.world()? else {
        return refuse(Code::Unavailable, "the world has not begun");
    };
    if world.vaults == 0 {
        return refuse(Code::Refused, "the world has no vaults");
    }
    let next = txn.counters.last_character + 1;
    let answer = |next| DirectoryAnswer { next_character: next, ..DirectoryAnswer::default() };
    let other = |reason| Ok(DirectoryAnswer { code: Code::Refused as u32, reason, ..answer(next) });
    if seed.first == 0 {
        return other(format!("the next character is {next}"));
    }
    let ids = check_count(seed.first, seed.count)?;
    let letters = !seed.prefix.is_empty() && seed.prefix.bytes().all(|b| b.is_ascii_alphabetic());
    if !letters || seed.prefix.len() + ID_DIGITS_MAX > NAME_MAX_BYTES {
        return refuse(Code::BadName, format!("prefix {:?}: a few ASCII letters expected", seed.prefix));
    }
    if seed.first != next {
        // Made by this very order before: its names stand, the last of them too.
        let last = txn.character(CharacterId(ids.end - 1))?;
        let first = txn.character(CharacterId(seed.first))?;
        let same = |found: Option<DirectoryCharacter>, id| found.is_some_and(|found| found.name == name(&seed.prefix, id));
        if same(first, seed.first) && same(last, ids.end - 1) {
            return Ok(answer(next));
        }
        return other(format!("the next character is {next}, the order begins with {}", seed.first));
    }
    let (shown, folded) = (|id| name(&seed.prefix, id), |id| name(&seed.prefix, id).to_ascii_lowercase());
    txn.want(ids.clone().flat_map(|id| [Key::Name(folded(id)), Key::Account(folded(id)), Key::Character(CharacterId(id))]))?;
    for id in ids.clone() {
        if txn.name_holder(&folded(id))?.is_some() {
            return refuse(Code::NameTaken, format!("the name {:?} is taken", shown(id)));
        }
        let mut account: DirectoryAccount = txn.account(&folded(id))?;
        account.characters.push(id);
        txn.put(&Key::Account(folded(id)), &account);
        txn.put_bytes(&Key::Name(folded(id)), bytes::Bytes::copy_from_slice(&id.to_be_bytes()));
        let vault = vault_of(WorldId(world.world), world.vaults, CharacterId(id));
        let character = DirectoryCharacter {
            character: id,
            name: shown(id),
            folded_name: folded(id),
            account: folded(id),
            move_number: 1,
            group: vault.0,
            created_ms: txn.counters.now_ms,
            ..DirectoryCharacter::default()
        };
        txn.put(&Key::Character(CharacterId(id)), &character);
    }
    txn.counters.last_character = ids.end - 1;
    Ok(answer(ids.end))
}

fn name(prefix: &str, id: u64) -> String {
    format!("{prefix}{id}")
}

/// The ids of a seed order.
pub(crate) fn check_count(first: u64, count: u32) -> Result<std::ops::Range<u64>, Halt> {
    if count == 0 || count > SEED_COUNT_MAX {
        return refuse(Code::TooLarge, format!("seed of {count} characters, 1 to {SEED_COUNT_MAX} expected"));
    }
    match first.checked_add(u64::from(count)) {
        Some(end) if first > 0 => Ok(first..end),
        _ => refuse(Code::Malformed, format!("seed from character {first}")),
    }
}
