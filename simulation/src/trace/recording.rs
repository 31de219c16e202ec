//! A run as a drawing needs it: every line with its time, its lane and what it is about.

use std::time::Duration;

use super::Mark;

/// What the reader of a trace is told first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The scenario's name.
    pub scenario: String,
    /// What it is for.
    pub purpose: String,
    /// The seed.
    pub seed: u64,
    /// The command that repeats the run.
    pub command: String,
}

/// A line of the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When, since the simulation began.
    pub at: Duration,
    /// The machine that was running, or `-` for the driver.
    pub lane: String,
    /// What it is about.
    pub mark: Mark,
    /// For people.
    pub text: String,
}

/// A run, as far as it was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// Of what.
    pub about: About,
    /// What happened, in order.
    pub entries: Vec<Entry>,
    /// Hash of the whole trace; empty while it is being recorded.
    pub hash: String,
}

impl Recording {
    /// A recording without entries.
    #[must_use]
    pub fn of(about: About) -> Self {
        Self { about, ..Self::default() }
    }

    /// The first violation: when, which invariant, what was found.
    #[must_use]
    pub fn violation(&self) -> Option<(Duration, &str, &str)> {
        self.entries.iter().find_map(|entry| match &entry.mark {
            Mark::Violation { invariant, what } => Some((entry.at, invariant.as_str(), what.as_str())),
            _ => None,
        })
    }
}
