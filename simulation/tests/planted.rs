//! Planted bugs: none of them is in the released binary, and those that a few seeds find are found.

use std::process::Command;

use serde_json::Value;

/// Bugs that one or a few seeds find: the rest is for the command itself, which looks for all of them within their budgets.
const QUICK: [&str; 4] = ["leader-restored", "stale-read", "counters-not-in-checkpoint", "hash-map-order"];

#[test]
fn the_released_binary_has_neither_planted_bugs_nor_crash_points() {
    let features = |package: &str| {
        let tree =
            ["tree", "--offline", "--locked", "--edges", "normal,features", "--package", package, "--invert", "marchland-types"];
        let output =
            Command::new(env!("CARGO")).args(tree).current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let test_only = ["feature \"planted\"", "feature \"points\""];
    let (released, simulated) = (features("marchland-server"), features("simulation"));
    for feature in test_only {
        assert!(simulated.contains(feature), "this test looks for something that is nowhere: {feature}");
        assert!(!released.contains(feature), "{released}");
    }
}

#[test]
fn bugs_that_few_seeds_find_are_found_within_their_budgets() {
    let mut arguments = vec!["planted", "--json"];
    arguments.extend(QUICK.iter().flat_map(|bug| ["--bug", bug]));
    let output = Command::new(env!("CARGO_BIN_EXE_simulation")).args(arguments).output().expect("the simulator starts");
    let verdicts: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    let found: Vec<(&str, bool)> = verdicts
        .as_array()
        .expect("a list")
        .iter()
        .map(|v| (v["bug"].as_str().expect("a name"), v["found"].as_bool().expect("a verdict")))
        .collect();
    assert_eq!(found, QUICK.map(|bug| (bug, true)), "{verdicts}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn an_unknown_bug_is_wrong_use() {
    let output = Command::new(env!("CARGO_BIN_EXE_simulation")).args(["planted", "--bug", "none"]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(2));
}
