//! One machine is cut off from all others. Packets wait, as TCP would send them again, and arrive when it is over.

use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::{Befalls, Begun, FaultKind};
use crate::machine::MachineName;
use crate::trace_line;
use crate::world::World;

/// A machine cut off from the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolate;

impl FaultKind for Isolate {
    const NAME: &'static str = "isolate";
    const BEFALLS: Befalls = Befalls::Any;

    fn draw(_: &mut Pcg64Mcg) -> Self {
        Self
    }

    fn begin(&self, world: &mut World, target: &MachineName) -> Begun {
        if !world.is_running(target) {
            return Begun::Nothing;
        }
        trace_line!("ISOLATION of {target}");
        world.isolate(target);
        let target = target.clone();
        Begun::effect(move |world| {
            trace_line!("{target} is back on the network");
            world.rejoin(&target);
        })
    }
}

/// Cuts these directed links, until the end. `false` if there are none.
pub(super) fn cut(world: &mut World, what: &str, links: Vec<(MachineName, MachineName)>) -> Begun {
    if links.is_empty() {
        return Begun::Nothing;
    }
    let text: Vec<String> = links.iter().map(|(from, to)| format!("{from}→{to}")).collect();
    trace_line!("{what}: {} cut", text.join(" "));
    for (from, to) in &links {
        world.block(from, to);
    }
    let what = what.to_owned();
    Begun::effect(move |world| {
        trace_line!("{what} is over");
        for (from, to) in &links {
            world.unblock(from, to);
        }
    })
}

/// Both directions between each of `left` and each of `right`.
pub(super) fn between(left: &[MachineName], right: &[MachineName]) -> Vec<(MachineName, MachineName)> {
    let pairs = left.iter().flat_map(|a| right.iter().map(move |b| (a, b)));
    pairs.flat_map(|(a, b)| [(a.clone(), b.clone()), (b.clone(), a.clone())]).collect()
}
