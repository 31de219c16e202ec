//! The verdict on what replicas answered. Pure.
//!
//! Within a region, whatever most replicas say is taken for its state; a replica that says anything else is divergent. Items
//! and characters are then counted over the whole world:
//!
//! ```text
//! missing     = minted − destroyed − distinct items present     (when positive)
//! unexplained = distinct items present − minted + destroyed     (when positive)
//! duplicated  = items present more than once
//! ```

use std::collections::{BTreeMap, BTreeSet};

use marchland_proto::cluster::{InspectReply, SessionSummary};
use marchland_types::{GroupId, ReplicaId};
use serde::{Deserialize, Serialize};

/// What the replicas of one region answered for one cut.
#[derive(Clone, Debug)]
pub struct RegionAnswers {
    /// The region's group.
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
    /// Whether nothing is wrong. A report over no replicas proves nothing and is not sound.
    #[must_use]
    pub fn sound(&self) -> bool {
        self.replicas > 0
            && self.divergent == 0
            && self.duplicated_items == 0
            && self.missing_items == 0
            && self.unexplained_items == 0
            && self.characters_in_two_places == 0
    }
}

/// Judges a whole world, all of its regions at one cut.
#[must_use]
pub fn judge(regions: &[RegionAnswers]) -> VerifyReport {
    let mut report = VerifyReport { regions: regions.len() as u64, ..VerifyReport::default() };
    let (mut items, mut characters) = (BTreeMap::<u64, u64>::new(), BTreeMap::<u64, u64>::new());
    let mut minted_and_kept = 0_i128;
    for region in regions {
        report.replicas += region.replicas.len() as u64;
        let Some(accepted) = majority(&region.replicas) else {
            // Nobody has a state to show: all of them are wrong.
            report.divergent += region.replicas.len() as u64;
            report.divergences.extend(region.replicas.iter().map(|r| divergence(region.group, r, vec!["state".into()])));
            continue;
        };
        for replica in &region.replicas {
            report.reported += u64::from(replica.reported);
            let components = replica.state.as_ref().map_or(vec!["state".into()], |state| differences(state, accepted));
            if !components.is_empty() {
                report.divergent += 1;
                report.divergences.push(divergence(region.group, replica, components));
            }
        }
        accepted.items.iter().for_each(|item| *items.entry(*item).or_default() += 1);
        accepted.characters.iter().for_each(|character| *characters.entry(*character).or_default() += 1);
        minted_and_kept += i128::from(accepted.items_minted) - i128::from(accepted.items_destroyed);
        let applied = accepted.sessions.iter().map(|session| session.applied_seq);
        report.applied_commands = applied.fold(report.applied_commands, u64::saturating_add);
    }
    let doubled = |counts: &BTreeMap<u64, u64>| counts.iter().filter(|(_, n)| **n > 1).map(|(id, _)| *id).collect::<Vec<_>>();
    let (duplicated_items, doubled_characters) = (doubled(&items), doubled(&characters));
    let surplus = items.len() as i128 - minted_and_kept;
    let count = |n: i128| u64::try_from(n.max(0)).unwrap_or(u64::MAX);
    report.items = items.len() as u64;
    report.characters = characters.len() as u64;
    report.missing_items = count(-surplus);
    report.unexplained_items = count(surplus);
    report.duplicated_items = duplicated_items.len() as u64;
    report.characters_in_two_places = doubled_characters.len() as u64;
    report.duplicated_item_ids = duplicated_items.into_iter().take(LISTED_MAX).collect();
    report.doubled_character_ids = doubled_characters.into_iter().take(LISTED_MAX).collect();
    report
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

#[cfg(test)]
mod tests {
    use super::*;
    use marchland_proto::cluster::ComponentHash;
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

    fn region(serial: u32, states: Vec<InspectReply>) -> RegionAnswers {
        let replicas = states.into_iter().enumerate().map(|(i, state)| ReplicaAnswer {
            replica: ReplicaId::new(NodeId(i as u32 + 1), Incarnation(1)),
            state: Some(state),
            reported: false,
        });
        RegionAnswers { group: GroupId::region(WorldId(1), RegionId(serial)), replicas: replicas.collect() }
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
        let planted: [Planted; 5] = [
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
