//! Crash points: `point!("log.written")` in the code under test reaches this module, which counts the hits and cuts the power of
//! the machine that met an armed one, at that very statement.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::machine::{self, MachineName};
use crate::oracle;
use crate::trace::{self, Mark};

/// Power loss at a crash point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Armed {
    /// The point's name, as in the code.
    pub point: String,
    /// On this machine, or whichever comes first.
    pub machine: Option<MachineName>,
    /// At the hit of this number counted from when it was armed; 1 is the next.
    pub hits_left: u32,
    /// What happens there.
    pub then: Then,
}

/// What happens at an armed point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The power of the machine is cut.
    Cut,
    /// Its process is killed: what was written stays, synced or not.
    Kill,
    /// The machine stands still there, for this long: the next statement finds a clock that has jumped.
    Pause(Duration),
    /// The hit is told by [`take_told`], and nothing else.
    Tell,
}

/// What a machine is when it meets a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A node that leads a group other than a directory: as far as was told, the region's owner.
    Owner,
    /// Any other node that hosts replicas.
    Follower,
    /// A node that only terminates players.
    Edge,
    /// A player's machine, which runs the client's code.
    Client,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Owner => "owner",
            Self::Follower => "follower",
            Self::Edge => "edge",
            Self::Client => "client",
        })
    }
}

/// What a machine is at this moment.
fn role_of(machine: &MachineName) -> Role {
    if machine.is_edge() {
        Role::Edge
    } else if let Some(node) = machine.node() {
        if oracle::owns_any(node) { Role::Owner } else { Role::Follower }
    } else {
        Role::Client
    }
}

#[derive(Default)]
struct Points {
    hits: BTreeMap<(&'static str, Role), u64>,
    /// Points at which something befell the machine, by its role then.
    befell: BTreeMap<(&'static str, Role), u64>,
    armed: Vec<Armed>,
    fired: Vec<(String, MachineName)>,
    told: Vec<(String, MachineName)>,
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

/// Points that were armed to be told of and were met since the last call.
#[must_use]
pub fn take_told() -> Vec<(String, MachineName)> {
    POINTS.with(|points| std::mem::take(&mut points.borrow_mut().told))
}

/// How often each point was met by a machine with power, whatever its role.
#[must_use]
pub fn hits() -> BTreeMap<String, u64> {
    let mut hits = BTreeMap::new();
    POINTS.with(|points| {
        for ((name, _), times) in &points.borrow().hits {
            *hits.entry((*name).to_owned()).or_default() += times;
        }
    });
    hits
}

fn by_role(counts: &BTreeMap<(&'static str, Role), u64>) -> BTreeMap<String, u64> {
    counts.iter().map(|((name, role), times)| (format!("{name} ({role})"), *times)).collect()
}

/// How often each point was met in each role: `log.synced (owner)`.
#[must_use]
pub fn hits_by_role() -> BTreeMap<String, u64> {
    POINTS.with(|points| by_role(&points.borrow().hits))
}

/// How often a machine died or stood still at each point in each role, named likewise.
#[must_use]
pub fn fired_by_role() -> BTreeMap<String, u64> {
    POINTS.with(|points| by_role(&points.borrow().befell))
}

fn met(point: &'static str) {
    let Some(machine) = machine::current() else { return };
    if machine::is_ghost() {
        return;
    }
    let role = role_of(&machine.name);
    let fires = POINTS.with(|points| {
        let mut points = points.borrow_mut();
        *points.hits.entry((point, role)).or_default() += 1;
        let aimed_here = |a: &Armed| a.point == point && a.machine.as_ref().is_none_or(|name| *name == machine.name);
        let mut fires = None;
        let mut tells = false;
        for armed in points.armed.iter_mut().filter(|a| aimed_here(a)) {
            armed.hits_left -= 1;
            match armed.then {
                _ if armed.hits_left > 0 => {}
                Then::Tell => tells = true,
                Then::Cut => fires = Some(Then::Cut),
                Then::Kill | Then::Pause(_) => fires = fires.or(Some(armed.then)),
            }
        }
        points.armed.retain(|a| a.hits_left > 0);
        if tells {
            points.told.push((point.to_owned(), machine.name.clone()));
        }
        if fires.is_some() {
            *points.befell.entry((point, role)).or_default() += 1;
            points.fired.push((point.to_owned(), machine.name.clone()));
        }
        fires
    });
    if let Some(then) = fires {
        let mark = || Mark::PointFired { point: point.to_owned(), machine: machine.name.clone() };
        trace::event(mark, format_args!("{} met the point {point}", machine.name));
        let why = format_args!("at the point {point}");
        match then {
            Then::Cut => _ = machine.cut_power(why),
            Then::Kill => _ = machine.kill_here(why),
            Then::Pause(time) => machine.pause_here(time, why),
            Then::Tell => {}
        }
    }
}
