//! The groups of a new world are initialised, each after its members are recorded.
//!
//! The directory's plan is recorded in the realm, and those of vaults and regions are recorded in the directory. A group that was
//! initialised before anybody else knows of it could be initialised again by nodes that were told otherwise: two groups under one
//! id.
//!
//! ```text
//! realm      initialised ─▶ led ─▶ genesis          its own plan is in its genesis
//! directory         waits for ─▶ World recorded ─▶ initialised ─▶ led ─▶ genesis, with all plans
//! vaults, regions                                    waits for ─▶ genesis applied here ─▶ initialised
//! ```
//!
//! Of n members, the (k mod n)-th initialises vault or region k, and so leads it at first: were all to do so at once, their votes would
//! be split. The others take its turn when nothing comes of it.
//!
//! Only groups that are pristine wait, and only on nodes with the first incarnation. A world that exists asks nobody: it goes on
//! while the realm is away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use marchland_proto::net::Transport;
use marchland_proto::storage::{RealmGenesis, RealmWorld, realm_entry};
use marchland_raft::{Group, GroupStatus, Role};
use marchland_router::{DirectoryService, ReadError, RealmClient, RealmError, RealmService};
use marchland_storage::keyed::KeyedStore;
use marchland_types::seam::Clock;
use marchland_types::{GroupId, ReplicaId};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How long one attempt to record the world may take: a line in the log comes after each.
const RECORD_WITHIN: Duration = Duration::from_secs(5);
/// Pause after a refusal: the same will be refused until the configuration is changed.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// Pause before it is looked again whether a record has come.
const PAUSE: Duration = Duration::from_millis(50);
/// Groups that a node founds at a time; each is led before the turn of another comes. Were a thousand to elect at once, votes would
/// come too late, and be asked for again and again.
const FOUNDED_AT_ONCE: usize = 16;
/// How long one of them is waited for.
const LED_WITHIN: Duration = Duration::from_secs(1);
/// How long nothing is seen of other nodes' founding before this node does it in their place.
const TURN: Duration = Duration::from_secs(2);

/// Whether a replica has never heard of its group: neither initialised here, nor told by a leader.
fn is_pristine(status: &GroupStatus) -> bool {
    status.last.is_none() && status.voters.is_empty()
}

/// A new world's groups, as one of its founding nodes has them.
pub(super) struct Founding<K, C, T> {
    pub(super) realm: Arc<RealmClient<T>>,
    pub(super) directory: Arc<DirectoryService<Group, K, C>>,
    /// The world as it is recorded in the realm, the directory's members with it.
    pub(super) world: RealmWorld,
    pub(super) voters: BTreeSet<ReplicaId>,
    /// This node's replica.
    pub(super) own: ReplicaId,
    /// Vaults and regions.
    pub(super) others: Vec<Group>,
    pub(super) fatal: watch::Sender<Option<String>>,
}

/// A group that can not be initialised as it is recorded.
struct Unfounded(String);

impl From<ReadError> for Unfounded {
    fn from(error: ReadError) -> Self {
        Self(error.to_string())
    }
}

impl<K: KeyedStore, C: Clock, T: Transport> Founding<K, C, T> {
    /// Leaves those groups that need no founding to themselves. `None` when there is nothing to be done.
    pub(super) fn needed(mut self) -> Option<Self> {
        self.others.retain(|group| is_pristine(&group.status()));
        let any = is_pristine(&self.directory.group().status()) || !self.others.is_empty();
        any.then_some(self)
    }

    /// Initialises what is pristine, in order. Ends when everything has been initialised, here or by others.
    pub(super) async fn run(self) {
        let founded = async {
            self.found_directory().await?;
            self.found_others().await
        };
        if let Err(Unfounded(reason)) = founded.await {
            self.fatal.send_replace(Some(format!("the world can not be founded: {reason}")));
        }
    }

    async fn found_directory(&self) -> Result<(), Unfounded> {
        let group = self.directory.group();
        // Others may have initialised it, and told this replica.
        let heard = async {
            while is_pristine(&group.status()) {
                sleep(PAUSE).await;
            }
        };
        tokio::select! {
            biased;
            () = heard => Ok(()),
            done = self.record_and_initialise(group) => done,
        }
    }

    async fn record_and_initialise(&self, group: &Group) -> Result<(), Unfounded> {
        loop {
            match self.realm.record_world(self.world.clone(), RECORD_WITHIN).await {
                Ok(()) => {
                    tracing::info!(world = %self.world.world, "the realm has recorded the world: its directory is initialised");
                    return initialise(group.clone(), self.voters.clone()).await;
                }
                Err(RealmError::Refused { code, reason }) => {
                    tracing::error!(?code, %reason, "the realm does not record this world as configured");
                    sleep(REFUSED_PAUSE).await;
                }
                Err(error @ RealmError::Unknown { .. }) => {
                    tracing::info!(%error, "a new world waits for the realm to record it");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn found_others(&self) -> Result<(), Unfounded> {
        if self.others.is_empty() {
            return Ok(());
        }
        let view = self.directory.view();
        // The plans come in one batch with the world.
        while view.world().await?.is_none() {
            if self.directory.group().status().role == Role::Stopped {
                // Its node says why, and starts anew.
                return Ok(());
            }
            sleep(PAUSE).await;
        }
        let plans: BTreeMap<GroupId, BTreeSet<ReplicaId>> = view
            .plans()
            .await?
            .into_iter()
            .map(|plan| (GroupId(plan.group), plan.replicas.into_iter().map(ReplicaId).collect()))
            .collect();
        let (mut own, mut others) = (Vec::new(), Vec::new());
        for group in &self.others {
            let Some(members) = plans.get(&group.id()) else {
                return Err(Unfounded(format!("{} has no plan in the directory", group.id())));
            };
            let turn = members.iter().nth(group.id().serial() as usize % members.len().max(1));
            let is_own = turn == Some(&self.own);
            if is_own { &mut own } else { &mut others }.push((group.clone(), members.clone()));
        }
        found(own).await?;
        loop {
            others.retain(|(group, _)| is_pristine(&group.status()));
            let left = others.len();
            if left == 0 {
                return Ok(());
            }
            sleep(TURN).await;
            others.retain(|(group, _)| is_pristine(&group.status()));
            if others.len() == left {
                // Whoever's turn it is may be away.
                return found(others).await;
            }
        }
    }
}

/// Initialises groups, and waits for each to be led.
async fn found(groups: Vec<(Group, BTreeSet<ReplicaId>)>) -> Result<(), Unfounded> {
    let founded = futures::stream::iter(groups).map(|(group, members)| async move {
        let mut status = group.watch();
        initialise(group, members).await?;
        // An election may fail, and comes again by itself.
        let _ = timeout(LED_WITHIN, status.wait_for(|status| status.leader.is_some())).await;
        Ok(())
    });
    founded.buffer_unordered(FOUNDED_AT_ONCE).try_collect().await
}

async fn initialise(group: Group, members: BTreeSet<ReplicaId>) -> Result<(), Unfounded> {
    let done = group.initialize(&members).await;
    if done.is_err() && group.status().role == Role::Stopped {
        // Whatever stopped it is told where that is looked at.
        return Ok(());
    }
    done.map_err(|error| Unfounded(error.to_string()))
}

/// Begins the realm, if this replica leads one that has not begun. Ends when it has. A node that is told of another realm than there
/// is would look for it elsewhere than the rest, and stops.
pub(super) async fn found_realm<K: KeyedStore, C: Clock>(
    service: Arc<RealmService<Group, K, C>>,
    genesis: RealmGenesis,
    fatal: watch::Sender<Option<String>>,
) {
    let mut status = service.group().watch();
    loop {
        let role = status.borrow_and_update().role;
        if role == Role::Stopped {
            return;
        }
        match service.view().genesis().await {
            Ok(Some(begun)) if begun != genesis => {
                let hosts = |genesis: &RealmGenesis| {
                    let replicas = genesis.plan.iter().flat_map(|plan| &plan.replicas);
                    replicas.map(|id| ReplicaId(*id).node().to_string()).collect::<Vec<_>>().join(", ")
                };
                fatal.send_replace(Some(format!(
                    "the realm of cluster {:?} began on nodes {}, this node is configured for cluster {:?} and nodes {}: see realm.nodes",
                    begun.cluster,
                    hosts(&begun),
                    genesis.cluster,
                    hosts(&genesis)
                )));
                return;
            }
            Ok(Some(_)) => return,
            Ok(None) if matches!(role, Role::Leader(_)) => {
                // Two leaders may both try: the first one begins it.
                match service.order(realm_entry::Body::Genesis(genesis.clone())).await {
                    Ok(answer) if answer.code == 0 => tracing::info!("the realm has begun"),
                    Ok(answer) => {
                        tracing::error!(code = answer.code, reason = answer.reason, "the realm can not begin as configured");
                        sleep(REFUSED_PAUSE).await;
                    }
                    Err(error) => tracing::warn!(%error, "the realm could not begin yet"),
                }
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "the realm can not be read"),
        }
        // A change of role, or a while: a follower sees the genesis when its leader made it.
        let _ = timeout(PAUSE * 4, status.changed()).await;
    }
}

#[cfg(test)]
mod tests {
    use marchland_types::LogIndex;

    use super::*;

    #[test]
    fn only_a_replica_that_knows_nothing_is_pristine() {
        let status = |last: Option<u64>, voters: Vec<ReplicaId>| GroupStatus {
            role: Role::Learner { leader: None },
            term: 0.into(),
            leader: None,
            last: last.map(LogIndex),
            committed: None,
            applied: None,
            durable: None,
            voters,
            learners: Vec::new(),
            matched: Vec::new(),
            fault: None,
            halted: None,
        };
        assert!(is_pristine(&status(None, vec![])));
        assert!(!is_pristine(&status(Some(0), vec![])), "it has a log");
        assert!(!is_pristine(&status(None, vec![ReplicaId(1 << 32 | 1)])), "it has a state");
    }
}
