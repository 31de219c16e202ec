//! What a keyed group held at a cut.
//!
//! Records are read page by page while entries go on being applied; what changed after the cut is listed, and the list is read
//! last ([`VaultAtCut`]). So the answer is exact, and nothing waits for it. The state of now has no list that leads back to it:
//! it is read again if anything was applied meanwhile.

use bytes::Bytes;
use marchland_proto::cluster::{
    ChangeMapReply, ChangeMapRequest, InspectReply, SeedCharactersReply, SeedCharactersRequest, TakeCutReply,
};
use marchland_proto::codes::Code;
use marchland_proto::storage::{ChannelMessage, DirectoryCharacter, DirectoryCut};
use marchland_raft::BoxFuture;
use marchland_router_core::{Key, VaultAtCut, taken_at};
use marchland_storage::keyed::KeyedStore;
use marchland_types::{CharacterId, CutNumber, GroupId};

use crate::orders::OrderError;
use crate::records::{ReadError, Records};

/// How often the state of now is read before that is given up.
const TRIES: usize = 8;
const NO_REPLICA: u32 = 1;
const NOT_REACHED: u32 = 2;
const FORGOTTEN: u32 = 3;

/// A keyed group's replica, as whoever looks over a whole world sees it.
pub trait Audited: Send + Sync + 'static {
    /// Takes a cut, or (0) the next one; the reply names the highest that has been taken. Leaders only.
    fn take_cut(&self, number: CutNumber) -> BoxFuture<'_, TakeCutReply>;

    /// What stood at a cut, or (0) stands now.
    fn inspect(&self, cut: CutNumber) -> BoxFuture<'_, InspectReply>;

    /// Does its part of making many characters, each with this record. Leaders only.
    fn seed(&self, request: SeedCharactersRequest, record: Bytes) -> BoxFuture<'_, SeedCharactersReply>;

    /// Tells the region map, or gives the regions other rectangles. A directory's leader only; others have no map.
    fn change_map(&self, _request: ChangeMapRequest) -> BoxFuture<'_, ChangeMapReply> {
        let reason = "only a directory has a map".to_owned();
        let reply = ChangeMapReply { code: Code::Refused as u32, reason, ..ChangeMapReply::default() };
        Box::pin(std::future::ready(reply))
    }
}

/// What whoever seeds is told of an order without an answer.
pub(crate) fn not_seeded(error: &OrderError) -> SeedCharactersReply {
    let (code, leader) = error.reply();
    SeedCharactersReply { code: code as u32, reason: error.to_string(), leader, ..SeedCharactersReply::default() }
}

/// Why there is no state to tell.
enum Failed {
    Code(u32, String),
    Read(ReadError),
}

impl From<ReadError> for Failed {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// Of a directory. No character and no item is in it: those that it names must be somewhere, for it had been told where.
pub(crate) async fn directory<K: KeyedStore>(id: GroupId, records: &Records<K>, cut: CutNumber) -> InspectReply {
    let told = async {
        if cut.0 != 0 {
            let cut = kept_cut(id, records, cut).await?;
            // What its own entry told came behind the cut, or is left out.
            let characters = located(records, cut.index).await?;
            return Ok(InspectReply { characters, ..reply(&cut) });
        }
        for _ in 0..TRIES {
            let now = now(records).await?;
            let characters = located(records, now.index.saturating_add(1)).await?;
            if is_still(records, &now).await? {
                return Ok(InspectReply { characters, ..reply(&now) });
            }
        }
        Err(restless(id))
    };
    answer(id, told.await)
}

/// Characters that were located before an entry. When one was first located never changes, so it does not matter when it is read.
async fn located<K: KeyedStore>(records: &Records<K>, before: u64) -> Result<Vec<u64>, ReadError> {
    let mut characters = Vec::new();
    let take = |_, character: DirectoryCharacter| {
        if (1..before).contains(&character.located_index) {
            characters.push(character.character);
        }
    };
    records.each(&Key::Character(CharacterId(0)), take).await?;
    Ok(characters)
}

/// Of the realm, which has neither characters nor items: its state hash tells replicas apart.
pub(crate) async fn realm<K: KeyedStore>(id: GroupId, records: &Records<K>, cut: CutNumber) -> InspectReply {
    let told = async {
        if cut.0 != 0 {
            return Ok(reply(&kept_cut(id, records, cut).await?));
        }
        for _ in 0..TRIES {
            let now = now(records).await?;
            if is_still(records, &now).await? {
                return Ok(reply(&now));
            }
        }
        Err(restless(id))
    };
    answer(id, told.await)
}

/// Of a vault.
pub(crate) async fn vault<K: KeyedStore>(id: GroupId, records: &Records<K>, cut: CutNumber) -> InspectReply {
    let told = async {
        if cut.0 != 0 {
            let cut = kept_cut(id, records, cut).await?;
            let mut state = gather(records, cut.clone()).await?;
            records.each(&Key::Undo(cut.undo_end), |_, undo| state.undo(undo)).await?;
            // Had any of them gone before it was read, the list would begin later now.
            if records.counters().await?.undo_begin > cut.undo_end {
                return Err(forgotten(cut.number));
            }
            return Ok(full(&cut, &state));
        }
        for _ in 0..TRIES {
            let now = now(records).await?;
            let state = gather(records, now.clone()).await?;
            if is_still(records, &now).await? {
                return Ok(full(&now, &state));
            }
        }
        Err(restless(id))
    };
    answer(id, told.await)
}

async fn gather<K: KeyedStore>(records: &Records<K>, cut: DirectoryCut) -> Result<VaultAtCut, ReadError> {
    let mut state = VaultAtCut::new(cut);
    let take_kept = |key, kept| {
        if let Key::Kept(id) = key {
            state.kept(id, kept);
        }
    };
    records.each(&Key::Kept(CharacterId(0)), take_kept).await?;
    let take_posted = |key, message: ChannelMessage| {
        if let Key::Posted(to, _) = key {
            state.posted(to, &message);
        }
    };
    records.each(&Key::Posted(GroupId(0), 0), take_posted).await?;
    records.each(&Key::SetAside(GroupId(0), 0), |_, message: ChannelMessage| state.set_aside(&message)).await?;
    Ok(state)
}

async fn kept_cut<K: KeyedStore>(id: GroupId, records: &Records<K>, number: CutNumber) -> Result<DirectoryCut, Failed> {
    if let Some(cut) = records.cut(number).await? {
        return Ok(cut);
    }
    let newest = records.counters().await?.cut;
    if newest < number.0 {
        return Err(Failed::Code(NOT_REACHED, format!("{id} has taken cut {newest}, not {number} yet")));
    }
    Err(forgotten(number.0))
}

/// The group as it stands, as if a cut were taken.
async fn now<K: KeyedStore>(records: &Records<K>) -> Result<DirectoryCut, ReadError> {
    let index = records.applied().await?.index;
    let counters = records.counters().await?;
    let channels = records.channels().await?;
    Ok(DirectoryCut {
        number: 0,
        index,
        now_ms: counters.now_ms,
        state_hash: counters.state_hash,
        channels,
        undo_end: counters.undo_end,
    })
}

async fn is_still<K: KeyedStore>(records: &Records<K>, now: &DirectoryCut) -> Result<bool, ReadError> {
    Ok(records.applied().await?.index == now.index)
}

fn forgotten(number: u64) -> Failed {
    Failed::Code(FORGOTTEN, format!("cut {number} is not kept any more"))
}

fn restless(id: GroupId) -> Failed {
    Failed::Code(NOT_REACHED, format!("{id} changes while it is read: take a cut"))
}

fn reply(cut: &DirectoryCut) -> InspectReply {
    InspectReply { index: cut.index, state_hash: cut.state_hash, taken: taken_at(cut), ..InspectReply::default() }
}

fn full(cut: &DirectoryCut, state: &VaultAtCut) -> InspectReply {
    let (characters, items) = state.held();
    InspectReply { characters, items, in_flight: state.in_flight(), ..reply(cut) }
}

fn answer(id: GroupId, told: Result<InspectReply, Failed>) -> InspectReply {
    let (code, reason) = match told {
        Ok(reply) => return reply,
        Err(Failed::Code(code, reason)) => (code, reason),
        Err(Failed::Read(error)) => {
            tracing::error!(group = %id, %error, "records can not be read");
            (NO_REPLICA, format!("records of {id} can not be read: {error}"))
        }
    };
    InspectReply { code, reason, ..InspectReply::default() }
}

/// What is told of a cut that was ordered: code, reason and highest cut of the answer, if there is one.
pub(crate) async fn cut_reply<K: KeyedStore>(
    records: &Records<K>,
    taken: Result<(u32, String, u64), OrderError>,
) -> TakeCutReply {
    match taken {
        Ok((0, _, number)) => match records.cut(CutNumber(number)).await {
            Ok(cut) => TakeCutReply { number, index: cut.map_or(0, |cut| cut.index), ..TakeCutReply::default() },
            Err(error) => TakeCutReply { code: Code::Internal as u32, reason: error.to_string(), ..TakeCutReply::default() },
        },
        Ok((code, reason, _)) => TakeCutReply { code, reason, ..TakeCutReply::default() },
        Err(error) => {
            let (code, leader) = error.reply();
            TakeCutReply { code: code as u32, leader, reason: error.to_string(), ..TakeCutReply::default() }
        }
    }
}
