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

#[cfg(feature = "points")]
mod hook {
    use std::cell::RefCell;
    use std::rc::Rc;

    type Hook = Rc<dyn Fn(&'static str)>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
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
pub use hook::{hit, install};

/// Called by [`crate::point!`]: nothing in this build.
#[cfg(not(feature = "points"))]
#[inline(always)]
pub fn hit(_name: &'static str) {}
