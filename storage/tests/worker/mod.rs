//! A process that writes to the real log and the real keyed store until it is killed, and what must be there afterwards.
//!
//! The process is this test binary, started again with [`FOLDER`] set. It prints a line for everything that it was told is durable.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use marchland_storage::disk::RealDisk;
use marchland_storage::keyed::{Batch, DiskKeyedNode, KeyedEngine, KeyedNode, KeyedOptions, KeyedStore};
use marchland_storage::log::{LogOptions, SharedLog};
use marchland_storage::raft_log::{LogEntry, LogError, LogOp, RaftLog};
use marchland_types::{GroupId, LogIndex, Position, Term};

/// Set for the process that writes.
const FOLDER: &str = "MARCHLAND_TEST_FOLDER";
/// And the engine of its keyed store.
const ENGINE: &str = "MARCHLAND_TEST_ENGINE";
const GROUPS: u64 = 8;
/// Entries that a group keeps.
const KEEP: u64 = 200;
const KEYS: u64 = 50;
const KEYED: GroupId = GroupId(0x0200_0001_0000_0001);

fn options() -> LogOptions {
    LogOptions { segment_bytes: 256 * 1024, retain_bytes: 512 * 1024, reserve_bytes: 0, ..LogOptions::default() }
}

fn keyed_options(engine: KeyedEngine) -> KeyedOptions {
    KeyedOptions { cache_bytes: 4 << 20, engine }
}

fn payload(group: u64, index: u64) -> Bytes {
    let mut bytes = vec![0; 40 + ((group * 31 + index * 7) % 400) as usize];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = (group.wrapping_mul(131) ^ index.wrapping_mul(17) ^ at as u64) as u8;
    }
    bytes.into()
}

fn entry(group: u64, index: u64) -> LogEntry {
    LogEntry { position: Position { term: Term(1), index: LogIndex(index) }, payload: payload(group, index) }
}

fn keyed_value(number: u64) -> Bytes {
    let mut value = number.to_le_bytes().to_vec();
    // Some values are stored in pieces, where the engine wants that.
    value.resize(if number.is_multiple_of(7) { 70_000 } else { 100 }, number as u8);
    value.into()
}

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[..8].try_into().expect("a value begins with its number"))
}

/// To be called by a test named `worker_process`: writes for ever if this is the process that was started for it.
pub fn run_if_asked() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let engine = std::env::var(ENGINE).ok().and_then(|name| KeyedEngine::named(&name)).expect("an engine");
    let at = folder.clone();
    let log = std::thread::Builder::new().spawn(move || write_log(&at)).expect("thread");
    write_keyed(&folder, engine);
    log.join().expect("log");
}

fn write_log(folder: &Path) {
    let (log, writer) = SharedLog::open(RealDisk, &folder.join("log"), options()).expect("log opens");
    let thread = writer.run_thread().expect("thread");
    let (sender, receiver) = mpsc::channel::<Result<(), LogError>>();
    let next = |log: &SharedLog, group: u64| log.state(GroupId(group)).last.map_or(0, |last| last.index.0 + 1);
    for round in 0u64.. {
        let mut ends = Vec::new();
        for group in 0..GROUPS {
            let index = next(&log, group);
            let sender = sender.clone();
            log.submit(
                GroupId(group),
                LogOp::Append(vec![entry(group, index)]),
                Box::new(move |result| sender.send(result).unwrap()),
            );
            ends.push(index);
        }
        let voter = round % GROUPS;
        let vote = sender.clone();
        log.submit(
            GroupId(voter),
            LogOp::Vote(payload(voter, ends[voter as usize])),
            Box::new(move |result| vote.send(result).unwrap()),
        );
        for _ in 0..=GROUPS {
            receiver.recv().unwrap().expect("durable");
        }
        let ends = ends.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
        println!("\nlog {ends}");
        let purged = log.state(GroupId(voter)).last.map_or(0, |last| last.index.0);
        if purged > KEEP && round % 16 < GROUPS {
            let to = entry(voter, purged - KEEP).position;
            log.submit(GroupId(voter), LogOp::Purge(to), Box::new(|result| result.unwrap()));
        }
    }
    thread.join();
}

fn write_keyed(folder: &Path, engine: KeyedEngine) {
    let opened = DiskKeyedNode::open(&folder.join("keyed"), keyed_options(engine)).expect("keyed store opens");
    let store = opened.node.namespace(KEYED);
    block_on(async move {
        let mut count = store.get(b"count").await.expect("get").map_or(0, |value| number(&value));
        loop {
            count += 1;
            let key = Bytes::from(format!("key {}", count % KEYS));
            let writes = vec![(Bytes::from_static(b"count"), Some(keyed_value(count))), (key, Some(keyed_value(count)))];
            store.apply(Batch { writes }).await.expect("apply");
            // Sometimes often; sometimes seldom, so that the engine writes a lot on its own account in between.
            if count.is_multiple_of(if count / 100 % 2 == 0 { 3 } else { 40 }) {
                store.persist().await.expect("persist");
                println!("\nkeyed {count}");
            }
        }
    });
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(future)
}

/// What the process said was durable.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged {
    /// Last index of each group.
    pub log: BTreeMap<u64, u64>,
    /// Last batch.
    pub keyed: u64,
    /// How often it said anything.
    pub lines: u64,
}

/// The process, and the thread that listens to it.
pub struct Worker {
    child: Child,
    heard: Arc<Mutex<Acknowledged>>,
    listener: JoinHandle<()>,
    /// What it complains about: of interest only if it ends by itself, for its disk is taken away on purpose.
    complaints: JoinHandle<String>,
}

impl Worker {
    /// Starts the process on `folder`. What was acknowledged before still counts.
    pub fn start(folder: &Path, engine: KeyedEngine, before: &Acknowledged) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("own binary"))
            .args(["--exact", "worker_process", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder)
            .env(ENGINE, engine.name())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let heard = Arc::new(Mutex::new(before.clone()));
        let (lines, filled) = (BufReader::new(child.stdout.take().expect("piped")).lines(), heard.clone());
        let listen = move || {
            for line in lines.map_while(Result::ok) {
                let mut heard = filled.lock().unwrap();
                let mut words = line.split(' ');
                let what = words.next();
                let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
                match what {
                    Some("log") if numbers.len() == GROUPS as usize => heard.log = (0..).zip(numbers).collect(),
                    Some("keyed") if numbers.len() == 1 => heard.keyed = numbers[0],
                    _ => continue,
                }
                heard.lines += 1;
            }
        };
        let listener = std::thread::Builder::new().spawn(listen).expect("thread");
        let mut stderr = child.stderr.take().expect("piped");
        let keep = move || {
            let mut bytes = Vec::new();
            let _ = stderr.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let complaints = std::thread::Builder::new().spawn(keep).expect("thread");
        Self { child, heard, listener, complaints }
    }

    /// Waits until the process has said something, and then for `time`.
    pub fn wait(mut self, time: Duration) -> Self {
        let before = self.heard().lines;
        for _ in 0..1000 {
            if self.heard().lines > before || self.child.try_wait().expect("child").is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(time);
        if let Some(status) = self.child.try_wait().expect("child") {
            panic!("the process ended by itself, with {status}: {}", self.complaints.join().expect("complaints"));
        }
        self
    }

    /// What it said so far.
    pub fn heard(&self) -> Acknowledged {
        self.heard.lock().unwrap().clone()
    }

    /// `kill -9`; everything that it said.
    pub fn kill(mut self) -> Acknowledged {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
        self.listener.join().expect("listener");
        self.complaints.join().expect("complaints");
        self.heard.lock().unwrap().clone()
    }
}

/// Opens what the process left and checks that everything acknowledged is there, whole.
pub fn verify(folder: &Path, engine: KeyedEngine, acknowledged: &Acknowledged) {
    let (log, writer) = SharedLog::open(RealDisk, &folder.join("log"), options()).expect("log opens again");
    for (&group, &index) in &acknowledged.log {
        let id = GroupId(group);
        let state = log.state(id);
        let last = state.last.expect("has entries").index.0;
        assert!(last >= index, "group {group} ends at {last}, {index} was acknowledged");
        let entries = log.entries(id, LogIndex(0)..LogIndex(u64::MAX));
        assert!(entries.len() as u64 >= KEEP.min(last), "group {group} holds {} entries", entries.len());
        for found in entries {
            assert_eq!(found, entry(group, found.position.index.0));
        }
        if let Some(vote) = state.vote {
            assert!((0..=last + 1).rev().any(|index| payload(group, index) == vote), "the vote of group {group} was never cast");
        }
    }
    drop((log, writer));
    let opened = DiskKeyedNode::open(&folder.join("keyed"), keyed_options(engine)).expect("keyed store opens again");
    assert_eq!(opened.set_aside, None);
    let store = opened.node.namespace(KEYED);
    drop(opened.node);
    block_on(async {
        let pairs: BTreeMap<Bytes, Bytes> = store.range(b"", b"", usize::MAX).await.expect("range").into_iter().collect();
        let count = pairs.get(&b"count"[..]).map_or(0, |value| number(value));
        assert!(count >= acknowledged.keyed, "{count} batches, {} were acknowledged", acknowledged.keyed);
        for key in 0..KEYS.min(count) {
            let newest = count - (count + KEYS - key) % KEYS;
            if newest > 0 {
                let found = pairs.get(format!("key {key}").as_bytes());
                assert_eq!(found, Some(&keyed_value(newest)), "key {key} after {count} batches");
            }
        }
    });
    drop(store);
    opened.threads.join();
}
