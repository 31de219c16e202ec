//! Writes logs as a region's owner would: admissions, attaches and inputs with the numbers that they must carry.

use std::collections::BTreeMap;

use bytes::Bytes;
use marchland_proto::storage::{
    Admit, AttachOrder, ChannelMessage, DetachOrder, Genesis, RegionEntry, SessionInputs, StoredAction, StoredInput, StoredMove,
    TickEntry, channel_message, region_entry, stored_input,
};
use marchland_types::limits::TICK_MS;
use marchland_types::{GroupId, WorldId};
use prost::Message as _;

use crate::game::Game;
use crate::region::ENTRY_FORMAT;

/// The world of a [`Script`].
pub const WORLD: WorldId = WorldId(1);
/// Region time at which a [`Script`] begins.
pub const BEGIN_MS: u64 = 1_700_000_000_000;

#[derive(Clone, Copy, Debug, Default)]
struct Client {
    epoch: u64,
    attach: u32,
    seq: u64,
}

/// A log in the making. Methods add to the tick that [`Script::tick`] then writes.
///
/// ```
/// # use marchland_region_core::*;
/// # struct Meadow;
/// # impl Game for Meadow {
/// #     type Ground = OpenGround;
/// #     fn rules_version(&self) -> u64 { 1 }
/// #     fn content_hash(&self) -> u64 { 0 }
/// #     fn components(&self, _: &mut Registry) {}
/// #     fn ground(&self, _: &[u8]) -> Result<OpenGround, BadParameters> { Ok(OpenGround::new(100.0)) }
/// #     fn enter(&self, _: &mut Context<'_, Self>, _: CharacterId, _: &str) -> Spawn { Spawn::new(1).at([50.0, 0.0, 50.0]) }
/// #     fn command(&self, _: &mut Context<'_, Self>, _: EntityId, _: Action<'_>) -> Result<bytes::Bytes, Refusal> {
/// #         Err(Refusal::unknown_action())
/// #     }
/// # }
/// use marchland_region_core::testing::{Script, restore_midway};
///
/// let mut script = Script::new(&Meadow, Vec::new());
/// script.enter(1, "Ada");
/// script.tick();
/// for _ in 0..20 {
///     script.walk(1, [1.0, 0.0]);
///     script.tick();
/// }
/// let region = restore_midway(|| Meadow, script.log(), &[3, 10].into()).unwrap();
/// let ada = region.world().entity_of(CharacterId(1)).unwrap();
/// assert_eq!(region.world().position(ada).unwrap()[0], 55.0);
/// ```
#[derive(Clone, Debug)]
pub struct Script {
    log: Vec<Vec<u8>>,
    now_ms: u64,
    told: u64,
    clients: BTreeMap<u64, Client>,
    tick: TickEntry,
}

/// SHA-256 stands in the real thing; any bytes do here.
fn secret_of(character: u64, epoch: u64) -> Bytes {
    [character.to_le_bytes(), epoch.to_le_bytes()].concat().into()
}

impl Script {
    /// A log that begins with the genesis of region 1 with these parameters.
    #[must_use]
    pub fn new<G: Game>(game: &G, parameters: Vec<u8>) -> Self {
        let mut script =
            Self { log: Vec::new(), now_ms: BEGIN_MS, told: 0, clients: BTreeMap::new(), tick: TickEntry::default() };
        script.entry(region_entry::Body::Genesis(Genesis {
            world: WORLD.0,
            region: 1,
            seed: 7,
            rules_version: game.rules_version(),
            content_hash: game.content_hash(),
            parameters: parameters.into(),
            map: Vec::new(),
            map_epoch: 1,
            vaults: 0,
        }));
        script
    }

    /// The log so far: encoded entries, the first of which is to be applied at index 1.
    #[must_use]
    pub fn log(&self) -> &[Vec<u8>] {
        &self.log
    }

    /// Region time of the last tick.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Writes any entry.
    pub fn entry(&mut self, body: region_entry::Body) {
        self.log.push(RegionEntry { format: ENTRY_FORMAT, body: Some(body) }.encode_to_vec());
    }

    /// Writes bytes that may be no entry.
    pub fn raw(&mut self, entry: Vec<u8>) {
        self.log.push(entry);
    }

    /// Writes the tick with what was added to it, one tick's length after the last one.
    pub fn tick(&mut self) {
        self.tick_after(TICK_MS);
    }

    /// The same, `pause_ms` after the last one.
    pub fn tick_after(&mut self, pause_ms: u64) {
        self.now_ms += pause_ms;
        let mut tick = std::mem::take(&mut self.tick);
        tick.now_ms = self.now_ms;
        self.entry(region_entry::Body::Tick(tick));
    }

    /// The tick in the making, for whatever has no method here.
    pub fn pending(&mut self) -> &mut TickEntry {
        &mut self.tick
    }

    /// The directory's next message.
    pub fn tell(&mut self, body: channel_message::Body) {
        self.told += 1;
        self.tick.messages.push(ChannelMessage {
            from_group: GroupId::directory(WORLD).0,
            seq: self.told,
            cut: 0,
            map_epoch: 1,
            body: Some(body),
        });
    }

    /// A sign-in: the directory admits the character with a new session epoch, and its client attaches.
    pub fn enter(&mut self, character: u64, name: &str) {
        self.admit(character, name);
        self.attach(character);
    }

    /// The directory admits the character with a new session epoch.
    pub fn admit(&mut self, character: u64, name: &str) {
        let client = self.clients.entry(character).or_default();
        *client = Client { epoch: client.epoch + 1, attach: 0, seq: 0 };
        let epoch = client.epoch;
        self.tell(channel_message::Body::Admit(Admit {
            character,
            epoch,
            secret_hash: secret_of(character, epoch),
            name: name.into(),
            account: name.into(),
            move_number: 1,
            ..Admit::default()
        }));
    }

    /// The character's client attaches, with a higher number than before.
    pub fn attach(&mut self, character: u64) {
        let client = self.clients.entry(character).or_default();
        client.attach += 1;
        self.tick.attaches.push(AttachOrder {
            character,
            epoch: client.epoch,
            attach: client.attach,
            secret_hash: secret_of(character, client.epoch),
            last_reply_seq: 0,
        });
    }

    /// The character's client is lost, or says goodbye.
    pub fn detach(&mut self, character: u64, goodbye: bool) {
        let client = self.clients.entry(character).or_default();
        self.tick.detaches.push(DetachOrder { character, epoch: client.epoch, attach: client.attach, goodbye });
    }

    /// The client goes on with this number, as Welcome tells it after a resume.
    pub fn go_on_with(&mut self, character: u64, seq: u64) {
        self.clients.entry(character).or_default().seq = seq - 1;
    }

    /// The next input of the character; its number.
    pub fn input(&mut self, character: u64, duration_ms: u32, what: Option<stored_input::What>) -> u64 {
        let client = self.clients.entry(character).or_default();
        client.seq += 1;
        let (epoch, attach, seq) = (client.epoch, client.attach, client.seq);
        let input = StoredInput { seq, client_tick: 0, duration_ms, what };
        let sessions = &mut self.tick.sessions;
        match sessions.iter_mut().find(|inputs| (inputs.character, inputs.attach) == (character, attach)) {
            Some(inputs) => inputs.inputs.push(input),
            None => {
                sessions.push(SessionInputs { character, epoch, attach, inputs: vec![input], acked_reply_seq: 0 });
            }
        }
        seq
    }

    /// The character walks for one tick.
    pub fn walk(&mut self, character: u64, direction: [f32; 2]) -> u64 {
        let wanted = StoredMove { x: direction[0], z: direction[1], yaw: 0 };
        self.input(character, TICK_MS as u32, Some(stored_input::What::Move(wanted)))
    }

    /// The character acts.
    pub fn act(&mut self, character: u64, code: u32, body: impl Into<Bytes>) -> u64 {
        self.input(character, 0, Some(stored_input::What::Action(StoredAction { code, body: body.into() })))
    }

    /// The character's client has the replies up to here.
    pub fn acknowledge(&mut self, character: u64, reply_seq: u64) {
        let client = self.clients.entry(character).or_default();
        let (epoch, attach) = (client.epoch, client.attach);
        let inputs = Vec::new();
        self.tick.sessions.push(SessionInputs { character, epoch, attach, inputs, acked_reply_seq: reply_seq });
    }
}
