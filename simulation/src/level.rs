//! How full queues get: `level!("session.replies", found, bound)` in the code under test reaches this module, which keeps the most of
//! each and tells a fact whenever there is more than ever before in this run.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::fact::{Fact, tell};
use crate::machine;

thread_local! {
    static MOST: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Starts this thread's run.
pub fn begin() {
    MOST.with(|most| most.borrow_mut().clear());
    marchland_types::points::install_levels(Some(Rc::new(stands)));
}

/// The most that was found of each.
#[must_use]
pub fn most() -> BTreeMap<String, u64> {
    MOST.with(|most| most.borrow().iter().map(|(name, found)| ((*name).to_owned(), *found)).collect())
}

fn stands(what: &'static str, found: u64, bound: u64) {
    if machine::current().is_none() || machine::is_ghost() {
        return;
    }
    let more = MOST.with(|most| {
        let mut most = most.borrow_mut();
        let before = most.entry(what).or_default();
        let more = found > *before;
        *before = found.max(*before);
        more
    });
    if more {
        tell(&Fact::Stands { what, found, bound });
    }
}
