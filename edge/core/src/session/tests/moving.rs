//! Sessions whose characters go from region to region.

use super::*;

pub(super) fn region(serial: u32) -> GroupId {
    GroupId::region(WorldId(1), RegionId(serial))
}

pub(super) fn notice(serial: u32, move_number: u64) -> SessionMoved {
    SessionMoved { character: 5, epoch: 3, group: region(serial).0, region: serial, move_number }
}

/// The region's answer to an attach of this session.
fn answer(code: Code, moved: Option<SessionMoved>) -> AttachAnswer {
    AttachAnswer { character: 5, epoch: 3, attach: 1, code: code as u32, next_seq: 1, moved, ..AttachAnswer::default() }
}

/// In region 1, under number 4.
fn playing() -> Driven {
    let mut driven = Driven::playing();
    assert_eq!(driven.shown(1, 4, 0), []);
    driven
}

fn groups(effects: &[Effect]) -> Vec<(&'static str, u32)> {
    let named = |effect: &Effect| match effect {
        Effect::Attach { group, .. } => Some(("attach", group.serial())),
        Effect::Watch { group, .. } => Some(("watch", group.serial())),
        Effect::Arrived { group } => Some(("arrived", group.serial())),
        Effect::Inputs { group, .. } => Some(("inputs", group.serial())),
        Effect::Detach { group, .. } => Some(("detach", group.serial())),
        Effect::Locate { .. } => Some(("locate", 0)),
        Effect::SignIn { .. } | Effect::Welcome(_) | Effect::Pong { .. } | Effect::Close(_) | Effect::Forget => None,
    };
    effects.iter().filter_map(named).collect()
}

fn own(driven: &mut Driven, serial: u32, applied_seq: u64) -> Vec<Effect> {
    let own = OwnState { character: 5, applied_seq, ..OwnState::default() };
    driven.effects(|s, now, _, out| s.handle_own_state(now, region(serial), &own, out))
}

#[test]
fn inputs_wait_until_the_new_region_has_the_session() {
    let mut driven = playing();
    assert_eq!(given(&driven.say(commands([1, 2]))), [1, 2]);
    own(&mut driven, 1, 1);
    assert_eq!(groups(&driven.moved(2, 5)), [("watch", 2)]);
    assert_eq!((driven.session.group(), driven.session.home()), (Some(region(2)), Some(region(1))));
    assert_eq!(driven.say(commands([3, 4])), [], "taken and kept");
    assert_eq!(driven.session.unacked(), 3);
    // What other times and places say counts for nothing.
    own(&mut driven, 1, 4);
    own(&mut driven, 2, 4);
    assert_eq!(driven.shown(1, 4, 3), []);
    assert_eq!(driven.shown(2, 3, 3), [], "it was here before");
    assert_eq!((driven.session.unacked(), driven.session.replies_mut().unwrap().received()), (3, 0));
    let effects = driven.shown(2, 5, 2);
    assert_eq!((groups(&effects), given(&effects)), (vec![("arrived", 2), ("inputs", 2)], vec![2, 3, 4]));
    assert!(driven.session.is_at(region(2)) && !driven.session.is_at(region(1)));
    assert_eq!((driven.session.home(), driven.session.replies_mut().unwrap().received()), (Some(region(2)), 2));
    assert_eq!(driven.shown(2, 5, 2), [], "once");
    own(&mut driven, 2, 4);
    assert_eq!(driven.session.unacked(), 0);
    assert_eq!(groups(&driven.say(commands([5]))), [("inputs", 2)]);
}

#[test]
fn notices_that_are_not_news_change_nothing() {
    let mut driven = playing();
    let other_epoch = SessionMoved { epoch: 2, ..notice(2, 9) };
    assert_eq!(driven.effects(|s, now, _, out| s.handle_moved(now, &other_epoch, out)), []);
    assert_eq!(driven.moved(2, 4), []);
    assert_eq!(groups(&driven.moved(2, 5)), [("watch", 2)]);
    assert_eq!(driven.moved(2, 5), []);
    assert_eq!(driven.moved(3, 3), []);
    assert_eq!(driven.attached(answer(Code::Moved, Some(notice(1, 4)))), []);
    // On and on, before it was shown anywhere.
    assert_eq!(groups(&driven.moved(3, 6)), [("watch", 3)]);
    assert_eq!(driven.shown(2, 5, 0), []);
    assert_eq!(groups(&driven.attached(answer(Code::Moved, Some(notice(1, 7))))), [("watch", 1)]);
    assert_eq!(driven.shown(1, 4, 0), [], "what it was before it left");
    assert_eq!(groups(&driven.shown(1, 8, 0)), [("arrived", 1)]);
    assert_eq!(driven.moved(3, 8), []);
}

#[test]
fn a_region_that_does_not_show_the_session_is_asked_and_then_the_directory() {
    let mut driven = playing();
    driven.now = ms(100);
    driven.moved(2, 5);
    driven.say(commands([1]));
    // Of itself it is asked when its owner changes: it may be the first word that it hears.
    let changed = driven.effects(|s, now, _, out| s.handle_owner_changed(now, region(2), out));
    assert_eq!(groups(&changed), [("attach", 2)], "without the inputs");
    assert_eq!(driven.effects(|s, now, _, out| s.handle_owner_changed(now, region(1), out)), [], "left behind");
    assert_eq!(driven.attached(answer(Code::NotAdmitted, None)), [], "it is still on its way");
    assert_eq!(driven.at(1_099), []);
    assert_eq!(groups(&driven.at(1_100)), [("attach", 2)]);
    assert_eq!(groups(&driven.attached(answer(Code::NotAdmitted, None))), [("locate", 0)]);
    assert_eq!(driven.attached(answer(Code::NotAdmitted, None)), [], "asked once at a time");
    // It knows less than this edge: again where it was said to be.
    assert_eq!(driven.located(1, 4), []);
    assert_eq!(driven.at(2_000), []);
    assert_eq!(groups(&driven.at(2_100)), [("attach", 2)]);
    driven.attached(answer(Code::NotAdmitted, None));
    assert_eq!(groups(&driven.located(3, 7)), [("attach", 3)]);
    assert_eq!(driven.located(2, 9), [], "nobody asked");
    assert_eq!(driven.attached(answer(Code::Ok, None)), [], "it is shown in the same batch");
    assert_eq!(groups(&driven.shown(3, 7, 0)), [("arrived", 3), ("inputs", 3)]);
}

#[test]
fn a_session_that_is_nowhere_is_closed_after_a_while() {
    let mut driven = playing();
    driven.say(commands([1]));
    assert_eq!(groups(&driven.attached(answer(Code::NotAdmitted, None))), [("locate", 0)]);
    assert!(!driven.session.is_at(region(1)));
    let (mut attaches, mut now) = (0, 0);
    let closed = loop {
        let effects = driven.at(now);
        if let Some(code) = closed_with(&effects) {
            break code;
        }
        if groups(&effects) == [("attach", 1)] {
            attaches += 1;
            driven.attached(answer(Code::NotAdmitted, None));
        }
        driven.effects(|s, now, _, out| s.handle_located(now, Whereabouts::Nowhere, out));
        now += 100;
    };
    assert_eq!((closed, now), (Code::Unavailable, JOIN_DEADLINE_MS));
    assert!((5..=10).contains(&attaches), "{attaches}");
}

#[test]
fn a_character_that_left_the_world_is_signed_in_anew() {
    let vault = GroupId(u64::from(GroupKind::Vault as u8) << 56 | 1 << 32 | 1);
    assert_eq!(vault.kind(), Some(GroupKind::Vault));
    let to_vault = |move_number| SessionMoved { group: vault.0, region: 0, ..notice(0, move_number) };
    let mut driven = playing();
    assert_eq!(driven.attached(answer(Code::Moved, Some(to_vault(4)))), []);
    assert_eq!(closed_with(&driven.attached(answer(Code::Moved, Some(to_vault(5))))), Some(Code::BadResume));
    // One who says goodbye is told of that.
    let mut driven = playing();
    driven.say(bytes(Body::Goodbye(Goodbye {})));
    assert_eq!(driven.effects(|s, now, _, out| s.handle_moved(now, &to_vault(5), out)), []);
    // One who signs in waits for the vault, where the directory said.
    let mut driven = Driven::attaching();
    assert_eq!(driven.attached(answer(Code::Moved, Some(to_vault(9)))), []);
    assert_eq!(driven.effects(|s, now, _, out| s.handle_moved(now, &to_vault(9), out)), []);
    assert_eq!(groups(&driven.at(50)), [("attach", 1)]);
    // One who resumes does not wait long.
    let mut driven = Driven::fresh();
    driven.say(resume(1));
    driven.located(1, 4);
    driven.attached(answer(Code::Moved, Some(to_vault(5))));
    let code = (1..).find_map(|i| {
        driven.at(i * 200);
        closed_with(&driven.effects(|s, now, _, out| s.handle_located(now, Whereabouts::Nowhere, out)))
    });
    assert_eq!((code, driven.now), (Some(Code::BadResume), ms(2_000)));
}

#[test]
fn goodbye_is_said_where_the_character_is() {
    let mut driven = playing();
    driven.say(commands([1]));
    driven.moved(2, 5);
    assert_eq!(driven.say(bytes(Body::Goodbye(Goodbye {}))), []);
    assert_eq!(own(&mut driven, 1, 1), []);
    assert_eq!(groups(&driven.shown(2, 5, 0)), [("arrived", 2), ("inputs", 2)]);
    assert_eq!(groups(&own(&mut driven, 2, 1)), [("detach", 2)]);
    // A socket that is lost on the way is told of where the character goes.
    let mut driven = playing();
    driven.moved(2, 5);
    assert_eq!(groups(&driven.effects(|s, _, _, out| s.handle_socket_lost(out))), [("detach", 2)]);
}

#[test]
fn what_was_asked_of_the_old_region_is_asked_of_the_new_one() {
    let mut driven = playing();
    let late = StoredReply { reply_seq: 3, ..StoredReply::default() };
    let batch = SessionBatch { epoch: 3, replies: vec![late], move_number: 4, ..SessionBatch::default() };
    assert_eq!(groups(&driven.effects(|s, now, _, out| s.handle_batch(now, region(1), &batch, out))), [("attach", 1)]);
    driven.moved(2, 5);
    let batch = SessionBatch { move_number: 5, ..batch };
    let effects = driven.effects(|s, now, _, out| s.handle_batch(now, region(2), &batch, out));
    assert_eq!(groups(&effects), [("arrived", 2), ("attach", 2)]);
}

#[test]
fn one_who_joins_follows_the_character() {
    let mut driven = Driven::attaching();
    assert_eq!(groups(&driven.attached(answer(Code::Moved, Some(notice(2, 3))))), [("attach", 2)]);
    assert_eq!(driven.moved(2, 3), []);
    assert_eq!(driven.attached(answer(Code::Moved, Some(notice(1, 2)))), [], "on its way back: asked again soon");
    assert_eq!(groups(&driven.at(50)), [("attach", 2)]);
    assert_eq!(groups(&driven.moved(3, 4)), [("attach", 3)]);
    let effects = driven.attached(answer(Code::Ok, None));
    assert!(matches!(&effects[..], [Effect::Welcome(welcome)] if welcome.region == 3), "{effects:?}");
    assert_eq!(driven.session.home(), Some(region(3)));
    assert_eq!(driven.moved(1, 4), [], "known from before");
}

#[test]
fn one_who_signed_in_and_is_not_admitted_asks_where_the_character_went() {
    let mut driven = Driven::attaching();
    let mut asked = Vec::new();
    for now in (0..=1_050).step_by(50) {
        asked.extend(groups(&driven.at(now)));
        asked.extend(groups(&driven.attached(answer(Code::NotAdmitted, None))));
    }
    assert_eq!(asked.iter().filter(|(what, _)| *what == "attach").count(), 20);
    assert_eq!(asked.last(), Some(&("locate", 0)));
    // A vault, perhaps: the region will be told.
    let effects = driven.effects(|s, now, _, out| s.handle_located(now, Whereabouts::Nowhere, out));
    assert_eq!(groups(&effects), [("attach", 1)]);
    for now in (1_100..=2_150).step_by(50) {
        driven.at(now);
        driven.attached(answer(Code::NotAdmitted, None));
    }
    assert_eq!(groups(&driven.located(2, 9)), [("attach", 2)]);
}

#[test]
fn one_who_resumes_is_looked_for_for_a_while() {
    let resuming = || {
        let mut driven = Driven::fresh();
        assert_eq!(groups(&driven.say(resume(1))), [("locate", 0)]);
        assert_eq!(groups(&driven.located(1, 4)), [("attach", 1)]);
        assert_eq!(driven.attached(answer(Code::NotAdmitted, None)), []);
        assert_eq!(driven.at(199), []);
        assert_eq!(groups(&driven.at(200)), [("locate", 0)]);
        driven
    };
    let mut found = resuming();
    assert_eq!(groups(&found.located(2, 5)), [("attach", 2)]);
    assert!(matches!(&found.attached(answer(Code::Ok, None))[..], [Effect::Welcome(_)]));
    let mut gone = resuming();
    let mut now = 200;
    let code = loop {
        let effects = gone.effects(|s, now, _, out| s.handle_located(now, Whereabouts::Nowhere, out));
        if let Some(code) = closed_with(&effects) {
            break code;
        }
        now += 200;
        gone.at(now);
    };
    assert_eq!((code, now), (Code::BadResume, 2_000));
}

/// Where the character really is, and everything that regions ever said of it.
#[derive(Default)]
struct Model {
    serial: u32,
    number: u64,
    notices: Vec<(u32, u64)>,
    shows: Vec<(u32, u64)>,
    /// Highest number that the session was told of, by whomever.
    told: u64,
    /// Regions that have shown it, with the highest number.
    seen: [u64; 4],
}

impl Model {
    /// No region is given inputs before it has shown the session under the highest number that was told.
    fn check(&self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Inputs { group, .. } = effect {
                let seen = self.seen[group.serial() as usize];
                assert!(seen >= self.told, "region {} is given inputs, seen at {seen}, told of {}", group.serial(), self.told);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Turn {
    Move(u32),
    Notice(prop::sample::Index),
    Show(prop::sample::Index),
    AnswerMoved(prop::sample::Index),
    NotAdmitted,
    Located(prop::sample::Index),
    Say,
    Time(u64),
    OwnerChanged(u32),
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        3 => (1..4u32).prop_map(Turn::Move),
        3 => any::<prop::sample::Index>().prop_map(Turn::Notice),
        3 => any::<prop::sample::Index>().prop_map(Turn::Show),
        1 => any::<prop::sample::Index>().prop_map(Turn::AnswerMoved),
        1 => Just(Turn::NotAdmitted),
        1 => any::<prop::sample::Index>().prop_map(Turn::Located),
        4 => Just(Turn::Say),
        2 => (0..1_500u64).prop_map(Turn::Time),
        1 => (1..4u32).prop_map(Turn::OwnerChanged),
    ]
}

proptest! {
    /// Whatever order notices, answers and batches come in, how often, and how late: inputs go where the session is known to be, and
    /// once the world answers, it is found and everything is given.
    #[test]
    fn a_session_is_followed_wherever_it_goes(turns in proptest::collection::vec(turn(), 1..80)) {
        let mut driven = playing();
        let mut model = Model { serial: 1, number: 4, told: 4, seen: [0, 4, 0, 0], shows: vec![(1, 4)], ..Model::default() };
        let mut next_seq = 1;
        for turn in turns {
            let effects = match turn {
                Turn::Move(serial) => {
                    if serial != model.serial {
                        (model.serial, model.number) = (serial, model.number + 1);
                        model.notices.push((serial, model.number));
                        model.shows.push((serial, model.number));
                    }
                    vec![]
                }
                Turn::Notice(_) | Turn::AnswerMoved(_) | Turn::Located(_) if model.notices.is_empty() => vec![],
                Turn::Notice(at) => {
                    let (serial, number) = *at.get(&model.notices);
                    model.told = model.told.max(number);
                    driven.moved(serial, number)
                }
                Turn::AnswerMoved(at) => {
                    let (serial, number) = *at.get(&model.notices);
                    model.told = model.told.max(number);
                    driven.attached(answer(Code::Moved, Some(notice(serial, number))))
                }
                Turn::Located(at) => {
                    let (serial, number) = *at.get(&model.notices);
                    driven.located(serial, number)
                }
                Turn::Show(at) => {
                    let (serial, number) = *at.get(&model.shows);
                    model.seen[serial as usize] = model.seen[serial as usize].max(number);
                    driven.shown(serial, number, 0)
                }
                Turn::NotAdmitted => driven.attached(answer(Code::NotAdmitted, None)),
                Turn::Say => {
                    let effects = driven.say(commands([next_seq]));
                    next_seq += 1;
                    effects
                }
                Turn::Time(by) => {
                    // The client is there, and nothing of this test is about how long it may be lost.
                    let at = driven.now.as_millis() as u64 + by;
                    driven.session.heard_at = ms(at);
                    if let State::Playing(Playing { transit: Some(transit), .. }) = &mut driven.session.state {
                        transit.forgive(ms(at));
                    }
                    driven.at(at)
                }
                Turn::OwnerChanged(serial) => driven.effects(|s, now, _, out| s.handle_owner_changed(now, region(serial), out)),
            };
            model.check(&effects);
            prop_assert_eq!(closed_with(&effects), None);
        }
        // From now on the world answers what it is asked, and tells those who watch.
        let mut last = Vec::new();
        let mut asked = driven.located(model.serial, model.number);
        if let Some(&(serial, number)) = model.notices.last() {
            model.told = number;
            asked.extend(driven.moved(serial, number));
        }
        for _ in 0..60 {
            let now = driven.now.as_millis() as u64 + 100;
            driven.session.heard_at = ms(now);
            asked.extend(driven.at(now));
            for effect in std::mem::take(&mut asked) {
                let here = |group: GroupId| group.serial() == model.serial;
                let effects = match effect {
                    Effect::Attach { group, .. } | Effect::Watch { group, .. } if here(group) => {
                        model.seen[model.serial as usize] = model.number;
                        driven.shown(model.serial, model.number, 0)
                    }
                    Effect::Attach { .. } => match model.notices.last() {
                        Some(&(serial, number)) => {
                            model.told = model.told.max(number);
                            driven.attached(answer(Code::Moved, Some(notice(serial, number))))
                        }
                        None => driven.attached(answer(Code::NotAdmitted, None)),
                    },
                    Effect::Locate { .. } => driven.located(model.serial, model.number),
                    Effect::Inputs { group, inputs } => {
                        prop_assert!(here(group) || model.number > model.told);
                        last.extend(inputs.inputs.iter().map(|input| input.seq));
                        vec![]
                    }
                    _ => vec![],
                };
                model.check(&effects);
                asked.extend(effects);
            }
        }
        prop_assert!(driven.session.is_at(region(model.serial)));
        let unacked = driven.session.unacked() as u64;
        prop_assert!(unacked == 0 || last.ends_with(&(next_seq - unacked..next_seq).collect::<Vec<_>>()), "{last:?}");
    }
}
