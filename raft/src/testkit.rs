//! What tests and benchmarks of raft groups start from: a state machine that counts, an address book, and a node with a
//! server on loopback. Nothing here is used by a running cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use marchland_proto::net::{ClusterSecurity, Listener, Transport, serve_cluster};
use marchland_storage::raft_log::RaftLog;
use marchland_types::{GroupId, GroupKind, Incarnation, LogIndex, NodeId, ReplicaId, WorldId};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::api::{Applied, BoxFuture, Entry, Halt, Machine, MachineFault, Payload, Role, Snapshot, SnapshotBody};
use crate::group::Group;
use crate::node::RaftNode;
use crate::options::{AddressBook, NodeOptions, Standing};

/// A command that makes a [`Tally`] fail.
pub const FAULT: &[u8] = b"fault";
/// A command that makes a [`Tally`] panic.
pub const PANIC: &[u8] = b"panic";
/// A command that a [`Tally`] can not apply; see [`skip_order`].
pub const HALT: &[u8] = b"halt";
/// A command that a [`Tally`] can not apply when it meets it first.
pub const SLOW: &[u8] = b"slow";
/// Begins a command that orders an entry to be skipped.
const SKIP: &[u8] = b"skip";

/// A command that orders an entry to be skipped. Counted like any other.
pub fn skip_order(index: LogIndex) -> Bytes {
    [SKIP, &index.0.to_le_bytes()].concat().into()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Addresses that tests fill in as nodes start.
#[derive(Debug, Default)]
pub struct Book {
    addresses: Mutex<BTreeMap<NodeId, String>>,
    standing: Mutex<BTreeMap<ReplicaId, Standing>>,
    realm_hosts: Mutex<BTreeSet<NodeId>>,
}

impl Book {
    /// Enters or replaces an address.
    pub fn enter(&self, node: NodeId, address: String) {
        lock(&self.addresses).insert(node, address);
    }

    /// From here on, this is what is known of a replica. Of others it is known that they were issued.
    pub fn set_standing(&self, replica: ReplicaId, standing: Standing) {
        lock(&self.standing).insert(replica, standing);
    }

    /// From here on, this node hosts a replica of the realm.
    pub fn enter_realm_host(&self, node: NodeId) {
        lock(&self.realm_hosts).insert(node);
    }
}

impl AddressBook for Book {
    fn address(&self, node: NodeId) -> Option<String> {
        lock(&self.addresses).get(&node).cloned()
    }

    fn standing(&self, replica: ReplicaId) -> Standing {
        lock(&self.standing).get(&replica).copied().unwrap_or(Standing::Issued)
    }

    fn hosts_realm(&self, node: NodeId) -> bool {
        lock(&self.realm_hosts).contains(&node)
    }
}

/// What a [`Tally`] holds: every command went into the hash, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Up to where, and who the members are.
    pub applied: Applied,
    /// Commands.
    pub count: u64,
    /// Chained CRC of them.
    pub hash: u32,
}

/// A state machine that counts and hashes commands. Its durable part outlives it: give the same one to the next.
pub struct Tally {
    group: GroupId,
    live: Mutex<Counted>,
    durable: Arc<Mutex<Counted>>,
    roles: Mutex<Vec<Role>>,
    halted: Mutex<Option<Halt>>,
    was_slow: AtomicBool,
    /// Bytes that a snapshot is filled up to.
    pub padding_bytes: usize,
}

impl Tally {
    /// Restored from `durable`.
    pub fn new(group: GroupId, durable: Arc<Mutex<Counted>>) -> Self {
        let live = Mutex::new(lock(&durable).clone());
        let (roles, halted, was_slow) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Self { group, live, durable, roles, halted, was_slow, padding_bytes: 0 }
    }

    /// What it holds.
    pub fn counted(&self) -> Counted {
        lock(&self.live).clone()
    }

    /// Every role that it was told.
    pub fn roles(&self) -> Vec<Role> {
        lock(&self.roles).clone()
    }

    fn fault(&self, reason: &str) -> MachineFault {
        MachineFault { group: self.group, reason: reason.into() }
    }

    fn apply_one(&self, live: &mut Counted, entry: Entry) -> Result<Bytes, MachineFault> {
        assert!(live.applied.position < Some(entry.position), "applied twice: {}", entry.position);
        live.applied.position = Some(entry.position);
        Ok(match entry.payload {
            Payload::Blank => Bytes::new(),
            Payload::Membership(members) => {
                live.applied.membership = members;
                Bytes::new()
            }
            Payload::Command(command) if command == FAULT => return Err(self.fault("told to fail")),
            Payload::Command(command) if command == PANIC => panic!("told to panic"),
            Payload::Command(command) if command == HALT || (command == SLOW && !self.was_slow.load(Ordering::Relaxed)) => {
                // Half of it was done.
                live.count += 1000;
                let reason = String::from_utf8_lossy(&command).into_owned();
                *lock(&self.halted) = Some(Halt { index: entry.position.index, reason });
                return Err(self.fault("told to halt"));
            }
            Payload::Command(command) => {
                live.count += 1;
                Self::mix(live, &command);
                Bytes::copy_from_slice(&live.count.to_le_bytes())
            }
        })
    }

    fn mix(live: &mut Counted, bytes: &[u8]) {
        let mut hasher = crc32fast::Hasher::new_with_initial(live.hash);
        hasher.update(bytes);
        live.hash = hasher.finalize();
    }
}

struct Chunks(std::vec::IntoIter<Bytes>);

impl SnapshotBody for Chunks {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, MachineFault>> {
        Box::pin(std::future::ready(Ok(self.0.next())))
    }
}

impl Machine for Tally {
    fn restored(&self) -> BoxFuture<'_, Result<Applied, MachineFault>> {
        let durable = lock(&self.durable).clone();
        lock(&self.live).clone_from(&durable);
        *lock(&self.halted) = None;
        Box::pin(std::future::ready(Ok(durable.applied)))
    }

    fn apply(&self, entries: Vec<Entry>) -> BoxFuture<'_, Result<Vec<Bytes>, MachineFault>> {
        Box::pin(async move {
            let mut live = lock(&self.live);
            entries.into_iter().map(|entry| self.apply_one(&mut live, entry)).collect()
        })
    }

    fn persist(&self) -> BoxFuture<'_, Result<Applied, MachineFault>> {
        let view = self.counted();
        Box::pin(async move {
            tokio::task::yield_now().await;
            *lock(&self.durable) = view.clone();
            Ok(view.applied)
        })
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, MachineFault>> {
        let view = self.counted();
        let mut body = BytesMut::new();
        body.put_u64_le(view.count);
        body.put_u32_le(view.hash);
        body.resize(body.len().max(self.padding_bytes), 0xaa);
        let body = Box::new(Chunks(vec![body.freeze()].into_iter()));
        Box::pin(std::future::ready(Ok(Snapshot { applied: view.applied, body })))
    }

    fn install(&self, mut snapshot: Snapshot) -> BoxFuture<'_, Result<(), MachineFault>> {
        Box::pin(async move {
            let mut body = BytesMut::new();
            while let Some(chunk) = snapshot.body.next().await? {
                body.extend_from_slice(&chunk);
            }
            let (Some(count), Some(hash)) = (body.get(..8), body.get(8..12)) else {
                return Err(self.fault("snapshot is too short"));
            };
            let mut number = [0; 8];
            number.copy_from_slice(count);
            let mut crc = [0; 4];
            crc.copy_from_slice(hash);
            let state = Counted { applied: snapshot.applied, count: u64::from_le_bytes(number), hash: u32::from_le_bytes(crc) };
            *lock(&self.durable) = state.clone();
            *lock(&self.live) = state;
            *lock(&self.halted) = None;
            Ok(())
        })
    }

    fn halted(&self) -> Option<Halt> {
        lock(&self.halted).clone()
    }

    fn skips(&self, command: &[u8]) -> Option<LogIndex> {
        let index = command.strip_prefix(SKIP)?.try_into().ok()?;
        Some(LogIndex(u64::from_le_bytes(index)))
    }

    fn skip(&self, _group: GroupId, entry: Entry) -> BoxFuture<'_, Result<Bytes, MachineFault>> {
        let mut live = lock(&self.live);
        assert!(live.applied.position < Some(entry.position), "skipped after it was applied: {}", entry.position);
        live.applied.position = Some(entry.position);
        Self::mix(&mut live, b"in its place");
        Box::pin(std::future::ready(Ok(Bytes::new())))
    }

    fn recovered(&self) -> BoxFuture<'static, ()> {
        let slow = lock(&self.halted).as_ref().is_some_and(|halt| halt.reason.as_bytes() == SLOW);
        if slow {
            self.was_slow.store(true, Ordering::Relaxed);
            return Box::pin(tokio::time::sleep(Duration::from_millis(20)));
        }
        Box::pin(std::future::pending())
    }

    fn role(&self, role: Role) {
        lock(&self.roles).push(role);
    }
}

/// A node's raft with its server.
pub struct LocalNode {
    /// The raft.
    pub raft: RaftNode,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl LocalNode {
    /// Listens on `address` (port 0 takes a free one), enters itself in the book, and starts without groups.
    pub async fn start<T, L>(
        options: NodeOptions,
        book: &Book,
        transport: &T,
        security: &ClusterSecurity,
        log: L,
        address: &str,
    ) -> Result<Self, String>
    where
        T: Transport,
        L: RaftLog,
    {
        let listener = transport.listen(address).await.map_err(|e| e.to_string())?;
        let at = listener.local_addr().map_err(|e| e.to_string())?;
        book.enter(options.node, at.to_string());
        let raft = RaftNode::start(options, transport, security, log).map_err(|e| e.to_string())?;
        let routes = tonic::service::Routes::new(raft.service().into_server());
        let (stop, stopped) = oneshot::channel::<()>();
        let security = security.clone();
        let server = tokio::spawn(async move {
            let until = async move { drop(stopped.await) };
            if let Err(error) = serve_cluster(listener, security, routes, until).await {
                tracing::error!(%error, "server ended");
            }
        });
        Ok(Self { raft, stop: Some(stop), server })
    }

    /// Stops cleanly.
    pub async fn stop(mut self) {
        self.raft.shutdown().await;
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        // The connections of peers last as long as they like; nothing is served on them any more.
        let _ = tokio::time::timeout(Duration::from_millis(200), &mut self.server).await;
        self.server.abort();
    }
}

/// The group with this number, for benchmarks and tests.
#[must_use]
pub const fn bench_group(serial: u32) -> GroupId {
    GroupId::new(GroupKind::Bench, WorldId(1), serial)
}

/// Waits until one of the groups leads and has applied its term's first entry.
pub async fn leader_of(groups: &[Group], within: Duration) -> Option<Group> {
    let until = Instant::now() + within;
    while Instant::now() < until {
        for group in groups {
            if matches!(group.status().role, Role::Leader(_)) && group.read_barrier().await.is_ok() {
                return Some(group.clone());
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    None
}

/// What [`commit_latencies`] measured.
#[derive(Clone, Debug, Default)]
pub struct CommitFigures {
    /// From proposal to answer, in microseconds, sorted.
    pub latencies_us: Vec<u64>,
    /// Proposals that failed.
    pub failed: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl CommitFigures {
    /// The latency that this share of the proposals stayed below; 0 when there were none.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> u64 {
        let last = self.latencies_us.len().saturating_sub(1);
        self.latencies_us.get((last as f64 * share) as usize).copied().unwrap_or(0)
    }
}

/// Starts three nodes over loopback in this process, one for each log, with `groups` groups, and proposes to all of them for
/// `length`: every group one command of `size_bytes` after another, `pause` apart (zero: as fast as it goes).
pub async fn commit_latencies<T: Transport, L: RaftLog>(
    transport: &T,
    security: &dyn Fn(NodeId) -> ClusterSecurity,
    logs: [L; 3],
    groups: u32,
    size_bytes: usize,
    pause: Duration,
    length: Duration,
) -> Result<CommitFigures, String> {
    let book = Arc::new(Book::default());
    let mut nodes = Vec::new();
    for (number, log) in (1..).zip(logs) {
        let node = NodeId(number);
        let options = NodeOptions::new(node, Incarnation(1), book.clone());
        nodes.push(LocalNode::start(options, &book, transport, &security(node), log, "127.0.0.1:0").await?);
    }
    let voters: BTreeSet<ReplicaId> = nodes.iter().map(|node| node.raft.replica()).collect();
    let mut opened = Vec::new();
    for serial in 1..=groups {
        let id = bench_group(serial);
        let mut replicas = Vec::new();
        for node in &nodes {
            let machine = Arc::new(Tally::new(id, Arc::default()));
            replicas.push(node.raft.open_group(id, machine).await.map_err(|e| e.to_string())?);
        }
        replicas[serial as usize % 3].initialize(&voters).await.map_err(|e| e.to_string())?;
        opened.push(replicas);
    }
    let mut proposers = Vec::new();
    for replicas in &opened {
        let leader = leader_of(replicas, Duration::from_secs(20)).await.ok_or("no leader within 20 s")?;
        proposers.push(leader);
    }
    let begin = Instant::now();
    let command = Bytes::from(vec![0x5a; size_bytes]);
    let tasks: Vec<_> = (0u32..)
        .zip(proposers)
        .map(|(number, group)| {
            let command = command.clone();
            tokio::spawn(async move {
                let mut figures = CommitFigures::default();
                // Groups do not tick at one instant, nor does a real node's.
                tokio::time::sleep(pause * number / groups.max(1)).await;
                while begin.elapsed() < length {
                    let at = Instant::now();
                    match group.propose(command.clone()).await {
                        Ok(_) => figures.latencies_us.push(at.elapsed().as_micros() as u64),
                        Err(_) => figures.failed += 1,
                    }
                    tokio::time::sleep_until(at + pause).await;
                }
                figures
            })
        })
        .collect();
    let mut figures = CommitFigures::default();
    for task in tasks {
        let part = task.await.map_err(|e| e.to_string())?;
        figures.latencies_us.extend(part.latencies_us);
        figures.failed += part.failed;
    }
    figures.elapsed = begin.elapsed();
    figures.latencies_us.sort_unstable();
    for node in nodes {
        node.stop().await;
    }
    Ok(figures)
}
