//! What always holds of the state of a directory, a vault or the realm, checked over all of it: in tests and in simulation.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use marchland_proto::storage::{
    ChannelMessage, DirectoryAccount, DirectoryChannel, DirectoryChannelList, DirectoryCharacter, DirectoryCounters,
    DirectoryFolder, DirectoryNode, DirectoryRequest, GroupPlan, RealmGenesis, RealmWorld, VaultCharacter, VaultStub,
};
use marchland_types::limits::CHANNEL_MESSAGES_MAX;
use marchland_types::{CharacterId, GroupId, NodeId, ReplicaId, WorldId};
use prost::Message;

use crate::accounts::CHARACTERS_PER_ACCOUNT_MAX;
use crate::directory::REQUESTS_KEPT;
use crate::group::inbox::SET_ASIDE_MAX;
use crate::keys::{BadKey, Key, RequestDigest};
use crate::records::record_hash;
use crate::vault::UNDO_MAX;

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

/// The records that every keyed group has.
#[derive(Default)]
struct Common {
    counters: DirectoryCounters,
    hash: u64,
    listed: Vec<u64>,
    channels: BTreeMap<u64, DirectoryChannel>,
    posted: BTreeMap<(GroupId, u64), ChannelMessage>,
    set_aside: u32,
}

/// Nodes and their folders, as directories and the realm have them.
#[derive(Default)]
struct Nodes {
    nodes: BTreeMap<NodeId, DirectoryNode>,
    folders: BTreeMap<(NodeId, [u8; 16]), u32>,
}

/// The records of a directory alone.
#[derive(Default)]
struct State {
    characters: BTreeMap<u64, DirectoryCharacter>,
    names: BTreeMap<String, u64>,
    accounts: BTreeMap<String, DirectoryAccount>,
    nodes: Nodes,
    requests: BTreeMap<RequestDigest, u64>,
    orders: BTreeMap<u64, RequestDigest>,
}

/// The records of a vault alone.
#[derive(Default)]
struct Vault {
    kept: BTreeMap<CharacterId, VaultCharacter>,
    stubs: BTreeMap<CharacterId, VaultStub>,
    undo: BTreeSet<u64>,
}

/// The records of the realm alone.
#[derive(Default)]
struct Realm {
    genesis: Option<RealmGenesis>,
    plans: BTreeMap<GroupId, GroupPlan>,
    worlds: BTreeMap<WorldId, RealmWorld>,
    names: BTreeMap<String, WorldId>,
    world_of: BTreeMap<NodeId, WorldId>,
    nodes: Nodes,
}

fn read<M: Message + Default>(key: &Key, value: &Bytes) -> Result<M, Violation> {
    M::decode(value.clone()).map_err(|_| Violation::Unreadable(key.clone()))
}

/// Checks the whole state of a directory, as pairs of key and value.
pub fn check(records: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<(), Violation> {
    let mut state = State::default();
    let common = collect(records, |key, value| state.collect(key, value))?;
    names_and_accounts(&state, &common.counters)?;
    state.nodes.check()?;
    requests(&state, &common.counters)?;
    channels(&common)
}

/// Checks the whole state of a vault, as pairs of key and value.
pub fn check_vault(records: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<(), Violation> {
    let mut vault = Vault::default();
    let common = collect(records, |key, value| vault.collect(key, value))?;
    channels(&common)?;
    let counters = &common.counters;
    hold!(vault.kept.len() as u64 == counters.held, "{} characters are kept, {} are counted", vault.kept.len(), counters.held);
    for (id, kept) in &vault.kept {
        hold!(!vault.stubs.contains_key(id), "character {id} is kept and has a stub");
        hold!(kept.move_number > 0, "character {id} came without a move");
    }
    for (id, stub) in &vault.stubs {
        hold!(stub.group != 0 && stub.move_number > 0, "character {id} went nowhere");
    }
    let listed = counters.undo_begin..counters.undo_end;
    hold!(vault.undo.iter().copied().eq(listed.clone()), "undo records are not {listed:?}");
    hold!(vault.undo.len() as u64 <= UNDO_MAX, "{} undo records", vault.undo.len());
    Ok(())
}

/// Checks the whole state of the realm, as pairs of key and value.
pub fn check_realm(records: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<(), Violation> {
    let mut realm = Realm::default();
    let common = collect(records, |key, value| realm.collect(key, value))?;
    channels(&common)?;
    realm.nodes.check()?;
    let begun = realm.genesis.is_some();
    hold!(begun || (realm.worlds.is_empty() && realm.nodes.nodes.is_empty()), "something was recorded before the realm began");
    hold!(begun == realm.plans.contains_key(&GroupId::realm()), "the realm's own plan and its genesis do not go together");
    hold!(
        realm.plans.len() == realm.worlds.len() + usize::from(begun),
        "{} plans, {} worlds",
        realm.plans.len(),
        realm.worlds.len()
    );
    hold!(realm.names.len() == realm.worlds.len(), "{} names, {} worlds", realm.names.len(), realm.worlds.len());
    for (&id, world) in &realm.worlds {
        hold!(world.world == id.0, "world {id} is stored as {}", world.world);
        hold!(realm.names.get(&world.name) == Some(&id), "the name of world {id} belongs to {:?}", realm.names.get(&world.name));
        for node in world.nodes.iter().copied().map(NodeId) {
            hold!(realm.world_of.get(&node) == Some(&id), "node {node} of world {id} belongs to {:?}", realm.world_of.get(&node));
        }
        let Some(plan) = realm.plans.get(&GroupId::directory(id)) else {
            return Err(Violation::Contradiction(format!("the directory of world {id} has no plan")));
        };
        let foreign = plan.replicas.iter().map(|id| ReplicaId(*id)).find(|id| !world.nodes.contains(&id.node().0));
        hold!(foreign.is_none(), "replica {foreign:?} is on no node of world {id}");
    }
    for (node, world) in &realm.world_of {
        hold!(realm.worlds.contains_key(world), "node {node} belongs to world {world}, which is not recorded");
    }
    for node in realm.nodes.nodes.keys() {
        hold!(realm.world_of.contains_key(node), "node {node} belongs to no world");
    }
    Ok(())
}

/// Sorts records; `own` takes those of the group's kind, and says whether it did.
fn collect(
    records: impl IntoIterator<Item = (Bytes, Bytes)>,
    mut own: impl FnMut(&Key, &Bytes) -> Result<bool, Violation>,
) -> Result<Common, Violation> {
    let mut state = Common::default();
    for (bytes, value) in records {
        let key = Key::decode(&bytes)?;
        if !matches!(key, Key::Applied | Key::Counters) {
            state.hash = state.hash.wrapping_add(record_hash(&bytes, &value));
        }
        match &key {
            Key::Applied | Key::Cut(_) => {}
            Key::Counters => state.counters = read(&key, &value)?,
            Key::Channels => state.listed = read::<DirectoryChannelList>(&key, &value)?.groups,
            Key::Channel(group) => drop(state.channels.insert(group.0, read(&key, &value)?)),
            Key::Posted(group, seq) => drop(state.posted.insert((*group, *seq), read(&key, &value)?)),
            Key::SetAside(..) => state.set_aside += 1,
            _ => hold!(own(&key, &value)?, "{key:?} is a record of another kind of group"),
        }
    }
    Ok(state)
}

impl State {
    fn collect(&mut self, key: &Key, value: &Bytes) -> Result<bool, Violation> {
        let unreadable = || Violation::Unreadable(key.clone());
        match key {
            Key::World | Key::Plan(_) => {}
            Key::Node(_) | Key::Folder(..) => return self.nodes.collect(key, value),
            Key::Character(id) => {
                let record: DirectoryCharacter = read(key, value)?;
                hold!(record.character == id.0, "character {id} is stored as {}", record.character);
                self.characters.insert(id.0, record);
            }
            Key::Name(name) => {
                let id = value[..].try_into().map_err(|_| unreadable())?;
                self.names.insert(name.clone(), u64::from_be_bytes(id));
            }
            Key::Account(account) => drop(self.accounts.insert(account.clone(), read(key, value)?)),
            Key::Request(digest) => {
                let record: DirectoryRequest = read(key, value)?;
                self.requests.insert(*digest, record.order);
            }
            Key::RequestOrder(order) => {
                self.orders.insert(*order, value[..].try_into().map_err(|_| unreadable())?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Nodes {
    fn collect(&mut self, key: &Key, value: &Bytes) -> Result<bool, Violation> {
        match key {
            Key::Node(node) => drop(self.nodes.insert(*node, read(key, value)?)),
            Key::Folder(node, folder) => {
                let record: DirectoryFolder = read(key, value)?;
                self.folders.insert((*node, *folder), record.incarnation);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// No incarnation belongs to two folders, and each node is at its newest.
    fn check(&self) -> Result<(), Violation> {
        let mut given: BTreeMap<NodeId, BTreeSet<u32>> = BTreeMap::new();
        for (&(node, _), &incarnation) in &self.folders {
            hold!(given.entry(node).or_default().insert(incarnation), "incarnation {node}.{incarnation} was given twice");
        }
        for (node, record) in &self.nodes {
            let newest = given.get(node).and_then(|all| all.last().copied());
            hold!(newest == Some(record.incarnation), "node {node} is at {}, its folders at {newest:?}", record.incarnation);
        }
        hold!(given.len() == self.nodes.len(), "folders of {} nodes, {} nodes", given.len(), self.nodes.len());
        Ok(())
    }
}

impl Realm {
    fn collect(&mut self, key: &Key, value: &Bytes) -> Result<bool, Violation> {
        let world = || {
            value[..].try_into().map(|number| WorldId(u32::from_be_bytes(number))).map_err(|_| Violation::Unreadable(key.clone()))
        };
        match key {
            Key::Realm => self.genesis = Some(read(key, value)?),
            Key::Plan(group) => drop(self.plans.insert(*group, read(key, value)?)),
            Key::RealmWorld(id) => drop(self.worlds.insert(*id, read(key, value)?)),
            Key::WorldName(name) => drop(self.names.insert(name.clone(), world()?)),
            Key::WorldOf(node) => drop(self.world_of.insert(*node, world()?)),
            Key::Node(_) | Key::Folder(..) => return self.nodes.collect(key, value),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Vault {
    fn collect(&mut self, key: &Key, value: &Bytes) -> Result<bool, Violation> {
        match key {
            Key::Kept(id) => drop(self.kept.insert(*id, read(key, value)?)),
            Key::Stub(id) => drop(self.stubs.insert(*id, read(key, value)?)),
            Key::Undo(number) => drop(self.undo.insert(*number)),
            Key::Seeded(_) => hold!(value.len() == 4, "{key:?} has {} bytes", value.len()),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn names_and_accounts(state: &State, counters: &DirectoryCounters) -> Result<(), Violation> {
    for (&id, character) in &state.characters {
        hold!(id <= counters.last_character, "character {id} was never given out");
        let holder = state.names.get(&character.folded_name);
        hold!(holder == Some(&id), "the name of character {id} belongs to {holder:?}");
        let listed = state.accounts.get(&character.account).is_some_and(|a| a.characters.contains(&id));
        hold!(listed, "the account of character {id} does not list it");
        hold!(character.group != 0 && character.move_number > 0, "character {id} is nowhere");
        // One that was seeded has not been signed in.
        hold!((character.epoch > 0) == (character.admitted_group != 0), "character {id} was never admitted");
    }
    hold!(state.names.len() == state.characters.len(), "{} names, {} characters", state.names.len(), state.characters.len());
    let owned: usize = state.accounts.values().map(|a| a.characters.len()).sum();
    hold!(owned == state.characters.len(), "accounts list {owned} of {} characters", state.characters.len());
    for (account, record) in &state.accounts {
        hold!(record.characters.len() <= CHARACTERS_PER_ACCOUNT_MAX, "account {account:?} has too many characters");
    }
    Ok(())
}

fn requests(state: &State, counters: &DirectoryCounters) -> Result<(), Violation> {
    let kept = counters.requests_begin..counters.requests_end;
    hold!(state.orders.keys().copied().eq(kept.clone()), "kept requests are not {kept:?}");
    hold!(state.orders.len() as u64 <= REQUESTS_KEPT, "{} requests are kept", state.orders.len());
    hold!(state.requests.len() == state.orders.len(), "{} requests, {} orders", state.requests.len(), state.orders.len());
    for (order, digest) in &state.orders {
        hold!(state.requests.get(digest) == Some(order), "request {order} has no answer");
    }
    Ok(())
}

fn channels(state: &Common) -> Result<(), Violation> {
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
    let (found, expected) = (state.counters.state_hash, state.hash);
    hold!(found == expected, "state hash is {found:016x}, the records' is {expected:016x}");
    hold!(state.set_aside == state.counters.set_aside && state.set_aside <= SET_ASIDE_MAX, "{} set aside", state.set_aside);
    Ok(())
}
