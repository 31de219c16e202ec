//! Random logs: entries good and bad, in any order.

use bytes::Bytes;
use marchland_proto::storage::{
    AdminOrder, Barrier, ChannelAck, ChannelMessage, Cut, EntityHandoff, Expel, Fin, GameMessage, MapChange, Moved,
    SessionInputs, SkipEntry, Sleep, StoredAction, StoredInput, StoredMove, channel_message, region_entry, stored_input,
};
use marchland_region_core::GroupId;
use marchland_region_core::testing::Script;
use proptest::prelude::*;

use super::{ACTIONS_END, Arena, ELSEWHERE};

/// What happens in a log.
#[derive(Clone, Debug)]
pub enum Event {
    Tick(u64),
    Enter(u64),
    Admit(u64),
    Attach(u64),
    Detach(u64, bool),
    Walk(u64, f32, f32, u32),
    Act(u64, u32, Vec<u8>),
    Empty(u64),
    Acknowledge(u64, u64),
    RawInputs(u64, u64, u32, u64, u32),
    RawMessage(u64, u64, u64, u8),
    Told(u8, u64),
    Ack(u64, u64),
    Order(u64, u32),
    Cut(u64),
    Sleep(u64),
    Barrier(bool),
    Skip,
    Rubbish(Vec<u8>),
    CheckedHash(u64),
}

/// Any event.
pub fn event() -> impl Strategy<Value = Event> {
    let character = || prop_oneof![9 => 1u64..6, 1 => 0u64..40];
    let number = || prop_oneof![Just(f32::NAN), Just(f32::INFINITY), -2.0f32..2.0, -1e30f32..1e30];
    let bytes = || prop::collection::vec(any::<u8>(), 0..60);
    prop_oneof![
        30 => (0u64..300).prop_map(|ms| Event::Tick(if ms > 280 { ms * 100 } else { 50 })),
        6 => character().prop_map(Event::Enter),
        2 => character().prop_map(Event::Admit),
        4 => character().prop_map(Event::Attach),
        3 => (character(), any::<bool>()).prop_map(|(c, g)| Event::Detach(c, g)),
        20 => (character(), number(), number(), 0u32..400).prop_map(|(c, x, z, ms)| Event::Walk(c, x, z, ms)),
        20 => (character(), 0..ACTIONS_END, bytes()).prop_map(|(c, a, b)| Event::Act(c, a, b)),
        2 => character().prop_map(Event::Empty),
        3 => (character(), 0u64..30).prop_map(|(c, s)| Event::Acknowledge(c, s)),
        2 => (character(), 0u64..3, 0u32..4, 0u64..40, any::<u32>()).prop_map(|(c, e, a, s, w)| Event::RawInputs(c, e, a, s, w)),
        3 => (0u64..3, 0u64..6, 0u64..9, any::<u8>()).prop_map(|(g, s, c, k)| Event::RawMessage(g, s, c, k)),
        3 => (any::<u8>(), character()).prop_map(|(k, c)| Event::Told(k, c)),
        2 => (0u64..3, 0u64..20).prop_map(|(g, s)| Event::Ack(g, s)),
        1 => (0u64..9, 0u32..9).prop_map(|(i, c)| Event::Order(i, c)),
        1 => (0u64..30).prop_map(Event::Cut),
        1 => (0u64..10_000).prop_map(Event::Sleep),
        1 => any::<bool>().prop_map(Event::Barrier),
        1 => Just(Event::Skip),
        1 => bytes().prop_map(Event::Rubbish),
        1 => any::<u64>().prop_map(Event::CheckedHash),
    ]
}

fn group(number: u64) -> u64 {
    [ELSEWHERE.0, 77, GroupId::directory(marchland_types::WorldId(1)).0][number as usize % 3]
}

fn message_body(kind: u8, character: u64) -> Option<channel_message::Body> {
    use channel_message::Body;
    Some(match kind % 9 {
        0 => return None,
        1 => Body::Expel(Expel { character, epoch: u64::from(kind / 9) }),
        2 => Body::MapChange(MapChange { map_epoch: u64::from(kind), map: Vec::new() }),
        3 => Body::Handoff(EntityHandoff {
            entity: 5,
            move_number: 2,
            record: Bytes::from_static(b"?"),
            ..EntityHandoff::default()
        }),
        4 => Body::Moved(Box::new(Moved { character, message: None })),
        5 => Body::Fin(Fin {}),
        6 => Body::DropStub(marchland_proto::storage::DropStub { character, move_number: 1 }),
        _ => Body::Game(GameMessage { code: u32::from(kind % 20), character: character % 7, ..GameMessage::default() }),
    })
}

fn write(script: &mut Script, event: Event) {
    match event {
        Event::Tick(ms) => script.tick_after(ms),
        Event::Enter(c) => script.enter(c, if c == 39 { "panic" } else { "somebody" }),
        Event::Admit(c) => script.admit(c, "somebody else"),
        Event::Attach(c) => script.attach(c),
        Event::Detach(c, goodbye) => script.detach(c, goodbye),
        Event::Walk(c, x, z, duration_ms) => {
            script.input(c, duration_ms, Some(stored_input::What::Move(StoredMove { x, z, yaw: duration_ms })));
        }
        Event::Act(c, code, body) => drop(script.act(c, code, body)),
        Event::Empty(c) => drop(script.input(c, 0, None)),
        Event::Acknowledge(c, seq) => script.acknowledge(c, seq),
        Event::RawInputs(character, epoch, attach, seq, what) => {
            let what = match what % 3 {
                0 => None,
                1 => Some(stored_input::What::Action(StoredAction { code: what, body: vec![0; (what % 2000) as usize].into() })),
                _ => Some(stored_input::What::Move(StoredMove { x: 1.0, z: 0.0, yaw: what })),
            };
            let inputs = vec![StoredInput { seq, client_tick: 1, duration_ms: u32::MAX, what }];
            script.pending().sessions.push(SessionInputs { character, epoch, attach, inputs, acked_reply_seq: u64::MAX });
        }
        Event::RawMessage(from, seq, cut, kind) => {
            let body = message_body(kind, u64::from(kind));
            script.pending().messages.push(ChannelMessage {
                from_group: group(from),
                seq,
                cut,
                map_epoch: u64::from(kind % 3),
                body,
            });
        }
        Event::Told(kind, character) => {
            // The directory never says Fin here, or nobody would come any more.
            if let Some(body) = message_body(kind, character).filter(|body| !matches!(body, channel_message::Body::Fin(_))) {
                script.tell(body);
            }
        }
        Event::Ack(from, seq) => script.pending().acks.push(ChannelAck { from_group: group(from), seq, cut: 0 }),
        Event::Order(id, code) => {
            script.pending().orders.push(AdminOrder { id, code, body: Bytes::new(), actor: "root".into() });
        }
        Event::Cut(number) => script.entry(region_entry::Body::Cut(Cut { number, now_ms: script.now_ms() })),
        Event::Sleep(ms) => {
            let now_ms = script.now_ms();
            script.entry(region_entry::Body::Sleep(Sleep { wake_at_ms: now_ms + ms, now_ms }));
        }
        Event::Barrier(activate) => {
            let to = Barrier { rules_version: 3, content_hash: 0xfeed, activate };
            script.entry(region_entry::Body::Barrier(to));
        }
        Event::Skip => script.entry(region_entry::Body::Skip(SkipEntry { index: u64::MAX, ..SkipEntry::default() })),
        Event::Rubbish(bytes) => {
            // Bytes that are no entry, or one of no known kind; both are faults that change nothing.
            let mut entry = bytes;
            entry.insert(0, 0x07);
            let log = script.log().len();
            script.raw(entry);
            assert_eq!(script.log().len(), log + 1);
        }
        Event::CheckedHash(hash) => {
            script.pending().checked_hash = hash;
            script.pending().checked_tick = 3;
        }
    }
}

/// The log in which these events happen.
pub fn log(events: Vec<Event>) -> Vec<Vec<u8>> {
    let mut script = Script::new(&Arena, Vec::new());
    script.enter(1, "one");
    script.enter(2, "two");
    script.tick();
    for event in events {
        write(&mut script, event);
    }
    script.tick();
    script.log().to_vec()
}
