//! The phases of a run: everyone joins, the plan happens, it is quiet, and at a cut every replica tells what it holds.

use std::collections::BTreeMap;
use std::rc::Rc;

use marchland_proto::cluster::{InspectReply, SessionSummary};
use marchland_types::{CharacterId, CommandSeq, GroupId, Incarnation, ItemId, LogIndex, NodeId, ReplicaId};
use rand::RngExt;

use super::for_good;
use super::node::Stage;
use super::player::{EPOCHS_MAX, Notes, client_of, name_of};
use super::{LOAD_MS, REGION, SHARDS};
use crate::director::Director;
use crate::fact::{Fact, FinalState, tell};
use crate::oracle::Violation;
use crate::plan::Plan;
use crate::seed::Seed;
use crate::world::World;

/// Until then everyone must be in the world.
const JOIN_WITHIN_MS: u64 = 15_000;
/// In this time after the last fault everyone must be served again.
const QUIET_MS: u64 = 5_000;
/// Until then the last commands are answered, and every replica has told what it holds.
const CONCLUDE_WITHIN_MS: u64 = 6_000;

/// When a replica's state goes wrong, and whether it is the owner's.
#[derive(Clone, Copy, Debug)]
pub(super) struct GoesWrong {
    at_ms: u64,
    owner: bool,
}

impl GoesWrong {
    pub(super) fn draw(seed: Seed) -> Self {
        let mut stream = seed.stream("goes wrong");
        Self { at_ms: stream.random_range(500..LOAD_MS - 2_000), owner: stream.random() }
    }
}

/// What happens once in a run, if at all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turns {
    pub(super) wrong: Option<GoesWrong>,
    /// The node that goes for good.
    pub(super) for_good: Option<u32>,
}

pub(super) fn drive(
    world: &mut World,
    plan: Plan,
    stage: &Stage,
    notes: &[Rc<Notes>],
    Turns { wrong, for_good }: Turns,
    fired: &mut BTreeMap<String, u64>,
) -> Result<(), Violation> {
    let all_in = || notes.iter().all(|n| n.frames.get() > 0);
    until(world, JOIN_WITHIN_MS, all_in, || {
        let out = notes.iter().filter(|n| n.frames.get() == 0).count();
        Violation::new("served-at-start", format!("{out} players are not in the world after {JOIN_WITHIN_MS} ms"))
    })?;

    let mut director = Director::new(world, plan);
    let before = match wrong {
        None => Ok(()),
        Some(GoesWrong { at_ms, owner }) => director.run(world, at_ms).map(|()| stage.goes_wrong.set(Some(owner))),
    };
    let loaded = before.and_then(|()| director.run(world, LOAD_MS));
    notes.iter().for_each(|n| n.stays.set(true));
    let quiet_ms = loaded.and_then(|()| director.calm(world));
    fired.clone_from(director.fired());
    let mut quiet_ms = quiet_ms?;
    let mut gone = None;
    if let Some(number) = for_good {
        gone = Some(for_good::lose(world, number, notes)?);
        stage.gone.set(1);
        quiet_ms = director.elapsed_ms(world);
    }
    let before: Vec<u64> = notes.iter().map(|n| n.frames.get()).collect();
    director.run(world, quiet_ms + QUIET_MS)?;

    for (notes, before) in notes.iter().zip(before) {
        let Some(client) = notes.client.get() else { continue };
        tell(&Fact::Served { client, times: notes.frames.get() - before });
        notes.rests.set(true);
    }
    stage.operator_rests.set(true);
    let answered = || notes.iter().all(|n| n.unacked.get() == 0) && !stage.operating.get();
    until(world, CONCLUDE_WITHIN_MS, answered, || {
        let unacked: Vec<usize> = notes.iter().map(|n| n.unacked.get()).collect();
        let operating = if stage.operating.get() { ", and the operator for an answer," } else { "" };
        Violation::new("commands-answered", format!("{unacked:?} commands wait{operating} although it has long been quiet"))
    })?;
    if let Some(name) = &gone {
        for_good::bring_back(world, name)?;
    }
    stage.cut_wanted.set(true);
    let all = stage.holders.get();
    let told = || {
        let finals = stage.finals.borrow();
        finals.len() == SHARDS as usize && finals.values().all(|regions| regions.len() == all)
    };
    until(world, CONCLUDE_WITHIN_MS, told, || {
        let have: Vec<(u32, usize)> = stage.finals.borrow().iter().map(|(node, regions)| (*node, regions.len())).collect();
        Violation::new(
            "replicas-agree",
            format!("of {all} regions and vaults each, only {have:?} (node, how many) reached the last cut"),
        )
    })?;
    for (node, regions) in stage.finals.borrow().iter() {
        tell(&Fact::Final(final_state(*node, regions, notes.len() as u64)));
    }
    Ok(())
}

/// Runs until something holds, or is violated because it does not in time.
pub(super) fn until(
    world: &mut World,
    within_ms: u64,
    holds: impl Fn() -> bool,
    violated: impl FnOnce() -> Violation,
) -> Result<(), Violation> {
    let mut director = Director::new(world, Plan::default());
    while !holds() {
        let now_ms = director.elapsed_ms(world);
        if now_ms >= within_ms {
            return Err(violated());
        }
        director.run(world, now_ms + 10)?;
    }
    Ok(())
}

/// The whole world as a node's replicas held it at the last cut, what was on its way between regions included.
fn final_state(node: u32, regions: &BTreeMap<GroupId, InspectReply>, players: u64) -> FinalState {
    let mut state = FinalState {
        group: REGION,
        replica: ReplicaId::new(NodeId(node), Incarnation(1)),
        items_expected: Some(regions.values().map(|held| held.items_minted - held.items_destroyed).sum()),
        ..FinalState::default()
    };
    for (group, held) in regions {
        // Of all regions together: a difference in any of them shows.
        state.applied = LogIndex(state.applied.0 + held.index);
        state.hash = state.hash.rotate_left(7) ^ held.state_hash;
        let mut items = held.items.clone();
        let mut characters = held.characters.clone();
        for waiting in &held.in_flight {
            let taken = regions.get(&GroupId(waiting.to_group)).and_then(|to| to.taken.iter().find(|t| t.from_group == group.0));
            if waiting.seq > taken.map_or(0, |taken| taken.seq) {
                items.extend(&waiting.items);
                characters.extend(&waiting.characters);
                sessions_of(&waiting.sessions, players, &mut state);
            }
        }
        state.items.extend(items.into_iter().map(ItemId));
        state.characters.extend(characters.into_iter().map(CharacterId));
        sessions_of(&held.sessions, players, &mut state);
    }
    state
}

fn sessions_of(sessions: &[SessionSummary], players: u64, state: &mut FinalState) {
    for session in sessions {
        let Some(person) = (1..=players).find(|person| name_of(*person) == session.name) else { continue };
        let client = client_of(person, session.epoch);
        state.applied_up_to.insert(client, CommandSeq(session.applied_seq));
        state.sessions.insert(client);
        state.inventories.insert(client, session.items.iter().map(|item| ItemId(*item)).collect());
        // Sessions that a newer one replaced are gone with their counters; what they gave is still there as items.
        for epoch in 0..session.epoch.min(EPOCHS_MAX) {
            state.applied_up_to.insert(client_of(person, epoch), CommandSeq(u64::MAX));
        }
    }
}
