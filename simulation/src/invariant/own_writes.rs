//! A client that comes back, through whichever edge, goes on where it was: what it was told is applied is not expected again, and
//! the first thing it sees there is not older than what it had seen.

use std::collections::BTreeMap;

use marchland_types::{CommandSeq, RegionId, Tick};

use super::Invariant;
use crate::fact::{ClientId, Fact};

#[derive(Default)]
pub(super) struct OwnWrites {
    shown: BTreeMap<ClientId, (RegionId, Tick, CommandSeq)>,
}

impl Invariant for OwnWrites {
    fn name(&self) -> &'static str {
        "own-writes"
    }

    fn hear(&mut self, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Shown { client, region, tick, applied } => {
                let now = (*region, *tick, *applied);
                let (before_region, before_tick, before) = self.shown.insert(*client, now).unwrap_or_default();
                // Each region counts its own ticks.
                if (before_region == *region && before_tick > *tick) || before > *applied {
                    return Err(format!(
                        "{client} had seen tick {before_tick} with {before} applied, and is shown tick {tick} with {applied}"
                    ));
                }
                Ok(())
            }
            Fact::GoesOn { client, next } => match self.shown.get(client) {
                Some((_, _, applied)) if *next <= *applied => {
                    Err(format!("{client} was told that {applied} is applied, and is asked for {next} again"))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::verdict;
    use super::*;

    #[test]
    fn a_client_that_is_set_back_is_found() {
        let client = ClientId(1);
        let shown = |tick, applied| Fact::Shown { client, region: RegionId(1), tick: Tick(tick), applied: CommandSeq(applied) };
        let goes_on = |next| Fact::GoesOn { client, next: CommandSeq(next) };
        assert_eq!(verdict(OwnWrites::default(), &[goes_on(1), shown(5, 3), goes_on(4), shown(5, 3)]), Ok(()));
        assert_eq!(verdict(OwnWrites::default(), &[shown(5, 3), goes_on(9), shown(6, 8)]), Ok(()));
        assert!(verdict(OwnWrites::default(), &[shown(5, 3), goes_on(3)]).is_err());
        assert!(verdict(OwnWrites::default(), &[shown(5, 3), goes_on(4), shown(5, 2)]).is_err());
        assert!(verdict(OwnWrites::default(), &[shown(5, 3), goes_on(4), shown(4, 3)]).is_err());
    }
}
