//! Waits for a region to apply entries, and notices when a rule does not return.
//!
//! Time is counted in beats of its own, not by a clock: a process that was stopped for a minute has not looped for a minute, and a node
//! without a processor to spare counts more slowly. Nothing here touches the state; what to do about a rule that does not return is for
//! the caller to decide, and in the end for an operator.

use std::time::Duration;

use futures::FutureExt;
use marchland_raft::Halt;
use marchland_region_core::Doing;
use marchland_types::{GroupId, Tick};

/// How long rules may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepBudget {
    /// An entry that took longer is counted.
    pub step: Duration,
    /// An entry that is not applied after this long is given up: the region halts there, on this node.
    pub stuck: Duration,
}

impl Default for StepBudget {
    fn default() -> Self {
        Self { step: Duration::from_millis(marchland_types::limits::TICK_MS), stuck: Duration::from_secs(5) }
    }
}

const BEAT: Duration = Duration::from_millis(100);
/// From here on, others on the same worker are served by a fresh thread.
const SLOW_BEATS: u32 = 3;

/// Waits for the end of a job that applies entries, or for one of them to take `budget.stuck`. Long before that, `slow` is called: others
/// wait for the same worker.
pub(crate) async fn watch<T>(
    group: GroupId,
    budget: StepBudget,
    doing: &Doing,
    slow: impl Fn(),
    job: impl Future<Output = T>,
) -> Result<T, Halt> {
    let mut job = std::pin::pin!(job);
    // Where jobs run at once there is nothing to watch, and no timer to start.
    if let Some(done) = (&mut job).now_or_never() {
        return Ok(done);
    }
    let (mut beats, mut last, mut told) = (0u32, None, false);
    loop {
        tokio::select! {
            biased;
            done = &mut job => return Ok(done),
            () = tokio::time::sleep(BEAT) => {}
        }
        let now = doing.entry();
        if now != last {
            (beats, last, told) = (0, now, false);
        }
        let Some((index, tick)) = now else { continue };
        beats += 1;
        if beats == SLOW_BEATS {
            slow();
        }
        if BEAT * beats >= budget.stuck {
            return Err(Halt { index, reason: said(doing, tick, budget.stuck) });
        }
        if !told && BEAT * beats >= budget.stuck / 5 {
            told = true;
            tracing::warn!(%group, entry = %index, "rules take long: {}", said(doing, tick, BEAT * beats));
        }
    }
}

fn said(doing: &Doing, tick: Tick, after: Duration) -> String {
    let what = doing.running().map_or_else(|| "no handler of the game".to_owned(), |handler| handler.to_string());
    format!("tick {}: {what} has not returned after {after:?}", tick.next())
}
