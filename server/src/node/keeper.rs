//! Keeps a region's replica in service: runs what an owner runs, finds out when its state is not the majority's, and has it rebuilt.
//!
//! ```text
//! another replica has another hash ─▶ ask all for theirs ─▶ sound: nothing    open: once more, later
//!                                                          odd: owns nothing ─▶ leads no more ─▶ closed
//!                                                               ─▶ state of a replica of the majority ─▶ opened again
//! ```
//!
//! Log and vote are kept: only the state was wrong, and what it was is put aside, never deleted. A replica that turns out odd again
//! and again is rebuilt less and less often: its machine or its build is broken, and that needs a person.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use marchland_proto::cluster::CompareRequest;
use marchland_proto::cluster::regions_client::RegionsClient;
use marchland_proto::net::{ClusterClient, Transport};
use marchland_raft::{Group, Machine, OpenError, RaftNode, Role};
use marchland_region::{Executor, RegionMachine, Suspicion, Verdict, judge, run_ticker};
use marchland_region_core::Game;
use marchland_router::{ChannelPump, PeerDelivery, Peers, PumpOptions};
use marchland_storage::disk::Disk;
use marchland_types::{Incarnation, NodeId, ReplicaId, planted};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::groups::Members;
use super::pumps::RegionOutbox;

/// How long another replica may take to tell its hash.
const ASK_WITHIN: Duration = Duration::from_millis(500);
/// Between two rounds of asking, for replicas that have not applied the tick yet.
const ASK_PAUSE: Duration = Duration::from_millis(50);
/// How long one suspicion is looked into. Hashes are remembered for about three seconds.
const JUDGE_WITHIN: Duration = Duration::from_secs(2);
/// Pause after nobody could judge.
const OPEN_PAUSE: Duration = Duration::from_secs(2);
/// Pause between two attempts to get a state from a peer.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Attempts between two lines in the log.
const TELL_EVERY: u32 = 20;
/// A replica that is odd again within this time is broken in some other way.
const AGAIN_WITHIN: Duration = Duration::from_secs(600);
/// The first pause before such a replica is rebuilt; doubled each time.
const AGAIN_PAUSE: Duration = Duration::from_secs(10);
/// Doublings of it at most.
const AGAIN_DOUBLINGS: u32 = 6;

/// What keeps one region's replica in service.
pub(super) struct Keeper<G: Game, D: Disk, X: Executor, T> {
    pub(super) raft: RaftNode,
    pub(super) machine: Arc<RegionMachine<G, D, X>>,
    pub(super) peers: Peers<T>,
    /// Every node that hosts replicas, with its cluster address.
    pub(super) members: Arc<BTreeMap<NodeId, String>>,
    pub(super) delivery: Arc<PeerDelivery<T, Members>>,
}

/// Opens a group. One whose state is lost gets a peer's before it takes part, and waits for a peer that has one.
pub(super) async fn open_with_state(
    raft: &RaftNode,
    group: marchland_types::GroupId,
    machine: Arc<dyn Machine>,
    peers: &[ReplicaId],
) -> Result<Group, OpenError> {
    let mut attempt: u32 = 0;
    loop {
        match raft.rebuild_group(group, machine.clone(), peers).await {
            Err(error @ OpenError::NoSnapshot { .. }) => {
                if attempt.is_multiple_of(TELL_EVERY) {
                    tracing::warn!(%group, %error, "the state is lost here, and no peer has given its own yet: waiting");
                }
                attempt = attempt.wrapping_add(1);
                sleep(RETRY_PAUSE).await;
            }
            opened => return opened,
        }
    }
}

impl<G: Game, D: Disk, X: Executor, T: Transport> Keeper<G, D, X, T> {
    /// Runs until the group stops on this node for any other reason.
    pub(super) async fn run(self, mut group: Group) {
        let id = group.id();
        let mut rebuilt_at: Option<Instant> = None;
        let mut again: u32 = 0;
        loop {
            let mut work = JoinSet::new();
            work.spawn(run_ticker(self.machine.clone(), group.clone()));
            let outbox = Arc::new(RegionOutbox::new(self.machine.clone(), self.machine.posted()));
            let pump = ChannelPump::new(id, outbox, self.delivery.clone(), PumpOptions::default());
            let roles = self.machine.roles();
            work.spawn(async move { pump.run(roles).await });
            let mut status = group.watch();
            let sound = tokio::select! {
                sound = self.found_odd(&group) => sound,
                // A replica that failed stays as it is, for a person to see.
                _ = status.wait_for(|status| status.role == Role::Stopped) => return,
            };
            metrics::counter!("marchland_replicas_odd_total", "group" => id.to_string()).increment(1);
            if let Err(error) = self.machine.judged(false).await {
                tracing::error!(group = %id, %error, "an odd replica can not be taken out of service");
                return;
            }
            give_up_leadership(&group, &sound).await;
            group.shutdown().await;
            work.shutdown().await;
            again = if rebuilt_at.is_some_and(|at| at.elapsed() < AGAIN_WITHIN) { again + 1 } else { 0 };
            if again > 0 {
                let pause = AGAIN_PAUSE * 2u32.pow((again - 1).min(AGAIN_DOUBLINGS));
                tracing::error!(group = %id, again, ?pause, "this replica turned out odd again: look at the machine and the build");
                sleep(pause).await;
            }
            let Some(opened) = self.rebuilt(&group, &sound).await else { return };
            group = opened;
            rebuilt_at = Some(Instant::now());
            metrics::counter!("marchland_replicas_rebuilt_total", "group" => id.to_string()).increment(1);
            tracing::warn!(group = %id, applied = ?group.applied(), "replica has the state of the majority again");
        }
    }

    /// Resolves, with replicas of the majority, when this replica is the odd one.
    async fn found_odd(&self, group: &Group) -> Vec<ReplicaId> {
        let mut doubts = self.machine.doubts();
        loop {
            // Its sender lives in the machine.
            let Ok(suspicion) = doubts.wait_for(Option::is_some).await.map(|raised| *raised) else {
                return std::future::pending().await;
            };
            let Some(suspicion) = suspicion else { continue };
            match self.judge(group, suspicion).await {
                // Planted: it goes on as if nothing were.
                (Verdict::Odd(majority), sound) if !planted!("odd-leader-obeyed") => {
                    tracing::error!(
                        group = %group.id(), tick = %suspicion.tick, own = suspicion.own, majority, ?sound,
                        "this replica's state is not the majority's: it is taken out of service and rebuilt"
                    );
                    return sound;
                }
                (Verdict::Sound | Verdict::Odd(_), _) => {
                    tracing::warn!(group = %group.id(), tick = %suspicion.tick, "this replica has the majority's state, another one not");
                    // A worker that takes no work has failed, which the group's status shows.
                    let _ = self.machine.judged(true).await;
                }
                (Verdict::Open, _) => {
                    tracing::error!(
                        group = %group.id(), tick = %suspicion.tick,
                        "replicas differ, and no majority of them says whose state is right"
                    );
                    sleep(OPEN_PAUSE).await;
                }
            }
            // What was raised meanwhile was raised by the same difference, and is looked into by the next tick's.
            doubts.mark_unchanged();
            if doubts.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Asks every other voter for its hash after the tick, until there is a majority or no hope of one.
    async fn judge(&self, group: &Group, suspicion: Suspicion) -> (Verdict, Vec<ReplicaId>) {
        let end = Instant::now() + JUDGE_WITHIN;
        let mut told: BTreeMap<ReplicaId, u64> = BTreeMap::new();
        loop {
            let status = group.status();
            let me = self.raft.replica();
            let asked: Vec<_> =
                status.voters.iter().copied().filter(|id| id.node() != me.node() && !told.contains_key(id)).collect();
            told.extend(join_all(asked.into_iter().map(|id| self.ask(group, id, suspicion))).await.into_iter().flatten());
            let others: Vec<u64> = told.values().copied().collect();
            let verdict = judge(suspicion.own, &others, status.voters.len());
            let everyone = told.len() + 1 >= status.voters.len();
            if verdict != Verdict::Open || everyone || Instant::now() >= end {
                let sound = told.iter().filter(|(_, hash)| Verdict::Odd(**hash) == verdict).map(|(id, _)| *id).collect();
                return (verdict, sound);
            }
            sleep(ASK_PAUSE).await;
        }
    }

    async fn ask(&self, group: &Group, replica: ReplicaId, suspicion: Suspicion) -> Option<(ReplicaId, u64)> {
        let address = self.members.get(&replica.node())?;
        let request = CompareRequest { group: group.id().0, tick: suspicion.tick.0, hash: suspicion.own };
        let mut client = RegionsClient::over(self.peers.channel(address));
        match timeout(ASK_WITHIN, client.compare(request)).await {
            Ok(Ok(reply)) => {
                let reply = reply.into_inner();
                (reply.code == 0).then_some((replica, reply.hash))
            }
            // Who does not answer has no voice.
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// The group with the state of a replica of the majority; `None` when the node stops, or the replica can not go on.
    async fn rebuilt(&self, closed: &Group, sound: &[ReplicaId]) -> Option<Group> {
        let id = closed.id();
        // Whichever replicas their nodes have now.
        let sound: Vec<_> = sound.iter().map(|id| ReplicaId::new(id.node(), Incarnation(0))).collect();
        if let Err(error) = self.machine.reopen().await {
            tracing::error!(group = %id, %error, "an odd replica can not be rebuilt");
            return None;
        }
        let mut attempt: u32 = 0;
        loop {
            let discard = || self.machine.set_checkpoints_aside("diverged");
            match self.raft.replace_state(id, self.machine.clone(), &sound, discard).await {
                Ok(group) => return Some(group),
                Err(OpenError::Stopping(_)) => return None,
                Err(error @ (OpenError::NoSnapshot { .. } | OpenError::StateLost { .. })) => {
                    if attempt.is_multiple_of(TELL_EVERY) {
                        tracing::warn!(group = %id, %error, "no replica of the majority has given its state yet: waiting");
                    }
                }
                Err(error @ (OpenError::AlreadyOpen(_) | OpenError::Machine(_) | OpenError::Recovery { .. })) => {
                    tracing::error!(group = %id, %error, "an odd replica can not be rebuilt; the next start of this node tries again");
                    return None;
                }
            }
            attempt = attempt.wrapping_add(1);
            sleep(RETRY_PAUSE).await;
        }
    }
}

/// Hands leadership to a replica of the majority, so that nobody has to wait for an election.
async fn give_up_leadership(group: &Group, sound: &[ReplicaId]) {
    if !matches!(group.status().role, Role::Leader(_)) {
        return;
    }
    for heir in sound {
        match group.transfer_leadership(*heir).await {
            Ok(()) => {
                tracing::warn!(group = %group.id(), %heir, "an odd replica gave up leadership");
                return;
            }
            Err(error) => tracing::warn!(group = %group.id(), %heir, %error, "leadership was not taken over"),
        }
    }
}
