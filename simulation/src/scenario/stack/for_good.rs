//! A node goes for good while nobody is in the world and everything rests.
//!
//! ```text
//! quiet ─▶ everyone leaves ─▶ regions fall asleep, groups rest ─▶ a node goes ─▶ everyone comes back, and is served without it
//! ```
//!
//! Whoever comes back wants something of groups that nobody has heard of for a while, and a third of which were led by that node. A node
//! that returns would put right whatever the others missed, so this one returns only when everything else has been looked at.

use std::rc::Rc;

use rand::RngExt;

use super::SHARDS;
use super::drive::until;
use super::player::Notes;
use crate::director::Director;
use crate::fact::{Fact, tell};
use crate::machine::MachineName;
use crate::oracle::Violation;
use crate::seed::Seed;
use crate::trace_line;
use crate::world::World;

/// Until then everyone has left: a goodbye waits for whatever the faults before have left behind.
const OUT_WITHIN_MS: u64 = 10_000;
/// After that, regions fall asleep three seconds later, groups rest five seconds after their log has last grown, and the last ones of
/// these are told of the first.
const FALLS_ASLEEP_MS: u64 = 12_000;
/// From the node's end until somebody wants something: its pulse has been missed.
const GONE_MS: u64 = 2_000;

/// From the boot of a node until its replicas have what the others have.
const CATCHES_UP_MS: u64 = 3_000;

/// The node that goes, in this share of the seeds.
pub(super) fn draw(seed: Seed, share: f64) -> Option<u32> {
    let mut stream = seed.stream("for good");
    let number = stream.random_range(1..=SHARDS);
    stream.random_bool(share).then_some(number)
}

/// Has everyone leave, takes the node's power when everything rests, and calls everyone back. Returns the machine, which is still down.
pub(super) fn lose(world: &mut World, number: u32, notes: &[Rc<Notes>]) -> Result<MachineName, Violation> {
    let everyone = |out: bool| notes.iter().for_each(|n| n.wanted_out.set(out));
    everyone(true);
    let all_out = || notes.iter().all(|n| n.is_out.get());
    until(world, OUT_WITHIN_MS, all_out, || {
        let left = notes.iter().filter(|n| !n.is_out.get()).count();
        Violation::new("served-again", format!("{left} players could not leave the world within {OUT_WITHIN_MS} ms"))
    })?;
    pass(world, FALLS_ASLEEP_MS)?;
    let name = MachineName::from(&*format!("n{number}"));
    trace_line!("{name} goes for good");
    world.cut_power(&name);
    pass(world, GONE_MS)?;
    everyone(false);
    // From here on nobody waits for anything but what the others do without it.
    tell(&Fact::Quiet);
    Ok(name)
}

/// Every replica is looked at in the end, those of whoever was gone as well: they must have caught up before the cut, for a snapshot of
/// after it would lead past it.
pub(super) fn bring_back(world: &mut World, name: &MachineName) -> Result<(), Violation> {
    world.start(name);
    pass(world, CATCHES_UP_MS)
}

fn pass(world: &mut World, ms: u64) -> Result<(), Violation> {
    Director::new(world, crate::plan::Plan::default()).run(world, ms)
}
