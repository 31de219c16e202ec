//! Reading the records of a directory or of the realm, with the guarantees of [`Records`].

use marchland_proto::storage::channel_message::Body;
use marchland_proto::storage::{
    DirectoryCharacter, DirectoryFolder, DirectoryGenesis, DirectoryNode, GroupPlan, RealmGenesis, RealmWorld,
};
use marchland_router_core::{Key, RegionMap};
use marchland_storage::keyed::KeyedStore;
use marchland_types::limits::CHANNEL_MESSAGES_MAX;
use marchland_types::{CharacterId, GroupId, MapEpoch, NodeId, ReplicaId, WorldId};

use crate::records::{ReadError, Records};

/// The records of a directory.
#[derive(Clone)]
pub struct DirectoryView<K> {
    records: Records<K>,
}

impl<K: KeyedStore> DirectoryView<K> {
    /// Of this store.
    pub fn new(store: K) -> Self {
        Self { records: Records::new(store) }
    }

    /// The records that every keyed group has.
    pub fn records(&self) -> &Records<K> {
        &self.records
    }

    /// What the world began with, and its map; `None` before genesis.
    pub async fn world(&self) -> Result<Option<DirectoryGenesis>, ReadError> {
        self.records.read(Key::World).await
    }

    /// The region map; `None` before genesis.
    pub async fn map(&self) -> Result<Option<RegionMap>, ReadError> {
        let Some(world) = self.world().await? else { return Ok(None) };
        let map = RegionMap::parse(WorldId(world.world), MapEpoch(world.map_epoch), &world.map);
        map.map(Some).map_err(|_| ReadError::Damaged(Key::World))
    }

    /// How many regions have not taken the map in force yet: the message that tells them of it waits.
    pub async fn regions_behind(&self, world: &DirectoryGenesis) -> Result<u32, ReadError> {
        let mut behind = 0;
        for region in &world.map {
            let waiting = self.records.posted(GroupId(region.group), CHANNEL_MESSAGES_MAX).await?;
            let tells = |body: &Body| matches!(body, Body::MapChange(change) if change.map_epoch == world.map_epoch);
            behind += u32::from(waiting.iter().filter_map(|message| message.body.as_ref()).any(tells));
        }
        Ok(behind)
    }

    /// The members of a group.
    pub async fn plan(&self, group: GroupId) -> Result<Option<GroupPlan>, ReadError> {
        self.records.read(Key::Plan(group)).await
    }

    /// Every plan, in the order of groups.
    pub async fn plans(&self) -> Result<Vec<GroupPlan>, ReadError> {
        let mut plans = Vec::new();
        self.records.each(&Key::Plan(GroupId(0)), |_, plan| plans.push(plan)).await?;
        Ok(plans)
    }

    /// A node as it registered last.
    pub async fn node(&self, node: NodeId) -> Result<Option<DirectoryNode>, ReadError> {
        self.records.read(Key::Node(node)).await
    }

    /// Every node, in the order of ids.
    pub async fn nodes(&self) -> Result<Vec<DirectoryNode>, ReadError> {
        let mut nodes = Vec::new();
        self.records.each(&Key::Node(NodeId(0)), |_, node| nodes.push(node)).await?;
        Ok(nodes)
    }

    /// Whether this pair of node and incarnation was ever given out. Peers refuse all others.
    pub async fn issued(&self, replica: ReplicaId) -> Result<bool, ReadError> {
        let newest = self.node(replica.node()).await?.map_or(0, |node| node.incarnation);
        Ok((1..=newest).contains(&replica.incarnation().0))
    }

    /// The incarnation that this folder of a node was given.
    pub async fn folder(&self, node: NodeId, folder: [u8; 16]) -> Result<Option<DirectoryFolder>, ReadError> {
        self.records.read(Key::Folder(node, folder)).await
    }

    /// A character.
    pub async fn character(&self, character: CharacterId) -> Result<Option<DirectoryCharacter>, ReadError> {
        self.records.read(Key::Character(character)).await
    }

    /// The character with this folded name.
    pub async fn character_named(&self, folded: &str) -> Result<Option<DirectoryCharacter>, ReadError> {
        let key = Key::Name(folded.to_owned());
        let Some(bytes) = self.records.bytes(&key).await? else { return Ok(None) };
        let number = <[u8; 8]>::try_from(&bytes[..]).map_err(|_| ReadError::Damaged(key))?;
        self.character(CharacterId(u64::from_be_bytes(number))).await
    }
}

/// The records of the realm.
#[derive(Clone)]
pub struct RealmView<K> {
    records: Records<K>,
}

impl<K: KeyedStore> RealmView<K> {
    /// Of this store.
    pub fn new(store: K) -> Self {
        Self { records: Records::new(store) }
    }

    /// The records that every keyed group has.
    pub fn records(&self) -> &Records<K> {
        &self.records
    }

    /// What the realm began with, its own plan with it; `None` before genesis.
    pub async fn genesis(&self) -> Result<Option<RealmGenesis>, ReadError> {
        let Some(genesis) = self.records.read::<RealmGenesis>(Key::Realm).await? else { return Ok(None) };
        Ok(Some(RealmGenesis { plan: self.records.read(Key::Plan(GroupId::realm())).await?, ..genesis }))
    }

    /// A world, the plan of its directory with it.
    pub async fn world(&self, world: WorldId) -> Result<Option<RealmWorld>, ReadError> {
        let Some(record) = self.records.read::<RealmWorld>(Key::RealmWorld(world)).await? else { return Ok(None) };
        Ok(Some(RealmWorld { plan: self.records.read(Key::Plan(GroupId::directory(world))).await?, ..record }))
    }

    /// Every node, in the order of ids.
    pub async fn nodes(&self) -> Result<Vec<DirectoryNode>, ReadError> {
        let mut nodes = Vec::new();
        self.records.each(&Key::Node(NodeId(0)), |_, node| nodes.push(node)).await?;
        Ok(nodes)
    }
}
