//! `kill -9` of a process that writes to the real log and the real keyed store: everything acknowledged is there.

mod worker;

use std::time::Duration;

use worker::{Acknowledged, Worker, run_if_asked, verify};

const KILLS: u64 = 20;

#[test]
fn worker_process() {
    run_if_asked();
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    for kill in 0..KILLS {
        let mut worker = Worker::start(dir.path(), &acknowledged);
        worker.wait(Duration::from_micros(40_000 + kill * 7_919 % 150_000));
        acknowledged = worker.kill();
        verify(dir.path(), &acknowledged);
    }
    assert!(acknowledged.lines >= KILLS && acknowledged.log.len() == 8 && acknowledged.keyed > 0, "{acknowledged:?}");
    println!("{KILLS} kills, {} acknowledgements", acknowledged.lines);
}
