//! A directory, two vaults and three regions, connected by channels that deliver late, again and in any order among each other.
//!
//! The regions are a model: characters that stand in them, go to another one, or log out, at any moment. Whatever happens,
//! once everything is delivered each character is in one place, the directory knows it, no stub is left, and the newest
//! session has reached its character. And at every cut, each character and item is in one place or on its way.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use marchland_proto::storage::channel_message::Body;
use marchland_proto::storage::directory_entry::Body as Order;
use marchland_proto::storage::vault_entry::Body as VaultOrder;
use marchland_proto::storage::{
    Admit, ChannelMessage, ChannelMessages, Cut, Deposit, DirectoryCharacter, DirectoryCut, EntityHandoff, LocationUpdate, Moved,
};
use marchland_types::{CharacterId, CutNumber, GroupId, GroupKind, vault_of};
use proptest::prelude::*;
use prost::Message as _;

use crate::directory::testing::{Directory, WORLD, region, vault};
use crate::keys::Key;
use crate::vault::testing::{Vault, directory};

const REGIONS: u32 = 3;
const VAULTS: u32 = 2;
const NAMES: u8 = 3;

/// What a region knows of a character that stands in it.
#[derive(Clone, Debug)]
struct Here {
    epoch: u64,
    move_number: u64,
    record: Bytes,
}

/// What stood in a region at a cut.
#[derive(Clone, Debug, Default)]
struct AtCut {
    characters: Vec<u64>,
    /// Characters that came into being here.
    born: BTreeSet<u64>,
    /// Receiver, number, character.
    outbox: Vec<(GroupId, u64, u64)>,
    taken: BTreeMap<GroupId, u64>,
}

/// A region as far as its characters' places go.
#[derive(Clone, Debug, Default)]
struct Region {
    group: GroupId,
    here: BTreeMap<u64, Here>,
    /// Where characters went, and their move numbers there.
    stubs: BTreeMap<u64, (GroupId, u64)>,
    outbox: BTreeMap<GroupId, Vec<ChannelMessage>>,
    posted: BTreeMap<GroupId, u64>,
    taken: BTreeMap<GroupId, u64>,
    cut: u64,
    cuts: BTreeMap<u64, AtCut>,
    born: BTreeSet<u64>,
    /// The newest session that was admitted here, by character.
    admitted: BTreeMap<u64, u64>,
}

/// The character inside a message.
fn carried(message: &ChannelMessage) -> Option<u64> {
    match message.body.as_ref()? {
        Body::Admit(admit) if !admit.carried.is_empty() => Some(admit.character),
        Body::Handoff(handoff) => Some(handoff.entity),
        Body::Deposit(deposit) => Some(deposit.character),
        _ => None,
    }
}

impl Region {
    fn post(&mut self, to: GroupId, body: Body) {
        let seq = self.posted.entry(to).or_default();
        *seq += 1;
        let message = ChannelMessage { from_group: self.group.0, seq: *seq, cut: self.cut, map_epoch: 1, body: Some(body) };
        self.outbox.entry(to).or_default().push(message);
    }

    fn take_cut(&mut self, number: u64) {
        if number <= self.cut {
            return;
        }
        let waiting = self.outbox.iter().flat_map(|(to, list)| list.iter().map(move |m| (*to, m)));
        let state = AtCut {
            characters: self.here.keys().copied().collect(),
            born: self.born.clone(),
            outbox: waiting.filter_map(|(to, m)| Some((to, m.seq, carried(m)?))).collect(),
            taken: self.taken.clone(),
        };
        self.cut = number;
        self.cuts.insert(number, state);
    }

    fn deliver(&mut self, messages: &[ChannelMessage]) {
        for message in messages {
            let from = GroupId(message.from_group);
            let last = self.taken.get(&from).copied().unwrap_or_default();
            if message.seq == last + 1 {
                self.take_cut(message.cut);
                self.take(from, message);
                self.taken.insert(from, message.seq);
            }
        }
    }

    fn take(&mut self, from: GroupId, message: &ChannelMessage) {
        match message.body.clone().expect("a body") {
            Body::Admit(admit) if !admit.carried.is_empty() => {
                self.admit(admit.character, admit.epoch);
                let here = Here { epoch: admit.epoch, move_number: admit.move_number, record: admit.carried };
                self.enter(admit.character, here);
            }
            Body::Admit(admit) => self.take_session(from, message, &admit),
            Body::Handoff(handoff) => {
                let here = Here { epoch: handoff.now_ms, move_number: handoff.move_number, record: handoff.record };
                self.enter(handoff.entity, here);
            }
            Body::Expel(expel) => {
                // The worst that it may do.
                if self.here.get(&expel.character).is_some_and(|here| here.epoch < expel.epoch) {
                    self.log_out(expel.character);
                }
            }
            Body::DropStub(stub) => {
                if self.stubs.get(&stub.character).is_some_and(|(_, number)| *number <= stub.move_number) {
                    self.stubs.remove(&stub.character);
                }
            }
            other => panic!("{} does not take {other:?}", self.group),
        }
    }

    fn take_session(&mut self, from: GroupId, message: &ChannelMessage, admit: &Admit) {
        if let Some(here) = self.here.get_mut(&admit.character) {
            here.epoch = here.epoch.max(admit.epoch);
            self.admit(admit.character, admit.epoch);
        } else if !self.stubs.contains_key(&admit.character) && admit.move_number == 1 {
            self.admit(admit.character, admit.epoch);
            assert!(self.born.insert(admit.character), "character {} is made twice", admit.character);
            let record = Bytes::from(admit.character.to_string());
            self.enter(admit.character, Here { epoch: admit.epoch, move_number: 1, record });
        } else {
            let moved = Moved { character: admit.character, message: Some(Box::new(message.clone())) };
            self.post(from, Body::Moved(Box::new(moved)));
        }
    }

    fn admit(&mut self, character: u64, epoch: u64) {
        let newest = self.admitted.entry(character).or_default();
        *newest = epoch.max(*newest);
    }

    fn enter(&mut self, character: u64, here: Here) {
        assert_eq!(here.record, character.to_string(), "the record is what it was");
        self.stubs.remove(&character);
        let update = LocationUpdate { character, move_number: here.move_number, group: self.group.0, present: true };
        assert!(self.here.insert(character, here).is_none(), "character {character} is in {} twice", self.group);
        self.post(directory(), Body::Location(update));
    }

    fn leave(&mut self, character: u64, to: GroupId) -> Option<Here> {
        let here = self.here.remove(&character)?;
        self.stubs.insert(character, (to, here.move_number + 1));
        Some(here)
    }

    fn hand_off(&mut self, character: u64, to: GroupId) {
        if to != self.group
            && let Some(here) = self.leave(character, to)
        {
            let move_number = here.move_number + 1;
            let handoff = EntityHandoff {
                entity: character,
                move_number,
                record: here.record,
                now_ms: here.epoch,
                ..EntityHandoff::default()
            };
            self.post(to, Body::Handoff(handoff));
        }
    }

    fn log_out(&mut self, character: u64) {
        let to = vault_of(WORLD, VAULTS, CharacterId(character));
        if let Some(Here { epoch, move_number, record }) = self.leave(character, to) {
            let items = vec![character * 10];
            self.post(to, Body::Deposit(Deposit { character, epoch, move_number: move_number + 1, record, items }));
        }
    }
}

struct World {
    directory: Directory,
    vaults: Vec<Vault>,
    regions: Vec<Region>,
    requests: u64,
}

impl World {
    fn begun() -> Self {
        let regions = (1..=REGIONS).map(|n| Region { group: region(n), ..Region::default() }).collect();
        let directory = Directory::begun_with_vaults(REGIONS, VAULTS);
        Self { directory, vaults: (1..=VAULTS).map(Vault::new).collect(), regions, requests: 0 }
    }

    fn groups() -> Vec<GroupId> {
        let vaults = (1..=VAULTS).map(vault);
        [directory()].into_iter().chain(vaults).chain((1..=REGIONS).map(region)).collect()
    }

    fn vault(&mut self, group: GroupId) -> &mut Vault {
        &mut self.vaults[group.serial() as usize - 1]
    }

    fn region(&mut self, group: GroupId) -> &mut Region {
        &mut self.regions[group.serial() as usize - 1]
    }

    fn sign_in(&mut self, name: u8) {
        self.requests += 1;
        let requests = self.requests;
        let answer = self.directory.sign_in(&format!("account{name}"), &format!("name{name}"), requests);
        assert_eq!(answer.code, 0);
        let named = GroupId(answer.group);
        assert_eq!((named.kind(), named.serial()), (Some(GroupKind::Region), answer.region), "a session is admitted by a region");
    }

    fn posted(&mut self, from: GroupId, to: GroupId) -> Vec<ChannelMessage> {
        match from.kind() {
            Some(GroupKind::Directory) => self.directory.posted(to),
            Some(GroupKind::Vault) => self.vault(from).posted(to),
            _ => self.region(from).outbox.get(&to).cloned().unwrap_or_default(),
        }
    }

    fn deliver(&mut self, to: GroupId, messages: Vec<ChannelMessage>) {
        match to.kind() {
            Some(GroupKind::Directory) => {
                let answer = self.directory.apply(Order::Messages(ChannelMessages { messages }));
                assert!(answer.code == 0 || answer.reason.contains("expected"), "{}", answer.reason);
            }
            Some(GroupKind::Vault) => {
                let answer = self.vault(to).deliver_all(messages);
                self.vault(to).check();
                assert!(answer.code == 0 || answer.reason.contains("expected"), "{}", answer.reason);
            }
            _ => self.region(to).deliver(&messages),
        }
    }

    /// The receiver says up to where it has taken.
    fn acknowledge(&mut self, from: GroupId, to: GroupId) {
        let (taken, cut) = match to.kind() {
            Some(GroupKind::Directory) => (self.directory.channel(from).taken_seq, self.directory.counters().cut),
            Some(GroupKind::Vault) => (self.vault(to).channel(from).taken_seq, self.vault(to).counters().cut),
            _ => (self.region(to).taken.get(&from).copied().unwrap_or_default(), self.region(to).cut),
        };
        match from.kind() {
            Some(GroupKind::Directory) => assert_eq!(self.directory.ack_behind(to, taken, cut).code, 0),
            Some(GroupKind::Vault) => assert_eq!(self.vault(from).ack_behind(to, taken, cut).code, 0),
            _ => {
                self.region(from).take_cut(cut);
                if let Some(list) = self.region(from).outbox.get_mut(&to) {
                    list.retain(|m| m.seq > taken);
                }
            }
        }
    }

    fn take_cut(&mut self, at: GroupId, number: u64) {
        match at.kind() {
            Some(GroupKind::Directory) => drop(self.directory.apply(Order::Cut(Cut { number, now_ms: 0 }))),
            Some(GroupKind::Vault) => drop(self.vault(at).apply(VaultOrder::Cut(Cut { number, now_ms: 0 }))),
            _ => self.region(at).take_cut(number),
        }
    }

    /// Delivers everything, until nothing is left to deliver.
    fn settle(&mut self) {
        for _ in 0..100 {
            let mut quiet = true;
            for from in Self::groups() {
                for to in Self::groups() {
                    let messages = self.posted(from, to);
                    if !messages.is_empty() {
                        quiet = false;
                        self.deliver(to, messages);
                        self.acknowledge(from, to);
                    }
                }
            }
            if quiet {
                return;
            }
        }
        panic!("messages go round and round");
    }

    fn check_quiet(&mut self) {
        self.directory.check();
        self.vaults.iter().for_each(Vault::check);
        assert_eq!(self.directory.counters().set_aside, 0);
        for vault in &self.vaults {
            assert_eq!((vault.counters().set_aside, vault.stubs()), (0, 0));
        }
        for region in &self.regions {
            assert!(region.stubs.is_empty(), "{}: {:?}", region.group, region.stubs);
        }
        let all = self.directory.counters().last_character;
        for id in 1..=all {
            let known: DirectoryCharacter = self.directory.character(id);
            let mut places = Vec::new();
            for vault in &self.vaults {
                places.extend(vault.kept(id).map(|kept| (vault.group.0, kept.move_number)));
            }
            for region in &self.regions {
                places.extend(region.here.get(&id).map(|here| (region.group.0, here.move_number)));
            }
            assert_eq!(places, [(known.group, known.move_number)], "character {id} is in one place, which is known");
            assert_eq!(known.waiting, None);
            let admitted = self.regions.iter().filter_map(|r| r.admitted.get(&id)).max();
            assert_eq!(admitted, Some(&known.epoch), "the newest session of character {id} has arrived");
        }
    }

    /// Each character is in one place at the cut, or on its way, with its items.
    fn check_cut(&mut self, number: u64) {
        let (mut found, mut born): (Vec<u64>, Vec<u64>) = Default::default();
        let mut taken: BTreeMap<(GroupId, GroupId), u64> = BTreeMap::new();
        let mut sent: Vec<(GroupId, GroupId, u64, u64)> = Vec::new();
        for region in &self.regions {
            let state = &region.cuts[&number];
            found.extend(&state.characters);
            born.extend(&state.born);
            sent.extend(state.outbox.iter().map(|(to, seq, character)| (region.group, *to, *seq, *character)));
            taken.extend(state.taken.iter().map(|(from, seq)| ((*from, region.group), *seq)));
        }
        for vault in &self.vaults {
            let state = vault.at_cut(number).expect("the cut is told");
            let (characters, items) = state.held();
            assert_eq!(items, characters.iter().map(|c| c * 10).collect::<Vec<_>>());
            found.extend(characters);
            for way in state.in_flight() {
                assert_eq!(way.items, [way.characters[0] * 10]);
                sent.push((vault.group, GroupId(way.to_group), way.seq, way.characters[0]));
            }
            taken.extend(state.taken().iter().map(|t| ((GroupId(t.from_group), vault.group), t.seq)));
        }
        let arrived = |from, to| taken.get(&(from, to)).copied().unwrap_or_default();
        found.extend(sent.iter().filter(|(from, to, seq, _)| *seq > arrived(*from, *to)).map(|(_, _, _, character)| character));
        found.sort_unstable();
        born.sort_unstable();
        assert_eq!(found, born, "at cut {number}");
        let cut = self.directory.records.get(&Key::Cut(CutNumber(number)).encode()).expect("a cut");
        let index = DirectoryCut::decode(cut.clone()).expect("readable").index;
        for id in 1..=self.directory.counters().last_character {
            let known = (1..index).contains(&self.directory.character(id).located_index);
            assert!(!known || found.contains(&id), "the directory knew character {id} at cut {number}");
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    SignIn(u8),
    HandOff {
        character: u64,
        to: u32,
    },
    LogOut {
        character: u64,
    },
    Deliver {
        from: u8,
        to: u8,
        skip: u8,
        count: u8,
    },
    Acknowledge {
        from: u8,
        to: u8,
    },
    /// Everything that some group has posted is delivered.
    Flush {
        from: u8,
    },
    Cut {
        at: u8,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let group = || 0..(1 + VAULTS + REGIONS) as u8;
    let character = || 1..=u64::from(NAMES);
    let step = prop_oneof![
        4 => (0..NAMES).prop_map(Step::SignIn),
        4 => (character(), 1..=REGIONS).prop_map(|(character, to)| Step::HandOff { character, to }),
        3 => character().prop_map(|character| Step::LogOut { character }),
        10 => (group(), group(), 0u8..3, 1u8..4).prop_map(|(from, to, skip, count)| Step::Deliver { from, to, skip, count }),
        4 => (group(), group()).prop_map(|(from, to)| Step::Acknowledge { from, to }),
        6 => group().prop_map(|from| Step::Flush { from }),
        1 => group().prop_map(|at| Step::Cut { at }),
    ];
    proptest::collection::vec(step, 0..120)
}

/// Runs the steps; returns the cuts that were taken.
fn run(world: &mut World, steps: Vec<Step>) -> u64 {
    let groups = World::groups();
    let mut cuts = 0;
    for step in steps {
        match step {
            Step::SignIn(name) => world.sign_in(name),
            Step::HandOff { character, to } => {
                world.regions.iter_mut().for_each(|r| r.hand_off(character, region(to)));
            }
            Step::LogOut { character } => world.regions.iter_mut().for_each(|r| r.log_out(character)),
            Step::Deliver { from, to, skip, count } => {
                let (from, to) = (groups[from as usize], groups[to as usize]);
                let messages: Vec<_> = world.posted(from, to).into_iter().skip(skip as usize / 2).take(count as usize).collect();
                if !messages.is_empty() {
                    world.deliver(to, messages);
                }
            }
            Step::Acknowledge { from, to } => world.acknowledge(groups[from as usize], groups[to as usize]),
            Step::Flush { from } => {
                for to in groups.iter().copied() {
                    let messages = world.posted(groups[from as usize], to);
                    if !messages.is_empty() {
                        world.deliver(to, messages);
                    }
                }
            }
            Step::Cut { at } if cuts < 8 => {
                cuts += 1;
                world.take_cut(groups[at as usize], cuts);
            }
            Step::Cut { .. } => {}
        }
    }
    cuts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_character_is_in_one_place_and_its_newest_session_arrives(steps in steps()) {
        let mut world = World::begun();
        run(&mut world, steps);
        world.settle();
        world.check_quiet();
    }

    /// A cut number may be skipped by a group that hears of a later one first, so only the newest one is complete.
    #[test]
    fn every_character_is_in_one_place_at_a_cut(before in steps(), after in steps(), at in 0usize..6) {
        let mut world = World::begun();
        let cut = run(&mut world, before) + 1;
        let groups = World::groups();
        world.take_cut(groups[at], cut);
        run(&mut world, after.into_iter().filter(|step| !matches!(step, Step::Cut { .. })).collect());
        for group in groups {
            world.take_cut(group, cut);
        }
        world.check_cut(cut);
        world.settle();
        world.check_cut(cut);
        world.check_quiet();
    }
}
