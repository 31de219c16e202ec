//! Everything that can happen to machines and network, to any of them, a few at a time: power losses, kills, isolations, clocks that
//! jump, packets that crawl. The edge is spared nothing.

use rand::RngExt;
use rand_pcg::Pcg64Mcg;

use super::stack::{DIRECTORY, LOAD_MS, REGION, SHARDS, Variation, run};
use super::{Scenario, nothing};
use crate::fault::{ClockJump, Fault, Isolate, Kill, PowerLoss, SlowNetwork};
use crate::plan::{Plan, Planned, Target, When};
use crate::seed::Seed;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "rough-weather",
    purpose: "the whole stack: any few faults on nodes, edge and network",
    draw,
    run: |seed, plan, outcome| run(seed, plan, outcome, &Variation::SMALL),
    expects: nothing,
};

fn draw(seed: Seed, faults: Option<usize>) -> Plan {
    let mut stream = seed.stream("plan");
    let few = stream.random_range(1..=4);
    Plan((0..faults.unwrap_or(few)).map(|_| one(&mut stream)).collect())
}

fn one(stream: &mut Pcg64Mcg) -> Planned {
    let target = match stream.random_range(0..10) {
        0..=3 => Target::leader_of(REGION),
        4 => Target::leader_of(DIRECTORY),
        5..=7 => Target::Machine(format!("n{}", stream.random_range(1..=SHARDS))),
        _ => Target::Machine("e1".to_owned()),
    };
    let fault = match stream.random_range(0..8) {
        0 | 1 => Fault::PowerLoss(PowerLoss),
        2 | 3 => Fault::Kill(Kill),
        4 | 5 => Fault::Isolate(Isolate),
        6 => Fault::ClockJump(ClockJump { by_ms: [-3_600_000, -5_000, 5_000, 3_600_000][stream.random_range(0..4)] }),
        _ => Fault::SlowNetwork(SlowNetwork { latency_max_ms: 120 }),
    };
    let when = When::AtMs(stream.random_range(300..LOAD_MS - 1_000));
    Planned { when, target, fault, lasts_ms: [20, 300, 1_500, 5_000][stream.random_range(0..4)] }
}
