//! The whole cluster: nodes that host replicas, edge-only nodes, players in the demo world, and an operator who verifies it.
//!
//! Everything is the released code. The players sign in, walk, gather, drop and pick up, while a scenario's plan happens. Then it is
//! quiet, all must be served again, and at a cut every replica must hold what any player was ever told. Scenarios on the whole cluster
//! differ in their [`Variation`] and in how they draw a plan.

mod demo;
mod drive;
mod for_good;
mod node;
mod operator;
mod player;
mod registers;
mod seams;
mod weather;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use marchland_server::config::GridConfig;
use marchland_types::{GroupId, RegionId};
use rand::RngExt;

use self::demo::Demo;
use self::node::{Stage, WORLD};
use self::player::Notes;
use super::Outcome;
use crate::oracle::Violation;
use crate::plan::Plan;
use crate::seed::Seed;
use crate::studio::Studio;
use crate::trace;
use crate::world::{NetworkOptions, World};

pub(super) use self::weather::Weather;

/// What a scenario on the whole cluster differs in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variation {
    /// Edge-only nodes: machines `e1`, `e2`, …
    pub(super) edges: u32,
    /// Players: machines `p1`, `p2`, …
    pub(super) players: u64,
    /// Players also leave the world, and sign in again.
    pub(super) players_leave: bool,
    /// In this share of the seeds, players go from edge to edge without need, and in haste.
    pub(super) players_wander: f64,
    /// In this share of the seeds, players leave and sign in again all the time.
    pub(super) players_rush: f64,
    /// Who left stays out of the world for less than this.
    pub(super) players_away_max: Duration,
    /// An operator verifies the world now and then: machine `admin`.
    pub(super) verified: bool,
    /// In this share of the seeds, an operator moves the borders between the regions now and then: machine `admin`. Of four regions, where
    /// nobody verifies.
    pub(super) borders_move: f64,
    /// Disks say that they have synced, and have not.
    pub(super) lying_disks: bool,
    /// At some moment a replica's state becomes another than that of the others. They need not be equal then, but at the end.
    pub(super) one_goes_wrong: bool,
    /// In this share of the seeds, a node goes for good while everybody is out and everything rests.
    pub(super) one_goes_for_good: f64,
    /// How many regions its ground is cut into.
    pub(super) grid: GridConfig,
    /// What else the world is made of.
    pub(super) weather: fn(Seed) -> Weather,
}

impl Variation {
    /// One edge, four players who stay.
    pub(super) const SMALL: Self = Self {
        edges: 1,
        players: 4,
        players_leave: false,
        players_wander: 0.0,
        players_rush: 0.0,
        players_away_max: AWAY_MAX,
        verified: false,
        borders_move: 0.0,
        lying_disks: false,
        one_goes_wrong: false,
        one_goes_for_good: 0.0,
        grid: ONE_REGION,
        weather: Weather::of_network,
    };
}

/// How long players usually stay out of the world, at most.
pub(super) const AWAY_MAX: Duration = Duration::from_millis(1_500);
/// A world of one region.
pub(super) const ONE_REGION: GridConfig = GridConfig { columns: 1, rows: 1 };
/// The world's one region, or the first of several.
pub(super) const REGION: GroupId = region(1);
/// The world's directory.
pub(super) const DIRECTORY: GroupId = GroupId::directory(WORLD);
/// Nodes that host replicas: machines `n1` to `n3`.
pub(super) const SHARDS: u32 = 3;
/// How long a plan has, from the moment at which everyone is in the world.
pub(super) const LOAD_MS: u64 = 9_000;

/// The region of this number, from 1.
pub(super) const fn region(number: u32) -> GroupId {
    GroupId::region(WORLD, RegionId(number))
}

/// Runs a scenario on the demo world.
pub(super) fn run(seed: Seed, plan: Plan, outcome: &mut Outcome, variation: &Variation) -> Result<(), Violation> {
    run_game::<Demo>(seed, plan, outcome, variation)
}

/// Runs a scenario on a world of a game.
pub(super) fn run_game<S: Studio>(seed: Seed, plan: Plan, outcome: &mut Outcome, variation: &Variation) -> Result<(), Violation> {
    let weather = (variation.weather)(seed);
    trace::world("weather", weather);
    trace::world("machines", format_args!("{SHARDS} nodes, {} edges, {} players", variation.edges, variation.players));
    let latency_max = Duration::from_millis(weather.latency_max_ms);
    let mut world = World::new(seed, NetworkOptions { latency_min: Duration::from_millis(1), latency_max });
    if variation.lying_disks {
        world.plant_lying_disks();
    }
    let world_seed = seed.number("world");
    let grid = variation.grid;
    let stage: Rc<Stage> = Rc::default();
    stage.may_be_odd.set(variation.one_goes_wrong);
    for number in 1..=SHARDS {
        let stage = stage.clone();
        world.add(&format!("n{number}"), move |boot| {
            node::run_shard::<S>(boot, node::Plot { number, seed: world_seed, weather, grid }, stage.clone())
        });
    }
    for number in 1..=variation.edges {
        world.add(&format!("e{number}"), move |boot| {
            node::run_edge::<S>(boot, node::Plot { number, seed: world_seed, weather, grid })
        });
    }
    let notes: Vec<Rc<Notes>> = (0..variation.players).map(|_| Rc::default()).collect();
    let rushes = seed.stream("rush").random_bool(variation.players_rush);
    let wanders = seed.stream("wandering").random_bool(variation.players_wander);
    for (person, notes) in (1..).zip(&notes) {
        let (notes, random) = (notes.clone(), seed.stream(&format!("player {person}")));
        let habits = player::Habits {
            edges: variation.edges,
            leaves: variation.players_leave,
            away_max: variation.players_away_max,
            rushes,
            wanders,
        };
        world.add(&format!("p{person}"), move |boot| player::play::<S>(person, boot, notes.clone(), random.clone(), habits));
    }
    if variation.verified {
        let (stage, random) = (stage.clone(), seed.stream("operator"));
        world.add("admin", move |boot| operator::verify_now_and_then(boot, stage.clone(), random.clone()));
    }
    if seed.stream("surveyor").random_bool(variation.borders_move) {
        let (stage, random) = (stage.clone(), seed.stream("survey"));
        world.add("admin", move |boot| operator::move_borders_now_and_then(boot, stage.clone(), random.clone()));
    }
    for name in world.site() {
        let disk = world.hardware(&name).disk;
        trace::world(&format!("disk of {name}"), format_args!("a sync takes {} us", disk.latency().as_micros()));
    }
    let mut fired = BTreeMap::new();
    let wrong = variation.one_goes_wrong.then(|| drive::GoesWrong::draw(seed));
    let for_good = for_good::draw(seed, variation.one_goes_for_good);
    let result = drive::drive(&mut world, plan, &stage, &notes, drive::Turns { wrong, for_good }, &mut fired);
    outcome.simulated_ms = world.elapsed().as_millis() as u64;
    outcome.fired = fired;
    tell_what_happened(&world, &stage, &notes, outcome);
    // Taking it all down in order is work, and nothing in it is under test.
    std::mem::forget(world);
    result
}

fn tell_what_happened(world: &World, stage: &Stage, notes: &[Rc<Notes>], outcome: &mut Outcome) {
    let sum = |of: fn(&Notes) -> u64| notes.iter().map(|n| of(n)).sum::<u64>();
    let blackout = notes.iter().map(|n| n.blackout.get()).max().unwrap_or_default();
    for (what, times) in [
        ("frames", sum(|n| n.frames.get())),
        ("sign-ins", sum(|n| n.sign_ins.get())),
        ("goodbyes", sum(|n| n.goodbyes.get())),
        ("resumed sessions", sum(|n| n.resumed.get())),
        ("resumed through another edge", sum(|n| n.moved.get())),
        ("items gathered", sum(|n| n.items.get())),
        ("borders crossed", sum(|n| n.crossed.get())),
        ("blackouts over 1 s", u64::from(blackout > Duration::from_secs(1))),
        ("blackouts over 2 s", u64::from(blackout > Duration::from_secs(2))),
        ("regions that fell asleep", stage.slept.get()),
        ("regions that woke", stage.woke.get()),
        ("folders that were replaced", stage.replaced.get()),
        ("nodes that went for good", stage.gone.get()),
        ("borders moved", stage.moved.get()),
        ("borders could not be moved", stage.unmoved.get()),
        ("verified", stage.verified.get()),
        ("could not be verified", stage.unverified.get()),
    ] {
        *outcome.sometimes.entry(what.to_owned()).or_default() += times;
    }
    for (what, times) in stage.odd.borrow().iter() {
        *outcome.sometimes.entry((*what).to_owned()).or_default() += times;
    }
    for node in stage.realm_leaders.borrow().iter() {
        outcome.sometimes.insert(format!("realm led by n{node}"), 1);
    }
    for node in stage.owners.borrow().iter() {
        outcome.sometimes.insert(format!("region owned by n{node}"), 1);
    }
    for name in world.site() {
        let disk = world.hardware(&name).disk.counters();
        *outcome.sometimes.entry("writes lost".to_owned()).or_default() += disk.lost_writes;
        *outcome.sometimes.entry("writes torn".to_owned()).or_default() += disk.torn_writes;
    }
}
