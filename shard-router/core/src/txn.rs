//! Reads and writes of one transition.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use marchland_proto::storage::{
    DirectoryAccount, DirectoryChannel, DirectoryChannelList, DirectoryCharacter, DirectoryCounters, DirectoryFolder,
    DirectoryGenesis, DirectoryNode, DirectoryRequest, GroupPlan, RealmGenesis, RealmWorld, VaultCharacter, VaultStub,
};
use marchland_types::{CharacterId, GroupId, LogIndex, MapEpoch, NodeId, WorldId};
use prost::Message;

use crate::group::{ApplyFault, Halt};
use crate::keys::{Key, RequestDigest};
use crate::records::{encode, record_hash};

/// What is known of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Its value, or that there is none.
    Known(Option<Bytes>),
    /// Not fetched yet.
    Missing,
}

/// Where a transition reads. Must answer the same for as long as the transition runs.
pub trait Read {
    /// The value of a key, if it is at hand.
    fn get(&self, key: &[u8]) -> Lookup;
}

/// A whole state in memory: nothing is ever missing.
impl Read for BTreeMap<Bytes, Bytes> {
    fn get(&self, key: &[u8]) -> Lookup {
        Lookup::Known(BTreeMap::get(self, key).cloned())
    }
}

/// Writes over a view. Nothing of it is seen outside before [`Txn::finish`].
pub(crate) struct Txn<'a> {
    view: &'a dyn Read,
    pub(crate) index: LogIndex,
    pub(crate) counters: DirectoryCounters,
    pub(crate) changes: Changes,
    /// As what messages are posted; nothing may be posted without.
    pub(crate) sender: Option<Sender>,
}

/// How a group stands in what it posts.
#[derive(Clone, Copy)]
pub(crate) struct Sender {
    pub(crate) group: GroupId,
    /// The map that it goes by; 0 where no map matters.
    pub(crate) map_epoch: MapEpoch,
}

/// What a transition has done so far. Cloned as a savepoint.
#[derive(Clone, Default)]
pub(crate) struct Changes {
    writes: BTreeMap<Bytes, Option<Bytes>>,
    pub(crate) posted: BTreeSet<GroupId>,
}

impl<'a> Txn<'a> {
    /// `wanted` is what every transition of the group reads.
    pub(crate) fn begin(view: &'a dyn Read, index: LogIndex, wanted: &[Key]) -> Result<Self, Halt> {
        let mut txn = Self { view, index, counters: DirectoryCounters::default(), changes: Changes::default(), sender: None };
        txn.want(wanted.iter().cloned().chain([Key::Counters]))?;
        txn.counters = txn.message(&Key::Counters)?.unwrap_or_default();
        Ok(txn)
    }

    /// Asks for records that will be read, all at once: saves the caller a round for each.
    pub(crate) fn want(&self, keys: impl IntoIterator<Item = Key>) -> Result<(), Halt> {
        let missing: BTreeSet<_> = keys
            .into_iter()
            .map(|key| key.encode())
            .filter(|key| !self.changes.writes.contains_key(key) && self.view.get(key) == Lookup::Missing)
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(Halt::Missing(missing.into_iter().collect())) }
    }

    pub(crate) fn get(&self, key: &Key) -> Result<Option<Bytes>, Halt> {
        let bytes = key.encode();
        if let Some(written) = self.changes.writes.get(&bytes) {
            return Ok(written.clone());
        }
        match self.view.get(&bytes) {
            Lookup::Known(value) => Ok(value),
            Lookup::Missing => Err(Halt::Missing(vec![bytes])),
        }
    }

    pub(crate) fn message<M: Message + Default>(&self, key: &Key) -> Result<Option<M>, Halt> {
        match self.get(key)? {
            None => Ok(None),
            Some(bytes) => M::decode(bytes).map(Some).map_err(|_| Halt::Fault(ApplyFault::Damaged { key: key.clone() })),
        }
    }

    pub(crate) fn put(&mut self, key: &Key, value: &impl Message) {
        self.put_bytes(key, encode(value));
    }

    pub(crate) fn put_bytes(&mut self, key: &Key, value: Bytes) {
        self.changes.writes.insert(key.encode(), Some(value));
    }

    pub(crate) fn remove(&mut self, key: &Key) {
        self.changes.writes.insert(key.encode(), None);
    }

    pub(crate) fn world(&self) -> Result<Option<DirectoryGenesis>, Halt> {
        self.message(&Key::World)
    }

    pub(crate) fn plan(&self, group: GroupId) -> Result<Option<GroupPlan>, Halt> {
        self.message(&Key::Plan(group))
    }

    pub(crate) fn node(&self, node: NodeId) -> Result<Option<DirectoryNode>, Halt> {
        self.message(&Key::Node(node))
    }

    pub(crate) fn folder(&self, node: NodeId, folder: [u8; 16]) -> Result<Option<DirectoryFolder>, Halt> {
        self.message(&Key::Folder(node, folder))
    }

    pub(crate) fn character(&self, character: CharacterId) -> Result<Option<DirectoryCharacter>, Halt> {
        self.message(&Key::Character(character))
    }

    pub(crate) fn name_holder(&self, folded: &str) -> Result<Option<CharacterId>, Halt> {
        let key = Key::Name(folded.to_owned());
        let Some(bytes) = self.get(&key)? else { return Ok(None) };
        let number = <[u8; 8]>::try_from(&bytes[..]).map_err(|_| Halt::Fault(ApplyFault::Damaged { key }))?;
        Ok(Some(CharacterId(u64::from_be_bytes(number))))
    }

    pub(crate) fn account(&self, account: &str) -> Result<DirectoryAccount, Halt> {
        Ok(self.message(&Key::Account(account.to_owned()))?.unwrap_or_default())
    }

    pub(crate) fn request(&self, digest: RequestDigest) -> Result<Option<DirectoryRequest>, Halt> {
        self.message(&Key::Request(digest))
    }

    pub(crate) fn kept(&self, character: CharacterId) -> Result<Option<VaultCharacter>, Halt> {
        self.message(&Key::Kept(character))
    }

    pub(crate) fn stub(&self, character: CharacterId) -> Result<Option<VaultStub>, Halt> {
        self.message(&Key::Stub(character))
    }

    pub(crate) fn realm(&self) -> Result<Option<RealmGenesis>, Halt> {
        self.message(&Key::Realm)
    }

    pub(crate) fn realm_world(&self, world: WorldId) -> Result<Option<RealmWorld>, Halt> {
        self.message(&Key::RealmWorld(world))
    }

    pub(crate) fn world_named(&self, name: &str) -> Result<Option<WorldId>, Halt> {
        self.world_number(&Key::WorldName(name.to_owned()))
    }

    pub(crate) fn world_of(&self, node: NodeId) -> Result<Option<WorldId>, Halt> {
        self.world_number(&Key::WorldOf(node))
    }

    fn world_number(&self, key: &Key) -> Result<Option<WorldId>, Halt> {
        let Some(bytes) = self.get(key)? else { return Ok(None) };
        let number = <[u8; 4]>::try_from(&bytes[..]).map_err(|_| Halt::Fault(ApplyFault::Damaged { key: key.clone() }))?;
        Ok(Some(WorldId(u32::from_be_bytes(number))))
    }

    pub(crate) fn channels(&self) -> Result<DirectoryChannelList, Halt> {
        Ok(self.message(&Key::Channels)?.unwrap_or_default())
    }

    pub(crate) fn channel(&self, group: GroupId) -> Result<DirectoryChannel, Halt> {
        let new = || DirectoryChannel { group: group.0, ..DirectoryChannel::default() };
        Ok(self.message(&Key::Channel(group))?.unwrap_or_else(new))
    }

    /// Stores a channel's counters, and lists the channel if it is new.
    pub(crate) fn put_channel(&mut self, channel: &DirectoryChannel) -> Result<(), Halt> {
        let mut list = self.channels()?;
        if let Err(at) = list.groups.binary_search(&channel.group) {
            list.groups.insert(at, channel.group);
            self.put(&Key::Channels, &list);
        }
        self.put(&Key::Channel(GroupId(channel.group)), channel);
        Ok(())
    }

    /// The state hash with what was written so far. Needs the old value of everything written.
    pub(crate) fn state_hash(&self) -> Result<u64, Halt> {
        let mut hash = self.counters.state_hash;
        let mut missing = Vec::new();
        for (key, new) in &self.changes.writes {
            match self.view.get(key) {
                Lookup::Missing => missing.push(key.clone()),
                Lookup::Known(old) => {
                    hash = hash.wrapping_sub(old.map_or(0, |old| record_hash(key, &old)));
                    hash = hash.wrapping_add(new.as_ref().map_or(0, |new| record_hash(key, new)));
                }
            }
        }
        if missing.is_empty() { Ok(hash) } else { Err(Halt::Missing(missing)) }
    }

    /// The writes of the transition, counters included, in the order of keys.
    pub(crate) fn finish(mut self) -> Result<Written, Halt> {
        self.counters.state_hash = self.state_hash()?;
        let counters = encode(&self.counters);
        self.put_bytes(&Key::Counters, counters);
        Ok(Written { writes: self.changes.writes.into_iter().collect(), posted: self.changes.posted })
    }
}

/// What a finished transition leaves.
pub(crate) struct Written {
    pub(crate) writes: Vec<(Bytes, Option<Bytes>)>,
    pub(crate) posted: BTreeSet<GroupId>,
}
