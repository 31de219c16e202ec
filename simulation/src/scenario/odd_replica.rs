//! One replica's state becomes another than that of the majority, the owner's or a follower's: it yields, is rebuilt, and in the end all agree.
//! In some seeds a node loses power as well, before or after.

use rand::RngExt;

use super::stack::{LOAD_MS, SHARDS, Variation, run};
use super::{Expected, Scenario};
use crate::fault::{Fault, PowerLoss};
use crate::plan::{Plan, Planned, Target, When};
use crate::seed::Seed;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "odd-replica",
    purpose: "the whole stack: a replica's state goes wrong, and a node may lose power",
    draw,
    run: |seed, plan, outcome| run(seed, plan, outcome, &Variation { one_goes_wrong: true, ..Variation::SMALL }),
    expects,
};

fn expects() -> Vec<Expected> {
    ["owner's state went wrong", "follower's state went wrong", "odd state noticed"]
        .map(|name| Expected { name: name.to_owned(), after_seeds: 20 })
        .into()
}

fn draw(seed: Seed, faults: Option<usize>) -> Plan {
    let mut stream = seed.stream("plan");
    let few = stream.random_range(0..=2_usize).min(1);
    let loss = |_| Planned {
        when: When::AtMs(stream.random_range(500..LOAD_MS - 1_500)),
        target: Target::Machine(format!("n{}", stream.random_range(1..=SHARDS))),
        fault: Fault::PowerLoss(PowerLoss),
        lasts_ms: [20, 300, 1_500][stream.random_range(0..3)],
    };
    Plan((0..faults.unwrap_or(few)).map(loss).collect())
}
