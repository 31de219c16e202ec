//! Crash points: `point!("log.written")` in the code under test reaches this module, which counts the hits and cuts the power of
//! the machine that met an armed one, at that very statement.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::machine::{self, MachineName};

/// Power loss at a crash point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Armed {
    /// The point's name, as in the code.
    pub point: String,
    /// On this machine, or whichever comes first.
    pub machine: Option<MachineName>,
    /// At the hit of this number counted from when it was armed; 1 is the next.
    pub hits_left: u32,
}

#[derive(Default)]
struct Points {
    hits: BTreeMap<&'static str, u64>,
    armed: Vec<Armed>,
    fired: Vec<(String, MachineName)>,
}

thread_local! {
    static POINTS: RefCell<Points> = RefCell::new(Points::default());
}

/// Starts this thread's counts, with nothing armed.
pub fn begin() {
    POINTS.with(|points| *points.borrow_mut() = Points::default());
    marchland_types::points::install(Some(Rc::new(met)));
}

/// Arms a point.
pub fn arm(armed: Armed) {
    POINTS.with(|points| points.borrow_mut().armed.push(armed));
}

/// Disarms everything.
pub fn disarm() {
    POINTS.with(|points| points.borrow_mut().armed.clear());
}

/// Points that cut the power of a machine since the last call.
#[must_use]
pub fn take_fired() -> Vec<(String, MachineName)> {
    POINTS.with(|points| std::mem::take(&mut points.borrow_mut().fired))
}

/// How often each point was met by a machine with power.
#[must_use]
pub fn hits() -> BTreeMap<String, u64> {
    POINTS.with(|points| points.borrow().hits.iter().map(|(name, times)| ((*name).to_owned(), *times)).collect())
}

fn met(point: &'static str) {
    let Some(machine) = machine::current() else { return };
    if machine::is_ghost() {
        return;
    }
    let fires = POINTS.with(|points| {
        let mut points = points.borrow_mut();
        *points.hits.entry(point).or_default() += 1;
        let aimed_here = |a: &Armed| a.point == point && a.machine.as_ref().is_none_or(|name| *name == machine.name);
        let mut fires = false;
        for armed in points.armed.iter_mut().filter(|a| aimed_here(a)) {
            armed.hits_left -= 1;
            fires |= armed.hits_left == 0;
        }
        points.armed.retain(|a| a.hits_left > 0);
        if fires {
            points.fired.push((point.to_owned(), machine.name.clone()));
        }
        fires
    });
    if fires {
        machine.cut_power(format_args!("at the point {point}"));
    }
}
