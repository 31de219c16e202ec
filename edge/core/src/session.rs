//! One connection's life, from the end of the WebSocket handshake to its last message.
//!
//! ```text
//!  Fresh ──Hello──> Joining ──attached──> Playing ──Goodbye──> Leaving ──ended──> Closed
//!    │                 │                     │                    │                  ▲
//!    └─────────────────┴── refusal, time, socket, superseded ─────┴──────────────────┘
//! ```
//!
//! Getters first, then `handle_*` (something happened; effects are appended to `out`). What always holds: a message that is not
//! legal in the state closes the connection with a reason; inputs go on in order, each number once; what was given to the
//! region and is not applied yet is kept, at most [`marchland_types::limits::UNACKED_COMMANDS_MAX`] of it, and goes again to whoever owns the region next,
//! or to the region that the character moved to, once that has shown that it has the session.

mod commands;
mod join;
mod transit;

use std::time::Duration;

use bytes::Bytes;
use marchland_proto::client::{ClientMessage, Welcome, client_message::Body};
use marchland_proto::cluster::{AttachAnswer, SessionBatch, SessionEnd, SessionMoved};
use marchland_proto::codes::Code;
use marchland_proto::records::OwnState;
use marchland_proto::storage::{AttachOrder, DetachOrder, SessionInputs};
use marchland_types::limits::{
    CLIENT_MESSAGE_MAX_BYTES, CLIENT_MESSAGES_BURST, CLIENT_MESSAGES_PER_S, HELLO_DEADLINE_MS, IDLE_TIMEOUT_MS, JOIN_DEADLINE_MS,
    PINGS_BURST, PINGS_PER_S, RESUME_SECRET_BYTES,
};
use marchland_types::{AttachNumber, CharacterId, GroupId, GroupKind, SessionEpoch};
use prost::Message;

use crate::rate::TokenBucket;
use crate::replies::{Offered, Replies};
use commands::Unacked;
use join::Joining;
pub use join::{Located, SignInRefused, Whereabouts};
use transit::Transit;

/// Version of the client protocol that is spoken here.
pub const PROTOCOL_VERSION: u32 = 1;
/// How long the region may take to confirm a `Goodbye`.
const LEAVE_DEADLINE: Duration = Duration::from_secs(2);
/// Inputs that are not applied after this long go again: their owner may have dropped them.
const RESEND_AFTER: Duration = Duration::from_secs(1);
/// What a client is told to wait after a refusal that time cures, in milliseconds.
const RETRY_AFTER_MS: u32 = 1_000;

/// What a session must be told about its surroundings.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Name of the world, for `Welcome`.
    pub world_name: String,
    /// Length of a tick in game time, in milliseconds.
    pub tick_ms: u32,
    /// Time for `Hello`.
    pub hello_deadline: Duration,
    /// Time for its answer.
    pub join_deadline: Duration,
    /// Longest silence of a client.
    pub idle_timeout: Duration,
}

impl SessionConfig {
    /// The documented limits.
    #[must_use]
    pub fn of_world(name: &str) -> Self {
        Self {
            world_name: name.to_owned(),
            tick_ms: marchland_types::limits::TICK_MS as u32,
            hello_deadline: Duration::from_millis(HELLO_DEADLINE_MS),
            join_deadline: Duration::from_millis(JOIN_DEADLINE_MS),
            idle_timeout: Duration::from_millis(IDLE_TIMEOUT_MS),
        }
    }
}

/// What the shell must do, in order. Nothing needs to be durable before any of it: an edge holds no data.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Ask the directory to admit a character; answer with [`Session::handle_signed_in`].
    SignIn {
        /// Proves the account.
        token: String,
        /// Of this account's character.
        character_name: String,
        /// SHA-256 of the secret that the client will be given.
        secret_hash: [u8; 32],
        /// The same for every attempt.
        request_id: u64,
    },
    /// Find out which group holds a character; answer with [`Session::handle_located`].
    Locate {
        /// Whose.
        character: CharacterId,
    },
    /// To the region: this client is here. Its replies and own state are wanted from now on.
    Attach {
        /// Where.
        group: GroupId,
        /// What.
        order: AttachOrder,
    },
    /// The character is on its way to another region: what that says of the session is wanted from now on, and what the one before
    /// says no more. Nothing is asked of either.
    Watch {
        /// Where to.
        group: GroupId,
        /// Which.
        key: SessionKey,
    },
    /// The region that is watched has the session: frames follow its ticks from now on.
    Arrived {
        /// Where.
        group: GroupId,
    },
    /// To the region: inputs that it has not been given, or that go again.
    Inputs {
        /// Where.
        group: GroupId,
        /// What.
        inputs: SessionInputs,
    },
    /// To the region: this client is gone.
    Detach {
        /// Where.
        group: GroupId,
        /// What.
        order: DetachOrder,
    },
    /// To the client, first of all: it plays now, and frames may follow.
    Welcome(Box<Welcome>),
    /// To the client: the answer to a ping, with the edge's clock.
    Pong {
        /// What the client sent.
        client_ms: u64,
    },
    /// To the client: `Refused`, then the end of the connection. Nothing comes after it.
    Close(Refusal),
    /// The socket is gone already: forget the connection. Nothing comes after it.
    Forget,
}

/// Why a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Stable code.
    pub code: Code,
    /// English, for logs.
    pub reason: String,
    /// When to try again, in milliseconds; 0 says nothing about it.
    pub retry_after_ms: u32,
    /// Where to go instead; empty says nothing about it.
    pub other_edge: String,
}

impl Refusal {
    /// With the waiting time that suits the code.
    #[must_use]
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        let waits = matches!(code, Code::TooMany | Code::Full | Code::Unavailable | Code::NotAdmitted | Code::Internal);
        let retry_after_ms = if waits { RETRY_AFTER_MS } else { 0 };
        Self { code, reason: reason.into(), retry_after_ms, other_edge: String::new() }
    }
}

/// Which session, in which attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionKey {
    /// Whose.
    pub character: CharacterId,
    /// Raised at every sign-in.
    pub epoch: SessionEpoch,
    /// Raised at every attach.
    pub attach: AttachNumber,
}

/// A session that its region has confirmed.
#[derive(Debug)]
struct Playing {
    key: SessionKey,
    /// The region that has the character, or to which it is on its way.
    group: GroupId,
    /// The region that had it last for certain.
    home: GroupId,
    /// The highest that was heard of; 0 before the first.
    move_number: u64,
    /// `group` has not shown yet that it has the session.
    transit: Option<Transit>,
    secret_hash: [u8; 32],
    unacked: Unacked,
    replies: Replies,
    acked_reply_seq: u64,
    /// When the oldest unapplied input was given to the region, or last went again.
    given_at: Duration,
    /// The region was asked for replies that are missing here.
    asked_again: bool,
}

#[derive(Debug)]
enum State {
    /// The handshake is done, nothing was said.
    Fresh { until: Duration },
    /// `Hello` was taken.
    Joining { joining: Joining, until: Duration },
    /// `Welcome` was sent.
    Playing(Playing),
    /// `Goodbye` was taken; the region has still to apply what came before it, and then the farewell.
    Leaving { playing: Playing, told: bool, until: Duration },
    /// Over.
    Closed,
}

/// One connection's state machine.
#[derive(Debug)]
pub struct Session {
    state: State,
    secret: [u8; RESUME_SECRET_BYTES],
    request_id: u64,
    heard_at: Duration,
    messages: TokenBucket,
    pings: TokenBucket,
}

impl Session {
    /// A connection whose handshake ended at `now`. `secret` and `request_id` are fresh random values; they are used if the
    /// client signs in.
    #[must_use]
    pub fn new(now: Duration, config: &SessionConfig, secret: [u8; RESUME_SECRET_BYTES], request_id: u64) -> Self {
        Self {
            state: State::Fresh { until: now + config.hello_deadline },
            secret,
            request_id,
            heard_at: now,
            messages: TokenBucket::new(now, CLIENT_MESSAGES_PER_S, CLIENT_MESSAGES_BURST),
            pings: TokenBucket::new(now, PINGS_PER_S, PINGS_BURST),
        }
    }

    // ---- getters

    /// The session, from the moment that its character is known.
    #[must_use]
    pub fn key(&self) -> Option<SessionKey> {
        match &self.state {
            State::Joining { joining, .. } => joining.key(),
            State::Playing(playing) | State::Leaving { playing, .. } => Some(playing.key),
            State::Fresh { .. } | State::Closed => None,
        }
    }

    /// The group that it is attached to or attaches to.
    #[must_use]
    pub fn group(&self) -> Option<GroupId> {
        match &self.state {
            State::Joining { joining, .. } => joining.group(),
            State::Playing(playing) | State::Leaving { playing, .. } => Some(playing.group),
            State::Fresh { .. } | State::Closed => None,
        }
    }

    /// The region that had the session last for certain: frames follow its ticks.
    #[must_use]
    pub fn home(&self) -> Option<GroupId> {
        match &self.state {
            State::Playing(playing) | State::Leaving { playing, .. } => Some(playing.home),
            State::Fresh { .. } | State::Joining { .. } | State::Closed => None,
        }
    }

    /// Whether a region has the session for certain: else, what it says of the character is about an earlier time.
    #[must_use]
    pub fn is_at(&self, group: GroupId) -> bool {
        match &self.state {
            State::Playing(playing) | State::Leaving { playing, .. } => playing.is_at(group),
            State::Fresh { .. } | State::Joining { .. } | State::Closed => false,
        }
    }

    /// Whether frames may be sent.
    #[must_use]
    pub fn is_playing(&self) -> bool {
        matches!(self.state, State::Playing(_))
    }

    /// Whether the end was decided.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Replies that wait for a frame, while playing.
    pub fn replies_mut(&mut self) -> Option<&mut Replies> {
        match &mut self.state {
            State::Playing(playing) => Some(&mut playing.replies),
            _ => None,
        }
    }

    /// Inputs given to the region and not applied yet.
    #[must_use]
    pub fn unacked(&self) -> usize {
        match &self.state {
            State::Playing(playing) | State::Leaving { playing, .. } => playing.unacked.len(),
            _ => 0,
        }
    }

    // ---- what the client does

    /// A binary WebSocket message.
    pub fn handle_message(&mut self, now: Duration, config: &SessionConfig, bytes: Bytes, out: &mut Vec<Effect>) {
        if !self.open_for_message(now, out) {
            return;
        }
        if bytes.len() > CLIENT_MESSAGE_MAX_BYTES {
            let reason = format!("message of {} bytes, at most {CLIENT_MESSAGE_MAX_BYTES}", bytes.len());
            return self.refuse(Refusal::new(Code::TooLarge, reason), out);
        }
        let body = match ClientMessage::decode(bytes) {
            Ok(ClientMessage { body: Some(body) }) => body,
            Ok(ClientMessage { body: None }) => {
                return self.refuse(Refusal::new(Code::Malformed, "message without a body"), out);
            }
            Err(error) => return self.refuse(Refusal::new(Code::Malformed, error.to_string()), out),
        };
        self.heard_at = now;
        // The table of legal messages. Whatever is not in it is refused.
        match (&mut self.state, body) {
            (State::Fresh { .. }, Body::Hello(hello)) => self.join(now, config, hello, out),
            (State::Joining { .. } | State::Playing(_), Body::Ping(ping)) => {
                if self.pings.take(now) {
                    out.push(Effect::Pong { client_ms: ping.client_ms });
                } else {
                    self.refuse(Refusal::new(Code::TooMany, format!("more than {PINGS_PER_S} pings a second")), out);
                }
            }
            (State::Playing(_), Body::Commands(commands)) => self.take_commands(now, commands, out),
            (State::Playing(_), Body::Goodbye(_)) => self.leave(now, out),
            (State::Fresh { .. }, body @ (Body::Commands(_) | Body::Ping(_) | Body::Goodbye(_)))
            | (State::Joining { .. }, body @ (Body::Hello(_) | Body::Commands(_) | Body::Goodbye(_)))
            | (State::Playing(_), body @ Body::Hello(_)) => {
                let reason = format!("{} while {}", name_of(&body), self.state_name());
                self.refuse(Refusal::new(Code::WrongState, reason), out);
            }
            (State::Leaving { .. } | State::Closed, _) => {}
        }
    }

    /// A WebSocket control message: counts for the rate, but is no sign of life.
    pub fn handle_control(&mut self, now: Duration, out: &mut Vec<Effect>) {
        self.open_for_message(now, out);
    }

    /// A text message, or bytes that are not WebSocket.
    pub fn handle_malformed(&mut self, reason: &str, out: &mut Vec<Effect>) {
        self.refuse(Refusal::new(Code::Malformed, reason), out);
    }

    /// A message larger than the WebSocket layer takes.
    pub fn handle_too_large(&mut self, out: &mut Vec<Effect>) {
        self.refuse(Refusal::new(Code::TooLarge, format!("message above {CLIENT_MESSAGE_MAX_BYTES} bytes")), out);
    }

    /// The socket ended, or can not be written to any more.
    pub fn handle_socket_lost(&mut self, out: &mut Vec<Effect>) {
        if !self.is_closed() {
            self.detach(false, out);
            self.state = State::Closed;
            out.push(Effect::Forget);
        }
    }

    // ---- what the region says

    /// Its answer to an attach.
    pub fn handle_attached(&mut self, now: Duration, config: &SessionConfig, answer: &AttachAnswer, out: &mut Vec<Effect>) {
        match &mut self.state {
            State::Joining { .. } => self.joined(now, config, answer, out),
            State::Playing(playing) | State::Leaving { playing, .. } => {
                if answer.code == Code::Ok as u32 {
                    playing.asked_again = false;
                    playing.unacked.applied(answer.next_seq.saturating_sub(1));
                    playing.replies.offer_kept(&answer.replies);
                } else if answer.code == Code::Moved as u32 {
                    if let Some(moved) = answer.moved {
                        self.went(now, &moved, out);
                    }
                } else if answer.code == Code::NotAdmitted as u32 {
                    playing.not_admitted(now, out);
                } else {
                    self.refuse(refusal_of(answer.code, "attach refused by the region"), out);
                }
            }
            State::Fresh { .. } | State::Closed => {}
        }
    }

    /// A region says that the character went on, with its session.
    pub fn handle_moved(&mut self, now: Duration, moved: &SessionMoved, out: &mut Vec<Effect>) {
        if self.key().is_none_or(|key| (key.character.0, key.epoch.0) != (moved.character, moved.epoch)) {
            return;
        }
        match &mut self.state {
            State::Joining { joining, .. } => joining.moved(now, moved, out),
            State::Playing(_) | State::Leaving { .. } => self.went(now, moved, out),
            State::Fresh { .. } | State::Closed => {}
        }
    }

    /// The character of a session that plays is said to have gone.
    fn went(&mut self, now: Duration, moved: &SessionMoved, out: &mut Vec<Effect>) {
        match &mut self.state {
            State::Playing(playing) | State::Leaving { playing, .. } if is_region(moved) => playing.moved(now, moved, out),
            // To a vault: the session is over. One who says goodbye is told so by the region.
            State::Playing(playing) if moved.move_number > playing.move_number => {
                self.refuse(Refusal::new(Code::BadResume, "the character left the world"), out);
            }
            State::Playing(_) | State::Leaving { .. } | State::Fresh { .. } | State::Joining { .. } | State::Closed => {}
        }
    }

    /// Inputs were dropped on their way to the region: those that it has not applied go again.
    pub fn handle_inputs_lost(&mut self, now: Duration, group: GroupId, out: &mut Vec<Effect>) {
        if let State::Playing(playing) | State::Leaving { playing, .. } = &mut self.state
            && playing.is_at(group)
        {
            playing.give_again(now, out);
        }
    }

    /// What a tick of a region has for this session: replies, and what it must be shown.
    pub fn handle_batch(&mut self, now: Duration, group: GroupId, batch: &SessionBatch, out: &mut Vec<Effect>) {
        let (State::Playing(playing) | State::Leaving { playing, .. }) = &mut self.state else { return };
        if batch.epoch != playing.key.epoch.0 || !playing.shown(group, batch.move_number) {
            return;
        }
        let arrived = playing.transit.take().is_some();
        if arrived {
            playing.home = group;
            // What was asked of another region is not answered here.
            playing.asked_again = false;
            out.push(Effect::Arrived { group });
        }
        let gap = batch.replies.iter().any(|reply| playing.replies.offer(reply) == Offered::Gap);
        if gap && !playing.asked_again {
            playing.asked_again = true;
            out.push(playing.attach_effect());
        }
        if arrived {
            playing.give_all(now, out);
            self.say_goodbye(out);
        }
    }

    /// The character's own state after a tick of a region.
    pub fn handle_own_state(&mut self, now: Duration, group: GroupId, own: &OwnState, out: &mut Vec<Effect>) {
        let (State::Playing(playing) | State::Leaving { playing, .. }) = &mut self.state else { return };
        if !playing.is_at(group) {
            return;
        }
        if playing.unacked.applied(own.applied_seq) {
            playing.given_at = now;
        }
        self.say_goodbye(out);
    }

    /// The region ended this attach.
    pub fn handle_ended(&mut self, end: &SessionEnd, out: &mut Vec<Effect>) {
        let Some(key) = self.key() else { return };
        if (end.epoch, end.attach) == (key.epoch.0, key.attach.0) {
            if let State::Playing(playing) | State::Leaving { playing, .. } = &self.state {
                // The region has let go by itself.
                let group = playing.group;
                self.state = State::Closed;
                out.push(Effect::Detach { group, order: detach_order(key, false) });
                out.push(Effect::Close(refusal_of(end.code, "session ended by the region")));
            } else {
                self.refuse(refusal_of(end.code, "session ended by the region"), out);
            }
        }
    }

    /// Another process owns a region now, or the way to it was made anew: it is told everything that the old one may not
    /// have committed.
    pub fn handle_owner_changed(&mut self, now: Duration, group: GroupId, out: &mut Vec<Effect>) {
        if self.group() != Some(group) {
            return;
        }
        match &mut self.state {
            State::Joining { joining, .. } => joining.attach_again(now, out),
            State::Playing(playing) => playing.begin_again(now, out),
            State::Leaving { playing, told, .. } => {
                playing.begin_again(now, out);
                *told = false;
                self.say_goodbye(out);
            }
            State::Fresh { .. } | State::Closed => {}
        }
    }

    // ---- what time and the operator do

    /// Time passed. Call a few times a second.
    pub fn handle_time(&mut self, now: Duration, config: &SessionConfig, out: &mut Vec<Effect>) {
        match &mut self.state {
            State::Fresh { until } if now >= *until => {
                self.refuse(Refusal::new(Code::IdleTimeout, "no Hello in time"), out);
            }
            State::Joining { joining, until } => {
                if now >= *until {
                    let reason = format!("{} took too long", joining.stage_name());
                    self.refuse(Refusal::new(Code::Unavailable, reason), out);
                } else {
                    joining.handle_time(now, out);
                }
            }
            State::Playing(playing) => {
                if now.saturating_sub(self.heard_at) >= config.idle_timeout {
                    self.refuse(Refusal::new(Code::IdleTimeout, "nothing was heard from the client"), out);
                } else if let Some(transit) = &playing.transit {
                    if transit.is_lost(now, config.join_deadline) {
                        self.refuse(Refusal::new(Code::Unavailable, "no region has this character"), out);
                    } else {
                        playing.look_for(now, out);
                    }
                } else if playing.unacked.len() > 0 && now.saturating_sub(playing.given_at) >= RESEND_AFTER {
                    // With the attach: if another one is in force, its answer says so.
                    out.push(playing.attach_effect());
                    playing.give_again(now, out);
                }
            }
            State::Leaving { until, .. } if now >= *until => {
                self.detach(true, out);
                self.state = State::Closed;
                out.push(Effect::Close(Refusal::new(Code::Goodbye, "goodbye")));
            }
            State::Leaving { playing, .. } => playing.look_for(now, out),
            State::Fresh { .. } | State::Closed => {}
        }
    }

    /// This edge stops; `other_edge` is where the client may go, or empty.
    pub fn handle_shutdown(&mut self, other_edge: &str, out: &mut Vec<Effect>) {
        let refusal = Refusal { other_edge: other_edge.to_owned(), ..Refusal::new(Code::GoingAway, "this edge is stopping") };
        self.refuse(refusal, out);
    }

    /// This edge reaches nobody who could serve the client; `other_edge` may.
    pub fn handle_cut_off(&mut self, other_edge: &str, out: &mut Vec<Effect>) {
        let refusal = Refusal::new(Code::Unavailable, "this edge does not reach the world");
        self.refuse(Refusal { other_edge: other_edge.to_owned(), ..refusal }, out);
    }

    /// Another connection of this edge presented the same session and attach number: it goes on there.
    pub fn handle_superseded(&mut self, out: &mut Vec<Effect>) {
        if !self.is_closed() {
            self.state = State::Closed;
            out.push(Effect::Close(Refusal::new(Code::Superseded, "the session goes on over another connection")));
        }
    }

    /// No room for another client: refused at once.
    pub fn handle_full(&mut self, out: &mut Vec<Effect>) {
        self.refuse(Refusal::new(Code::Full, "no room for another connection"), out);
    }

    // ---- within

    /// Counts a message. `false` if nothing more is read, or it is one too many.
    fn open_for_message(&mut self, now: Duration, out: &mut Vec<Effect>) -> bool {
        if matches!(self.state, State::Leaving { .. } | State::Closed) {
            return false;
        }
        if !self.messages.take(now) {
            self.refuse(Refusal::new(Code::TooMany, format!("more than {CLIENT_MESSAGES_PER_S} messages a second")), out);
            return false;
        }
        true
    }

    fn refuse(&mut self, refusal: Refusal, out: &mut Vec<Effect>) {
        if !self.is_closed() {
            self.detach(false, out);
            self.state = State::Closed;
            out.push(Effect::Close(refusal));
        }
    }

    /// Tells the region, if it may know of this client.
    fn detach(&self, goodbye: bool, out: &mut Vec<Effect>) {
        if let (Some(key), Some(group)) = (self.key(), self.group()) {
            out.push(Effect::Detach { group, order: detach_order(key, goodbye) });
        }
    }

    fn leave(&mut self, now: Duration, out: &mut Vec<Effect>) {
        if let State::Playing(playing) = std::mem::replace(&mut self.state, State::Closed) {
            self.state = State::Leaving { playing, told: false, until: now + LEAVE_DEADLINE };
            self.say_goodbye(out);
        }
    }

    /// Once everything before it is applied: in one tick, a region takes farewells before inputs.
    fn say_goodbye(&mut self, out: &mut Vec<Effect>) {
        if let State::Leaving { playing, told, .. } = &mut self.state
            && !*told
            && playing.transit.is_none()
            && playing.unacked.len() == 0
        {
            *told = true;
            out.push(Effect::Detach { group: playing.group, order: detach_order(playing.key, true) });
        }
    }

    fn state_name(&self) -> &'static str {
        match self.state {
            State::Fresh { .. } => "fresh",
            State::Joining { .. } => "joining",
            State::Playing(_) => "playing",
            State::Leaving { .. } | State::Closed => "closing",
        }
    }
}

impl Playing {
    fn attach_effect(&self) -> Effect {
        let order = AttachOrder {
            character: self.key.character.0,
            epoch: self.key.epoch.0,
            attach: self.key.attach.0,
            secret_hash: Bytes::copy_from_slice(&self.secret_hash),
            // Not what this edge has: the region forgets what the client acknowledged, and this connection may be dead.
            last_reply_seq: self.acked_reply_seq,
        };
        Effect::Attach { group: self.group, order }
    }

    fn give_again(&mut self, now: Duration, out: &mut Vec<Effect>) {
        self.given_at = now;
        if self.unacked.len() > 0 {
            out.push(Effect::Inputs { group: self.group, inputs: self.inputs(self.unacked.all()) });
        }
    }

    /// Everything that the region may not know: inputs, or else at least what the client acknowledged.
    fn give_all(&mut self, now: Duration, out: &mut Vec<Effect>) {
        self.given_at = now;
        if self.unacked.len() > 0 || self.acked_reply_seq > 0 {
            out.push(Effect::Inputs { group: self.group, inputs: self.inputs(self.unacked.all()) });
        }
    }

    /// To an owner that knows nothing of this edge. One that has not shown the session is not given inputs.
    fn begin_again(&mut self, now: Duration, out: &mut Vec<Effect>) {
        out.push(self.attach_effect());
        match &mut self.transit {
            Some(transit) => transit.asked(now),
            None => self.give_again(now, out),
        }
    }
}

/// Whether it went to a region: else it left the world.
fn is_region(moved: &SessionMoved) -> bool {
    GroupId(moved.group).kind() == Some(GroupKind::Region)
}

fn detach_order(key: SessionKey, goodbye: bool) -> DetachOrder {
    DetachOrder { character: key.character.0, epoch: key.epoch.0, attach: key.attach.0, goodbye }
}

/// A refusal with a code that came from elsewhere.
fn refusal_of(code: u32, reason: &str) -> Refusal {
    match Code::from_u32(code) {
        Some(Code::Goodbye) => Refusal::new(Code::Goodbye, "goodbye"),
        Some(known) if known != Code::Ok => Refusal::new(known, reason),
        _ => Refusal::new(Code::Internal, format!("{reason}, code {code}")),
    }
}

fn name_of(body: &Body) -> &'static str {
    match body {
        Body::Hello(_) => "Hello",
        Body::Commands(_) => "Commands",
        Body::Ping(_) => "Ping",
        Body::Goodbye(_) => "Goodbye",
    }
}

#[cfg(test)]
mod tests;
