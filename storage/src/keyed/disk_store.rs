//! [`DiskKeyedNode`]: the keyed store of a node on two threads of its own.
//!
//! One thread uses the engine; the other waits for the disk, once for all who wait, so that reads and writes go on meanwhile. What is
//! left for the first to do after that ([`Map::commit`](super::map::Map::commit)) is short. After a fault nothing is done any more: the node must restart, and if the content was damaged, the next
//! start sets the store aside.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use marchland_types::{GroupId, point};
use tokio::sync::{mpsc, oneshot};

use super::engine::Engine;
use super::layout::Space;
use super::map::{DAMAGED, Durable};
use super::open::{KeyedOptions, Mark, OpenStore, open};
use super::{Batch, KeyedError, KeyedNode, KeyedSnapshot, KeyedStore, Pairs, SnapshotNext};

/// Requests that may wait for the thread. Callers wait for room, so this bounds memory and nothing else.
const REQUESTS_MAX: usize = 256;
/// Pairs are installed in batches of about this size.
const INSTALL_BYTES: usize = 256 * 1024;

type Reply<T> = oneshot::Sender<Result<T, KeyedError>>;

enum Request {
    Get { group: GroupId, key: Bytes, reply: Reply<Option<Bytes>> },
    Range { group: GroupId, from: Bytes, to: Bytes, limit: usize, reply: Reply<Pairs> },
    Apply { group: GroupId, batch: Batch, reply: Reply<()> },
    Snapshot { group: GroupId, reply: Reply<Arc<()>> },
    SnapshotNext { group: GroupId, token: Arc<()>, max_bytes: usize, reply: Reply<Pairs> },
    BeginInstall { group: GroupId, reply: Reply<Space> },
    Fill { space: Space, pairs: Pairs, reply: Reply<()> },
    Switch { space: Space, reply: Reply<Space> },
    Clear { space: Space, reply: Reply<()> },
    Groups { reply: Reply<Vec<GroupId>> },
    Commit { reply: Reply<()> },
}

/// The first fault; everything after it fails with it.
#[derive(Clone, Default)]
struct Health(Arc<Mutex<Option<String>>>);

impl Health {
    fn check(&self) -> Result<(), KeyedError> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(reason) => Err(KeyedError::Fault(reason.clone())),
            None => Ok(()),
        }
    }

    /// Runs an operation of the engine unless it failed before; remembers a fault.
    fn guard<T>(&self, dir: &Path, operation: impl FnOnce() -> Result<T, KeyedError>) -> Result<T, KeyedError> {
        self.check()?;
        let result = catch_unwind(AssertUnwindSafe(operation)).unwrap_or_else(|_| {
            Mark::Suspect.leave(dir);
            Err(KeyedError::Fault("the engine panicked".to_owned()))
        });
        if let Err(KeyedError::Fault(reason)) = &result {
            tracing::error!(dir = %dir.display(), reason, "keyed store failed; the node must restart");
            if reason.starts_with(DAMAGED) {
                Mark::Damaged.leave(dir);
            }
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason.clone());
        }
        result
    }
}

/// The keyed store of a node. Its threads end when the last clone and the last namespace are dropped.
#[derive(Clone)]
pub struct DiskKeyedNode {
    requests: mpsc::Sender<Request>,
    persists: mpsc::Sender<Reply<()>>,
}

/// The threads of a [`DiskKeyedNode`].
#[derive(Debug)]
pub struct KeyedThreads(Vec<JoinHandle<()>>);

impl KeyedThreads {
    /// Waits until the store is closed and can be opened again. Every clone and namespace must be dropped first.
    pub fn join(self) {
        for thread in self.0 {
            if thread.join().is_err() {
                tracing::error!("a thread of the keyed store panicked");
            }
        }
    }
}

/// An opened [`DiskKeyedNode`].
pub struct Opened {
    /// The store.
    pub node: DiskKeyedNode,
    /// Its threads, for whoever wants to see it closed. May be dropped.
    pub threads: KeyedThreads,
    /// Where a store that could not be opened was put: every keyed group of the node must be rebuilt from a peer.
    pub set_aside: Option<PathBuf>,
}

impl DiskKeyedNode {
    /// Opens the store in `dir`, created if absent. Blocks while it recovers.
    pub fn open(dir: &Path, options: KeyedOptions) -> Result<Opened, KeyedError> {
        let OpenStore { engine, durable, set_aside } = open(dir, options)?;
        let (requests, request_queue) = mpsc::channel(REQUESTS_MAX);
        let (persists, persist_queue) = mpsc::channel(REQUESTS_MAX);
        let health = Health::default();
        let start = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
            started.map_err(|error| KeyedError::Fault(format!("cannot start a thread: {error}")))
        };
        let (at, of_engine) = (dir.to_owned(), health.clone());
        let engine_thread = start("keyed", Box::new(move || serve(engine, request_queue, &of_engine, &at)))?;
        let (at, commits) = (dir.to_owned(), requests.clone());
        let sync_thread = start("keyed-sync", Box::new(move || persist(durable, persist_queue, &commits, &health, &at)))?;
        let threads = KeyedThreads(vec![engine_thread, sync_thread]);
        Ok(Opened { node: Self { requests, persists }, threads, set_aside })
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, KeyedError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| KeyedError::Closed)?;
        answer.await.map_err(|_| KeyedError::Closed)?
    }

    async fn persist(&self) -> Result<(), KeyedError> {
        let (reply, answer) = oneshot::channel();
        self.persists.send(reply).await.map_err(|_| KeyedError::Closed)?;
        answer.await.map_err(|_| KeyedError::Closed)?
    }

    /// Switches to a filled generation and removes the one before.
    async fn switch(&self, space: Space) -> Result<(), KeyedError> {
        self.persist().await?;
        point!("keyed.filled");
        let old = self.ask(|reply| Request::Switch { space, reply }).await?;
        self.persist().await?;
        point!("keyed.switched");
        self.ask(|reply| Request::Clear { space: old, reply }).await
    }
}

/// The thread of the engine.
fn serve(mut engine: Engine, mut requests: mpsc::Receiver<Request>, health: &Health, dir: &Path) {
    /// Answers; nobody may be waiting any more, which is no fault.
    fn answer<T>(reply: Reply<T>, result: Result<T, KeyedError>) {
        let _ = reply.send(result);
    }
    while let Some(request) = requests.blocking_recv() {
        let engine = &mut engine;
        match request {
            Request::Get { group, key, reply } => answer(reply, health.guard(dir, || engine.get(group, &key))),
            Request::Range { group, from, to, limit, reply } => {
                answer(reply, health.guard(dir, || engine.range(group, &from, &to, limit)))
            }
            Request::Apply { group, batch, reply } => answer(reply, health.guard(dir, || engine.apply(group, &batch))),
            Request::Snapshot { group, reply } => answer(reply, health.guard(dir, || engine.snapshot(group))),
            Request::SnapshotNext { group, token, max_bytes, reply } => {
                answer(reply, health.guard(dir, || engine.snapshot_next(group, &token, max_bytes)));
            }
            Request::BeginInstall { group, reply } => answer(reply, health.guard(dir, || engine.begin_install(group))),
            Request::Fill { space, pairs, reply } => answer(reply, health.guard(dir, || engine.fill(space, pairs))),
            Request::Switch { space, reply } => answer(reply, health.guard(dir, || engine.switch(space))),
            Request::Clear { space, reply } => answer(reply, health.guard(dir, || engine.clear(space))),
            Request::Groups { reply } => answer(reply, health.guard(dir, || engine.groups())),
            Request::Commit { reply } => answer(reply, health.guard(dir, || engine.commit())),
        }
    }
    // Nobody waits for it, but a store that is closed in peace should lose nothing. A fault is logged there.
    let _ = health.guard(dir, || engine.commit());
}

/// The thread that waits for the disk.
fn persist(
    mut durable: Box<dyn Durable>,
    mut requests: mpsc::Receiver<Reply<()>>,
    commits: &mpsc::Sender<Request>,
    health: &Health,
    dir: &Path,
) {
    while let Some(first) = requests.blocking_recv() {
        let mut waiting = vec![first];
        while let Ok(next) = requests.try_recv() {
            waiting.push(next);
        }
        let result = health.guard(dir, || durable.sync()).and_then(|()| {
            let (reply, answer) = oneshot::channel();
            commits.blocking_send(Request::Commit { reply }).map_err(|_| KeyedError::Closed)?;
            answer.blocking_recv().map_err(|_| KeyedError::Closed)?
        });
        point!("keyed.persisted");
        for reply in waiting {
            let _ = reply.send(result.clone());
        }
    }
}

impl KeyedNode for DiskKeyedNode {
    type Store = DiskKeyed;

    fn namespace(&self, group: GroupId) -> DiskKeyed {
        DiskKeyed { node: self.clone(), group }
    }

    async fn groups(&self) -> Result<Vec<GroupId>, KeyedError> {
        self.ask(|reply| Request::Groups { reply }).await
    }

    async fn remove(&self, group: GroupId) -> Result<(), KeyedError> {
        let space = self.ask(|reply| Request::BeginInstall { group, reply }).await?;
        self.switch(space).await?;
        self.persist().await
    }
}

/// One namespace of a [`DiskKeyedNode`].
#[derive(Clone)]
pub struct DiskKeyed {
    node: DiskKeyedNode,
    group: GroupId,
}

impl KeyedStore for DiskKeyed {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KeyedError> {
        let key = Bytes::copy_from_slice(key);
        self.node.ask(|reply| Request::Get { group: self.group, key, reply }).await
    }

    async fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Pairs, KeyedError> {
        let (from, to) = (Bytes::copy_from_slice(from), Bytes::copy_from_slice(to));
        self.node.ask(|reply| Request::Range { group: self.group, from, to, limit, reply }).await
    }

    async fn apply(&self, batch: Batch) -> Result<(), KeyedError> {
        self.node.ask(|reply| Request::Apply { group: self.group, batch, reply }).await
    }

    async fn persist(&self) -> Result<(), KeyedError> {
        self.node.persist().await
    }

    async fn snapshot(&self) -> Result<Box<dyn KeyedSnapshot>, KeyedError> {
        let token = self.node.ask(|reply| Request::Snapshot { group: self.group, reply }).await?;
        Ok(Box::new(DiskSnapshot { node: self.node.clone(), group: self.group, token }))
    }

    async fn install(&self, mut source: Box<dyn KeyedSnapshot>) -> Result<(), KeyedError> {
        let space = self.node.ask(|reply| Request::BeginInstall { group: self.group, reply }).await?;
        loop {
            let pairs = source.next(INSTALL_BYTES).await?;
            if pairs.is_empty() {
                break;
            }
            self.node.ask(|reply| Request::Fill { space, pairs, reply }).await?;
        }
        self.node.switch(space).await
    }
}

struct DiskSnapshot {
    node: DiskKeyedNode,
    group: GroupId,
    token: Arc<()>,
}

impl KeyedSnapshot for DiskSnapshot {
    fn next(&mut self, max_bytes: usize) -> SnapshotNext<'_> {
        let (group, token) = (self.group, self.token.clone());
        Box::pin(self.node.ask(move |reply| Request::SnapshotNext { group, token, max_bytes, reply }))
    }
}
