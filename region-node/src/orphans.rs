//! Sessions whose edge died: nobody speaks for them any more, and nobody said so.
//!
//! An edge that stops, or whose client leaves, detaches its sessions. One that dies does not, and a new owner does not know
//! which edges the old one served. So the owner looks, once a second, which attached sessions no edge follows; those that
//! stay so for the grace period are detached in its name, and their characters linger and leave as usual.

use std::collections::BTreeMap;
use std::time::Duration;

use marchland_proto::storage::DetachOrder;
use marchland_types::{AttachNumber, CharacterId, SessionEpoch};

/// How long a session may be without an edge: edges find a new owner, and send everything again, well within it.
const GRACE: Duration = Duration::from_secs(5);

/// Watches over sessions without edges.
#[derive(Debug, Default)]
pub struct Orphans {
    since: BTreeMap<CharacterId, Duration>,
}

impl Orphans {
    /// Forgets everything: this replica has just become owner, or is it no more.
    pub fn clear(&mut self) {
        self.since.clear();
    }

    /// Takes the attached sessions, with whether some edge follows each; returns the detaches that are due.
    pub fn sweep(
        &mut self,
        now: Duration,
        attached: impl Iterator<Item = (CharacterId, SessionEpoch, AttachNumber, bool)>,
    ) -> Vec<DetachOrder> {
        let before = std::mem::take(&mut self.since);
        let mut due = Vec::new();
        for (character, epoch, attach, followed) in attached {
            if followed {
                continue;
            }
            let since = before.get(&character).copied().unwrap_or(now);
            if now.saturating_sub(since) < GRACE {
                self.since.insert(character, since);
            } else {
                due.push(DetachOrder { character: character.0, epoch: epoch.0, attach: attach.0, goodbye: false });
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(orphans: &mut Orphans, second: u64, followed: bool) -> usize {
        let session = (CharacterId(1), SessionEpoch(1), AttachNumber(1), followed);
        orphans.sweep(Duration::from_secs(second), std::iter::once(session)).len()
    }

    #[test]
    fn a_session_is_detached_after_the_grace_period_without_an_edge() {
        let mut orphans = Orphans::default();
        assert_eq!([0, 1, 4].map(|s| at(&mut orphans, s, false)), [0, 0, 0]);
        assert_eq!(at(&mut orphans, 5, false), 1);
    }

    #[test]
    fn an_edge_that_comes_back_in_time_keeps_it() {
        let mut orphans = Orphans::default();
        assert_eq!([at(&mut orphans, 0, false), at(&mut orphans, 3, true), at(&mut orphans, 6, false)], [0, 0, 0]);
        assert_eq!(at(&mut orphans, 10, false), 0);
        assert_eq!(at(&mut orphans, 11, false), 1);
    }
}
