//! What always holds of a directory's state, checked over all of it: in tests, in simulation, and by `verify`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use marchland_proto::storage::{
    ChannelMessage, DirectoryAccount, DirectoryChannel, DirectoryChannelList, DirectoryCharacter, DirectoryCounters,
    DirectoryFolder, DirectoryNode, DirectoryRequest,
};
use marchland_types::limits::CHANNEL_MESSAGES_MAX;
use marchland_types::{CharacterId, GroupId, NodeId};
use prost::Message;

use crate::accounts::CHARACTERS_PER_ACCOUNT_MAX;
use crate::apply::{REQUESTS_KEPT, SET_ASIDE_MAX};
use crate::keys::{BadKey, Key, RequestDigest};
use crate::records::record_hash;

/// What does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A record under a key that is none.
    #[error(transparent)]
    Key(#[from] BadKey),
    /// A record that is not of its type.
    #[error("record {0:?} is unreadable")]
    Unreadable(Key),
    /// Records that contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

macro_rules! hold {
    ($holds:expr, $($what:tt)*) => {
        if !$holds {
            return Err(Violation::Contradiction(format!($($what)*)));
        }
    };
}

#[derive(Default)]
struct State {
    counters: DirectoryCounters,
    hash: u64,
    characters: BTreeMap<u64, DirectoryCharacter>,
    names: BTreeMap<String, u64>,
    accounts: BTreeMap<String, DirectoryAccount>,
    nodes: BTreeMap<NodeId, DirectoryNode>,
    folders: BTreeMap<(NodeId, [u8; 16]), u32>,
    requests: BTreeMap<RequestDigest, u64>,
    orders: BTreeMap<u64, RequestDigest>,
    listed: Vec<u64>,
    channels: BTreeMap<u64, DirectoryChannel>,
    posted: BTreeMap<(GroupId, u64), ChannelMessage>,
    set_aside: u32,
}

fn read<M: Message + Default>(key: &Key, value: &Bytes) -> Result<M, Violation> {
    M::decode(value.clone()).map_err(|_| Violation::Unreadable(key.clone()))
}

/// Checks a whole state, as pairs of key and value.
pub fn check(records: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<(), Violation> {
    let state = collect(records)?;
    names_and_accounts(&state)?;
    nodes(&state)?;
    requests(&state)?;
    channels(&state)?;
    let (found, expected) = (state.counters.state_hash, state.hash);
    hold!(found == expected, "state hash is {found:016x}, the records' is {expected:016x}");
    hold!(state.set_aside == state.counters.set_aside && state.set_aside <= SET_ASIDE_MAX, "{} set aside", state.set_aside);
    Ok(())
}

fn collect(records: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<State, Violation> {
    let mut state = State::default();
    for (bytes, value) in records {
        let key = Key::decode(&bytes)?;
        let unreadable = || Violation::Unreadable(key.clone());
        if !matches!(key, Key::Applied | Key::Counters) {
            state.hash = state.hash.wrapping_add(record_hash(&bytes, &value));
        }
        match &key {
            Key::Applied | Key::World | Key::Plan(_) | Key::Cut(_) => {}
            Key::Counters => state.counters = read(&key, &value)?,
            Key::Node(node) => drop(state.nodes.insert(*node, read(&key, &value)?)),
            Key::Folder(node, folder) => {
                let record: DirectoryFolder = read(&key, &value)?;
                state.folders.insert((*node, *folder), record.incarnation);
            }
            Key::Character(id) => {
                let record: DirectoryCharacter = read(&key, &value)?;
                hold!(record.character == id.0, "character {id} is stored as {}", record.character);
                state.characters.insert(id.0, record);
            }
            Key::Name(name) => {
                let id = value[..].try_into().map_err(|_| unreadable())?;
                state.names.insert(name.clone(), u64::from_be_bytes(id));
            }
            Key::Account(account) => drop(state.accounts.insert(account.clone(), read(&key, &value)?)),
            Key::Request(digest) => {
                let record: DirectoryRequest = read(&key, &value)?;
                state.requests.insert(*digest, record.order);
            }
            Key::RequestOrder(order) => {
                state.orders.insert(*order, value[..].try_into().map_err(|_| unreadable())?);
            }
            Key::Channels => state.listed = read::<DirectoryChannelList>(&key, &value)?.groups,
            Key::Channel(group) => drop(state.channels.insert(group.0, read(&key, &value)?)),
            Key::Posted(group, seq) => drop(state.posted.insert((*group, *seq), read(&key, &value)?)),
            Key::SetAside(..) => state.set_aside += 1,
        }
    }
    Ok(state)
}

fn names_and_accounts(state: &State) -> Result<(), Violation> {
    for (&id, character) in &state.characters {
        hold!(id <= state.counters.last_character, "character {id} was never given out");
        let holder = state.names.get(&character.folded_name);
        hold!(holder == Some(&id), "the name of character {id} belongs to {holder:?}");
        let listed = state.accounts.get(&character.account).is_some_and(|a| a.characters.contains(&id));
        hold!(listed, "the account of character {id} does not list it");
        hold!(character.epoch > 0 && character.move_number > 0, "character {id} was never signed in");
    }
    hold!(state.names.len() == state.characters.len(), "{} names, {} characters", state.names.len(), state.characters.len());
    let owned: usize = state.accounts.values().map(|a| a.characters.len()).sum();
    hold!(owned == state.characters.len(), "accounts list {owned} of {} characters", state.characters.len());
    for (account, record) in &state.accounts {
        hold!(record.characters.len() <= CHARACTERS_PER_ACCOUNT_MAX, "account {account:?} has too many characters");
    }
    Ok(())
}

fn nodes(state: &State) -> Result<(), Violation> {
    let mut given: BTreeMap<NodeId, BTreeSet<u32>> = BTreeMap::new();
    for (&(node, _), &incarnation) in &state.folders {
        hold!(given.entry(node).or_default().insert(incarnation), "incarnation {node}.{incarnation} was given twice");
    }
    for (node, record) in &state.nodes {
        let newest = given.get(node).and_then(|all| all.last().copied());
        hold!(newest == Some(record.incarnation), "node {node} is at {}, its folders at {newest:?}", record.incarnation);
    }
    hold!(given.len() == state.nodes.len(), "folders of {} nodes, {} nodes", given.len(), state.nodes.len());
    Ok(())
}

fn requests(state: &State) -> Result<(), Violation> {
    let kept = state.counters.requests_begin..state.counters.requests_end;
    hold!(state.orders.keys().copied().eq(kept.clone()), "kept requests are not {kept:?}");
    hold!(state.orders.len() as u64 <= REQUESTS_KEPT, "{} requests are kept", state.orders.len());
    hold!(state.requests.len() == state.orders.len(), "{} requests, {} orders", state.requests.len(), state.orders.len());
    for (order, digest) in &state.orders {
        hold!(state.requests.get(digest) == Some(order), "request {order} has no answer");
    }
    Ok(())
}

fn channels(state: &State) -> Result<(), Violation> {
    hold!(state.listed.iter().eq(state.channels.keys()), "listed channels are {:?}", state.listed);
    let mut waiting = 0;
    for (&group, channel) in &state.channels {
        let group = GroupId(group);
        hold!(channel.acked_seq <= channel.posted_seq, "{group} acknowledged what was not posted");
        let expected = channel.acked_seq + 1..=channel.posted_seq;
        let count = (channel.posted_seq - channel.acked_seq) as usize;
        hold!(count <= CHANNEL_MESSAGES_MAX, "{count} messages wait for {group}");
        for seq in expected {
            let message = state.posted.get(&(group, seq));
            hold!(message.is_some_and(|m| m.seq == seq), "message {seq} to {group} is not there");
        }
        waiting += count;
    }
    hold!(waiting == state.posted.len(), "{} messages are kept, {waiting} wait", state.posted.len());
    for character in state.characters.values() {
        let place = CharacterId(character.character);
        hold!(character.group != 0 && character.admitted_group != 0, "character {place} is nowhere");
    }
    Ok(())
}
