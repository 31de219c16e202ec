//! How the server with broken rules (`broken-rules/main.rs`) is told to fail.

/// A player who says this makes the handler of their command panic.
pub const SAY_PANIC: &str = "let it panic";
/// A file beside a node's configuration that says how many milliseconds a tick takes there.
pub const SLOW_FILE: &str = "slow-ms";
/// A letter whose handler panics.
pub const LETTER_PANICS: u32 = 1;
/// A letter whose handler does not return.
pub const LETTER_LOOPS: u32 = 2;
/// A letter after which the game's tick panics once.
pub const TICK_PANICS: u32 = 3;
/// A letter after which the game's tick does not return.
pub const TICK_LOOPS: u32 = 4;
