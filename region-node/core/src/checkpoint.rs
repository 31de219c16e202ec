//! A region's state as bytes: sections with a tag, a version, a length and a checksum each.
//!
//! ```text
//! "MLRG" · format u16 · sections u32 · then each:  tag u64 · version u16 · length u64 · crc32 u32 · bytes
//! ```
//!
//! The checksum covers tag, version and length too. Components are sections of their own, tagged by the component, and kept
//! when nobody knows them. Everything else must be
//! known: a state that lacks a part is no state. Decoding never panics and never allocates for lengths that are not there.

use std::sync::Arc;

use marchland_proto::storage::{EntityHandoff, Genesis, LocationUpdate, Neighbour, Troubles};
use marchland_types::CharacterId;
use prost::Message;

use crate::channel::Channels;
use crate::codec::{CodecError, Reader, Row as _, Writer};
use crate::component::Registry;
use crate::dormant::Dormants;
use crate::game::{BadParameters, Game};
use crate::invariants::{self, InvariantViolation};
use crate::random::Pcg;
use crate::region::Region;
use crate::table::Table;
use crate::timer::Timers;
use crate::trouble::Trouble;
use crate::view::RegionView;
use crate::world::core::Core;
use crate::world::slots::Slots;
use crate::world::state::Borders;
use crate::world::state::{SEED_BODIES, SEED_IDENTITIES, SEED_INVENTORIES, SEED_MOVERS, SEED_SESSIONS, SET_ASIDE_MAX, State};

const MAGIC: &[u8; 4] = b"MLRG";
const FORMAT: u16 = 1;
const VERSION: u16 = 1;
/// Sections of components have this plus their tag.
const COMPONENTS: u64 = 1 << 32;

/// Bytes that are no state of a region, or none that this build can go on with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes do not begin as a region's state does.
    #[error("not the state of a region")]
    NotAState,
    /// Written by a build that knows more.
    #[error("state format {0}, this build reads {FORMAT}")]
    UnknownFormat(u16),
    /// A section whose checksum does not match.
    #[error("section {section} is damaged")]
    Damaged {
        /// Its tag.
        section: u64,
    },
    /// A section that this build does not know, in this version.
    #[error("section {section} of version {version} is not known")]
    UnknownSection {
        /// Its tag.
        section: u64,
        /// Its version.
        version: u16,
    },
    /// Sections are missing, doubled or out of order.
    #[error("the sections are not those of a state: {0} is out of place")]
    Sections(u64),
    /// A section's bytes are not what they should be.
    #[error("section {section}: {reason}")]
    Section {
        /// Its tag.
        section: u64,
        /// Why.
        reason: CodecError,
    },
    /// The envelope is cut short.
    #[error("the state is cut short: {0}")]
    Truncated(CodecError),
    /// The state needs rules that this build does not have.
    #[error("the state needs rules {wanted:?}, this build has {found:?}")]
    Rules {
        /// Rules version and content hash of the state.
        wanted: (u64, u64),
        /// Rules version and content hash of the build.
        found: (u64, u64),
    },
    /// The region's parameters are not the game's.
    #[error(transparent)]
    Parameters(BadParameters),
    /// Each section is sound, but together they are no state.
    #[error("the state contradicts itself: {0}")]
    Inconsistent(InvariantViolation),
}

/// The fixed sections, in their order.
const SECTIONS: [u64; 14] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];
/// What went wrong: there when anything did. A state without it is what it always was, and read as it always was.
const TROUBLE: u64 = 15;
/// What it knows of its neighbours, and of who went there: there when it knows anything.
const BORDERS: u64 = 16;

fn put_messages<'a, M: Message + 'a>(out: &mut Writer, messages: impl ExactSizeIterator<Item = &'a M>) {
    out.count(messages.len());
    for message in messages {
        out.bytes(&message.encode_to_vec());
    }
}

fn take_messages<M: Message + Default>(input: &mut Reader<'_>) -> Result<Vec<M>, CodecError> {
    let mut messages = Vec::new();
    for _ in 0..input.count(4)? {
        messages.push(M::decode(input.bytes()?).map_err(|_| CodecError::Invalid("a stored message does not decode"))?);
    }
    Ok(messages)
}

impl State {
    fn put_section(&self, section: u64, out: &mut Writer) {
        match section {
            1 => self.core.put(out),
            2 => put_messages(out, self.genesis.as_deref().into_iter().collect::<Vec<&Genesis>>().into_iter()),
            3 => put_messages(out, self.map.iter()),
            4 => self.slots.put(out),
            5 => self.identities.put(out),
            6 => self.bodies.put(out),
            7 => self.movers.put(out),
            8 => self.sessions.put(out),
            9 => self.inventories.put(out),
            10 => self.timers.put(out),
            11 => self.dormants.put(out),
            12 => {
                self.channels.put(out);
                put_messages(out, self.locations.values().collect::<Vec<_>>().into_iter());
            }
            13 => {
                out.count(self.streams.len());
                for (system, stream) in &self.streams {
                    out.u32(*system);
                    stream.put(out);
                }
            }
            14 => put_messages(out, self.set_aside.iter()),
            TROUBLE => put_messages(out, [self.trouble.put()].iter()),
            BORDERS => self.borders.put(out),
            component => {
                let tag = (component - COMPONENTS) as u32;
                if let Some(column) = self.components.columns.get(&tag) {
                    column.put(out);
                }
            }
        }
    }

    fn take_section(&mut self, section: u64, input: &mut Reader<'_>) -> Result<(), CodecError> {
        let slots = self.slots.end;
        match section {
            1 => self.core = Core::take(input)?,
            2 => self.genesis = take_messages::<Genesis>(input)?.pop().map(Arc::new),
            3 => self.map = Arc::new(take_messages::<Neighbour>(input)?),
            4 => self.slots = Slots::take(input)?,
            5 => self.identities = Table::take(SEED_IDENTITIES, slots, input)?,
            6 => self.bodies = Table::take(SEED_BODIES, slots, input)?,
            7 => self.movers = Table::take(SEED_MOVERS, slots, input)?,
            8 => self.sessions = Table::take(SEED_SESSIONS, slots, input)?,
            9 => self.inventories = Table::take(SEED_INVENTORIES, slots, input)?,
            10 => self.timers = Timers::take(input)?,
            11 => self.dormants = Dormants::take(input)?,
            12 => {
                self.channels = Channels::take(input)?;
                self.locations = take_messages::<LocationUpdate>(input)?
                    .into_iter()
                    .map(|update| (CharacterId(update.character), update))
                    .collect();
            }
            13 => {
                for _ in 0..input.count(20)? {
                    let system = input.u32()?;
                    self.streams.insert(system, Pcg::take(input)?);
                }
            }
            14 => {
                self.set_aside = Arc::new(take_messages::<EntityHandoff>(input)?);
                if self.set_aside.len() > SET_ASIDE_MAX {
                    return Err(CodecError::Invalid("more handoffs are set aside than are kept"));
                }
            }
            TROUBLE => {
                let stored = take_messages::<Troubles>(input)?.pop().ok_or(CodecError::Invalid("no trouble"))?;
                self.trouble = Trouble::take(stored)?;
            }
            BORDERS => self.borders = Borders::take(input)?,
            component => self.components.column((component - COMPONENTS) as u32).take(slots, input)?,
        }
        Ok(())
    }
}

impl<G: Game> RegionView<G> {
    /// The state as bytes. Equal states give equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let components = self.state.components.columns.iter().filter(|(_, column)| !column.slots().is_empty());
        let trouble = (!self.state.trouble.is_empty()).then_some(TROUBLE);
        let borders = (!self.state.borders.is_empty()).then_some(BORDERS);
        let sections: Vec<u64> = SECTIONS
            .into_iter()
            .chain(trouble)
            .chain(borders)
            .chain(components.map(|(tag, _)| COMPONENTS + u64::from(*tag)))
            .collect();
        let mut out = Writer::new();
        out.as_mut_vec().extend_from_slice(MAGIC);
        out.u16(FORMAT);
        out.count(sections.len());
        let mut bytes = Writer::new();
        for section in sections {
            bytes.clear();
            self.state.put_section(section, &mut bytes);
            let length = bytes.as_slice().len() as u64;
            out.u64(section);
            out.u16(VERSION);
            out.u64(length);
            out.u32(checksum(section, VERSION, length, bytes.as_slice()));
            out.as_mut_vec().extend_from_slice(bytes.as_slice());
        }
        out.into_vec()
    }
}

impl<G: Game> Region<G> {
    /// Restores what [`RegionView::encode`] wrote. The bytes may be anything.
    pub fn decode(game: Arc<G>, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut components = Registry::default();
        game.components(&mut components);
        let mut state = State::new(components);
        let mut input = Reader::new(bytes);
        if input.raw(MAGIC.len()) != Ok(MAGIC) {
            return Err(DecodeError::NotAState);
        }
        let format = input.u16().map_err(DecodeError::Truncated)?;
        if format != FORMAT {
            return Err(DecodeError::UnknownFormat(format));
        }
        let count = input.count(22).map_err(DecodeError::Truncated)?;
        let mut last = 0;
        let mut expected = SECTIONS.iter();
        for _ in 0..count {
            let section = take_section(&mut state, &mut input, last)?;
            if expected.next().is_some_and(|expected| *expected != section) {
                return Err(DecodeError::Sections(section));
            }
            last = section;
        }
        if let Some(missing) = expected.next() {
            return Err(DecodeError::Sections(*missing));
        }
        input.finish().map_err(DecodeError::Truncated)?;

        let mut ground = None;
        if let Some(genesis) = &state.genesis {
            let wanted = (state.core.rules_version, state.core.content_hash);
            let found = (game.rules_version(), game.content_hash());
            let awaited = state.core.barrier.is_some_and(|to| (to.rules_version, to.content_hash) == found);
            if wanted != found && !awaited {
                return Err(DecodeError::Rules { wanted, found });
            }
            ground = Some(Arc::new(game.ground(&genesis.parameters).map_err(DecodeError::Parameters)?));
        }
        invariants::check_rows(&state).map_err(DecodeError::Inconsistent)?;
        Ok(Self::with_state(game, state, ground))
    }
}

/// CRC-32 of a section's header and bytes.
fn checksum(section: u64, version: u16, length: u64, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&section.to_le_bytes());
    crc.update(&version.to_le_bytes());
    crc.update(&length.to_le_bytes());
    crc.update(bytes);
    crc.finalize()
}

/// Reads one section, which must come after `last`.
fn take_section(state: &mut State, input: &mut Reader<'_>, last: u64) -> Result<u64, DecodeError> {
    let section = input.u64().map_err(DecodeError::Truncated)?;
    let version = input.u16().map_err(DecodeError::Truncated)?;
    let length = input.u64().map_err(DecodeError::Truncated)?;
    let crc = input.u32().map_err(DecodeError::Truncated)?;
    let bytes = input.raw(usize::try_from(length).unwrap_or(usize::MAX)).map_err(DecodeError::Truncated)?;
    if checksum(section, version, length, bytes) != crc {
        return Err(DecodeError::Damaged { section });
    }
    let component = (COMPONENTS..2 * COMPONENTS).contains(&section);
    if version != VERSION || !(component || section == TROUBLE || section == BORDERS || SECTIONS.contains(&section)) {
        return Err(DecodeError::UnknownSection { section, version });
    }
    if section <= last {
        return Err(DecodeError::Sections(section));
    }
    let mut bytes = Reader::new(bytes);
    let taken = state.take_section(section, &mut bytes).and_then(|()| bytes.finish());
    taken.map_err(|reason| DecodeError::Section { section, reason })?;
    Ok(section)
}
