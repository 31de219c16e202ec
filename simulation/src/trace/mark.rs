//! What a line of the trace is about, for those who draw it. A line's text is for people; nobody parses it.

use crate::fact::Fact;
use crate::machine::MachineName;

/// What a line is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Nothing that is drawn.
    Note,
    /// The code under test said it, at this level.
    Log(tracing::Level),
    /// An event or span of any library: only at [`super::Detail::Everything`].
    Library,
    /// A fact.
    Fact(Fact),
    /// A property of the world that was drawn from the seed.
    World {
        /// What it is.
        name: String,
        /// How it came out.
        value: String,
    },
    /// A fault of the plan.
    Planned,
    /// A machine is in another state from here on.
    Machine {
        /// Which.
        name: MachineName,
        /// What it does now.
        state: MachineState,
    },
    /// A fault begins.
    FaultBegins {
        /// Its number in this run.
        number: u64,
        /// Its kind.
        name: String,
        /// Whom it befalls.
        target: MachineName,
    },
    /// A fault is over.
    FaultEnds {
        /// Its number in this run.
        number: u64,
    },
    /// A crash point cut a machine's power.
    PointFired {
        /// Which point.
        point: String,
        /// Whose power.
        machine: MachineName,
    },
    /// Faults are over: the quiet phase begins.
    Quiet,
    /// An invariant does not hold.
    Violation {
        /// Which.
        invariant: String,
        /// What was found.
        what: String,
    },
}

/// What a machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineState {
    /// Its software runs, in the boot of this number.
    Up {
        /// From 1.
        boot: u32,
    },
    /// It has lost power, and falls.
    Ghost,
    /// It stands still, with power.
    Paused,
    /// Its software has returned.
    Exited,
    /// It is down.
    Down,
}

impl MachineState {
    /// As it stands in drawings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Up { .. } => "up",
            Self::Ghost => "ghost",
            Self::Paused => "paused",
            Self::Exited => "exited",
            Self::Down => "down",
        }
    }
}

impl Mark {
    /// A short word for the kind of line, by which lists are sorted and filtered.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Log(tracing::Level::ERROR) => "error",
            Self::Log(tracing::Level::WARN) => "warn",
            Self::Log(_) => "log",
            Self::Library => "library",
            Self::Fact(fact) => fact.kind(),
            Self::World { .. } => "world",
            Self::Planned => "plan",
            Self::Machine { .. } => "machine",
            Self::FaultBegins { .. } | Self::FaultEnds { .. } => "fault",
            Self::PointFired { .. } => "point",
            Self::Quiet => "phase",
            Self::Violation { .. } => "VIOLATED",
        }
    }

    /// Whether lines like it come by the hundred every second, so that a summary says more than each of them.
    #[must_use]
    pub fn is_flood(&self) -> bool {
        let fact = |fact: &Fact| {
            let of_frames = matches!(fact, Fact::Shown { .. } | Fact::Acknowledged { .. });
            of_frames || matches!(fact, Fact::StateHash { .. } | Fact::Applied { .. } | Fact::Stands { .. })
        };
        matches!(self, Self::Fact(told) if fact(told)) || *self == Self::Library
    }
}
