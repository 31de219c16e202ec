//! One entity with all that belongs to it, as bytes: how a character sleeps, and how it will travel between regions.
//!
//! Deadlines are remaining time, components are tagged, and those that nobody knows are kept.

use bytes::Bytes;
use marchland_types::EntityId;

use crate::codec::{CodecError, Reader, Row as _, Writer};
use crate::entity::{Body, Identity};
use crate::inventory::Inventory;
use crate::session::{Mover, Session};
use crate::timer::Timer;
use crate::world::World;

/// Version of the encoding.
const FORMAT: u8 = 1;

/// An entity outside of the world.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What it is.
    pub identity: Identity,
    /// Where it was.
    pub body: Body,
    /// Its session, unless that has ended.
    pub session: Option<(Session, Mover)>,
    /// What it holds.
    pub inventory: Inventory,
    /// Its components by tag, encoded.
    pub components: Vec<(u32, Bytes)>,
    /// Its timers with the time that is left, in milliseconds.
    pub timers: Vec<(u64, Timer)>,
}

impl Record {
    /// The entity in a slot; with its session if that goes on.
    pub(crate) fn of(world: &World, slot: u32, with_session: bool) -> Option<Self> {
        let view = world.at_slot(slot)?;
        let mut components = Vec::new();
        for (tag, column) in &world.state.components.columns {
            let mut out = Writer::new();
            if column.put_row(slot, &mut out) {
                components.push((*tag, out.into_vec().into()));
            }
        }
        let timers = world.state.timers.of(view.identity.entity);
        let session = world.session_at(slot).map(|(session, mover)| (session.clone(), mover.clone()));
        Some(Self {
            identity: view.identity.clone(),
            body: *view.body,
            session: session.filter(|_| with_session),
            inventory: world.state.inventories.get(slot).cloned().unwrap_or_default(),
            components,
            timers: timers.into_iter().map(|(id, timer)| (id.due_ms.saturating_sub(world.now_ms()), timer)).collect(),
        })
    }

    /// The record as bytes.
    #[must_use]
    pub fn put(&self) -> Bytes {
        let mut out = Writer::new();
        out.u8(FORMAT);
        out.nested(|out| self.identity.put(out));
        out.nested(|out| self.body.put(out));
        out.bool(self.session.is_some());
        if let Some((session, mover)) = &self.session {
            out.nested(|out| session.put(out));
            out.nested(|out| mover.put(out));
        }
        out.nested(|out| self.inventory.put(out));
        out.count(self.components.len());
        for (tag, bytes) in &self.components {
            out.u32(*tag);
            out.bytes(bytes);
        }
        out.count(self.timers.len());
        for (left_ms, timer) in &self.timers {
            out.u64(*left_ms);
            out.nested(|out| timer.put(out));
        }
        out.into_vec().into()
    }

    /// Reads what [`Record::put`] wrote. The bytes may come from another region or build and be anything.
    pub fn take(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut input = Reader::new(bytes);
        if input.u8()? != FORMAT {
            return Err(CodecError::Invalid("a record of unknown format"));
        }
        let identity = nested(&mut input)?;
        let body = nested(&mut input)?;
        let session = if input.bool()? { Some((nested(&mut input)?, nested(&mut input)?)) } else { None };
        let inventory = nested(&mut input)?;
        let mut components = Vec::new();
        for _ in 0..input.count(8)? {
            components.push((input.u32()?, input.owned()?));
        }
        if components.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(CodecError::Invalid("the components of a record are out of order"));
        }
        let mut timers = Vec::new();
        for _ in 0..input.count(12)? {
            timers.push((input.u64()?, nested(&mut input)?));
        }
        input.finish()?;
        Ok(Self { identity, body, session, inventory, components, timers })
    }

    /// The entity's id.
    #[must_use]
    pub fn entity(&self) -> EntityId {
        self.identity.entity
    }
}

fn nested<T: crate::codec::Row>(input: &mut Reader<'_>) -> Result<T, CodecError> {
    let mut bytes = Reader::new(input.bytes()?);
    let value = T::take(&mut bytes)?;
    bytes.finish()?;
    Ok(value)
}

/// Ids of the items in a record; none when it is no record.
pub(crate) fn items_of(record: &[u8]) -> Vec<u64> {
    Record::take(record).map_or_else(|_| Vec::new(), |record| record.inventory.items.iter().map(|item| item.item.0).collect())
}
