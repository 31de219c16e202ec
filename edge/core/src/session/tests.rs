//! The machine against every kind of client, region and clock.

use marchland_proto::client::{
    Action, Commands, Goodbye, Hello, Input, Move, Ping, Resume, SignIn, client_message, hello::How, input::What,
};
use marchland_proto::cluster::StoredReply;
use marchland_proto::storage::{SignInAnswer, stored_input};
use marchland_types::limits::{ACTION_MAX_BYTES, INPUTS_PER_MESSAGE_MAX, NAME_MAX_BYTES, UNACKED_COMMANDS_MAX};
use marchland_types::{RegionId, WorldId};
use proptest::prelude::*;

use super::*;
use crate::secret_hash;

mod moving;

const SECRET: [u8; 32] = [7; 32];

fn config() -> SessionConfig {
    SessionConfig::of_world("aurora")
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn group() -> GroupId {
    GroupId::region(WorldId(1), RegionId(1))
}

fn bytes(body: client_message::Body) -> Bytes {
    ClientMessage { body: Some(body) }.encode_to_vec().into()
}

fn hello(how: How) -> Bytes {
    bytes(Body::Hello(Hello { protocol_version: 1, how: Some(how), client_name: "test".into() }))
}

fn sign_in(name: &str) -> Bytes {
    hello(How::SignIn(SignIn { token: "t".into(), character_name: name.into() }))
}

fn resume(attach_number: u32) -> Bytes {
    hello(How::Resume(Resume {
        character_id: 5,
        session_epoch: 3,
        resume_secret: SECRET.to_vec().into(),
        attach_number,
        last_reply_seq: 2,
    }))
}

fn step(seq: u64) -> Input {
    Input { seq, duration_ms: 50, what: Some(What::Move(Move { x: 1.0, z: 0.0, yaw: 3 })), ..Input::default() }
}

fn commands(seqs: impl IntoIterator<Item = u64>) -> Bytes {
    bytes(Body::Commands(Commands { inputs: seqs.into_iter().map(step).collect(), acked_reply_seq: 0 }))
}

/// A session with what it did last.
struct Driven {
    session: Session,
    now: Duration,
    config: SessionConfig,
}

impl Driven {
    fn fresh() -> Self {
        let config = config();
        Self { session: Session::new(ms(0), &config, SECRET, 77), now: ms(0), config }
    }

    fn joining() -> Self {
        let mut driven = Self::fresh();
        driven.say(sign_in("ada"));
        driven
    }

    fn attaching() -> Self {
        let mut driven = Self::joining();
        let effects = driven.signed_in();
        assert!(matches!(&effects[..], [Effect::Attach { .. }]), "{effects:?}");
        driven
    }

    fn playing() -> Self {
        let mut driven = Self::attaching();
        driven.attached(AttachAnswer { epoch: 3, attach: 1, next_seq: 1, character: 5, ..Default::default() });
        assert!(driven.session.is_playing());
        driven
    }

    fn closing() -> Self {
        let mut driven = Self::playing();
        driven.say(bytes(Body::Goodbye(Goodbye {})));
        driven
    }

    fn effects(&mut self, f: impl FnOnce(&mut Session, Duration, &SessionConfig, &mut Vec<Effect>)) -> Vec<Effect> {
        let mut out = Vec::new();
        f(&mut self.session, self.now, &self.config, &mut out);
        out
    }

    fn say(&mut self, bytes: Bytes) -> Vec<Effect> {
        self.effects(|s, now, config, out| s.handle_message(now, config, bytes, out))
    }

    fn signed_in(&mut self) -> Vec<Effect> {
        let answer = SignInAnswer { code: 0, character: 5, epoch: 3, group: group().0, region: 1, ..SignInAnswer::default() };
        self.effects(|s, now, _, out| s.handle_signed_in(now, Ok(&answer), out))
    }

    fn attached(&mut self, answer: AttachAnswer) -> Vec<Effect> {
        self.effects(|s, now, config, out| s.handle_attached(now, config, &answer, out))
    }

    fn applied(&mut self, applied_seq: u64) -> Vec<Effect> {
        let own = OwnState { character: 5, applied_seq, ..OwnState::default() };
        self.effects(|s, now, _, out| s.handle_own_state(now, group(), &own, out))
    }

    /// A region says that the character went to another one.
    fn moved(&mut self, serial: u32, move_number: u64) -> Vec<Effect> {
        let moved = moving::notice(serial, move_number);
        self.effects(|s, now, _, out| s.handle_moved(now, &moved, out))
    }

    /// A region shows the session, with its first `replies`.
    fn shown(&mut self, serial: u32, move_number: u64, replies: u64) -> Vec<Effect> {
        let replies = (1..=replies).map(|reply_seq| StoredReply { reply_seq, ..StoredReply::default() }).collect();
        let batch = SessionBatch { character: 5, epoch: 3, replies, pinned: vec![], move_number };
        self.effects(|s, now, _, out| s.handle_batch(now, moving::region(serial), &batch, out))
    }

    fn located(&mut self, serial: u32, move_number: u64) -> Vec<Effect> {
        let at = Located { group: moving::region(serial), region: RegionId(serial), move_number, is_only: false };
        self.effects(|s, now, _, out| s.handle_located(now, Whereabouts::At(at), out))
    }

    fn at(&mut self, at_ms: u64) -> Vec<Effect> {
        self.now = ms(at_ms);
        self.effects(|s, now, config, out| s.handle_time(now, config, out))
    }
}

fn closed_with(effects: &[Effect]) -> Option<Code> {
    effects.iter().find_map(|effect| if let Effect::Close(refusal) = effect { Some(refusal.code) } else { None })
}

fn given(effects: &[Effect]) -> Vec<u64> {
    let inputs = effects.iter().filter_map(|e| if let Effect::Inputs { inputs, .. } = e { Some(inputs) } else { None });
    inputs.flat_map(|inputs| inputs.inputs.iter().map(|input| input.seq)).collect()
}

#[test]
fn the_table_of_legal_messages() {
    use Code::WrongState;
    type Make = fn() -> Driven;
    let states: [(&str, Make); 4] =
        [("fresh", Driven::fresh), ("joining", Driven::joining), ("playing", Driven::playing), ("closing", Driven::closing)];
    let hello = sign_in("eve");
    let messages: [(Bytes, [Option<Code>; 4]); 4] = [
        (hello, [None, Some(WrongState), Some(WrongState), None]),
        (commands([1]), [Some(WrongState), Some(WrongState), None, None]),
        (bytes(Body::Ping(Ping { client_ms: 9 })), [Some(WrongState), None, None, None]),
        (bytes(Body::Goodbye(Goodbye {})), [Some(WrongState), Some(WrongState), None, None]),
    ];
    for (message, expected) in messages {
        for ((name, make), expected) in states.iter().zip(expected) {
            let mut driven = make();
            let effects = driven.say(message.clone());
            assert_eq!(closed_with(&effects), expected, "{message:?} while {name}");
            assert_eq!(driven.session.is_closed(), expected.is_some());
            if *name == "closing" {
                assert_eq!(effects, []);
            }
        }
    }
    assert_eq!(Driven::playing().say(bytes(Body::Ping(Ping { client_ms: 9 }))), [Effect::Pong { client_ms: 9 }]);
}

#[test]
fn a_sign_in_from_hello_to_welcome() {
    let mut driven = Driven::fresh();
    let hash = secret_hash(&SECRET);
    let asked = driven.say(sign_in("ada"));
    let expected = Effect::SignIn { token: "t".into(), character_name: "ada".into(), secret_hash: hash, request_id: 77 };
    assert_eq!(asked, [expected]);
    let attach = driven.signed_in();
    let order = AttachOrder { character: 5, epoch: 3, attach: 1, secret_hash: hash.to_vec().into(), last_reply_seq: 0 };
    assert_eq!(attach, [Effect::Attach { group: group(), order: order.clone() }]);
    // The region has waited for it and not heard of it yet: again in 10 ms, and no sooner.
    let not_yet = AttachAnswer { epoch: 3, attach: 1, code: Code::NotAdmitted as u32, ..AttachAnswer::default() };
    assert_eq!(driven.attached(not_yet), []);
    assert_eq!(driven.at(9), []);
    assert_eq!(driven.at(10), [Effect::Attach { group: group(), order }]);
    assert_eq!(driven.at(20), []);
    let other = AttachAnswer { epoch: 2, attach: 1, ..AttachAnswer::default() };
    assert_eq!(driven.attached(other), [], "an answer to another epoch");
    let answer = AttachAnswer { epoch: 3, attach: 1, next_seq: 1, entity: 8, max_speed: 5.0, ..AttachAnswer::default() };
    let effects = driven.attached(answer);
    let [Effect::Welcome(welcome)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(welcome.resume_secret, &SECRET[..]);
    assert_eq!((welcome.character_id, welcome.session_epoch, welcome.next_seq, welcome.self_entity), (5, 3, 1, 8));
    assert_eq!((welcome.world.as_str(), welcome.tick_ms, welcome.region, welcome.attach_number), ("aurora", 50, 1, 1));
    assert!(driven.session.is_playing());
}

#[test]
fn a_resume_needs_the_region_alone_and_gets_no_secret() {
    let mut driven = Driven::fresh();
    assert_eq!(driven.say(resume(4)), [Effect::Locate { character: CharacterId(5) }]);
    let found = Whereabouts::At(Located { group: group(), region: RegionId(1), move_number: 0, is_only: true });
    let effects = driven.effects(|s, now, _, out| s.handle_located(now, found, out));
    let [Effect::Attach { order, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((order.attach, order.last_reply_seq), (4, 2));
    let kept = |reply_seq| StoredReply { reply_seq, ..StoredReply::default() };
    let replies = vec![kept(1), kept(2), kept(3)];
    let answer = AttachAnswer { epoch: 3, attach: 4, next_seq: 9, replies, ..AttachAnswer::default() };
    let effects = driven.attached(answer);
    let [Effect::Welcome(welcome)] = &effects[..] else { panic!("{effects:?}") };
    assert!(welcome.resume_secret.is_empty());
    assert_eq!(welcome.next_seq, 9);
    assert_eq!(driven.session.replies_mut().unwrap().received(), 3);
    assert_eq!(given(&driven.say(commands([8, 9, 10]))), [9, 10], "what is committed is not given again");
}

#[test]
fn resumes_that_fail() {
    let refused = |code: Code| {
        let mut driven = Driven::fresh();
        driven.say(resume(4));
        let found = Whereabouts::At(Located { group: group(), region: RegionId(1), move_number: 0, is_only: true });
        driven.effects(|s, now, _, out| s.handle_located(now, found, out));
        closed_with(&driven.attached(AttachAnswer { epoch: 3, attach: 4, code: code as u32, ..Default::default() }))
    };
    assert_eq!(refused(Code::BadResume), Some(Code::BadResume));
    assert_eq!(refused(Code::NotAdmitted), Some(Code::BadResume));
    assert_eq!(refused(Code::Superseded), Some(Code::Superseded));
    let mut driven = Driven::fresh();
    driven.say(resume(4));
    assert_eq!(
        closed_with(&driven.effects(|s, now, _, out| s.handle_located(now, Whereabouts::Unknown, out))),
        Some(Code::Unavailable)
    );
    let short = Resume { resume_secret: vec![1].into(), ..Resume::default() };
    assert_eq!(closed_with(&Driven::fresh().say(hello(How::Resume(short)))), Some(Code::BadResume));
}

#[test]
fn hellos_that_are_refused() {
    let with = |f: fn(&mut Hello)| {
        let how = How::SignIn(SignIn { token: "t".into(), character_name: "ada".into() });
        let mut hello = Hello { protocol_version: 1, how: Some(how), client_name: String::new() };
        f(&mut hello);
        closed_with(&Driven::fresh().say(bytes(Body::Hello(hello))))
    };
    assert_eq!(with(|_| {}), None);
    assert_eq!(with(|h| h.protocol_version = 2), Some(Code::Version));
    assert_eq!(with(|h| h.how = None), Some(Code::Malformed));
    assert_eq!(with(|h| h.client_name = "x".repeat(65)), Some(Code::TooLarge));
    let name = |name: &str| closed_with(&Driven::fresh().say(sign_in(name)));
    assert_eq!(name(""), Some(Code::BadName));
    assert_eq!(name(&"x".repeat(NAME_MAX_BYTES + 1)), Some(Code::BadName));
    for code in [Code::BadToken, Code::NameTaken, Code::Unavailable] {
        let mut driven = Driven::joining();
        let refused = SignInRefused { code: code as u32, reason: "no".into() };
        let effects = driven.effects(|s, now, _, out| s.handle_signed_in(now, Err(refused), out));
        assert_eq!(closed_with(&effects), Some(code));
    }
    // A code that this build does not know.
    let refused = SignInRefused { code: 9_999, reason: "no".into() };
    let effects = Driven::joining().effects(|s, now, _, out| s.handle_signed_in(now, Err(refused), out));
    assert_eq!(closed_with(&effects), Some(Code::Internal));
}

#[test]
fn every_wait_has_an_end() {
    assert_eq!(closed_with(&Driven::fresh().at(4_999)), None);
    assert_eq!(closed_with(&Driven::fresh().at(5_000)), Some(Code::IdleTimeout));
    assert_eq!(closed_with(&Driven::joining().at(10_000)), Some(Code::Unavailable));
    let effects = Driven::attaching().at(10_000);
    assert!(matches!(&effects[..], [Effect::Detach { .. }, Effect::Close(_)]), "the region is told: {effects:?}");
    let mut driven = Driven::playing();
    assert_eq!(driven.at(29_999), []);
    // A WebSocket ping is no sign of life; a message is.
    driven.effects(|s, now, _, out| s.handle_control(now, out));
    assert_eq!(closed_with(&driven.at(30_000)), Some(Code::IdleTimeout));
    let mut driven = Driven::playing();
    driven.at(29_000);
    driven.say(bytes(Body::Ping(Ping { client_ms: 0 })));
    assert_eq!(driven.at(58_999), []);
    assert_eq!(closed_with(&driven.at(59_000)), Some(Code::IdleTimeout));
    assert_eq!(closed_with(&Driven::closing().at(2_000)), Some(Code::Goodbye));
}

#[test]
fn numbers_have_no_gaps_and_old_ones_are_ignored() {
    let mut driven = Driven::playing();
    assert_eq!(given(&driven.say(commands([1, 2, 3]))), [1, 2, 3]);
    assert_eq!(driven.say(commands([2, 3])), []);
    assert_eq!(given(&driven.say(commands([3, 4]))), [4]);
    let effects = driven.say(commands([6]));
    assert_eq!(closed_with(&effects), Some(Code::SequenceGap));
    assert!(matches!(effects[0], Effect::Detach { .. }));
    // What came before the gap in the same message goes on.
    assert_eq!(given(&Driven::playing().say(commands([1, 2, 4]))), [1, 2]);
    assert_eq!(closed_with(&Driven::playing().say(commands([0]))), None);
    assert_eq!(closed_with(&Driven::playing().say(commands([u64::MAX]))), Some(Code::SequenceGap));
}

#[test]
fn inputs_beyond_their_limits_go_on_empty_and_end_the_connection() {
    let big = |bytes| Some(What::Action(Action { code: 1, body: vec![0; bytes].into() }));
    let cases =
        [Input { seq: 1, duration_ms: 251, ..step(1) }, Input { seq: 1, what: big(ACTION_MAX_BYTES + 1), ..Input::default() }];
    for input in cases {
        let inputs = vec![input, step(2)];
        let effects = Driven::playing().say(bytes(Body::Commands(Commands { inputs, acked_reply_seq: 0 })));
        let Effect::Inputs { inputs, .. } = &effects[0] else { panic!("{effects:?}") };
        assert_eq!(inputs.inputs, [StoredInputAlias { seq: 1, ..Default::default() }]);
        assert_eq!(closed_with(&effects), Some(Code::TooLarge));
    }
    let fits = Input { seq: 1, what: big(ACTION_MAX_BYTES), ..Input::default() };
    let effects = Driven::playing().say(bytes(Body::Commands(Commands { inputs: vec![fits], acked_reply_seq: 0 })));
    assert_eq!((closed_with(&effects), given(&effects)), (None, vec![1]));
    let many = commands(1..=INPUTS_PER_MESSAGE_MAX as u64 + 1);
    assert_eq!(closed_with(&Driven::playing().say(many)), Some(Code::TooLarge));
    assert_eq!(closed_with(&Driven::playing().say(vec![0; 4097].into())), Some(Code::TooLarge));
    for rubbish in [vec![], vec![0xff; 30], vec![0x12, 0x7f], vec![0x2a, 0x00]] {
        assert_eq!(closed_with(&Driven::playing().say(rubbish.into())), Some(Code::Malformed));
    }
}

type StoredInputAlias = marchland_proto::storage::StoredInput;

#[test]
fn a_step_to_nowhere_stands() {
    for (x, z) in [(f32::NAN, 0.0), (0.0, f32::INFINITY)] {
        let walk = Input { what: Some(What::Move(Move { x, z, yaw: 0x1ff })), ..step(1) };
        let effects = Driven::playing().say(bytes(Body::Commands(Commands { inputs: vec![walk], acked_reply_seq: 0 })));
        let Effect::Inputs { inputs, .. } = &effects[0] else { panic!() };
        let Some(stored_input::What::Move(walk)) = &inputs.inputs[0].what else { panic!() };
        assert_eq!((walk.x, walk.z, walk.yaw), (0.0, 0.0, 0xff));
    }
}

#[test]
fn what_is_not_applied_is_held_bounded_and_given_to_the_next_owner() {
    let mut driven = Driven::playing();
    driven.say(commands(1..=5));
    driven.applied(2);
    assert_eq!(driven.session.unacked(), 3);
    let effects = driven.effects(|s, now, _, out| s.handle_owner_changed(now, group(), out));
    assert!(matches!(effects[0], Effect::Attach { .. }), "first that it is here");
    assert_eq!(given(&effects), [3, 4, 5]);
    // The answer to that attach is no second welcome, and trims.
    let answer = AttachAnswer { epoch: 3, attach: 1, next_seq: 5, ..AttachAnswer::default() };
    assert_eq!(driven.attached(answer), []);
    assert_eq!(driven.session.unacked(), 1);
    driven.applied(5);
    let (mut seq, mut effects) = (6, Vec::new());
    while closed_with(&effects).is_none() {
        assert!(seq < 1_000);
        effects = driven.say(commands(seq..seq + 32));
        seq += 32;
    }
    assert_eq!(closed_with(&effects), Some(Code::TooMany));
    assert_eq!(seq, 6 + UNACKED_COMMANDS_MAX as u64 + 32, "128 are taken, the next one is too many");
}

#[test]
fn inputs_that_nobody_applies_go_again_after_a_second() {
    let mut driven = Driven::playing();
    driven.say(commands(1..=2));
    assert_eq!(driven.at(999), []);
    let effects = driven.at(1_000);
    assert!(matches!(effects[0], Effect::Attach { .. }), "and it is asked whether this attach is in force: {effects:?}");
    assert_eq!(given(&effects), [1, 2]);
    assert_eq!(driven.at(1_500), []);
    driven.applied(1);
    assert_eq!(driven.at(2_400), []);
    assert_eq!(given(&driven.at(2_500)), [2]);
}

#[test]
fn goodbye_waits_for_what_came_before_it() {
    let mut driven = Driven::playing();
    driven.say(commands(1..=2));
    assert_eq!(driven.say(bytes(Body::Goodbye(Goodbye {}))), []);
    assert_eq!(driven.applied(1), []);
    let effects = driven.applied(2);
    assert!(matches!(&effects[..], [Effect::Detach { order: DetachOrder { goodbye: true, .. }, .. }]), "{effects:?}");
    assert_eq!(driven.applied(2), [], "once");
    let again = driven.effects(|s, now, _, out| s.handle_owner_changed(now, group(), out));
    assert!(again.iter().any(|e| matches!(e, Effect::Detach { order, .. } if order.goodbye)), "and to the next owner");
    let end = SessionEnd { character: 5, epoch: 3, attach: 1, code: Code::Goodbye as u32 };
    assert_eq!(closed_with(&driven.effects(|s, _, _, out| s.handle_ended(&end, out))), Some(Code::Goodbye));
}

#[test]
fn an_end_that_the_region_decided() {
    let end = |attach| SessionEnd { character: 5, epoch: 3, attach, code: Code::Superseded as u32 };
    let mut driven = Driven::playing();
    assert_eq!(driven.effects(|s, _, _, out| s.handle_ended(&end(2), out)), [], "another attach");
    assert_eq!(closed_with(&driven.effects(|s, _, _, out| s.handle_ended(&end(1), out))), Some(Code::Superseded));
    assert_eq!(driven.effects(|s, _, _, out| s.handle_ended(&end(1), out)), []);
}

#[test]
fn rates_are_limited() {
    let mut driven = Driven::playing();
    let mut taken = 0;
    while closed_with(&driven.say(commands([]))).is_none() {
        taken += 1;
    }
    assert_eq!(taken, CLIENT_MESSAGES_BURST - 1, "the Hello counts");
    let mut driven = Driven::playing();
    let ping = || bytes(Body::Ping(Ping { client_ms: 0 }));
    let pongs = std::iter::from_fn(|| closed_with(&driven.say(ping())).is_none().then_some(())).count();
    assert_eq!(pongs as u32, PINGS_BURST);
    let mut driven = Driven::playing();
    for second in 1..20 {
        driven.now = ms(second * 1_000);
        for i in 0..u64::from(CLIENT_MESSAGES_PER_S) {
            driven.now += ms(i / 10);
            assert_eq!(closed_with(&driven.say(commands([]))), None);
        }
    }
}

#[test]
fn missing_replies_are_asked_for_once() {
    let mut driven = Driven::playing();
    let reply = |reply_seq| StoredReply { reply_seq, ..StoredReply::default() };
    let batch = |seqs: &[u64]| SessionBatch { epoch: 3, replies: seqs.iter().map(|s| reply(*s)).collect(), ..Default::default() };
    assert_eq!(driven.effects(|s, now, _, out| s.handle_batch(now, group(), &batch(&[1]), out)), []);
    let effects = driven.effects(|s, now, _, out| s.handle_batch(now, group(), &batch(&[4]), out));
    let [Effect::Attach { order, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(order.last_reply_seq, 0, "this edge has one, and the client has acknowledged none");
    assert_eq!(driven.effects(|s, now, _, out| s.handle_batch(now, group(), &batch(&[5]), out)), []);
    let replies = (2..=5).map(reply).collect();
    driven.attached(AttachAnswer { epoch: 3, attach: 1, next_seq: 1, replies, ..AttachAnswer::default() });
    assert_eq!(driven.session.replies_mut().unwrap().received(), 5);
    let stale = SessionBatch { epoch: 2, replies: vec![reply(6)], ..SessionBatch::default() };
    driven.effects(|s, now, _, out| s.handle_batch(now, group(), &stale, out));
    assert_eq!(driven.session.replies_mut().unwrap().received(), 5, "another epoch's");
}

#[test]
fn acknowledgements_of_replies_are_clamped_and_only_grow() {
    let mut driven = Driven::playing();
    let ack = |acked_reply_seq| bytes(Body::Commands(Commands { inputs: vec![], acked_reply_seq }));
    let sent = |driven: &mut Driven| {
        let reply = StoredReply { reply_seq: 1, ..StoredReply::default() };
        let replies = driven.session.replies_mut().unwrap();
        replies.offer(&reply);
        replies.take(0, true).unwrap();
    };
    assert_eq!(driven.say(ack(9)), [], "nothing was sent yet");
    sent(&mut driven);
    let effects = driven.say(ack(9));
    let [Effect::Inputs { inputs, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(inputs.acked_reply_seq, 1);
    assert_eq!(driven.say(ack(0)), []);
}

#[test]
fn shutdown_names_another_edge_and_a_lost_socket_lets_the_region_know() {
    let effects = Driven::playing().effects(|s, _, _, out| s.handle_shutdown("ws://b", out));
    let [Effect::Detach { order, .. }, Effect::Close(refusal)] = &effects[..] else { panic!("{effects:?}") };
    assert!(!order.goodbye);
    assert_eq!((refusal.code, refusal.other_edge.as_str()), (Code::GoingAway, "ws://b"));
    let effects = Driven::playing().effects(|s, _, _, out| s.handle_socket_lost(out));
    assert!(matches!(&effects[..], [Effect::Detach { .. }, Effect::Forget]), "{effects:?}");
    assert_eq!(Driven::fresh().effects(|s, _, _, out| s.handle_socket_lost(out)), [Effect::Forget]);
}

#[derive(Clone, Debug)]
enum Event {
    Say(Vec<u8>),
    Commands(Vec<u64>),
    Time(u64),
    SignedIn,
    Attached(u32, u64),
    Applied(u64),
    OwnerChanged,
    Moved(u32, u64),
    Shown(u32, u64),
    Located(u32, u64),
    Ended(u32),
    Lost,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Event::Say),
        proptest::sample::select(vec![sign_in("ada"), resume(4), commands([1, 2]), bytes(Body::Goodbye(Goodbye {}))])
            .prop_map(|b| Event::Say(b.to_vec())),
        proptest::collection::vec(0..20u64, 0..5).prop_map(Event::Commands),
        (0..3_000u64).prop_map(Event::Time),
        Just(Event::SignedIn),
        (0..3u32, 0..9u64).prop_map(|(code, next)| Event::Attached(code, next)),
        (0..20u64).prop_map(Event::Applied),
        Just(Event::OwnerChanged),
        (0..3u32, 0..6u64).prop_map(|(serial, number)| Event::Moved(serial, number)),
        (0..3u32, 0..6u64).prop_map(|(serial, number)| Event::Shown(serial, number)),
        (0..3u32, 0..6u64).prop_map(|(serial, number)| Event::Located(serial, number)),
        (0..3u32).prop_map(Event::Ended),
        Just(Event::Lost),
    ]
}

proptest! {
    /// No order of events panics; nothing follows the end; what goes to the region is in order, and starts after what it has.
    #[test]
    fn whatever_happens_inputs_are_in_order_and_the_end_is_the_end(events in proptest::collection::vec(event(), 1..60)) {
        let mut driven = Driven::fresh();
        let mut over = false;
        let mut highest = 0;
        for event in events {
            let effects = match event {
                Event::Say(bytes) => driven.say(bytes.into()),
                Event::Commands(seqs) => driven.say(commands(seqs)),
                Event::Time(by) => { let at = driven.now.as_millis() as u64 + by; driven.at(at) }
                Event::SignedIn => driven.signed_in(),
                Event::Attached(code, next_seq) =>
                    driven.attached(AttachAnswer { epoch: 3, attach: 1, code, next_seq, ..Default::default() }),
                Event::Applied(seq) => driven.applied(seq),
                Event::Moved(serial, number) => driven.moved(serial, number),
                Event::Shown(serial, number) => driven.shown(serial, number, 0),
                Event::Located(serial, number) => driven.located(serial, number),
                Event::OwnerChanged => driven.effects(|s, now, _, out| s.handle_owner_changed(now, group(), out)),
                Event::Ended(attach) => {
                    let end = SessionEnd { character: 5, epoch: 3, attach, code: 9 };
                    driven.effects(|s, _, _, out| s.handle_ended(&end, out))
                }
                Event::Lost => driven.effects(|s, _, _, out| s.handle_socket_lost(out)),
            };
            prop_assert!(!over || effects.is_empty(), "after the end: {effects:?}");
            let ends = effects.iter().filter(|e| matches!(e, Effect::Close(_) | Effect::Forget)).count();
            prop_assert!(ends <= 1);
            prop_assert!(ends == 0 || matches!(effects.last(), Some(Effect::Close(_) | Effect::Forget)));
            over |= ends == 1;
            prop_assert_eq!(over, driven.session.is_closed());
            let seqs = given(&effects);
            prop_assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seqs:?}");
            if let (Some(first), Some(last)) = (seqs.first(), seqs.last()) {
                let known = driven.session.key().is_some();
                prop_assert!(!known || highest == 0 || *first <= highest + 20, "{first} after {highest}");
                highest = highest.max(*last);
            }
            prop_assert!(driven.session.unacked() <= UNACKED_COMMANDS_MAX);
        }
    }
}
