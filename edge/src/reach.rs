//! Whether this edge still reaches anybody who could serve its clients.
//!
//! While a region is silent, every node is asked who owns it. A node that is there answers at once, so whoever hears nobody but the node
//! that it shares a process with is cut off from the world: its clients are better served by another edge, and are told so. An
//! election is not taken for that, for the nodes that hold it answer.
//!
//! Pure: time and answers go in.

use std::collections::BTreeMap;
use std::time::Duration;

use marchland_types::NodeId;

/// How long all other nodes may be silent after they were asked.
const CUT_OFF: Duration = Duration::from_millis(400);
/// How often they are asked.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// What is known of the other nodes.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// The node of this process, if it is one.
    own: Option<NodeId>,
    heard_at: BTreeMap<NodeId, Duration>,
    asking: Option<Asking>,
}

#[derive(Clone, Copy, Debug)]
struct Asking {
    since: Duration,
    next: Duration,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing.
    Wait,
    /// Every node is asked.
    Ask,
    /// Clients are told to go elsewhere.
    CutOff,
}

impl Reach {
    pub(crate) fn new(own: Option<NodeId>) -> Self {
        Self { own, ..Self::default() }
    }

    /// A node said something, whatever it was.
    pub(crate) fn heard(&mut self, now: Duration, node: NodeId) {
        self.heard_at.insert(node, now);
    }

    /// Time passed, and some region is silent or none is.
    pub(crate) fn look(&mut self, now: Duration, silent: bool, nodes: &[NodeId]) -> Look {
        if !silent {
            self.asking = None;
            return Look::Wait;
        }
        let asking = self.asking.get_or_insert(Asking { since: now, next: now });
        let mut others = nodes.iter().filter(|node| Some(**node) != self.own).peekable();
        // A world of one node has nobody else to hear.
        let alone = others.peek().is_some() && !others.any(|node| self.heard_at.get(node).is_some_and(|at| *at >= asking.since));
        if alone && now.saturating_sub(asking.since) >= CUT_OFF {
            self.asking = None;
            return Look::CutOff;
        }
        if now < asking.next {
            return Look::Wait;
        }
        asking.next = now + ASK_EVERY;
        Look::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn whoever_hears_nobody_else_is_cut_off() {
        let mut reach = Reach::new(Some(NodeId(1)));
        reach.heard(ms(999), NodeId(2));
        assert_eq!(reach.look(ms(1_000), true, &NODES), Look::Ask);
        assert_eq!(reach.look(ms(1_020), true, &NODES), Look::Wait);
        reach.heard(ms(1_030), NodeId(1));
        assert_eq!(reach.look(ms(1_100), true, &NODES), Look::Ask);
        assert_eq!(reach.look(ms(1_400), true, &NODES), Look::CutOff);
        assert_eq!(reach.look(ms(1_420), true, &NODES), Look::Ask, "whoever comes next is given as much time");
    }

    #[test]
    fn an_election_is_no_reason_to_leave() {
        let mut reach = Reach::new(Some(NodeId(1)));
        assert_eq!(reach.look(ms(0), true, &NODES), Look::Ask);
        reach.heard(ms(5), NodeId(3));
        assert_eq!(reach.look(ms(5_000), true, &NODES), Look::Ask);
        assert_eq!(reach.look(ms(5_010), false, &NODES), Look::Wait);
        assert_eq!(reach.look(ms(9_000), true, &NODES), Look::Ask);
        assert_eq!(reach.look(ms(9_400), true, &NODES), Look::CutOff, "what was heard before the silence says nothing");
    }

    #[test]
    fn a_world_of_one_node_has_nobody_else() {
        let mut reach = Reach::new(Some(NodeId(1)));
        assert_eq!(reach.look(ms(0), true, &NODES[..1]), Look::Ask);
        assert_eq!(reach.look(ms(9_000), true, &NODES[..1]), Look::Ask);
        let mut apart = Reach::new(None);
        assert_eq!(apart.look(ms(0), true, &NODES[..1]), Look::Ask);
        assert_eq!(apart.look(ms(400), true, &NODES[..1]), Look::CutOff);
    }
}
