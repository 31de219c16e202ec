//! A character that has never been in the world, as one record for many: for making many at once.

use std::sync::Arc;

use bytes::Bytes;
use marchland_proto::storage::{Admit, ChannelMessage, Expel, Genesis, RegionEntry, TickEntry, channel_message, region_entry};
use marchland_types::{EntityId, GroupId, LogIndex, WorldId};
use prost::Message as _;

use crate::channel::Body;
use crate::game::Game;
use crate::record::Record;
use crate::region::{ApplyFault, ENTRY_FORMAT, Region};

/// Why there is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTemplate {
    /// A region of this genesis can not be made.
    #[error(transparent)]
    Fault(#[from] ApplyFault),
    /// The game did not let a new character in, or it came to hold an item: that can not be there twice.
    #[error("a new character of this game is no template: {0}")]
    Unfit(&'static str),
}

/// What a new character of a game is, once it has entered a region of this genesis and left it. The record names no entity and nobody:
/// whoever is admitted with it gets an entity of its own, and its own name.
pub fn character_template<G: Game>(game: &Arc<G>, genesis: &Genesis) -> Result<Bytes, NoTemplate> {
    let mut region = Region::new(game.clone());
    let genesis = Genesis { vaults: 1, ..genesis.clone() };
    let directory = GroupId::directory(WorldId(genesis.world));
    region.apply(LogIndex(1), &encode(region_entry::Body::Genesis(genesis)))?;
    let admit = Admit { character: 1, epoch: 1, name: "template".into(), move_number: 1, ..Admit::default() };
    let expel = Expel { character: 1, epoch: 2 };
    for (seq, body) in [(1, Body::Admit(admit)), (2, Body::Expel(expel))] {
        let message = ChannelMessage { from_group: directory.0, seq, body: Some(body), ..ChannelMessage::default() };
        let tick = TickEntry { now_ms: 1 + seq, messages: vec![message], ..TickEntry::default() };
        region.apply(LogIndex(seq + 1), &encode(region_entry::Body::Tick(tick)))?;
    }
    let posted = region.outbox().flat_map(|(_, messages)| messages.cloned().collect::<Vec<_>>());
    let deposit = posted.into_iter().find_map(|message| match &message.body {
        Some(channel_message::Body::Deposit(deposit)) => Some(deposit.clone()),
        _ => None,
    });
    let deposit = deposit.ok_or(NoTemplate::Unfit("it does not enter"))?;
    let mut record = Record::take(&deposit.record).map_err(|_| NoTemplate::Unfit("it is not readable"))?;
    if !record.inventory.items.is_empty() {
        return Err(NoTemplate::Unfit("it holds an item"));
    }
    record.identity.entity = EntityId(0);
    record.identity.character = None;
    record.identity.name = "".into();
    record.timers.clear();
    Ok(record.put())
}

fn encode(body: region_entry::Body) -> Vec<u8> {
    RegionEntry { format: ENTRY_FORMAT, body: Some(body) }.encode_to_vec()
}
