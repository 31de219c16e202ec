//! Entries and messages about the region as a whole: genesis, cuts, barriers, skips, channels.

mod arena;

use std::sync::Arc;

use bytes::Bytes;
use marchland_proto::storage::{
    AdminOrder, Barrier, ChannelMessage, Cut, EntityHandoff, Fin, GameMessage, Genesis, MapChange, Neighbour, RegionEntry,
    TickEntry, channel_message::Body, region_entry,
};
use marchland_region_core::testing::{Script, WORLD};
use marchland_region_core::{Applied, ApplyFault, Effects, GroupId, LogIndex, Region, Tick};
use prost::Message as _;

use arena::{Arena, ELSEWHERE};

struct Play {
    region: Region<Arena>,
    index: u64,
}

impl Play {
    fn new() -> Self {
        arena::quiet();
        let mut play = Self { region: Region::new(Arc::new(Arena)), index: 0 };
        let mut script = Script::new(&Arena, Vec::new());
        script.enter(1, "one");
        script.tick();
        for entry in script.log() {
            play.bytes(entry).unwrap();
        }
        play
    }

    fn bytes(&mut self, entry: &[u8]) -> Result<Effects<Arena>, ApplyFault> {
        self.index += 1;
        let result = self.region.apply(LogIndex(self.index), entry);
        self.region.check().unwrap();
        result
    }

    fn entry(&mut self, body: region_entry::Body) -> Effects<Arena> {
        self.bytes(&RegionEntry { format: 1, body: Some(body) }.encode_to_vec()).unwrap()
    }

    fn tick(&mut self, tick: TickEntry) -> Effects<Arena> {
        let now_ms = self.region.now_ms() + 50;
        self.entry(region_entry::Body::Tick(TickEntry { now_ms, ..tick }))
    }

    fn messages(&mut self, messages: Vec<ChannelMessage>) -> Effects<Arena> {
        self.tick(TickEntry { messages, ..TickEntry::default() })
    }

    fn posted(&self, to: GroupId) -> Vec<ChannelMessage> {
        self.region
            .outbox()
            .filter(|(group, _)| *group == to)
            .flat_map(|(_, all)| all.map(|m| ChannelMessage::clone(m)))
            .collect()
    }
}

fn message(seq: u64, body: Body) -> ChannelMessage {
    ChannelMessage { from_group: ELSEWHERE.0, seq, cut: 0, map_epoch: 1, body: Some(body) }
}

fn letter(code: u32, character: u64) -> Body {
    Body::Game(GameMessage { code, character, ..GameMessage::default() })
}

#[test]
fn entries_that_can_not_be_applied_change_nothing() {
    let mut play = Play::new();
    let before = play.region.view().encode();
    let genesis = |rules_version| {
        let genesis = Genesis { rules_version, content_hash: 0xfeed, ..Genesis::default() };
        RegionEntry { format: 1, body: Some(region_entry::Body::Genesis(genesis)) }.encode_to_vec()
    };
    assert!(matches!(play.bytes(b"\xff\xff"), Err(ApplyFault::Malformed { .. })));
    assert!(matches!(play.bytes(&RegionEntry { format: 2, body: None }.encode_to_vec()), Err(ApplyFault::UnknownFormat { .. })));
    assert!(matches!(play.bytes(&RegionEntry { format: 1, body: None }.encode_to_vec()), Err(ApplyFault::UnknownBody { .. })));
    assert!(matches!(play.bytes(&genesis(3)), Err(ApplyFault::SecondGenesis { .. })));
    play.index = 0;
    assert!(matches!(play.bytes(&genesis(3)), Err(ApplyFault::OutOfOrder { .. })));
    assert_eq!(play.region.view().encode(), before);

    let mut fresh = Region::new(Arc::new(Arena));
    let tick = RegionEntry { format: 1, body: Some(region_entry::Body::Tick(TickEntry::default())) }.encode_to_vec();
    assert!(matches!(fresh.apply(LogIndex(1), &tick), Err(ApplyFault::NoGenesis { .. })));
    assert!(matches!(fresh.apply(LogIndex(2), &genesis(4)), Err(ApplyFault::Rules { wanted_rules: 4, found_rules: 3, .. })));
    let bad = Genesis { rules_version: 3, content_hash: 0xfeed, parameters: Bytes::from_static(b"bad"), ..Genesis::default() };
    let bad = RegionEntry { format: 1, body: Some(region_entry::Body::Genesis(bad)) }.encode_to_vec();
    assert!(matches!(fresh.apply(LogIndex(3), &bad), Err(ApplyFault::Parameters { .. })));
    assert_eq!(fresh.state_hash(), Region::new(Arc::new(Arena)).state_hash());
}

#[test]
fn messages_are_taken_once_and_in_order() {
    let mut play = Play::new();
    let mood = |play: &Play| {
        play.region
            .world()
            .get::<arena::Mood>(play.region.world().entity_of(marchland_region_core::CharacterId(1)).unwrap())
            .unwrap()
            .0
    };
    assert_eq!(mood(&play), 0);
    let effects = play.messages(vec![message(2, letter(4, 1))]);
    assert_eq!(effects.gaps, [(ELSEWHERE, 1)]);
    assert_eq!((mood(&play), play.region.taken_from(ELSEWHERE)), (0, 0));
    play.messages(vec![message(1, letter(4, 1)), message(1, letter(4, 1)), message(2, letter(8, 1))]);
    assert_eq!((mood(&play), play.region.taken_from(ELSEWHERE)), (12, 2));
    play.messages(vec![message(2, letter(8, 1))]);
    assert_eq!(mood(&play), 12);
}

#[test]
fn a_letter_for_an_absent_character_returns() {
    let mut play = Play::new();
    play.messages(vec![message(1, letter(4, 77))]);
    let [returned] = &play.posted(ELSEWHERE)[..] else { panic!("nothing returned") };
    let Some(Body::Moved(moved)) = &returned.body else { panic!("{returned:?}") };
    assert_eq!(moved.character, 77);
    assert!(matches!(moved.message.as_ref().unwrap().body, Some(Body::Game(_))));
}

#[test]
fn a_letter_that_breaks_the_rules_is_taken_and_counted() {
    let mut play = Play::new();
    play.messages(vec![message(1, letter(13, 1)), message(2, letter(1, 1))]);
    assert_eq!((play.region.world().counters().panics, play.region.taken_from(ELSEWHERE)), (1, 2));
}

#[test]
fn what_can_not_be_taken_goes_back_whole() {
    let mut play = Play::new();
    let handoff = EntityHandoff {
        entity: 9,
        move_number: 4,
        record: Bytes::from_static(b"r"),
        attached: vec![Bytes::new()],
        ..EntityHandoff::default()
    };
    play.messages(vec![message(1, Body::Handoff(handoff.clone()))]);
    let back = EntityHandoff { returned: 1, ..handoff };
    assert_eq!(play.posted(ELSEWHERE)[0].body, Some(Body::Handoff(back)));
    assert_eq!(play.region.world().counters().handoffs_returned, 1);
}

#[test]
fn nothing_is_taken_after_the_last_message() {
    let mut play = Play::new();
    play.messages(vec![message(1, Body::Fin(Fin {})), message(2, letter(1, 0))]);
    assert_eq!((play.region.taken_from(ELSEWHERE), play.region.world().counters().messages_refused), (2, 1));
}

#[test]
fn the_newest_map_counts() {
    let mut play = Play::new();
    let own = Neighbour { region: 1, group: 4242, ..Neighbour::default() };
    play.messages(vec![
        message(1, Body::MapChange(MapChange { map_epoch: 7, map: vec![own] })),
        message(2, Body::MapChange(MapChange { map_epoch: 6, map: Vec::new() })),
    ]);
    assert_eq!((play.region.world().map().0.0, play.region.world().group()), (7, GroupId(4242)));
}

#[test]
fn a_cut_is_taken_before_the_message_that_carries_it() {
    let mut play = Play::new();
    let cut = ChannelMessage { cut: 5, ..message(1, letter(4, 1)) };
    let effects = play.messages(vec![cut]);
    let [taken] = &effects.cuts[..] else { panic!("no cut") };
    assert_eq!((taken.number.0, taken.view.tick(), taken.view.cut_number().0), (5, effects.tick.unwrap(), 5));
    let at_cut = taken.view.inspect();
    assert_ne!(at_cut.state_hash, play.region.state_hash(), "the message came after");
    // By entry: a newer number takes a cut, an older one does not. What is posted carries the number.
    assert!(play.entry(region_entry::Body::Cut(Cut { number: 5, now_ms: 0 })).cuts.is_empty());
    let effects = play.entry(region_entry::Body::Cut(Cut { number: 6, now_ms: 0 }));
    assert_eq!((effects.applied, effects.cuts[0].view.applied(), effects.tick), (Applied::Cut, LogIndex(play.index), None));
    play.messages(vec![message(2, letter(0, 99))]);
    assert_eq!(play.posted(ELSEWHERE)[0].cut, 6);
}

#[test]
fn ticks_wait_behind_a_barrier() {
    let mut play = Play::new();
    let barrier = |activate| region_entry::Body::Barrier(Barrier { rules_version: 3, content_hash: 0xfeed, activate });
    assert_eq!(play.entry(barrier(false)).applied, Applied::Barrier);
    let tick = play.region.tick();
    let effects = play.messages(vec![message(1, letter(1, 0))]);
    assert_eq!((effects.applied, effects.tick, play.region.tick()), (Applied::Barred, None, tick));
    assert_eq!((play.region.taken_from(ELSEWHERE), play.region.world().counters().barred_ticks), (0, 1));
    assert_eq!(play.entry(barrier(true)).applied, Applied::Activated);
    assert_eq!(play.tick(TickEntry::default()).applied, Applied::Tick);
}

#[test]
fn a_skipped_entry_is_a_tick_in_which_nothing_happens() {
    let mut play = Play::new();
    let tick = play.region.tick();
    play.index += 1;
    let effects = play.region.skip(LogIndex(play.index), b"").unwrap();
    assert_eq!((effects.applied, effects.tick), (Applied::Skipped, Some(tick.next())));
    assert_eq!(play.region.world().counters().skipped_entries, 1);
    assert!(matches!(play.region.skip(LogIndex(play.index), b""), Err(ApplyFault::OutOfOrder { .. })));
    play.region.check().unwrap();
}

#[test]
fn an_order_is_taken_once() {
    let mut play = Play::new();
    let order = AdminOrder { id: 8, code: 5, body: Bytes::new(), actor: "root".into() };
    let before = play.region.world().entity_count();
    for _ in 0..3 {
        play.tick(TickEntry { orders: vec![order.clone(), order.clone()], ..TickEntry::default() });
    }
    assert_eq!(play.region.world().entity_count(), before + 1);
}

#[test]
fn a_proposer_that_differs_is_noticed() {
    let mut play = Play::new();
    play.tick(TickEntry::default());
    let (tick, hash) = (play.region.tick(), play.region.state_hash());
    let checked = |checked_hash| TickEntry { checked_hash, checked_tick: tick.0, ..TickEntry::default() };
    assert_eq!(play.tick(checked(hash)).divergence, None);
    assert_eq!(play.tick(checked(0)).divergence, None, "0 is none");
    let found = play.tick(checked(hash ^ 1)).divergence.unwrap();
    assert_eq!((found.tick, found.own, found.proposer), (tick, hash, hash ^ 1));
    assert_eq!(play.region.hash_after(Tick(tick.0)), Some(hash));
}

#[test]
fn the_directory_is_told_who_is_here() {
    let mut play = Play::new();
    let directory = GroupId::directory(WORLD);
    let told = |play: &Play| -> Vec<(u64, bool)> {
        let located = play.posted(directory).into_iter().filter_map(|message| match message.body {
            Some(Body::Location(update)) => Some((update.character, update.present)),
            _ => None,
        });
        located.collect()
    };
    assert_eq!(told(&play), [(1, true)]);
    let gone = marchland_proto::storage::DetachOrder { character: 1, epoch: 1, attach: 1, goodbye: true };
    play.tick(TickEntry { detaches: vec![gone], ..TickEntry::default() });
    assert_eq!(told(&play), [(1, true), (1, false)]);
}
