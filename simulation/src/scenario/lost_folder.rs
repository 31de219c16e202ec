//! A node loses its data folder and comes back as somebody else, while others stumble: it asks for an incarnation, which the realm issues
//! and the directory records, and takes its place in every group again.

use rand::RngExt;

use super::stack::{LOAD_MS, SHARDS, Variation, run};
use super::{Expected, Scenario};
use crate::fault::{Fault, FaultKind, FolderLoss, Isolate, Kill, Pause, PowerLoss};
use crate::plan::{Plan, Planned, Target, When};
use crate::seed::Seed;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "lost-folder",
    purpose: "the whole stack: a node loses its data folder, and others may lose power, stand still or be cut off",
    draw,
    run: |seed, plan, outcome| run(seed, plan, outcome, &Variation { players_leave: true, verified: true, ..Variation::SMALL }),
    expects,
};

/// From its beginning on there is time for the new folder to take its place.
const LOST_BEFORE_MS: u64 = LOAD_MS - 3_000;

fn expects() -> Vec<Expected> {
    let expected = |name: &str, after_seeds| Expected { name: name.to_owned(), after_seeds };
    vec![
        expected(FolderLoss::NAME, 5),
        expected("folders that were replaced", 10),
        expected("realm led by n1", 50),
        expected("realm led by n2", 50),
        expected("realm led by n3", 50),
        expected(Kill::NAME, 50),
        expected(PowerLoss::NAME, 50),
    ]
}

fn draw(seed: Seed, faults: Option<usize>) -> Plan {
    let mut stream = seed.stream("lost folder");
    let any_node = |stream: &mut rand_pcg::Pcg64Mcg| Target::Machine(format!("n{}", stream.random_range(1..=SHARDS)));
    let loss = Planned {
        when: When::AtMs(stream.random_range(300..LOST_BEFORE_MS)),
        target: any_node(&mut stream),
        fault: Fault::FolderLoss(FolderLoss),
        lasts_ms: [20, 300, 1_500][stream.random_range(0..3)],
    };
    let few = stream.random_range(0..=3_usize);
    let mut stumble = |number: usize| {
        let mut stream = seed.stream(&format!("plan {number}"));
        let kinds = [Fault::Kill(Kill), Fault::PowerLoss(PowerLoss), Fault::Isolate(Isolate), Fault::Pause(Pause)];
        Planned {
            when: When::AtMs(stream.random_range(200..LOAD_MS - 1_000)),
            target: any_node(&mut stream),
            fault: kinds[stream.random_range(0..kinds.len())].clone(),
            lasts_ms: [20, 300, 1_500][stream.random_range(0..3)],
        }
    };
    Plan(std::iter::once(loss).chain((0..faults.unwrap_or(few)).map(&mut stumble)).collect())
}
