//! Remembers the last panic of this thread: what it said, where, and on which machine. A panic of the code under test ends its
//! runtime, and the message is gone by the time the driver notices.

use std::cell::RefCell;
use std::fmt;

use crate::machine::{self, MachineName};

/// A panic.
#[derive(Clone, Debug)]
pub struct Panic {
    /// The machine, `-` for the driver.
    pub machine: MachineName,
    /// What it said, and where.
    pub message: String,
    /// Whether the machine had already lost its power.
    pub by_ghost: bool,
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} panicked: {}", self.machine, self.message)
    }
}

thread_local! {
    static FIRST: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Installs the hook, for the whole process.
pub fn remember() {
    std::panic::set_hook(Box::new(|info| {
        let panic = Panic { machine: machine::current_name(), message: info.to_string(), by_ghost: machine::is_ghost() };
        crate::trace_line!("PANIC {}", panic.message);
        if !panic.by_ghost {
            eprintln!("{panic}");
        }
        FIRST.with(|first| {
            // The one that follows, of the runtime that shuts down, says nothing.
            first.borrow_mut().get_or_insert(panic);
        });
    }));
}

/// Takes the first panic since the last call.
#[must_use]
pub fn take() -> Option<Panic> {
    FIRST.with(|first| first.borrow_mut().take())
}
