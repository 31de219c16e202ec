//! Makes a plan happen: begins faults when they are due, ends them when their time is over, and counts what took effect.

use std::collections::BTreeMap;
use std::time::Duration;

use marchland_types::GroupId;

use crate::fact::{Fact, tell};
use crate::fault::{Begun, End, Fault, FaultKind, Kill, Pause, PowerLoss};
use crate::machine::{MachineName, Phase};
use crate::oracle::{self, Violation};
use crate::plan::{Plan, Planned, Target, When};
use crate::point::{self, Armed, Then};
use crate::trace::{self, Mark};
use crate::trace_line;
use crate::world::World;

struct Under {
    /// Its number in this run, by which the trace knows it.
    number: u64,
    until_ms: u64,
    name: String,
    /// Whether it is counted already.
    counted: bool,
    end: End,
}

struct Waiting {
    planned: Planned,
    /// Whose hit it must be; anyone's without.
    target: Option<MachineName>,
}

/// Makes one plan happen.
pub struct Director {
    /// The load began at this time of the world.
    zero_ms: u64,
    pending: Vec<Planned>,
    /// Crash points that are armed and were not met yet.
    waiting: Vec<Waiting>,
    under_way: Vec<Under>,
    begun: u64,
    fired: BTreeMap<String, u64>,
}

impl Director {
    /// A director whose plan's times count from now.
    #[must_use]
    pub fn new(world: &World, plan: Plan) -> Self {
        for planned in &plan.0 {
            trace::event(|| Mark::Planned, format_args!("PLAN {planned}"));
        }
        let zero_ms = world.elapsed().as_millis() as u64;
        Self { zero_ms, pending: plan.0, waiting: Vec::new(), under_way: Vec::new(), begun: 0, fired: BTreeMap::new() }
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

    /// Ends every fault, boots whatever is down, and waits for machines that stand still in the midst of their own code: their clocks
    /// have already jumped. Then the quiet phase begins. Returns the moment, in milliseconds of the load.
    pub fn calm(&mut self, world: &mut World) -> Result<u64, Violation> {
        trace::event(|| Mark::Quiet, format_args!("QUIET"));
        point::disarm();
        self.pending.clear();
        self.waiting.clear();
        for under in std::mem::take(&mut self.under_way) {
            self.end(world, under);
        }
        loop {
            for name in world.names() {
                if matches!(world.phase(&name), Phase::Ghost { .. } | Phase::Down { .. } | Phase::Exited(_)) {
                    world.start(&name);
                }
            }
            if !world.stands_still() {
                tell(&Fact::Quiet);
                return Ok(self.elapsed_ms(world));
            }
            world.step()?;
            if let Some(violation) = oracle::violation() {
                return Err(violation);
            }
        }
    }

    /// Faults that took effect, by name, with how often. What happened at crash points is counted there.
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
            let aimed = |w: &Waiting| {
                w.target.as_ref().is_none_or(|target| *target == machine)
                    && matches!(&w.planned.when, When::AtPoint { point: p, .. } if *p == point)
            };
            if let Some(found) = self.waiting.iter().position(aimed) {
                let Waiting { planned, .. } = self.waiting.swap_remove(found);
                let number = self.tell_begin(&format!("{} at {point}", name_at_point(&planned.fault)), &machine, &planned);
                let end: End = Box::new(move |world| world.start(&machine));
                self.under_way.push(Under { number, until_ms: now_ms + planned.lasts_ms, name: point, counted: true, end });
            }
        }
        for (point, machine) in point::take_told() {
            let aimed = |w: &Waiting| {
                w.target.as_ref().is_none_or(|target| *target == machine)
                    && matches!(&w.planned.when, When::AfterPoint { point: p, .. } if *p == point)
            };
            if let Some(found) = self.waiting.iter().position(aimed) {
                let Waiting { planned, .. } = self.waiting.swap_remove(found);
                let delay_ms = if let When::AfterPoint { delay_ms, .. } = planned.when { delay_ms } else { 0 };
                let (when, target) = (When::AtMs(now_ms + delay_ms), Target::Machine(machine.as_str().to_owned()));
                self.pending.push(Planned { when, target, ..planned });
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
        trace::event(|| Mark::FaultEnds { number: under.number }, format_args!("fault {} ends: {}", under.number, under.name));
        if (under.end)(world) && !under.counted {
            *self.fired.entry(under.name).or_default() += 1;
        }
    }

    /// Tells that a fault is under way, and gives it a number.
    fn tell_begin(&mut self, name: &str, target: &MachineName, planned: &Planned) -> u64 {
        self.begun += 1;
        let number = self.begun;
        let mark = || Mark::FaultBegins { number, name: name.to_owned(), target: target.clone() };
        trace::event(mark, format_args!("fault {number} befalls {target}: {planned}"));
        number
    }

    fn begin(&mut self, world: &mut World, planned: Planned, now_ms: u64) {
        let target = match (resolve(world, &planned.target), &planned.target) {
            (Some(target), _) => Some(target),
            (None, Target::Whoever) => None,
            // Nobody leads yet: look again in a moment.
            (None, Target::LeaderOf(_) | Target::FollowerOf(..)) => {
                self.pending.push(planned);
                return;
            }
            (None, Target::Machine(_)) => {
                trace_line!("no effect, no such machine: {planned}");
                return;
            }
        };
        match (&planned.when, target) {
            (When::AtMs(_), None) => trace_line!("no effect, only a crash point can befall whoever comes: {planned}"),
            (When::AtMs(_), Some(target)) => {
                let until_ms = if planned.fault.lasts_until_quiet() { u64::MAX } else { now_ms + planned.lasts_ms };
                let name = planned.fault.name().to_owned();
                match planned.fault.begin(world, &target) {
                    Begun::Nothing => trace_line!("no effect: {planned}"),
                    Begun::Effect(end) => {
                        *self.fired.entry(name.clone()).or_default() += 1;
                        let number = self.tell_begin(&name, &target, &planned);
                        self.under_way.push(Under { number, until_ms, name, counted: true, end });
                    }
                    Begun::Armed(end) => {
                        let number = self.tell_begin(&name, &target, &planned);
                        self.under_way.push(Under { number, until_ms, name, counted: false, end });
                    }
                }
            }
            (When::AtPoint { point, hit, .. }, target) => {
                let then = then_at_point(&planned);
                point::arm(Armed { point: point.clone(), machine: target.clone(), hits_left: *hit, then });
                self.waiting.push(Waiting { planned, target });
            }
            (When::AfterPoint { point, hit, .. }, target) => {
                point::arm(Armed { point: point.clone(), machine: target.clone(), hits_left: *hit, then: Then::Tell });
                self.waiting.push(Waiting { planned, target });
            }
        }
    }
}

/// What an entry does at a crash point: a kill, a pause, and else a power loss.
fn then_at_point(planned: &Planned) -> Then {
    match planned.fault.name() {
        Kill::NAME => Then::Kill,
        Pause::NAME => Then::Pause(Duration::from_millis(planned.lasts_ms)),
        _ => Then::Cut,
    }
}

fn name_at_point(fault: &Fault) -> &'static str {
    match fault.name() {
        name @ (Kill::NAME | Pause::NAME) => name,
        _ => PowerLoss::NAME,
    }
}

fn leader_of(world: &World, group: GroupId) -> Option<MachineName> {
    let leader = oracle::leader_of(group)?;
    let name = MachineName::from(format!("n{}", leader.node()).as_str());
    world.names().contains(&name).then_some(name)
}

/// Nodes are machines `n1`, `n2`, … by their node id.
fn resolve(world: &World, target: &Target) -> Option<MachineName> {
    match target {
        Target::Machine(name) => world.names().into_iter().find(|n| n.as_str() == name),
        Target::LeaderOf(group) => leader_of(world, GroupId(*group)),
        Target::FollowerOf(group, number) => {
            let leader = leader_of(world, GroupId(*group))?;
            let followers: Vec<MachineName> = world.nodes_from(&leader).into_iter().filter(|name| *name != leader).collect();
            followers.get(*number as usize % followers.len().max(1)).cloned()
        }
        Target::Whoever => None,
    }
}
