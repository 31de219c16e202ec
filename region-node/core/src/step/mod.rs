//! What entries do to the state, in a fixed order.
//!
//! ```text
//! tick entry:  clock, number → ghosts → messages (a higher cut first) → acknowledgements → attaches → detaches → orders
//!              → inputs of sessions → timers → the game's tick → movement → borders → lingering sessions → locations
//!              → changes, hashes
//! ```

mod attach;
mod border;
mod changes;
mod handler;
mod handoff;
mod input;
mod message;
mod movement;
mod order;
mod presence;
mod skip;
mod trace;
mod whole;

pub use self::border::{DWELL_MS, HYSTERESIS_M};
pub(crate) use self::handler::Failure;
pub use self::handoff::ATTACHED_MAX;
pub use self::skip::{SKIP_REASON_MAX_BYTES, skip_entry, skipped_by};

use marchland_proto::storage::{DeadTimer, TickEntry};
use marchland_types::limits::INPUTS_PER_TICK_MAX;
use marchland_types::{LogIndex, Tick};

use crate::doing::Handler;
use crate::effects::{Applied, Divergence, Effects};
use crate::game::Game;
use crate::region::{ApplyFault, Region};
use crate::timer::TimerId;
use crate::trouble::{CAUSE_PANIC, What};

/// Most that region time grows in one tick, in milliseconds: a node whose clock leaps ahead can not drag the world's time
/// with it, and after an outage the world catches up at twenty times the speed.
pub(crate) const NOW_STEP_MAX_MS: u64 = 1000;

impl<G: Game> Region<G> {
    /// Region time grows towards what the owner's clock said, by at least `least_ms`, and never by a leap unless the region
    /// slept or has just begun.
    pub(crate) fn advance_clock(&mut self, proposed_ms: u64, least_ms: u64) {
        let core = &mut self.world.state.core;
        let free = core.tick == Tick(0) || core.asleep_until_ms.is_some();
        let most_ms = if free { u64::MAX } else { NOW_STEP_MAX_MS };
        let step_ms = proposed_ms.saturating_sub(core.now_ms).clamp(least_ms, most_ms);
        core.now_ms = core.now_ms.saturating_add(step_ms);
    }

    pub(crate) fn tick_entry(&mut self, index: LogIndex, entry: &TickEntry, effects: &mut Effects<G>) -> Result<(), ApplyFault> {
        let core = &mut self.world.state.core;
        if core.barrier.is_some() {
            core.counters.barred_ticks += 1;
            effects.applied = Applied::Barred;
            return Ok(());
        }
        effects.divergence = self.compare(entry);
        self.advance_clock(entry.now_ms, 1);
        let core = &mut self.world.state.core;
        core.asleep_until_ms = None;
        core.tick = core.tick.next();
        effects.applied = Applied::Tick;
        effects.tick = Some(core.tick);

        for batch in &entry.ghosts {
            self.take_ghosts(batch);
        }
        for message in &entry.messages {
            self.take_message(index, message, effects);
        }
        for ack in &entry.acks {
            self.take_ack(ack, effects);
        }
        for order in &entry.attaches {
            self.attach(order, effects);
        }
        for order in &entry.detaches {
            self.detach(order, effects);
        }
        for order in &entry.orders {
            self.take_order(index, order, effects);
        }
        let mut left = INPUTS_PER_TICK_MAX;
        for inputs in &entry.sessions {
            self.take_inputs(inputs, &mut left, effects);
        }
        self.run_timers(index, effects);
        let ticked = self.handle(effects, Handler::Tick, |game, ctx| {
            game.tick(ctx);
            Ok::<_, std::convert::Infallible>(())
        });
        if let Err(Failure::Panicked) = ticked {
            // Nobody is there to be refused, and a world whose rules are left out from now on is not the studio's any more.
            return Err(ApplyFault::Panicked { index, handler: Handler::Tick });
        }
        self.move_all();
        self.cross_borders(effects);
        self.retry_set_aside(effects);
        self.end_lingering(effects);
        self.tell_locations();
        Ok(())
    }

    fn compare(&self, entry: &TickEntry) -> Option<Divergence> {
        let own = self.hash_after(Tick(entry.checked_tick))?;
        (entry.checked_hash != 0 && own != entry.checked_hash).then_some(Divergence {
            tick: Tick(entry.checked_tick),
            own,
            proposer: entry.checked_hash,
        })
    }

    /// Runs every timer that is due. Those that are started meanwhile wait for the next tick.
    fn run_timers(&mut self, index: LogIndex, effects: &mut Effects<G>) {
        let below = self.world.state.core.next_timer + 1;
        while let Some(id) = self.due_timer(below) {
            let timer = self.world.state.timers.remove(id).expect("a timer that is due is there");
            let ran = self.handle(effects, Handler::Timer(timer.code), |game, ctx| {
                game.timer(ctx, timer);
                Ok::<_, std::convert::Infallible>(())
            });
            if let Err(Failure::Panicked) = ran {
                let entity = timer.entity.map_or(0, |entity| entity.0);
                let dead = DeadTimer { entity, code: timer.code, argument: timer.argument };
                self.set_aside(index, CAUSE_PANIC, What::Timer(dead));
            }
        }
    }

    fn due_timer(&self, below: u64) -> Option<TimerId> {
        self.world.state.timers.due(self.world.now_ms(), below)
    }
}
