//! Damages a world on purpose: what no check can be shown to find was not shown.
//!
//! A stored state is edited below every checksum of its file, so that the file reads as sound. A state that contradicts itself is
//! refused when it is restored; one that is merely another than the other replicas' is found by comparing them; and what no
//! replica can refuse, because a peer sent it in good form, is found by counting. Nothing but tests may use this.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use bytes::Bytes;
use frontier::{Frontier, kind};
use marchland_proto::storage::{ChannelMessage, CheckpointHeader, EntityHandoff, channel_message};
use marchland_region_core::{Audience, Body, Identity, Inventory, Item, Record, Region};
use marchland_storage::checkpoint::{CheckpointOptions, Checkpoints};
use marchland_storage::disk::RealDisk;
use marchland_types::{EntityId, GroupId, ItemId, MoveNumber, RegionId, WorldId};
use prost::Message;

use crate::cluster::REGION;

/// Sections of a region's state, as its format numbers them.
const IDENTITIES: u64 = 5;
const INVENTORIES: u64 = 9;
const DORMANTS: u64 = 11;
/// Magic and format, before the number of sections.
const PREFIX_BYTES: usize = 6;
const CHUNK_BYTES: usize = 256 * 1024;
/// A region that is not there.
const ELSEWHERE: u32 = 2;

/// Gives the first of two items the place of the second, so that it is there twice and the second nowhere. Returns what undoes
/// it: the file and what was in it.
pub fn double_item(node_data: &Path, first: u64, second: u64) -> anyhow::Result<(PathBuf, Vec<u8>)> {
    edit(node_data, |section, bytes| {
        let here = section == INVENTORIES || section == DORMANTS;
        if here { replace(bytes, &second.to_le_bytes(), &first.to_le_bytes()) } else { 0 }
    })
}

/// Gives a character another name. `from` and `to` must be equally long.
pub fn rename(node_data: &Path, from: &str, to: &str) -> anyhow::Result<()> {
    ensure!(from.len() == to.len(), "{from} and {to} differ in length");
    edit(node_data, |section, bytes| {
        let here = section == IDENTITIES || section == DORMANTS;
        if here { replace(bytes, from.as_bytes(), to.as_bytes()) } else { 0 }
    })
    .map(drop)
}

/// An entity on its way from another region, in good form, that carries an item which is somewhere else, too.
#[must_use]
pub fn smuggled(item: u64) -> ChannelMessage {
    let entity = EntityId(u64::from(ELSEWHERE) << 32 | 1);
    let record = Record {
        identity: Identity {
            entity,
            kind: kind::ITEM,
            character: None,
            name: "".into(),
            look: Bytes::new(),
            priority: 0,
            audience: Audience::Public,
            move_number: MoveNumber(1),
        },
        body: Body::default(),
        session: None,
        inventory: Inventory { items: vec![Item { item: ItemId(item), kind: 0, data: Bytes::new() }] },
        components: Vec::new(),
        timers: Vec::new(),
    };
    let handoff = EntityHandoff { entity: entity.0, move_number: 1, record: record.put(), ..EntityHandoff::default() };
    ChannelMessage {
        from_group: GroupId::region(WorldId(1), RegionId(ELSEWHERE)).0,
        seq: 1,
        body: Some(channel_message::Body::Handoff(handoff)),
        ..ChannelMessage::default()
    }
}

/// Edits the sections of the newest checkpoint of the region. `change` tells how many places it changed: exactly one is right.
/// Returns the file and what was in it.
fn edit(node_data: &Path, mut change: impl FnMut(u64, &mut Vec<u8>) -> usize) -> anyhow::Result<(PathBuf, Vec<u8>)> {
    let folder = node_data.join("checkpoints");
    let checkpoints = Checkpoints::open(RealDisk, &folder, CheckpointOptions::default())?;
    let newest = checkpoints.candidates(REGION)?.into_iter().next();
    let newest = newest.with_context(|| format!("{} holds no checkpoint of {REGION}", folder.display()))?;
    let before = std::fs::read(&newest.path)?;
    let reader = checkpoints.read(&newest)?;
    let mut stored = reader.header().clone();
    let body = reader.body()?.concat();

    let mut sections = sections(&body).context("the state has another format than this file knows")?;
    let changed: usize = sections.iter_mut().map(|section| change(section.tag, &mut section.bytes)).sum();
    ensure!(changed == 1, "{changed} places of {} would be changed", newest.path.display());
    let body = join(&body[..PREFIX_BYTES], &sections);

    // The header agrees with the damage, as it would if a faulty build had computed it; unless it can not be a state at all.
    if let Ok(region) = Region::decode(Arc::new(Frontier::new()?), &body) {
        let mut header = CheckpointHeader::decode(stored.meta.clone())?;
        header.state_hash = region.view().state_hash_full();
        stored.meta = Bytes::from(header.encode_to_vec());
    }
    checkpoints.write(&stored, body.chunks(CHUNK_BYTES).map(Bytes::copy_from_slice))?;
    Ok((newest.path, before))
}

struct Section {
    tag: u64,
    version: u16,
    bytes: Vec<u8>,
}

/// `format u16 · sections u32 · then each:  tag u64 · version u16 · length u64 · crc32 u32 · bytes`, after the magic.
fn sections(body: &[u8]) -> anyhow::Result<Vec<Section>> {
    let mut rest = body.get(PREFIX_BYTES..).context("cut short")?;
    let mut take = |count: usize| -> anyhow::Result<&[u8]> {
        let (head, tail) = rest.split_at_checked(count).context("cut short")?;
        rest = tail;
        Ok(head)
    };
    let count = u32::from_le_bytes(take(4)?.try_into()?);
    let mut sections = Vec::new();
    for _ in 0..count {
        let tag = u64::from_le_bytes(take(8)?.try_into()?);
        let version = u16::from_le_bytes(take(2)?.try_into()?);
        let length = usize::try_from(u64::from_le_bytes(take(8)?.try_into()?))?;
        let crc = u32::from_le_bytes(take(4)?.try_into()?);
        let bytes = take(length)?.to_vec();
        let section = Section { tag, version, bytes };
        ensure!(section.crc() == crc, "section {tag} is damaged already");
        sections.push(section);
    }
    ensure!(rest.is_empty(), "{} bytes follow the sections", rest.len());
    Ok(sections)
}

impl Section {
    /// Covers what stands before the bytes, too.
    fn crc(&self) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.tag.to_le_bytes());
        crc.update(&self.version.to_le_bytes());
        crc.update(&(self.bytes.len() as u64).to_le_bytes());
        crc.update(&self.bytes);
        crc.finalize()
    }
}

fn join(prefix: &[u8], sections: &[Section]) -> Vec<u8> {
    let mut body = prefix.to_vec();
    body.extend_from_slice(&(sections.len() as u32).to_le_bytes());
    for section in sections {
        body.extend_from_slice(&section.tag.to_le_bytes());
        body.extend_from_slice(&section.version.to_le_bytes());
        body.extend_from_slice(&(section.bytes.len() as u64).to_le_bytes());
        body.extend_from_slice(&section.crc().to_le_bytes());
        body.extend_from_slice(&section.bytes);
    }
    body
}

/// Replaces every occurrence; tells how many there were.
fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) -> usize {
    let places: Vec<usize> = bytes.windows(from.len()).enumerate().filter(|(_, w)| *w == from).map(|(at, _)| at).collect();
    for at in &places {
        bytes[*at..*at + from.len()].copy_from_slice(to);
    }
    places.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_taken_apart_and_put_together_again() {
        let region = Region::new(Arc::new(Frontier::new().unwrap()));
        let body = region.view().encode();
        let parts = sections(&body).unwrap();
        assert!([IDENTITIES, INVENTORIES, DORMANTS].iter().all(|tag| parts.iter().any(|part| part.tag == *tag)));
        assert_eq!(join(&body[..PREFIX_BYTES], &parts), body);
        assert!(sections(&body[..body.len() - 1]).is_err());
    }

    #[test]
    fn every_place_is_found() {
        let mut bytes = b"one two one".to_vec();
        assert_eq!(replace(&mut bytes, b"one", b"six"), 2);
        assert_eq!(bytes, b"six two six");
    }
}
