//! No command is in the history twice.

use super::Invariant;
use crate::fact::Fact;

#[derive(Default)]
pub(super) struct AppliedOnce;

impl Invariant for AppliedOnce {
    fn name(&self) -> &'static str {
        "applied-once"
    }

    fn hear(&mut self, fact: &Fact) -> Result<(), String> {
        let Fact::Final(state) = fact else { return Ok(()) };
        match state.commands.iter().find(|(_, times)| **times > 1) {
            None => Ok(()),
            Some(((client, seq), times)) => Err(format!("{} applied {client}:{seq} {times} times", state.replica)),
        }
    }
}

#[cfg(test)]
mod tests {
    use marchland_types::CommandSeq;

    use super::super::testing::verdict;
    use super::*;
    use crate::fact::{ClientId, FinalState};

    #[test]
    fn a_doubled_command_is_found() {
        let end = |times| {
            let commands = [((ClientId(1), CommandSeq(1)), times)].into();
            Fact::Final(FinalState { commands, ..FinalState::default() })
        };
        assert_eq!(verdict(AppliedOnce, &[end(1)]), Ok(()));
        assert!(verdict(AppliedOnce, &[end(2)]).is_err());
    }
}
