//! The conformance suites against every implementation of this crate.

use std::path::{Path, PathBuf};
use std::sync::mpsc;

use marchland_storage::conformance::{KeyedUnderTest, LogUnderTest, check_disk, check_keyed, check_raft_log};
use marchland_storage::disk::{Disk, RealDisk, SimDisk};
use marchland_storage::keyed::{
    DiskKeyed, DiskKeyedNode, KeyedEngine, KeyedNode, KeyedOptions, KeyedThreads, SimKeyed, SimKeyedNode,
};
use marchland_storage::log::{LogOptions, LogThread, LogWriter, SharedLog, Turn};
use marchland_storage::raft_log::{LogOp, RaftLog};
use marchland_types::GroupId;

fn options() -> LogOptions {
    LogOptions { segment_bytes: 16 * 1024, retain_bytes: 32 * 1024, reserve_bytes: 0, salt: 7, ..LogOptions::default() }
}

#[test]
fn the_real_disk_conforms() {
    let dir = tempfile::tempdir().unwrap();
    check_disk(&RealDisk, dir.path());
}

#[test]
fn the_simulated_disk_conforms() {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/root")).unwrap();
    check_disk(&disk, Path::new("/root"));
}

/// Driven by hand, on any disk.
struct ByHand<D: Disk> {
    disk: D,
    dir: PathBuf,
    open: Option<(SharedLog, LogWriter<D>)>,
    after_kill: fn(&D),
}

impl<D: Disk> ByHand<D> {
    fn new(disk: D, dir: &Path, after_kill: fn(&D)) -> Self {
        let open = Some(SharedLog::open(disk.clone(), dir, options()).expect("opens"));
        Self { disk, dir: dir.to_owned(), open, after_kill }
    }
}

impl<D: Disk> LogUnderTest for ByHand<D> {
    type Log = SharedLog;

    fn log(&self) -> SharedLog {
        self.open.as_ref().unwrap().0.clone()
    }

    fn settle(&mut self) {
        let (_, writer) = self.open.as_mut().unwrap();
        while let Turn::Wrote { .. } = writer.turn() {}
    }

    fn restart(&mut self) {
        self.open = None;
        (self.after_kill)(&self.disk);
        self.open = Some(SharedLog::open(self.disk.clone(), &self.dir, options()).expect("opens again"));
    }
}

#[test]
fn the_log_conforms_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    check_raft_log(ByHand::new(RealDisk, &dir.path().join("log"), |_| {}));
}

#[test]
fn the_log_conforms_on_a_simulated_disk_that_crashes_at_every_restart() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        check_raft_log(ByHand::new(disk, Path::new("/node/log"), |disk| disk.crash(disk.counters().writes)));
    }
}

/// The production driver: a thread.
struct OnThread {
    dir: PathBuf,
    log: Option<SharedLog>,
    thread: Option<LogThread>,
}

impl OnThread {
    fn open(&mut self) {
        let (log, writer) = SharedLog::open(RealDisk, &self.dir, options()).expect("opens");
        self.log = Some(log);
        self.thread = Some(writer.run_thread().expect("starts"));
    }
}

impl LogUnderTest for OnThread {
    type Log = SharedLog;

    fn log(&self) -> SharedLog {
        self.log.clone().unwrap()
    }

    fn settle(&mut self) {
        // Operations complete in order: once this one is done, everything before it is.
        let (sender, receiver) = mpsc::channel();
        self.log().submit(GroupId(u64::MAX), LogOp::Forget, Box::new(move |result| sender.send(result).unwrap()));
        receiver.recv().unwrap().unwrap();
    }

    fn restart(&mut self) {
        self.log = None;
        self.thread.take().unwrap().join();
        self.open();
    }
}

#[test]
fn the_log_conforms_on_its_own_thread() {
    let dir = tempfile::tempdir().unwrap();
    let mut under_test = OnThread { dir: dir.path().join("log"), log: None, thread: None };
    under_test.open();
    check_raft_log(under_test);
}

struct OnDisk {
    dir: PathBuf,
    engine: KeyedEngine,
    open: Option<(DiskKeyedNode, KeyedThreads)>,
}

impl OnDisk {
    fn open(&mut self) {
        let options = KeyedOptions { cache_bytes: 1 << 20, engine: self.engine };
        let opened = DiskKeyedNode::open(&self.dir, options).expect("opens");
        assert_eq!(opened.set_aside, None);
        self.open = Some((opened.node, opened.threads));
    }
}

impl KeyedUnderTest for OnDisk {
    type Store = DiskKeyed;

    fn namespace(&self, number: u64) -> DiskKeyed {
        self.open.as_ref().unwrap().0.namespace(GroupId(number))
    }

    async fn restart(&mut self) {
        let (node, threads) = self.open.take().unwrap();
        drop(node);
        threads.join();
        self.open();
    }
}

struct OnMap {
    disk: SimDisk,
    node: SimKeyedNode<SimDisk>,
}

impl OnMap {
    fn open(disk: &SimDisk) -> SimKeyedNode<SimDisk> {
        SimKeyedNode::open(disk.clone(), Path::new("/n/keyed"), None).expect("opens")
    }
}

impl KeyedUnderTest for OnMap {
    type Store = SimKeyed<SimDisk>;

    fn namespace(&self, number: u64) -> SimKeyed<SimDisk> {
        self.node.namespace(GroupId(number))
    }

    async fn restart(&mut self) {
        self.disk.crash(self.disk.counters().writes);
        self.node = Self::open(&self.disk);
    }
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

#[test]
fn the_keyed_store_conforms_on_every_engine() {
    for engine in KeyedEngine::ALL {
        let dir = tempfile::tempdir().unwrap();
        let mut under_test = OnDisk { dir: dir.path().join("keyed"), engine, open: None };
        under_test.open();
        block_on(check_keyed(under_test));
    }
}

#[test]
fn the_keyed_store_conforms_as_a_map_on_a_simulated_disk_that_crashes_at_every_restart() {
    for seed in 0..10 {
        let disk = SimDisk::new(seed);
        let node = OnMap::open(&disk);
        block_on(check_keyed(OnMap { disk, node }));
    }
}
