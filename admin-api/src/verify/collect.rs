//! Takes a cut of every region and asks every replica for it.
//!
//! ```text
//! status of every node ──> regions, their owners, their replicas
//! owner of each region ──> cut, fresh in all of them: the next number; where that is lower than another's, the highest
//! every replica        ──> its state at the cut, asked again while it has not come so far
//! ```
//! Owners change and nodes restart meanwhile: an attempt that fails for such a reason is made anew until the time is over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use marchland_proto::codes::Code;
use marchland_types::{CutNumber, GroupId, GroupKind, NodeId, ReplicaId};
use tokio::time::{Instant, sleep};

use super::judge::{RegionAnswers, ReplicaAnswer, VerifyReport, judge};
use crate::client::{AdminCluster, AdminNode, CallError};

/// Pause before a replica or an owner is asked again.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest time that one attempt waits for replicas to reach the cut.
const REACH_WITHIN: Duration = Duration::from_secs(10);

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
    /// Nobody owns the region.
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

/// A region as its owner describes it.
struct Region {
    owner: NodeId,
    replicas: BTreeSet<ReplicaId>,
}

/// What is known of the cluster in one attempt.
struct Survey<'a> {
    nodes: BTreeMap<NodeId, &'a AdminNode>,
    regions: BTreeMap<GroupId, Region>,
    /// Replicas that exist on the nodes, with whether they are reported as diverged and what stopped them.
    present: BTreeMap<(GroupId, ReplicaId), (bool, String)>,
}

/// Looks at every replica of every region, at one cut. Gives up after `within`, with the last reason.
pub async fn verify(cluster: &AdminCluster, within: Duration) -> Result<VerifyReport, VerifyError> {
    let end = Instant::now() + within;
    loop {
        let error = match attempt(cluster, end).await {
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
    let survey = survey(cluster).await?;
    let cuts = take_cuts(&survey).await?;
    let end = end.min(Instant::now() + REACH_WITHIN);
    let mut answers = Vec::new();
    for (group, region) in &survey.regions {
        let mut replicas = Vec::new();
        for replica in &region.replicas {
            replicas.push(look_at(&survey, *group, *replica, cuts[group], end).await?);
        }
        answers.push(RegionAnswers { group: *group, replicas });
    }
    Ok(judge(&answers))
}

async fn survey(cluster: &AdminCluster) -> Result<Survey<'_>, VerifyError> {
    let mut survey = Survey { nodes: BTreeMap::new(), regions: BTreeMap::new(), present: BTreeMap::new() };
    let mut known = BTreeSet::new();
    for node in &cluster.nodes {
        let status = node.status().await?;
        survey.nodes.insert(NodeId(status.node), node);
        for replica in status.groups {
            let group = GroupId(replica.group);
            if group.kind() != Some(GroupKind::Region) {
                continue;
            }
            known.insert(group);
            survey.present.insert((group, ReplicaId(replica.replica)), (replica.diverged, replica.fault));
            if replica.owner {
                let replicas = replica.voters.iter().chain(&replica.learners).map(|id| ReplicaId(*id)).collect();
                survey.regions.insert(group, Region { owner: NodeId(status.node), replicas });
            }
        }
    }
    match known.iter().find(|group| !survey.regions.contains_key(group)) {
        Some(group) => Err(VerifyError::NoOwner { group: *group }),
        None if known.is_empty() => Err(VerifyError::NoRegion),
        None => Ok(survey),
    }
}

/// One fresh cut in every region: the next number everywhere, then the highest of them where it is not yet taken.
async fn take_cuts(survey: &Survey<'_>) -> Result<BTreeMap<GroupId, CutNumber>, VerifyError> {
    let mut cuts = BTreeMap::new();
    for (group, region) in &survey.regions {
        cuts.insert(*group, take_cut(survey, *group, region.owner, CutNumber(0)).await?);
    }
    let highest = cuts.values().copied().max().unwrap_or_default();
    for (group, region) in &survey.regions {
        if cuts[group] < highest {
            let taken = take_cut(survey, *group, region.owner, highest).await?;
            if taken != highest {
                let reason = format!("asked for cut {highest}, took {taken}: another tool takes cuts, too");
                return Err(VerifyError::NoCut { group: *group, code: Code::Ok as u32, reason });
            }
            cuts.insert(*group, taken);
        }
    }
    Ok(cuts)
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
