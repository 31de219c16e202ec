//! Sessions: numbers without gaps, answers that are kept, clients that come and go.

mod arena;

use std::sync::Arc;

use bytes::Bytes;
use marchland_proto::codes::Code;
use marchland_proto::storage::{AttachOrder, region_entry};
use marchland_region_core::testing::Script;
use marchland_region_core::{Applied, CharacterId, Effects, Item, LogIndex, Region};
use marchland_types::limits::{KEPT_REPLIES_MAX, QUEUED_MOVES_MAX};

use arena::Arena;

/// A script that is applied as it is written.
struct Play {
    script: Script,
    region: Region<Arena>,
    applied: usize,
}

const ONE: CharacterId = CharacterId(1);

impl Play {
    fn new() -> Self {
        arena::quiet();
        let mut play = Self { script: Script::new(&Arena, Vec::new()), region: Region::new(Arc::new(Arena)), applied: 0 };
        play.catch_up();
        play
    }

    /// One player, in the world, with the welcome event acknowledged.
    fn with_one() -> Self {
        let mut play = Self::new();
        play.script.enter(1, "one");
        play.tick();
        play.script.acknowledge(1, 1);
        play.tick();
        play
    }

    fn catch_up(&mut self) -> Effects<Arena> {
        let mut last = None;
        while self.applied < self.script.log().len() {
            let entry = self.script.log()[self.applied].clone();
            self.applied += 1;
            last = Some(self.region.apply(LogIndex(self.applied as u64), &entry).unwrap());
        }
        self.region.check().unwrap();
        last.unwrap()
    }

    fn tick(&mut self) -> Effects<Arena> {
        self.script.tick();
        self.catch_up()
    }

    fn pass(&mut self, ms: u64) -> Effects<Arena> {
        self.script.tick_after(ms);
        self.catch_up()
    }

    fn items(&self) -> Vec<Item> {
        self.region.world().items(self.region.world().entity_of(ONE).unwrap()).to_vec()
    }

    fn next_seq(&self) -> u64 {
        self.region.session(ONE).unwrap().next_seq
    }
}

fn ended(effects: &Effects<Arena>) -> Vec<u32> {
    effects.ended.iter().map(|end| end.code).collect()
}

#[test]
fn an_attach_is_answered_with_all_that_a_client_needs() {
    let mut play = Play::new();
    play.script.enter(1, "one");
    let effects = play.tick();
    let [answer] = &effects.attached[..] else { panic!("{:?}", effects.attached) };
    assert_eq!((answer.code, answer.next_seq, answer.rules_version, answer.max_speed), (0, 1, 3, 6.0));
    assert_eq!(answer.replies.len(), 1, "the game's welcome");
    assert_eq!(play.region.world().entity_of(ONE).unwrap().0, answer.entity);
    assert!(effects.appeared.iter().any(|change| change.entity.0 == answer.entity));
}

#[test]
fn an_older_command_is_answered_from_the_kept_reply_and_not_run_again() {
    let mut play = Play::with_one();
    let seq = play.script.act(1, arena::MINT, Bytes::new());
    let first = play.tick();
    play.script.go_on_with(1, seq);
    play.script.act(1, arena::MINT, Bytes::new());
    let again = play.tick();
    assert_eq!(first.replies, again.replies);
    assert_eq!(play.items().len(), 1);
    assert_eq!(play.next_seq(), seq + 1);
}

#[test]
fn a_gap_ends_the_attach_and_the_resumed_client_goes_on() {
    let mut play = Play::with_one();
    play.script.walk(1, [1.0, 0.0]);
    play.script.go_on_with(1, 5);
    play.script.act(1, arena::MINT, Bytes::new());
    let effects = play.tick();
    assert_eq!(ended(&effects), [Code::SequenceGap as u32]);
    assert_eq!((play.next_seq(), play.items().len()), (2, 0));
    // What still comes over the old attach is not taken.
    play.script.go_on_with(1, 2);
    play.script.act(1, arena::MINT, Bytes::new());
    play.tick();
    assert_eq!(play.items().len(), 0);
    play.script.attach(1);
    let effects = play.tick();
    assert_eq!((effects.attached[0].code, effects.attached[0].next_seq), (0, 2));
    play.script.go_on_with(1, 2);
    play.script.act(1, arena::MINT, Bytes::new());
    play.tick();
    assert_eq!((play.next_seq(), play.items().len()), (3, 1));
}

#[test]
fn a_client_that_acknowledges_nothing_is_stopped_without_losing_an_answer() {
    let mut play = Play::with_one();
    let mut ends = Vec::new();
    for _ in 0..KEPT_REPLIES_MAX + 10 {
        play.script.act(1, arena::MINT, Bytes::new());
        ends.extend(ended(&play.tick()));
    }
    assert_eq!(ends, [Code::TooMany as u32]);
    assert_eq!(play.next_seq(), KEPT_REPLIES_MAX as u64 + 1);
    assert_eq!(play.items().len(), KEPT_REPLIES_MAX);
    let last = play.region.session(ONE).unwrap().session.last_reply_seq.0;
    play.script.attach(1);
    play.script.pending().attaches[0].last_reply_seq = last;
    let effects = play.tick();
    assert!(effects.attached[0].replies.is_empty());
    play.script.go_on_with(1, effects.attached[0].next_seq);
    play.script.act(1, arena::UNMAKE, Bytes::new());
    assert_eq!(play.tick().replies.len(), 1);
}

#[test]
fn the_higher_attach_number_wins() {
    let mut play = Play::with_one();
    play.script.attach(1);
    let effects = play.tick();
    assert_eq!((ended(&effects), effects.ended[0].attach), (vec![Code::Superseded as u32], 1));
    // The late attach of a slower edge, and one without the secret.
    let late = AttachOrder { character: 1, epoch: 1, attach: 1, secret_hash: Bytes::new(), last_reply_seq: 0 };
    let thief = AttachOrder { attach: 9, secret_hash: Bytes::from_static(b"guess"), ..late.clone() };
    let nobody = AttachOrder { character: 44, ..late.clone() };
    let repeated = AttachOrder { attach: 2, ..late.clone() };
    play.script.pending().attaches.extend([late, thief, nobody, repeated]);
    let effects = play.tick();
    let codes: Vec<u32> = effects.attached.iter().map(|answer| answer.code).collect();
    assert_eq!(codes, [Code::Superseded as u32, Code::BadResume as u32, Code::NotAdmitted as u32, Code::Ok as u32]);
    assert_eq!(play.region.session(ONE).unwrap().attach.0, 2);
}

#[test]
fn a_connection_that_was_taken_for_gone_comes_back_under_its_own_number() {
    let mut play = Play::with_one();
    play.script.detach(1, false);
    play.tick();
    assert!(!play.region.session(ONE).unwrap().attached);
    let (epoch, attach) = play.region.session(ONE).map(|s| (s.epoch.0, s.attach.0)).unwrap();
    let again = |attach| AttachOrder { character: 1, epoch, attach, ..AttachOrder::default() };
    play.script.pending().attaches.push(again(attach));
    let effects = play.tick();
    let codes: Vec<u32> = effects.attached.iter().map(|answer| answer.code).collect();
    assert_eq!((codes, ended(&effects)), (vec![Code::Ok as u32], Vec::new()));
    assert!(play.region.session(ONE).unwrap().attached);
    // A lower number is another, older connection, whether anybody is attached or not.
    play.script.attach(1);
    play.tick();
    play.script.detach(1, false);
    play.tick();
    play.script.pending().attaches.push(again(attach));
    assert_eq!(play.tick().attached[0].code, Code::Superseded as u32);
}

#[test]
fn goodbye_sends_the_character_to_sleep_with_all_it_has() {
    let mut play = Play::with_one();
    play.script.act(1, arena::MINT, Bytes::from_static(b"abc"));
    play.script.act(1, arena::MINT, Bytes::new());
    play.tick();
    let (items, place) = (play.items(), play.region.own_state(ONE).unwrap().position);
    play.script.detach(1, true);
    let effects = play.tick();
    assert_eq!(ended(&effects), [Code::Goodbye as u32]);
    assert_eq!(effects.vanished.len(), 1);
    assert!(play.region.session(ONE).is_none() && play.region.world().dormant_count() == 1);
    let audit = play.region.view().inspect();
    assert_eq!(audit.characters, [1]);
    assert_eq!(audit.items.len(), 2, "items of sleepers are found");
    assert_eq!((audit.items_minted, audit.items_destroyed), (2, 0));
    // The old session is over.
    play.script.attach(1);
    assert_eq!(play.tick().attached[0].code, Code::BadResume as u32);
    // A new sign-in brings the character back, and its numbers begin anew.
    play.script.enter(1, "one");
    let effects = play.tick();
    assert_eq!((effects.attached[0].code, effects.attached[0].next_seq), (0, 1));
    assert_eq!(effects.attached[0].replies[0].reply_seq, 1);
    assert_eq!(play.items(), items);
    let back = play.region.own_state(ONE).unwrap().position;
    assert!((back[0] - place[0]).abs() < 2.0 && (back[2] - place[2]).abs() < 2.0);
}

#[test]
fn a_lost_client_may_come_back_after_its_character_left_the_world() {
    let mut play = Play::with_one();
    play.script.act(1, arena::MINT, Bytes::new());
    play.tick();
    play.script.detach(1, false);
    assert!(ended(&play.tick()).is_empty());
    assert!(play.region.session(ONE).is_some(), "it lingers");
    play.pass(700);
    assert!(play.region.session(ONE).is_none());
    play.script.attach(1);
    let effects = play.tick();
    let answer = &effects.attached[0];
    assert_eq!((answer.code, answer.next_seq), (0, 2), "the session goes on");
    assert!(answer.replies.iter().any(|reply| reply.command_seq == 1), "and no answer was lost");
    assert_eq!(play.items().len(), 1);
}

#[test]
fn a_newer_sign_in_takes_over() {
    let mut play = Play::with_one();
    play.script.act(1, arena::MINT, Bytes::new());
    play.tick();
    let entity = play.region.world().entity_of(ONE);
    play.script.enter(1, "one");
    let effects = play.tick();
    assert_eq!((ended(&effects), effects.ended[0].epoch), (vec![Code::Superseded as u32], 1));
    assert_eq!((effects.attached[0].epoch, effects.attached[0].next_seq), (2, 1));
    assert_eq!((play.region.world().entity_of(ONE), play.items().len()), (entity, 1));
}

#[test]
fn handlers_that_fail_leave_nothing_but_their_answer() {
    for (action, code) in
        [(arena::WRECK_AND_PANIC, Code::Internal), (arena::WRECK_AND_REFUSE, Code::Refused), (arena::LONG_ANSWER, Code::Internal)]
    {
        let mut play = Play::with_one();
        play.script.enter(2, "two");
        play.tick();
        let mut twin = Play { script: play.script.clone(), region: Region::new(Arc::new(Arena)), applied: 0 };
        twin.catch_up();
        play.script.act(1, action, Bytes::new());
        twin.script.act(1, 999, Bytes::new());
        let effects = play.tick();
        twin.tick();
        assert_eq!(effects.replies.len(), 1, "not even what it told");
        assert_eq!(effects.replies[0].reply.code, code as u32);
        assert!(effects.appeared.is_empty() && effects.looks.is_empty() && effects.moved.is_empty());
        let pairs = play.region.component_hashes().into_iter().zip(twin.region.component_hashes());
        let differ: Vec<&str> = pairs.filter(|(ours, theirs)| ours != theirs).map(|(ours, _)| ours.0).collect();
        // The answers differ, and the count of panics does.
        assert!(differ.iter().all(|part| ["sessions", "core"].contains(part)), "{action}: {differ:?}");
        assert_eq!(play.region.world().counters().panics, u64::from(action == arena::WRECK_AND_PANIC));
    }
}

#[test]
fn nobody_is_faster_than_the_clock() {
    let mut play = Play::with_one();
    // Mood 0: 6 m/s. Saved-up time is at most 250 ms, whatever is asked for.
    play.pass(50);
    let mut far = 0.0;
    for tick in 0..40u64 {
        for _ in 0..20 {
            play.script.walk(1, [1.0, 0.3]);
            play.script.walk(1, [1.0, 0.3]);
        }
        play.script.acknowledge(1, u64::MAX);
        let before = play.region.own_state(ONE).unwrap().position;
        play.tick();
        let after = play.region.own_state(ONE).unwrap().position;
        far += ((after[0] - before[0]).powi(2) + (after[2] - before[2]).powi(2)).sqrt();
        let most = 6.0 * (0.25 + 0.05 * (tick + 1) as f32) + 0.01;
        assert!(far <= most, "{far} m in {} ticks", tick + 1);
        assert!(play.region.session(ONE).unwrap().mover.queue.len() <= QUEUED_MOVES_MAX);
    }
}

#[test]
fn bursts_of_inputs_are_walked_evenly() {
    let mut play = Play::with_one();
    for _ in 0..10 {
        play.tick();
    }
    // Two ticks' worth at every other tick, as a client at 10 Hz sends.
    let mut steps = Vec::new();
    for tick in 0..12 {
        if tick % 2 == 0 {
            let what = marchland_proto::storage::StoredMove { x: 0.1, z: 0.0, yaw: 0 };
            play.script.input(1, 100, Some(marchland_proto::storage::stored_input::What::Move(what)));
        }
        let before = play.region.own_state(ONE).unwrap().position[0];
        play.tick();
        steps.push(play.region.own_state(ONE).unwrap().position[0] - before);
    }
    let expected = steps[0];
    assert!(expected > 0.0 && steps.iter().all(|step| (step - expected).abs() < 1e-4), "{steps:?}");
}

#[test]
fn time_grows_but_never_leaps() {
    let mut play = Play::with_one();
    let before = play.region.now_ms();
    play.pass(3_600_000);
    assert_eq!(play.region.now_ms(), before + 1000);
    // A clock that went back still lets a millisecond pass.
    let entry = marchland_proto::storage::TickEntry { now_ms: 5, ..Default::default() };
    play.script.entry(region_entry::Body::Tick(entry));
    play.catch_up();
    assert_eq!(play.region.now_ms(), before + 1001);
}

#[test]
fn a_region_sleeps_only_when_nobody_needs_it() {
    let mut play = Play::with_one();
    let sleep = |play: &mut Play, wake_at_ms: u64| {
        let now_ms = play.region.now_ms();
        play.script.entry(region_entry::Body::Sleep(marchland_proto::storage::Sleep { wake_at_ms, now_ms }));
        play.catch_up().applied
    };
    assert!(matches!(sleep(&mut play, u64::MAX), Applied::StaysAwake(_)));
    play.script.detach(1, true);
    play.tick();
    assert!(matches!(sleep(&mut play, u64::MAX), Applied::StaysAwake(marchland_region_core::Awake::Messages)));
    let directory = marchland_types::GroupId::directory(marchland_region_core::testing::WORLD);
    let last = play.region.outbox().map(|(_, messages)| messages.map(|message| message.seq).max().unwrap()).max().unwrap();
    play.script.pending().acks.push(marchland_proto::storage::ChannelAck { from_group: directory.0, seq: last, cut: 0 });
    let effects = play.tick();
    assert!(effects.outbox_changed);
    for _ in 0..40 {
        play.tick();
    }
    assert_eq!(sleep(&mut play, u64::MAX), Applied::Asleep);
    assert_eq!(play.region.asleep_until_ms(), Some(u64::MAX));
    // A sleeper may leap when it wakes.
    let before = play.region.now_ms();
    play.pass(1_000_000);
    assert!(play.region.now_ms() > before + 900_000 && play.region.asleep_until_ms().is_none());
}
