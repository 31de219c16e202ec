use super::*;
use marchland_types::WorldId;

struct Place;

impl ViewSource for Place {
    fn cell(&self, cell: CellId) -> Vec<EntityRecord> {
        vec![EntityRecord { slot: cell.x as u32, ..EntityRecord::default() }]
    }

    fn own(&self, character: CharacterId) -> Option<OwnState> {
        Some(OwnState { character: character.0, ..OwnState::default() })
    }

    fn session(&self, character: CharacterId) -> Option<SessionBatch> {
        // Those above 100 are elsewhere.
        (character.0 <= 100).then(|| SessionBatch { character: character.0, ..SessionBatch::default() })
    }

    fn moved(&self, character: CharacterId) -> Option<SessionMoved> {
        (character.0 > 100).then(|| SessionMoved { character: character.0, move_number: 7, ..SessionMoved::default() })
    }
}

fn stamp(tick: u64) -> Stamp {
    Stamp { tick: Tick(tick), index: LogIndex(tick), server_ms: tick * 50, time_rate: 100, next_in: None, map_epoch: MapEpoch(3) }
}

fn hub() -> Hub {
    Hub::new(GroupId::region(WorldId(1), RegionId(1)), RegionId(1))
}

fn cell(x: i16) -> CellId {
    CellId { x, z: 0 }
}

fn walk(slot: u32, to: i16, from: Option<i16>) -> TickChanges {
    TickChanges { moved: vec![(Motion { slot, ..Motion::default() }, cell(to), from.map(cell))], ..TickChanges::default() }
}

fn next(out: &mut mpsc::Receiver<NodeToEdge>) -> RegionBatch {
    out.try_recv().unwrap().regions.remove(0)
}

#[test]
fn a_subscription_begins_with_a_full_view_and_goes_on_with_changes() {
    let mut hub = hub();
    let (out, mut batches) = mpsc::channel(EDGE_BATCHES_MAX);
    hub.join(EdgeId(1), out);
    hub.publish(stamp(1), walk(7, 1, None), &Place);
    assert!(batches.try_recv().is_err(), "an edge that asked for nothing hears nothing");

    hub.subscribe(EdgeId(1), [cell(1)]);
    hub.watch(EdgeId(1), CharacterId(5));
    hub.publish(stamp(2), walk(7, 1, None), &Place);
    let batch = next(&mut batches);
    assert!(batch.cells[0].full && batch.cells[0].motion.is_empty());
    assert_eq!(OwnState::iter(&batch.own).unwrap().count(), 1);
    assert_eq!(batch.sessions.len(), 1);

    hub.publish(stamp(3), walk(7, 2, Some(1)), &Place);
    let batch = next(&mut batches);
    assert_eq!(batch.cells.len(), 1, "cell 2 is not followed");
    assert_eq!((batch.cells[0].full, batch.cells[0].left.as_slice()), (false, [7].as_slice()));
}

#[test]
fn an_edge_that_was_told_to_start_over_is_not_listened_to_until_it_does() {
    let mut hub = hub();
    let (out, _batches) = mpsc::channel(EDGE_BATCHES_MAX);
    assert!(hub.is_unaware(EdgeId(1)), "it is not there");
    hub.join(EdgeId(1), out);
    assert!(!hub.is_unaware(EdgeId(1)));
    hub.gone(None);
    assert!(hub.is_unaware(EdgeId(1)));
    hub.reset(EdgeId(1));
    assert!(!hub.is_unaware(EdgeId(1)));
}

#[test]
fn an_edge_that_does_not_read_costs_no_memory_and_gets_a_full_view_afterwards() {
    let mut hub = hub();
    let (out, mut batches) = mpsc::channel(EDGE_BATCHES_MAX);
    hub.join(EdgeId(1), out);
    hub.subscribe(EdgeId(1), [cell(1), cell(2)]);
    for tick in 1..=100 {
        hub.publish(stamp(tick), walk(7, 1, None), &Place);
    }
    assert_eq!(hub.missed(), 100 - EDGE_BATCHES_MAX as u64);
    while batches.try_recv().is_ok() {}
    hub.publish(stamp(101), walk(7, 1, None), &Place);
    let batch = next(&mut batches);
    assert_eq!(batch.cells.iter().filter(|c| c.full).count(), 2);
}

#[test]
fn two_edges_share_what_both_follow_and_each_gets_its_own_sessions() {
    let mut hub = hub();
    let (out_a, mut a) = mpsc::channel(EDGE_BATCHES_MAX);
    let (out_b, mut b) = mpsc::channel(EDGE_BATCHES_MAX);
    hub.join(EdgeId(1), out_a);
    hub.join(EdgeId(2), out_b);
    for (edge, character) in [(1, 10), (2, 20)] {
        hub.subscribe(EdgeId(edge), [cell(1)]);
        hub.watch(EdgeId(edge), CharacterId(character));
    }
    hub.publish(stamp(1), TickChanges::default(), &Place);
    next(&mut a);
    next(&mut b);
    let mut changes = walk(7, 1, None);
    changes.own = [10, 20, 30].map(|character| OwnState { character, ..OwnState::default() }).to_vec();
    hub.publish(stamp(2), changes, &Place);
    for (batches, character) in [(&mut a, 10), (&mut b, 20)] {
        let batch = next(batches);
        assert_eq!(Motion::iter(&batch.cells[0].motion).unwrap().count(), 1);
        let own: Vec<_> = OwnState::iter(&batch.own).unwrap().map(|o| o.character).collect();
        assert_eq!(own, [character]);
    }
}

#[test]
fn whoever_attached_gets_a_view_of_its_own_with_the_answer() {
    let mut hub = hub();
    let (out, mut batches) = mpsc::channel(EDGE_BATCHES_MAX);
    hub.join(EdgeId(1), out);
    hub.watch(EdgeId(1), CharacterId(10));
    hub.publish(stamp(1), TickChanges::default(), &Place);
    next(&mut batches);
    let attached = vec![AttachAnswer { character: 10, ..AttachAnswer::default() }];
    hub.publish(stamp(2), TickChanges { attached, ..TickChanges::default() }, &Place);
    let batch = next(&mut batches);
    assert_eq!((batch.attached.len(), batch.sessions.len(), OwnState::iter(&batch.own).unwrap().count()), (1, 1, 1));
}

#[test]
fn losing_the_region_is_told_once_and_forgets_subscriptions() {
    let mut hub = hub();
    let (out, mut batches) = mpsc::channel(EDGE_BATCHES_MAX);
    hub.join(EdgeId(1), out);
    hub.subscribe(EdgeId(1), [cell(1)]);
    hub.gone(Some(ReplicaId(9)));
    assert_eq!(next(&mut batches).gone.unwrap().leader, 9);
    hub.publish(stamp(5), walk(7, 1, None), &Place);
    assert!(batches.try_recv().is_err());
}

#[test]
fn every_edge_is_told_who_owns_the_region_whatever_it_follows_and_whenever_it_comes() {
    let mut hub = hub();
    let (out, mut first) = mpsc::channel(EDGE_BATCHES_MAX);
    hub.join(EdgeId(1), out);
    hub.announce(stamp(5));
    let told = next(&mut first);
    assert_eq!((told.index, told.gone, told.cells.len()), (5, None, 0));
    let (out, mut second) = mpsc::channel(EDGE_BATCHES_MAX);
    hub.join(EdgeId(2), out);
    hub.announce_to(EdgeId(2), stamp(6));
    assert_eq!(next(&mut second).index, 6);
    assert!(first.try_recv().is_err(), "it knows");
    hub.announce_to(EdgeId(3), stamp(7));
    assert_eq!(hub.missed(), 0, "nobody of that name is there");
}

#[test]
fn who_follows_a_character_hears_where_it_went_and_that_it_came() {
    let mut hub = hub();
    let (out, mut batches) = mpsc::channel(EDGE_BATCHES_MAX);
    hub.join(EdgeId(1), out);
    hub.subscribe(EdgeId(1), [cell(1)]);
    hub.watch(EdgeId(1), CharacterId(5));
    hub.publish(stamp(1), TickChanges::default(), &Place);
    next(&mut batches);

    // It comes from elsewhere: everything that is kept for it follows, to whoever waits for it.
    hub.publish(stamp(2), TickChanges { arrived: vec![CharacterId(5), CharacterId(6)], ..TickChanges::default() }, &Place);
    let batch = next(&mut batches);
    assert_eq!(batch.sessions.iter().map(|s| s.character).collect::<Vec<_>>(), [5]);

    // It goes: its entity is handed over and has not just left.
    let handed = HandedOff { slot: 3, entity: 9, move_number: 2, to_group: 4 };
    let gone_on = [5, 6].map(|character| SessionMoved { character, move_number: 2, ..SessionMoved::default() }).to_vec();
    hub.publish(stamp(3), TickChanges { handed: vec![(handed, cell(1))], gone_on, ..TickChanges::default() }, &Place);
    let batch = next(&mut batches);
    assert_eq!((batch.cells[0].handed.as_slice(), batch.cells[0].left.len()), ([handed].as_slice(), 0));
    assert_eq!(batch.moved.iter().map(|moved| moved.character).collect::<Vec<_>>(), [5]);
}

#[test]
fn who_asks_for_a_character_that_went_before_is_told_where() {
    let mut hub = hub();
    let (out, mut batches) = mpsc::channel(EDGE_BATCHES_MAX);
    hub.join(EdgeId(1), out);
    hub.watch(EdgeId(1), CharacterId(101));
    hub.publish(stamp(1), TickChanges::default(), &Place);
    let batch = next(&mut batches);
    assert_eq!((batch.sessions.len(), batch.moved[0].character, batch.moved[0].move_number), (0, 101, 7));
    hub.publish(stamp(2), TickChanges::default(), &Place);
    assert!(next(&mut batches).moved.is_empty(), "once is enough");
}
