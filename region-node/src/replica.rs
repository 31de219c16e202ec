//! One replica's state on its worker: the region, and while it is owner everything that an owner has to do.
//!
//! Every method is synchronous and runs as a job. Effects of an entry leave through the hub in the very job that
//! applied it, and only while this replica is owner: it leads, and has applied an entry of its own term.

mod publish;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use marchland_proto::cluster::{EdgeToRegion, InspectReply, NodeToEdge};
use marchland_proto::storage::{AdminOrder, ChannelAck, ChannelMessage, Genesis, RegionEntry, Sleep, region_entry};
use marchland_raft::{Applied, Entry, Halt, MachineFault, Payload, Role};
use marchland_region_core::{
    Applied as CoreApplied, ApplyFault, Doing, ENTRY_FORMAT, Effects, Game, Region, RegionView, TakenCut,
};
use marchland_types::{CellId, CharacterId, CutNumber, GroupId, LogIndex, Position, RegionId, ReplicaId, Term, Tick, point};
use prost::Message;
use tokio::sync::{mpsc, oneshot};

use crate::arrivals::{Arrival, Arrivals};
use crate::backlog::Backlog;
use crate::doubt::{Doubt, Suspicion};
use crate::ghosts::GhostPosts;
use crate::hub::{Hub, Stamp};
use crate::orphans::Orphans;
use crate::outlets::{Outlets, Ownership};
use crate::pace::{IDLE_MS, Next, TICK, WATCHED};
use crate::port::{Compared, DeliverOutcome, EdgeId, RegionFacts, SkippedFact};
use crate::rate::TickRate;
use crate::slot::Fence;

/// Cuts whose views are kept, so that a slow inspector still finds its own. A view costs what changed since.
const CUTS_KEPT: usize = 4;
/// How often sessions without an edge are looked for: once a second.
const SWEEP_EVERY_TICKS: u64 = 20;
/// How soon a region of a new owner falls asleep if nobody wants anything of it: edges that served players there have come by then.
const SOON_MS: u64 = 500;
/// Longest rest of a sleeping region's ticker: clocks may be set meanwhile.
const REST_MAX_MS: u64 = 10_000;
/// Deliveries that wait for their commit, over all senders.
const DELIVERIES_MAX: usize = 1024;

/// Who waits for messages to be taken is told how many were, and the newest cut.
type TellTaken = oneshot::Sender<(u64, CutNumber)>;

/// Monotonic time and wall clock in milliseconds.
pub(crate) type Now = Arc<dyn Fn() -> (Duration, u64) + Send + Sync>;

/// Why entries were not applied.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The replica can not go on.
    Fault(MachineFault),
    /// One of them can not be applied. The state is of no use any more.
    Halt(Halt),
}

impl From<MachineFault> for Stop {
    fn from(fault: MachineFault) -> Self {
        Self::Fault(fault)
    }
}

/// What a replica is told at its beginning.
#[derive(Clone)]
pub(crate) struct ReplicaOptions {
    pub(crate) group: GroupId,
    pub(crate) region: RegionId,
    pub(crate) me: ReplicaId,
    pub(crate) genesis: Genesis,
    pub(crate) now: Now,
    /// Longer than this, and an entry is counted as one that took too long.
    pub(crate) step: Duration,
    /// What it shows its neighbours goes there.
    pub(crate) ghosts: GhostPosts,
}

pub(crate) struct Replica<G: Game> {
    group: GroupId,
    me: ReplicaId,
    region: Region<G>,
    genesis: Genesis,
    effects: Effects<G>,
    applied: Applied,
    now: Now,
    role: Role,
    hub: Hub,
    backlog: Backlog,
    arrivals: Arrivals,
    rate: TickRate,
    orphans: Orphans,
    diverged: bool,
    doubt: Doubt,
    cuts: VecDeque<TakenCut<G>>,
    /// Who waits for messages to be committed: by sender, the number and whom to tell.
    deliveries: BTreeMap<GroupId, Vec<(u64, TellTaken)>>,
    outlets: Outlets,
    fence: Arc<Fence>,
    /// Where the region halted, if it did: what comes before was told before, so nothing is told until this is past.
    mute_until: Option<LogIndex>,
    step: Duration,
    ghosts: GhostPosts,
    /// When somebody last wanted something of this owner, by the clock.
    wanted_at_ms: Option<u64>,
    owner_since_ms: u64,
    /// An entry by which the region falls asleep is on its way.
    falls_asleep: bool,
    /// It ticks at the rate of a region that is only watched.
    is_slow: bool,
}

impl<G: Game> Replica<G> {
    /// Before its first entry; in another one's place if the outlets are that one's.
    pub(crate) fn new(options: ReplicaOptions, region: Region<G>, outlets: Outlets) -> Self {
        let ReplicaOptions { group, region: id, me, genesis, now, step, ghosts } = options;
        let role = *outlets.roles.borrow();
        Self {
            group,
            me,
            region,
            genesis,
            effects: Effects::default(),
            applied: Applied::default(),
            now,
            role,
            hub: Hub::new(group, id),
            arrivals: outlets.arrivals.clone(),
            backlog: Backlog::with_gauge(outlets.gauge.clone()),
            rate: TickRate::default(),
            orphans: Orphans::default(),
            diverged: false,
            doubt: outlets.doubt.clone(),
            cuts: VecDeque::new(),
            deliveries: BTreeMap::new(),
            outlets,
            fence: Arc::default(),
            mute_until: None,
            step,
            ghosts,
            wanted_at_ms: None,
            owner_since_ms: 0,
            falls_asleep: false,
            is_slow: false,
        }
    }

    pub(crate) fn fence(&self) -> Arc<Fence> {
        self.fence.clone()
    }

    pub(crate) fn doing(&self) -> Arc<Doing> {
        self.region.doing()
    }

    fn is_owner(&self) -> bool {
        self.outlets.ownership.borrow().owner
    }

    fn leader(&self) -> Option<ReplicaId> {
        match self.role {
            Role::Follower { leader, .. } | Role::Learner { leader } => leader,
            Role::Leader(_) | Role::Stopped => None,
        }
    }

    fn stamp(&self) -> Stamp {
        Stamp {
            tick: self.region.world().tick(),
            index: self.applied.position.map_or(LogIndex(0), |p| p.index),
            server_ms: self.region.world().now_ms(),
            time_rate: self.percent(),
            next_in: self.outlets.next_tick.after((self.now)().0),
            map_epoch: self.region.world().map().0,
        }
    }

    /// Percent of the rate at which it should tick.
    fn percent(&self) -> u32 {
        let rests = self.is_slow || self.region.asleep_until_ms().is_some();
        if rests { 100 } else { self.rate.percent((self.now)().0) }
    }

    /// A replica owns its region from the first entry of its own term that it applied until it stops leading.
    fn settle_ownership(&mut self) {
        let owner = match (self.role, self.applied.position) {
            // Whose state is not the majority's has nothing to publish.
            (Role::Leader(term), Some(position)) => {
                position.term == term && !self.doubt.is_condemned() && Some(position.index) >= self.mute_until
            }
            _ => false,
        };
        let stopped = self.role == Role::Stopped;
        let before = *self.outlets.ownership.borrow();
        if before == (Ownership { owner, stopped }) {
            return;
        }
        if before.owner && !owner {
            self.backlog.clear();
            self.deliveries.clear();
            self.hub.gone(self.leader());
            tracing::info!(group = %self.group, leader = ?self.leader(), "owns the region no more");
        }
        if owner && !before.owner {
            self.rate.restart((self.now)().0);
            (self.falls_asleep, self.wanted_at_ms, self.owner_since_ms) = (false, None, (self.now)().1);
            self.orphans.clear();
            self.hub.announce(self.stamp());
            // What waits there was posted when this replica delivered nothing: whoever looked, saw an empty outbox.
            self.outlets.posted.send_modify(|changes| *changes += 1);
            tracing::info!(group = %self.group, tick = %self.region.world().tick(), "owns the region");
        }
        self.outlets.ownership.send_replace(Ownership { owner, stopped });
        // What came for an owner that is none any more, is answered: nobody else will look at it.
        self.look_at_arrivals();
        self.publish_facts();
    }

    fn publish_facts(&self) {
        let world = self.region.world();
        let counters = world.counters();
        let last_skipped = self.region.skipped().last().map(|entry| SkippedFact {
            index: LogIndex(entry.index),
            tick: Tick(entry.tick),
            reason: entry.reason.clone(),
            actor: entry.actor.clone(),
        });
        let overruns = self.outlets.facts.borrow().overruns;
        self.outlets.facts.send_replace(RegionFacts {
            panics: counters.panics,
            dead_letters: self.region.dead_letter_count(),
            skipped: counters.skipped_entries,
            last_skipped,
            overruns,
            tick: world.tick(),
            cut: world.cut_number(),
            sessions: world.attached_count() as u32,
            entities: world.entity_count() as u32,
            time_rate: self.percent(),
            owner: self.is_owner(),
            asleep: self.region.asleep_until_ms().is_some(),
            diverged: self.diverged,
        });
    }

    pub(crate) fn role(&mut self, role: Role) {
        self.role = role;
        self.outlets.roles.send_replace(role);
        self.settle_ownership();
    }

    /// Takes over a state that was restored or received.
    pub(crate) fn install(&mut self, region: Region<G>, applied: Applied) {
        let doing = self.region.doing();
        self.region = region;
        self.region.do_as(doing);
        self.applied = applied;
        self.cuts.clear();
        self.diverged = false;
        self.doubt.clear();
        self.settle_ownership();
        self.publish_facts();
    }

    pub(crate) fn view(&self) -> (RegionView<G>, Applied) {
        (self.region.view(), self.applied.clone())
    }

    /// Back to before the first entry: what follows was told before, up to `halted`.
    pub(crate) fn reset(&mut self, region: Region<G>, halted: LogIndex) {
        self.mute_until = Some(halted);
        self.install(region, Applied::default());
    }

    /// A peer's state is past whatever halted this one.
    pub(crate) fn supersede(&mut self, region: Region<G>, applied: Applied) {
        self.mute_until = None;
        self.install(region, applied);
    }

    /// An entry can not be applied: this replica performs nothing more until it is past it.
    pub(crate) fn halt(&mut self, at: LogIndex) {
        self.mute_until = Some(at);
        self.settle_ownership();
    }

    pub(crate) fn apply(&mut self, entries: Vec<Entry>) -> Result<Vec<Bytes>, Stop> {
        let answers = vec![Bytes::new(); entries.len()];
        for entry in entries {
            let position = entry.position;
            match entry.payload {
                Payload::Blank => self.applied.position = Some(position),
                Payload::Membership(membership) => {
                    self.applied.position = Some(position);
                    self.applied.membership = membership;
                }
                Payload::Command(bytes) => self.apply_command(position, &bytes)?,
            }
            self.settle_ownership();
        }
        self.publish_facts();
        Ok(answers)
    }

    /// Stands in for an entry that is to be skipped.
    pub(crate) fn skip(&mut self, entry: Entry) -> Result<Bytes, MachineFault> {
        let position = entry.position;
        match entry.payload {
            Payload::Blank => self.applied.position = Some(position),
            Payload::Membership(membership) => {
                self.applied.position = Some(position);
                self.applied.membership = membership;
            }
            Payload::Command(bytes) => {
                let group = self.group;
                let fault = |fault: ApplyFault| MachineFault { group, reason: format!("entry {position}: {fault}") };
                self.region.skip_into(position.index, &bytes, &mut self.effects).map_err(fault)?;
                tracing::warn!(%group, entry = %position, tick = %self.region.tick(), "audit: an entry was skipped");
                self.perform(position);
            }
        }
        self.settle_ownership();
        self.publish_facts();
        Ok(Bytes::new())
    }

    fn apply_command(&mut self, position: Position, bytes: &[u8]) -> Result<(), Stop> {
        let began = (self.now)().0;
        let (region, effects) = (&mut self.region, &mut self.effects);
        // The state is of no use after a panic; it is restored before anything else is done with it.
        let applied = catch_unwind(AssertUnwindSafe(|| region.apply_into(position.index, bytes, effects)));
        let fence = self.fence.clone();
        let Some(_passing) = fence.pass() else {
            return Err(MachineFault { group: self.group, reason: "the replica was given up meanwhile".into() }.into());
        };
        match applied {
            Ok(Ok(())) => {}
            // Two leaders, or one that was not sure, each proposed to make the region. The first made it.
            Ok(Err(ApplyFault::SecondGenesis { .. })) => self.effects.clear(),
            Ok(Err(fault @ (ApplyFault::Panicked { .. } | ApplyFault::Malformed { .. } | ApplyFault::UnknownBody { .. }))) => {
                let said = self.region.take_last_panic().map_or_else(String::new, |(_, text)| format!(": {text}"));
                return Err(self.halts(position, &format!("{fault}{said}")));
            }
            Ok(Err(fault)) => {
                return Err(MachineFault { group: self.group, reason: format!("entry {position}: {fault}") }.into());
            }
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
                return Err(self.halts(position, &format!("panicked: {}", text.unwrap_or("no text"))));
            }
        }
        if let Some((handler, text)) = self.region.take_last_panic() {
            tracing::error!(
                group = %self.group, entry = %position, tick = %self.region.tick(), %handler, panic = text,
                "rules panicked; what it was about had no effect"
            );
        }
        self.time_step(position, (self.now)().0.saturating_sub(began));
        self.perform(position);
        Ok(())
    }

    fn halts(&mut self, position: Position, reason: &str) -> Stop {
        let index = position.index;
        let tick = self.region.doing().entry().map_or_else(|| self.region.tick(), |(_, tick)| tick.next());
        self.halt(index);
        Stop::Halt(Halt { index, reason: format!("tick {tick}: {reason}") })
    }

    fn time_step(&self, position: Position, took: Duration) {
        if took <= self.step {
            return;
        }
        self.outlets.facts.send_modify(|facts| facts.overruns += 1);
        metrics::counter!("marchland_region_step_overruns_total", "group" => self.group.to_string()).increment(1);
        tracing::debug!(group = %self.group, entry = %position, ?took, "an entry took longer than it should");
    }

    /// What follows from an entry that was applied, or skipped.
    fn perform(&mut self, position: Position) {
        self.applied.position = Some(position);
        point!("region.applied");
        if let Some(divergence) = self.effects.divergence {
            if !std::mem::replace(&mut self.diverged, true) {
                tracing::error!(
                    group = %self.group, tick = %divergence.tick, own = divergence.own, proposer = divergence.proposer,
                    "this replica's state differs from the owner's"
                );
            }
            self.doubt.raise(Suspicion { tick: divergence.tick, own: divergence.own });
        }
        if !self.effects.attached.is_empty() {
            point!("region.attached");
        }
        if !self.effects.replies.is_empty() {
            point!("region.reply_kept");
        }
        if !self.effects.handed.is_empty() {
            point!("region.handed_off");
        }
        if !self.effects.arrived.is_empty() {
            point!("region.took_over");
        }
        if !self.effects.cuts.is_empty() {
            point!("region.cut");
        }
        self.cuts.extend(self.effects.cuts.drain(..));
        while self.cuts.len() > CUTS_KEPT {
            self.cuts.pop_front();
        }
        self.tell_deliveries();
        if let CoreApplied::Asleep = self.effects.applied {
            point!("region.fell_asleep");
        }
        if let CoreApplied::Asleep | CoreApplied::StaysAwake(_) = self.effects.applied {
            self.falls_asleep = false;
            // One that could not fall asleep has a reason, which may last.
            self.wanted_at_ms = Some((self.now)().1);
        }
        if self.effects.outbox_changed {
            self.outlets.posted.send_modify(|changes| *changes += 1);
        }
        // The term's own entry makes the owner; a command before it can not be one of ours.
        self.settle_ownership();
        if self.is_owner() {
            // Whoever subscribed since the last tick is shown this one.
            self.look_at_arrivals();
            if self.effects.tick.is_some() {
                self.rate.tick((self.now)().0);
            }
            self.publish();
        }
    }

    fn tell_deliveries(&mut self) {
        let cut = self.region.cut_number();
        for (from, waiting) in &mut self.deliveries {
            let taken = self.region.taken_from(*from);
            let mut index = 0;
            while index < waiting.len() {
                if waiting[index].0 <= taken {
                    // The sender may have stopped waiting.
                    let _ = waiting.swap_remove(index).1.send((taken, cut));
                } else {
                    waiting.retain(|(_, teller)| !teller.is_closed());
                    index += 1;
                }
            }
        }
        self.deliveries.retain(|_, waiting| !waiting.is_empty());
    }

    /// What the ticker does next.
    pub(crate) fn next(&mut self) -> Next {
        self.look_at_arrivals();
        if !self.is_owner() {
            return Next::NotOwner;
        }
        if self.region.genesis_entry().is_none() {
            return self.propose(region_entry::Body::Genesis(self.genesis.clone()), TICK);
        }
        let now_ms = (self.now)().1;
        let wanted = self.is_wanted();
        if let Some(until_ms) = self.region.asleep_until_ms()
            && !wanted
            && now_ms < until_ms
        {
            return Next::Sleep(Duration::from_millis((until_ms - now_ms).min(REST_MAX_MS)));
        }
        if wanted {
            self.wanted_at_ms = Some(now_ms);
        } else if self.falls_asleep {
            // Its entry is on its way.
            return Next::Wait;
        } else if self.wanted_at_ms.is_none() && now_ms < self.owner_since_ms.saturating_add(SOON_MS) {
            // It need not tick for nobody: edges that served players here come soon.
            return Next::Wait;
        } else if self.wanted_at_ms.is_none_or(|at| now_ms >= at.saturating_add(IDLE_MS)) {
            self.falls_asleep = true;
            let wake_at_ms = self.region.next_due_ms().unwrap_or(u64::MAX);
            return self.propose(region_entry::Body::Sleep(Sleep { wake_at_ms, now_ms }), TICK);
        }
        self.falls_asleep = false;
        if self.region.tick().0.is_multiple_of(SWEEP_EVERY_TICKS) {
            self.detach_orphans();
        }
        let region = &self.region;
        let mut tick = self.backlog.take(|order| region.awaits_admission(order));
        tick.now_ms = now_ms;
        tick.ghosts = self.outlets.ghosts.take();
        // The hash after that tick, not of now: a cut may have come since. None is remembered after a restart: then 0, unchecked.
        tick.checked_tick = self.region.tick().0;
        tick.checked_hash = self.region.hash_after(self.region.tick()).unwrap_or(0);
        // Whoever is near a border may come over it with the next tick.
        let slow = self.may_sleep() && self.region.world().session_count() == 0 && !self.region.sees_life();
        if self.is_slow != slow {
            self.is_slow = slow;
            self.rate.restart((self.now)().0);
        }
        self.propose(region_entry::Body::Tick(tick), if slow { WATCHED } else { TICK })
    }

    fn propose(&self, body: region_entry::Body, then: Duration) -> Next {
        Next::Propose(Bytes::from(RegionEntry { format: ENTRY_FORMAT, body: Some(body) }.encode_to_vec()), then)
    }

    /// Only where there are other regions: a world that has one is never without somebody who looks at it for long.
    fn may_sleep(&self) -> bool {
        self.region.world().map().1.len() > 1
    }

    /// Whether anybody wants anything of the region now.
    fn is_wanted(&self) -> bool {
        let world = self.region.world();
        !self.may_sleep()
            || world.session_count() > 0
            || self.hub.is_followed()
            || !self.backlog.is_empty()
            || !self.deliveries.is_empty()
            || self.outlets.ghosts.are_lively()
            || self.region.is_busy()
    }

    /// A tick that was taken is not, or may not be, committed. Everything that may be missing is asked for again.
    pub(crate) fn stumble(&mut self) {
        self.look_at_arrivals();
        if self.is_owner() {
            self.backlog.clear();
            self.deliveries.clear();
            self.falls_asleep = false;
            self.hub.gone(Some(self.me));
        }
    }

    fn detach_orphans(&mut self) {
        let sessions = self.region.attached_sessions();
        let hub = &self.hub;
        let attached = sessions.map(|attach| (attach, hub.is_watched(attach.0)));
        for order in self.orphans.sweep(attached) {
            tracing::info!(group = %self.group, character = order.character, "no edge serves this session any more");
            self.backlog.detach(order);
        }
    }

    /// An edge's stream that is open, in a replica that takes another one's place.
    pub(crate) fn edge_joined(&mut self, edge: EdgeId, out: mpsc::Sender<NodeToEdge>) {
        self.hub.join(edge, out);
    }

    /// Takes in what edges did since the last look.
    pub(crate) fn look_at_arrivals(&mut self) {
        for (edge, arrival) in self.arrivals.take() {
            match arrival {
                Arrival::Joined(out) => {
                    self.hub.join(edge, out);
                    if self.is_owner() {
                        self.hub.announce_to(edge, self.stamp());
                    }
                }
                Arrival::Message(message) => self.edge_message(edge, message),
                Arrival::Left => self.hub.leave(edge),
            }
        }
    }

    fn edge_message(&mut self, edge: EdgeId, message: EdgeToRegion) {
        if !self.is_owner() {
            let leader = self.leader();
            self.hub.tell_gone(edge, leader);
            return;
        }
        if message.reset {
            self.hub.reset(edge);
        }
        if self.hub.is_unaware(edge) {
            // Farewells are said once, and are true whenever they come.
            message.detaches.into_iter().for_each(|order| self.backlog.detach(order));
            return;
        }
        self.hub.unsubscribe(edge, message.unsubscribe.into_iter().map(CellId::unpack));
        self.hub.subscribe(edge, message.subscribe.into_iter().map(CellId::unpack));
        for character in message.unwatch_sessions {
            self.hub.unwatch(edge, CharacterId(character));
        }
        for character in message.watch_sessions {
            self.hub.watch(edge, CharacterId(character));
        }
        // An attach counts from its tick on, so it stands before the inputs that follow it.
        message.attaches.into_iter().for_each(|order| self.backlog.attach(order));
        message.inputs.into_iter().for_each(|inputs| self.backlog.session(inputs));
        message.detaches.into_iter().for_each(|order| self.backlog.detach(order));
    }

    /// Queues messages of another group; the receiver is told the number up to which they are committed.
    pub(crate) fn deliver(
        &mut self,
        messages: Vec<ChannelMessage>,
    ) -> Result<oneshot::Receiver<(u64, CutNumber)>, DeliverOutcome> {
        if !self.is_owner() {
            return Err(DeliverOutcome::NotOwner(self.leader()));
        }
        let Some(last) = messages.last() else { return Err(DeliverOutcome::Taken(0, CutNumber(0))) };
        let (from, seq) = (GroupId(last.from_group), last.seq);
        let taken = self.region.taken_from(from);
        if seq <= taken {
            return Err(DeliverOutcome::Taken(taken, self.region.cut_number()));
        }
        if self.deliveries.values().map(Vec::len).sum::<usize>() >= DELIVERIES_MAX {
            return Err(DeliverOutcome::Busy);
        }
        let (tell, told) = oneshot::channel();
        self.deliveries.entry(from).or_default().push((seq, tell));
        for message in messages {
            self.backlog.message(message);
        }
        Ok(told)
    }

    pub(crate) fn receivers(&self) -> Vec<GroupId> {
        if !self.is_owner() {
            return Vec::new();
        }
        self.region.outbox().filter_map(|(to, mut messages)| messages.next().map(|_| to)).collect()
    }

    pub(crate) fn pending(&self, to: GroupId, limit: usize) -> Vec<ChannelMessage> {
        if !self.is_owner() {
            return Vec::new();
        }
        let channel = self.region.outbox().find(|(receiver, _)| *receiver == to);
        channel.map(|(_, messages)| messages.take(limit).map(|m| (**m).clone()).collect()).unwrap_or_default()
    }

    pub(crate) fn acked(&mut self, ack: ChannelAck) {
        if self.is_owner() {
            self.backlog.ack(ack);
        }
    }

    pub(crate) fn order(&mut self, order: AdminOrder) {
        if self.is_owner() {
            self.backlog.order(order);
        }
    }

    /// Another replica has this hash after a tick.
    pub(crate) fn compare(&mut self, tick: Tick, hash: u64) -> Compared {
        match self.region.hash_after(tick) {
            Some(own) => {
                if own != hash {
                    self.doubt.raise(Suspicion { tick, own });
                }
                Compared::Known(own)
            }
            None if tick > self.region.tick() => Compared::NotYet,
            None => Compared::Forgotten,
        }
    }

    /// The majority has judged: the state is the right one, or this replica owns nothing until it has another.
    pub(crate) fn judged(&mut self, sound: bool) {
        self.diverged = !sound;
        if !sound {
            self.doubt.condemn();
        }
        self.settle_ownership();
        self.publish_facts();
    }

    /// The group is opened anew on this node.
    pub(crate) fn reopen(&mut self) {
        self.role(Role::Follower { term: Term(0), leader: None });
    }

    pub(crate) fn inspect(&mut self, cut: CutNumber) -> InspectReply {
        let kept = match cut {
            CutNumber(0) => Some(self.region.view().inspect()),
            _ => self.cuts.iter().find(|c| c.number == cut).map(|c| c.view.inspect()),
        };
        match kept {
            Some(reply) => reply,
            None if self.region.world().cut_number() < cut => InspectReply {
                code: 2,
                reason: format!("{} has taken cut {}, not {cut} yet", self.group, self.region.world().cut_number()),
                ..InspectReply::default()
            },
            None => InspectReply { code: 3, reason: format!("cut {cut} is not kept any more"), ..InspectReply::default() },
        }
    }
}
