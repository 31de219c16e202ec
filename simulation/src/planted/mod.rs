//! Planted bugs: what they are, in which scenario they are looked for, and how many seeds that may take.
//!
//! Each is a line `planted!("name")` in the code of Marchland. A bug that is not found within its budget is a hole in the
//! instrument: a fault, a crash point or an invariant is missing. To add one: its line in the code, and a line in [`ALL`].

/// A planted bug.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    /// As in the code.
    pub name: &'static str,
    /// What somebody got wrong.
    pub mistake: &'static str,
    /// The scenario that is run.
    pub scenario: &'static str,
    /// Seeds within which it must be found, from whichever seed on.
    pub budget: u64,
}

const fn bug(name: &'static str, scenario: &'static str, budget: u64, mistake: &'static str) -> Bug {
    Bug { name, mistake, scenario, budget }
}

/// Every planted bug.
pub const ALL: &[Bug] = &[
    bug("ack-before-fsync", "counter", 100, "entries are acknowledged when they are written, not when they are synced"),
    bug("vote-not-synced", "counter", 1_000, "a vote is answered when it is written, not when it is synced"),
    bug("vote-lost-with-segment", "counter", 1_000, "a new segment of the log does not repeat the votes of the older ones"),
    bug("leader-restored", "counter", 200, "a leader that restarts goes on in its own term"),
    bug("unsynced-recovered", "counter", 1_000, "recovery reports what a killed process had written without syncing it"),
    bug("torn-tail-accepted", "counter", 100, "the checksum of a batch's payload is not compared"),
];

/// The bug of this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Bug> {
    ALL.iter().find(|bug| bug.name == name)
}
