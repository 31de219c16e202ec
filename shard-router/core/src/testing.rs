//! Running transitions over records in memory.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use bytes::Bytes;

use crate::group::{ApplyFault, Stop, Transition};
use crate::txn::{Lookup, Read};

/// Knows only what was fetched, like the shell's.
struct Fetched<'a> {
    all: &'a BTreeMap<Bytes, Bytes>,
    fetched: RefCell<BTreeSet<Bytes>>,
}

impl Read for Fetched<'_> {
    fn get(&self, key: &[u8]) -> Lookup {
        if self.fetched.borrow().contains(key) { Lookup::Known(self.all.get(key).cloned()) } else { Lookup::Missing }
    }
}

/// Applies an entry, fetching what it asks for; returns its answer and how often it asked.
pub(crate) fn apply_to<A: PartialEq + Debug>(
    records: &mut BTreeMap<Bytes, Bytes>,
    apply: impl Fn(&dyn Read) -> Result<Transition<A>, Stop>,
) -> Result<(A, usize), ApplyFault> {
    let fetched = Fetched { all: records, fetched: RefCell::default() };
    let mut rounds = 0;
    let transition = loop {
        match apply(&fetched) {
            Ok(transition) => break transition,
            Err(Stop::Fault(fault)) => return Err(fault),
            Err(Stop::Missing(keys)) => {
                rounds += 1;
                for key in keys {
                    assert!(fetched.fetched.borrow_mut().insert(key), "asked twice");
                }
            }
        }
    };
    // With everything at hand the outcome is the same.
    assert_eq!(apply(records).as_ref(), Ok(&transition));
    for (key, value) in transition.writes {
        match value {
            Some(value) => drop(records.insert(key, value)),
            None => drop(records.remove(&key)),
        }
    }
    Ok((transition.answer, rounds))
}
