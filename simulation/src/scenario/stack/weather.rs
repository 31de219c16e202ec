//! What a world is made of, beside its machines: drawn from the seed, printed at the top of the trace.
//!
//! Limits are part of it. What happens once an hour with the released ones happens in seconds with small ones; but some mistakes only
//! show when a log is *not* purged, so each seed has its own.

use std::fmt;

use rand::RngExt;

use crate::seed::Seed;

/// What a world is made of. How fast its disks are is drawn with the machines (see [`crate::hardware`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weather {
    /// Most time that a packet takes.
    pub(crate) latency_max_ms: u64,
    /// Entries that a group's log keeps behind its checkpoint: with few of them, whoever was away is given a snapshot.
    pub(crate) kept_entries: u64,
    /// Size of the log's segments.
    pub(crate) segment_bytes: u64,
    /// Age at which a group is persisted.
    pub(crate) persist_age_ms: u64,
}

impl Weather {
    /// A network by the seed, and all else as usual.
    pub(crate) fn of_network(seed: Seed) -> Self {
        let latency_max_ms = [2, 5, 25][seed.stream("network").random_range(0..3)];
        Self { latency_max_ms, kept_entries: 60, segment_bytes: 64 * 1024, persist_age_ms: 2_500 }
    }

    /// Everything by the seed.
    pub(crate) fn of(seed: Seed) -> Self {
        let mut stream = seed.stream("weather");
        Self {
            kept_entries: [5, 5, 20, 60, 400][stream.random_range(0..5)],
            segment_bytes: [16, 64, 256][stream.random_range(0..3)] * 1024,
            persist_age_ms: [700, 2_500][stream.random_range(0..2)],
            ..Self::of_network(seed)
        }
    }
}

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { latency_max_ms, kept_entries, segment_bytes, persist_age_ms } = self;
        write!(
            f,
            "packets take 1 to {latency_max_ms} ms; logs keep {kept_entries} entries in segments of {segment_bytes} bytes; "
        )?;
        write!(f, "groups are persisted every {persist_age_ms} ms")
    }
}
