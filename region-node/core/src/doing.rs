//! What a region is doing right now, to be read from outside while it does it: the one way to learn which rule does not return.
//!
//! Not part of the state, and nothing in the region reads it. Written by the thread that applies, read by any other.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use marchland_types::{CharacterId, EntityId, GroupId, LogIndex, Tick};

/// A handler of the game.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// [`crate::Game::genesis`].
    Genesis,
    /// [`crate::Game::enter`] or [`crate::Game::entered`].
    Enter(CharacterId),
    /// [`crate::Game::leaving`].
    Leaving(EntityId),
    /// [`crate::Game::command`]: who, and the action's code.
    Command(EntityId, u32),
    /// [`crate::Game::timer`]: its code.
    Timer(u32),
    /// [`crate::Game::tick`].
    Tick,
    /// [`crate::Game::letter`]: from whom, and its code.
    Letter(GroupId, u32),
    /// [`crate::Game::order`]: its code.
    Order(u32),
    /// [`crate::Game::departing`].
    Departing(EntityId),
    /// [`crate::Game::arrived`].
    Arrived(EntityId),
    /// [`crate::Game::returned`]: from whom, and the message's code.
    Returned(GroupId, u32),
}

impl Handler {
    fn parts(self) -> (u32, u32, u64) {
        match self {
            Self::Genesis => (1, 0, 0),
            Self::Enter(character) => (2, 0, character.0),
            Self::Leaving(entity) => (3, 0, entity.0),
            Self::Command(who, code) => (4, code, who.0),
            Self::Timer(code) => (5, code, 0),
            Self::Tick => (6, 0, 0),
            Self::Letter(from, code) => (7, code, from.0),
            Self::Order(code) => (8, code, 0),
            Self::Departing(entity) => (9, 0, entity.0),
            Self::Arrived(entity) => (10, 0, entity.0),
            Self::Returned(from, code) => (11, code, from.0),
        }
    }

    fn of(kind: u32, code: u32, who: u64) -> Option<Self> {
        Some(match kind {
            1 => Self::Genesis,
            2 => Self::Enter(CharacterId(who)),
            3 => Self::Leaving(EntityId(who)),
            4 => Self::Command(EntityId(who), code),
            5 => Self::Timer(code),
            6 => Self::Tick,
            7 => Self::Letter(GroupId(who), code),
            8 => Self::Order(code),
            9 => Self::Departing(EntityId(who)),
            10 => Self::Arrived(EntityId(who)),
            11 => Self::Returned(GroupId(who), code),
            _ => return None,
        })
    }
}

impl fmt::Display for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Genesis => write!(f, "the genesis"),
            Self::Enter(character) => write!(f, "the entrance of character {character}"),
            Self::Leaving(entity) => write!(f, "the leaving of entity {entity}"),
            Self::Command(who, code) => write!(f, "action {code} of entity {who}"),
            Self::Timer(code) => write!(f, "a timer with code {code}"),
            Self::Tick => write!(f, "the game's tick"),
            Self::Letter(from, code) => write!(f, "a message with code {code} from {from}"),
            Self::Order(code) => write!(f, "an order with code {code}"),
            Self::Departing(entity) => write!(f, "the departure of entity {entity}"),
            Self::Arrived(entity) => write!(f, "the arrival of entity {entity}"),
            Self::Returned(from, code) => write!(f, "a message with code {code} that {from} sent back"),
        }
    }
}

/// What a region is doing.
#[derive(Debug, Default)]
pub struct Doing {
    entry: AtomicU64,
    tick: AtomicU64,
    kind: AtomicU32,
    code: AtomicU32,
    who: AtomicU64,
}

impl Doing {
    pub(crate) fn begin(&self, entry: LogIndex, tick: Tick) {
        self.tick.store(tick.0, Ordering::Relaxed);
        self.entry.store(entry.0, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.handler(None);
        self.entry.store(0, Ordering::Relaxed);
    }

    pub(crate) fn handler(&self, handler: Option<Handler>) {
        let (kind, code, who) = handler.map_or((0, 0, 0), Handler::parts);
        // Who reads meanwhile may see parts of two handlers. What is looked for does not return, and is seen whole.
        self.code.store(code, Ordering::Relaxed);
        self.who.store(who, Ordering::Relaxed);
        self.kind.store(kind, Ordering::Relaxed);
    }

    /// The entry that is being applied, and the last tick before it.
    #[must_use]
    pub fn entry(&self) -> Option<(LogIndex, Tick)> {
        let entry = self.entry.load(Ordering::Relaxed);
        (entry != 0).then(|| (LogIndex(entry), Tick(self.tick.load(Ordering::Relaxed))))
    }

    /// The handler that is running.
    #[must_use]
    pub fn running(&self) -> Option<Handler> {
        let (kind, code) = (self.kind.load(Ordering::Relaxed), self.code.load(Ordering::Relaxed));
        Handler::of(kind, code, self.who.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_is_read_as_it_was_written() {
        let doing = Doing::default();
        assert_eq!((doing.entry(), doing.running()), (None, None));
        let all = [
            Handler::Genesis,
            Handler::Enter(CharacterId(7)),
            Handler::Leaving(EntityId(1 << 40)),
            Handler::Command(EntityId(3), 9),
            Handler::Timer(4),
            Handler::Tick,
            Handler::Letter(GroupId(u64::MAX), 13),
            Handler::Order(2),
            Handler::Departing(EntityId(5)),
            Handler::Arrived(EntityId(6)),
            Handler::Returned(GroupId(9), 1),
        ];
        for handler in all {
            doing.handler(Some(handler));
            assert_eq!(doing.running(), Some(handler));
        }
        doing.handler(None);
        assert_eq!(doing.running(), None);
        doing.begin(LogIndex(5), Tick(4));
        assert_eq!(doing.entry(), Some((LogIndex(5), Tick(4))));
        doing.end();
        assert_eq!(doing.entry(), None);
    }
}
