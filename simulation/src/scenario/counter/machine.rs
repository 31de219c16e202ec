//! A state machine that remembers every command it applied, with how often.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use marchland_raft::{Applied, BoxFuture, Entry, Machine, MachineFault, Payload, Role, Snapshot, SnapshotBody};
use marchland_storage::disk::{Disk, DiskFile};
use marchland_types::limits::SNAPSHOT_CHUNK_BYTES;
use marchland_types::{CommandSeq, LogIndex, Position, ReplicaId, Term};
use serde::{Deserialize, Serialize};

use super::GROUP;
use crate::disk::MachineDisk;
use crate::fact::{ClientId, Fact, FinalState, digest, tell};

/// Between two hashes of the state, in entries.
const HASH_EVERY: u64 = 64;

#[derive(Clone, Default, Serialize, Deserialize)]
struct Stored {
    /// Term and index.
    position: Option<(u64, u64)>,
    membership: Vec<u8>,
    /// Client, number, times.
    commands: Vec<(u64, u64, u32)>,
}

#[derive(Clone, Default)]
struct State {
    applied: Applied,
    commands: BTreeMap<(ClientId, CommandSeq), u32>,
}

impl State {
    fn encode(&self) -> Result<Vec<u8>, MachineFault> {
        let stored = Stored {
            position: self.applied.position.map(|p| (p.term.0, p.index.0)),
            membership: self.applied.membership.to_vec(),
            commands: self.commands.iter().map(|((client, seq), times)| (client.0, seq.0, *times)).collect(),
        };
        serde_json::to_vec(&stored).map_err(fault)
    }

    fn decode(bytes: &[u8]) -> Result<Self, MachineFault> {
        let stored: Stored = serde_json::from_slice(bytes).map_err(fault)?;
        let position = stored.position.map(|(term, index)| Position { term: Term(term), index: LogIndex(index) });
        Ok(Self {
            applied: Applied { position, membership: stored.membership.into() },
            commands: stored.commands.into_iter().map(|(client, seq, n)| ((ClientId(client), CommandSeq(seq)), n)).collect(),
        })
    }

    fn hash(&self) -> u64 {
        let each = self.commands.iter().flat_map(|((client, seq), times)| [client.0, seq.0, u64::from(*times)]);
        digest(&each.flat_map(u64::to_le_bytes).collect::<Vec<_>>())
    }
}

fn fault(error: impl std::fmt::Display) -> MachineFault {
    MachineFault { group: GROUP, reason: error.to_string() }
}

/// The counter of one replica.
pub(super) struct Counter {
    disk: MachineDisk,
    replica: ReplicaId,
    state: Mutex<State>,
    durable: Mutex<Applied>,
    installed: AtomicU64,
}

fn folder() -> &'static Path {
    Path::new("/data/counter")
}

fn file() -> PathBuf {
    folder().join("state")
}

impl Counter {
    /// What the disk has of it.
    pub(super) fn open(disk: MachineDisk, replica: ReplicaId) -> Result<Self, MachineFault> {
        disk.create_dir_all(folder()).map_err(fault)?;
        for parent in folder().ancestors().skip(1) {
            disk.sync_dir(parent).map_err(fault)?;
        }
        let state = match disk.exists(&file()).map_err(fault)? {
            false => State::default(),
            true => {
                let opened = disk.open(&file()).map_err(fault)?;
                let mut bytes = vec![0; opened.len().map_err(fault)? as usize];
                opened.read_exact_at(&mut bytes, 0).map_err(fault)?;
                State::decode(&bytes)?
            }
        };
        let durable = Mutex::new(state.applied.clone());
        Ok(Self { disk, replica, state: Mutex::new(state), durable, installed: AtomicU64::new(0) })
    }

    /// Takes the state off the disk.
    pub(super) fn lose(disk: &MachineDisk) -> Result<(), MachineFault> {
        if disk.exists(&file()).map_err(fault)? {
            crate::trace_line!("STORE LOST");
            disk.remove(&file()).map_err(fault)?;
            disk.sync_dir(folder()).map_err(fault)?;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn durable(&self) -> MutexGuard<'_, Applied> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn replica(&self) -> ReplicaId {
        self.replica
    }

    pub(super) fn applied(&self) -> LogIndex {
        self.state().applied.position.map(|p| p.index).unwrap_or_default()
    }

    pub(super) fn commands(&self) -> u64 {
        self.state().commands.len() as u64
    }

    pub(super) fn installed(&self) -> u64 {
        self.installed.load(Ordering::Relaxed)
    }

    pub(super) fn final_state(&self) -> FinalState {
        let state = self.state();
        FinalState {
            group: GROUP,
            replica: self.replica,
            applied: state.applied.position.map(|p| p.index).unwrap_or_default(),
            hash: state.hash(),
            commands: state.commands.clone(),
            ..FinalState::default()
        }
    }

    fn store(&self, bytes: &[u8]) -> io::Result<()> {
        let new = folder().join("state.new");
        if self.disk.exists(&new)? {
            self.disk.remove(&new)?;
        }
        let mut out = self.disk.create(&new)?;
        out.write_all_at(bytes, 0)?;
        out.sync_data()?;
        self.disk.rename(&new, &file())?;
        self.disk.sync_dir(folder())
    }

    fn apply_one(&self, state: &mut State, entry: Entry) -> Result<Bytes, MachineFault> {
        let (kind, payload): (u8, &[u8]) = match &entry.payload {
            Payload::Blank => (0, &[]),
            Payload::Command(bytes) => (1, bytes),
            Payload::Membership(bytes) => (2, bytes),
        };
        let digest = digest(&[&[kind], payload].concat());
        if state.applied.position.is_some_and(|last| last.index.0 + 1 != entry.position.index.0) {
            return Err(fault(format!("entry {} after {:?}", entry.position, state.applied.position)));
        }
        state.applied.position = Some(entry.position);
        tell(&Fact::Applied { group: GROUP, replica: self.replica, position: entry.position, digest });
        match entry.payload {
            Payload::Blank => {}
            Payload::Membership(bytes) => state.applied.membership = bytes,
            Payload::Command(bytes) => {
                let word = |at: usize| bytes.get(at..at + 8).and_then(|w| w.try_into().ok()).map(u64::from_le_bytes);
                let (Some(client), Some(seq)) = (word(0), word(8)) else { return Err(fault("malformed command")) };
                *state.commands.entry((ClientId(client), CommandSeq(seq))).or_default() += 1;
            }
        }
        let at = entry.position.index.0;
        if at.is_multiple_of(HASH_EVERY) {
            tell(&Fact::StateHash { group: GROUP, replica: self.replica, at, hash: state.hash(), parts: Vec::new() });
        }
        Ok(Bytes::new())
    }
}

impl Machine for Counter {
    fn restored(&self) -> BoxFuture<'_, Result<Applied, MachineFault>> {
        Box::pin(async { Ok(self.durable().clone()) })
    }

    fn apply(&self, entries: Vec<Entry>) -> BoxFuture<'_, Result<Vec<Bytes>, MachineFault>> {
        Box::pin(async {
            let mut state = self.state();
            entries.into_iter().map(|entry| self.apply_one(&mut state, entry)).collect()
        })
    }

    fn persist(&self) -> BoxFuture<'_, Result<Applied, MachineFault>> {
        Box::pin(async {
            let view = self.state().clone();
            tokio::time::sleep(self.disk.latency()).await;
            self.store(&view.encode()?).map_err(fault)?;
            self.durable().clone_from(&view.applied);
            Ok(view.applied)
        })
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, MachineFault>> {
        Box::pin(async {
            let view = self.state().clone();
            let body = Box::new(Body(view.encode()?.into()));
            Ok(Snapshot { applied: view.applied, body })
        })
    }

    fn install(&self, mut snapshot: Snapshot) -> BoxFuture<'_, Result<(), MachineFault>> {
        Box::pin(async move {
            let mut bytes = Vec::new();
            while let Some(chunk) = snapshot.body.next().await? {
                bytes.extend_from_slice(&chunk);
            }
            let mut state = State::decode(&bytes)?;
            state.applied = snapshot.applied;
            tokio::time::sleep(self.disk.latency()).await;
            self.store(&state.encode()?).map_err(fault)?;
            crate::trace_line!("installs a snapshot at {:?}", state.applied.position);
            self.durable().clone_from(&state.applied);
            *self.state() = state;
            self.installed.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
    }

    fn role(&self, role: Role) {
        if let Role::Leader(term) = role {
            tell(&Fact::Leads { group: GROUP, term, replica: self.replica });
        }
    }
}

struct Body(Bytes);

impl SnapshotBody for Body {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, MachineFault>> {
        let size = self.0.len().min(SNAPSHOT_CHUNK_BYTES);
        let chunk = self.0.split_to(size);
        Box::pin(async move { Ok((!chunk.is_empty()).then_some(chunk)) })
    }
}
