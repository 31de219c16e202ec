//! Makes a failing plan small: fewer entries, then shorter ones, as long as the same invariant is violated under the same seed.
//!
//! Delta debugging (Zeller and Hildebrandt 2002, `ddmin`): a plan is cut into parts; each part alone and each rest without a part is
//! tried; what still fails is taken on, and when nothing does, the parts are made smaller. A run is a function of seed and plan,
//! and every entry's chance is its own, so this needs no luck. But packets of the simulated network share one stream of
//! latencies: what an entry did to them is gone with it, and a failure that needs it is kept with it.

use std::io;

use crate::plan::{Plan, Planned, When};
use crate::process::{Job, Pool};

/// Durations that are tried instead of a longer one.
const LASTS_MS: [u64; 4] = [5, 50, 300, 1_500];

/// What became of a failing plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shrunk {
    /// It fails alike.
    pub plan: Plan,
    /// How many runs that took.
    pub runs: u64,
}

/// Shrinks the plan of a failing job. `invariant` is what it violates; another violation is not a failure. `tried` is told of the
/// number of entries after every step.
///
/// # Errors
/// A process could not be started, or not be waited for.
pub fn shrink(job: &Job, invariant: &str, at_once: usize, mut tried: impl FnMut(usize, u64)) -> io::Result<Shrunk> {
    let mut runs = 0;
    let mut fails = |candidates: &[Vec<Planned>]| -> io::Result<Option<usize>> {
        let found = first_failing(job, invariant, at_once, candidates, &mut runs)?;
        tried(found.map_or(0, |found| candidates[found].len()), runs);
        Ok(found)
    };
    let entries = job.options.plan_for(job.scenario, job.seed).0;
    let few = ddmin(entries, &mut fails)?;
    let plan = Plan(shorten(few, &mut fails)?);
    Ok(Shrunk { plan, runs })
}

/// The first of these plans that violates the invariant. Several run at once; which is found does not depend on that.
fn first_failing(
    job: &Job,
    invariant: &str,
    at_once: usize,
    candidates: &[Vec<Planned>],
    runs: &mut u64,
) -> io::Result<Option<usize>> {
    let mut lowest: Option<usize> = None;
    let jobs = candidates.iter().map(|entries| {
        let mut job = job.clone();
        job.options.plan = Some(Plan(entries.clone()));
        job.options.trace = None;
        job
    });
    Pool::new(at_once).run(jobs, |number, report| {
        *runs += 1;
        if report.violation.is_some_and(|violation| violation.invariant == invariant) {
            lowest = Some(lowest.map_or(number, |known| known.min(number)));
        }
        lowest.is_none()
    })?;
    Ok(lowest)
}

/// The smallest list of entries that still fails when any one more is taken out. `first_failing` says which of several lists
/// fails, the first of them. The whole list must fail.
fn ddmin<T: Clone + PartialEq>(
    mut entries: Vec<T>,
    mut first_failing: impl FnMut(&[Vec<T>]) -> io::Result<Option<usize>>,
) -> io::Result<Vec<T>> {
    // Lists that did not fail are not tried again: a run is a function of its plan.
    let mut passed: Vec<Vec<T>> = Vec::new();
    let mut first_failing = |candidates: &[Vec<T>]| -> io::Result<Option<usize>> {
        let (numbers, fresh): (Vec<usize>, Vec<Vec<T>>) =
            candidates.iter().cloned().enumerate().filter(|(_, list)| !passed.contains(list)).unzip();
        let found = first_failing(&fresh)?;
        passed.extend(fresh.into_iter().take(found.unwrap_or(usize::MAX)));
        Ok(found.map(|found| numbers[found]))
    };
    if entries.is_empty() || first_failing(&[Vec::new()])?.is_some() {
        return Ok(Vec::new());
    }
    let mut parts = 2;
    while entries.len() > 1 {
        let chunk = entries.len().div_ceil(parts);
        let alone: Vec<Vec<T>> = entries.chunks(chunk).map(<[T]>::to_vec).collect();
        if let Some(found) = first_failing(&alone)? {
            entries = alone[found].clone();
            parts = 2;
            continue;
        }
        let without =
            |part: usize| alone.iter().enumerate().filter(move |(other, _)| *other != part).flat_map(|(_, c)| c.clone());
        // Of two parts, each is the rest of the other.
        let rests: Vec<Vec<T>> =
            if alone.len() > 2 { (0..alone.len()).map(|part| without(part).collect()).collect() } else { Vec::new() };
        if let Some(found) = first_failing(&rests)? {
            entries = rests[found].clone();
            parts = (parts - 1).max(2);
        } else if chunk == 1 {
            break;
        } else {
            parts = (parts * 2).min(entries.len());
        }
    }
    Ok(entries)
}

/// Makes each entry last as short as it may, and a crash point fire at an earlier hit.
fn shorten(
    mut entries: Vec<Planned>,
    mut first_failing: impl FnMut(&[Vec<Planned>]) -> io::Result<Option<usize>>,
) -> io::Result<Vec<Planned>> {
    for number in 0..entries.len() {
        for simpler in [shorter as fn(&Planned) -> Vec<Planned>, earlier] {
            let with = |entry: Planned| {
                let mut entries = entries.clone();
                entries[number] = entry;
                entries
            };
            let candidates: Vec<Vec<Planned>> = simpler(&entries[number]).into_iter().map(with).collect();
            if let Some(found) = first_failing(&candidates)? {
                entries = candidates[found].clone();
            }
        }
    }
    Ok(entries)
}

fn shorter(entry: &Planned) -> Vec<Planned> {
    LASTS_MS.iter().filter(|ms| **ms < entry.lasts_ms).map(|ms| Planned { lasts_ms: *ms, ..entry.clone() }).collect()
}

fn earlier(entry: &Planned) -> Vec<Planned> {
    match &entry.when {
        When::AtPoint { point, hit, after_ms } if *hit > 1 => {
            let at = |hit| Planned { when: When::AtPoint { point: point.clone(), hit, after_ms: *after_ms }, ..entry.clone() };
            vec![at(1)]
        }
        When::AtPoint { .. } | When::AfterPoint { .. } | When::AtMs(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shrinks the numbers below `size`, where a list fails that has all of `culprits`. Also says how many lists were tried.
    fn shrunk(size: u32, culprits: &[u32]) -> (Vec<u32>, usize) {
        let mut tried = 0;
        let found = ddmin((0..size).collect(), |candidates| {
            let failing = candidates.iter().position(|entries| culprits.iter().all(|c| entries.contains(c)));
            tried += failing.map_or(candidates.len(), |found| found + 1);
            Ok(failing)
        });
        (found.unwrap(), tried)
    }

    #[test]
    fn what_does_not_matter_is_taken_out_whatever_matters_and_wherever_it_is() {
        for culprits in [&[][..], &[0], &[29], &[3, 4], &[0, 29], &[1, 14, 28], &[2, 9, 16, 23]] {
            let (found, tried) = shrunk(30, culprits);
            assert_eq!(found, culprits);
            assert!(tried <= 120, "{culprits:?} took {tried} runs");
        }
        assert_eq!(shrunk(1, &[0]).0, [0]);
        assert_eq!(shrunk(0, &[]).0, [0; 0]);
    }

    #[test]
    fn one_of_several_reasons_is_enough() {
        let found = ddmin((0..20).collect(), |candidates| {
            Ok(candidates.iter().position(|e: &Vec<u32>| e.contains(&4) || (e.contains(&11) && e.contains(&17))))
        });
        assert_eq!(found.unwrap(), [4]);
    }

    #[test]
    fn a_run_that_can_not_be_made_ends_it() {
        let failed = ddmin(vec![1, 2, 3], |_| Err(io::Error::other("no process")));
        assert!(failed.is_err());
    }
}
