//! One replica's region: entries of the log go in, effects come out.
//!
//! What always holds: the state after an entry is a function of the entries up to it and of the game, to the bit, whether the
//! replica lived through all of them or restored a checkpoint in between. An entry that is refused changes nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use marchland_proto::records::OwnState;
use marchland_proto::storage::{ChannelMessage, DeadLetter, Genesis, RegionEntry, SkippedEntry, region_entry};
use marchland_types::{AttachNumber, CellId, CharacterId, CutNumber, EntityId, GroupId, LogIndex, SessionEpoch, Tick};
use prost::Message as _;

use crate::component::Registry;
use crate::context::Outputs;
use crate::deed::Deed;
use crate::doing::{Doing, Handler};
use crate::effects::{Applied, Effects};
use crate::game::{BadParameters, Game};
use crate::session::{Mover, Session};
use crate::view::RegionView;
use crate::world::state::State;
use crate::world::{EntityView, World};

/// The format of log entries that this build writes and reads.
pub const ENTRY_FORMAT: u32 = 1;
/// State hashes of past ticks that are kept to be compared with proposers'.
const HASHES_KEPT: usize = 64;

/// An entry that can not be applied. Every replica meets the same fault at the same entry, so the region stops, loudly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyFault {
    /// The entry is no entry.
    #[error("entry {index} does not decode: {reason}")]
    Malformed {
        /// Which.
        index: LogIndex,
        /// Why.
        reason: String,
    },
    /// The entry was written by a build that knows more.
    #[error("entry {index} has format {found}, this build reads {ENTRY_FORMAT}")]
    UnknownFormat {
        /// Which.
        index: LogIndex,
        /// Its format.
        found: u32,
    },
    /// The entry has no body that this build knows.
    #[error("entry {index} has no known body")]
    UnknownBody {
        /// Which.
        index: LogIndex,
    },
    /// The entry was applied before.
    #[error("entry {index} came after entry {applied} was applied")]
    OutOfOrder {
        /// Which.
        index: LogIndex,
        /// The last one that was applied.
        applied: LogIndex,
    },
    /// Something came before the genesis.
    #[error("entry {index} comes before the region's genesis")]
    NoGenesis {
        /// Which.
        index: LogIndex,
    },
    /// A second genesis.
    #[error("entry {index} is a second genesis")]
    SecondGenesis {
        /// Which.
        index: LogIndex,
    },
    /// The region needs rules that this build does not have.
    #[error(
        "entry {index} needs rules {wanted_rules} with content {wanted_content:#018x}, this build has {found_rules} with \
         {found_content:#018x}"
    )]
    Rules {
        /// Which.
        index: LogIndex,
        /// Rules version of the entry.
        wanted_rules: u64,
        /// Content hash of the entry.
        wanted_content: u64,
        /// Rules version of the build.
        found_rules: u64,
        /// Content hash of the build.
        found_content: u64,
    },
    /// A handler panicked that answers to nobody: there is nothing that could be refused in its place. What was written before it
    /// stays written, so the region must be restored; and the entry fails again until it is skipped.
    #[error("entry {index}: {handler} panicked")]
    Panicked {
        /// Which entry.
        index: LogIndex,
        /// Which handler.
        handler: Handler,
    },
    /// An entry orders another one to be skipped, which was applied here: this replica differs from those that skipped it.
    #[error("entry {index} orders entry {about} to be skipped, which was applied here")]
    NotSkipped {
        /// Which entry.
        index: LogIndex,
        /// The entry that it is about.
        about: LogIndex,
    },
    /// The genesis has parameters that the game can not use.
    #[error("entry {index}: {reason}")]
    Parameters {
        /// Which.
        index: LogIndex,
        /// Why.
        reason: BadParameters,
    },
}

/// One replica's state of a region.
pub struct Region<G: Game> {
    pub(crate) game: Arc<G>,
    pub(crate) ground: Option<Arc<G::Ground>>,
    pub(crate) world: World,
    pub(crate) outputs: Outputs,
    /// Slots that walk in this tick; kept for its memory.
    pub(crate) walking: Vec<u32>,
    pub(crate) doing: Arc<Doing>,
    /// Not part of the state: what a panic says may differ between builds.
    pub(crate) last_panic: Option<(Handler, String)>,
    /// What handlers did, while somebody asks for it. Not part of the state either.
    pub(crate) deeds: Option<Vec<Deed>>,
    state_hash: u64,
    hashes: VecDeque<(Tick, u64)>,
}

/// A session, as the shell needs it.
#[derive(Clone, Copy, Debug)]
pub struct SessionInfo<'a> {
    /// The slot of its entity.
    pub slot: u32,
    /// Its entity.
    pub entity: EntityId,
    /// Raised at every sign-in.
    pub epoch: SessionEpoch,
    /// The highest attach number seen.
    pub attach: AttachNumber,
    /// Whether a client is attached with that number.
    pub attached: bool,
    /// What the next input must carry.
    pub next_seq: u64,
    /// All of it: replies that are kept, and what else there is.
    pub session: &'a Session,
    /// Its movement.
    pub mover: &'a Mover,
}

impl<G: Game> Region<G> {
    /// A region before its genesis.
    #[must_use]
    pub fn new(game: Arc<G>) -> Self {
        let mut components = Registry::default();
        game.components(&mut components);
        Self::with_state(game, State::new(components), None)
    }

    pub(crate) fn with_state(game: Arc<G>, state: State, ground: Option<Arc<G::Ground>>) -> Self {
        let mut region = Self {
            game,
            ground,
            world: World::new(state),
            outputs: Outputs::default(),
            walking: Vec::new(),
            doing: Arc::default(),
            last_panic: None,
            deeds: None,
            state_hash: 0,
            hashes: VecDeque::new(),
        };
        region.settle();
        region
    }

    /// Applies a committed entry.
    pub fn apply(&mut self, index: LogIndex, entry: &[u8]) -> Result<Effects<G>, ApplyFault> {
        let mut effects = Effects::default();
        self.apply_into(index, entry, &mut effects)?;
        Ok(effects)
    }

    /// Applies a committed entry; the effects replace what is in `effects`, whose memory is used again.
    pub fn apply_into(&mut self, index: LogIndex, entry: &[u8], effects: &mut Effects<G>) -> Result<(), ApplyFault> {
        effects.clear();
        let entry = RegionEntry::decode(entry).map_err(|error| ApplyFault::Malformed { index, reason: error.to_string() })?;
        if entry.format != ENTRY_FORMAT {
            return Err(ApplyFault::UnknownFormat { index, found: entry.format });
        }
        let body = entry.body.ok_or(ApplyFault::UnknownBody { index })?;
        self.check_order(index)?;
        self.doing.begin(index, self.tick());
        match body {
            region_entry::Body::Genesis(genesis) => self.genesis(index, genesis, effects)?,
            _ if self.ground.is_none() => return Err(ApplyFault::NoGenesis { index }),
            region_entry::Body::Tick(tick) => self.tick_entry(index, &tick, effects)?,
            region_entry::Body::Cut(cut) => {
                self.advance_clock(cut.now_ms, 0);
                effects.applied = Applied::Cut;
                self.world.state.core.applied = index;
                self.take_cut(CutNumber(cut.number), effects);
            }
            region_entry::Body::Sleep(sleep) => self.sleep(&sleep, effects),
            region_entry::Body::Skip(order) => self.skip_ordered(index, &order, effects)?,
            region_entry::Body::Barrier(barrier) => self.barrier(index, &barrier, effects)?,
        }
        self.finish(index, effects);
        self.doing.end();
        Ok(())
    }

    /// What it is doing, to be read while it does it.
    #[must_use]
    pub fn doing(&self) -> Arc<Doing> {
        self.doing.clone()
    }

    /// Writes from here on what it is doing where another region wrote it before, which it follows.
    pub fn do_as(&mut self, doing: Arc<Doing>) {
        doing.end();
        self.doing = doing;
    }

    /// The last handler that panicked here, and what it said; once. For logs.
    pub fn take_last_panic(&mut self) -> Option<(Handler, String)> {
        self.last_panic.take()
    }

    /// Entries that were skipped, oldest first; as many as are remembered.
    pub fn skipped(&self) -> impl Iterator<Item = &SkippedEntry> {
        self.world.state.trouble.skipped.iter()
    }

    /// What was taken and had no effect, oldest first; as much as is kept.
    pub fn dead_letters(&self) -> impl Iterator<Item = &DeadLetter> {
        self.world.state.trouble.letters()
    }

    /// How much was ever taken and had no effect.
    #[must_use]
    pub fn dead_letter_count(&self) -> u64 {
        self.world.state.trouble.set_aside
    }

    pub(crate) fn check_order(&self, index: LogIndex) -> Result<(), ApplyFault> {
        let core = &self.world.state.core;
        if index <= core.applied && (core.applied, core.tick) != (LogIndex(0), Tick(0)) {
            return Err(ApplyFault::OutOfOrder { index, applied: core.applied });
        }
        Ok(())
    }

    pub(crate) fn finish(&mut self, index: LogIndex, effects: &mut Effects<G>) {
        self.world.state.core.applied = index;
        effects.now_ms = self.world.now_ms();
        effects.outbox_changed |= self.world.channels_changed;
        self.collect_changes(effects);
        self.settle();
        if effects.tick.is_some() {
            self.hashes.push_back((self.world.tick(), self.state_hash));
            if self.hashes.len() > HASHES_KEPT {
                self.hashes.pop_front();
            }
            if let Some(ground) = &self.ground {
                self.game.ticked(&self.world, ground);
            }
        }
    }

    fn settle(&mut self) {
        self.world.settle();
        let mut scratch = std::mem::take(&mut self.world.scratch);
        self.state_hash = self.world.state.hash(false, &mut scratch);
        self.world.scratch = scratch;
    }

    /// A copy that shares memory until this region writes: cheap, sendable, encoded later.
    #[must_use]
    pub fn view(&self) -> RegionView<G> {
        RegionView { game: self.game.clone(), state: self.world.state.share() }
    }

    /// Hash of the whole state after the last entry.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        self.state_hash
    }

    /// This replica's hash after `tick`, as long as it is remembered. Not part of the state.
    #[must_use]
    pub fn hash_after(&self, tick: Tick) -> Option<u64> {
        self.hashes.iter().rev().find(|(at, _)| *at == tick).map(|(_, hash)| *hash)
    }

    /// Every part of the state with its hash, in a fixed order: names the first one in which two replicas differ.
    #[must_use]
    pub fn component_hashes(&self) -> Vec<(&'static str, u64)> {
        self.world.state.hashes(false, &mut crate::codec::Writer::new())
    }

    /// The world, to be read: entities, sessions, counters, cells.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The game.
    #[must_use]
    pub fn game(&self) -> &Arc<G> {
        &self.game
    }

    /// The ground; `None` before the genesis.
    #[must_use]
    pub fn ground(&self) -> Option<&Arc<G::Ground>> {
        self.ground.as_ref()
    }

    /// Number of the last tick.
    #[must_use]
    pub fn tick(&self) -> Tick {
        self.world.tick()
    }

    /// Region time in milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.world.now_ms()
    }

    /// Index of the last entry that was applied; 0 before the first.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.world.applied()
    }

    /// The newest cut.
    #[must_use]
    pub fn cut_number(&self) -> CutNumber {
        self.world.cut_number()
    }

    /// The genesis, once it was applied.
    #[must_use]
    pub fn genesis_entry(&self) -> Option<&Genesis> {
        self.world.state.genesis.as_deref()
    }

    /// The rules in force.
    #[must_use]
    pub fn rules_version(&self) -> u64 {
        self.world.state.core.rules_version
    }

    /// The content in force.
    #[must_use]
    pub fn content_hash(&self) -> u64 {
        self.world.state.core.content_hash
    }

    /// When the next timer runs down.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        self.world.state.timers.next_due_ms()
    }

    /// Whether neighbours show it somebody, or something that moves.
    #[must_use]
    pub fn sees_life(&self) -> bool {
        self.world.state.borders.ghosts.are_lively()
    }

    /// Whether it has something to do by itself: messages that wait, places that the directory was not told, what was set aside, life beyond
    /// a border, somebody whom a border that moved has left far behind.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let state = &self.world.state;
        let is_far_out = |slot: &u32| state.bodies.get(*slot).is_some_and(|body| self.world.reach().is_far_out(body));
        let waits = !state.channels.is_idle() || !state.locations.is_empty() || !state.set_aside.is_empty();
        waits || self.sees_life() || self.world.outside().iter().any(is_far_out)
    }

    /// When the region is to be woken, while it sleeps.
    #[must_use]
    pub fn asleep_until_ms(&self) -> Option<u64> {
        self.world.state.core.asleep_until_ms
    }

    /// Everything in a cell, by slot.
    pub fn cell_entities(&self, cell: CellId) -> impl Iterator<Item = EntityView<'_>> {
        self.world.index_cell(cell).iter().filter_map(|slot| self.world.at_slot(*slot))
    }

    /// The session of a character that is in the world.
    #[must_use]
    pub fn session(&self, character: CharacterId) -> Option<SessionInfo<'_>> {
        let (slot, session, mover) = self.world.session_of(character)?;
        Some(SessionInfo {
            slot,
            entity: self.world.at_slot(slot)?.identity.entity,
            epoch: session.epoch,
            attach: session.attach,
            attached: session.is_attached(),
            next_seq: mover.applied_seq.0 + 1,
            session,
            mover,
        })
    }

    /// Every session that is attached: character, epoch and attach number. A new owner that no edge speaks to about one of them
    /// for a while proposes that it be detached, or the character would stand there for ever.
    pub fn attached_sessions(&self) -> impl Iterator<Item = (CharacterId, SessionEpoch, AttachNumber)> {
        let attached = self.world.state.sessions.iter().filter(|(_, session)| session.is_attached());
        attached.map(|(_, session)| (session.character, session.epoch, session.attach))
    }

    /// Own movement of a character that is in the world.
    #[must_use]
    pub fn own_state(&self, character: CharacterId) -> Option<OwnState> {
        self.world.own_state(self.world.slot_of_character(character)?)
    }

    /// Every receiver with the messages that it has not acknowledged, in order.
    pub fn outbox(&self) -> impl Iterator<Item = (GroupId, impl Iterator<Item = &Arc<ChannelMessage>>)> {
        self.world.state.channels.outboxes()
    }

    /// Number of the last message that was taken from a group.
    #[must_use]
    pub fn taken_from(&self, group: GroupId) -> u64 {
        self.world.state.channels.inbox(group).taken
    }
}
