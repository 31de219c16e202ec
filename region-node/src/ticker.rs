//! The owner's clock: proposes a tick every 50 ms, at most two in flight, and lets time dilate when that is too fast.
//!
//! ```text
//! due      |    |    |    |    |    |        every TICK_MS
//! proposed A    B    .  . C    D             C waits for A: two are in flight
//! applied         A(late)   B C              ticks come later; none is skipped, none piles up
//! ```
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
use marchland_types::limits::{TICK_MS, TICKS_IN_FLIGHT};
use marchland_types::point;
use tokio::time::{Instant, sleep_until};

use crate::executor::Executor;
use crate::machine::RegionMachine;

const TICK: Duration = Duration::from_millis(TICK_MS);

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
        while ownership.borrow_and_update().owner {
            tokio::select! {
                biased;
                Some(proposed) = in_flight.next() => settle(&machine, proposed),
                () = sleep_until(due), if in_flight.len() < TICKS_IN_FLIGHT => {
                    // Late ticks move the ones after them; early ones keep the beat.
                    due = (due + TICK).max(Instant::now());
                    let Some(entry) = machine.next_tick().await else { continue };
                    point!("region.tick_built");
                    let group = group.clone();
                    in_flight.push(async move { group.propose(entry).await.map(drop) });
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
