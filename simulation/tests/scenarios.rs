//! A short sweep of every scenario, and what a sweep promises of itself.
//!
//! The seeds are few, for the sake of those who run all tests; long sweeps are the command's.

use std::process::{Command, Output};

use serde_json::Value;

fn simulate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simulation")).args(arguments).output().expect("the simulator starts")
}

fn json(arguments: &[&str]) -> Value {
    let output = simulate(&[arguments, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

fn count(report: &Value, table: &str, name: &str) -> u64 {
    report[table][name].as_u64().unwrap_or(0)
}

/// Every seed passes, and there was a fault in each of them on average.
fn sweep(scenario: &str, seeds: &str) -> Value {
    let report = json(&["--scenario", scenario, "--seeds", seeds]);
    assert_eq!(report["violations"], Value::Array(Vec::new()));
    let faults: u64 = report["fired"].as_object().expect("a table").values().filter_map(Value::as_u64).sum();
    assert!(faults >= seeds.parse().expect("a number"), "{report}");
    report
}

#[test]
fn the_owner_loses_power_and_nothing_acknowledged_is_lost() {
    let report = sweep("owner-loses-power", "10");
    assert!(count(&report, "sometimes", "items gathered") > 40, "{report}");
    assert!(count(&report, "sometimes", "frames") > 5_000, "{report}");
}

#[test]
fn faults_of_every_kind_lose_nothing_either() {
    let report = sweep("rough-weather", "6");
    assert!(count(&report, "sometimes", "resumed sessions") > 0, "{report}");
}

#[test]
fn raft_and_its_log_keep_what_was_committed() {
    let report = sweep("counter", "6");
    assert!(count(&report, "sometimes", "commands") > 2_000, "{report}");
    assert!(count(&report, "sometimes", "met log.segment_rolled") > 100, "{report}");
}

#[test]
fn a_seed_of_the_whole_stack_gives_the_same_run_in_two_processes() {
    let hash = |seed| {
        let report = json(&["--scenario", "owner-loses-power", "--detail", "everything", "--seed", seed]);
        report["trace_hash"].as_str().expect("a single seed has a hash").to_owned()
    };
    assert_eq!(hash("2"), hash("2"));
    let domain = |seed| json(&["--scenario", "owner-loses-power", "--seed", seed])["trace_hash"].clone();
    assert_eq!(domain("3"), domain("3"));
    assert_ne!(domain("3"), domain("4"));
}

#[test]
fn disks_that_only_say_that_they_synced_are_noticed() {
    for scenario in ["counter-lying-disks", "owner-loses-power-lying-disks"] {
        let report = json(&["--scenario", scenario, "--seeds", "5"]);
        let found = report["violations"].as_array().expect("a list");
        assert!(!found.is_empty(), "{report}");
    }
}
