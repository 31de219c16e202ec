//! Liveness: at most [`AGAIN_WITHIN`] after the last fault has ended, every client that has joined is shown something, and from then on
//! nobody waits for longer than that.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Invariant;
use crate::fact::{ClientId, Fact};
use crate::interpose;

/// An election (0.8 s), the boot of whatever was down, the longest pause between two attempts of client, edge and raft to reach
/// somebody who was gone, and a snapshot if need be.
const AGAIN_WITHIN: Duration = Duration::from_millis(4_500);

#[derive(Default)]
pub(super) struct ServedAgain {
    quiet_at: Option<Duration>,
    /// Each person's newest session, and when it was shown something last.
    shown: BTreeMap<u64, (ClientId, Duration)>,
}

impl Invariant for ServedAgain {
    fn name(&self) -> &'static str {
        "served-again"
    }

    fn hear(&mut self, fact: &Fact) -> Result<(), String> {
        let now = interpose::driver_time();
        match fact {
            Fact::Quiet => {
                self.quiet_at = Some(now);
                Ok(())
            }
            Fact::Joined { client, .. } => {
                self.shown.entry(client.person()).or_insert((*client, now)).0 = *client;
                Ok(())
            }
            Fact::Shown { client, .. } => {
                let before = self.shown.insert(client.person(), (*client, now));
                match (before, self.quiet_at) {
                    (Some((_, before)), Some(quiet_at)) => waited(*client, before.max(quiet_at), now),
                    _ => Ok(()),
                }
            }
            // The last one is looked at when the quiet phase ends.
            Fact::Served { client, .. } => match (self.shown.get(&client.person()), self.quiet_at) {
                (Some((_, before)), Some(quiet_at)) => waited(*client, (*before).max(quiet_at), now),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

fn waited(client: ClientId, since: Duration, now: Duration) -> Result<(), String> {
    let time = now.saturating_sub(since);
    if time <= AGAIN_WITHIN {
        return Ok(());
    }
    Err(format!("{client} waited {time:?} for a frame although there were no faults, at most {AGAIN_WITHIN:?} expected"))
}

#[cfg(test)]
mod tests {
    use marchland_types::{CommandSeq, RegionId, Tick};

    use super::super::testing::verdict_at;
    use super::*;

    #[test]
    fn a_client_that_waits_too_long_in_quiet_times_is_found() {
        let client = ClientId::of(1, 1);
        let joined = Fact::Joined { client, resumed: false, attach: 1 };
        let shown = Fact::Shown { client, region: RegionId(1), tick: Tick(1), applied: CommandSeq(0) };
        let served = Fact::Served { client, times: 1 };
        let at =
            |s: &[(u64, &Fact)]| s.iter().map(|(ms, fact)| (Duration::from_millis(*ms), (*fact).clone())).collect::<Vec<_>>();
        let good = at(&[(0, &joined), (10, &shown), (20_000, &Fact::Quiet), (24_000, &shown), (25_000, &served)]);
        assert_eq!(verdict_at(ServedAgain::default(), &good), Ok(()));
        let late = at(&[(0, &joined), (10, &shown), (20_000, &Fact::Quiet), (24_600, &shown)]);
        assert!(verdict_at(ServedAgain::default(), &late).is_err());
        let never = at(&[(0, &joined), (10, &shown), (20_000, &Fact::Quiet), (25_000, &served)]);
        assert!(verdict_at(ServedAgain::default(), &never).is_err());
    }
}
