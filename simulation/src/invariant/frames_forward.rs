//! What a client is shown never goes back: not the tick of a region, not what it was told is applied.

use std::collections::BTreeMap;

use marchland_types::{CommandSeq, RegionId, Tick};

use super::Invariant;
use crate::fact::{ClientId, Fact};

#[derive(Default)]
pub(super) struct FramesForward {
    ticks: BTreeMap<(ClientId, RegionId), Tick>,
    applied: BTreeMap<ClientId, CommandSeq>,
}

impl Invariant for FramesForward {
    fn name(&self) -> &'static str {
        "frames-forward"
    }

    fn hear(&mut self, fact: &Fact) -> Result<(), String> {
        let Fact::Shown { client, region, tick, applied } = fact else { return Ok(()) };
        if let Some(before) = self.ticks.insert((*client, *region), *tick)
            && before > *tick
        {
            return Err(format!("{client} saw tick {before} of region {region}, then {tick}"));
        }
        match self.applied.insert(*client, *applied) {
            Some(before) if before > *applied => Err(format!("{client} was told {before} is applied, then {applied}")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::verdict;
    use super::*;

    #[test]
    fn steps_back_are_found() {
        let shown = |tick, applied| Fact::Shown {
            client: ClientId(1),
            region: RegionId(1),
            tick: Tick(tick),
            applied: CommandSeq(applied),
        };
        assert_eq!(verdict(FramesForward::default(), &[shown(1, 0), shown(2, 1), shown(2, 1)]), Ok(()));
        assert!(verdict(FramesForward::default(), &[shown(2, 0), shown(1, 0)]).is_err());
        assert!(verdict(FramesForward::default(), &[shown(1, 3), shown(2, 2)]).is_err());
    }
}
