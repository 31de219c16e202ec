//! After the faults have stopped, everyone is served again: each client that ever came gets answers in the quiet phase.

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant;
use crate::fact::{ClientId, Fact};

#[derive(Default)]
pub(super) struct ServedAtEnd {
    came: BTreeSet<ClientId>,
    served: BTreeMap<ClientId, u64>,
}

impl Invariant for ServedAtEnd {
    fn name(&self) -> &'static str {
        "served-at-end"
    }

    fn hear(&mut self, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Shown { client, .. } => {
                self.came.insert(*client);
            }
            Fact::Served { client, times } => {
                self.served.insert(*client, *times);
            }
            _ => {}
        }
        Ok(())
    }

    fn conclude(&mut self) -> Result<(), String> {
        let unserved = |client: &&ClientId| self.served.get(client).copied().unwrap_or(0) == 0;
        match self.came.iter().chain(self.served.keys()).find(unserved) {
            None => Ok(()),
            Some(client) => Err(format!("{client} got nothing after the faults had stopped")),
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
