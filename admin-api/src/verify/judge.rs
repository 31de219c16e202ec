//! The verdict on what replicas answered. Pure.
//!
//! Within a group, whatever most replicas say is taken for its state; a replica that says anything else is divergent. Items
//! and characters are then counted over the whole world. What is on its way from one group to another is present, too: it is in a
//! message of the sender's outbox that the receiver, at the same cut, has not taken.
//!
//! ```text
//! missing     = minted − destroyed − distinct items present     (when positive)
//! unexplained = distinct items present − minted + destroyed     (when positive)
//! duplicated  = items present more than once
//! ```
//!
//! A directory's characters are not present in it: they are those that must be somewhere.

use std::collections::{BTreeMap, BTreeSet};

use marchland_proto::cluster::{InFlight, InspectReply, SessionSummary};
use marchland_types::{GroupId, GroupKind, ReplicaId};
use serde::{Deserialize, Serialize};

/// What the replicas of one group answered for one cut.
#[derive(Clone, Debug)]
pub struct GroupAnswers {
    /// A region, a vault, or the directory.
    pub group: GroupId,
    /// Every replica of it.
    pub replicas: Vec<ReplicaAnswer>,
}

/// What one replica answered.
#[derive(Clone, Debug)]
pub struct ReplicaAnswer {
    /// Which.
    pub replica: ReplicaId,
    /// Its state at the cut; `None` only when its node reports it as diverged and it therefore keeps none.
    pub state: Option<InspectReply>,
    /// Its node itself reports that it differed from the owner at some time.
    pub reported: bool,
}

/// The verdict. The first seven fields are stable; scripts rely on them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Regions that were looked at.
    pub regions: u64,
    /// Their replicas, all of them.
    pub replicas: u64,
    /// Replicas that differ from their region's majority.
    pub divergent: u64,
    /// Distinct items present.
    pub items: u64,
    /// Items that are present more than once.
    pub duplicated_items: u64,
    /// Items that were minted, never destroyed, and are nowhere.
    pub missing_items: u64,
    /// Characters that are present more than once.
    pub characters_in_two_places: u64,
    /// Items that are present although nothing minted them.
    pub unexplained_items: u64,
    /// Distinct characters present.
    pub characters: u64,
    /// Characters that the directory knows and that are nowhere.
    pub characters_missing: u64,
    /// Items that were on their way between groups. They are among those present.
    pub items_in_flight: u64,
    /// Characters that were on their way between groups. They are among those present.
    pub characters_in_flight: u64,
    /// Replicas of vaults and of the directory that were looked at. Those of a build that shows none are left out.
    pub other_replicas: u64,
    /// Replicas whose nodes report that they differed from an owner at some time. They count as divergent only if they differ
    /// from the majority now: perhaps it was the owner that was wrong, perhaps they were rebuilt.
    pub reported: u64,
    /// Commands that are applied, over all sessions.
    pub applied_commands: u64,
    /// Which replicas differ, and in what.
    pub divergences: Vec<Divergence>,
    /// Which items are doubled: at most [`LISTED_MAX`] of them.
    pub duplicated_item_ids: Vec<u64>,
    /// Which characters are doubled: at most [`LISTED_MAX`] of them.
    pub doubled_character_ids: Vec<u64>,
    /// Which characters are missing: at most [`LISTED_MAX`] of them.
    pub missing_character_ids: Vec<u64>,
}

/// Ids that a report lists of each kind.
pub const LISTED_MAX: usize = 100;

/// A replica that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    /// Its group.
    pub group: String,
    /// Which.
    pub replica: String,
    /// What differs: components of the state by name, or what the answer as a whole says (`items`, `sessions`, …).
    pub components: Vec<String>,
}

impl VerifyReport {
    /// Whether something is nowhere.
    #[must_use]
    pub fn lacks_something(&self) -> bool {
        self.missing_items > 0 || self.characters_missing > 0
    }

    /// Whether nothing is wrong. A report over no replicas proves nothing and is not sound.
    #[must_use]
    pub fn sound(&self) -> bool {
        self.replicas > 0
            && self.divergent == 0
            && self.duplicated_items == 0
            && self.missing_items == 0
            && self.unexplained_items == 0
            && self.characters_in_two_places == 0
            && self.characters_missing == 0
    }
}

/// Judges a whole world, all of its groups at one cut.
#[must_use]
pub fn judge(groups: &[GroupAnswers]) -> VerifyReport {
    let mut report = VerifyReport::default();
    let mut accepted: BTreeMap<GroupId, &InspectReply> = BTreeMap::new();
    for answers in groups {
        let looked_at = answers.replicas.len() as u64;
        match answers.group.kind() {
            Some(GroupKind::Region) => {
                report.regions += 1;
                report.replicas += looked_at;
            }
            _ => report.other_replicas += looked_at,
        }
        if let Some(state) = agree(answers, &mut report) {
            accepted.insert(answers.group, state);
        }
    }
    let (mut items, mut characters) = (BTreeMap::<u64, u64>::new(), BTreeMap::<u64, u64>::new());
    let (mut known, mut minted_and_kept) = (BTreeSet::new(), 0_i128);
    for (group, state) in &accepted {
        state.items.iter().for_each(|item| *items.entry(*item).or_default() += 1);
        match group.kind() {
            Some(GroupKind::Directory) => known.extend(&state.characters),
            _ => state.characters.iter().for_each(|character| *characters.entry(*character).or_default() += 1),
        }
        for message in state.in_flight.iter().filter(|message| is_on_its_way(*group, message, &accepted)) {
            report.items_in_flight += message.items.len() as u64;
            report.characters_in_flight += message.characters.len() as u64;
            message.items.iter().for_each(|item| *items.entry(*item).or_default() += 1);
            message.characters.iter().for_each(|character| *characters.entry(*character).or_default() += 1);
        }
        minted_and_kept += i128::from(state.items_minted) - i128::from(state.items_destroyed);
        let applied = state.sessions.iter().map(|session| session.applied_seq);
        report.applied_commands = applied.fold(report.applied_commands, u64::saturating_add);
    }
    let doubled = |counts: &BTreeMap<u64, u64>| counts.iter().filter(|(_, n)| **n > 1).map(|(id, _)| *id).collect::<Vec<_>>();
    let (duplicated_items, doubled_characters) = (doubled(&items), doubled(&characters));
    let missing_characters: Vec<u64> = known.into_iter().filter(|id| !characters.contains_key(id)).collect();
    let surplus = items.len() as i128 - minted_and_kept;
    let count = |n: i128| u64::try_from(n.max(0)).unwrap_or(u64::MAX);
    report.items = items.len() as u64;
    report.characters = characters.len() as u64;
    report.missing_items = count(-surplus);
    report.unexplained_items = count(surplus);
    report.duplicated_items = duplicated_items.len() as u64;
    report.characters_in_two_places = doubled_characters.len() as u64;
    report.characters_missing = missing_characters.len() as u64;
    report.duplicated_item_ids = duplicated_items.into_iter().take(LISTED_MAX).collect();
    report.doubled_character_ids = doubled_characters.into_iter().take(LISTED_MAX).collect();
    report.missing_character_ids = missing_characters.into_iter().take(LISTED_MAX).collect();
    report
}

/// The state that a group is taken to have; which of its replicas differ goes into the report.
fn agree<'a>(answers: &'a GroupAnswers, report: &mut VerifyReport) -> Option<&'a InspectReply> {
    let Some(accepted) = majority(&answers.replicas) else {
        // Nobody has a state to show: all of them are wrong.
        report.divergent += answers.replicas.len() as u64;
        report.divergences.extend(answers.replicas.iter().map(|r| divergence(answers.group, r, vec!["state".into()])));
        return None;
    };
    for replica in &answers.replicas {
        report.reported += u64::from(replica.reported);
        let components = replica.state.as_ref().map_or(vec!["state".into()], |state| differences(state, accepted));
        if !components.is_empty() {
            report.divergent += 1;
            report.divergences.push(divergence(answers.group, replica, components));
        }
    }
    Some(accepted)
}

/// Whether a message that waits in an outbox was not taken at the cut. Nothing is known of a receiver that was not looked at: what it has
/// is not counted, so what is for it is.
fn is_on_its_way(from: GroupId, message: &InFlight, accepted: &BTreeMap<GroupId, &InspectReply>) -> bool {
    let Some(receiver) = accepted.get(&GroupId(message.to_group)) else { return true };
    let taken = receiver.taken.iter().filter(|taken| taken.from_group == from.0).map(|taken| taken.seq).max();
    message.seq > taken.unwrap_or(0)
}

fn divergence(group: GroupId, replica: &ReplicaAnswer, components: Vec<String>) -> Divergence {
    Divergence { group: group.to_string(), replica: replica.replica.to_string(), components }
}

/// The state that most replicas have; of equally many, the one that was named first. What nodes report of themselves has no
/// weight here: when the owner is the odd one, it is the others that find themselves to differ from it.
fn majority(replicas: &[ReplicaAnswer]) -> Option<&InspectReply> {
    let states: Vec<_> = replicas.iter().filter_map(|replica| replica.state.as_ref()).collect();
    let agreeing = |state: &InspectReply| states.iter().filter(|other| differences(other, state).is_empty()).count();
    // Reversed: of equal ones, `max_by_key` returns the last.
    states.iter().rev().max_by_key(|state| agreeing(state)).copied()
}

/// What differs between two answers for the same cut, by name. Empty: nothing.
fn differences(found: &InspectReply, expected: &InspectReply) -> Vec<String> {
    let hashes = |reply: &InspectReply| reply.components.iter().map(|c| (c.name.clone(), c.hash)).collect::<BTreeMap<_, _>>();
    let (ours, theirs) = (hashes(found), hashes(expected));
    let names: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let mut differing: Vec<String> = names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name)).cloned().collect();
    let mut also = |differs: bool, name: &str| {
        if differs {
            differing.push(name.to_owned());
        }
    };
    also(found.index != expected.index, "log index of the cut");
    also(found.tick != expected.tick, "tick");
    also(found.state_hash != expected.state_hash, "state hash");
    also(sorted(&found.items) != sorted(&expected.items), "list of items");
    also(sorted(&found.characters) != sorted(&expected.characters), "list of characters");
    also((found.items_minted, found.items_destroyed) != (expected.items_minted, expected.items_destroyed), "ledger of items");
    also(sessions(found) != sessions(expected), "sessions as listed");
    also(on_the_way(found) != on_the_way(expected), "messages in flight");
    also(taken(found) != taken(expected), "messages taken");
    differing
}

fn sorted(ids: &[u64]) -> Vec<u64> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids
}

fn sessions(reply: &InspectReply) -> BTreeMap<u64, &SessionSummary> {
    reply.sessions.iter().map(|session| (session.character, session)).collect()
}

fn on_the_way(reply: &InspectReply) -> BTreeMap<(u64, u64), &InFlight> {
    reply.in_flight.iter().map(|message| ((message.to_group, message.seq), message)).collect()
}

fn taken(reply: &InspectReply) -> BTreeMap<u64, u64> {
    reply.taken.iter().map(|taken| (taken.from_group, taken.seq)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use marchland_proto::cluster::{ComponentHash, Taken};
    use marchland_types::{Incarnation, NodeId, RegionId, WorldId};

    fn state(items: &[u64], characters: &[u64]) -> InspectReply {
        InspectReply {
            index: 90,
            tick: 80,
            state_hash: 7,
            items: items.to_vec(),
            characters: characters.to_vec(),
            items_minted: items.len() as u64 + 2,
            items_destroyed: 2,
            components: vec![ComponentHash { name: "position".into(), hash: 5 }, ComponentHash { name: "items".into(), hash: 6 }],
            sessions: characters
                .iter()
                .map(|c| SessionSummary { character: *c, applied_seq: 10, ..SessionSummary::default() })
                .collect(),
            ..InspectReply::default()
        }
    }

    fn region(serial: u32, states: Vec<InspectReply>) -> GroupAnswers {
        let replicas = states.into_iter().enumerate().map(|(i, state)| ReplicaAnswer {
            replica: ReplicaId::new(NodeId(i as u32 + 1), Incarnation(1)),
            state: Some(state),
            reported: false,
        });
        GroupAnswers { group: GroupId::region(WorldId(1), RegionId(serial)), replicas: replicas.collect() }
    }

    fn three(state: &InspectReply) -> Vec<InspectReply> {
        vec![state.clone(); 3]
    }

    #[test]
    fn a_sound_world_is_sound() {
        let report = judge(&[region(1, three(&state(&[1, 2, 3], &[9]))), region(2, three(&state(&[4], &[8])))]);
        assert!(report.sound(), "{report:?}");
        assert_eq!((report.regions, report.replicas, report.items, report.characters), (2, 6, 4, 2));
        assert_eq!(report.applied_commands, 20);
        assert!(!judge(&[]).sound(), "nothing was looked at");
    }

    #[test]
    fn a_planted_divergence_is_named_with_its_component() {
        let good = state(&[1, 2], &[9]);
        let mut bad = good.clone();
        bad.components[0].hash += 1;
        for at in 0..3 {
            let mut states = three(&good);
            states[at] = bad.clone();
            let report = judge(&[region(1, states)]);
            assert_eq!((report.divergent, report.divergences.len()), (1, 1));
            assert_eq!(report.divergences[0].replica, format!("{}.1", at + 1));
            assert_eq!(report.divergences[0].components, ["position"]);
            assert!(!report.sound());
        }
    }

    #[test]
    fn equal_hashes_do_not_hide_other_lists_or_another_index() {
        let good = state(&[1, 2], &[9]);
        type Planted = (&'static str, fn(&mut InspectReply));
        let planted: [Planted; 7] = [
            ("messages in flight", |s| s.in_flight.push(InFlight::default())),
            ("messages taken", |s| s.taken.push(Taken { from_group: 1, seq: 1 })),
            ("list of items", |s| s.items[0] = 77),
            ("list of characters", |s| s.characters.push(3)),
            ("sessions as listed", |s| s.sessions[0].applied_seq -= 1),
            ("ledger of items", |s| s.items_minted += 1),
            ("log index of the cut", |s| s.index += 1),
        ];
        for (name, plant) in planted {
            let mut states = three(&good);
            plant(&mut states[2]);
            assert_eq!(judge(&[region(1, states)]).divergences[0].components, [name]);
        }
        // The order of a list is not part of what it says.
        let mut states = three(&good);
        states[1].items.reverse();
        assert!(judge(&[region(1, states)]).sound());
    }

    #[test]
    fn duplicates_are_found_within_and_between_regions() {
        let mut twice = state(&[1, 2, 3], &[]);
        twice.items.push(3);
        let report = judge(&[region(1, three(&twice))]);
        assert_eq!((report.items, report.duplicated_items, report.missing_items), (3, 1, 0));
        assert_eq!(report.duplicated_item_ids, [3]);
        assert!(!report.sound());
        let report = judge(&[region(1, three(&state(&[1, 2], &[5]))), region(2, three(&state(&[2, 4], &[5])))]);
        assert_eq!((report.duplicated_items, report.characters_in_two_places), (1, 1));
        // The same id twice, one ledger entry each: one of the two that were minted is gone.
        assert_eq!(report.missing_items, 1);
        assert_eq!(report.doubled_character_ids, [5]);
    }

    #[test]
    fn missing_and_unexplained_items_are_counted_against_the_ledger() {
        let mut lost = state(&[1, 2, 3], &[]);
        lost.items.pop();
        let report = judge(&[region(1, three(&lost))]);
        assert_eq!((report.missing_items, report.unexplained_items, report.sound()), (1, 0, false));
        let mut forged = state(&[1, 2, 3], &[]);
        forged.items.push(99);
        let report = judge(&[region(1, three(&forged))]);
        assert_eq!((report.missing_items, report.unexplained_items, report.sound()), (0, 1, false));
        // An item that crossed the border is in another region than the one that minted it.
        let (mut from, mut to) = (state(&[1, 2], &[]), state(&[3], &[]));
        to.items.push(from.items.pop().unwrap());
        assert!(judge(&[region(1, three(&from)), region(2, three(&to))]).sound());
    }

    fn group(serial: u32) -> GroupId {
        GroupId::region(WorldId(1), RegionId(serial))
    }

    /// Character 5 with item 2 goes from region 1 to region 2, in message 7, which region 2 has taken up to this one.
    fn crossing(taken: u64) -> [InspectReply; 2] {
        let (mut from, mut to) = (state(&[1, 2], &[4, 5]), state(&[3], &[6]));
        from.items.retain(|item| *item != 2);
        from.characters.retain(|character| *character != 5);
        from.in_flight =
            vec![InFlight { to_group: group(2).0, seq: 7, items: vec![2], characters: vec![5], ..InFlight::default() }];
        to.taken = vec![Taken { from_group: group(1).0, seq: taken }, Taken { from_group: group(9).0, seq: 99 }];
        if taken >= 7 {
            to.items.push(2);
            to.characters.push(5);
        }
        [from, to]
    }

    #[test]
    fn what_is_between_two_regions_is_present_once() {
        for (taken, in_flight) in [(6, 1), (7, 0), (8, 0)] {
            let [from, to] = crossing(taken);
            let report = judge(&[region(1, three(&from)), region(2, three(&to))]);
            assert!(report.sound(), "{report:?}");
            assert_eq!((report.items, report.characters), (3, 3));
            assert_eq!((report.items_in_flight, report.characters_in_flight), (in_flight, in_flight));
        }
        // A receiver that nobody looked at.
        let [from, _] = crossing(0);
        assert!(judge(&[region(1, three(&from))]).sound());
    }

    #[test]
    fn what_a_handoff_loses_or_doubles_is_found() {
        // Taken, and not there.
        let [from, mut to] = crossing(6);
        to.taken[0].seq = 7;
        let report = judge(&[region(1, three(&from)), region(2, three(&to))]);
        assert_eq!((report.missing_items, report.characters_in_two_places, report.sound()), (1, 0, false));
        // There before it was taken.
        let [from, mut to] = crossing(7);
        to.taken[0].seq = 6;
        let report = judge(&[region(1, three(&from)), region(2, three(&to))]);
        assert_eq!((report.duplicated_items, report.characters_in_two_places, report.sound()), (1, 1, false));
        // Posted, and still there.
        let [mut from, to] = crossing(6);
        from.characters.push(5);
        let report = judge(&[region(1, three(&from)), region(2, three(&to))]);
        assert_eq!((report.doubled_character_ids, report.characters), (vec![5], 3));
    }

    #[test]
    fn whom_the_directory_knows_must_be_somewhere() {
        let directory = |characters: &[u64]| GroupAnswers {
            group: GroupId::directory(WorldId(1)),
            ..region(1, vec![InspectReply { characters: characters.to_vec(), ..InspectReply::default() }])
        };
        let vault = GroupAnswers {
            group: GroupId::new(GroupKind::Vault, WorldId(1), 1),
            ..region(1, vec![InspectReply { characters: vec![8], items: vec![9], ..InspectReply::default() }])
        };
        let [from, mut to] = crossing(6);
        to.items_minted += 1;
        let world = |known: &[u64]| judge(&[region(1, three(&from)), region(2, three(&to)), directory(known), vault.clone()]);
        let report = world(&[4, 5, 6, 8]);
        assert!(report.sound(), "{report:?}");
        assert_eq!((report.regions, report.replicas, report.other_replicas, report.items), (2, 6, 2, 4));
        let report = world(&[4, 5, 6, 7, 8]);
        assert_eq!((report.characters_missing, report.missing_character_ids.as_slice(), report.sound()), (1, &[7][..], false));
    }

    #[test]
    fn a_replica_without_a_state_is_divergent_and_the_majority_outvotes_an_odd_owner() {
        let mut answers = region(1, three(&state(&[1], &[])));
        answers.replicas[0].reported = true;
        answers.replicas[0].state = None;
        let report = judge(&[answers]);
        assert_eq!((report.divergent, report.reported, report.items), (1, 1, 1));
        // The owner, 1.1, is odd: the others report themselves, but are right.
        let mut states = three(&state(&[1], &[]));
        states[0].state_hash += 1;
        let mut answers = region(1, states);
        answers.replicas[1].reported = true;
        answers.replicas[2].reported = true;
        let report = judge(&[answers]);
        assert_eq!((report.divergent, report.reported), (1, 2));
        assert_eq!(report.divergences[0].replica, "1.1");
    }

    #[test]
    fn rubbish_counters_do_not_overflow() {
        let mut wild = state(&[], &[1, 2]);
        (wild.items_minted, wild.items_destroyed) = (u64::MAX, 0);
        wild.sessions.iter_mut().for_each(|s| s.applied_seq = u64::MAX);
        let report = judge(&[region(1, vec![wild.clone()]), region(2, vec![wild])]);
        assert_eq!(report.missing_items, u64::MAX);
    }
}
