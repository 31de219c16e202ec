//! Replies reach a client once each, in order, without gaps, even if the owner that made one died before it was published.

use std::collections::BTreeMap;

use marchland_types::ReplySeq;

use super::Invariant;
use crate::fact::{ClientId, Fact};

#[derive(Default)]
pub(super) struct RepliesInOrder(BTreeMap<ClientId, ReplySeq>);

impl Invariant for RepliesInOrder {
    fn name(&self) -> &'static str {
        "replies-in-order"
    }

    fn hear(&mut self, fact: &Fact) -> Result<(), String> {
        let Fact::Replied { client, reply, .. } = fact else { return Ok(()) };
        let before = self.0.insert(*client, *reply).unwrap_or_default();
        if *reply == before.next() { Ok(()) } else { Err(format!("{client} has reply {reply} after {before}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::verdict;
    use super::*;

    #[test]
    fn gaps_and_doubles_are_found() {
        let reply = |n| Fact::Replied { client: ClientId(1), reply: ReplySeq(n), digest: 0 };
        assert_eq!(verdict(RepliesInOrder::default(), &[reply(1), reply(2)]), Ok(()));
        assert!(verdict(RepliesInOrder::default(), &[reply(1), reply(1)]).is_err());
        assert!(verdict(RepliesInOrder::default(), &[reply(1), reply(3)]).is_err());
    }
}
