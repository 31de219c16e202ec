//! Traces: what is written says what happened, and writing it changes nothing.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Runs a scenario, and gives its JSON.
fn json(arguments: &[&str]) -> Value {
    let output =
        Command::new(env!("CARGO_BIN_EXE_simulation")).args(arguments).arg("--json").output().expect("the simulator starts");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

fn traced(scenario: &str, seed: &str, file: &Path) -> Value {
    let plans = file.parent().expect("a folder").to_str().expect("UTF-8");
    json(&["--scenario", scenario, "--seed", seed, "--plans", plans, "--trace", file.to_str().expect("UTF-8")])
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).expect("the trace was written")
}

/// What the page draws.
fn drawn(page: &str) -> Value {
    let open = "<script type=\"application/json\" id=\"run\">";
    let from = page.find(open).expect("the page holds its run") + open.len();
    let length = page[from..].find("</script>").expect("which ends");
    serde_json::from_str(&page[from..from + length]).expect("and is JSON")
}

#[test]
fn the_hash_does_not_depend_on_whether_or_how_a_trace_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let silent = json(&["--scenario", "echo", "--seed", "5"])["trace_hash"].clone();
    assert!(silent.is_string());
    for name in ["5.txt", "5.html"] {
        assert_eq!(traced("echo", "5", &folder.path().join(name))["trace_hash"], silent, "{name}");
    }
    let text = read(&folder.path().join("5.txt"));
    let (head, lines): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with('#'));
    for says in
        ["scenario  echo", "seed      5", "repeat    cargo run", "verdict   every invariant held", silent.as_str().expect("text")]
    {
        assert!(head.iter().any(|line| line.contains(says)), "{says} is not in {head:?}");
    }
    let mut before = 0.0;
    for line in lines {
        // Columns: time in milliseconds, lane, kind, text.
        let at: f64 = line[..10].trim().parse().unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(at >= before, "{line}");
        assert!(line[10..12].trim().is_empty() && !line[12..13].trim().is_empty() && line[18..19].trim().is_empty(), "{line}");
        before = at;
    }
    let run = drawn(&read(&folder.path().join("5.html")));
    assert_eq!(run["hash"], silent);
    assert!(run["machines"].as_array().is_some_and(|machines| machines.len() >= 2), "{}", run["machines"]);
    assert!(run["faults"].as_array().is_some_and(|faults| !faults.is_empty()), "{}", run["faults"]);
    assert_eq!(run["violation"], Value::Null);
}

#[test]
fn a_violated_run_is_drawn_with_lanes_and_the_moment() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("lies.html");
    // On disks that lie some seed notices soon.
    let found = (1..=10).find_map(|seed: u32| {
        let report = traced("counter-lying-disks", &seed.to_string(), &file);
        report["violations"].as_array().and_then(|all| all.first().cloned())
    });
    let found = found.expect("a seed that notices");
    let run = drawn(&read(&file));
    assert_eq!((&run["violation"]["invariant"], &run["violation"]["what"]), (&found["invariant"], &found["what"]));
    let (at, end) = (run["violation"]["at"].as_f64(), run["end"].as_f64());
    assert!(at > Some(0.0) && at <= end, "{at:?} of {end:?}");
    for lanes in ["groups", "machines", "clients"] {
        assert!(run[lanes].as_array().is_some_and(|lanes| !lanes.is_empty()), "{lanes}: {}", run[lanes]);
    }
    assert!(run["events"].as_array().is_some_and(|events| events.iter().any(|event| event[1] == "VIOLATED")));
}
