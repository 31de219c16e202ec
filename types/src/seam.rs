//! Where the simulator takes the place of the machine: time and randomness.
//!
//! Every crate that runs inside the simulator reads clocks and entropy through these traits alone (clippy's
//! `disallowed-methods` keeps the direct ways out). Implementations are chosen in `main` by a type parameter, never by
//! `cfg`. Byte streams, files and the keyed store have their own seams in the crates that need them.

use std::time::Duration;

/// The clocks of one node. Production reads the system's; the simulator gives every node its own, with skew.
pub trait Clock: Clone + Send + Sync + 'static {
    /// Time since some fixed moment of this process. Never goes back.
    fn monotonic(&self) -> Duration;

    /// Milliseconds since 1970-01-01 UTC as this machine believes. May jump in either direction.
    fn wall_ms(&self) -> u64;
}

/// A source of unpredictable bytes: secrets, ids of data folders, jitter.
pub trait Entropy: Clone + Send + Sync + 'static {
    /// Fills `out` with random bytes.
    fn fill(&self, out: &mut [u8]);

    /// A random number, for jitter and ids.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}
