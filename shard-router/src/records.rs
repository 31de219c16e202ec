//! Reading a keyed group's records where they are stored.
//!
//! Each read is of one moment; two reads may be of two. What is read is committed, and as new as this replica: after a read
//! barrier of the group it is linearizable, without one it may be old.

use bytes::Bytes;
use marchland_proto::storage::{ChannelMessage, DirectoryApplied, DirectoryChannel, DirectoryCounters, DirectoryCut};
use marchland_router_core::Key;
use marchland_storage::keyed::{KeyedError, KeyedStore};
use marchland_types::{CutNumber, GroupId};
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

/// The records that every keyed group has.
#[derive(Clone)]
pub struct Records<K> {
    store: K,
}

impl<K: KeyedStore> Records<K> {
    /// Of this store.
    pub fn new(store: K) -> Self {
        Self { store }
    }

    pub(crate) async fn bytes(&self, key: &Key) -> Result<Option<Bytes>, ReadError> {
        Ok(self.store.get(&key.encode()).await?)
    }

    pub(crate) async fn read<M: Message + Default>(&self, key: Key) -> Result<Option<M>, ReadError> {
        match self.store.get(&key.encode()).await? {
            None => Ok(None),
            Some(bytes) => M::decode(bytes).map(Some).map_err(|_| ReadError::Damaged(key)),
        }
    }

    /// All records of a type, in the order of their keys, from `first` on.
    pub(crate) async fn each<M: Message + Default>(&self, first: &Key, mut take: impl FnMut(Key, M)) -> Result<(), ReadError> {
        let (_, to) = Key::range(first.ordinal());
        let mut from = first.encode();
        loop {
            let page = self.store.range(&from, &to, PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from = Bytes::from([&last[..], &[0]].concat());
            let whole = page.len() < PAGE;
            for (bytes, value) in page {
                let key = Key::decode(&bytes).map_err(|_| ReadError::Damaged(first.clone()))?;
                let Ok(message) = M::decode(value) else { return Err(ReadError::Damaged(key)) };
                take(key, message);
            }
            if whole {
                return Ok(());
            }
        }
    }

    /// The position that this replica has applied.
    pub(crate) async fn applied(&self) -> Result<DirectoryApplied, ReadError> {
        Ok(self.read(Key::Applied).await?.unwrap_or_default())
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

    /// The channels to and from all groups, in the order of ids.
    pub async fn channels(&self) -> Result<Vec<DirectoryChannel>, ReadError> {
        // By pages: there may be a thousand, and each single read is a turn of the store's thread.
        let mut channels = Vec::new();
        self.each(&Key::Channel(GroupId(0)), |_, channel| channels.push(channel)).await?;
        Ok(channels)
    }

    /// Groups that have messages to take, in the order of ids.
    pub async fn receivers(&self) -> Result<Vec<GroupId>, ReadError> {
        let waiting = |c: &DirectoryChannel| c.posted_seq > c.acked_seq;
        Ok(self.channels().await?.into_iter().filter(waiting).map(|c| GroupId(c.group)).collect())
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
