//! A player: the headless client of the released code, doing what its [`Mind`] wants, coming back after every lost socket, and telling
//! everything that it was told.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use marchland_edge::client::{ClientError, ClientOptions, Heard, Login, PlayerClient};
use marchland_proto::client::{Reply, input::What};
use marchland_proto::codes::Code;
use marchland_router_core::SignInToken;
use marchland_types::limits::LINGER_MS;
use marchland_types::seam::Clock;
use marchland_types::{CharacterId, CommandSeq, RegionId, ReplySeq, Tick};
use prost::Message;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use tokio::task::spawn_local;
use tokio::time::{Instant, interval, sleep, timeout};

use super::AWAY_MAX;
use super::node::{WORLD, edge_address, signer};
use crate::fact::{ClientId, Fact, digest, tell};
use crate::interpose;
use crate::net::SimStream;
use crate::oracle::{self, Violation};
use crate::studio::{Moment, Player as Mind, Studio};
use crate::trace_line;
use crate::world::Boot;

/// Between two inputs.
const INPUT_EVERY_MS: u32 = 100;
/// Time within which a connection must be made and joined, or else it is tried anew. A client that waits to be let in says nothing, so
/// nobody tells it that the edge has lost its power and its memory.
const CONNECT_WITHIN: Duration = Duration::from_millis(2_500);
/// A connection on which nothing was heard for this long is given up: not even a ping was answered.
const SILENT_FOR: Duration = Duration::from_millis(1_500);
/// Of so many inputs, one goes with a ping.
const PINGS_EVERY: u64 = 5;
/// A session without a client lingers for longer than this.
const SESSION_LASTS: Duration = Duration::from_millis(LINGER_MS - 3_000);
/// An edge tries to sign somebody in for less than this, and the network delivers nothing that is older.
const SIGN_IN_IN_DOUBT: Duration = Duration::from_secs(15);
/// Between two attempts.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Of a hundred attempts after a lost connection, so many go to another edge.
const TRIES_ANOTHER_EDGE: f64 = 0.8;
/// How likely it is that a player leaves instead of an input.
const LEAVES: f64 = 0.004;
/// And when it rushes.
const LEAVES_IN_A_RUSH: f64 = 0.04;
/// Waits so long for the server's farewell.
const FAREWELL_WITHIN: Duration = Duration::from_secs(3);
/// How likely it is that a player who wanders leaves a sound connection instead of an input.
const WANDERS: f64 = 0.05;
/// Half of what such a player leaves behind is not closed, and stays open for so long: a network that is gone sends no farewell.
const LEFT_OPEN_FOR: Duration = Duration::from_secs(4);
/// Of a hundred resumptions of a player who wanders, so many are given up before they can be answered.
const HASTY: f64 = 0.5;
/// They are given up within a power of two of milliseconds, up to this one: while the network is slow, the greeting alone takes long.
const HASTE_MAX_LOG2: u64 = 11;

/// What a player does beside playing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    /// Edges to connect to.
    pub(super) edges: u32,
    /// Leaves the world now and then, and signs in again.
    pub(super) leaves: bool,
    /// And then stays away for less than this.
    pub(super) away_max: Duration,
    /// Does so much more often.
    pub(super) rushes: bool,
    /// Goes from one edge to the other without need, as a telephone does that changes its network, and often does not wait for the
    /// answer. What was sent last may then arrive first.
    pub(super) wanders: bool,
}

/// What driver and player tell each other.
#[derive(Default)]
pub(super) struct Notes {
    /// The player only looks on.
    pub(super) rests: Cell<bool>,
    /// The player does not leave the world any more.
    pub(super) stays: Cell<bool>,
    /// The player is to leave the world, and to stay out of it.
    pub(super) wanted_out: Cell<bool>,
    /// And has done so.
    pub(super) is_out: Cell<bool>,
    /// Who it is in facts: its number and the epoch of its session.
    pub(super) client: Cell<Option<ClientId>>,
    pub(super) frames: Cell<u64>,
    pub(super) sign_ins: Cell<u64>,
    pub(super) goodbyes: Cell<u64>,
    pub(super) resumed: Cell<u64>,
    /// Sessions that went on through another edge.
    pub(super) moved: Cell<u64>,
    pub(super) items: Cell<u64>,
    /// Regions that it came to from another one.
    pub(super) crossed: Cell<u64>,
    region: Cell<Option<RegionId>>,
    /// Longest time between two frames of one session.
    pub(super) blackout: Cell<Duration>,
    /// Commands that are not known to be applied, or were not answered.
    pub(super) unacked: Cell<usize>,
    last_frame: Cell<Option<Instant>>,
    /// The edge of the newest connection.
    edge: Cell<u32>,
}

/// Epochs are counted within these.
pub(super) const EPOCHS_MAX: u64 = 1_000;

/// A person in one session: numbers of commands and replies begin anew with every session.
pub(super) fn client_of(person: u64, epoch: u64) -> ClientId {
    ClientId(person * EPOCHS_MAX + epoch)
}

pub(super) fn name_of(person: u64) -> String {
    format!("player {person}")
}

struct Player<P> {
    person: u64,
    habits: Habits,
    notes: Rc<Notes>,
    random: RefCell<Pcg64Mcg>,
    /// Decides what is done.
    mind: RefCell<P>,
    /// What each action that was sent is.
    sent: RefCell<BTreeMap<u64, u32>>,
    /// Until then a sign-in that was given up may still be carried out.
    in_doubt_until: Cell<Option<Instant>>,
}

/// Why a connection is no more.
enum End {
    /// It was refused, or lost.
    Lost(ClientError),
    /// The player said goodbye. Whether the server took it may be unknown.
    Left,
    /// The player went away from a connection that was sound, or might have become so.
    Wandered,
}

/// Plays until the run ends.
pub(super) async fn play<S: Studio>(
    person: u64,
    boot: Boot,
    notes: Rc<Notes>,
    random: Pcg64Mcg,
    habits: Habits,
) -> anyhow::Result<()> {
    let expires_ms = boot.hardware.clock.wall_ms() + 3_600_000;
    let token = signer().mint(&SignInToken { world: WORLD, account: format!("account-{person}"), expires_ms })?;
    let player = Player {
        person,
        habits,
        notes,
        random: RefCell::new(random),
        mind: RefCell::new(S::player(person)),
        sent: RefCell::default(),
        in_doubt_until: Cell::default(),
    };
    let sign_in = Login::SignIn { token, character_name: name_of(person) };
    let mut login = sign_in.clone();
    let mut edge = person as u32 % habits.edges + 1;
    loop {
        let end = player.attempt(&boot, &mut login, edge).await;
        let away = match end {
            End::Left => {
                login = sign_in.clone();
                let away = Duration::from_millis(player.draw(0..habits.away_max.as_millis() as u64));
                if player.stay_out().await { Duration::ZERO } else { away }
            }
            End::Wandered => {
                if let Login::Resume(key) = &mut login {
                    key.attach_number += 1;
                }
                edge = edge % habits.edges + 1;
                Duration::ZERO
            }
            End::Lost(error) => {
                match (&mut login, error.code()) {
                    (Login::Resume(_), Some(code @ (Code::BadResume | Code::Superseded))) => {
                        player.session_lost(code);
                        login = sign_in.clone();
                    }
                    (Login::Resume(key), _) => key.attach_number += 1,
                    (Login::SignIn { .. }, _) => {}
                }
                if habits.edges > 1 && player.random.borrow_mut().random_bool(TRIES_ANOTHER_EDGE) {
                    edge = edge % habits.edges + 1;
                }
                RETRY_AFTER
            }
        };
        player.stay_away(away).await;
    }
}

impl<P: Mind> Player<P> {
    /// Waits for as long as nobody is wanted in the world; `true` if that was so.
    async fn stay_out(&self) -> bool {
        while self.notes.wanted_out.get() {
            self.notes.is_out.set(true);
            sleep(RETRY_AFTER).await;
        }
        self.notes.is_out.replace(false)
    }

    /// Waits before the next attempt; one that is away for long comes back when everybody is wanted.
    async fn stay_away(&self, away: Duration) {
        let back_at = Instant::now() + away;
        sleep(away.min(AWAY_MAX)).await;
        while Instant::now() < back_at && !self.notes.stays.get() {
            sleep(RETRY_AFTER).await;
        }
    }

    /// Connects, and plays for as long as that lasts.
    async fn attempt(&self, boot: &Boot, login: &mut Login, edge: u32) -> End {
        let (transport, using) = (boot.transport.clone(), login.clone());
        let connecting = async move {
            let options = ClientOptions { tls: None, client_name: "simulation".to_owned() };
            PlayerClient::connect(&transport, &edge_address(edge), &options, &using).await
        };
        let connected = match self.haste(login) {
            Some(haste) => match self.hasty(haste, connecting).await {
                Some(connected) => connected,
                None => return End::Wandered,
            },
            None => timeout(CONNECT_WITHIN, connecting)
                .await
                .unwrap_or_else(|_| Err(ClientError::Lost(format!("not connected within {CONNECT_WITHIN:?}")))),
        };
        match connected {
            Ok(mut client) => {
                let end = self.session(&mut client, edge).await;
                *login = Login::Resume(client.resume_key());
                if matches!(end, End::Wandered) && self.leaves_open() {
                    spawn_local(async move {
                        sleep(LEFT_OPEN_FOR).await;
                        drop(client);
                    });
                }
                end
            }
            Err(error) => {
                trace_line!("not connected: {error}");
                self.gave_up(login, &error);
                End::Lost(error)
            }
        }
    }

    /// Waits for a connection no longer than this. One that is not waited for may come about all the same, and nobody is there.
    async fn hasty<C: 'static>(&self, haste: Duration, connecting: impl Future<Output = C> + 'static) -> Option<C> {
        let mut connecting = Box::pin(connecting);
        let connected = timeout(haste, connecting.as_mut()).await.ok();
        if connected.is_none() && self.leaves_open() {
            spawn_local(timeout(LEFT_OPEN_FOR, async move {
                let _nobody = connecting.await;
                pending::<()>().await;
            }));
        }
        connected
    }

    fn leaves_open(&self) -> bool {
        self.random.borrow_mut().random()
    }

    fn draw(&self, range: std::ops::Range<u64>) -> u64 {
        self.random.borrow_mut().random_range(range)
    }

    /// Plays over one connection; returns why it ended.
    async fn session(&self, client: &mut PlayerClient<SimStream>, edge: u32) -> End {
        let (epoch, attach) = (client.welcome().session_epoch, client.welcome().attach_number);
        let who = client_of(self.person, epoch);
        trace_line!("{who} is at e{edge}, next command {}", client.next_seq());
        let before = self.notes.client.replace(Some(who));
        tell(&Fact::Joined { client: who, resumed: before == Some(who), attach });
        let character = CharacterId(client.welcome().character_id);
        tell(&Fact::Claimed { client: who, name: name_of(self.person), character });
        tell(&Fact::GoesOn { client: who, next: CommandSeq(client.welcome().next_seq) });
        let came_from = self.notes.edge.replace(edge);
        if before == Some(who) {
            self.notes.resumed.set(self.notes.resumed.get() + 1);
            self.notes.moved.set(self.notes.moved.get() + u64::from(came_from != edge));
        } else {
            // Another session counts its commands anew.
            self.sent.borrow_mut().clear();
            self.notes.last_frame.set(None);
            self.notes.sign_ins.set(self.notes.sign_ins.get() + 1);
        }
        // What the region has not applied is not known to it: these numbers are given out again.
        self.sent.borrow_mut().retain(|seq, _| *seq < client.next_seq());
        let mut pulse = interval(Duration::from_millis(u64::from(INPUT_EVERY_MS)));
        pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut heard_at, mut inputs) = (Instant::now(), 0);
        let error = loop {
            let heard = tokio::select! {
                biased;
                heard = client.next() => Some(heard),
                _ = pulse.tick() => None,
            };
            if heard.is_some() {
                heard_at = Instant::now();
            } else if heard_at.elapsed() > SILENT_FOR {
                break ClientError::Lost(format!("nothing heard for {SILENT_FOR:?}"));
            }
            let done = match heard {
                Some(Ok(Heard::Frame(_))) => {
                    self.saw(who, client);
                    Ok(())
                }
                Some(Ok(Heard::Pong { .. })) => Ok(()),
                Some(Err(error)) => Err(error),
                None if self.wants_to_leave() => {
                    self.leave(who, client).await;
                    return End::Left;
                }
                None if self.wants_to_wander() => {
                    tell(&Fact::Disconnected { client: who, reason: "wanders".to_owned() });
                    return End::Wandered;
                }
                None => {
                    inputs += 1;
                    let sending = self.send(client, inputs % PINGS_EVERY == 0);
                    let stuck = |_| Err(ClientError::Lost(format!("nothing sent for {SILENT_FOR:?}")));
                    timeout(SILENT_FOR, sending).await.unwrap_or_else(stuck)
                }
            };
            self.notes.unacked.set(client.unacked().max(self.sent.borrow().len()));
            if let Err(error) = done {
                break error;
            }
        };
        tell(&Fact::Disconnected { client: who, reason: error.to_string() });
        End::Lost(error)
    }

    async fn send(&self, client: &mut PlayerClient<SimStream>, pings: bool) -> Result<(), ClientError> {
        if pings {
            client.ping(0).await?;
        }
        self.act(client).await
    }

    fn wants_to_leave(&self) -> bool {
        if self.notes.wanted_out.get() {
            return true;
        }
        let stays = self.notes.stays.get() || self.notes.rests.get() || !self.habits.leaves;
        !stays && self.random.borrow_mut().random_bool(if self.habits.rushes { LEAVES_IN_A_RUSH } else { LEAVES })
    }

    fn wants_to_wander(&self) -> bool {
        self.habits.wanders && !self.notes.stays.get() && self.random.borrow_mut().random_bool(WANDERS)
    }

    /// Within how much time this attempt is given up before anything can be wrong with it, if it is.
    fn haste(&self, login: &Login) -> Option<Duration> {
        let may = self.habits.wanders && !self.notes.stays.get() && matches!(login, Login::Resume(_));
        let hasty = may && self.random.borrow_mut().random_bool(HASTY);
        hasty.then(|| Duration::from_millis(self.draw(1..2 << self.draw(0..HASTE_MAX_LOG2))))
    }

    /// Says goodbye, and waits for the server to say it too.
    async fn leave(&self, who: ClientId, client: &mut PlayerClient<SimStream>) {
        trace_line!("{who} says goodbye");
        let farewell = async {
            if let Err(error) = client.goodbye().await {
                return error;
            }
            loop {
                match client.next().await {
                    Ok(Heard::Frame(_)) => self.saw(who, client),
                    Ok(Heard::Pong { .. }) => {}
                    Err(error) => return error,
                }
            }
        };
        match timeout(FAREWELL_WITHIN, farewell).await {
            Ok(error) if error.code() == Some(Code::Goodbye) => self.notes.goodbyes.set(self.notes.goodbyes.get() + 1),
            Ok(error) => trace_line!("{who} left, perhaps: {error}"),
            Err(_) => trace_line!("{who} left, perhaps: no farewell within {FAREWELL_WITHIN:?}"),
        }
        // What was not answered never will be.
        self.notes.unacked.set(0);
    }

    /// A sign-in without an answer may still be carried out, and then ends the session of a later one: the last to sign in has the
    /// character, and only the directory knows who was the last. An edge that gives up waiting for the directory's answer says that it is
    /// not available, or that it stops, and knows no more.
    fn gave_up(&self, login: &Login, error: &ClientError) {
        let is_unanswered = matches!(error.code(), None | Some(Code::Unavailable | Code::GoingAway));
        if matches!(login, Login::SignIn { .. }) && is_unanswered {
            self.in_doubt_until.set(Some(Instant::now() + SIGN_IN_IN_DOUBT));
        }
    }

    /// A session lasts longer than any fault of a plan: nobody may have to sign in again.
    fn session_lost(&self, code: Code) {
        if code == Code::Superseded && self.in_doubt_until.get().is_some_and(|until| Instant::now() < until) {
            trace_line!("superseded by a sign-in of its own that it had given up");
            return;
        }
        let silent = self.notes.last_frame.get().map(|at| at.elapsed());
        if let Some(silent) = silent.filter(|silent| *silent < SESSION_LASTS) {
            let what = format!("{:?} lost its session ({code:?}) {silent:?} after its last frame", self.notes.client.get());
            oracle::report(Violation::new("session-kept", what));
        }
    }

    fn saw(&self, client: ClientId, connection: &mut PlayerClient<SimStream>) {
        let now = Instant::now();
        if let Some(before) = self.notes.last_frame.replace(Some(now)) {
            self.notes.blackout.set(self.notes.blackout.get().max(now - before));
        }
        self.notes.frames.set(self.notes.frames.get() + 1);
        let view = &mut connection.view;
        let frame = view.newest();
        let (region, tick, applied) = (RegionId(frame.region), Tick(frame.tick), CommandSeq(view.applied_seq()));
        if self.notes.region.replace(Some(region)).is_some_and(|before| before != region) {
            self.notes.crossed.set(self.notes.crossed.get() + 1);
        }
        tell(&Fact::Shown { client, region, tick, applied });
        for reply in view.take_replies() {
            self.was_told(client, &reply);
        }
        if let Some(fault) = view.faults().first() {
            oracle::report(Violation::new("frames-forward", format!("{client}: {fault:?}")));
        }
    }

    fn was_told(&self, client: ClientId, reply: &Reply) {
        let digest = digest(&reply.encode_to_vec());
        tell(&Fact::Replied { client, reply: ReplySeq(reply.reply_seq), digest });
        if reply.command_seq != 0 {
            tell(&Fact::Answered { client, command: CommandSeq(reply.command_seq) });
        }
        let code = self.sent.borrow_mut().remove(&reply.command_seq);
        match self.mind.borrow_mut().told(code, reply) {
            Ok(given) => {
                for item in given {
                    self.notes.items.set(self.notes.items.get() + 1);
                    tell(&Fact::Given { client, item });
                }
            }
            Err(what) => oracle::report(Violation::new("replies-readable", format!("{client}: {what}"))),
        }
    }

    /// Sends what the player does next: a step, and perhaps actions.
    async fn act(&self, client: &mut PlayerClient<SimStream>) -> Result<(), ClientError> {
        if self.notes.rests.get() {
            return client.flush().await;
        }
        let deeds = {
            let mut random = self.random.borrow_mut();
            self.mind.borrow_mut().act(&mut Moment { view: &client.view, now: interpose::now(), random: &mut random })
        };
        // A full window is the sign of a region without an owner: nothing more is sent until it is served again.
        match client.input(What::Move(deeds.step), INPUT_EVERY_MS) {
            Ok(_) | Err(ClientError::Window) => {}
            Err(error) => return Err(error),
        }
        for action in deeds.actions {
            let code = action.code;
            match client.input(What::Action(action), 0) {
                Ok(seq) => {
                    self.sent.borrow_mut().insert(seq, code);
                }
                Err(ClientError::Window) => {}
                Err(error) => return Err(error),
            }
        }
        client.flush().await
    }
}
