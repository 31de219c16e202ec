//! What goes to one region's owner, gathered until it is sent.
//!
//! One message for all clients of a loop, just before the owner's next tick. Bounded: when the way is blocked for so long
//! that [`INPUTS_HELD_MAX_BYTES`] of inputs gathered, later ones are dropped, and [`Uplink::overflowed`] says that every session
//! must give again what it still holds; sessions are bounded themselves.

use marchland_proto::cluster::EdgeToRegion;
use marchland_proto::storage::{AttachOrder, DetachOrder, SessionInputs, stored_input::What};
use marchland_types::GroupId;
use marchland_types::limits::CLUSTER_MESSAGE_MAX_BYTES;

/// Inputs that wait for the way to be free, in bytes as [`Uplink`] estimates them: they fit in one message with room to spare.
pub const INPUTS_HELD_MAX_BYTES: usize = CLUSTER_MESSAGE_MAX_BYTES / 4;
/// Farewells that wait for an owner.
pub const DETACHES_HELD_MAX: usize = 16 * 1024;
/// More than an input or the session around it takes without the body of an action.
const INPUT_BYTES: usize = 48;

/// Gathers one region's messages.
#[derive(Debug)]
pub struct Uplink {
    pending: EdgeToRegion,
    inputs_bytes: usize,
    overflowed: bool,
}

impl Uplink {
    /// Nothing to send.
    #[must_use]
    pub fn new(group: GroupId) -> Self {
        Self { pending: EdgeToRegion { group: group.0, ..EdgeToRegion::default() }, inputs_bytes: 0, overflowed: false }
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.inputs.is_empty() && !self.is_urgent()
    }

    /// Whether there is something to send besides inputs, which can wait for a tick.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        let p = &self.pending;
        !(p.attaches.is_empty()
            && p.detaches.is_empty()
            && p.subscribe.is_empty()
            && p.unsubscribe.is_empty()
            && p.watch_sessions.is_empty()
            && p.unwatch_sessions.is_empty())
            || p.reset
    }

    /// Inputs of one session.
    pub fn inputs(&mut self, inputs: SessionInputs) {
        let bodies = inputs.inputs.iter().map(|input| match &input.what {
            Some(What::Action(action)) => action.body.len() + INPUT_BYTES,
            Some(What::Move(_)) | None => INPUT_BYTES,
        });
        let size = INPUT_BYTES + bodies.sum::<usize>();
        self.overflowed |= self.inputs_bytes + size > INPUTS_HELD_MAX_BYTES;
        // After one was dropped, later ones would be out of order.
        if !self.overflowed {
            self.inputs_bytes += size;
            self.pending.inputs.push(inputs);
        }
    }

    /// A client arrived; its session is watched from now on.
    pub fn attach(&mut self, order: AttachOrder) {
        self.watch(order.character);
        self.pending.attaches.retain(|other| other.character != order.character || other.attach > order.attach);
        self.pending.attaches.push(order);
    }

    /// A session is watched from now on, and nothing is asked of it.
    pub fn watch(&mut self, character: u64) {
        self.pending.unwatch_sessions.retain(|&other| other != character);
        if !self.pending.watch_sessions.contains(&character) {
            self.pending.watch_sessions.push(character);
        }
    }

    /// A client left. `watched` says that another one of this edge goes on with the same character.
    pub fn detach(&mut self, order: DetachOrder, watched: bool) {
        let key = |attach: &AttachOrder| (attach.character, attach.epoch, attach.attach);
        self.pending.attaches.retain(|other| key(other) != (order.character, order.epoch, order.attach));
        if !watched {
            self.unwatch(order.character);
        }
        // Without an owner for long: the region lets its clients go by itself when it is back and nobody speaks for them.
        if self.pending.detaches.len() < DETACHES_HELD_MAX {
            self.pending.detaches.push(order);
        }
    }

    /// Nobody here plays a character any more, or not in this region.
    pub fn unwatch(&mut self, character: u64) {
        self.pending.watch_sessions.retain(|&other| other != character);
        self.pending.attaches.retain(|order| order.character != character);
        if !self.pending.unwatch_sessions.contains(&character) {
            self.pending.unwatch_sessions.push(character);
        }
    }

    /// Cells to subscribe to and to forget.
    pub fn cells(&mut self, (subscribe, unsubscribe): (Vec<u32>, Vec<u32>)) {
        self.pending.subscribe.retain(|cell| !unsubscribe.contains(cell));
        self.pending.unsubscribe.retain(|cell| !subscribe.contains(cell));
        self.pending.subscribe.extend(subscribe);
        self.pending.unsubscribe.extend(unsubscribe);
    }

    /// Forgets what waits and begins anew with an owner that knows nothing of this edge. Farewells are kept: nobody else says
    /// them again.
    pub fn restart(&mut self, cells: Vec<u32>) {
        let detaches = std::mem::take(&mut self.pending.detaches);
        self.pending =
            EdgeToRegion { group: self.pending.group, reset: true, subscribe: cells, detaches, ..EdgeToRegion::default() };
        (self.inputs_bytes, self.overflowed) = (0, false);
    }

    /// Whether inputs were dropped since the last call.
    pub fn overflowed(&mut self) -> bool {
        std::mem::take(&mut self.overflowed)
    }

    /// What is to be sent now.
    #[must_use]
    pub fn take(&mut self) -> EdgeToRegion {
        let group = self.pending.group;
        self.inputs_bytes = 0;
        std::mem::replace(&mut self.pending, EdgeToRegion { group, ..EdgeToRegion::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use marchland_types::{RegionId, WorldId};

    fn uplink() -> Uplink {
        Uplink::new(GroupId::region(WorldId(1), RegionId(1)))
    }

    #[test]
    fn a_new_owner_is_told_everything_and_farewells_survive() {
        let mut up = uplink();
        assert!(up.is_empty());
        up.attach(AttachOrder { character: 5, attach: 1, ..Default::default() });
        up.detach(DetachOrder { character: 6, ..Default::default() }, false);
        up.cells((vec![1, 2], vec![3]));
        up.restart(vec![1, 2]);
        let sent = up.take();
        assert!(sent.reset && sent.attaches.is_empty() && sent.unsubscribe.is_empty());
        assert_eq!((sent.subscribe, sent.detaches.len()), (vec![1, 2], 1));
        assert!(up.is_empty());
    }

    #[test]
    fn an_attach_that_was_given_up_is_not_sent() {
        let mut up = uplink();
        up.attach(AttachOrder { character: 5, epoch: 1, attach: 1, ..Default::default() });
        up.detach(DetachOrder { character: 5, epoch: 1, attach: 1, goodbye: false }, false);
        let sent = up.take();
        assert!(sent.attaches.is_empty() && sent.watch_sessions.is_empty());
        assert_eq!(sent.unwatch_sessions, [5]);
        assert_eq!(sent.detaches.len(), 1);
    }

    #[test]
    fn a_session_that_is_watched_or_not_is_in_one_list() {
        let mut up = uplink();
        up.unwatch(5);
        up.watch(5);
        up.attach(AttachOrder { character: 5, ..Default::default() });
        let sent = up.take();
        assert_eq!((sent.watch_sessions, sent.unwatch_sessions, sent.attaches.len()), (vec![5], vec![], 1));
        // It went on before the order was sent: of no use any more.
        up.attach(AttachOrder { character: 5, ..Default::default() });
        up.unwatch(5);
        let sent = up.take();
        assert_eq!((sent.watch_sessions, sent.unwatch_sessions, sent.attaches.len()), (vec![], vec![5], 0));
    }

    #[test]
    fn a_cell_is_never_in_both_lists() {
        let mut up = uplink();
        up.cells((vec![1], vec![]));
        up.cells((vec![2], vec![1]));
        let sent = up.take();
        assert_eq!((sent.subscribe, sent.unsubscribe), (vec![2], vec![1]));
    }

    #[test]
    fn inputs_are_bounded_and_never_out_of_order() {
        let mut up = uplink();
        let most = INPUTS_HELD_MAX_BYTES / INPUT_BYTES;
        for seq in 0..most as u64 + 10 {
            up.inputs(SessionInputs { acked_reply_seq: seq, ..Default::default() });
        }
        let sent = up.take();
        assert_eq!(sent.inputs.len(), most);
        assert_eq!(sent.inputs.last().unwrap().acked_reply_seq, most as u64 - 1, "the oldest are kept");
        up.inputs(SessionInputs::default());
        assert!(up.is_empty(), "later ones wait until everything is given again");
        assert!(up.overflowed() && !up.overflowed());
        up.inputs(SessionInputs::default());
        assert_eq!(up.take().inputs.len(), 1);
    }
}
