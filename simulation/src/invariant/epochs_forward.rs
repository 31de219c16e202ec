//! Sessions' epochs only grow, and so do the numbers of connections within one: whoever comes back is newer than who it replaces.

use std::collections::BTreeMap;

use super::Invariant;
use crate::fact::{ClientId, Fact, FinalState};

#[derive(Default)]
pub(super) struct EpochsForward {
    /// Each person's newest session.
    newest: BTreeMap<u64, ClientId>,
    attaches: BTreeMap<ClientId, u32>,
}

impl EpochsForward {
    fn joined(&mut self, client: ClientId, attach: u32) -> Result<(), String> {
        if let Some(before) = self.newest.insert(client.person(), client)
            && before > client
        {
            let (old, new) = (before.epoch(), client.epoch());
            return Err(format!("person {} had a session of epoch {old}, and joined with {new}", client.person()));
        }
        match self.attaches.insert(client, attach) {
            Some(before) if before >= attach => Err(format!("{client} joined with attach {before}, then with {attach}")),
            _ => Ok(()),
        }
    }

    /// A region may know a session that nobody was told of, and none that is older than one that somebody was.
    fn ends(&self, state: &FinalState) -> Result<(), String> {
        let old = state.sessions.iter().find(|held| self.newest.get(&held.person()).is_some_and(|newest| newest > held));
        match old {
            None => Ok(()),
            Some(held) => Err(format!(
                "{} has a session of epoch {} of person {}, who was told {}",
                state.replica,
                held.epoch(),
                held.person(),
                self.newest[&held.person()].epoch()
            )),
        }
    }
}

impl Invariant for EpochsForward {
    fn name(&self) -> &'static str {
        "epochs-forward"
    }

    fn hear(&mut self, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Joined { client, attach, .. } => self.joined(*client, *attach),
            Fact::Final(state) => self.ends(state),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::verdict;
    use super::*;

    fn joined(epoch: u64, attach: u32) -> Fact {
        Fact::Joined { client: ClientId::of(7, epoch), resumed: false, attach }
    }

    #[test]
    fn epochs_and_attaches_that_go_back_are_found() {
        assert_eq!(verdict(EpochsForward::default(), &[joined(1, 1), joined(1, 4), joined(3, 1)]), Ok(()));
        assert!(verdict(EpochsForward::default(), &[joined(2, 1), joined(1, 2)]).is_err());
        assert!(verdict(EpochsForward::default(), &[joined(2, 2), joined(2, 2)]).is_err());
        assert!(verdict(EpochsForward::default(), &[joined(2, 2), joined(2, 1)]).is_err());
    }

    #[test]
    fn an_old_session_at_the_end_is_found() {
        let end = |epoch| Fact::Final(FinalState { sessions: [ClientId::of(7, epoch)].into(), ..FinalState::default() });
        assert_eq!(verdict(EpochsForward::default(), &[joined(2, 1), end(2)]), Ok(()));
        assert_eq!(verdict(EpochsForward::default(), &[joined(2, 1), end(3)]), Ok(()));
        assert!(verdict(EpochsForward::default(), &[joined(2, 1), end(1)]).is_err());
    }
}
