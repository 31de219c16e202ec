//! A tick that does on one machine what it does nowhere else, as if a bit had flipped in its memory: its state is odd from then on.

use std::cell::RefCell;

use marchland_region_core::{Context, Game, Spawn};

use crate::machine::{self, MachineName};
use crate::trace_line;

/// What such a tick makes. Nobody has rules for it.
const KIND: u32 = u32::MAX;

thread_local! {
    static NEXT: RefCell<Option<MachineName>> = const { RefCell::new(None) };
}

/// The next tick on this machine goes wrong, if there is one while it runs.
pub(crate) fn go_wrong(machine: MachineName) {
    NEXT.with(|next| *next.borrow_mut() = Some(machine));
}

/// At the end of every tick.
pub(super) fn end_of_tick<G: Game>(ctx: &mut Context<'_, G>) {
    let here = machine::current_name();
    if NEXT.with(|next| next.borrow_mut().take_if(|name| *name == here)).is_some() {
        trace_line!("ODD STATE: tick {} does on {here} what it does nowhere else", ctx.tick());
        ctx.spawn(Spawn::new(KIND));
    }
}
