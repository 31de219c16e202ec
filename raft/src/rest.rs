//! Groups at rest: no ticks, no heartbeats, no election timers, as long as nobody wants anything of them.
//!
//! ```text
//!            all is applied everywhere: Rest, and every voter that can be reached agrees
//!   awake ─────────────────────────────────────────────────────────────────────────────▶ at rest
//!     ▲                                                                                     │
//!     └──── a proposal, an entry, a vote, a peer that went or came back, a member that says so ──┘
//! ```
//!
//! While any group is at rest, its node exchanges pulses with the nodes of the group's other members: one for each ordered pair of nodes,
//! however many groups they stand for. When a peer's pulse stops, or begins again, all groups wake that have it as a member, and raft
//! sees to the rest. Nothing here is needed for safety: a group that wakes for nothing, or on one node alone, has an election at worst.
//!
//! A follower that wakes does not vote at once. Its leader may only have been quiet, and is heard before the follower's timer runs down.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use marchland_proto::cluster::raft_envelope::Body;
use marchland_proto::cluster::{RaftPulse, RaftRest};
use marchland_types::{GroupId, ReplicaId, planted, point};
use tokio::sync::Notify;
use tokio::time::Instant;

use openraft::async_runtime::WatchReceiver;
use openraft::raft::VoteResponse;
use openraft::{Instant as _, RaftMetrics, ServerState};

use crate::api::Role;
use crate::group::{Group, GroupInner};
use crate::node::NodeInner;
use crate::types::{LogId, TypeConfig, Vote};
use crate::wire;

/// A peer whose pulse was not answered for so many heartbeats is held to be gone.
const LOST_AFTER_BEATS: u32 = 3;
/// At every so many pulses all groups are looked at, though nobody went or came back and none wakes.
const FULL_LOOK_BEATS: u64 = 10;
/// For so long pulses go on to a peer that no group at rest needs any more.
const WANTED_FOR: Duration = Duration::from_secs(10);
/// Followers of many groups that lost their leader at once begin their elections so far apart.
const APART: Duration = Duration::from_millis(2);

/// One group after the other of those that a node opens begins to elect: so far apart.
pub(crate) const TURN: Duration = Duration::from_millis(8);
/// Turns that are not waited for: a node with few groups has all of them at once.
pub(crate) const AT_ONCE: Duration = Duration::from_millis(200);

/// One group's rest, on one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rest {
    /// It ticks.
    #[default]
    Awake,
    /// It does not; this replica led it then.
    Quiet(ReplicaId),
    /// It will, unless its leader is heard before: then, too, but without an election.
    Wakes(Instant),
}

/// A peer, as it answers pulses.
#[derive(Debug)]
struct Peer {
    /// When it last answered.
    heard_at: Option<Instant>,
    /// Unknown until it is heard first.
    live: Option<bool>,
    wanted_at: Instant,
    /// A group that both have: admission is by group.
    group: GroupId,
}

/// What a node knows of its peers' pulses.
#[derive(Debug)]
pub(crate) struct Pulses {
    peers: Mutex<BTreeMap<ReplicaId, Peer>>,
    /// Until when a follower waits for its leader before it wakes, if any does.
    wakes_until: Mutex<Option<Instant>>,
    /// There is something to do again.
    wanted: Notify,
    every: Duration,
}

/// A peer that went, or came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Turn(ReplicaId);

impl Pulses {
    pub(crate) fn new(every: Duration) -> Self {
        Self { peers: Mutex::default(), wakes_until: Mutex::default(), wanted: Notify::new(), every }
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this peer's pulse is wanted. `heard` tells that it was heard just now. Returns whether it is known to live.
    pub(crate) fn want(&self, peer: ReplicaId, group: GroupId, now: Instant, heard: bool) -> bool {
        let live = {
            let mut peers = self.peers();
            let entry = peers.entry(peer).or_insert(Peer { heard_at: None, live: None, wanted_at: now, group });
            entry.wanted_at = now;
            if heard {
                (entry.heard_at, entry.live) = (Some(now), Some(true));
            }
            entry.live == Some(true)
        };
        self.wanted.notify_one();
        live
    }

    /// A follower wakes then.
    fn wakes_at(&self, at: Instant) {
        let mut until = self.wakes_until.lock().unwrap_or_else(PoisonError::into_inner);
        *until = (*until).max(Some(at));
    }

    /// Whether a follower may have to be woken, now or later.
    fn any_wakes(&self, now: Instant) -> bool {
        let mut until = self.wakes_until.lock().unwrap_or_else(PoisonError::into_inner);
        let any = until.is_some();
        // This time it is.
        if until.is_some_and(|until| until <= now) {
            *until = None;
        }
        any
    }

    /// What is asked goes on.
    fn stay_wanted(&self, now: Instant) {
        for peer in self.peers().values_mut() {
            peer.wanted_at = now;
        }
    }

    pub(crate) fn is_live(&self, peer: ReplicaId) -> bool {
        self.peers().get(&peer).is_some_and(|peer| peer.live == Some(true))
    }

    fn answered(&self, peer: ReplicaId, now: Instant) {
        if let Some(peer) = self.peers().get_mut(&peer) {
            peer.heard_at = Some(now);
        }
    }

    /// Who is to be asked.
    fn asked(&self) -> Vec<(ReplicaId, GroupId)> {
        self.peers().iter().map(|(id, peer)| (*id, peer.group)).collect()
    }

    /// Who went, or came back, since the last call.
    fn turns(&self, now: Instant) -> Vec<Turn> {
        let lost_after = self.every * LOST_AFTER_BEATS;
        let mut turns = Vec::new();
        let mut peers = self.peers();
        for (id, peer) in peers.iter_mut() {
            let Some(heard_at) = peer.heard_at else { continue };
            let live = now.saturating_duration_since(heard_at) < lost_after;
            if peer.live.replace(live).is_some_and(|before| before != live) {
                turns.push(Turn(*id));
            }
        }
        turns
    }

    /// Nothing is at rest: who was not wanted of late is asked no more.
    fn forget(&self, now: Instant) {
        self.peers().retain(|_, peer| now.saturating_duration_since(peer.wanted_at) < WANTED_FOR);
    }

    fn is_idle(&self) -> bool {
        self.peers().is_empty()
    }
}

/// Exchanges pulses while there is anything at rest, and wakes what is to be woken. Runs until the node is dropped.
pub(crate) async fn run(node: Weak<NodeInner>, pulses: Arc<Pulses>) {
    for number in 0_u64.. {
        if pulses.is_idle() {
            pulses.wanted.notified().await;
        }
        let began = Instant::now();
        {
            let Some(node) = node.upgrade() else { return };
            beat(&node, &pulses, number.is_multiple_of(FULL_LOOK_BEATS)).await;
        }
        tokio::time::sleep_until(began + pulses.every).await;
    }
}

/// One pulse to every peer, and what follows from the answers.
async fn beat(node: &Arc<NodeInner>, pulses: &Pulses, full: bool) {
    let asks = pulses.asked().into_iter().map(|(peer, group)| async move {
        let answer = node.links().ask(peer, group, Body::Pulse(RaftPulse {}), pulses.every).await;
        if matches!(answer, Ok(Body::Pulse(_))) {
            pulses.answered(peer, Instant::now());
        }
    });
    futures::future::join_all(asks).await;
    let now = Instant::now();
    let turns = pulses.turns(now);
    // There may be thousands of groups: nothing is looked up while nothing happens.
    let any_wakes = pulses.any_wakes(now);
    if !full && turns.is_empty() && !any_wakes {
        return;
    }
    let (mut number, mut rests) = (0, false);
    for Group(group) in node.groups().iter() {
        if group.fault().is_some() {
            group.tell_that_it_ended();
            continue;
        }
        match group.rest() {
            Rest::Awake => {}
            Rest::Wakes(at) if now >= at => group.ticks_again(),
            Rest::Wakes(_) => rests = true,
            Rest::Quiet(_) => {
                rests = true;
                // Planted: whoever rests does not look who is gone.
                if !planted!("rest-outlives-leader")
                    && !turns.is_empty()
                    && group.status().voters.iter().any(|voter| turns.contains(&Turn(*voter)))
                {
                    group.wake(APART * number);
                    number += 1;
                }
            }
        }
    }
    match rests {
        true => pulses.stay_wanted(now),
        false => pulses.forget(now),
    }
}

impl GroupInner {
    fn rest_mut(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn rest(&self) -> Rest {
        *self.rest_mut()
    }

    /// It was opened just now, perhaps with a thousand others: its election timer starts when it is its turn. Entries, and whoever else elects,
    /// are heard before.
    pub(crate) fn take_turn(self: &Arc<Self>, node: &NodeInner) {
        let Some(turn) = node.next_turn() else { return };
        self.raft().runtime_config().tick(false);
        *self.rest_mut() = Rest::Wakes(turn);
        let group = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep_until(turn).await;
            if let Some(group) = group.upgrade() {
                group.ticks_again();
            }
        });
    }

    /// The vote and the last entry, if all of the log is committed and applied here.
    fn settled(&self) -> Option<(Vote, LogId)> {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_applied?;
        let settled = metrics.running_state.is_ok()
            && metrics.last_log_index == Some(last.index)
            && metrics.cluster_committed.or(metrics.local_committed) == Some(last)
            && self.state.applied().is_some_and(|applied| applied.index.0 == last.index);
        settled.then(|| (metrics.vote, last))
    }

    /// For the leader: asks every voter that can be reached, and rests if they agree and are a majority with it.
    pub(crate) async fn try_rest(&self, node: &Arc<NodeInner>) -> bool {
        let me = node.me();
        let status = self.status();
        let now = Instant::now();
        let voters: Vec<ReplicaId> = status.voters.iter().copied().filter(|voter| *voter != me).collect();
        // Whoever is wanted is asked for its pulse from now on: if not this time, it is known the next time.
        let live: Vec<ReplicaId> =
            voters.iter().copied().filter(|voter| node.pulses().want(*voter, self.id(), now, false)).collect();
        let is_majority = (live.len() + 1) * 2 > status.voters.len();
        let ready =
            matches!(status.role, Role::Leader(_)) && is_majority && status.learners.is_empty() && status.halted.is_none();
        let Some((vote, last)) = self.settled().filter(|_| ready && self.is_unused()) else { return false };
        if matches!(self.rest(), Rest::Quiet(_)) {
            return true;
        }
        point!("raft.before_rest");
        let rest = RaftRest { wake: false, vote: Some(wire::vote_out(&vote)), last: Some(wire::id_out(&last)) };
        let asks = live.iter().map(|voter| ask(node, self, *voter, rest));
        let agreed = futures::future::join_all(asks).await.into_iter().all(|agreed| agreed);
        {
            let mut state = self.rest_mut();
            // A proposal takes its place before it looks here.
            if agreed && self.is_unused() && self.settled() == Some((vote, last)) {
                *state = Rest::Quiet(me);
                self.raft().runtime_config().tick(false);
                point!("raft.rests");
                return true;
            }
        }
        self.tell(node, voters);
        false
    }

    /// For a follower: whether it rests with its leader.
    pub(crate) fn rests_with(&self, leader: ReplicaId, vote: &Vote, last: &LogId) -> bool {
        let Some(node) = self.node.upgrade() else { return false };
        let status = self.status();
        let follows = matches!(status.role, Role::Follower { leader: Some(known), .. } if known == leader);
        if !follows || status.halted.is_some() {
            return false;
        }
        let mut state = self.rest_mut();
        if self.settled().as_ref() != Some(&(*vote, *last)) {
            return false;
        }
        node.pulses().want(leader, self.id(), Instant::now(), true);
        *state = Rest::Quiet(leader);
        self.raft().runtime_config().tick(false);
        point!("raft.rests");
        true
    }

    /// Nothing is proposed at the moment.
    fn is_unused(&self) -> bool {
        self.proposals.available_permits() == self.limits.proposals_in_flight
    }

    /// Whether a message stands under another vote than the one that this replica holds.
    pub(crate) fn is_other_vote(&self, vote: &Vote) -> bool {
        self.raft().metrics().borrow_watched().vote != *vote
    }

    /// Ends the rest. A leader sends heartbeats at once, and tells the others; a follower waits `later`, and as long as a leader may take to be
    /// heard, before its election timer starts.
    pub(crate) fn wake(self: &Arc<Self>, later: Duration) {
        let Some(node) = self.node.upgrade() else { return };
        let mut state = self.rest_mut();
        let Rest::Quiet(leader) = *state else { return };
        point!("raft.wakes");
        if leader != node.me() {
            let at = Instant::now() + node.patience(self.id()) + later;
            *state = Rest::Wakes(at);
            node.pulses().wakes_at(at);
            // It may be as quiet as this replica was.
            self.tell(&node, vec![leader]);
            return;
        }
        *state = Rest::Awake;
        self.probe.begin(Instant::now());
        self.raft().runtime_config().tick(true);
        let others = self.status().voters.into_iter().filter(|voter| *voter != leader).collect();
        self.tell(&node, others);
        let group = self.clone();
        tokio::spawn(async move {
            if let Err(error) = group.raft().trigger().heartbeat().await {
                tracing::debug!(group = %group.id(), %error, "no heartbeat on waking");
            }
        });
    }

    /// A follower's patience is over, or it leads already.
    pub(crate) fn ticks_again(&self) {
        let mut state = self.rest_mut();
        if let Rest::Wakes(_) = *state {
            *state = Rest::Awake;
            self.raft().runtime_config().tick(true);
        }
    }

    /// Wakes the group, if it rests, and waits until a majority has answered this leader, but not for long.
    pub(crate) async fn wake_and_be_heard(self: &Arc<Self>) {
        if !matches!(self.rest(), Rest::Quiet(_)) {
            return;
        }
        let woken = Instant::now();
        self.wake(Duration::ZERO);
        let heard = |metrics: &RaftMetrics<TypeConfig>| {
            metrics.state != ServerState::Leader
                || metrics.last_quorum_acked.is_some_and(|at| at.into_inner().elapsed() <= woken.elapsed())
        };
        let patience = Duration::from_millis(self.timings.heartbeat_ms * u64::from(LOST_AFTER_BEATS));
        // Whoever proposes hears from raft why it is refused.
        drop(self.raft().wait(Some(patience)).metrics(heard, "a majority after the rest").await);
    }

    /// Tells members that the group wakes. It is no matter if they do not hear it: they wake when this node is gone.
    fn tell(&self, node: &Arc<NodeInner>, members: Vec<ReplicaId>) {
        let (node, id) = (node.clone(), self.id());
        tokio::spawn(async move {
            let wake = RaftRest { wake: true, vote: None, last: None };
            let deadline = Duration::from_millis(node.timings().heartbeat_ms);
            let asks = members.iter().map(|member| node.links().ask(*member, id, Body::Rest(wake), deadline));
            futures::future::join_all(asks).await;
        });
    }

    /// This replica stops, and its node does not: nobody would notice by its pulse.
    pub(crate) fn tell_that_it_ended(&self) {
        let Some(node) = self.node.upgrade() else { return };
        let rest = std::mem::take(&mut *self.rest_mut());
        if matches!(rest, Rest::Quiet(_)) && !*node.closing().borrow() {
            let others = self.status().voters.into_iter().filter(|voter| *voter != node.me()).collect();
            self.tell(&node, others);
        }
    }

    /// The answer to a pre-vote while the group rests: no, if its leader's node answers pulses; the leader then wakes and is heard. A pre-vote of
    /// the leader itself says that it has begun again.
    pub(crate) fn declines(&self, rest: Rest, candidate: ReplicaId) -> Option<VoteResponse<TypeConfig>> {
        let Rest::Quiet(leader) = rest else { return None };
        let node = self.node.upgrade()?;
        if leader == candidate || !(leader == node.me() || node.pulses().is_live(leader)) {
            return None;
        }
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        Some(VoteResponse::new(metrics.vote, metrics.last_applied, false))
    }
}

/// Asks a voter to let a group rest.
async fn ask(node: &NodeInner, group: &GroupInner, voter: ReplicaId, rest: RaftRest) -> bool {
    let deadline = Duration::from_millis(node.timings().heartbeat_ms);
    let answer = node.links().ask(voter, group.id(), Body::Rest(rest), deadline).await;
    matches!(answer, Ok(Body::RestAnswer(answer)) if answer.agreed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(100);
    const PEER: ReplicaId = ReplicaId(2);
    const GROUP: GroupId = GroupId(7);

    #[test]
    fn a_peer_lives_while_it_answers_and_each_turn_is_told_once() {
        let pulses = Pulses::new(EVERY);
        let began = Instant::now();
        assert!(pulses.is_idle());
        assert!(!pulses.want(PEER, GROUP, began, false), "nothing was heard yet");
        assert_eq!(pulses.turns(began), [], "who was never heard did not go");
        pulses.answered(PEER, began);
        assert_eq!(pulses.turns(began), [], "nor did it come back");
        assert!(pulses.want(PEER, GROUP, began, false) && pulses.is_live(PEER));
        assert_eq!(pulses.turns(began + EVERY * 2), []);
        assert_eq!(pulses.turns(began + EVERY * 3), [Turn(PEER)], "it is gone");
        assert_eq!(pulses.turns(began + EVERY * 4), []);
        pulses.answered(PEER, began + EVERY * 5);
        assert_eq!(pulses.turns(began + EVERY * 5), [Turn(PEER)], "it is back");
    }

    #[test]
    fn whoever_wakes_is_looked_for_until_after_its_time() {
        let pulses = Pulses::new(EVERY);
        let now = Instant::now();
        assert!(!pulses.any_wakes(now));
        pulses.wakes_at(now + EVERY * 3);
        pulses.wakes_at(now + EVERY);
        assert!(pulses.any_wakes(now) && pulses.any_wakes(now + EVERY * 2), "the last of them is waited for");
        assert!(pulses.any_wakes(now + EVERY * 3), "it is its time");
        assert!(!pulses.any_wakes(now + EVERY * 4));
    }

    #[test]
    fn a_peer_that_nobody_wants_is_asked_no_more() {
        let pulses = Pulses::new(EVERY);
        let began = Instant::now();
        assert!(pulses.want(PEER, GROUP, began, true), "heard just now");
        assert_eq!(pulses.asked(), [(PEER, GROUP)]);
        let later = began + WANTED_FOR / 2;
        pulses.answered(PEER, later);
        pulses.forget(later);
        pulses.stay_wanted(later);
        pulses.forget(began + WANTED_FOR);
        assert!(!pulses.is_idle());
        assert_eq!(pulses.turns(later + WANTED_FOR), [Turn(PEER)], "a node that stood still has not forgotten whom it watches");
        pulses.forget(later + WANTED_FOR);
        assert!(pulses.is_idle());
    }
}
