//! Sessions whose edge died: nobody speaks for them any more, and nobody said so.
//!
//! An edge that stops, or whose client leaves, detaches its sessions. One that dies does not, and a new owner does not know
//! which edges the old one served. So the owner looks, every second of the region's time, which attached sessions no edge follows; those that
//! stay so for the grace period are detached in its name, and their characters linger and leave as usual.
//!
//! The region's time counts and not the clock's: while nothing is committed, no edge can attach anybody, however long that lasts. And each
//! attach has the whole grace for itself: what was without an edge before may have been served meanwhile.

use std::collections::BTreeMap;

use marchland_proto::storage::DetachOrder;
use marchland_types::{AttachNumber, CharacterId, SessionEpoch};

/// Looks after the first one for which a session may be without an edge: seconds at full rate. Edges find a new owner, and send everything
/// again, well within it.
const GRACE_LOOKS: u32 = 5;

/// A session as it was attached once.
type Attach = (CharacterId, SessionEpoch, AttachNumber);

/// Watches over sessions without edges.
#[derive(Debug, Default)]
pub struct Orphans {
    /// How often in a row each was seen without an edge.
    seen: BTreeMap<Attach, u32>,
}

impl Orphans {
    /// Forgets everything: this replica has just become owner, or is it no more.
    pub fn clear(&mut self) {
        self.seen.clear();
    }

    /// Takes the attached sessions, with whether some edge follows each; returns the detaches that are due.
    pub fn sweep(&mut self, attached: impl Iterator<Item = (Attach, bool)>) -> Vec<DetachOrder> {
        let before = std::mem::take(&mut self.seen);
        let mut due = Vec::new();
        for (attach, followed) in attached {
            if followed {
                continue;
            }
            let seen = before.get(&attach).map_or(0, |seen| seen + 1);
            if seen < GRACE_LOOKS {
                self.seen.insert(attach, seen);
            } else {
                let (character, epoch, attach) = attach;
                due.push(DetachOrder { character: character.0, epoch: epoch.0, attach: attach.0, goodbye: false });
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(orphans: &mut Orphans, attach: u32, followed: bool) -> usize {
        let session = ((CharacterId(1), SessionEpoch(1), AttachNumber(attach)), followed);
        orphans.sweep(std::iter::once(session)).len()
    }

    #[test]
    fn a_session_is_detached_after_the_grace_period_without_an_edge() {
        let mut orphans = Orphans::default();
        assert_eq!([(); 6].map(|()| look(&mut orphans, 1, false)), [0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn an_edge_that_comes_back_in_time_keeps_it() {
        let mut orphans = Orphans::default();
        assert_eq!([false, false, true, false, false, false, false].map(|followed| look(&mut orphans, 1, followed)), [0; 7]);
        assert_eq!([false, false].map(|followed| look(&mut orphans, 1, followed)), [0, 1]);
    }

    #[test]
    fn each_attach_has_the_whole_grace() {
        let mut orphans = Orphans::default();
        assert_eq!([1, 1, 1, 1, 1, 2, 2, 2, 2, 2].map(|attach| look(&mut orphans, attach, false)), [0; 10]);
        assert_eq!(look(&mut orphans, 2, false), 1);
    }
}
