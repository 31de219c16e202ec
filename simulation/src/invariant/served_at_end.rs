//! After the faults have stopped, everyone is served again: each client gets answers in the quiet phase.

use std::collections::BTreeMap;

use super::Invariant;
use crate::fact::{ClientId, Fact};

#[derive(Default)]
pub(super) struct ServedAtEnd(BTreeMap<ClientId, u64>);

impl Invariant for ServedAtEnd {
    fn name(&self) -> &'static str {
        "served-at-end"
    }

    fn hear(&mut self, fact: &Fact) -> Result<(), String> {
        if let Fact::Served { client, times } = fact {
            self.0.insert(*client, *times);
        }
        Ok(())
    }

    fn conclude(&mut self) -> Result<(), String> {
        match self.0.iter().find(|(_, times)| **times == 0) {
            None => Ok(()),
            Some((client, _)) => Err(format!("{client} got nothing after the faults had stopped")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::verdict;
    use super::*;

    #[test]
    fn a_forgotten_client_is_found() {
        let served = |times| Fact::Served { client: ClientId(1), times };
        assert_eq!(verdict(ServedAtEnd::default(), &[served(3)]), Ok(()));
        assert!(verdict(ServedAtEnd::default(), &[served(0)]).is_err());
    }
}
