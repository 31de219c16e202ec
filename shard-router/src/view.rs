//! Reading a directory's records where they are stored.
//!
//! Each read is of one moment; two reads may be of two. What is read is committed, and as new as this replica: after a read
//! barrier of the group it is linearizable, without one it may be old.

use bytes::Bytes;
use marchland_proto::storage::{
    ChannelMessage, DirectoryChannel, DirectoryChannelList, DirectoryCharacter, DirectoryCounters, DirectoryCut, DirectoryFolder,
    DirectoryGenesis, DirectoryNode, GroupPlan,
};
use marchland_router_core::{Key, RegionMap};
use marchland_storage::keyed::{KeyedError, KeyedStore};
use marchland_types::{CharacterId, CutNumber, GroupId, MapEpoch, NodeId, ReplicaId, WorldId};
use prost::Message;

/// Records read at once from a long range.
const PAGE: usize = 512;

/// Why a record could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] KeyedError),
    /// The record is there but unreadable.
    #[error("record {0:?} is damaged")]
    Damaged(Key),
}

/// The records of a directory.
#[derive(Clone)]
pub struct DirectoryView<K> {
    store: K,
}

impl<K: KeyedStore> DirectoryView<K> {
    /// Of this store.
    pub fn new(store: K) -> Self {
        Self { store }
    }

    async fn read<M: Message + Default>(&self, key: Key) -> Result<Option<M>, ReadError> {
        match self.store.get(&key.encode()).await? {
            None => Ok(None),
            Some(bytes) => M::decode(bytes).map(Some).map_err(|_| ReadError::Damaged(key)),
        }
    }

    /// All records of a type; `ordinal` is any key's of that type.
    async fn list<M: Message + Default>(&self, of: &Key) -> Result<Vec<M>, ReadError> {
        let (mut from, to) = Key::range(of.ordinal());
        let mut all = Vec::new();
        loop {
            let page = self.store.range(&from, &to, PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(all) };
            from = Bytes::from([&last[..], &[0]].concat());
            let whole = page.len() < PAGE;
            for (key, value) in page {
                all.push(M::decode(value).map_err(|_| ReadError::Damaged(damaged_key(&key, of)))?);
            }
            if whole {
                return Ok(all);
            }
        }
    }

    /// What the world began with, and its map; `None` before genesis.
    pub async fn world(&self) -> Result<Option<DirectoryGenesis>, ReadError> {
        self.read(Key::World).await
    }

    /// The region map; `None` before genesis.
    pub async fn map(&self) -> Result<Option<RegionMap>, ReadError> {
        let Some(world) = self.world().await? else { return Ok(None) };
        let map = RegionMap::parse(WorldId(world.world), MapEpoch(world.map_epoch), &world.map);
        map.map(Some).map_err(|_| ReadError::Damaged(Key::World))
    }

    /// The members of a group.
    pub async fn plan(&self, group: GroupId) -> Result<Option<GroupPlan>, ReadError> {
        self.read(Key::Plan(group)).await
    }

    /// Every plan, in the order of groups.
    pub async fn plans(&self) -> Result<Vec<GroupPlan>, ReadError> {
        self.list(&Key::Plan(GroupId(0))).await
    }

    /// A node as it registered last.
    pub async fn node(&self, node: NodeId) -> Result<Option<DirectoryNode>, ReadError> {
        self.read(Key::Node(node)).await
    }

    /// Every node, in the order of ids.
    pub async fn nodes(&self) -> Result<Vec<DirectoryNode>, ReadError> {
        self.list(&Key::Node(NodeId(0))).await
    }

    /// Whether this pair of node and incarnation was ever given out. Peers refuse all others.
    pub async fn issued(&self, replica: ReplicaId) -> Result<bool, ReadError> {
        let newest = self.node(replica.node()).await?.map_or(0, |node| node.incarnation);
        Ok((1..=newest).contains(&replica.incarnation().0))
    }

    /// The incarnation that this folder of a node was given.
    pub async fn folder(&self, node: NodeId, folder: [u8; 16]) -> Result<Option<DirectoryFolder>, ReadError> {
        self.read(Key::Folder(node, folder)).await
    }

    /// A character.
    pub async fn character(&self, character: CharacterId) -> Result<Option<DirectoryCharacter>, ReadError> {
        self.read(Key::Character(character)).await
    }

    /// The character with this folded name.
    pub async fn character_named(&self, folded: &str) -> Result<Option<DirectoryCharacter>, ReadError> {
        let key = Key::Name(folded.to_owned());
        let Some(bytes) = self.store.get(&key.encode()).await? else { return Ok(None) };
        let number = <[u8; 8]>::try_from(&bytes[..]).map_err(|_| ReadError::Damaged(key))?;
        self.character(CharacterId(u64::from_be_bytes(number))).await
    }

    /// Counters, cut number and state hash.
    pub async fn counters(&self) -> Result<DirectoryCounters, ReadError> {
        Ok(self.read(Key::Counters).await?.unwrap_or_default())
    }

    /// What stood at a cut, if it is still remembered.
    pub async fn cut(&self, number: CutNumber) -> Result<Option<DirectoryCut>, ReadError> {
        self.read(Key::Cut(number)).await
    }

    /// The channels to and from a group.
    pub async fn channel(&self, group: GroupId) -> Result<Option<DirectoryChannel>, ReadError> {
        self.read(Key::Channel(group)).await
    }

    /// Groups that have messages to take, in the order of ids.
    pub async fn receivers(&self) -> Result<Vec<GroupId>, ReadError> {
        let list: DirectoryChannelList = self.read(Key::Channels).await?.unwrap_or_default();
        let mut receivers = Vec::new();
        for group in list.groups.into_iter().map(GroupId) {
            if self.channel(group).await?.is_some_and(|c| c.posted_seq > c.acked_seq) {
                receivers.push(group);
            }
        }
        Ok(receivers)
    }

    /// The first unacknowledged messages to a group, at most `limit`, in order.
    pub async fn posted(&self, to: GroupId, limit: usize) -> Result<Vec<ChannelMessage>, ReadError> {
        let first = Key::Posted(to, 0);
        let end = GroupId(to.0.saturating_add(1));
        let page = self.store.range(&first.encode(), &Key::Posted(end, 0).encode(), limit).await?;
        let decode = |(key, value): (Bytes, Bytes)| {
            ChannelMessage::decode(value).map_err(|_| ReadError::Damaged(damaged_key(&key, &first)))
        };
        page.into_iter().map(decode).collect()
    }
}

fn damaged_key(key: &[u8], of: &Key) -> Key {
    Key::decode(key).unwrap_or_else(|_| of.clone())
}
