//! What a run hands back: from the child process to its parent, and to whoever asked for JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::oracle::Violation;
use crate::plan::Plan;

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
    /// What went wrong in it.
    pub plan: Plan,
}

/// A failing plan that was made small.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShrunkPlan {
    /// The seed.
    pub seed: u64,
    /// How many entries it had.
    pub before: usize,
    /// What is left.
    pub plan: Plan,
    /// The command that runs it.
    pub command: String,
}

/// Many seeds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// How many.
    pub seeds: u64,
    /// What was found.
    pub violations: Vec<Found>,
    /// What a sweep of this length must have met, and has not.
    pub missing: Vec<String>,
    /// Of the only seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_hash: Option<String>,
    /// Of the only seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// The first failing plan, if it was to be shrunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shrunk: Option<ShrunkPlan>,
    /// Simulated time, in seconds.
    pub simulated_s: f64,
    /// Time of the processor, in seconds.
    pub cpu_s: f64,
    /// Faults and crash points that took effect, over all seeds. A crash point carries the role of who met it: `log.synced (owner)`.
    pub fired: BTreeMap<String, u64>,
    /// What happened at all, over all seeds.
    pub sometimes: BTreeMap<String, u64>,
}

/// How often a crash point took a machine's power, by that machine's role, and how often it was met at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PointCounts {
    /// On the region's owner.
    pub owner: u64,
    /// On another node that hosts a replica.
    pub follower: u64,
    /// On an edge.
    pub edge: u64,
    /// Where there are no roles.
    pub anyone: u64,
    /// Met, whatever came of it.
    pub met: u64,
}

/// Before the name of a crash point that was met.
pub const MET: &str = "met ";

/// `log.synced (owner)` as name and role.
fn role_of(name: &str) -> (&str, Option<&str>) {
    match name.strip_suffix(')').and_then(|rest| rest.split_once(" (")) {
        Some((name, role)) => (name, Some(role)),
        None => (name, None),
    }
}

impl Summary {
    /// Adds a seed's run.
    pub fn add(&mut self, report: SeedReport) {
        self.seeds += 1;
        self.simulated_s += report.simulated_s;
        self.cpu_s += report.cpu_s;
        for (total, part) in [(&mut self.fired, report.fired), (&mut self.sometimes, report.sometimes)] {
            for (name, times) in part {
                *total.entry(name).or_default() += times;
            }
        }
        self.trace_hash = (self.seeds == 1).then_some(report.trace_hash);
    }

    /// How often a fault or crash point of this name, in whichever role, took effect, or something of this name happened.
    #[must_use]
    pub fn times(&self, name: &str) -> u64 {
        let fired = self.fired.iter().filter(|(fired, _)| *fired == name || role_of(fired).0 == name);
        fired.map(|(_, times)| times).sum::<u64>() + self.sometimes.get(name).copied().unwrap_or(0)
    }

    /// Faults that took effect.
    pub fn faults(&self) -> impl Iterator<Item = (&str, u64)> {
        self.fired.iter().filter(|(name, _)| !is_point(name)).map(|(name, times)| (name.as_str(), *times))
    }

    /// Crash points.
    #[must_use]
    pub fn points(&self) -> BTreeMap<&str, PointCounts> {
        let mut points = BTreeMap::<&str, PointCounts>::new();
        for (name, times) in self.fired.iter().filter(|(name, _)| is_point(name)) {
            let (name, role) = role_of(name);
            let counts = points.entry(name).or_default();
            match role {
                Some("owner") => counts.owner += times,
                Some("follower") => counts.follower += times,
                Some("edge") => counts.edge += times,
                _ => counts.anyone += times,
            }
        }
        for (name, times) in &self.sometimes {
            if let Some(name) = name.strip_prefix(MET) {
                points.entry(role_of(name).0).or_default().met += times;
            }
        }
        points
    }

    /// How many faults took effect, and how many crash points.
    #[must_use]
    pub fn fired_by_sort(&self) -> (u64, u64) {
        let faults = self.faults().map(|(_, times)| times).sum();
        (faults, self.fired.values().sum::<u64>() - faults)
    }

    /// What else happened.
    pub fn others(&self) -> impl Iterator<Item = (&str, u64)> {
        self.sometimes.iter().filter(|(name, _)| !name.starts_with(MET)).map(|(name, times)| (name.as_str(), *times))
    }
}

/// Crash points are named `part.moment`, faults are not.
fn is_point(name: &str) -> bool {
    name.contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crash_points_are_told_from_faults_and_counted_by_role() {
        let counted = |names: &[(&str, u64)]| names.iter().map(|(name, times)| ((*name).to_owned(), *times)).collect();
        let report = || SeedReport {
            fired: counted(&[("kill", 2), ("log.synced (owner)", 1), ("log.synced (edge)", 3), ("log.written", 4)]),
            sometimes: counted(&[("met log.synced (follower)", 50), ("met log.synced (owner)", 7), ("frames", 9)]),
            ..SeedReport::default()
        };
        let mut summary = Summary::default();
        summary.add(report());
        summary.add(report());
        assert_eq!(summary.faults().collect::<Vec<_>>(), [("kill", 4)]);
        assert_eq!(summary.fired_by_sort(), (4, 16));
        let points = summary.points();
        assert_eq!(points["log.synced"], PointCounts { owner: 2, edge: 6, met: 114, ..PointCounts::default() });
        assert_eq!(points["log.written"], PointCounts { anyone: 8, ..PointCounts::default() });
        assert_eq!(summary.others().collect::<Vec<_>>(), [("frames", 18)]);
        assert_eq!(["log.synced", "kill", "frames", "flood"].map(|name| summary.times(name)), [8, 4, 18, 0]);
    }
}
