//! `marchland replay` against the folders of a cluster of real processes: what ran is what is replayed, on every node, while it runs and
//! after it has stopped; and what is damaged, changed or absent is refused.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

use marchland_proto::storage::{RegionEntry, region_entry, stored_input};
use marchland_server::seams::SystemClock;
use marchland_storage::disk::{ReadOnlyDisk, RealDisk};
use marchland_storage::log::{History, LogOptions, SharedLog, Turn};
use marchland_storage::raft_log::{LogEntry, LogOp, RaftLog};
use marchland_types::seam::Clock;
use marchland_types::{GroupId, LogIndex, RegionId, WorldId};
use prost::Message;
use serde_json::Value;

const REGION: GroupId = GroupId::region(WorldId(1), RegionId(1));
/// Longest wait for anything; how long it takes is the machine's affair.
const WITHIN: Duration = Duration::from_secs(120);
/// A command in the log begins with this byte.
const COMMAND: u8 = 0x11;

fn marchland(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_marchland"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn replay(folder: &Path, more: &[&str]) -> Output {
    let data = folder.to_str().expect("a path in UTF-8");
    marchland(&["replay", "--data", data, "--region", "1"]).args(more).output().expect("runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The document of a replay that must succeed.
fn document(folder: &Path, more: &[&str]) -> Value {
    let output = replay(folder, &[more, &["--json"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).expect("one JSON document")
}

/// What a replay that must not succeed says.
fn refusal(folder: &Path, more: &[&str]) -> String {
    let output = replay(folder, more);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    stderr(&output)
}

fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let clock = SystemClock::start();
    let deadline = clock.monotonic() + WITHIN;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(clock.monotonic() < deadline, "not within {WITHIN:?}: {what}");
        sleep(Duration::from_millis(100));
    }
}

/// A cluster with players, stopped when it is dropped.
struct Cluster {
    folder: PathBuf,
    up: Child,
}

impl Cluster {
    fn start(folder: &Path) -> Self {
        let port = free_base_port().to_string();
        let (data, ready) = (folder.join("cluster"), folder.join("ready.json"));
        // Of a run before, if there was one.
        let _ = fs::remove_file(&ready);
        let log = fs::File::create(folder.join("up.log")).expect("a file");
        let up = marchland(&["up", "--bots", "12", "--base-port", &port])
            .args(["--data".as_ref(), data.as_os_str(), "--ready-file".as_ref(), ready.as_os_str()])
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log)
            .spawn()
            .expect("starts");
        let cluster = Self { folder: folder.to_owned(), up };
        wait("the cluster is ready", || cluster.ready());
        cluster
    }

    fn ready(&self) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.folder.join("ready.json")).ok()?).ok()
    }

    fn node(&self, number: u32) -> PathBuf {
        self.folder.join("cluster").join(format!("node-{number}"))
    }

    fn kill_node(&self, number: usize) {
        let pid = self.ready().expect("ready")["nodes"][number - 1]["pid"].as_i64().expect("a pid");
        // SAFETY: plain system call; a process that our own child started.
        assert_eq!(unsafe { libc::kill(pid as i32, libc::SIGKILL) }, 0);
        wait("the node is started again", || {
            let now = self.ready()?["nodes"][number - 1]["pid"].as_i64()?;
            (now != pid).then_some(())
        });
    }

    fn goes_on(&self) {
        let tick = || document(&self.node(2), &["--summary"])["summary"]["last_tick"].as_u64().expect("a tick");
        let before = tick();
        wait("the world goes on", || (tick() > before + 60).then_some(()));
    }

    fn stop(&mut self) {
        // SAFETY: plain system call; our own child, not waited for yet.
        assert_eq!(unsafe { libc::kill(self.up.id() as i32, libc::SIGTERM) }, 0);
        let status = self.up.wait().expect("ends");
        assert!(status.success(), "{}", fs::read_to_string(self.folder.join("up.log")).unwrap_or_default());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if matches!(self.up.try_wait(), Ok(None)) {
            // SAFETY: as above. A second signal or an end in between does no harm.
            unsafe { libc::kill(self.up.id() as i32, libc::SIGTERM) };
            let _ = self.up.wait();
        }
    }
}

fn free_base_port() -> u16 {
    let ports = |base: u16| (1..=3).flat_map(move |node| [100, 200, 300].map(|offset| base + offset + node));
    let is_free = |base: &u16| ports(*base).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    let first = 21_000 + (std::process::id() % 20) as u16 * 400;
    (0..20).map(|at| 21_000 + (first - 21_000 + at * 400) % 8_000).find(is_free).expect("free ports")
}

/// Hash of each tick that was replayed.
fn hashes(document: &Value) -> BTreeMap<u64, String> {
    let entries = document["entries"].as_array().expect("entries");
    let hash = |entry: &Value| Some((entry["tick"].as_u64()?, entry["hash"].as_str()?.to_owned()));
    entries.iter().filter_map(hash).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(fs::copy(&path, &target).expect("copied")),
        }
    }
}

/// Writes the log of a folder anew, in good form, with what `change` makes of the entries.
fn forge(data: &Path, change: impl FnOnce(&mut Vec<LogEntry>)) {
    let mut history = History::read(&ReadOnlyDisk, &data.join("log"), REGION).expect("a log");
    // A node that was stopped in order has applied all that it has.
    let undecided = history.undecided() as u64;
    history.know_committed(LogIndex(history.committed().map_or(0, |committed| committed.0) + undecided));
    let runs = history.runs();
    let [run] = &runs[..] else { panic!("{runs:?}") };
    let committed = *run.end();
    let mut entries: Vec<LogEntry> =
        (run.start().0..=committed.0).map(|index| history.entry(LogIndex(index)).expect("read").expect("there")).collect();
    change(&mut entries);
    fs::remove_dir_all(data.join("log")).expect("removed");
    let (log, mut writer) = SharedLog::open(RealDisk, &data.join("log"), LogOptions::default()).expect("a log");
    let last = entries.last().expect("entries").position;
    for op in [LogOp::Append(entries), LogOp::Committed(Some(last)), LogOp::Vote(b"any"[..].into())] {
        let failed = Arc::new(Mutex::new(None));
        let told = failed.clone();
        log.submit(REGION, op, Box::new(move |result| *told.lock().expect("no panic") = result.err()));
        while matches!(writer.turn(), Turn::Wrote { .. }) {}
        assert!(failed.lock().expect("no panic").is_none());
    }
}

/// From the middle of the log on, lets somebody walk the other way; returns the index of the first entry that is another now.
fn turn_somebody(entries: &mut [LogEntry]) -> u64 {
    let middle = entries.len() / 2;
    let mut turned: Option<(u64, u64)> = None;
    for logged in &mut entries[middle..] {
        if logged.payload.first() != Some(&COMMAND) {
            continue;
        }
        let mut entry = RegionEntry::decode(&logged.payload[1..]).expect("an entry");
        let Some(region_entry::Body::Tick(tick)) = &mut entry.body else { continue };
        for session in &mut tick.sessions {
            for input in &mut session.inputs {
                let Some(stored_input::What::Move(wanted)) = &mut input.what else { continue };
                let walks = wanted.x.abs() + wanted.z.abs() > 0.5;
                if turned.map_or(walks, |(character, _)| character == session.character) {
                    turned.get_or_insert((session.character, logged.position.index.0));
                    (wanted.x, wanted.z) = (-wanted.x, -wanted.z);
                }
            }
        }
        logged.payload = [&[COMMAND][..], &entry.encode_to_vec()].concat().into();
    }
    turned.expect("nobody walks in the second half of the log").1
}

#[test]
fn what_ran_is_replayed_and_what_is_damaged_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = Cluster::start(folder.path());
    // While it runs: up to somewhere, and all of it exact. Some have gathered by then, so there are items.
    wait("somebody has gathered", || {
        let live = document(&cluster.node(1), &[]);
        assert_eq!(live["summary"]["agrees"], true);
        let commands = live["entries"].as_array()?.iter().flat_map(|entry| entry["commands"].as_array());
        (commands.flatten().filter(|command| command["what"] == "gather" && command["code"] == 0).count() >= 3).then_some(())
    });
    // Another owner, another term, and a node that recovers.
    cluster.kill_node(1);
    cluster.goes_on();
    cluster.stop();
    // Taken up again, behind a checkpoint.
    let mut cluster = Cluster::start(folder.path());
    cluster.goes_on();
    cluster.stop();

    let documents: Vec<Value> = (1..=3).map(|number| document(&cluster.node(number), &[])).collect();
    let all: Vec<BTreeMap<u64, String>> = documents.iter().map(hashes).collect();
    for (document, hashes) in documents.iter().zip(&all) {
        let summary = &document["summary"];
        assert_eq!(summary["agrees"], true, "{summary}");
        let (compared, equal) = (summary["hashes_compared"].as_u64(), summary["hashes_equal"].as_u64());
        assert!(compared == equal && compared.is_some_and(|compared| compared as usize > hashes.len() / 2), "{summary}");
        assert_eq!(summary["ticks"].as_u64(), Some(hashes.len() as u64));
        // From the first tick of the world, for nothing was let go yet.
        assert_eq!(hashes.keys().next(), Some(&1));
    }
    let common = all.iter().map(BTreeMap::len).min().expect("three");
    assert!(common > 100);
    assert!(all[1..].iter().all(|other| other.iter().zip(&all[0]).all(|(one, other)| one == other)));

    filters(&cluster.node(1), &documents[0]);
    ranges(&cluster.node(1), &all[0]);
    refusals(&cluster, folder.path());
    damage(&cluster.node(2).join("data"), folder.path(), &all[1]);
}

/// Who got an item by which command, and where an entity went.
fn filters(node: &Path, document: &Value) {
    let entries = document["entries"].as_array().into_iter().flatten();
    let commands =
        entries.flat_map(|entry| entry["commands"].as_array().into_iter().flatten().map(move |command| (entry, command)));
    let (given, gathered) =
        commands.into_iter().find(|(_, command)| command["what"] == "gather" && command["code"] == 0).expect("gathered");
    let (item, entity) = (&gathered["items"][0]["item"], &gathered["entity"]);
    let (name, seq) = (gathered["name"].as_str().expect("a name"), &gathered["seq"]);
    let of_item = self::document(node, &["--item", &item.to_string()]);
    let first = &of_item["entries"][0]["commands"][0];
    assert_eq!((&first["entity"], &first["seq"], &first["items"][0]["to"]["entity"]), (entity, seq, entity));
    assert_eq!(first["items"][0]["from"]["name"], "nobody");
    assert!(of_item["replay"]["item"].as_str().is_some_and(|text| text.ends_with("is nowhere")), "{}", of_item["replay"]);
    // In the end players leave the world, and what they have goes with them, unless the nodes stop before: it is looked at when it was given.
    let then = self::document(node, &["--item", &item.to_string(), "--to", &given["tick"].to_string()]);
    let held = then["summary"]["item"].as_str().expect("told");
    assert!(held.contains(&format!("is held by entity {entity} ({name})")), "{held}");
    assert_eq!(of_item["summary"]["hashes_compared"], document["summary"]["hashes_compared"]);
    for choice in [name.to_owned(), entity.to_string()] {
        let of_entity = self::document(node, &["--entity", &choice]);
        let entries = of_entity["entries"].as_array().expect("entries");
        assert!(entries.iter().any(|entry| entry["commands"].as_array().is_some_and(|all| all.iter().any(|c| c["seq"] == *seq))));
        let others = entries.iter().flat_map(|entry| entry["commands"].as_array()).flatten().filter(|c| c["entity"] != *entity);
        assert_eq!(others.count(), 0);
        // Each step begins where the one before ended.
        let steps: Vec<&Value> = entries.iter().map(|entry| &entry["position"]).filter(|step| !step.is_null()).collect();
        assert!(steps.len() > 20 && steps.iter().any(|step| step["from"] != step["to"]), "{} steps", steps.len());
        assert!(steps.windows(2).all(|pair| pair[0]["to"] == pair[1]["from"]));
        assert!(steps.iter().all(|step| step["entity"] == *entity));
    }
}

fn ranges(node: &Path, all: &BTreeMap<u64, String>) {
    let last = *all.keys().next_back().expect("ticks");
    let (from, to) = (last / 3, last / 2);
    let part = hashes(&document(node, &["--from", &from.to_string(), "--to", &to.to_string()]));
    assert!(part.iter().eq(all.range(from..=to)), "{from} to {to}");
    let text = replay(node, &["--from", &to.to_string(), "--to", &to.to_string()]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains(&format!("tick {to}  entry ")) && text.contains(&all[&to]), "{text}");
    let beyond = refusal(node, &["--from", &(last + 1000).to_string()]);
    assert!(beyond.contains(&format!("known here to be committed is {last}")), "{beyond}");
}

fn refusals(cluster: &Cluster, scratch: &Path) {
    let other = marchland(&["replay", "--region", "7", "--data"]).arg(cluster.node(1)).output().expect("runs");
    assert!(stderr(&other).contains("has nothing of region 7; regions that it has: 1"), "{}", stderr(&other));
    let whole = refusal(&scratch.join("cluster"), &[]);
    assert!(whole.contains("folder of a cluster") && whole.contains("node-1"), "{whole}");
    let empty = scratch.join("empty");
    fs::create_dir_all(&empty).expect("a folder");
    assert!(refusal(&empty, &[]).contains("is no data folder of a node"));
    assert!(refusal(&scratch.join("nowhere"), &[]).contains("is no folder"));
    let twisted = replay(&cluster.node(1), &["--from", "9", "--to", "8"]);
    assert_eq!(twisted.status.code(), Some(2));
}

fn damage(data: &Path, scratch: &Path, all: &BTreeMap<u64, String>) {
    let changed = |name: &str, change: &dyn Fn(&Path)| {
        let copied = scratch.join(name);
        copy(data, &copied);
        change(&copied);
        copied
    };
    let flip = |path: &Path, at: usize| {
        let mut bytes = fs::read(path).expect("read");
        bytes[at] ^= 1;
        fs::write(path, bytes).expect("written");
    };
    let log = |folder: &Path| folder.join("log/000000000001.log");

    // A byte in the middle of what is used of the log.
    let bytes = fs::read(log(data)).expect("read");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("something");
    // Not one of the zeros between batches.
    let at = bytes[..used / 2].iter().rposition(|byte| *byte != 0).expect("something");
    let rotten = changed("rotten", &|folder| flip(&log(folder), at));
    let said = refusal(&rotten, &["--json"]);
    assert!(said.contains("lacks entry") && said.contains("000000000001.log is damaged at byte"), "{said}");

    // A whole checkpoint folder gone: the log alone reaches back to the beginning.
    let bare = changed("bare", &|folder| {
        fs::remove_dir_all(folder.join("checkpoints")).expect("removed");
        fs::create_dir(folder.join("checkpoints")).expect("made");
    });
    let text = replay(&bare, &["--summary"]);
    assert!(text.status.success(), "{}", stderr(&text));
    let without = changed("without", &|folder| fs::remove_dir_all(folder.join("log")).expect("removed"));
    assert!(refusal(&without, &[]).contains("is incomplete: it has no log"));

    // A damaged checkpoint is told, although an older start does.
    let states = |folder: &Path| -> Vec<PathBuf> {
        let mut paths: Vec<_> = fs::read_dir(folder.join("checkpoints")).expect("read").flatten().map(|e| e.path()).collect();
        paths.sort();
        paths
    };
    let last = *all.keys().next_back().expect("ticks");
    let spoilt = changed("spoilt", &|folder| states(folder).iter().for_each(|path| flip(path, 2_000)));
    let said = refusal(&spoilt, &["--from", &last.to_string(), "--summary"]);
    assert!(said.contains("is damaged at byte") && said.contains(".checkpoint"), "{said}");

    // An entry that is not what ran, in a log in good form.
    let forged = scratch.join("forged");
    copy(data, &forged);
    let mut at = 0;
    forge(&forged, |entries| at = turn_somebody(entries));
    let output = replay(&forged, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let document: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    let mismatch = &document["summary"]["mismatch"];
    let tick = mismatch["tick"].as_u64().unwrap_or_else(|| panic!("{}", document["summary"]));
    assert_eq!(Some(mismatch["recorded"].as_str().expect("a hash")), all.get(&tick).map(String::as_str));
    assert_ne!(mismatch["recorded"], mismatch["replayed"]);
    // Its own tick, or the first one behind it that was recorded.
    let found = entry_of(&document, tick);
    assert!((at..at + 4).contains(&found), "entry {at} was changed, the tick of entry {found} differs");
    assert!(stderr(&output).contains(&format!("replay differs after tick {tick}: recorded")), "{}", stderr(&output));
    assert!(mismatch["component"].as_str().is_some_and(|part| part.contains(", at the checkpoint of tick")), "{mismatch}");

    // Rewritten and not changed, it agrees: what is found above is the change.
    let same = scratch.join("same");
    copy(data, &same);
    forge(&same, |_| {});
    assert_eq!(self::document(&same, &["--summary"])["summary"]["agrees"], true);
}

/// The entry of a tick in a document.
fn entry_of(document: &Value, tick: u64) -> u64 {
    let entries = document["entries"].as_array().expect("entries");
    entries.iter().find(|entry| entry["tick"] == tick).and_then(|entry| entry["entry"].as_u64()).unwrap_or(u64::MAX)
}
