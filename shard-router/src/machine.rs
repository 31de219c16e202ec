//! The state machine of a keyed group, a directory, a vault or the realm, over the keyed store.
//!
//! Entries are applied in batches. Records that a transition asks for are fetched once and then kept up to date by
//! the batch's own writes; at its end everything is written at once, with the position reached. What a batch knew the next
//! one knows as well, as long as it is little: the world, counters and channels are wanted by nearly every entry, and each
//! record that is fetched is a turn of the store's thread.
//!
//! ```text
//! entry 7 ─▶ missing k ─▶ get k ─▶ writes ┐
//! entry 8 ─────────────────────▶ writes ──┼─▶ one KeyedStore batch { writes, Applied(8) } ─▶ answers
//! entry 9 (membership) ────────────────── ┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use marchland_proto::storage::DirectoryApplied;
use marchland_raft::{Applied, BoxFuture, Entry, Machine, MachineFault, Payload, Role, Snapshot};
use marchland_router_core::{KEYED_FORMAT, Key, Lookup, Read, Stop, apply, apply_realm, apply_vault};
use marchland_storage::keyed::{Batch, KeyedError, KeyedStore};
use marchland_types::{GroupId, LogIndex, Position, Term, point};
use prost::Message;
use tokio::sync::watch;

use crate::records::Records;
use crate::registry::Registry;
use crate::snapshot::{Incoming, Outgoing};

/// Records that are kept from one batch to the next, and their bytes.
const RECENT_MAX: usize = 256;
const RECENT_MAX_BYTES: usize = 256 * 1024;
/// Writes after which a batch is given to the store, so that a long replay does not gather in memory.
const BATCH_WRITES: usize = 1024;

/// What a group's entries mean.
enum Kind {
    /// A directory. The registry learns of every node that it has.
    Directory(Registry),
    Vault,
    /// The realm. The registry learns of every node that it has.
    Realm(Registry),
}

/// What an entry did: writes, its answer's bytes, whether anything was posted.
type Step = (Vec<(Bytes, Option<Bytes>)>, Bytes, bool);

/// The state machine of one keyed group on one node.
pub struct KeyedMachine<K> {
    group: GroupId,
    kind: Kind,
    store: K,
    /// What is applied. Held while entries are.
    gate: tokio::sync::Mutex<()>,
    applied: Mutex<Applied>,
    /// What the last batch knew. Taken by the next one, and put back when that is written.
    recent: Mutex<BTreeMap<Bytes, Option<Bytes>>>,
    /// Held by whoever reads a view of the store: there is one at a time.
    view_turn: Arc<tokio::sync::Mutex<()>>,
    role: watch::Sender<Role>,
    posted: watch::Sender<u64>,
}

/// What a batch has fetched and written.
#[derive(Default)]
struct Known {
    records: BTreeMap<Bytes, Option<Bytes>>,
    changed: BTreeSet<Bytes>,
}

impl Read for Known {
    fn get(&self, key: &[u8]) -> Lookup {
        self.records.get(key).map_or(Lookup::Missing, |value| Lookup::Known(value.clone()))
    }
}

impl Kind {
    fn apply(&self, group: GroupId, view: &dyn Read, index: LogIndex, command: &[u8]) -> Result<Step, Stop> {
        match self {
            Self::Directory(_) => {
                let done = apply(view, index, command)?;
                Ok((done.writes, done.answer.encode_to_vec().into(), !done.posted.is_empty()))
            }
            Self::Vault => {
                let done = apply_vault(view, group, index, command)?;
                Ok((done.writes, done.answer.encode_to_vec().into(), !done.posted.is_empty()))
            }
            Self::Realm(_) => {
                let done = apply_realm(view, index, command)?;
                Ok((done.writes, done.answer.encode_to_vec().into(), !done.posted.is_empty()))
            }
        }
    }

    /// Takes in all of a store.
    async fn learn_all<K: KeyedStore>(&self, store: &K) -> Result<(), String> {
        match self {
            Self::Directory(registry) | Self::Realm(registry) => {
                registry.read(&Records::new(store.clone())).await.map_err(|e| e.to_string())
            }
            Self::Vault => Ok(()),
        }
    }

    /// Takes in what has been written.
    fn learn(&self, written: Vec<Bytes>) -> Result<(), prost::DecodeError> {
        match self {
            Self::Directory(registry) | Self::Realm(registry) => written.into_iter().try_for_each(|node| registry.learn(node)),
            Self::Vault => Ok(()),
        }
    }
}

impl<K: KeyedStore> KeyedMachine<K> {
    /// A directory's, over a store that holds nothing, or what an earlier run left in it. The registry is told of every node
    /// in it.
    pub async fn directory(group: GroupId, store: K, registry: Registry) -> Result<Self, MachineFault> {
        Self::open(group, store, Kind::Directory(registry)).await
    }

    /// A vault's, over a store that holds nothing, or what an earlier run left in it.
    pub async fn vault(group: GroupId, store: K) -> Result<Self, MachineFault> {
        Self::open(group, store, Kind::Vault).await
    }

    /// The realm's, over a store that holds nothing, or what an earlier run left in it. The registry is told of every node in it.
    pub async fn realm(group: GroupId, store: K, registry: Registry) -> Result<Self, MachineFault> {
        Self::open(group, store, Kind::Realm(registry)).await
    }

    async fn open(group: GroupId, store: K, kind: Kind) -> Result<Self, MachineFault> {
        let fault = |e: KeyedError| MachineFault { group, reason: e.to_string() };
        // What can be read now may not be on disk. From here on it is, so that it can be reported as durable.
        store.persist().await.map_err(fault)?;
        let stored = store.get(&Key::Applied.encode()).await.map_err(fault)?;
        let applied = match stored {
            None => Applied::default(),
            Some(bytes) => decode_applied(bytes).map_err(|reason| MachineFault { group, reason })?,
        };
        kind.learn_all(&store).await.map_err(|reason| MachineFault { group, reason })?;
        Ok(Self {
            group,
            kind,
            store,
            gate: tokio::sync::Mutex::default(),
            applied: Mutex::new(applied),
            recent: Mutex::default(),
            view_turn: Arc::default(),
            role: watch::Sender::new(Role::Learner { leader: None }),
            posted: watch::Sender::new(0),
        })
    }

    /// The records.
    pub fn records(&self) -> Records<K> {
        Records::new(self.store.clone())
    }

    /// The store itself.
    pub fn store(&self) -> &K {
        &self.store
    }

    /// This replica's part in the group.
    pub fn roles(&self) -> watch::Receiver<Role> {
        self.role.subscribe()
    }

    /// Changes whenever messages are posted to other groups.
    pub fn posted(&self) -> watch::Receiver<u64> {
        self.posted.subscribe()
    }

    fn fault(&self, reason: impl ToString) -> MachineFault {
        MachineFault { group: self.group, reason: reason.to_string() }
    }

    fn applied(&self) -> Applied {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn recent(&self) -> MutexGuard<'_, BTreeMap<Bytes, Option<Bytes>>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn apply_all(&self, entries: Vec<Entry>) -> Result<Vec<Bytes>, MachineFault> {
        let _gate = self.gate.lock().await;
        let mut applied = self.applied();
        let mut known = Known { records: std::mem::take(&mut *self.recent()), ..Known::default() };
        let mut answers = Vec::with_capacity(entries.len());
        let mut posted = false;
        for entry in entries {
            if applied.position.is_some_and(|last| last.index >= entry.position.index) {
                return Err(self.fault(format!("entry {} again, {:?} is applied", entry.position, applied.position)));
            }
            point!("directory.before_apply");
            let answer = match entry.payload {
                Payload::Blank => Bytes::new(),
                Payload::Membership(membership) => {
                    applied.membership = membership;
                    Bytes::new()
                }
                Payload::Command(command) => {
                    let (answer, any) = self.transition(&mut known, entry.position.index, &command).await?;
                    posted |= any;
                    answer
                }
            };
            applied.position = Some(entry.position);
            answers.push(answer);
            if known.changed.len() >= BATCH_WRITES {
                self.write(std::mem::take(&mut known), &applied).await?;
            }
        }
        let records = self.write(known, &applied).await?;
        if is_little(&records) {
            *self.recent() = records;
        }
        if posted {
            self.posted.send_modify(|n| *n = n.wrapping_add(1));
        }
        Ok(answers)
    }

    async fn transition(&self, known: &mut Known, index: LogIndex, command: &[u8]) -> Result<(Bytes, bool), MachineFault> {
        loop {
            match self.kind.apply(self.group, known, index, command) {
                Ok((writes, answer, posted)) => {
                    for (key, value) in writes {
                        known.changed.insert(key.clone());
                        known.records.insert(key, value);
                    }
                    return Ok((answer, posted));
                }
                Err(Stop::Fault(fault)) => return Err(self.fault(fault)),
                Err(Stop::Missing(keys)) => {
                    for key in keys {
                        let value = self.store.get(&key).await.map_err(|e| self.fault(e))?;
                        if known.records.insert(key.clone(), value).is_some() {
                            return Err(self.fault(format!("entry {index} asks twice for {key:02x?}")));
                        }
                    }
                }
            }
        }
    }

    /// Writes what a batch changed; gives back all that it knew.
    async fn write(&self, known: Known, applied: &Applied) -> Result<BTreeMap<Bytes, Option<Bytes>>, MachineFault> {
        let Known { records, changed } = known;
        let mut writes: Vec<_> = changed
            .into_iter()
            .map(|key| {
                let value = records.get(&key).cloned().flatten();
                (key, value)
            })
            .collect();
        let nodes: Vec<_> = writes.iter().filter(|(key, _)| Registry::holds(key)).filter_map(|(_, node)| node.clone()).collect();
        writes.push((Key::Applied.encode(), Some(encode_applied(applied))));
        point!("directory.before_store");
        self.store.apply(Batch { writes }).await.map_err(|e| self.fault(e))?;
        point!("directory.stored");
        self.kind.learn(nodes).map_err(|e| self.fault(e))?;
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner) = applied.clone();
        Ok(records)
    }

    async fn take_snapshot(&self) -> Result<Snapshot, MachineFault> {
        // The store gives one view at a time. An earlier reader ends by its own deadlines.
        let turn = self.view_turn.clone().lock_owned().await;
        let _gate = self.gate.lock().await;
        let applied = self.applied();
        let view = self.store.snapshot().await.map_err(|e| self.fault(e))?;
        Ok(Snapshot { applied, body: Box::new(Outgoing::new(self.group, view, turn)) })
    }

    async fn take_install(&self, snapshot: Snapshot) -> Result<(), MachineFault> {
        let _gate = self.gate.lock().await;
        self.recent().clear();
        let source = Incoming::new(self.group, snapshot.body, encode_applied(&snapshot.applied));
        point!("directory.before_install");
        self.store.install(Box::new(source)).await.map_err(|e| self.fault(e))?;
        point!("directory.installed");
        self.kind.learn_all(&self.store).await.map_err(|e| self.fault(e))?;
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner) = snapshot.applied;
        self.posted.send_modify(|n| *n = n.wrapping_add(1));
        Ok(())
    }
}

impl<K: KeyedStore> Machine for KeyedMachine<K> {
    fn restored(&self) -> BoxFuture<'_, Result<Applied, MachineFault>> {
        Box::pin(async { Ok(self.applied()) })
    }

    fn apply(&self, entries: Vec<Entry>) -> BoxFuture<'_, Result<Vec<Bytes>, MachineFault>> {
        Box::pin(self.apply_all(entries))
    }

    fn persist(&self) -> BoxFuture<'_, Result<Applied, MachineFault>> {
        Box::pin(async {
            // Before the first wait: what is applied later may or may not be covered, and is not promised.
            let applied = self.applied();
            self.store.persist().await.map_err(|e| self.fault(e))?;
            Ok(applied)
        })
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, MachineFault>> {
        Box::pin(self.take_snapshot())
    }

    fn install(&self, snapshot: Snapshot) -> BoxFuture<'_, Result<(), MachineFault>> {
        Box::pin(self.take_install(snapshot))
    }

    fn role(&self, role: Role) {
        self.role.send_replace(role);
    }
}

fn is_little(records: &BTreeMap<Bytes, Option<Bytes>>) -> bool {
    let size = |(key, value): (&Bytes, &Option<Bytes>)| key.len() + value.as_ref().map_or(0, Bytes::len);
    records.len() <= RECENT_MAX && records.iter().map(size).sum::<usize>() <= RECENT_MAX_BYTES
}

fn encode_applied(applied: &Applied) -> Bytes {
    let record = DirectoryApplied {
        format: KEYED_FORMAT,
        any: applied.position.is_some(),
        term: applied.position.map_or(0, |p| p.term.0),
        index: applied.position.map_or(0, |p| p.index.0),
        membership: applied.membership.clone(),
    };
    record.encode_to_vec().into()
}

fn decode_applied(bytes: Bytes) -> Result<Applied, String> {
    let record = DirectoryApplied::decode(bytes).map_err(|e| format!("record of the applied position is damaged: {e}"))?;
    if record.format == 0 || record.format > KEYED_FORMAT {
        return Err(format!("store has format {}, this build knows up to {KEYED_FORMAT}", record.format));
    }
    let position = record.any.then_some(Position { term: Term(record.term), index: LogIndex(record.index) });
    Ok(Applied { position, membership: record.membership })
}
