//! Raft and its log alone: three nodes, one group that counts, and whoever leads writes to it.
//!
//! Small and fast, so it gets many seeds: power losses of leaders at any moment and at the crash points of the log, kills and
//! isolations, on slow and fast disks, with checkpoints so frequent that replicas are often restored from a peer's snapshot.

mod machine;
mod node;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use marchland_types::{GroupId, GroupKind, WorldId};
use rand::RngExt;

use self::machine::Counter;
use super::{Outcome, Scenario};
use crate::director::Director;
use crate::fact::{Fact, tell};
use crate::fault::{Fault, Isolate, Kill, PowerLoss, SlowNetwork};
use crate::oracle::Violation;
use crate::plan::{Plan, Planned, Target, When};
use crate::seed::Seed;
use crate::world::{NetworkOptions, World};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "counter",
    purpose: "raft and its log: three replicas of a counter under power losses, kills and isolations",
    run: |seed, outcome| run(seed, outcome, false),
    instrument: false,
};

/// The same on disks that say that they have synced, and have not: the invariants must notice.
pub(super) const ON_LYING_DISKS: Scenario = Scenario {
    name: "counter-lying-disks",
    purpose: "instrument: the counter on disks that never sync; some seed must find lost acknowledgements",
    run: |seed, outcome| run(seed, outcome, true),
    instrument: true,
};

const NODES: u32 = 3;
const GROUP: GroupId = GroupId::new(GroupKind::Bench, WorldId(1), 1);
const LOAD_MS: u64 = 12_000;
const QUIET_MS: u64 = 6_000;

/// The counter of each node's newest boot.
type Counters = Rc<RefCell<BTreeMap<u32, Arc<Counter>>>>;

fn run(seed: Seed, outcome: &mut Outcome, lying_disks: bool) -> Result<(), Violation> {
    let latency_max_ms = [3, 20, 60][seed.stream("network").random_range(0..3)];
    let network = NetworkOptions { latency_min: Duration::from_millis(1), latency_max: Duration::from_millis(latency_max_ms) };
    let mut world = World::new(seed, network);
    if lying_disks {
        world.plant_lying_disks();
    }
    let counters = Counters::default();
    for node in 1..=NODES {
        let counters = counters.clone();
        world.add(&format!("n{node}"), move |boot| node::run(node, boot, counters.clone()));
    }
    let mut director = Director::new(&world, draw(seed));
    let result = drive(&mut world, &mut director, &counters);
    outcome.simulated_ms = world.elapsed().as_millis() as u64;
    outcome.fired = director.fired().clone();
    let commands = counters.borrow().values().map(|c| c.commands()).max().unwrap_or_default();
    outcome.sometimes.insert("commands".to_owned(), commands);
    outcome.sometimes.insert("snapshots installed".to_owned(), counters.borrow().values().map(|c| c.installed()).sum());
    for name in world.names() {
        let disk = world.hardware(&name).disk.counters();
        *outcome.sometimes.entry("writes lost".to_owned()).or_default() += disk.lost_writes;
        *outcome.sometimes.entry("writes torn".to_owned()).or_default() += disk.torn_writes;
    }
    std::mem::forget(world);
    result
}

fn drive(world: &mut World, director: &mut Director, counters: &Counters) -> Result<(), Violation> {
    director.run(world, LOAD_MS)?;
    director.calm(world);
    let before: u64 = counters.borrow().values().map(|c| c.commands()).max().unwrap_or_default();
    director.run(world, LOAD_MS + QUIET_MS)?;
    node::stop_writing(true);
    director.run(world, LOAD_MS + QUIET_MS + 1_500)?;
    node::stop_writing(false);
    let counters = counters.borrow();
    let after = counters.values().map(|c| c.commands()).max().unwrap_or_default();
    if after <= before {
        return Err(Violation::new("served-at-end", format!("nothing was committed in {QUIET_MS} ms without faults")));
    }
    for counter in counters.values() {
        tell(&Fact::Final(counter.final_state()));
    }
    Ok(())
}

/// Each seed has its own mixture, and few faults at a time: what overlaps everything finds nothing.
fn draw(seed: Seed) -> Plan {
    let mut stream = seed.stream("plan");
    let count = stream.random_range(1..=6);
    let mut planned = Vec::new();
    for _ in 0..count {
        let at_ms = stream.random_range(1_000..LOAD_MS);
        let target = if stream.random_bool(0.7) {
            Target::leader_of(GROUP)
        } else {
            Target::Machine(format!("n{}", stream.random_range(1..=NODES)))
        };
        let point = ["log.before_write", "log.written", "log.synced"][stream.random_range(0..3)];
        let (when, fault) = match stream.random_range(0..10) {
            0..=2 => (When::AtMs(at_ms), Fault::PowerLoss(PowerLoss)),
            3..=6 => {
                let hit = stream.random_range(1..40);
                (When::AtPoint { point: point.to_owned(), hit, after_ms: at_ms }, Fault::PowerLoss(PowerLoss))
            }
            7 => (When::AtMs(at_ms), Fault::Kill(Kill)),
            8 => (When::AtMs(at_ms), Fault::Isolate(Isolate)),
            _ => (When::AtMs(at_ms), Fault::SlowNetwork(SlowNetwork { latency_max_ms: 150 })),
        };
        // Most are back at once: recovery in the middle of an election is where mistakes are.
        let lasts_ms = [5, 50, 400, 3_000][stream.random_range(0..4)];
        planned.push(Planned { when, target, fault, lasts_ms });
    }
    if stream.random_bool(0.15) {
        // The whole site.
        let at_ms = stream.random_range(2_000..LOAD_MS);
        planned.extend((1..=NODES).map(|node| Planned {
            when: When::AtMs(at_ms),
            target: Target::Machine(format!("n{node}")),
            fault: Fault::PowerLoss(PowerLoss),
            lasts_ms: stream.random_range(10..1_000),
        }));
    }
    Plan(planned)
}
