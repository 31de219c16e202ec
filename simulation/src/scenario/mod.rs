//! What is simulated, one file each. To add one: a file here and a line in [`ALL`].

mod asleep;
mod borders;
mod counter;
mod echo;
mod lost_folder;
mod odd_replica;
mod owner_loses_power;
mod rough_weather;
mod stack;
mod standard;
mod studio;
mod thread_leak;

use std::collections::BTreeMap;

use crate::oracle::Violation;
use crate::plan::Plan;
use crate::seed::Seed;

pub(crate) use self::studio::of_studio;

/// What a run amounts to, beside its violation.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Simulated time, in milliseconds.
    pub simulated_ms: u64,
    /// What took effect, with how often: faults, crash points.
    pub fired: BTreeMap<String, u64>,
    /// What happened at all, with how often: acknowledgements, boots, crash points met.
    pub sometimes: BTreeMap<String, u64>,
}

/// A scenario.
pub struct Scenario {
    /// As it stands on the command line.
    pub name: &'static str,
    /// One line on what it is for.
    pub purpose: &'static str,
    /// Draws what goes wrong from the seed: a few faults, or as many as are asked for.
    pub draw: fn(Seed, Option<usize>) -> Plan,
    /// Runs it with this plan. What happened is in the outcome even if an invariant was violated.
    pub run: fn(Seed, Plan, &mut Outcome) -> Result<(), Violation>,
    /// What must have taken effect, or happened, in a long sweep.
    pub expects: fn() -> Vec<Expected>,
}

/// Something that must have happened at least once in a sweep of this many seeds: one in which it has not proves less than it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its name, in [`Outcome::fired`] or [`Outcome::sometimes`].
    pub name: String,
    /// How many seeds a sweep must have at least, for its absence to mean anything.
    pub after_seeds: u64,
}

/// Nothing in particular is expected.
fn nothing() -> Vec<Expected> {
    Vec::new()
}

/// Every scenario; the first is the default.
pub const ALL: &[Scenario] = &[
    standard::SCENARIO,
    borders::SCENARIO,
    asleep::SCENARIO,
    owner_loses_power::SCENARIO,
    owner_loses_power::ON_LYING_DISKS,
    rough_weather::SCENARIO,
    odd_replica::SCENARIO,
    lost_folder::SCENARIO,
    counter::SCENARIO,
    counter::ON_LYING_DISKS,
    echo::SCENARIO,
    thread_leak::SCENARIO,
];

/// The scenario with this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}
