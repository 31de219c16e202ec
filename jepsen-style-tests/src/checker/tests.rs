//! A sound history passes; every mutation of it that a broken server could cause is found.

use super::*;

fn event(who: &str, fact: Fact) -> Event {
    Event { t_ns: 0, who: who.into(), fact }
}

fn attached(epoch: u64, next_seq: u64, resumed: bool) -> Fact {
    Fact::Attached { edge: "e".into(), character: 1, epoch, attach: 1, next_seq, resumed }
}

fn reply(reply_seq: u64, command_seq: u64, code: u32, items: &[u64]) -> Fact {
    Fact::Reply { epoch: 1, reply_seq, command_seq, code, items: items.to_vec() }
}

fn sound() -> (Vec<Event>, AtTheEnd) {
    let invoke = |seq, op| Fact::Invoke { epoch: 1, seq, op };
    let facts = vec![
        attached(1, 1, false),
        Fact::Shown { tick: 10 },
        invoke(1, Op::Move),
        invoke(2, Op::Gather),
        Fact::Applied { epoch: 1, upto: 2 },
        reply(1, 2, 0, &[100]),
        invoke(3, Op::Gather),
        reply(2, 3, 0, &[101]),
        Fact::Applied { epoch: 1, upto: 3 },
        invoke(4, Op::Drop { item: 101 }),
        Fact::Lost { reason: "killed".into(), tick: 30 },
        attached(1, 4, true),
        Fact::Shown { tick: 31 },
        reply(3, 4, 0, &[]),
        invoke(5, Op::PickUp),
        reply(4, 5, 16, &[]),
        invoke(6, Op::Inventory),
        Fact::Applied { epoch: 1, upto: 6 },
        reply(5, 6, 0, &[100]),
        Fact::Settled { epoch: 1, applied: 6, items: vec![100] },
    ];
    let mut events: Vec<_> = facts.into_iter().map(|fact| event("ada", fact)).collect();
    events.insert(11, event("nemesis", Fact::Fault { what: "kill -9 of all".into() }));
    let session = SessionAtTheEnd { epoch: 1, applied: 6, items: vec![100] };
    (events, AtTheEnd { sessions: [("ada".to_owned(), session)].into(), items: vec![100, 101] })
}

const REQUIRED: &[&str] = &["move", "gather", "drop", "inventory"];

fn violations(change: impl FnOnce(&mut Vec<Event>, &mut AtTheEnd)) -> Vec<String> {
    let (mut events, mut end) = sound();
    change(&mut events, &mut end);
    check(&events, &end, REQUIRED).violations
}

#[test]
fn a_sound_history_passes_and_is_counted() {
    let (events, end) = sound();
    let verdict = check(&events, &end, REQUIRED);
    assert_eq!(verdict.violations, Vec::<String>::new());
    assert_eq!((verdict.acknowledged, verdict.attached, verdict.faults, verdict.items_got), (6, (2, 1), 1, 2));
    assert_eq!(verdict.exercised["gather"], Exercised { invoked: 2, ok: 2, refused: 0, unknown: 0 });
    assert_eq!(verdict.exercised["pick-up"], Exercised { invoked: 1, ok: 0, refused: 1, unknown: 0 });
}

#[test]
fn mutations_are_found() {
    type Mutation = fn(&mut Vec<Event>, &mut AtTheEnd);
    let mutations: &[(&str, Mutation)] = &[
        ("3 is expected next", |events, _| events[12].fact = attached(1, 3, true)),
        ("epoch went back", |events, _| events[12].fact = attached(0, 4, true)),
        ("was shown tick 30, and then 29", |events, _| events[13].fact = Fact::Shown { tick: 29 }),
        ("reply 4 where 3 was due", |events, _| {
            events.remove(14);
        }),
        ("a second answer", |events, _| events[14].fact = reply(3, 3, 0, &[])),
        ("which was not sent", |events, _| events[14].fact = reply(3, 40, 0, &[])),
        ("gathered twice", |events, _| events[7].fact = reply(2, 3, 0, &[100])),
        ("only 6 were sent", |events, _| events[18].fact = Fact::Applied { epoch: 1, upto: 7 }),
        ("boom", |events, _| events.push(event("ada", Fact::Broken { what: "boom".into() }))),
        ("item 101 is nowhere", |_, end| end.items = vec![100]),
        ("kept it, and does not hold it", |_, end| end.sessions.get_mut("ada").unwrap().items.clear()),
        ("was told to hold", |_, end| end.sessions.get_mut("ada").unwrap().items.push(7)),
        ("5 commands are applied, 6 were acknowledged", |_, end| end.sessions.get_mut("ada").unwrap().applied = 5),
        ("has no session", |_, end| end.sessions.clear()),
        ("epoch 0 where 1", |_, end| end.sessions.get_mut("ada").unwrap().epoch = 0),
        ("it has no answer", |events, _| events[19].fact = Fact::Applied { epoch: 1, upto: 6 }),
        ("drop never succeeded", |events, _| events[14].fact = reply(3, 4, 16, &[])),
    ];
    for (expected, mutation) in mutations {
        let found = violations(mutation);
        assert!(found.iter().any(|violation| violation.contains(expected)), "{expected}: {found:?}");
    }
}

#[test]
fn the_unknown_is_no_violation() {
    // The drop was never answered, and nothing came after it.
    let found = violations(|events, end| {
        events.truncate(12);
        let session = end.sessions.get_mut("ada").unwrap();
        (session.applied, session.items) = (4, vec![100]);
    });
    assert_eq!(
        found,
        ["drop never succeeded: this run shows nothing about it", "inventory never succeeded: this run shows nothing about it"]
    );
    // Whether or not it happened, item 101 must exist and may be anywhere.
    let found = violations(|events, end| {
        events.truncate(12);
        let session = end.sessions.get_mut("ada").unwrap();
        (session.applied, session.items) = (3, vec![100, 101]);
    });
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_new_epoch_begins_its_numbers_anew() {
    let found = violations(|events, end| {
        events.push(event("ada", attached(2, 1, false)));
        events.push(event("ada", Fact::Shown { tick: 40 }));
        end.sessions.get_mut("ada").unwrap().epoch = 2;
        end.sessions.get_mut("ada").unwrap().applied = 0;
    });
    assert_eq!(found, Vec::<String>::new());
}
