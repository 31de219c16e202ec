//! The owner of the region loses its power, at any moment or at the worst statement of the way of a tick; in some seeds also the
//! leader of the directory, or the owner that came after.

use rand::RngExt;

use super::stack::{DIRECTORY, LOAD_MS, REGION, Variation, run};
use super::{Scenario, nothing};
use crate::fault::{Fault, PowerLoss};
use crate::plan::{Plan, Planned, Target, When};
use crate::seed::Seed;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "owner-loses-power",
    purpose: "the whole stack: three nodes, an edge, four players; the region's owner loses power",
    draw,
    run: |seed, plan, outcome| run(seed, plan, outcome, &Variation::SMALL),
    expects: nothing,
};

/// The same on disks that say that they have synced, and have not: the invariants must notice.
pub(super) const ON_LYING_DISKS: Scenario = Scenario {
    name: "owner-loses-power-lying-disks",
    purpose: "instrument: the whole stack on disks that never sync; some seed must notice",
    draw,
    run: |seed, plan, outcome| run(seed, plan, outcome, &Variation { lying_disks: true, ..Variation::SMALL }),
    expects: nothing,
};

/// Crash points of the way of a tick.
const POINTS: [&str; 9] = [
    "region.tick_built",
    "raft.append_submitted",
    "log.before_write",
    "log.written",
    "log.synced",
    "raft.applied",
    "region.applied",
    "region.before_publish",
    "region.published",
];

fn draw(seed: Seed, faults: Option<usize>) -> Plan {
    let mut stream = seed.stream("plan");
    let mut planned = Vec::new();
    let few = stream.random_range(1..=3);
    for loss in 0..faults.unwrap_or(few) {
        let group = if loss == 0 || stream.random() { REGION } else { DIRECTORY };
        let at_ms = stream.random_range(500..LOAD_MS - 1_500);
        let when = if stream.random_bool(0.6) {
            let point = POINTS[stream.random_range(0..POINTS.len())].to_owned();
            When::AtPoint { point, hit: stream.random_range(1..20), after_ms: at_ms }
        } else {
            When::AtMs(at_ms)
        };
        let lasts_ms = [20, 300, 1_500, 5_000][stream.random_range(0..4)];
        planned.push(Planned { when, target: Target::leader_of(group), fault: Fault::PowerLoss(PowerLoss), lasts_ms });
    }
    Plan(planned)
}
