//! Planted bugs: mistakes that somebody could have made, each a line in the code, which the simulation must find.
//!
//! `planted!("vote-not-synced")` is `false`, and costs nothing, unless the feature `planted` is on, which only the simulation turns on
//! and never the released binary. With it, the bug of that name is in force where a simulator has [`install`]ed it. Like
//! the hook of [`crate::point!`], what is installed is the thread's: a simulation is one thread per seed.

/// Whether the bug of this name is planted: `false` outside the simulation.
#[macro_export]
macro_rules! planted {
    ($name:literal) => {
        $crate::planted::is_on($name)
    };
}

#[cfg(feature = "planted")]
mod installed {
    use std::cell::Cell;

    thread_local! {
        static BUG: Cell<Option<&'static str>> = const { Cell::new(None) };
        static REACHED: Cell<u64> = const { Cell::new(0) };
    }

    /// Puts one bug (or none) in force on this thread, and counts from 0 how often its place is reached.
    pub fn install(bug: Option<&'static str>) {
        BUG.set(bug);
        REACHED.set(0);
    }

    /// How often the place of the bug in force was reached.
    #[must_use]
    pub fn reached() -> u64 {
        REACHED.get()
    }

    /// Called by [`crate::planted!`].
    #[must_use]
    pub fn is_on(name: &'static str) -> bool {
        let on = BUG.get() == Some(name);
        if on {
            REACHED.set(REACHED.get() + 1);
        }
        on
    }
}

#[cfg(feature = "planted")]
pub use installed::{install, is_on, reached};

/// Called by [`crate::planted!`]: nothing is planted in this build.
#[cfg(not(feature = "planted"))]
#[inline(always)]
#[must_use]
pub const fn is_on(_name: &'static str) -> bool {
    false
}
