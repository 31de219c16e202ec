//! Raft and its log alone: three nodes, one group that counts, and whoever leads writes to it.
//!
//! Small and fast, so it gets many seeds: power losses of leaders at any moment and at the crash points of the log, kills and
//! isolations, on slow and fast disks, with checkpoints so frequent that replicas are often restored from a peer's snapshot; and nodes whose store is lost while the log
//! is whole.

mod draw;
mod machine;
mod node;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use marchland_types::{GroupId, GroupKind, WorldId};
use rand::RngExt;

use self::draw::draw;
use self::machine::Counter;
use super::{Outcome, Scenario, nothing};
use crate::director::Director;
use crate::fact::{Fact, tell};
use crate::oracle::Violation;
use crate::plan::Plan;
use crate::seed::Seed;
use crate::world::{NetworkOptions, World};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "counter",
    purpose: "raft and its log: three replicas of a counter under power losses, kills and isolations",
    draw,
    run: |seed, plan, outcome| run(seed, plan, outcome, false),
    expects: nothing,
};

/// The same on disks that say that they have synced, and have not: the invariants must notice.
pub(super) const ON_LYING_DISKS: Scenario = Scenario {
    name: "counter-lying-disks",
    purpose: "instrument: the counter on disks that never sync; some seed must find lost acknowledgements",
    draw,
    run: |seed, plan, outcome| run(seed, plan, outcome, true),
    expects: nothing,
};

const NODES: u32 = 3;
const GROUP: GroupId = GroupId::new(GroupKind::Bench, WorldId(1), 1);
const LOAD_MS: u64 = 12_000;
const QUIET_MS: u64 = 6_000;

/// The counter of each node's newest boot.
type Counters = Rc<RefCell<BTreeMap<u32, Arc<Counter>>>>;

fn latency_max_ms(seed: Seed) -> u64 {
    [3, 20, 60][seed.stream("network").random_range(0..3)]
}

fn run(seed: Seed, plan: Plan, outcome: &mut Outcome, lying_disks: bool) -> Result<(), Violation> {
    let latency_max_ms = latency_max_ms(seed);
    let network = NetworkOptions { latency_min: Duration::from_millis(1), latency_max: Duration::from_millis(latency_max_ms) };
    let mut world = World::new(seed, network);
    if lying_disks {
        world.plant_lying_disks();
    }
    let counters = Counters::default();
    // At most one node of a seed: what a majority has lost can not be had back.
    let loser = seed.stream("store").random_range(1..=3 * NODES);
    for node in 1..=NODES {
        let counters = counters.clone();
        world.add(&format!("n{node}"), move |boot| node::run(node, boot, counters.clone(), node == loser));
    }
    let mut director = Director::new(&world, plan);
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
    let quiet_ms = director.calm(world)?;
    let before: u64 = counters.borrow().values().map(|c| c.commands()).max().unwrap_or_default();
    director.run(world, quiet_ms + QUIET_MS)?;
    node::stop_writing(true);
    director.run(world, quiet_ms + QUIET_MS + 1_500)?;
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
