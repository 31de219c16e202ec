//! A short sweep of every scenario, and what a sweep promises of itself.
//!
//! The seeds are few, for the sake of those who run all tests; long sweeps are the command's.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn simulate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simulation")).args(arguments).output().expect("the simulator starts")
}

fn json(arguments: &[&str]) -> Value {
    let output = simulate(&[arguments, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// How often something of this name happened; of a crash point, in whichever role.
fn count(report: &Value, table: &str, name: &str) -> u64 {
    let of_this_name = |found: &str| found == name || found.strip_prefix(name).is_some_and(|rest| rest.starts_with(" ("));
    let table = report[table].as_object().expect("a table");
    table.iter().filter(|(found, _)| of_this_name(found)).filter_map(|(_, times)| times.as_u64()).sum()
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
fn the_standard_scenario_holds_and_its_world_is_alive() {
    let report = sweep("standard", "16");
    for (what, at_least) in [
        ("frames", 20_000),
        ("items gathered", 100),
        ("goodbyes", 10),
        ("resumed sessions", 1),
        ("verified", 40),
        ("met edge.before_frame", 10_000),
        ("met region.published", 2_000),
    ] {
        let found = count(&report, "sometimes", what);
        assert!(found >= at_least, "{what}: {found} of {at_least}: {report}");
    }
    assert_eq!(report["missing"], Value::Array(Vec::new()));
}

#[test]
fn seeds_that_once_failed_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let list = std::fs::read_to_string(folder.join("regressions.txt")).expect("the list");
    let lines = list.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let mut held = 0;
    for line in lines {
        let parts: Vec<&str> = line.splitn(4, ' ').collect();
        let [scenario, seed, plan, cause] = parts[..] else { panic!("{line:?} is not scenario, seed, plan, cause") };
        let plan = folder.join("regressions").join(plan);
        let mut arguments = vec!["--scenario", scenario, "--seed", seed];
        if !plan.ends_with("-") {
            arguments.extend(["--plan", plan.to_str().expect("UTF-8")]);
        }
        let report = json(&arguments);
        assert_eq!(report["violations"], Value::Array(Vec::new()), "{cause}");
        held += 1;
    }
    assert!(held > 0, "the list is empty");
}

#[test]
fn the_owner_loses_power_and_nothing_acknowledged_is_lost() {
    let report = sweep("owner-loses-power", "4");
    assert!(count(&report, "sometimes", "items gathered") > 16, "{report}");
    assert!(count(&report, "sometimes", "frames") > 2_000, "{report}");
}

#[test]
fn faults_of_every_kind_lose_nothing_either() {
    let report = sweep("rough-weather", "10");
    assert!(count(&report, "sometimes", "resumed sessions") > 0, "{report}");
}

#[test]
fn a_lost_folder_comes_back_as_somebody_else() {
    let report = sweep("lost-folder", "6");
    assert_eq!(count(&report, "fired", "folder-loss"), 6, "{report}");
    assert!(count(&report, "sometimes", "folders that were replaced") >= 6, "{report}");
}

#[test]
fn raft_and_its_log_keep_what_was_committed() {
    let report = sweep("counter", "6");
    assert!(count(&report, "sometimes", "commands") > 2_000, "{report}");
    assert!(count(&report, "sometimes", "met log.segment_rolled") > 100, "{report}");
}

#[test]
fn disks_that_only_say_that_they_synced_are_noticed_and_the_plan_shrinks() {
    let report = json(&["--scenario", "counter-lying-disks", "--seeds", "5"]);
    assert!(!report["violations"].as_array().expect("a list").is_empty(), "{report}");

    let folder = tempfile::tempdir().expect("a folder");
    let plans = folder.path().to_str().expect("UTF-8");
    let lying = ["--scenario", "counter-lying-disks", "--faults", "30", "--plans", plans];
    let report = json(&[&lying[..], &["--seed", "1", "--shrink"]].concat());
    let (before, found) = (&report["shrunk"]["before"], &report["violations"][0]);
    assert!(before.as_u64() >= Some(30), "{report}");
    let left = report["shrunk"]["plan"].as_array().expect("a plan");
    assert!((1..=4).contains(&left.len()), "{} entries are left: {report}", left.len());

    // What is left is in a file, and fails alike.
    let file = folder.path().join("counter-lying-disks-1.shrunk.json");
    let written: Value = serde_json::from_slice(&std::fs::read(&file).expect("the plan was written")).expect("JSON");
    assert_eq!(written, report["shrunk"]["plan"]);
    let plan = file.to_str().expect("UTF-8");
    let again = json(&["--scenario", "counter-lying-disks", "--seed", "1", "--plan", plan]);
    assert_eq!(again["violations"][0]["invariant"], found["invariant"], "{again}");
    assert_eq!(again["plan"], written);
}

#[test]
fn without_faults_even_disks_that_lie_are_not_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let nothing = folder.path().join("nothing.json");
    std::fs::write(&nothing, "[]").expect("a file");
    let plan = nothing.to_str().expect("UTF-8");
    let report = json(&["--scenario", "counter-lying-disks", "--seed", "1", "--plan", plan]);
    assert_eq!(report["violations"], Value::Array(Vec::new()), "what is found comes from the plan");
    std::fs::write(&nothing, "[{}]").expect("a file");
    assert_eq!(simulate(&["--seed", "1", "--plan", plan]).status.code(), Some(2), "a file that is no plan");
}
