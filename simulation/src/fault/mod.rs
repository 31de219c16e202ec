//! What goes wrong, one file each. To add one: a file here, a variant in [`Fault`] with its two arms, and its place in a scenario's
//! draw.

mod clock_jump;
mod isolate;
mod kill;
mod power_loss;
mod slow_network;

use serde::{Deserialize, Serialize};

use crate::machine::MachineName;
use crate::world::World;

pub use clock_jump::ClockJump;
pub use isolate::Isolate;
pub use kill::Kill;
pub use power_loss::PowerLoss;
pub use slow_network::SlowNetwork;

/// Something that can go wrong with a machine or the network, for a while.
pub(crate) trait FaultKind {
    /// As it stands in reports.
    const NAME: &'static str;

    /// Begins it. `false` if it had no effect: the machine was down already.
    fn begin(&self, world: &mut World, target: &MachineName) -> bool;

    /// Ends it, if it had an effect.
    fn end(&self, world: &mut World, target: &MachineName);
}

/// Every fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// See [`PowerLoss`].
    PowerLoss(PowerLoss),
    /// See [`Kill`].
    Kill(Kill),
    /// See [`Isolate`].
    Isolate(Isolate),
    /// See [`ClockJump`].
    ClockJump(ClockJump),
    /// See [`SlowNetwork`].
    SlowNetwork(SlowNetwork),
}

macro_rules! each {
    ($fault:expr, $kind:ident => $work:expr) => {
        match $fault {
            Fault::PowerLoss($kind) => $work,
            Fault::Kill($kind) => $work,
            Fault::Isolate($kind) => $work,
            Fault::ClockJump($kind) => $work,
            Fault::SlowNetwork($kind) => $work,
        }
    };
}

fn name_of<K: FaultKind>(_: &K) -> &'static str {
    K::NAME
}

impl Fault {
    /// As it stands in reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        each!(self, kind => name_of(kind))
    }

    pub(crate) fn begin(&self, world: &mut World, target: &MachineName) -> bool {
        each!(self, kind => kind.begin(world, target))
    }

    pub(crate) fn end(&self, world: &mut World, target: &MachineName) {
        each!(self, kind => kind.end(world, target));
    }
}
