//! What was acknowledged, or shown as applied, is in the history at the end, on every replica: nothing acknowledged is lost.

use std::collections::{BTreeMap, BTreeSet};

use marchland_types::CommandSeq;

use super::Invariant;
use crate::fact::{ClientId, Fact, FinalState};

#[derive(Default)]
pub(super) struct AcknowledgedKept {
    one_by_one: BTreeSet<(ClientId, CommandSeq)>,
    shown_up_to: BTreeMap<ClientId, CommandSeq>,
    looked: bool,
}

impl AcknowledgedKept {
    fn missing_in(&self, state: &FinalState) -> Result<(), String> {
        let holds = |client: ClientId, seq: CommandSeq| {
            state.commands.contains_key(&(client, seq)) || state.applied_up_to.get(&client).is_some_and(|last| *last >= seq)
        };
        let lost = self.one_by_one.iter().copied().chain(self.shown_up_to.iter().map(|(client, seq)| (*client, *seq)));
        let lost: Vec<String> = lost.filter(|(c, s)| s.0 > 0 && !holds(*c, *s)).map(|(c, s)| format!("{c}:{s}")).collect();
        if lost.is_empty() {
            return Ok(());
        }
        let first = lost.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
        Err(format!("{} on {} lost {} acknowledged commands: {first}", state.group, state.replica, lost.len()))
    }
}

impl Invariant for AcknowledgedKept {
    fn name(&self) -> &'static str {
        "acknowledged-kept"
    }

    fn hear(&mut self, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Acknowledged { client, seq } => {
                self.one_by_one.insert((*client, *seq));
                Ok(())
            }
            Fact::Shown { client, applied, .. } => {
                let last = self.shown_up_to.entry(*client).or_default();
                *last = (*last).max(*applied);
                Ok(())
            }
            Fact::Final(state) => {
                self.looked = true;
                self.missing_in(state)
            }
            _ => Ok(()),
        }
    }

    fn conclude(&mut self) -> Result<(), String> {
        if self.looked && self.one_by_one.is_empty() && self.shown_up_to.is_empty() {
            return Err("nothing was ever acknowledged: the run proves nothing".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::verdict;
    use super::*;

    const ANN: ClientId = ClientId(1);

    fn told(seq: u64) -> Fact {
        Fact::Acknowledged { client: ANN, seq: CommandSeq(seq) }
    }

    #[test]
    fn a_lost_command_is_found_in_either_kind_of_history() {
        let listed = |seqs: &[u64]| {
            let commands = seqs.iter().map(|s| ((ANN, CommandSeq(*s)), 1)).collect();
            Fact::Final(FinalState { commands, ..FinalState::default() })
        };
        assert_eq!(verdict(AcknowledgedKept::default(), &[told(1), told(3), listed(&[1, 2, 3])]), Ok(()));
        assert!(verdict(AcknowledgedKept::default(), &[told(1), told(3), listed(&[1, 2])]).is_err());
        let up_to = |seq| {
            let applied_up_to = [(ANN, CommandSeq(seq))].into();
            Fact::Final(FinalState { applied_up_to, ..FinalState::default() })
        };
        assert_eq!(verdict(AcknowledgedKept::default(), &[told(3), up_to(3)]), Ok(()));
        assert!(verdict(AcknowledgedKept::default(), &[told(3), up_to(2)]).is_err());
    }

    #[test]
    fn a_run_that_acknowledged_nothing_is_no_proof() {
        assert!(verdict(AcknowledgedKept::default(), &[Fact::Final(FinalState::default())]).is_err());
    }
}
