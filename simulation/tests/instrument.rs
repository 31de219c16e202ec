//! Tests of the instrument: what it promises of itself.

use std::process::{Command, Output};

use serde_json::Value;

fn simulate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simulation")).args(arguments).output().expect("the simulator starts")
}

fn json(arguments: &[&str]) -> Value {
    let output = simulate(&[arguments, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

fn hash_of_everything(scenario: &str, seed: &str, more: &[&str]) -> String {
    let arguments = [&["--scenario", scenario, "--detail", "everything", "--seed", seed], more].concat();
    json(&arguments)["trace_hash"].as_str().expect("a single seed has a hash").to_owned()
}

/// Hashes of the full trace of many seeds, in one batch of two processes at a time.
fn hashes_of_a_batch(scenario: &str, seeds: u64) -> Vec<String> {
    let seeds = seeds.to_string();
    let arguments = ["--scenario", scenario, "--detail", "everything", "--hashes", "--jobs", "2", "--seeds", &seeds];
    let output = simulate(&arguments);
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    let mut hashes: Vec<(u64, String)> = lines
        .lines()
        .filter_map(|line| line.strip_prefix("seed ")?.split_once(" trace "))
        .map(|(seed, hash)| (seed.parse().expect("a seed"), hash.to_owned()))
        .collect();
    hashes.sort();
    hashes.into_iter().map(|(_, hash)| hash).collect()
}

/// All events of all libraries, of 20 seeds or as many as `MARCHLAND_SIMULATION_SEEDS` says: a batch, and each alone.
#[test]
fn a_seed_gives_the_same_run_in_every_process_in_a_batch_and_alone() {
    let asked = std::env::var("MARCHLAND_SIMULATION_SEEDS").ok();
    let of_the_stack = asked.map_or(2, |text| text.parse().expect("MARCHLAND_SIMULATION_SEEDS is a number"));
    for (scenario, seeds) in [("echo", 20), ("standard", of_the_stack)] {
        let batch = hashes_of_a_batch(scenario, seeds);
        assert_eq!(batch.len() as u64, seeds);
        for (seed, hash) in (1..).zip(&batch) {
            let alone = json(&["--scenario", scenario, "--detail", "everything", "--seed", &u64::to_string(&seed)]);
            assert_eq!(alone["trace_hash"].as_str(), Some(hash.as_str()), "{scenario} seed {seed}");
        }
        let different: std::collections::BTreeSet<&String> = batch.iter().collect();
        assert_eq!(different.len(), batch.len(), "two seeds of {scenario} ran alike");
    }
}

#[test]
fn without_interposition_a_run_does_not_repeat() {
    // Nothing of the echo draws from the system's entropy; raft does.
    for (seam, scenario) in [("clock", "echo"), ("entropy", "counter")] {
        let hashes: Vec<String> = (0..2).map(|_| hash_of_everything(scenario, "1", &["--leave", seam])).collect();
        assert_ne!(hashes[0], hashes[1], "with the real {seam}");
    }
}

#[test]
fn a_seed_gives_the_same_trace_in_a_batch_and_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("trace.txt");
    let alone = json(&["--scenario", "echo", "--seed", "5", "--trace", path.to_str().expect("UTF-8")]);
    let batch = simulate(&["--scenario", "echo", "--from", "4", "--seeds", "3", "--jobs", "2", "--hashes"]);
    let lines = String::from_utf8(batch.stdout).expect("UTF-8");
    let expected = format!("seed 5 trace {}", alone["trace_hash"].as_str().expect("a hash"));
    assert!(lines.lines().any(|line| line == expected), "{expected} is not in\n{lines}");
    let written = std::fs::read_to_string(&path).expect("the trace was written");
    assert!(written.contains("POWER LOSS") && written.contains("KILL"), "{written}");
}

#[test]
fn a_thread_started_inside_aborts_the_run() {
    let found = json(&["--scenario", "thread-leak", "--seed", "1"]);
    let what = found["violations"][0]["what"].as_str().expect("a violation");
    assert_eq!(what, format!("ended by signal {}", libc::SIGABRT));
}

#[test]
fn a_violation_exits_with_one_and_prints_the_command_that_repeats_it() {
    let output = simulate(&["--scenario", "thread-leak", "--seed", "7"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cargo run --release -p simulation -- --scenario thread-leak --seed 7"), "{said}");
    for wrong in [&["--scenario", "nothing"][..], &["--seed", "1", "--seeds", "2"], &["--plan", "/nowhere", "--seed", "1"]] {
        assert_eq!(simulate(wrong).status.code(), Some(2), "{wrong:?}");
    }
}
