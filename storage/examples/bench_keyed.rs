//! What very many records cost in each engine of the keyed store: memory, disk, time, and how soon it opens after a kill.
//!
//! `cargo run --release -p marchland-storage --example bench_keyed -- DIR redb 1000000`
//!
//! A character is four records, as the directory and a vault keep them: two whose keys ascend (its entry, and its record in the vault) and
//! two whose keys come in any order (its name and its account). The process that writes them is killed, and the store opened again.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use marchland_storage::keyed::{Batch, DiskKeyedNode, KeyedEngine, KeyedNode, KeyedOptions, KeyedStore};
use marchland_types::GroupId;

const DIRECTORY: GroupId = GroupId(0x0200_0001_0000_0001);
const VAULT: GroupId = GroupId(0x0300_0001_0000_0001);
/// Characters between two persists.
const PERSIST_EVERY: u64 = 5_000;
/// Reads of what is stored, spread over all of it.
const READS: u64 = 20_000;
/// Set for the process that writes.
const WRITER: &str = "MARCHLAND_BENCH_WRITER";

fn spread(number: u64) -> u64 {
    (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number << 7)
}

fn key(kind: u8, rest: &[u8]) -> Bytes {
    [&[kind], rest].concat().into()
}

fn text(kind: u8, number: u64) -> Bytes {
    key(kind, format!("{:015x}", spread(number) >> 4).as_bytes())
}

fn value(size_bytes: usize, number: u64) -> Bytes {
    (0..size_bytes as u64).map(|at| (spread(number + at / 8) >> (at % 8 * 8)) as u8).collect::<Vec<_>>().into()
}

/// The records of a character in the directory, and the one in its vault: 600 bytes with their keys.
fn records(number: u64) -> (Batch, Batch) {
    let id = number.to_be_bytes();
    let entry = (key(7, &id), Some(value(120, number)));
    let name = (text(8, number), Some(Bytes::copy_from_slice(&id)));
    let account = (text(9, number), Some(value(60, number)));
    let kept = (key(17, &id), Some(value(362, number)));
    (Batch { writes: vec![entry, name, account] }, Batch { writes: vec![kept] })
}

/// What the kernel says that this process has in memory.
fn memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("kB") * 1024
}

/// Lengths of all files, and what they take on the disk.
fn disk_bytes(dir: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = (0, 0);
    for entry in std::fs::read_dir(dir).expect("folder").map(|entry| entry.expect("entry")) {
        let found = entry.metadata().expect("metadata");
        let add = if found.is_dir() { disk_bytes(&entry.path()) } else { (found.len(), found.blocks() * 512) };
        bytes = (bytes.0 + add.0, bytes.1 + add.1);
    }
    bytes
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[allow(clippy::disallowed_methods, reason = "the clock of a measurement")]
fn now() -> Instant {
    Instant::now()
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: f64| times.get((times.len().saturating_sub(1) as f64 * share) as usize).copied().unwrap_or_default();
    format!("p50 {:.1?}, p99 {:.1?}, max {:.1?}", at(0.5), at(0.99), at(1.0))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(future)
}

fn write(dir: &Path, options: KeyedOptions, characters: u64) {
    let opened = DiskKeyedNode::open(dir, options).expect("opens");
    let (directory, vault) = (opened.node.namespace(DIRECTORY), opened.node.namespace(VAULT));
    let before = memory_bytes();
    block_on(async {
        let (start, mut applies, mut persists) = (now(), Vec::new(), Vec::new());
        let (persist_sender, mut persisted) = tokio::sync::mpsc::channel(1);
        let apply = async {
            for number in 0..characters {
                let (of_directory, of_vault) = records(number);
                let begun = now();
                directory.apply(of_directory).await.expect("apply");
                vault.apply(of_vault).await.expect("apply");
                applies.push(begun.elapsed());
                if number % PERSIST_EVERY == PERSIST_EVERY - 1 {
                    persist_sender.send(()).await.expect("the other half lives");
                }
            }
            drop(persist_sender);
        };
        let persist = async {
            while persisted.recv().await.is_some() {
                let begun = now();
                directory.persist().await.expect("persist");
                persists.push(begun.elapsed());
            }
        };
        tokio::join!(apply, persist);
        let seconds = start.elapsed().as_secs_f64();
        directory.persist().await.expect("persist");
        println!("written: {characters} characters in {seconds:.1} s, {:.0}/s", characters as f64 / seconds);
        println!("two applies of a character: {}", percentiles(applies));
        println!("persist of at least {PERSIST_EVERY} characters: {}", percentiles(persists));
        println!("memory: {:.1} MB more", mb(memory_bytes().saturating_sub(before)));
        // Something to lose.
        for number in characters..characters + PERSIST_EVERY / 2 {
            let (of_directory, of_vault) = records(number);
            directory.apply(of_directory).await.expect("apply");
            vault.apply(of_vault).await.expect("apply");
        }
    });
    println!("ready");
    std::io::stdout().flush().expect("stdout");
    // Until it is killed.
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
}

fn read(dir: &Path, options: KeyedOptions, characters: u64) {
    let before = memory_bytes();
    let start = now();
    let opened = DiskKeyedNode::open(dir, options).expect("opens");
    assert_eq!(opened.set_aside, None);
    println!("opened after a kill: {:.2?}, {:.1} MB", start.elapsed(), mb(memory_bytes().saturating_sub(before)));
    let (directory, vault) = (opened.node.namespace(DIRECTORY), opened.node.namespace(VAULT));
    block_on(async {
        let mut times = Vec::new();
        for at in 0..READS {
            let number = spread(at) % characters;
            let begun = now();
            let name = directory.get(&text(8, number)).await.expect("get");
            let kept = vault.get(&key(17, &number.to_be_bytes())).await.expect("get");
            times.push(begun.elapsed());
            assert_eq!(name, Some(Bytes::copy_from_slice(&number.to_be_bytes())));
            assert_eq!(kept, Some(value(362, number)));
        }
        println!("two reads of a character: {}", percentiles(times));
    });
    println!("memory with {READS} of them read: {:.1} MB more", mb(memory_bytes().saturating_sub(before)));
    let (length, taken) = disk_bytes(dir);
    println!(
        "disk: {:.0} MB, files of {:.0} MB; {:.0} bytes a character",
        mb(taken),
        mb(length),
        taken as f64 / characters as f64
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let parsed = match &arguments[..] {
        [_, dir, engine, characters] => Some(PathBuf::from(dir)).zip(KeyedEngine::named(engine)).zip(characters.parse().ok()),
        _ => None,
    };
    let Some(((dir, engine), characters)) = parsed else {
        eprintln!("usage: bench_keyed DIR redb|sled CHARACTERS");
        std::process::exit(2);
    };
    let options = KeyedOptions { engine, ..KeyedOptions::default() };
    if std::env::var_os(WRITER).is_some() {
        return write(&dir, options, characters);
    }
    let mut writer = Command::new(std::env::current_exe().expect("own binary"))
        .args(&arguments[1..])
        .env(WRITER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let lines = BufReader::new(writer.stdout.take().expect("piped")).lines();
    for line in lines.map_while(Result::ok).take_while(|line| line != "ready") {
        println!("{line}");
    }
    writer.kill().expect("kill");
    writer.wait().expect("wait");
    read(&dir, options, characters);
}
