//! `kill -9` of a process that writes to the real log and the real keyed store: everything acknowledged is there.

mod worker;

use std::time::Duration;

use marchland_storage::keyed::KeyedEngine;
use worker::{Acknowledged, Worker, run_if_asked, verify};

const KILLS: u64 = 20;

#[test]
fn worker_process() {
    run_if_asked();
}

fn nothing_acknowledged_is_lost(engine: KeyedEngine) {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    for kill in 0..KILLS {
        let worker = Worker::start(dir.path(), engine, &acknowledged);
        let worker = worker.wait(Duration::from_micros(40_000 + kill * 7_919 % 150_000));
        acknowledged = worker.kill();
        verify(dir.path(), engine, &acknowledged);
    }
    assert!(acknowledged.lines >= KILLS && acknowledged.log.len() == 8 && acknowledged.keyed > 0, "{acknowledged:?}");
    println!("{engine}: {KILLS} kills, {} acknowledgements", acknowledged.lines);
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    nothing_acknowledged_is_lost(KeyedEngine::Redb);
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_with_sled() {
    nothing_acknowledged_is_lost(KeyedEngine::Sled);
}
