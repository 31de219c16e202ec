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

fn hash_of_everything(seed: &str, more: &[&str]) -> String {
    let arguments = [&["--scenario", "echo", "--detail", "everything", "--seed", seed], more].concat();
    json(&arguments)["trace_hash"].as_str().expect("a single seed has a hash").to_owned()
}

#[test]
fn a_seed_gives_the_same_run_in_every_process_and_another_seed_another() {
    for seed in ["1", "2", "3"] {
        assert_eq!(hash_of_everything(seed, &[]), hash_of_everything(seed, &[]), "seed {seed}");
    }
    assert_ne!(hash_of_everything("1", &[]), hash_of_everything("2", &[]));
}

#[test]
fn without_interposition_a_run_does_not_repeat() {
    for seam in ["clock", "entropy"] {
        let hashes: Vec<String> = (0..2).map(|_| hash_of_everything("1", &["--leave", seam])).collect();
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
    assert_eq!(simulate(&["--scenario", "nothing"]).status.code(), Some(2));
}
