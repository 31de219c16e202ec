//! Orders of operators, each taken once.

use marchland_proto::storage::AdminOrder;

use crate::effects::Effects;
use crate::game::{Game, Order};
use crate::region::Region;
use crate::world::core::ORDERS_REMEMBERED;

impl<G: Game> Region<G> {
    pub(crate) fn take_order(&mut self, order: &AdminOrder, effects: &mut Effects<G>) {
        let taken = &mut self.world.state.core.orders;
        if taken.contains(&order.id) {
            return;
        }
        taken.push_back(order.id);
        if taken.len() > ORDERS_REMEMBERED {
            taken.pop_front();
        }
        let _ =
            self.handle(effects, |game, ctx| game.order(ctx, Order { code: order.code, body: &order.body, actor: &order.actor }));
    }
}
