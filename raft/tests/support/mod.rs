//! A small cluster in one process: real sockets that can be cut, simulated disks that can lose power.

#![allow(dead_code, reason = "every test program uses its own part")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use marchland_proto::net::{ClusterSecurity, Listener, PeerIdentity, Role as PeerRole, TokioTransport, Transport, Tune};
use marchland_raft::testkit::{Book, Counted, LocalNode, Tally, leader_of};
use marchland_raft::{Group, NodeOptions, ProposeError, Role};
use marchland_storage::disk::SimDisk;
use marchland_storage::log::{LogOptions, SharedLog};
use marchland_types::{GroupId, Incarnation, NodeId, ReplicaId, WorldId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Which nodes can not reach which.
#[derive(Clone, Default)]
pub struct Cuts(Arc<Mutex<BTreeSet<(NodeId, NodeId)>>>);

impl Cuts {
    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.0.lock().unwrap().contains(&(from, to))
    }

    /// Cuts a node off, both ways.
    pub fn isolate(&self, node: NodeId, others: impl IntoIterator<Item = NodeId>) {
        let mut cuts = self.0.lock().unwrap();
        for other in others {
            cuts.insert((node, other));
            cuts.insert((other, node));
        }
    }

    pub fn heal(&self) {
        self.0.lock().unwrap().clear();
    }
}

/// TCP of one node, on which connections break when they are cut.
#[derive(Clone)]
pub struct CutTransport {
    pub node: NodeId,
    pub cuts: Cuts,
    pub book: Arc<Mutex<BTreeMap<String, NodeId>>>,
}

pub struct CutStream {
    inner: TcpStream,
    cut: Option<(NodeId, NodeId, Cuts)>,
}

impl CutStream {
    fn check(&self) -> io::Result<()> {
        match &self.cut {
            Some((from, to, cuts)) if cuts.is_cut(*from, *to) => Err(io::ErrorKind::ConnectionReset.into()),
            _ => Ok(()),
        }
    }
}

impl AsyncRead for CutStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for CutStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl Tune for CutStream {
    fn tune_for_player(&self) -> io::Result<()> {
        Ok(())
    }

    fn tune_for_cluster(&self) -> io::Result<()> {
        self.inner.set_nodelay(true)
    }
}

pub struct CutListener(TcpListener);

impl Listener for CutListener {
    type Stream = CutStream;

    async fn accept(&self) -> io::Result<(CutStream, SocketAddr)> {
        let (inner, from) = self.0.accept().await?;
        Ok((CutStream { inner, cut: None }, from))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Transport for CutTransport {
    type Stream = CutStream;
    type Listener = CutListener;

    async fn connect(&self, address: &str) -> io::Result<CutStream> {
        let to = self.book.lock().unwrap().get(address).copied().unwrap_or_default();
        if self.cuts.is_cut(self.node, to) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let inner = TokioTransport.connect(address).await?;
        Ok(CutStream { inner, cut: Some((self.node, to, self.cuts.clone())) })
    }

    async fn listen(&self, address: &str) -> io::Result<CutListener> {
        let listener = TokioTransport.listen(address).await?;
        self.book.lock().unwrap().insert(Listener::local_addr(&listener)?.to_string(), self.node);
        Ok(CutListener(listener))
    }
}

/// The shard identity of a node.
pub fn identity(cluster: &str, node: NodeId) -> PeerIdentity {
    PeerIdentity { cluster: cluster.into(), node, roles: [PeerRole::Shard].into(), worlds: Some([WorldId(1)].into()) }
}

/// What survives a node's process: its disk, and its machines' own stores.
#[derive(Default)]
pub struct Folder {
    pub disk: Option<SimDisk>,
    pub stores: BTreeMap<GroupId, Arc<Mutex<Counted>>>,
}

pub struct Running {
    pub local: LocalNode,
    pub machines: BTreeMap<GroupId, Arc<Tally>>,
    pub log: SharedLog,
    writer: AbortHandle,
}

/// Nodes by number, running or not.
pub struct Cluster {
    /// Its own: the port of a node that stopped may be the next one of a node of another test.
    pub name: String,
    pub book: Arc<Book>,
    pub cuts: Cuts,
    pub names: Arc<Mutex<BTreeMap<String, NodeId>>>,
    pub folders: BTreeMap<u32, Folder>,
    pub running: BTreeMap<u32, Running>,
    /// Changes every node's options before it starts.
    pub adjust: Option<fn(&mut NodeOptions)>,
    pub padding_bytes: usize,
    pub reserve_bytes: u64,
    /// Elects as fast as in production.
    pub hasty: bool,
}

pub fn replica(node: u32) -> ReplicaId {
    ReplicaId::new(NodeId(node), Incarnation(1))
}

pub fn group_id() -> GroupId {
    marchland_raft::testkit::bench_group(1)
}

impl Default for Cluster {
    fn default() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            name: format!("test-{}-{number}", std::process::id()),
            book: Arc::default(),
            cuts: Cuts::default(),
            names: Arc::default(),
            folders: BTreeMap::new(),
            running: BTreeMap::new(),
            adjust: None,
            padding_bytes: 0,
            reserve_bytes: 0,
            hasty: false,
        }
    }
}

impl Cluster {
    pub fn identity(&self, node: u32) -> PeerIdentity {
        identity(&self.name, NodeId(node))
    }

    pub fn transport(&self, node: u32) -> CutTransport {
        CutTransport { node: NodeId(node), cuts: self.cuts.clone(), book: self.names.clone() }
    }

    /// Starts a node as incarnation 1, without groups.
    pub async fn start(&mut self, node: u32) {
        self.start_as(node, Incarnation(1)).await;
    }

    pub async fn start_as(&mut self, node: u32, incarnation: Incarnation) {
        let folder = self.folders.entry(node).or_default();
        let disk = folder.disk.get_or_insert_with(|| SimDisk::new(u64::from(node))).clone();
        let options = LogOptions { segment_bytes: 1 << 20, reserve_bytes: self.reserve_bytes, ..LogOptions::default() };
        let (log, writer) = SharedLog::open(disk, Path::new("/log"), options).expect("the log opens");
        let writer = tokio::spawn(writer.run_task(|| Duration::from_micros(200))).abort_handle();
        let mut options = NodeOptions::new(NodeId(node), incarnation, self.book.clone());
        if !self.hasty {
            // Tests run beside other tests: a replica that is starved for half a second is not to be replaced.
            options.timings.heartbeat_ms = 300;
            options.timings.election_ms = 800;
            options.timings.election_step_ms = 100;
        }
        if let Some(adjust) = self.adjust {
            adjust(&mut options);
        }
        let security = ClusterSecurity::simulated(self.identity(node));
        let transport = self.transport(node);
        let local = LocalNode::start(options, &self.book, &transport, &security, log.clone(), "127.0.0.1:0").await.unwrap();
        self.running.insert(node, Running { local, machines: BTreeMap::new(), log, writer });
    }

    pub fn machine(&mut self, node: u32, id: GroupId) -> Arc<Tally> {
        let store = self.folders.entry(node).or_default().stores.entry(id).or_default().clone();
        let mut tally = Tally::new(id, store);
        tally.padding_bytes = self.padding_bytes;
        let tally = Arc::new(tally);
        self.running.get_mut(&node).unwrap().machines.insert(id, tally.clone());
        tally
    }

    pub async fn open(&mut self, node: u32, id: GroupId) -> Group {
        let machine = self.machine(node, id);
        self.running[&node].local.raft.open_group(id, machine).await.expect("the group opens")
    }

    /// Three nodes with one group, initialised by the first.
    pub async fn three() -> Self {
        let mut cluster = Self::default();
        cluster.boot().await;
        cluster
    }

    pub async fn boot(&mut self) {
        for node in 1..=3 {
            self.start(node).await;
            self.open(node, group_id()).await;
        }
        self.group(1).initialize(&(1..=3).map(replica).collect()).await.unwrap();
    }

    pub fn group(&self, node: u32) -> Group {
        self.running[&node].local.raft.group(group_id()).expect("the group is open")
    }

    pub fn tally(&self, node: u32) -> Counted {
        self.running[&node].machines[&group_id()].counted()
    }

    pub fn groups(&self) -> Vec<Group> {
        self.running.values().filter_map(|node| node.local.raft.group(group_id())).collect()
    }

    /// The leader and its node.
    pub async fn leader(&self) -> (u32, Group) {
        let Some(leader) = leader_of(&self.groups(), Duration::from_secs(30)).await else {
            let all: Vec<_> = self.groups().iter().map(Group::status).collect();
            panic!("no leader within 30 s: {all:#?}");
        };
        (leader.status().leader.expect("it knows itself").node().0, leader)
    }

    /// Stops the process of a node: nothing is flushed that was not. The disk stays as the machine keeps it.
    pub async fn kill(&mut self, node: u32) {
        let running = self.running.remove(&node).expect("it runs");
        running.writer.abort();
        let disk = self.folders[&node].disk.clone().expect("it has a disk");
        running.local.stop().await;
        drop(running.log);
        disk.kill();
    }

    /// Takes the power from a node: unsynced writes survive or not, by seed.
    pub async fn power_off(&mut self, node: u32, seed: u64) {
        let running = self.running.remove(&node).expect("it runs");
        running.writer.abort();
        let disk = self.folders[&node].disk.clone().expect("it has a disk");
        // What was written until now is what the next boot may find; the rest of the shutdown changes nothing any more.
        let image = disk.copy();
        image.crash(seed);
        self.folders.get_mut(&node).expect("it has a folder").disk = Some(image);
        running.local.stop().await;
        drop(running.log);
    }

    /// Waits until every running replica has counted this many commands, and compares them.
    pub async fn converge(&self, count: u64) {
        for _ in 0..6000 {
            let all: Vec<Counted> = self.running.keys().map(|node| self.tally(*node)).collect();
            if all.iter().all(|one| one.count == count) {
                assert!(all.iter().all(|one| one.hash == all[0].hash), "replicas differ: {all:?}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let all: Vec<_> = self.running.keys().map(|node| (*node, self.tally(*node).count, self.group(*node).status())).collect();
        panic!("no agreement on {count} commands: {all:#?}");
    }
}

/// Proposes numbered commands one after another.
pub async fn propose(group: &Group, from: u64, count: u64) {
    for number in from..from + count {
        let command = Bytes::copy_from_slice(&number.to_le_bytes());
        let done = loop {
            match group.propose(command.clone()).await {
                Ok(done) => break done,
                // A machine that is busy with other things; nothing was done.
                Err(ProposeError::Refused { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("not committed: {error}"),
            }
        };
        assert_eq!(done.answer, Bytes::copy_from_slice(&(number + 1).to_le_bytes()), "counted once");
    }
}

/// Waits until a condition holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

pub fn leads(group: &Group) -> bool {
    matches!(group.status().role, Role::Leader(_))
}
