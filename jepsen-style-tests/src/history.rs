//! What happened, in the order in which it was noticed: one JSON object a line, one monotonic clock.
//!
//! Players note facts, never opinions: what they sent, what came back, what they were shown. Faults are in the same stream.
//! The writer keeps every line in memory, too, because the checker wants all of them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// What a player can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// Walks.
    Move,
    /// Takes ore: mints an item.
    Gather,
    /// Lays down the item with this id.
    Drop {
        /// Which.
        item: u64,
    },
    /// Takes whatever item lies nearest.
    PickUp,
    /// Asks what it holds.
    Inventory,
}

impl Op {
    /// Name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Op::Move => "move",
            Op::Gather => "gather",
            Op::Drop { .. } => "drop",
            Op::PickUp => "pick-up",
            Op::Inventory => "inventory",
        }
    }
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum Fact {
    /// A connection was made and the session is attached.
    Attached {
        /// Address of the edge.
        edge: String,
        /// Of which character.
        character: u64,
        /// Session epoch.
        epoch: u64,
        /// Attach number in force.
        attach: u32,
        /// The number that the server expects next.
        next_seq: u64,
        /// With the secret, not by a sign-in.
        resumed: bool,
    },
    /// The first tick that was shown after attaching.
    Shown {
        /// The tick.
        tick: u64,
    },
    /// The connection is gone.
    Lost {
        /// Why.
        reason: String,
        /// The newest tick that was shown.
        tick: u64,
    },
    /// A command was handed to the socket.
    Invoke {
        /// Session epoch.
        epoch: u64,
        /// Its number.
        seq: u64,
        /// What.
        op: Op,
    },
    /// The server said that every command up to here is committed.
    Applied {
        /// Session epoch.
        epoch: u64,
        /// Up to here.
        upto: u64,
    },
    /// The answer to a command.
    Reply {
        /// Session epoch.
        epoch: u64,
        /// Number of the reply.
        reply_seq: u64,
        /// Of the command; 0 for an event.
        command_seq: u64,
        /// 0 is success.
        code: u32,
        /// Items that it names.
        items: Vec<u64>,
    },
    /// A correct server never does this.
    Broken {
        /// What.
        what: String,
    },
    /// Everything that was sent is answered, and this is what the player holds.
    Settled {
        /// Session epoch.
        epoch: u64,
        /// Committed up to here.
        applied: u64,
        /// What it holds, as it was told last.
        items: Vec<u64>,
    },
    /// The cluster serves again.
    Healed,
    /// Something was done to the cluster.
    Fault {
        /// What.
        what: String,
    },
}

/// A fact, with who noticed it and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Nanoseconds since the run began.
    pub t_ns: u64,
    /// A player's name, or `nemesis`.
    pub who: String,
    /// What.
    #[serde(flatten)]
    pub fact: Fact,
}

/// Collects events. Cheap to clone; every clone writes to the same history.
#[derive(Clone)]
pub struct History {
    begun: Instant,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    events: Vec<Event>,
    file: BufWriter<File>,
}

impl History {
    /// A new history, written to `path` as it grows.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        let file = BufWriter::new(File::create(path)?);
        Ok(Self { begun: Instant::now(), inner: Arc::new(Mutex::new(Inner { events: Vec::new(), file })) })
    }

    /// Notes a fact.
    pub fn note(&self, who: &str, fact: Fact) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken under the lock, so that times grow along the file.
        let t_ns = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let event = Event { t_ns, who: who.to_owned(), fact };
        let written = serde_json::to_writer(&mut inner.file, &event).map_err(std::io::Error::from);
        if let Err(error) = written.and_then(|()| inner.file.write_all(b"\n")) {
            eprintln!("history: {error}");
        }
        inner.events.push(event);
    }

    /// How many facts there are of some sort.
    pub fn count(&self, sort: impl Fn(&Fact) -> bool) -> usize {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.events.iter().filter(|event| sort(&event.fact)).count()
    }

    /// Everything so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = inner.file.flush() {
            eprintln!("history: {error}");
        }
        inner.events.clone()
    }
}

/// Reads a history from its file.
pub fn read(path: &Path) -> anyhow::Result<Vec<Event>> {
    let text = std::fs::read_to_string(path)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_back_as_they_were_noted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.jsonl");
        let history = History::create(&path).unwrap();
        history.note("ada", Fact::Invoke { epoch: 1, seq: 1, op: Op::Drop { item: 5 } });
        history.note("nemesis", Fact::Fault { what: "kill -9 of all".into() });
        history.note("ada", Fact::Reply { epoch: 1, reply_seq: 1, command_seq: 1, code: 0, items: vec![5] });
        let events = history.events();
        assert_eq!(read(&path).unwrap(), events);
        assert!(events.is_sorted_by_key(|event| event.t_ns));
        assert_eq!(events.len(), 3);
    }
}
