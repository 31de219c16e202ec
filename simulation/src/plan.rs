//! Which faults happen when: drawn from the seed by a scenario, printed in the trace, explicit.

use std::fmt;

use marchland_types::GroupId;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;

/// Whom a fault befalls. Resolved when it fires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// The machine of this name.
    Machine(String),
    /// The machine whose replica leads this group then.
    LeaderOf(u64),
    /// A machine that hosts a replica of this group then, and does not lead it: of this number, counted from the leader on.
    FollowerOf(u64, u32),
    /// Of a crash point: the machine that meets it next, whichever that is.
    Whoever,
}

impl Target {
    /// The leader of a group.
    #[must_use]
    pub fn leader_of(group: GroupId) -> Self {
        Self::LeaderOf(group.0)
    }
}

/// What sets a fault off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// This many milliseconds after the load began.
    AtMs(u64),
    /// The hit of this number (1 is the next) of a crash point, counted from `after_ms`, on the target as of then. The
    /// fault happens at that very statement: a kill, or else a power loss whatever the entry says.
    AtPoint {
        /// Name of the point.
        point: String,
        /// Number of the hit.
        hit: u32,
        /// When the point is armed.
        after_ms: u64,
    },
    /// This long after such a hit: just after an acknowledgement, or between a vote and the first entry of its term.
    AfterPoint {
        /// Name of the point.
        point: String,
        /// Number of the hit.
        hit: u32,
        /// When hits are counted from.
        after_ms: u64,
        /// From the hit to the fault.
        delay_ms: u64,
    },
}

/// One planned fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// What sets it off.
    pub when: When,
    /// Whom it befalls.
    pub target: Target,
    /// What it is.
    pub fault: Fault,
    /// How long it lasts.
    pub lasts_ms: u64,
}

impl Planned {
    /// When it is looked at first.
    #[must_use]
    pub fn from_ms(&self) -> u64 {
        match &self.when {
            When::AtMs(ms) => *ms,
            When::AtPoint { after_ms, .. } | When::AfterPoint { after_ms, .. } => *after_ms,
        }
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.when {
            When::AtMs(ms) => write!(f, "at {ms} ms ")?,
            When::AtPoint { point, hit, after_ms } => write!(f, "at hit {hit} of {point} after {after_ms} ms ")?,
            When::AfterPoint { point, hit, after_ms, delay_ms } => {
                write!(f, "{delay_ms} ms after hit {hit} of {point} after {after_ms} ms ")?;
            }
        }
        match &self.target {
            Target::Machine(name) => write!(f, "{name}: ")?,
            Target::LeaderOf(group) => write!(f, "leader of {}: ", GroupId(*group))?,
            Target::FollowerOf(group, number) => write!(f, "follower {number} of {}: ", GroupId(*group))?,
            Target::Whoever => write!(f, "whoever: ")?,
        }
        write!(f, "{:?} for {} ms", self.fault, self.lasts_ms)
    }
}

/// Planned faults, in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan(pub Vec<Planned>);
