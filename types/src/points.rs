//! Crash points: named places in the code at which a simulator may cut the power, delay or yield.
//!
//! `point!("log.written")` compiles to nothing unless the feature `points` is on, which only the simulation turns on. The
//! hook runs on the thread that met the point; a simulation is one thread per seed, so the hook is thread-local.

/// Marks a crash point. The name is `part.moment`, for example `"log.written"` or `"region.proposed"`.
#[macro_export]
macro_rules! point {
    ($name:literal) => {
        $crate::points::hit($name)
    };
}

/// Tells how full something is that has a bound: its name, what it holds, and what it may hold at most. Nothing is computed unless the
/// feature `points` is on.
#[macro_export]
macro_rules! level {
    ($name:literal, $found:expr, $bound:expr) => {
        $crate::points::stands($name, || ($found as u64, $bound as u64))
    };
}

#[cfg(feature = "points")]
mod hook {
    use std::cell::RefCell;
    use std::rc::Rc;

    type Hook = Rc<dyn Fn(&'static str)>;

    type LevelHook = Rc<dyn Fn(&'static str, u64, u64)>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
        static LEVELS: RefCell<Option<LevelHook>> = const { RefCell::new(None) };
    }

    /// Installs (or with `None` removes) this thread's hook for levels: name, what was found, bound.
    pub fn install_levels(hook: Option<LevelHook>) {
        LEVELS.with(|slot| *slot.borrow_mut() = hook);
    }

    /// Called by [`crate::level!`].
    pub fn stands(name: &'static str, level: impl FnOnce() -> (u64, u64)) {
        let hook = LEVELS.with(|slot| slot.borrow().clone());
        if let Some(hook) = hook {
            let (found, bound) = level();
            hook(name, found, bound);
        }
    }

    /// Installs (or with `None` removes) this thread's hook.
    pub fn install(hook: Option<Hook>) {
        HOOK.with(|slot| *slot.borrow_mut() = hook);
    }

    /// Called by [`crate::point!`].
    pub fn hit(name: &'static str) {
        let hook = HOOK.with(|slot| slot.borrow().clone());
        if let Some(hook) = hook {
            hook(name);
        }
    }
}

#[cfg(feature = "points")]
pub use hook::{hit, install, install_levels, stands};

/// Called by [`crate::level!`]: nothing in this build.
#[cfg(not(feature = "points"))]
#[inline(always)]
pub fn stands(_name: &'static str, _level: impl FnOnce() -> (u64, u64)) {}

/// Called by [`crate::point!`]: nothing in this build.
#[cfg(not(feature = "points"))]
#[inline(always)]
pub fn hit(_name: &'static str) {}
