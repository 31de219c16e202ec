//! A command is answered once: a second answer means that it was carried out twice.

use std::collections::BTreeSet;

use marchland_types::CommandSeq;

use super::Invariant;
use crate::fact::{ClientId, Fact};

#[derive(Default)]
pub(super) struct AnsweredOnce(BTreeSet<(ClientId, CommandSeq)>);

impl Invariant for AnsweredOnce {
    fn name(&self) -> &'static str {
        "answered-once"
    }

    fn hear(&mut self, fact: &Fact) -> Result<(), String> {
        let Fact::Answered { client, command } = fact else { return Ok(()) };
        if self.0.insert((*client, *command)) { Ok(()) } else { Err(format!("{client} has two answers to command {command}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::verdict;
    use super::*;

    #[test]
    fn a_second_answer_is_found() {
        let answer = |client, command| Fact::Answered { client: ClientId(client), command: CommandSeq(command) };
        assert_eq!(verdict(AnsweredOnce::default(), &[answer(1, 1), answer(1, 2), answer(2, 1)]), Ok(()));
        assert!(verdict(AnsweredOnce::default(), &[answer(1, 1), answer(1, 2), answer(1, 1)]).is_err());
    }
}
