//! Messages of other groups: taken at last + 1 only, each once, whatever they hold.

use std::sync::Arc;

use marchland_proto::storage::{ChannelMessage, EntityHandoff, GameMessage, MapChange, Moved};
use marchland_types::{CharacterId, CutNumber, GroupId, LogIndex, MapEpoch, level, planted};

use crate::channel::Body;
use crate::doing::Handler;
use crate::effects::Effects;
use crate::game::{Game, Letter};
use crate::region::Region;
use crate::trouble::{CAUSE_PANIC, What};
use crate::world::state::SET_ASIDE_MAX;

impl<G: Game> Region<G> {
    /// Counts a message as taken if it is the next of its channel; tells whether anything may be done about its content.
    pub(crate) fn receive(&mut self, message: &ChannelMessage, effects: &mut Effects<G>) -> bool {
        let from = GroupId(message.from_group);
        let inbox = self.world.state.channels.inbox(from);
        if message.seq <= inbox.taken {
            return false;
        }
        // Planted: what is missing is passed over.
        if message.seq != inbox.taken + 1 && !planted!("gap-accepted") {
            effects.gaps.push((from, inbox.taken + 1));
            return false;
        }
        // Whatever is passed over never arrives.
        level!("channel.passed_over", message.seq - inbox.taken - 1, 0);
        self.take_cut(CutNumber(message.cut), effects);
        self.world.channels_changed = true;
        self.world.state.channels.inbox_mut(from).taken = message.seq;
        if inbox.finished {
            self.refuse_message();
        }
        !inbox.finished
    }

    pub(crate) fn take_message(&mut self, index: LogIndex, message: &ChannelMessage, effects: &mut Effects<G>) {
        if !self.receive(message, effects) {
            return;
        }
        let from = GroupId(message.from_group);
        let panics = self.world.state.core.counters.panics;
        match &message.body {
            None => self.refuse_message(),
            Some(Body::Admit(admit)) => self.admit(admit, effects),
            Some(Body::Expel(expel)) => self.expel(expel, effects),
            Some(Body::MapChange(change)) => self.change_map(change),
            Some(Body::Handoff(handoff)) => self.return_handoff(from, handoff),
            Some(Body::Game(letter)) => self.take_letter(from, letter, effects),
            Some(Body::Fin(_)) => self.world.state.channels.inbox_mut(from).finished = true,
            // A stub is made when a character hands off. This region hands none off, so there is none to drop.
            Some(Body::DropStub(_)) => {}
            // Where a character is concerns the directory; what this region posts to characters never moves; it is no vault.
            Some(Body::Location(_) | Body::Moved(_) | Body::Deposit(_) | Body::Withdraw(_)) => self.refuse_message(),
        }
        if self.world.state.core.counters.panics > panics {
            self.set_aside(index, CAUSE_PANIC, What::Message(message.clone()));
        }
    }

    fn refuse_message(&mut self) {
        self.world.state.core.counters.messages_refused += 1;
    }

    /// Posts a message; one that does not fit into its channel is counted.
    pub(crate) fn post(&mut self, to: GroupId, body: Body) -> bool {
        let from = self.world.group();
        let (cut, map_epoch) = (self.world.state.core.cut.0, self.world.state.core.map_epoch.0);
        let posted = self.world.state.channels.post(to, from, cut, map_epoch, body).is_ok();
        self.world.channels_changed |= posted;
        if !posted {
            self.world.state.core.counters.posts_refused += 1;
        }
        posted
    }

    fn change_map(&mut self, change: &MapChange) {
        let core = &mut self.world.state.core;
        if MapEpoch(change.map_epoch) > core.map_epoch {
            core.map_epoch = MapEpoch(change.map_epoch);
            self.world.state.map = Arc::new(change.map.clone());
            self.world.map_changed = true;
        }
    }

    /// A region that borders on none takes no entity: it goes back to where it came from, or is kept.
    fn return_handoff(&mut self, from: GroupId, handoff: &EntityHandoff) {
        if self.post(from, Body::Handoff(handoff.clone())) {
            self.world.state.core.counters.handoffs_returned += 1;
        } else if self.world.state.set_aside.len() < SET_ASIDE_MAX {
            Arc::make_mut(&mut self.world.state.set_aside).push(handoff.clone());
            self.world.state.core.counters.handoffs_set_aside += 1;
        } else {
            self.refuse_message();
        }
    }

    fn take_letter(&mut self, from: GroupId, message: &GameMessage, effects: &mut Effects<G>) {
        let to = match message.character {
            0 => None,
            character => match self.world.entity_of(CharacterId(character)) {
                Some(entity) => Some(entity),
                None => {
                    let returned = Moved {
                        character,
                        message: Some(Box::new(ChannelMessage {
                            body: Some(Body::Game(message.clone())),
                            ..ChannelMessage::default()
                        })),
                    };
                    self.post(from, Body::Moved(Box::new(returned)));
                    return;
                }
            },
        };
        let _ = self.handle(effects, Handler::Letter(from, message.code), |game, ctx| {
            game.letter(ctx, Letter { from, code: message.code, to, body: &message.body });
            Ok::<_, std::convert::Infallible>(())
        });
    }
}
