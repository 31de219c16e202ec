//! A test of the instrument: code that starts a thread must end the process.

use std::time::Duration;

use super::{Outcome, Scenario, nothing};
use crate::oracle::Violation;
use crate::plan::Plan;
use crate::seed::Seed;
use crate::world::{NetworkOptions, World};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "thread-leak",
    purpose: "instrument: a machine starts a thread, and the run must be aborted",
    draw: |_, _| Plan::default(),
    run,
    expects: nothing,
};

fn run(seed: Seed, _plan: Plan, _outcome: &mut Outcome) -> Result<(), Violation> {
    let network = NetworkOptions { latency_min: Duration::from_millis(1), latency_max: Duration::from_millis(2) };
    let mut world = World::new(seed, network);
    world.add("n1", |_boot| async {
        let thread = std::thread::Builder::new().spawn(|| ())?;
        thread.join().map_err(|_| anyhow::anyhow!("the thread panicked"))
    });
    world.step()
}
