//! Makes a plan happen: begins faults when they are due, ends them when their time is over, and counts what took effect.

use std::collections::BTreeMap;

use marchland_types::GroupId;

use crate::fault::{Begun, End};
use crate::machine::{MachineName, Phase};
use crate::oracle::{self, Violation};
use crate::plan::{Plan, Planned, Target, When};
use crate::point::{self, Armed};
use crate::trace_line;
use crate::world::World;

struct Under {
    until_ms: u64,
    name: String,
    /// Whether it is counted already.
    counted: bool,
    end: End,
}

struct Waiting {
    planned: Planned,
    target: MachineName,
}

/// Makes one plan happen.
pub struct Director {
    /// The load began at this time of the world.
    zero_ms: u64,
    pending: Vec<Planned>,
    /// Crash points that are armed and were not met yet.
    waiting: Vec<Waiting>,
    under_way: Vec<Under>,
    fired: BTreeMap<String, u64>,
}

impl Director {
    /// A director whose plan's times count from now.
    #[must_use]
    pub fn new(world: &World, plan: Plan) -> Self {
        for planned in &plan.0 {
            trace_line!("PLAN {planned}");
        }
        let zero_ms = world.elapsed().as_millis() as u64;
        Self { zero_ms, pending: plan.0, waiting: Vec::new(), under_way: Vec::new(), fired: BTreeMap::new() }
    }

    /// Milliseconds since the load began.
    #[must_use]
    pub fn elapsed_ms(&self, world: &World) -> u64 {
        world.elapsed().as_millis() as u64 - self.zero_ms
    }

    /// Steps the world until `until_ms` of the load, with the plan's faults, or until an invariant is violated.
    pub fn run(&mut self, world: &mut World, until_ms: u64) -> Result<(), Violation> {
        while self.elapsed_ms(world) < until_ms {
            self.turn(world);
            world.step()?;
            if let Some(violation) = oracle::violation() {
                return Err(violation);
            }
        }
        Ok(())
    }

    /// Ends every fault and boots whatever is down: the quiet phase begins.
    pub fn calm(&mut self, world: &mut World) {
        trace_line!("QUIET");
        point::disarm();
        self.pending.clear();
        self.waiting.clear();
        for under in std::mem::take(&mut self.under_way) {
            self.end(world, under);
        }
        for name in world.names() {
            if matches!(world.phase(&name), Phase::Ghost { .. } | Phase::Down { .. } | Phase::Exited(_)) {
                world.start(&name);
            }
        }
    }

    /// What took effect, by name of the fault or crash point, with how often.
    #[must_use]
    pub fn fired(&self) -> &BTreeMap<String, u64> {
        &self.fired
    }

    fn turn(&mut self, world: &mut World) {
        let now_ms = self.elapsed_ms(world);
        let (due, later) = std::mem::take(&mut self.pending).into_iter().partition(|p: &Planned| p.from_ms() <= now_ms);
        self.pending = later;
        for planned in due {
            self.begin(world, planned, now_ms);
        }
        for (point, machine) in point::take_fired() {
            *self.fired.entry(point.clone()).or_default() += 1;
            let aimed =
                |w: &Waiting| w.target == machine && matches!(&w.planned.when, When::AtPoint { point: p, .. } if *p == point);
            if let Some(found) = self.waiting.iter().position(aimed) {
                let Waiting { planned, target } = self.waiting.swap_remove(found);
                let end: End = Box::new(move |world| world.start(&target));
                self.under_way.push(Under { until_ms: now_ms + planned.lasts_ms, name: point, counted: true, end });
            }
        }
        let (over, under_way) = std::mem::take(&mut self.under_way).into_iter().partition(|u: &Under| u.until_ms <= now_ms);
        self.under_way = under_way;
        for under in over {
            self.end(world, under);
        }
    }

    /// Ends a fault, and counts it if only now is known that it took effect.
    fn end(&mut self, world: &mut World, under: Under) {
        if (under.end)(world) && !under.counted {
            *self.fired.entry(under.name).or_default() += 1;
        }
    }

    fn begin(&mut self, world: &mut World, planned: Planned, now_ms: u64) {
        let Some(target) = resolve(world, &planned.target) else {
            // Nobody leads yet: look again in a moment.
            self.pending.push(planned);
            return;
        };
        match &planned.when {
            When::AtMs(_) => {
                let until_ms = if planned.fault.lasts_until_quiet() { u64::MAX } else { now_ms + planned.lasts_ms };
                let name = planned.fault.name().to_owned();
                match planned.fault.begin(world, &target) {
                    Begun::Nothing => trace_line!("no effect: {planned}"),
                    Begun::Effect(end) => {
                        *self.fired.entry(name.clone()).or_default() += 1;
                        self.under_way.push(Under { until_ms, name, counted: true, end });
                    }
                    Begun::Armed(end) => self.under_way.push(Under { until_ms, name, counted: false, end }),
                }
            }
            When::AtPoint { point, hit, .. } => {
                point::arm(Armed { point: point.clone(), machine: Some(target.clone()), hits_left: *hit });
                self.waiting.push(Waiting { planned, target });
            }
        }
    }
}

/// Nodes are machines `n1`, `n2`, … by their node id.
fn resolve(world: &World, target: &Target) -> Option<MachineName> {
    match target {
        Target::Machine(name) => world.names().into_iter().find(|n| n.as_str() == name),
        Target::LeaderOf(group) => {
            let leader = oracle::leader_of(GroupId(*group))?;
            let name = MachineName::from(format!("n{}", leader.node()).as_str());
            world.names().contains(&name).then_some(name)
        }
    }
}
