//! The scenario that long sweeps are made of: three nodes, two edges, eight players who come and go, an operator.
//!
//! Swarm testing (Groce and others 2012): each seed enables few kinds of faults and few crash points, and so gets at states that a
//! mixture of everything never reaches. Every entry of the plan is drawn from a stream of its own, so one that is taken out changes no
//! other.

mod points;

use rand::RngExt;
use rand_pcg::Pcg64Mcg;

pub(super) use self::points::{BORDER_POINTS, CrashPoint, SLEEP_POINTS};
use self::points::{Met, POINTS};
use super::stack::{AWAY_MAX, DIRECTORY, LOAD_MS, ONE_REGION, REGION, SHARDS, Variation, Weather, region, run};
use super::{Expected, Scenario};
use crate::fault::{Befalls, Fault, FaultKind, FullDisk, Isolate, Kill, PassOn, Pause, PowerLoss};
use crate::plan::{Plan, Planned, Target, When};
use crate::point::Role;
use crate::seed::Seed;
use marchland_types::GroupId;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "standard",
    purpose: "the whole stack: three nodes, two edges, eight players, an operator; each seed its own few kinds of faults",
    draw,
    run: |seed, plan, outcome| run(seed, plan, outcome, &VARIATION),
    expects,
};

const EDGES: u32 = 2;
const VARIATION: Variation = Variation {
    edges: EDGES,
    players: 8,
    players_leave: true,
    players_wander: 0.3,
    players_rush: 0.3,
    players_away_max: AWAY_MAX,
    verified: true,
    borders_move: 0.0,
    lying_disks: false,
    one_goes_wrong: false,
    one_goes_for_good: 0.0,
    grid: ONE_REGION,
    weather: Weather::of,
};
/// Most faults of a seed, unless more are asked for.
const FAULTS_MAX: usize = 16;
/// Of the kinds of faults, and of the crash points, a seed enables about so many.
const ENABLED: f64 = 0.25;
/// How long faults last, in milliseconds: an instant, less than an election, an election, longer than the log remembers.
const LASTS_MS: [u64; 5] = [5, 50, 300, 1_500, 5_000];

/// Kinds that often come to nothing: the disk is not written to while it is full, or nobody can take over. Drawn so much more often.
const OFTEN_IN_VAIN: [&str; 2] = [FullDisk::NAME, PassOn::NAME];
const IN_VAIN_TIMES: usize = 3;

/// A fault strikes so long after a crash point, where it does not strike at it: while an acknowledgement is on its way, or a vote.
const DELAY_MAX_MS: u64 = 40;

fn expects() -> Vec<Expected> {
    let expected = |name: &str, after_seeds| Expected { name: name.to_owned(), after_seeds };
    let faults = Fault::KINDS.iter().map(|kind| expected(kind, 500));
    let points = POINTS.iter().map(|point| expected(point.name, 2_000));
    let roles = POINTS.iter().flat_map(|point| point.roles.iter().map(|role| format!("{} ({role})", point.name)));
    let roles = roles.map(|name| expected(&name, 10_000));
    let often = ["goodbyes", "resumed sessions", "resumed through another edge", "items gathered", "verified", "writes lost"];
    let owners = (1..=SHARDS).map(|n| expected(&format!("region owned by n{n}"), 50));
    faults.chain(points).chain(roles).chain(often.iter().map(|name| expected(name, 20))).chain(owners).collect()
}

/// What a seed enables.
struct Swarm {
    faults: Vec<&'static str>,
    points: Vec<CrashPoint>,
    /// How much of the plan has to do with crash points.
    points_share: f64,
    lasts_ms: Vec<u64>,
    count: usize,
    regions: u32,
}

impl Swarm {
    fn of(seed: Seed, ground: Ground) -> Self {
        let mut stream = seed.stream("swarm");
        // The smaller of two: few faults find more than many, and some seeds have none at all.
        let count = stream.random_range(0..=FAULTS_MAX).min(stream.random_range(0..=2 * FAULTS_MAX));
        let points = some_of(&mut stream, ground.points);
        let kinds = some_of(&mut stream, Fault::KINDS);
        let times = |kind: &&str| if OFTEN_IN_VAIN.contains(kind) { IN_VAIN_TIMES } else { 1 };
        Self {
            faults: kinds.iter().flat_map(|kind| std::iter::repeat_n(*kind, times(kind))).collect(),
            points: points.iter().flat_map(|point| std::iter::repeat_n(*point, point.weight)).collect(),
            points_share: [0.4, 0.6, 0.8, 1.0][stream.random_range(0..4)],
            lasts_ms: some_of(&mut stream, &LASTS_MS),
            count,
            regions: ground.regions,
        }
    }

    /// The entry of this number, and whom it needs to have been away before.
    fn entries(&self, seed: Seed, number: usize) -> Vec<Planned> {
        let mut stream = seed.stream(&format!("plan {number}"));
        let at_ms = stream.random_range(200..LOAD_MS - 800);
        let lasts_ms = one_of(&mut stream, &self.lasts_ms);
        if stream.random_bool(self.points_share) {
            let point = one_of(&mut stream, &self.points);
            let absence = point.met.needs_absence().then(|| absence(&mut stream, at_ms / 3, point.met));
            let struck = at_point(&mut stream, point, at_ms, lasts_ms, self.regions);
            return absence.into_iter().chain([struck]).collect();
        }
        let kind = one_of(&mut stream, &self.faults);
        let Some(fault) = Fault::draw(kind, &mut stream) else { return Vec::new() };
        let target = target(&mut stream, fault.befalls(), self.regions);
        vec![Planned { when: When::AtMs(at_ms), target, fault, lasts_ms }]
    }
}

/// A node that is away for so long that the others' logs no longer reach back to it, if they keep little.
fn absence(stream: &mut Pcg64Mcg, at_ms: u64, met: Met) -> Planned {
    let fault = [Fault::PowerLoss(PowerLoss), Fault::Kill(Kill), Fault::Isolate(Isolate)][stream.random_range(0..3)].clone();
    let target = Target::FollowerOf(REGION.0, stream.random_range(0..SHARDS - 1));
    let lasts_ms =
        if met == Met::AfterLongAbsence { stream.random_range(3_000..6_000) } else { stream.random_range(1_500..4_000) };
    Planned { when: When::AtMs(at_ms), target, fault, lasts_ms }
}

/// Something that happens at a crash point, or just after.
fn at_point(stream: &mut Pcg64Mcg, point: CrashPoint, at_ms: u64, lasts_ms: u64, regions: u32) -> Planned {
    let role = one_of(stream, point.roles);
    // A point that is met rarely is waited for from early on, and its first hits count; another may be met a hundred times a second.
    let (after_ms, magnitudes, whoever) = match point.met {
        Met::Often => (at_ms, 7, 0.0),
        Met::Rarely => (at_ms / 2, 3, 0.6),
        Met::AfterAbsence => (at_ms / 3, 2, 1.0),
        Met::AfterLongAbsence => (at_ms / 3, 1, 1.0),
    };
    let magnitude = stream.random_range(0..magnitudes);
    let hit = stream.random_range(1..=1_u32 << magnitude);
    let target = match role {
        _ if stream.random_bool(whoever) => Target::Whoever,
        Role::Owner => Target::leader_of(any_region(stream, regions)),
        Role::Follower => Target::FollowerOf(any_region(stream, regions).0, stream.random_range(0..SHARDS - 1)),
        Role::Edge | Role::Client => Target::Machine(format!("e{}", stream.random_range(1..=EDGES))),
    };
    let kind = [PowerLoss::NAME, PowerLoss::NAME, PowerLoss::NAME, Kill::NAME, Pause::NAME][stream.random_range(0..5)];
    let fault = Fault::draw(kind, stream).unwrap_or(Fault::PowerLoss(PowerLoss));
    let point = point.name.to_owned();
    let when = if stream.random_bool(0.15) {
        When::AfterPoint { point, hit, after_ms, delay_ms: stream.random_range(0..DELAY_MAX_MS) }
    } else {
        When::AtPoint { point, hit, after_ms }
    };
    Planned { when, target, fault, lasts_ms }
}

fn one_of<T: Copy>(stream: &mut Pcg64Mcg, all: &[T]) -> T {
    all[stream.random_range(0..all.len())]
}

/// Each with some chance, and at least one.
fn some_of<T: Copy>(stream: &mut Pcg64Mcg, all: &[T]) -> Vec<T> {
    let mut some: Vec<T> = all.iter().copied().filter(|_| stream.random_bool(ENABLED)).collect();
    if some.is_empty() {
        some.push(all[stream.random_range(0..all.len())]);
    }
    some
}

fn target(stream: &mut Pcg64Mcg, befalls: Befalls, regions: u32) -> Target {
    let edge = matches!(befalls, Befalls::Edge) || (matches!(befalls, Befalls::Any) && stream.random_bool(0.25));
    if edge {
        return Target::Machine(format!("e{}", stream.random_range(1..=EDGES)));
    }
    match stream.random_range(0..10) {
        0..=3 => Target::leader_of(any_region(stream, regions)),
        4 => Target::leader_of(DIRECTORY),
        5..=7 => Target::FollowerOf(any_region(stream, regions).0, stream.random_range(0..SHARDS - 1)),
        _ => Target::Machine(format!("n{}", stream.random_range(1..=SHARDS))),
    }
}

/// One of the world's regions. Where there is but one, nothing is drawn.
fn any_region(stream: &mut Pcg64Mcg, regions: u32) -> GroupId {
    region(if regions == 1 { 1 } else { stream.random_range(1..=regions) })
}

pub(super) fn draw(seed: Seed, faults: Option<usize>) -> Plan {
    draw_on(seed, faults, Ground { regions: 1, points: POINTS })
}

/// What faults may strike at.
#[derive(Clone, Copy)]
pub(super) struct Ground {
    /// Regions of the world.
    pub(super) regions: u32,
    /// Crash points.
    pub(super) points: &'static [CrashPoint],
}

/// The standard faults on a world of several regions.
pub(super) fn draw_on(seed: Seed, faults: Option<usize>, ground: Ground) -> Plan {
    let swarm = Swarm::of(seed, ground);
    Plan((0..).flat_map(|number| swarm.entries(seed, number)).take(faults.unwrap_or(swarm.count)).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn seeds_differ_in_kind_and_number_and_every_kind_and_point_is_drawn() {
        let plans: Vec<Plan> = (0..2_000).map(|seed| draw(Seed(seed), None)).collect();
        let counts: BTreeSet<usize> = plans.iter().map(|plan| plan.0.len()).collect();
        assert_eq!(counts, (0..=FAULTS_MAX).collect());
        let entries = || plans.iter().flat_map(|plan| &plan.0);
        let faults: BTreeSet<&str> =
            entries().filter(|p| matches!(p.when, When::AtMs(_))).map(|planned| planned.fault.name()).collect();
        assert_eq!(faults, Fault::KINDS.iter().copied().collect());
        let points: BTreeSet<&str> = entries()
            .filter_map(|planned| match &planned.when {
                When::AtPoint { point, .. } => Some(point.as_str()),
                When::AtMs(_) | When::AfterPoint { .. } => None,
            })
            .collect();
        assert_eq!(points, POINTS.iter().map(|point| point.name).collect());
    }

    #[test]
    fn a_longer_plan_begins_like_a_shorter_one() {
        let (few, many) = (draw(Seed(3), Some(4)), draw(Seed(3), Some(30)));
        assert_eq!((few.0.len(), many.0.len()), (4, 30));
        assert_eq!(few.0[..], many.0[..4]);
    }
}
