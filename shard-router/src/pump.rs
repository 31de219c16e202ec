//! Delivering channels: what is posted reaches each receiver once and in order, over any number of crashes.
//!
//! The pump is driven by replicated state alone. It sends what is not acknowledged, from the first message on; the receiver
//! takes each number once; what it has taken is acknowledged back into the sender's log, which trims the channel:
//!
//! ```text
//! outbox of the sender (replicated)      5 6 7
//!   deliver 5 6 7 ──▶ receiver commits 5 6, dies   ─ no answer ─▶ deliver 5 6 7 again
//!                     new owner: has 6, takes 7    ─ taken 7 ──▶ acknowledge 7 ─▶ outbox empty
//! ```
//!
//! A region answers at its tick, so two deliveries may be under way for a receiver: what is posted while one waits does not wait
//! for its answer. Each carries everything that is not known to be taken, so neither needs the other to arrive. None is under way
//! while this replica does not lead. An old leader may still be delivering: it sends the same messages, and the receiver takes
//! them once.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use marchland_proto::cluster::DeliverRequest;
use marchland_proto::codes::Code;
use marchland_proto::storage::{ChannelAck, ChannelMessage};
use marchland_raft::Role;
use marchland_types::{GroupId, planted, point};
use prost::Message;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::delivery::Deliver;
use crate::options::PumpOptions;

/// Why an outbox could not be read or trimmed. The pump tries again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("outbox: {0}")]
pub struct OutboxError(pub String);

/// The channels from one group, as its replica here knows them.
pub trait Outbox: Send + Sync + 'static {
    /// Changes whenever something was posted. Never closes while the outbox lives.
    fn posted(&self) -> watch::Receiver<u64>;

    /// Groups with unacknowledged messages.
    fn receivers(&self) -> impl Future<Output = Result<Vec<GroupId>, OutboxError>> + Send;

    /// The first unacknowledged messages to a group, at most `limit`, with consecutive numbers.
    fn pending(&self, to: GroupId, limit: usize) -> impl Future<Output = Result<Vec<ChannelMessage>, OutboxError>> + Send;

    /// A receiver has taken messages: record it in the group's log. May return before that has happened; it is told again for
    /// as long as the messages are pending.
    fn acked(&self, ack: ChannelAck) -> impl Future<Output = Result<(), OutboxError>> + Send;
}

/// Delivers the channels of one group while its replica here leads.
pub struct ChannelPump<O, D> {
    group: GroupId,
    outbox: Arc<O>,
    delivery: Arc<D>,
    options: PumpOptions,
}

impl<O, D> Clone for ChannelPump<O, D> {
    fn clone(&self) -> Self {
        Self { group: self.group, outbox: self.outbox.clone(), delivery: self.delivery.clone(), options: self.options.clone() }
    }
}

/// What a delivery led to.
enum Progress {
    /// Up to which number, and the receiver's cut by then.
    Taken(u64, u64),
    /// Less was taken than was thought.
    Back(u64, u64),
    None(String),
}

impl<O: Outbox, D: Deliver> ChannelPump<O, D> {
    /// For the channels from `group`.
    pub fn new(group: GroupId, outbox: Arc<O>, delivery: Arc<D>, options: PumpOptions) -> Self {
        Self { group, outbox, delivery, options }
    }

    /// Pumps until the sender of `roles` is gone or the replica has stopped. Dropping the future stops it at once.
    pub async fn run(&self, mut roles: watch::Receiver<Role>) {
        loop {
            let role = *roles.borrow_and_update();
            match role {
                Role::Stopped => return,
                Role::Leader(_) => {
                    tokio::select! {
                        biased;
                        changed = roles.changed() => if changed.is_err() { return },
                        () = self.lead() => {}
                    }
                }
                Role::Follower { .. } | Role::Learner { .. } => {
                    if roles.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Serves every receiver that has messages waiting.
    async fn lead(&self) {
        let mut posted = self.outbox.posted();
        let mut serving = BTreeSet::new();
        let mut tasks = JoinSet::new();
        loop {
            // Before the receivers are read: what is posted after wakes this loop again.
            posted.borrow_and_update();
            let again = match self.outbox.receivers().await {
                Ok(receivers) => {
                    for to in receivers {
                        if serving.len() < self.options.destinations_at_once && serving.insert(to) {
                            let pump = self.clone();
                            tasks.spawn(async move {
                                pump.serve(to).await;
                                to
                            });
                        }
                    }
                    None
                }
                Err(error) => {
                    tracing::warn!(group = %self.group, %error, "outbox can not be read");
                    Some(Duration::from_millis(self.options.pause_max_ms))
                }
            };
            tokio::select! {
                biased;
                // A task that panicked has said so; its receiver is served no more until this replica leads anew.
                Some(done) = tasks.join_next(), if !tasks.is_empty() => if let Ok(to) = done { serving.remove(&to); },
                changed = posted.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(again.unwrap_or_default()), if again.is_some() => {}
            }
        }
    }

    /// Delivers to one receiver until nothing is pending.
    async fn serve(&self, to: GroupId) {
        let mut posted = self.outbox.posted();
        // What the receiver is known to have taken, though the channel may not be trimmed yet.
        let mut ack = ChannelAck { from_group: to.0, seq: 0, cut: 0 };
        let mut pause_ms = self.options.pause_ms;
        // Deliveries under way, and the last message that they carry.
        let mut calls = JoinSet::new();
        let mut sent = 0;
        loop {
            // Before the outbox is read: what is posted after wakes this loop again.
            posted.borrow_and_update();
            let mut failed = None;
            match self.outbox.pending(to, self.options.batch_messages).await {
                Err(error) => failed = Some(error.to_string()),
                Ok(pending) => {
                    let first = pending.first().map(|m| m.seq);
                    let messages = self.batch(pending, ack.seq);
                    match (first, messages.last().map(|m| m.seq)) {
                        (Some(first), Some(last)) if calls.is_empty() || last > sent => {
                            sent = last;
                            let (pump, taken) = (self.clone(), ack.seq);
                            calls.spawn(async move { pump.deliver(to, first, taken, messages).await });
                        }
                        (Some(_), _) if calls.is_empty() => failed = Some("not trimmed yet".into()),
                        (None, _) if calls.is_empty() => return,
                        _ => {}
                    }
                }
            }
            if !calls.is_empty() {
                let answered = tokio::select! {
                    biased;
                    done = calls.join_next() => done,
                    changed = posted.changed(), if failed.is_none() && calls.len() < self.options.deliveries_at_once => {
                        // The sender of posts is gone: this replica is closing, and what is under way is still heard of.
                        if changed.is_err() { calls.join_next().await } else { continue }
                    }
                };
                match answered {
                    Some(Ok(Progress::Taken(seq, cut))) => (ack.seq, ack.cut) = (ack.seq.max(seq), ack.cut.max(cut)),
                    Some(Ok(Progress::Back(seq, cut))) => (ack.seq, ack.cut) = (seq, ack.cut.max(cut)),
                    // Another one is under way with the same messages: it may fare better.
                    Some(Ok(Progress::None(why))) => failed = Some(why).filter(|_| calls.is_empty()),
                    // It has said why.
                    Some(Err(_)) => failed = Some("a delivery panicked".into()),
                    None => {}
                }
            }
            point!("pump.before_trim");
            let acked = if ack.seq > 0 { self.outbox.acked(ack).await.map_err(|e| e.to_string()) } else { Ok(()) };
            match failed.or(acked.err()) {
                None => pause_ms = self.options.pause_ms,
                Some(why) => {
                    tracing::debug!(group = %self.group, %to, %why, "delivery pauses");
                    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                    pause_ms = (pause_ms * 2).min(self.options.pause_max_ms);
                }
            }
        }
    }

    /// What one delivery carries of the messages that follow `taken`.
    fn batch(&self, pending: Vec<ChannelMessage>, taken: u64) -> Vec<ChannelMessage> {
        let mut messages = Vec::new();
        let mut bytes = 0;
        for message in pending.into_iter().filter(|m| m.seq > taken) {
            bytes += message.encoded_len();
            if !messages.is_empty() && bytes > self.options.batch_bytes {
                break;
            }
            messages.push(message);
        }
        messages
    }

    /// One delivery of what follows `taken`. `first` is the first message that has not been trimmed.
    async fn deliver(&self, to: GroupId, first: u64, taken: u64, messages: Vec<ChannelMessage>) -> Progress {
        // Planted: the outbox is trimmed when messages are sent, not when they are taken.
        if planted!("outbox-trimmed-early")
            && let Some(last) = messages.last()
        {
            drop(self.outbox.acked(ChannelAck { from_group: to.0, seq: last.seq, cut: 0 }).await);
        }
        let last = messages.last().map_or(taken, |m| m.seq);
        let request = DeliverRequest { to_group: to.0, messages };
        point!("pump.before_deliver");
        let deadline = Duration::from_millis(self.options.deliver_ms);
        let answer = tokio::time::timeout(deadline, self.delivery.deliver(request)).await;
        // Planted: what got no answer is passed over, here and by the receiver.
        if planted!("gap-accepted") && !matches!(answer, Ok(Ok(_))) {
            return Progress::Taken(last, 0);
        }
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Progress::None(error.to_string()),
            Err(_) => return Progress::None(format!("no answer within {deadline:?}")),
        };
        match Code::from_u32(answer.code) {
            Some(Code::Ok | Code::Gap | Code::Unavailable) if answer.taken_seq > taken && answer.taken_seq >= first => {
                Progress::Taken(answer.taken_seq, answer.cut)
            }
            Some(Code::Gap) if answer.taken_seq + 1 < first => {
                // The channel begins behind what the receiver needs: one of the two has lost what it had committed.
                tracing::error!(group = %self.group, %to, taken = answer.taken_seq, first, "receiver lacks trimmed messages");
                Progress::None(format!("receiver is at {}, {first} is the first one left", answer.taken_seq))
            }
            // What was thought to be taken is not: go by what the receiver says now.
            Some(Code::Gap) if answer.taken_seq < taken => Progress::Back(answer.taken_seq, answer.cut),
            Some(Code::Ok | Code::Gap | Code::Unavailable) => {
                Progress::None(format!("nothing taken beyond {}", answer.taken_seq))
            }
            code => {
                tracing::warn!(group = %self.group, %to, ?code, "receiver refuses messages");
                Progress::None(format!("refused with {code:?}"))
            }
        }
    }
}
