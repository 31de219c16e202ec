//! Orders of operators, each taken once.

use marchland_proto::storage::AdminOrder;
use marchland_types::LogIndex;

use super::Failure;
use crate::doing::Handler;
use crate::effects::Effects;
use crate::game::{Game, Order};
use crate::region::Region;
use crate::trouble::{CAUSE_PANIC, What};
use crate::world::core::ORDERS_REMEMBERED;

impl<G: Game> Region<G> {
    pub(crate) fn take_order(&mut self, index: LogIndex, order: &AdminOrder, effects: &mut Effects<G>) {
        if !self.remember_order(order.id) {
            return;
        }
        let taken = self.handle(effects, Handler::Order(order.code), |game, ctx| {
            game.order(ctx, Order { code: order.code, body: &order.body, actor: &order.actor })
        });
        if let Err(Failure::Panicked) = taken {
            self.set_aside(index, CAUSE_PANIC, What::Order(order.clone()));
        }
    }

    /// Whether the order comes for the first time.
    pub(crate) fn remember_order(&mut self, id: u64) -> bool {
        let taken = &mut self.world.state.core.orders;
        if taken.contains(&id) {
            return false;
        }
        taken.push_back(id);
        if taken.len() > ORDERS_REMEMBERED {
            taken.pop_front();
        }
        true
    }
}
