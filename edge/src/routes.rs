//! Which node is believed to own a region, and where to ask next.
//!
//! Pure: time and answers go in, the node to speak to comes out. An owner that is silent for half a second (longer when its
//! time is dilated) is asked elsewhere; a follower that names the leader is believed, but no more often than every few
//! milliseconds, because two nodes may name each other while an election runs.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use marchland_types::{GroupId, LogIndex, NodeId};

/// How long an owner may be silent at full rate.
const SILENCE: Duration = Duration::from_millis(500);
/// How long it may be silent in any case.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// After so much silence at full rate, every node is asked who owns the region: four ticks.
const DOUBT: Duration = Duration::from_millis(200);
/// Pause before a node is asked that was named as the leader.
const HINT_PAUSE: Duration = Duration::from_millis(5);
/// Pause before the next node is asked when nobody was named.
const NEXT_PAUSE: Duration = Duration::from_millis(30);

/// Most regions whose owners are remembered: more than a world has that is served by one edge.
const OWNERS_MAX: usize = 65_536;

/// Who said last that it owns a region. Owners tell every edge, so that whoever wants the region first knows where to ask.
#[derive(Debug, Default)]
pub(crate) struct Owners(BTreeMap<GroupId, (LogIndex, NodeId)>);

impl Owners {
    /// A node speaks as the owner, of an entry that it committed.
    pub(crate) fn heard(&mut self, group: GroupId, node: NodeId, index: LogIndex) {
        let room = self.0.len() < OWNERS_MAX;
        match self.0.entry(group) {
            // Who has committed less was owner before.
            Entry::Occupied(mut known) if known.get().0 <= index => *known.get_mut() = (index, node),
            Entry::Vacant(unknown) if room => drop(unknown.insert((index, node))),
            _ => {}
        }
    }

    /// The owner, as far as is known.
    pub(crate) fn of(&self, group: GroupId) -> Option<NodeId> {
        self.0.get(&group).map(|(_, node)| *node)
    }
}

/// Where a region's owner is looked for.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    target: Option<NodeId>,
    /// Node to ask next, and when.
    next: Option<(NodeId, Duration)>,
    /// Last word of the target, or when it was asked.
    heard_at: Duration,
    /// Last word of an owner, or when one was wanted first.
    served_at: Duration,
}

impl Route {
    /// Nothing known: `first` is asked at once.
    pub(crate) fn new(now: Duration, first: NodeId) -> Self {
        Self { target: None, next: Some((first, now)), heard_at: now, served_at: now }
    }

    /// The node that is spoken to.
    pub(crate) fn target(&self) -> Option<NodeId> {
        self.target
    }

    /// Nobody wanted the region until now: its silence before does not count.
    pub(crate) fn wanted_again(&mut self, now: Duration) {
        self.heard_at = now;
        self.served_at = now;
    }

    /// Whether no owner has spoken for so long that somebody else should be asked, too.
    pub(crate) fn is_unserved(&self, now: Duration, time_rate: u32) -> bool {
        now.saturating_sub(self.served_at) >= DOUBT * 100 / time_rate.clamp(1, 100)
    }

    /// A node says that it owns the region: it is asked next, at once.
    pub(crate) fn announced(&mut self, now: Duration, node: NodeId) {
        self.next = Some((node, now));
    }

    /// The target sent a batch.
    pub(crate) fn heard(&mut self, now: Duration) {
        self.heard_at = now;
        self.served_at = now;
    }

    /// The target can not be reached, or does not own the region; it may have named who does.
    pub(crate) fn lost(&mut self, now: Duration, leader: Option<NodeId>, nodes: &[NodeId]) {
        let before = self.target.take();
        self.next = Some(match leader {
            Some(leader) if Some(leader) != before && nodes.contains(&leader) => (leader, now + HINT_PAUSE),
            _ => (after(before, nodes), now + NEXT_PAUSE),
        });
    }

    /// Time passed. `Some` is a node that is to be asked from now on, `left` the one that was before.
    pub(crate) fn handle_time(&mut self, now: Duration, time_rate: u32, nodes: &[NodeId]) -> Option<Asked> {
        if let Some((node, at)) = self.next {
            if now < at {
                return None;
            }
            self.next = None;
            return Some(self.ask(now, node));
        }
        let patience = (SILENCE * 100 / time_rate.clamp(1, 100)).min(SILENCE_MAX);
        if now.saturating_sub(self.heard_at) < patience {
            return None;
        }
        let node = after(self.target, nodes);
        Some(self.ask(now, node))
    }

    fn ask(&mut self, now: Duration, node: NodeId) -> Asked {
        let left = self.target.replace(node).filter(|left| *left != node);
        self.heard_at = now;
        Asked { node, left }
    }
}

/// A change of target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) node: NodeId,
    /// Told to forget this edge, if it can be reached.
    pub(crate) left: Option<NodeId>,
}

/// The node after `node`, round and round; the first one after `None`. `nodes` is sorted and not empty.
fn after(node: Option<NodeId>, nodes: &[NodeId]) -> NodeId {
    node.and_then(|node| nodes.iter().find(|other| **other > node)).copied().unwrap_or(nodes[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn asks_around_until_somebody_answers() {
        let mut route = Route::new(ms(0), NodeId(2));
        assert_eq!(route.handle_time(ms(0), 100, &NODES), Some(Asked { node: NodeId(2), left: None }));
        route.lost(ms(1), None, &NODES);
        assert_eq!(route.handle_time(ms(2), 100, &NODES), None);
        assert_eq!(route.handle_time(ms(31), 100, &NODES), Some(Asked { node: NodeId(3), left: None }));
        route.lost(ms(32), None, &NODES);
        assert_eq!(route.handle_time(ms(70), 100, &NODES).unwrap().node, NodeId(1));
        route.heard(ms(71));
        assert_eq!(route.handle_time(ms(72), 100, &NODES), None);
    }

    #[test]
    fn believes_a_hint_unless_it_names_itself_or_a_stranger() {
        let mut route = Route::new(ms(0), NodeId(1));
        route.handle_time(ms(0), 100, &NODES);
        route.lost(ms(0), Some(NodeId(3)), &NODES);
        assert_eq!(route.handle_time(ms(5), 100, &NODES).unwrap().node, NodeId(3));
        route.lost(ms(6), Some(NodeId(3)), &NODES);
        assert_eq!(route.handle_time(ms(36), 100, &NODES).unwrap().node, NodeId(1));
        route.lost(ms(40), Some(NodeId(9)), &NODES);
        assert_eq!(route.handle_time(ms(70), 100, &NODES).unwrap().node, NodeId(2));
    }

    #[test]
    fn an_owner_that_announces_itself_is_asked_at_once() {
        let mut route = Route::new(ms(0), NodeId(1));
        route.handle_time(ms(0), 100, &NODES);
        route.lost(ms(10), None, &NODES);
        route.announced(ms(11), NodeId(3));
        assert_eq!(route.handle_time(ms(11), 100, &NODES).unwrap().node, NodeId(3));
    }

    #[test]
    fn unserved_is_who_hears_no_owner_whoever_is_asked() {
        let mut route = Route::new(ms(0), NodeId(1));
        route.handle_time(ms(0), 100, &NODES);
        route.heard(ms(100));
        route.lost(ms(110), None, &NODES);
        route.handle_time(ms(140), 100, &NODES);
        assert!(!route.is_unserved(ms(299), 100) && route.is_unserved(ms(300), 100) && !route.is_unserved(ms(899), 25));
        route.heard(ms(310));
        assert!(!route.is_unserved(ms(350), 100));
    }

    #[test]
    fn the_owner_is_whoever_has_committed_most() {
        let (mut owners, group) = (Owners::default(), GroupId(7));
        assert_eq!(owners.of(group), None);
        owners.heard(group, NodeId(1), LogIndex(10));
        owners.heard(group, NodeId(2), LogIndex(11));
        owners.heard(group, NodeId(1), LogIndex(10));
        assert_eq!(owners.of(group), Some(NodeId(2)));
        assert_eq!(owners.of(GroupId(8)), None);
    }

    #[test]
    fn silence_is_measured_in_the_regions_own_time() {
        let mut route = Route::new(ms(0), NodeId(1));
        route.handle_time(ms(0), 100, &NODES);
        route.heard(ms(100));
        assert_eq!(route.handle_time(ms(599), 100, &NODES), None);
        assert_eq!(route.handle_time(ms(600), 25, &NODES), None);
        assert_eq!(route.handle_time(ms(600), 100, &NODES), Some(Asked { node: NodeId(2), left: Some(NodeId(1)) }));
    }
}
