//! Runs a handler of the game so that it takes effect as a whole or not at all.

use std::panic::{AssertUnwindSafe, catch_unwind};

use marchland_types::CommandSeq;

use crate::context::Context;
use crate::deed::DeedOutcome;
use crate::doing::Handler;
use crate::effects::{Effects, SessionReply};
use crate::game::Game;
use crate::region::Region;

/// Why a handler had no effect.
#[derive(Debug)]
pub(crate) enum Failure<E> {
    /// It said so.
    Refused(E),
    /// It panicked.
    Panicked,
}

impl<G: Game> Region<G> {
    /// Runs `handler`. What it wrote stays, and what it said is said, only when it returns `Ok`.
    pub(crate) fn handle<T, E>(
        &mut self,
        effects: &mut Effects<G>,
        which: Handler,
        handler: impl FnOnce(&G, &mut Context<'_, G>) -> Result<T, E>,
    ) -> Result<T, Failure<E>> {
        let ground = self.ground.clone().expect("handlers run after the genesis");
        let mut outputs = std::mem::take(&mut self.outputs);
        self.world.begin();
        self.doing.handler(Some(which));
        let game = &*self.game;
        let world = &mut self.world;
        // The journal undoes every write to the state; the outputs are cleared. Nothing else outlives a panic.
        let result = catch_unwind(AssertUnwindSafe(|| handler(game, &mut Context::new(world, &mut outputs, &*ground))));
        self.doing.handler(None);
        let result = match result {
            Ok(Ok(value)) => {
                self.note_deed(which, DeedOutcome::Done);
                self.world.commit();
                self.say(&mut outputs, effects);
                Ok(value)
            }
            Ok(Err(refused)) => {
                self.note_deed(which, DeedOutcome::Refused);
                self.world.roll_back();
                Err(Failure::Refused(refused))
            }
            Err(panic) => {
                self.note_deed(which, DeedOutcome::Panicked);
                self.world.roll_back();
                self.world.state.core.counters.panics += 1;
                let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
                self.last_panic = Some((which, text.unwrap_or("no text").to_owned()));
                Err(Failure::Panicked)
            }
        };
        outputs.clear();
        self.outputs = outputs;
        result
    }

    fn say(&mut self, outputs: &mut crate::context::Outputs, effects: &mut Effects<G>) {
        for (character, code, body) in outputs.events.drain(..) {
            // There was room when the handler asked; it may have sent the character away since.
            let Some(slot) = self.world.slot_of_character(character) else { continue };
            let Some(session) = self.world.session_mut(slot) else { continue };
            let reply = session.push(CommandSeq(0), code, body).clone();
            effects.replies.push(SessionReply { character, epoch: session.epoch, reply });
        }
        effects.area_events.append(&mut outputs.areas);
        for (to, body) in outputs.posts.drain(..) {
            self.post(to, body);
        }
    }
}
