//! Entries about the region as a whole: genesis, cuts, sleep, barriers.

use std::sync::Arc;

use marchland_proto::storage::{Barrier, Genesis, Sleep};
use marchland_types::{CutNumber, LogIndex, MapEpoch};

use super::Failure;
use crate::doing::Handler;
use crate::effects::{Applied, Awake, Effects, TakenCut};
use crate::game::Game;
use crate::region::{ApplyFault, Region};
use crate::world::BarrierTo;

impl<G: Game> Region<G> {
    fn check_rules(&self, index: LogIndex, rules_version: u64, content_hash: u64) -> Result<(), ApplyFault> {
        let (found_rules, found_content) = (self.game.rules_version(), self.game.content_hash());
        if (rules_version, content_hash) == (found_rules, found_content) {
            return Ok(());
        }
        Err(ApplyFault::Rules { index, wanted_rules: rules_version, wanted_content: content_hash, found_rules, found_content })
    }

    pub(crate) fn genesis(&mut self, index: LogIndex, mut genesis: Genesis, effects: &mut Effects<G>) -> Result<(), ApplyFault> {
        if self.ground.is_some() {
            return Err(ApplyFault::SecondGenesis { index });
        }
        self.check_rules(index, genesis.rules_version, genesis.content_hash)?;
        let ground = self.game.ground(&genesis.parameters).map_err(|reason| ApplyFault::Parameters { index, reason })?;
        self.ground = Some(Arc::new(ground));
        let core = &mut self.world.state.core;
        core.rules_version = genesis.rules_version;
        core.content_hash = genesis.content_hash;
        core.map_epoch = MapEpoch(genesis.map_epoch);
        self.world.state.map = Arc::new(std::mem::take(&mut genesis.map));
        self.world.state.genesis = Some(Arc::new(genesis));
        self.world.map_changed = true;
        self.world.look_at_map();
        effects.applied = Applied::Genesis;
        let made = self.handle(effects, Handler::Genesis, |game, ctx| {
            game.genesis(ctx);
            Ok::<_, std::convert::Infallible>(())
        });
        match made {
            Err(Failure::Panicked) => Err(ApplyFault::Panicked { index, handler: Handler::Genesis }),
            Ok(()) | Err(Failure::Refused(_)) => Ok(()),
        }
    }

    /// Takes a cut unless it, or a newer one, was taken before.
    pub(crate) fn take_cut(&mut self, number: CutNumber, effects: &mut Effects<G>) {
        if number > self.world.state.core.cut {
            self.world.state.core.cut = number;
            effects.cuts.push(TakenCut { number, view: self.view() });
        }
    }

    pub(crate) fn sleep(&mut self, sleep: &Sleep, effects: &mut Effects<G>) {
        self.advance_clock(sleep.now_ms, 0);
        let state = &self.world.state;
        let due_ms = state.timers.next_due_ms().filter(|due_ms| *due_ms < sleep.wake_at_ms);
        let awake = if state.core.barrier.is_some() {
            Some(Awake::Barrier)
        } else if state.sessions.len() > 0 {
            Some(Awake::Sessions(state.sessions.len()))
        } else if !state.channels.is_idle() || !state.locations.is_empty() || !state.set_aside.is_empty() {
            Some(Awake::Messages)
        } else {
            due_ms.map(|due_ms| Awake::Timer { due_ms })
        };
        match awake {
            Some(awake) => effects.applied = Applied::StaysAwake(awake),
            None => {
                self.world.state.core.asleep_until_ms = Some(sleep.wake_at_ms);
                effects.applied = Applied::Asleep;
            }
        }
    }

    pub(crate) fn barrier(&mut self, index: LogIndex, barrier: &Barrier, effects: &mut Effects<G>) -> Result<(), ApplyFault> {
        let to = BarrierTo { rules_version: barrier.rules_version, content_hash: barrier.content_hash };
        if barrier.activate {
            self.check_rules(index, to.rules_version, to.content_hash)?;
            let core = &mut self.world.state.core;
            core.rules_version = to.rules_version;
            core.content_hash = to.content_hash;
            core.barrier = None;
            effects.applied = Applied::Activated;
        } else {
            self.world.state.core.barrier = Some(to);
            effects.applied = Applied::Barrier;
        }
        Ok(())
    }
}
