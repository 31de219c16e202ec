//! Takes one cut of a whole world and asks every replica for it.
//!
//! ```text
//! status of every node ──> groups, their owners, their replicas
//! owner of each group  ──> the highest cut so far; then one cut above it, with one number everywhere
//! every replica        ──> its state at the cut, asked again while it has not come so far
//! ```
//! Owners change and nodes restart meanwhile: an attempt that fails for such a reason is made anew until the time is over. A loss is
//! looked at once more, at another cut: what is lost stays lost.
//!
//! Regions must answer. Vaults and the directory are looked at where they show their state; so is the realm, if the nodes that were asked
//! are all of its hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use marchland_proto::codes::Code;
use marchland_types::{CutNumber, GroupId, GroupKind, NodeId, ReplicaId};
use tokio::time::{Instant, sleep};

use super::judge::{GroupAnswers, ReplicaAnswer, VerifyReport, judge};
use crate::client::{AdminCluster, AdminNode, CallError};

/// Pause before a replica or an owner is asked again.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest time that one attempt waits for replicas to reach the cut.
const REACH_WITHIN: Duration = Duration::from_secs(10);
/// Groups that are asked at a time: the shorter it takes, the less is on the way between one's cut and another's.
const ASKED_AT_ONCE: usize = 32;
/// How often a cut is begun anew because somebody else takes cuts as well.
const CUT_ATTEMPTS: usize = 4;
/// How often a loss is looked at again.
const LOOKS_AT_LOSS: usize = 2;

/// Outcomes of `Inspect`, as the schema numbers them.
const INSPECTED: u32 = 0;
const NO_SUCH_REPLICA: u32 = 1;
const NOT_REACHED: u32 = 2;

/// Why there is no verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A node did not answer, or refused.
    #[error(transparent)]
    Call(#[from] CallError),
    /// No node has a region.
    #[error("the cluster has no region")]
    NoRegion,
    /// Nobody owns the region, or leads the directory or vault.
    #[error("{group} has no owner at the moment")]
    NoOwner {
        /// Which.
        group: GroupId,
    },
    /// The owner could not take the cut.
    #[error("{group} took no cut: code {code}, {reason}")]
    NoCut {
        /// Which.
        group: GroupId,
        /// Its answer.
        code: u32,
        /// What it says.
        reason: String,
    },
    /// A replica has no state to show.
    #[error("replica {replica} of {group} can not be looked at: {reason}")]
    NoReplica {
        /// Its group.
        group: GroupId,
        /// Which.
        replica: ReplicaId,
        /// Why.
        reason: String,
    },
}

/// A group as its owner describes it.
#[derive(Clone)]
struct Described {
    owner: NodeId,
    replicas: BTreeSet<ReplicaId>,
}

/// What is known of the cluster in one attempt.
struct Survey<'a> {
    nodes: BTreeMap<NodeId, &'a AdminNode>,
    groups: BTreeMap<GroupId, Described>,
    /// Replicas that exist on the nodes, with whether they are reported as diverged and what stopped them.
    present: BTreeMap<(GroupId, ReplicaId), (bool, String)>,
}

/// Looks at every replica of every group, at one cut. Gives up after `within`, with the last reason.
pub async fn verify(cluster: &AdminCluster, within: Duration) -> Result<VerifyReport, VerifyError> {
    let end = Instant::now() + within;
    let mut looks = 0;
    loop {
        let error = match attempt(cluster, end).await {
            Ok(report) if report.lacks_something() && looks < LOOKS_AT_LOSS && Instant::now() + PAUSE < end => {
                looks += 1;
                sleep(PAUSE).await;
                continue;
            }
            Ok(report) => return Ok(report),
            Err(error) => error,
        };
        let refused = matches!(error, VerifyError::Call(CallError::Refused { .. }));
        if refused || Instant::now() + PAUSE >= end {
            return Err(error);
        }
        tracing::debug!(%error, "verify: once more");
        sleep(PAUSE).await;
    }
}

async fn attempt(cluster: &AdminCluster, end: Instant) -> Result<VerifyReport, VerifyError> {
    let mut survey = survey(cluster).await?;
    let cut = take_one_cut(&mut survey).await?;
    let end = end.min(Instant::now() + REACH_WITHIN);
    let answers = futures::stream::iter(&survey.groups)
        .map(|(group, described)| look_at_group(&survey, *group, described, cut, end))
        .buffered(ASKED_AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    Ok(judge(&answers))
}

async fn survey(cluster: &AdminCluster) -> Result<Survey<'_>, VerifyError> {
    let mut survey = Survey { nodes: BTreeMap::new(), groups: BTreeMap::new(), present: BTreeMap::new() };
    let (mut seen, mut realm_hosts) = (BTreeSet::new(), BTreeSet::new());
    for node in &cluster.nodes {
        let status = node.status().await?;
        survey.nodes.insert(NodeId(status.node), node);
        for replica in status.groups {
            let group = GroupId(replica.group);
            let owned = match group.kind() {
                Some(GroupKind::Region) => replica.owner,
                Some(GroupKind::Realm | GroupKind::Directory | GroupKind::Vault) => replica.role == "leader",
                Some(GroupKind::Service | GroupKind::Bench) | None => continue,
            };
            seen.insert(group);
            if group == GroupId::realm() {
                realm_hosts.extend(replica.voters.iter().chain(&replica.learners).map(|id| ReplicaId(*id).node()));
            }
            survey.present.insert((group, ReplicaId(replica.replica)), (replica.diverged, replica.fault));
            if owned {
                let replicas = replica.voters.iter().chain(&replica.learners).map(|id| ReplicaId(*id)).collect();
                survey.groups.insert(group, Described { owner: NodeId(status.node), replicas });
            }
        }
    }
    if !seen.iter().any(|group| group.kind() == Some(GroupKind::Region)) {
        return Err(VerifyError::NoRegion);
    }
    // Its replicas may be on nodes of worlds that nobody asks for.
    if !realm_hosts.iter().all(|host| survey.nodes.contains_key(host)) {
        seen.remove(&GroupId::realm());
        survey.groups.remove(&GroupId::realm());
    }
    // A vault without a leader is no vault without characters: what is in it would be missed.
    match seen.iter().find(|group| !survey.groups.contains_key(group)) {
        Some(group) => Err(VerifyError::NoOwner { group: *group }),
        None => Ok(survey),
    }
}

/// One fresh cut with one number in every group: above the highest that any of them has taken. Groups that show no state are left out.
async fn take_one_cut(survey: &mut Survey<'_>) -> Result<CutNumber, VerifyError> {
    // The first cut of all is asked for: whoever has taken it answers with the highest that it has.
    let known = take_everywhere(survey, CutNumber(1)).await?;
    survey.groups.retain(|group, _| known.contains_key(group));
    let mut highest = known.into_values().max().unwrap_or_default();
    for _ in 0..CUT_ATTEMPTS {
        let asked = highest.next();
        let taken = take_everywhere(survey, asked).await?;
        match taken.iter().find(|(_, cut)| **cut != asked) {
            None => return Ok(asked),
            Some((_, other)) => {
                tracing::debug!(%asked, %other, "verify: another tool takes cuts, too");
                highest = taken.into_values().max().unwrap_or(highest);
            }
        }
    }
    let group = survey.groups.keys().next().copied().unwrap_or_default();
    let reason = format!("cut {highest} was taken by another tool, again and again");
    Err(VerifyError::NoCut { group, code: Code::Ok as u32, reason })
}

/// Has every group take this cut, and says the highest that each has taken then.
async fn take_everywhere(survey: &Survey<'_>, number: CutNumber) -> Result<BTreeMap<GroupId, CutNumber>, VerifyError> {
    let asked = futures::stream::iter(&survey.groups).map(|(group, described)| async move {
        let taken = match take_cut(survey, *group, described.owner, number).await {
            // Its own leader says that there is nothing to look at.
            Err(VerifyError::NoCut { code, .. }) if code == Code::NotLeader as u32 && group.kind() != Some(GroupKind::Region) => {
                None
            }
            taken => Some(taken?),
        };
        Ok(taken.map(|taken| (*group, taken)))
    });
    asked.buffered(ASKED_AT_ONCE).try_filter_map(|taken| async move { Ok(taken) }).try_collect().await
}

/// Asks the owner; when another replica leads by now, that one, once.
async fn take_cut(survey: &Survey<'_>, group: GroupId, owner: NodeId, number: CutNumber) -> Result<CutNumber, VerifyError> {
    let mut asked = owner;
    for _ in 0..2 {
        let Some(node) = survey.nodes.get(&asked) else { return Err(VerifyError::NoOwner { group }) };
        let reply = node.take_cut(group, number).await?;
        match Code::from_u32(reply.code) {
            Some(Code::Ok) => return Ok(CutNumber(reply.number)),
            Some(Code::NotLeader) if reply.leader != 0 => asked = ReplicaId(reply.leader).node(),
            _ => return Err(VerifyError::NoCut { group, code: reply.code, reason: reply.reason }),
        }
    }
    Err(VerifyError::NoOwner { group })
}

async fn look_at_group(
    survey: &Survey<'_>,
    group: GroupId,
    described: &Described,
    cut: CutNumber,
    end: Instant,
) -> Result<GroupAnswers, VerifyError> {
    let mut replicas = Vec::new();
    for replica in &described.replicas {
        replicas.push(look_at(survey, group, *replica, cut, end).await?);
    }
    Ok(GroupAnswers { group, replicas })
}

async fn look_at(
    survey: &Survey<'_>,
    group: GroupId,
    replica: ReplicaId,
    cut: CutNumber,
    end: Instant,
) -> Result<ReplicaAnswer, VerifyError> {
    let unseen = |reason: String| VerifyError::NoReplica { group, replica, reason };
    let (node, (reported, fault)) = match (survey.nodes.get(&replica.node()), survey.present.get(&(group, replica))) {
        (Some(node), Some(present)) => (node, present),
        (None, _) => return Err(unseen(format!("node {} was not asked", replica.node()))),
        (_, None) => return Err(unseen(format!("node {} does not have it", replica.node()))),
    };
    loop {
        let reply = node.inspect(group, cut).await?;
        match reply.code {
            INSPECTED => return Ok(ReplicaAnswer { replica, state: Some(reply), reported: *reported }),
            // One that is merely late is waited for, also when it is reported: perhaps it was the owner that was wrong.
            NOT_REACHED if fault.is_empty() && Instant::now() + PAUSE < end => sleep(PAUSE).await,
            // It was found out and waits to be rebuilt: it has no state at this cut, and needs none to be wrong.
            NO_SUCH_REPLICA | NOT_REACHED if *reported => return Ok(ReplicaAnswer { replica, state: None, reported: true }),
            NOT_REACHED if fault.is_empty() => return Err(unseen(format!("has not reached cut {cut}"))),
            NOT_REACHED => return Err(unseen(format!("has stopped: {fault}"))),
            code => return Err(unseen(format!("code {code}, {}", reply.reason))),
        }
    }
}
