//! Planted bugs: what they are, in which scenario they are looked for, and how many seeds that may take.
//!
//! Each is a line `planted!("name")` in the code of Marchland. A bug that is not found within its budget is a hole in the
//! instrument: a fault, a crash point or an invariant is missing. To add one: its line in the code, and a line in [`ALL`].

pub mod search;

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
    bug("ack-before-fsync", "counter", 200, "entries are acknowledged when they are written, not when they are synced"),
    bug("vote-not-synced", "counter", 1_000, "a vote is answered when it is written, not when it is synced"),
    bug("vote-lost-with-segment", "counter", 300, "a new segment of the log does not repeat the votes of the older ones"),
    bug("leader-restored", "counter", 100, "a leader that restarts goes on in its own term"),
    bug("log-cleared-id-kept", "counter", 300, "a replica that lost its store clears its log, too, and goes on under its id"),
    bug("unsynced-recovered", "counter", 300, "recovery reports what a killed process had written without syncing it"),
    bug("torn-tail-accepted", "counter", 300, "the checksum of a batch's payload is not compared"),
    bug("stale-read", "counter", 200, "whoever thinks that it leads answers reads without asking a majority"),
    bug("unknown-taken-for-done", "counter", 300, "a proposal whose outcome is unknown is acknowledged"),
    bug("command-applied-twice", "standard", 200, "an action that comes again after a failover is carried out again"),
    bug("command-gap-accepted", "standard", 500, "commands that an owner lost are passed over when later ones come"),
    bug("gap-accepted", "standard", 500, "a message that got no answer is passed over, by the sender and by the receiver"),
    bug("outbox-trimmed-early", "standard", 300, "a channel is trimmed when messages are sent, not when they are taken"),
    bug("counters-not-in-checkpoint", "standard", 50, "a checkpoint does not say which messages were taken"),
    bug("reply-not-kept", "standard", 200, "a reply is forgotten when it is published, not when the client acknowledged it"),
    bug("late-frame", "standard", 500, "an edge shows a batch of an owner that was replaced"),
    bug("delayed-attach", "standard", 500, "an attach that a newer one has overtaken counts"),
    bug("odd-leader-obeyed", "odd-replica", 50, "a replica whose state is not the majority's goes on, the owner's included"),
    bug("handoff-releases-after-activating", "borders", 50, "an entity that is handed off goes on living in its old region"),
    bug("handoff-forgets-session", "borders", 50, "a character is handed off without its session"),
    bug("stale-location-update", "borders", 500, "of two reports where a character is, the one that comes last counts"),
    bug("sleep-not-in-checkpoint", "asleep", 50, "a replica that restores a checkpoint does not know that its region sleeps"),
    bug("rest-outlives-leader", "asleep", 50, "a group at rest does not wake when its leader's node is gone"),
    bug("realm-issues-twice", "lost-folder", 50, "a new folder is issued its node's newest incarnation, not the next one"),
    bug("panicking-entry", "standard", 50, "an entry panics while it is applied"),
    bug("hash-map-order", "standard", 50, "a step goes through a hash map, whose order is another one on every replica"),
];

/// The bug of this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Bug> {
    ALL.iter().find(|bug| bug.name == name)
}
