//! What is simulated, one file each. To add one: a file here and a line in [`ALL`].

mod counter;
mod echo;
mod owner_loses_power;
mod rough_weather;
mod stack;
mod thread_leak;

use std::collections::BTreeMap;

use crate::oracle::Violation;
use crate::seed::Seed;

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
    /// Runs it. What happened is in the outcome even if an invariant was violated.
    pub run: fn(Seed, &mut Outcome) -> Result<(), Violation>,
    /// A test of the instrument itself, left out when nobody names a scenario.
    pub instrument: bool,
}

/// Every scenario; the first is the default.
pub const ALL: &[Scenario] = &[
    owner_loses_power::SCENARIO,
    owner_loses_power::ON_LYING_DISKS,
    rough_weather::SCENARIO,
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
