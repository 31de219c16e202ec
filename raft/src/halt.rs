//! An entry that a state machine can not apply, and the way past it: an order to skip it, which stands above it in the log.
//!
//! ```text
//! log        … 41  42  43  44 (skip 42)
//! applied    … 41                          42 can not be applied: the group halts. It elects and commits all the while
//! committed              43                nobody applies 43
//! committed                  44            42 is stood in for, then 43 and 44 are applied
//! ```
//!
//! An order counts when it is committed, and from then on it counts for ever: who meets entry 42 with the order in its committed log
//! stands in for it without trying. So does a replica that restores an older state and replays; who received a later state has it in there.
//! Until then the call that applies waits, and with it everything that needs the state: nothing is applied past an entry that was neither
//! applied nor skipped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use marchland_types::{GroupId, LogIndex};
use tokio::sync::watch;

use crate::api::{BoxFuture, Halt, Machine};

/// How a halt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The state is to be restored, and the entry met again: it is to be skipped now, or may work this time.
    Again,
    /// A peer's state, which is past the entry, is about to replace this one.
    Superseded,
    /// The group stops on this node.
    Closing,
}

/// What is known of entries that are to be skipped in one group's log.
pub(crate) struct Halts {
    group: GroupId,
    machine: OnceLock<Arc<dyn Machine>>,
    /// Orders in the log, by their own index: which entry each is about. Bounded by the log that is in memory.
    orders: Mutex<BTreeMap<LogIndex, LogIndex>>,
    committed: watch::Sender<Option<LogIndex>>,
    halted: watch::Sender<Option<Halt>>,
    superseded: watch::Sender<bool>,
    closing: watch::Sender<bool>,
}

impl Halts {
    pub(crate) fn new(group: GroupId) -> Self {
        Self {
            group,
            machine: OnceLock::new(),
            orders: Mutex::default(),
            committed: watch::Sender::new(None),
            halted: watch::Sender::new(None),
            superseded: watch::Sender::new(false),
            closing: watch::Sender::new(false),
        }
    }

    fn orders(&self) -> MutexGuard<'_, BTreeMap<LogIndex, LogIndex>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on, commands are asked for orders. `committed` is how far the log is known to be committed.
    pub(crate) fn follow(&self, machine: Arc<dyn Machine>, committed: Option<LogIndex>) {
        // A second machine for the same log: the first one could not be opened, and reads orders alike.
        let _ = self.machine.set(machine);
        self.committed.send_replace(committed);
    }

    /// A command was appended.
    pub(crate) fn appended(&self, index: LogIndex, command: &[u8]) {
        if let Some(about) = self.machine.get().and_then(|machine| machine.skips(command)) {
            self.orders().insert(index, about);
        }
    }

    /// Entries above this one went.
    pub(crate) fn truncated(&self, after: Option<LogIndex>) {
        self.orders().retain(|at, _| after.is_some_and(|after| *at <= after));
    }

    /// Entries up to this one went.
    pub(crate) fn purged(&self, upto: LogIndex) {
        self.orders().retain(|at, _| *at > upto);
    }

    pub(crate) fn committed(&self, upto: Option<LogIndex>) {
        self.committed.send_if_modified(|now| {
            let more = upto > *now;
            *now = upto.max(*now);
            more
        });
    }

    /// Whether an order to skip this entry is committed.
    pub(crate) fn is_skipped(&self, index: LogIndex) -> bool {
        let committed = *self.committed.borrow();
        self.orders().iter().any(|(at, about)| *about == index && *at > index && Some(*at) <= committed)
    }

    /// Where this replica halts.
    pub(crate) fn halted(&self) -> Option<Halt> {
        self.halted.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Option<Halt>> {
        self.halted.subscribe()
    }

    /// Waits for the way on.
    pub(crate) async fn park(&self, halt: &Halt, mut recovered: BoxFuture<'static, ()>) -> Way {
        tracing::error!(
            group = %self.group, entry = %halt.index, reason = halt.reason,
            "group halts on this node: its state machine can not apply an entry; it waits for an order to skip it"
        );
        self.halted.send_replace(Some(halt.clone()));
        let (mut committed, mut superseded, mut closing) =
            (self.committed.subscribe(), self.superseded.subscribe(), self.closing.subscribe());
        loop {
            if *closing.borrow_and_update() {
                return Way::Closing;
            }
            if *superseded.borrow_and_update() {
                return Way::Superseded;
            }
            committed.mark_unchanged();
            if self.is_skipped(halt.index) {
                tracing::warn!(group = %self.group, entry = %halt.index, "an order to skip the entry is committed");
                return Way::Again;
            }
            // The senders are this object's own: none of them goes while it waits.
            tokio::select! {
                biased;
                _ = closing.changed() => {}
                _ = superseded.changed() => {}
                _ = committed.changed() => {}
                () = &mut recovered => return Way::Again,
            }
        }
    }

    /// The entry is past.
    pub(crate) fn resumed(&self) {
        if self.halted.send_if_modified(|halt| halt.take().is_some()) {
            tracing::warn!(group = %self.group, "group goes on on this node");
        }
    }

    /// A peer's state up to `upto` is about to be installed. A group that halts makes way for it if it is past everything that is
    /// committed here, for only then is it taken. Tells whether the group does.
    pub(crate) fn supersede(&self, upto: Option<LogIndex>) -> bool {
        let way = self.halted.borrow().is_some() && upto > *self.committed.borrow();
        if way {
            self.superseded.send_replace(true);
        }
        way
    }

    /// Whether entries are passed over until a peer's state arrives.
    pub(crate) fn is_superseded(&self) -> bool {
        *self.superseded.borrow()
    }

    /// The peer's state is there.
    pub(crate) fn installed(&self) {
        self.superseded.send_replace(false);
        self.resumed();
    }

    /// The group stops on this node.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }
}
