//! The whole cluster: three nodes that host replicas, an edge-only node, four players in the demo world.
//!
//! Everything is the released code. The players sign in, walk, gather, drop and pick up, while a scenario's plan happens. Then it is
//! quiet, all must be served again, and at a cut every replica must hold what any player was ever told.

mod node;
mod player;
mod seams;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use marchland_proto::cluster::InspectReply;
use marchland_types::{CommandSeq, GroupId, Incarnation, ItemId, LogIndex, NodeId, RegionId, ReplicaId};
use rand::RngExt;

use self::node::{Stage, WORLD};
use self::player::{EPOCHS_MAX, Notes, client_of, name_of};
use super::Outcome;
use crate::director::Director;
use crate::fact::{Fact, FinalState, tell};
use crate::oracle::Violation;
use crate::plan::Plan;
use crate::seed::Seed;
use crate::world::{NetworkOptions, World};

/// What a scenario on the whole cluster differs in.
pub(super) struct Variation {
    /// Draws the plan, given how long packets usually take at most.
    pub(super) draw: fn(Seed, u64) -> Plan,
    /// Disks say that they have synced, and have not.
    pub(super) lying_disks: bool,
}

/// The world's one region.
pub(super) const REGION: GroupId = GroupId::region(WORLD, RegionId(1));
/// The world's directory.
pub(super) const DIRECTORY: GroupId = GroupId::directory(WORLD);
/// Nodes that host replicas: machines `n1` to `n3`.
pub(super) const SHARDS: u32 = 3;
const PLAYERS: u64 = 4;
/// Until then everyone must be in the world.
const JOIN_WITHIN_MS: u64 = 15_000;
/// How long a plan has.
pub(super) const LOAD_MS: u64 = 9_000;
const QUIET_MS: u64 = 5_000;
/// Until then the last commands are answered, and every replica has told what it holds.
const CONCLUDE_WITHIN_MS: u64 = 6_000;

/// Runs a scenario.
pub(super) fn run(seed: Seed, outcome: &mut Outcome, variation: &Variation) -> Result<(), Violation> {
    let latency_max_ms = [2, 5, 25][seed.stream("network").random_range(0..3)];
    let network = NetworkOptions { latency_min: Duration::from_millis(1), latency_max: Duration::from_millis(latency_max_ms) };
    let mut world = World::new(seed, network);
    if variation.lying_disks {
        world.plant_lying_disks();
    }
    let world_seed = seed.number("world");
    let stage: Rc<Stage> = Rc::default();
    for number in 1..=SHARDS {
        let stage = stage.clone();
        world.add(&format!("n{number}"), move |boot| node::run_shard(number, boot, world_seed, stage.clone()));
    }
    world.add("edge", move |boot| node::run_edge(boot, world_seed));
    let notes: Vec<Rc<Notes>> = (0..PLAYERS).map(|_| Rc::default()).collect();
    for (person, notes) in (1..).zip(&notes) {
        let (notes, random) = (notes.clone(), seed.stream(&format!("player {person}")));
        world.add(&format!("p{person}"), move |boot| player::play(person, boot, notes.clone(), random.clone()));
    }
    let mut fired = BTreeMap::new();
    let plan = (variation.draw)(seed, latency_max_ms);
    let result = drive(&mut world, plan, &stage, &notes, &mut fired);
    outcome.simulated_ms = world.elapsed().as_millis() as u64;
    outcome.fired = fired;
    let blackout = notes.iter().map(|n| n.blackout.get()).max().unwrap_or_default();
    for (what, times) in [
        ("frames", notes.iter().map(|n| n.frames.get()).sum()),
        ("sign-ins", notes.iter().map(|n| n.sign_ins.get()).sum()),
        ("resumed sessions", notes.iter().map(|n| n.resumed.get()).sum()),
        ("items gathered", notes.iter().map(|n| n.items.get()).sum()),
        ("blackouts over 1 s", u64::from(blackout > Duration::from_secs(1))),
        ("blackouts over 2 s", u64::from(blackout > Duration::from_secs(2))),
    ] {
        outcome.sometimes.insert(what.to_owned(), times);
    }
    std::mem::forget(world);
    result
}

fn drive(
    world: &mut World,
    plan: Plan,
    stage: &Stage,
    notes: &[Rc<Notes>],
    fired: &mut BTreeMap<String, u64>,
) -> Result<(), Violation> {
    let mut waiting = Director::new(world, Plan::default());
    let all_in = || notes.iter().all(|n| n.frames.get() > 0);
    until(&mut waiting, world, JOIN_WITHIN_MS, all_in).map_err(|v| {
        v.unwrap_or_else(|| {
            let out = notes.iter().filter(|n| n.frames.get() == 0).count();
            Violation::new("served-at-start", format!("{out} players are not in the world after {JOIN_WITHIN_MS} ms"))
        })
    })?;

    let mut director = Director::new(world, plan);
    let loaded = director.run(world, LOAD_MS);
    fired.clone_from(director.fired());
    loaded?;
    director.calm(world);
    let before: Vec<u64> = notes.iter().map(|n| n.frames.get()).collect();
    director.run(world, LOAD_MS + QUIET_MS)?;

    for (notes, before) in notes.iter().zip(before) {
        let Some(client) = notes.client.get() else { continue };
        tell(&Fact::Served { client, times: notes.frames.get() - before });
        notes.rests.set(true);
    }
    let answered = || notes.iter().all(|n| n.unacked.get() == 0);
    let mut waiting = Director::new(world, Plan::default());
    until(&mut waiting, world, CONCLUDE_WITHIN_MS, answered).map_err(|v| {
        v.unwrap_or_else(|| {
            let unacked: Vec<usize> = notes.iter().map(|n| n.unacked.get()).collect();
            Violation::new("commands-answered", format!("{unacked:?} commands wait although it has long been quiet"))
        })
    })?;
    stage.cut_wanted.set(true);
    let told = || stage.finals.borrow().len() == SHARDS as usize;
    let mut waiting = Director::new(world, Plan::default());
    until(&mut waiting, world, CONCLUDE_WITHIN_MS, told).map_err(|v| {
        v.unwrap_or_else(|| {
            let have: Vec<u32> = stage.finals.borrow().keys().copied().collect();
            Violation::new("replicas-agree", format!("only nodes {have:?} reached the cut {:?}", stage.cut.get()))
        })
    })?;
    for (node, held) in stage.finals.borrow().iter() {
        tell(&Fact::Final(final_state(*node, held)));
    }
    Ok(())
}

/// Runs until something holds. `Err(None)` if it does not in time.
fn until(director: &mut Director, world: &mut World, within_ms: u64, holds: impl Fn() -> bool) -> Result<(), Option<Violation>> {
    while !holds() {
        let now_ms = director.elapsed_ms(world);
        if now_ms >= within_ms {
            return Err(None);
        }
        director.run(world, now_ms + 10).map_err(Some)?;
    }
    Ok(())
}

fn final_state(node: u32, held: &InspectReply) -> FinalState {
    let mut state = FinalState {
        group: REGION,
        replica: ReplicaId::new(NodeId(node), Incarnation(1)),
        applied: LogIndex(held.index),
        hash: held.state_hash,
        items: held.items.iter().map(|item| ItemId(*item)).collect(),
        items_expected: Some(held.items_minted - held.items_destroyed),
        ..FinalState::default()
    };
    for session in &held.sessions {
        let Some(person) = (1..=PLAYERS).find(|person| name_of(*person) == session.name) else { continue };
        let client = client_of(person, session.epoch);
        state.applied_up_to.insert(client, CommandSeq(session.applied_seq));
        state.sessions.insert(client);
        // Sessions that a newer one replaced are gone with their counters; what they gave is still there as items.
        for epoch in 0..session.epoch.min(EPOCHS_MAX) {
            state.applied_up_to.insert(client_of(person, epoch), CommandSeq(u64::MAX));
        }
    }
    state
}
