//! Holds the invariants of this thread's run, gives them every fact, and keeps the first violation.

use std::cell::RefCell;
use std::collections::BTreeMap;

use marchland_types::{GroupId, GroupKind, NodeId, ReplicaId, Term};
use serde::{Deserialize, Serialize};

use crate::fact::Fact;
use crate::invariant::Invariant;
use crate::trace::{self, Mark};

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{invariant}: {what}")]
pub struct Violation {
    /// Its name.
    pub invariant: String,
    /// What was found and what was expected.
    pub what: String,
}

impl Violation {
    /// A violation of the invariant with this name.
    pub fn new(invariant: &str, what: impl std::fmt::Display) -> Self {
        Self { invariant: invariant.to_owned(), what: what.to_string() }
    }
}

#[derive(Default)]
struct Oracle {
    invariants: Vec<Box<dyn Invariant>>,
    violation: Option<Violation>,
    leaders: BTreeMap<GroupId, (Term, ReplicaId)>,
}

thread_local! {
    static ORACLE: RefCell<Oracle> = RefCell::new(Oracle::default());
}

/// Starts over with these invariants.
pub fn begin(invariants: Vec<Box<dyn Invariant>>) {
    ORACLE.with(|oracle| *oracle.borrow_mut() = Oracle { invariants, ..Oracle::default() });
}

/// Gives a fact to every invariant.
pub(crate) fn hear(fact: &Fact) {
    let found = ORACLE.with(|oracle| {
        let oracle = &mut *oracle.borrow_mut();
        if let Fact::Leads { group, term, replica } = fact {
            let newest = oracle.leaders.entry(*group).or_insert((*term, *replica));
            if newest.0 <= *term {
                *newest = (*term, *replica);
            }
        }
        oracle
            .invariants
            .iter_mut()
            .find_map(|invariant| invariant.hear(fact).err().map(|what| Violation::new(invariant.name(), what)))
    });
    if let Some(violation) = found {
        report(violation);
    }
}

/// Keeps a violation, if it is the first.
pub fn report(violation: Violation) {
    let mark = || Mark::Violation { invariant: violation.invariant.clone(), what: violation.what.clone() };
    trace::event(mark, format_args!("VIOLATION of {violation}"));
    ORACLE.with(|oracle| {
        oracle.borrow_mut().violation.get_or_insert(violation);
    });
}

/// The first violation so far.
#[must_use]
pub fn violation() -> Option<Violation> {
    ORACLE.with(|oracle| oracle.borrow().violation.clone())
}

/// Asks every invariant for its last word. Call it once, after the final facts.
pub fn conclude() {
    let found: Vec<Violation> = ORACLE.with(|oracle| {
        let oracle = &mut *oracle.borrow_mut();
        let last =
            |invariant: &mut Box<dyn Invariant>| invariant.conclude().err().map(|what| Violation::new(invariant.name(), what));
        oracle.invariants.iter_mut().filter_map(last).collect()
    });
    for violation in found {
        report(violation);
    }
}

/// Whether a node leads a group that is neither a directory nor the realm, as far as it was told.
#[must_use]
pub fn owns_any(node: NodeId) -> bool {
    let owned = |(group, (_, replica)): (&GroupId, &(Term, ReplicaId))| {
        !matches!(group.kind(), Some(GroupKind::Realm | GroupKind::Directory)) && replica.node() == node
    };
    ORACLE.with(|oracle| oracle.borrow().leaders.iter().any(owned))
}

/// Who leads a group, as far as it was told.
#[must_use]
pub fn leader_of(group: GroupId) -> Option<ReplicaId> {
    ORACLE.with(|oracle| oracle.borrow().leaders.get(&group).map(|(_, replica)| *replica))
}
