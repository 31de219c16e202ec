//! The owner's clock: proposes a tick every 50 ms, at most two in flight, and lets time dilate when that is too fast.
//!
//! ```text
//! due      |    |    |    |    |    |        every TICK_MS
//! proposed A    B    .  . C    D             C waits for A: two are in flight
//! applied         A(late)   B C              ticks come later; none is skipped, none piles up
//! ```
//!
//! The same when the other replicas do not keep up: a tick then waits until a majority is within [`STANDBY_LAG_MAX`] ticks of the owner. It does not
//! wait for ever, for the replicas may be unable to go on while the log is sound, and the world must not stand still for that.
//!
//! A region that nobody wants anything of falls asleep ([`crate::pace`]), and its raft group rests with it; one in which nobody plays ticks
//! four times a second.
//!
//! A tick that is late moves the ones after it: missed ticks are not caught up in a burst, game time just runs slower and
//! clients are told the rate.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use marchland_raft::{Group, ProposeError};
use marchland_region_core::Game;
use marchland_storage::disk::Disk;
use marchland_types::limits::{STANDBY_LAG_MAX, TICKS_IN_FLIGHT};
use marchland_types::point;
use tokio::time::{Instant, sleep_until};

use crate::executor::Executor;
use crate::machine::RegionMachine;
use crate::pace::{Next, TICK, next_due};

/// When a raft group is asked again to rest with its region.
const REST_AGAIN: Duration = Duration::from_secs(1);
/// How often an owner that waits for the others looks how far they are.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// The longest that a tick waits for them.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Proposes ticks while this replica owns its region. Runs until the group stops on this node.
pub async fn run_ticker<G: Game, D: Disk, X: Executor>(machine: Arc<RegionMachine<G, D, X>>, group: Group) {
    let mut ownership = machine.ownership();
    loop {
        if ownership.wait_for(|o| o.owner || o.stopped).await.is_err() || ownership.borrow().stopped {
            return;
        }
        // One task polls all proposals, so they enter the log in the order of their ticks.
        let mut in_flight = FuturesUnordered::new();
        let mut due = Instant::now();
        let mut waits_since = None;
        let mut rests = false;
        while ownership.borrow_and_update().owner {
            tokio::select! {
                biased;
                Some(proposed) = in_flight.next() => settle(&machine, proposed),
                // Somebody wants something of a region that rests, or owns it no more.
                () = machine.wanted(), if rests => (rests, due) = (false, Instant::now()),
                changed = ownership.changed(), if rests => {
                    rests = false;
                    if changed.is_err() {
                        return;
                    }
                }
                () = sleep_until(due), if in_flight.len() < TICKS_IN_FLIGHT => {
                    rests = false;
                    let now = Instant::now();
                    // What would be refused is not asked for: inputs stay where they are until there is room, here or elsewhere.
                    if group.is_short_of_room() {
                        due = now + LOOK_AGAIN;
                        continue;
                    }
                    if group.standby_lag() > STANDBY_LAG_MAX {
                        let since = *waits_since.get_or_insert(now);
                        if now < since + WAIT_MAX {
                            due = now + LOOK_AGAIN;
                            continue;
                        }
                    }
                    if waits_since.take().is_some() {
                        metrics::counter!("marchland_region_standby_waits_total", "group" => group.id().to_string()).increment(1);
                    }
                    match machine.next().await {
                        Next::Propose(entry, then) => {
                            due = next_due(due, then, now, machine.wall_ms(), machine.region_id());
                            machine.ticks_in(due.saturating_duration_since(Instant::now()));
                            point!("region.tick_built");
                            let group = group.clone();
                            in_flight.push(async move { group.propose(entry).await.map(drop) });
                        }
                        Next::Wait => {
                            rests = true;
                            due = now + TICK;
                        }
                        Next::Sleep(most) => {
                            rests = true;
                            // Its raft group rests with it, as soon as the others agree.
                            let is_quiet = in_flight.is_empty() && group.rest().await;
                            due = now + if is_quiet { most } else { most.min(REST_AGAIN) };
                        }
                        Next::NotOwner => due = (due + TICK).max(now),
                    }
                }
            }
        }
    }
}

/// What to do about a proposal that came back.
fn settle<G: Game, D: Disk, X: Executor>(machine: &RegionMachine<G, D, X>, proposed: Result<(), ProposeError>) {
    match proposed {
        Ok(()) => {}
        // The next owner gets the inputs from the edges, which hold them until they are acknowledged.
        Err(ProposeError::NotLeader { .. } | ProposeError::Fault { .. }) => {}
        Err(error @ (ProposeError::Refused { .. } | ProposeError::Unknown { .. })) => {
            // Inputs behind the missing ones would be gaps. The edges send everything again, from the first that is not
            // acknowledged: what was committed after all is recognised by its number.
            tracing::warn!(group = %machine.group_id(), %error, "tick not committed; edges are asked to send again");
            machine.stumble();
        }
    }
}
