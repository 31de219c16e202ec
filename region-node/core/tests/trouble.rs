//! Rules that fail: what is refused, what is set aside, and what halts the region until it is skipped.

mod arena;

use std::sync::Arc;

use arena::Arena;
use bytes::Bytes;
use marchland_proto::codes::Code;
use marchland_proto::storage::{
    AdminOrder, ChannelMessage, GameMessage, RegionEntry, TickEntry, channel_message::Body, dead_letter::What, region_entry,
};
use marchland_region_core::testing::Script;
use marchland_region_core::{
    Applied, ApplyFault, CAUSE_PANIC, CAUSE_SKIPPED, CharacterId, Effects, Handler, LogIndex, Region, skip_entry,
};
use prost::Message;

struct Play {
    script: Script,
    region: Region<Arena>,
    applied: usize,
}

impl Play {
    fn new() -> Self {
        arena::quiet();
        let mut script = Script::new(&Arena, Vec::new());
        script.enter(1, "one");
        let mut play = Self { script, region: Region::new(Arc::new(Arena)), applied: 0 };
        play.tick().unwrap();
        play
    }

    fn tick(&mut self) -> Result<Effects<Arena>, ApplyFault> {
        self.script.tick();
        self.catch_up()
    }

    fn catch_up(&mut self) -> Result<Effects<Arena>, ApplyFault> {
        let mut last = Ok(Effects::default());
        while let Some(entry) = self.script.log().get(self.applied) {
            self.applied += 1;
            last = self.region.apply(LogIndex(self.applied as u64), entry);
            if last.is_err() {
                break;
            }
        }
        last
    }

    /// Ticks until the next one is the one at which the game's tick panics.
    fn before_the_panic(&mut self) {
        self.script.act(1, arena::PET, Bytes::new());
        while self.region.tick().next().0 % 41 != 40 {
            self.tick().unwrap();
        }
    }

    fn letter(&mut self, seq: u64, code: u32) {
        let body = Some(Body::Game(GameMessage { code, body: Bytes::from_static(b"dear region"), ..GameMessage::default() }));
        let message = ChannelMessage { from_group: arena::ELSEWHERE.0, seq, map_epoch: 1, body, ..ChannelMessage::default() };
        self.script.pending().messages.push(message);
    }
}

fn restored(region: &Region<Arena>) -> Region<Arena> {
    let copy = Region::decode(Arc::new(Arena), &region.view().encode()).unwrap();
    assert_eq!(copy.state_hash(), region.state_hash());
    copy
}

#[test]
fn a_letter_that_panics_is_set_aside_and_kept() {
    let mut play = Play::new();
    assert_eq!(play.region.dead_letters().count(), 0);
    let untroubled = play.region.view().encode();
    play.letter(1, 13);
    play.letter(2, 1);
    play.tick().unwrap();
    assert_eq!((play.region.dead_letter_count(), play.region.taken_from(arena::ELSEWHERE)), (1, 2));
    let copy = restored(&play.region);
    for region in [&play.region, &copy] {
        let [dead] = &region.dead_letters().collect::<Vec<_>>()[..] else { panic!("not one") };
        assert_eq!((dead.index, dead.cause, dead.tick), (play.applied as u64, CAUSE_PANIC, region.tick().0));
        let Some(What::Message(message)) = &dead.what else { panic!("{dead:?}") };
        assert!(matches!(&message.body, Some(Body::Game(letter)) if letter.code == 13 && &letter.body[..] == b"dear region"));
    }
    // Without trouble, a state has the sections that it always had.
    let sections = |bytes: &[u8]| u32::from_le_bytes(bytes[6..10].try_into().unwrap());
    assert_eq!(sections(&untroubled) + 1, sections(&play.region.view().encode()));
}

#[test]
fn an_entrance_that_panics_is_set_aside() {
    let mut play = Play::new();
    play.script.enter(2, "a name that the rules can not bear");
    let panics = play.region.world().counters().panics;
    play.tick().unwrap();
    let happened = play.region.world().counters().panics - panics;
    assert_eq!(play.region.dead_letter_count(), happened, "what panicked is kept");
}

#[test]
fn a_tick_that_panics_halts_until_it_is_skipped() {
    let mut play = Play::new();
    play.before_the_panic();
    let before = play.region.view();
    let tick = play.region.tick();
    play.script.act(1, arena::MINT, Bytes::new());
    play.letter(1, 4);
    play.script.pending().orders.push(AdminOrder { id: 8, code: 5, ..AdminOrder::default() });
    let fault = play.tick().err().expect("the tick panics");
    let at = LogIndex(play.applied as u64);
    assert_eq!(fault, ApplyFault::Panicked { index: at, handler: Handler::Tick });
    assert_eq!(fault.to_string(), format!("entry {at}: the game's tick panicked"));
    let doing = play.region.doing();
    assert_eq!(doing.entry(), Some((at, tick)), "who looks now learns where");

    // Every replica goes back, and skips.
    let mut skipping = Region::decode(Arc::new(Arena), &before.encode()).unwrap();
    let entities = skipping.world().entity_count();
    let entry = play.script.log()[play.applied - 1].clone();
    let effects = skipping.skip(at, &entry).unwrap();
    skipping.check().unwrap();
    assert_eq!((effects.applied, effects.tick, skipping.tick()), (Applied::Skipped, Some(tick.next()), tick.next()));
    let [reply] = &effects.replies[..] else { panic!("{:?}", effects.replies) };
    assert_eq!((reply.character, reply.reply.code), (CharacterId(1), Code::Internal as u32));
    assert_eq!((skipping.world().entity_count(), skipping.taken_from(arena::ELSEWHERE)), (entities, 1));
    let kept: Vec<_> = skipping.dead_letters().map(|dead| (dead.cause, dead.index)).collect();
    assert_eq!(kept, [(CAUSE_SKIPPED, at.0), (CAUSE_SKIPPED, at.0)]);
    let [skipped] = &skipping.skipped().collect::<Vec<_>>()[..] else { panic!("not one") };
    assert_eq!((skipped.index, skipped.tick, skipped.commands, skipped.messages), (at.0, tick.next().0, 1, 1));

    // The order above it, met by who obeyed it and by who did not.
    let order = skip_entry(at, "it panics", "root");
    let mut copy = restored(&skipping);
    for region in [&mut skipping, &mut copy] {
        assert_eq!(region.apply(at.next(), &order).unwrap().applied, Applied::SkipOrdered(at));
        let [skipped] = &region.skipped().collect::<Vec<_>>()[..] else { panic!("not one") };
        assert_eq!((skipped.order, &skipped.reason[..], &skipped.actor[..]), (at.0 + 1, "it panics", "root"));
        // And the world goes on; an order that was set aside does not come again.
        let again = AdminOrder { id: 8, code: 5, ..AdminOrder::default() };
        let tick = TickEntry { now_ms: region.now_ms() + 50, orders: vec![again], ..TickEntry::default() };
        let tick = RegionEntry { format: 1, body: Some(region_entry::Body::Tick(tick)) }.encode_to_vec();
        assert_eq!(region.apply(LogIndex(at.0 + 2), &tick).unwrap().applied, Applied::Tick);
        assert_eq!(region.world().entity_count(), entities);
        region.check().unwrap();
    }
    assert_eq!(skipping.state_hash(), copy.state_hash());
}

#[test]
fn an_order_to_skip_what_was_applied_is_a_fault() {
    let mut play = Play::new();
    play.tick().unwrap();
    let applied = LogIndex(play.applied as u64);
    let fault = play.region.apply(applied.next(), &skip_entry(applied, "", "")).err();
    assert_eq!(fault, Some(ApplyFault::NotSkipped { index: applied.next(), about: applied }));
    // One for an entry above its own is of no effect.
    let effects = play.region.apply(applied.next(), &skip_entry(LogIndex(1000), "", "")).unwrap();
    assert_eq!(effects.applied, Applied::SkipOrdered(LogIndex(1000)));
}

#[test]
fn goodbyes_count_and_attaches_wait() {
    let mut play = Play::new();
    let goodbye = marchland_proto::storage::DetachOrder { character: 1, epoch: 1, attach: 1, goodbye: true };
    let tick = TickEntry { now_ms: play.region.now_ms() + 50, detaches: vec![goodbye], ..TickEntry::default() };
    let entry = RegionEntry { format: 1, body: Some(region_entry::Body::Tick(tick)) }.encode_to_vec();
    let at = LogIndex(play.applied as u64 + 1);
    let effects = play.region.skip(at, &entry).unwrap();
    assert!(play.region.session(CharacterId(1)).is_none() && effects.attached.is_empty());
    play.region.check().unwrap();
    for rubbish in [&b"\xff"[..], b""] {
        let at = play.region.applied().next();
        play.region.skip(at, rubbish).unwrap();
    }
    assert_eq!(play.region.world().counters().skipped_entries, 3);
    restored(&play.region);
}
