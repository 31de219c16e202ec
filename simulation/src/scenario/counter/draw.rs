//! What goes wrong in a seed of the counter. Each seed has its own mixture, and few faults at a time: what overlaps everything finds
//! nothing. Beside faults at any moment there are habits that uniform chance almost never has: to strike within an election, between
//! a vote and the first entry of its term; and to strike twice, before what was recovered is written to again.

use rand::RngExt;
use rand_pcg::Pcg64Mcg;

use super::{GROUP, LOAD_MS, NODES};
use crate::fault::{Fault, Isolate, Kill, MajorityPowerLoss, PowerLoss, SitePowerLoss, SlowNetwork};
use crate::plan::{Plan, Planned, Target, When};
use crate::seed::Seed;

/// Crash points of the log's writer.
const POINTS: [&str; 3] = ["log.before_write", "log.written", "log.synced"];
/// Most are back at once: recovery in the middle of an election is where mistakes are.
const LASTS_MS: [u64; 4] = [5, 50, 400, 3_000];

#[derive(Clone, Copy)]
enum Habit {
    Anything,
    InElections,
    Twice,
}

pub(super) fn draw(seed: Seed, faults: Option<usize>) -> Plan {
    let mut stream = seed.stream("plan");
    let few = stream.random_range(1..=6);
    let count = faults.unwrap_or(few);
    let habit = [Habit::Anything, Habit::InElections, Habit::InElections, Habit::Twice][stream.random_range(0..4)];
    let mut planned = Vec::new();
    while planned.len() < count {
        let at_ms = stream.random_range(1_000..LOAD_MS);
        match habit {
            Habit::Anything => planned.push(anything(&mut stream, at_ms)),
            Habit::InElections => planned.extend(in_an_election(&mut stream, at_ms)),
            Habit::Twice => planned.extend(twice(&mut stream, at_ms)),
        }
    }
    planned.truncate(count.max(2));
    if faults.is_none() && stream.random_bool(0.15) {
        let when = When::AtMs(stream.random_range(2_000..LOAD_MS));
        let lasts_ms = stream.random_range(10..1_000);
        planned.push(Planned { when, target: any_node(&mut stream), fault: Fault::SitePowerLoss(SitePowerLoss), lasts_ms });
    }
    Plan(planned)
}

fn one_of<T: Copy>(stream: &mut Pcg64Mcg, all: &[T]) -> T {
    all[stream.random_range(0..all.len())]
}

fn any_node(stream: &mut Pcg64Mcg) -> Target {
    Target::Machine(format!("n{}", stream.random_range(1..=NODES)))
}

fn anything(stream: &mut Pcg64Mcg, at_ms: u64) -> Planned {
    let target = if stream.random_bool(0.7) { Target::leader_of(GROUP) } else { any_node(stream) };
    let point = one_of(stream, &POINTS).to_owned();
    let (when, fault) = match stream.random_range(0..10) {
        0..=2 => (When::AtMs(at_ms), Fault::PowerLoss(PowerLoss)),
        3..=6 => {
            let hit = stream.random_range(1..40);
            (When::AtPoint { point, hit, after_ms: at_ms }, Fault::PowerLoss(PowerLoss))
        }
        7 => (When::AtMs(at_ms), Fault::Kill(Kill)),
        8 => (When::AtMs(at_ms), Fault::Isolate(Isolate)),
        _ => (When::AtMs(at_ms), Fault::SlowNetwork(SlowNetwork { latency_max_ms: 150 })),
    };
    Planned { when, target, fault, lasts_ms: one_of(stream, &LASTS_MS) }
}

/// The leader goes, and just after a vote for the next one another fault strikes whoever gave it, and some of the others.
fn in_an_election(stream: &mut Pcg64Mcg, at_ms: u64) -> [Planned; 2] {
    let leader_goes = Planned {
        when: When::AtMs(at_ms),
        target: Target::leader_of(GROUP),
        fault: if stream.random() { Fault::PowerLoss(PowerLoss) } else { Fault::Isolate(Isolate) },
        lasts_ms: one_of(stream, &[400, 600, 900]),
    };
    let when = When::AfterPoint {
        point: "raft.vote_saved".to_owned(),
        // The candidate's own vote, those of others, and the winner's that it saves once more.
        hit: stream.random_range(1..=4),
        after_ms: at_ms,
        delay_ms: one_of(stream, &[0, 1, 2, 5, 15]),
    };
    let fault = match stream.random_range(0..4) {
        0 => Fault::PowerLoss(PowerLoss),
        1 => Fault::SitePowerLoss(SitePowerLoss),
        _ => Fault::MajorityPowerLoss(MajorityPowerLoss),
    };
    let strikes = Planned { when, target: Target::Whoever, fault, lasts_ms: one_of(stream, &[5, 50, 400]) };
    [leader_goes, strikes]
}

/// A process is killed in the middle of a write, and when it writes again, its machine loses power.
fn twice(stream: &mut Pcg64Mcg, at_ms: u64) -> [Planned; 2] {
    let target = any_node(stream);
    let hit = stream.random_range(1..20);
    let killed = Planned {
        when: When::AtPoint { point: "log.written".to_owned(), hit, after_ms: at_ms },
        target: target.clone(),
        fault: Fault::Kill(Kill),
        lasts_ms: one_of(stream, &[5, 50]),
    };
    let point = one_of(stream, &POINTS[..2]).to_owned();
    let hit = hit + stream.random_range(1..=3);
    let strikes = Planned {
        when: When::AtPoint { point, hit, after_ms: at_ms },
        target,
        fault: Fault::PowerLoss(PowerLoss),
        lasts_ms: one_of(stream, &LASTS_MS),
    };
    [killed, strikes]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_the_faults_that_were_asked_for() {
        for seed in 0..50 {
            assert_eq!(draw(Seed(seed), Some(30)).0.len(), 30);
        }
    }
}
