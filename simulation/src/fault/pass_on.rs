//! A node passes on the leadership of every group that it leads, in the middle of everything.

use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::{Befalls, Begun, FaultKind};
use crate::machine::MachineName;
use crate::orders::{self, Order};
use crate::trace_line;
use crate::world::World;

/// Leadership goes to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassOn;

impl FaultKind for PassOn {
    const NAME: &'static str = "leadership-transfer";
    const BEFALLS: Befalls = Befalls::Node;

    fn draw(_: &mut Pcg64Mcg) -> Self {
        Self
    }

    fn begin(&self, world: &mut World, target: &MachineName) -> Begun {
        ordered(world, target, Order::PassOn)
    }
}

/// Gives an order, which counts if something was done.
pub(super) fn ordered(world: &mut World, target: &MachineName, order: Order) -> Begun {
    if !world.is_running(target) {
        return Begun::Nothing;
    }
    trace_line!("ORDER to {target}: {order:?}");
    let (target, before) = (target.clone(), orders::done(target));
    orders::give(&target, order);
    Begun::armed(move |_| {
        orders::withdraw(&target);
        orders::done(&target) > before
    })
}
