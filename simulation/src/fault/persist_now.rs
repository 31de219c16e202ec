//! A node makes all its groups durable at once and purges their logs, in the middle of everything.

use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::pass_on::ordered;
use super::{Befalls, Begun, FaultKind};
use crate::machine::MachineName;
use crate::orders::Order;
use crate::world::World;

/// A snapshot at any moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistNow;

impl FaultKind for PersistNow {
    const NAME: &'static str = "snapshot-now";
    const BEFALLS: Befalls = Befalls::Node;

    fn draw(_: &mut Pcg64Mcg) -> Self {
        Self
    }

    fn begin(&self, world: &mut World, target: &MachineName) -> Begun {
        ordered(world, target, Order::Persist)
    }
}
