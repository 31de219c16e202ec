//! Puts new replicas into the place of lost ones.
//!
//! Every node runs this. It acts in the groups that its replica leads, one step at a time
//! ([`next_replacement`]), from the newest incarnations that this node's directory knows: nothing is remembered here, so a
//! leader that dies half-way is followed by one that goes on. A directory that is behind only makes it act later, for
//! incarnations never go back.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use marchland_raft::{Group, ProposeError, RaftNode, Replacement, next_replacement};
use marchland_types::GroupId;
use tokio::time::{Instant, sleep_until, timeout};

use crate::registry::Registry;

/// Between two looks at the groups.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Groups at rest are looked at so many times more rarely, each at its own turn, unless something is new.
const LOOKS_AT_REST: usize = 50;
/// How long one step is waited for. It is not withdrawn: the next look finds it done, or under way.
const STEP_WITHIN: Duration = Duration::from_secs(10);

/// Keeps the members of every group that is led here at the newest replicas of their nodes. Runs until it is dropped.
pub async fn keep_members(raft: RaftNode, registry: Registry) {
    // What was said last about a group, so that waiting is told once.
    let mut said: BTreeMap<GroupId, Replacement> = BTreeMap::new();
    let mut news = registry.news();
    for look in 0.. {
        let next_look = Instant::now() + LOOK_EVERY;
        let is_news = news.has_changed().unwrap_or(false);
        news.mark_unchanged();
        let mut steps = Vec::new();
        for (place, group) in raft.groups().iter().enumerate() {
            // There may be a thousand of them, and hardly ever anything to do.
            let is_turn = || is_news || (place + look).is_multiple_of(LOOKS_AT_REST);
            let goes_on = || said.get(&group.id()).is_some_and(|said| *said != Replacement::None);
            if group.is_at_rest() && !is_turn() && !goes_on() {
                continue;
            }
            let step = next_replacement(&group.status(), |node| registry.newest(node));
            let before = said.insert(group.id(), step.clone());
            let new = before.as_ref() != Some(&step);
            match step {
                Replacement::None => {}
                Replacement::Wait(reason) => {
                    if new {
                        tracing::warn!(group = %group.id(), %reason, "a lost replica is not replaced yet");
                    }
                }
                step => steps.push(perform(group.clone(), step, new)),
            }
        }
        join_all(steps).await;
        let open = raft.groups();
        said.retain(|id, _| open.binary_search_by_key(id, Group::id).is_ok());
        sleep_until(next_look).await;
    }
}

async fn perform(group: Group, step: Replacement, new: bool) {
    let done = timeout(STEP_WITHIN, take(&group, &step)).await;
    match done {
        Ok(Ok(())) => {
            tracing::warn!(group = %group.id(), ?step, "members of a group change: a data folder was lost or replaced");
            if matches!(step, Replacement::ChangeVoters(_)) {
                metrics::counter!("marchland_replicas_replaced_total", "group" => group.id().to_string()).increment(1);
            }
        }
        Ok(Err(error)) if new => tracing::warn!(group = %group.id(), ?step, %error, "members not changed; tried again"),
        Err(_) if new => tracing::warn!(group = %group.id(), ?step, "members not changed within {STEP_WITHIN:?}; tried again"),
        Ok(Err(_)) | Err(_) => {}
    }
}

async fn take(group: &Group, step: &Replacement) -> Result<(), ProposeError> {
    match step {
        Replacement::None | Replacement::Wait(_) => Ok(()),
        Replacement::AddLearner(replica) => group.add_learner(*replica).await,
        Replacement::ChangeVoters(voters) => group.change_voters(voters).await,
        Replacement::Remove(replica) => group.remove(*replica).await,
    }
}
