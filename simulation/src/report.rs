//! What a run hands back: from the child process to its parent, and to whoever asked for JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::oracle::Violation;

/// One seed's run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SeedReport {
    /// The seed.
    pub seed: u64,
    /// The first invariant that did not hold.
    pub violation: Option<Violation>,
    /// Hash of the trace.
    pub trace_hash: String,
    /// Its lines.
    pub trace_lines: u64,
    /// Simulated time, in seconds.
    pub simulated_s: f64,
    /// Time of the processor, in seconds.
    pub cpu_s: f64,
    /// Faults and crash points that took effect.
    pub fired: BTreeMap<String, u64>,
    /// What happened at all.
    pub sometimes: BTreeMap<String, u64>,
}

/// A violation with how to see it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// Which invariant.
    pub invariant: String,
    /// What was found.
    pub what: String,
    /// The command that repeats it.
    pub command: String,
}

/// Many seeds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// How many.
    pub seeds: u64,
    /// What was found.
    pub violations: Vec<Found>,
    /// Of the only seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_hash: Option<String>,
    /// Simulated time, in seconds.
    pub simulated_s: f64,
    /// Time of the processor, in seconds.
    pub cpu_s: f64,
    /// Faults and crash points that took effect, over all seeds.
    pub fired: BTreeMap<String, u64>,
    /// What happened at all, over all seeds.
    pub sometimes: BTreeMap<String, u64>,
}

impl Summary {
    /// Adds a seed's run. `command` repeats it.
    pub fn add(&mut self, report: SeedReport, command: String) {
        self.seeds += 1;
        self.simulated_s += report.simulated_s;
        self.cpu_s += report.cpu_s;
        for (total, part) in [(&mut self.fired, report.fired), (&mut self.sometimes, report.sometimes)] {
            for (name, times) in part {
                *total.entry(name).or_default() += times;
            }
        }
        self.trace_hash = (self.seeds == 1).then_some(report.trace_hash);
        if let Some(Violation { invariant, what }) = report.violation {
            self.violations.push(Found { seed: report.seed, invariant, what, command });
        }
    }
}
