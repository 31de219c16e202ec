//! A player: the headless client of the released code, walking to ore, gathering it, dropping some and picking it up again, coming
//! back after every lost socket, and telling everything that it was told.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::f32::consts::TAU;
use std::rc::Rc;
use std::time::Duration;

use frontier::{Drop, Gather, Gathered, PickUp, action, kind};
use marchland_edge::client::{ClientError, ClientOptions, Heard, Login, PlayerClient};
use marchland_proto::client::{Action, Move, Reply, input::What};
use marchland_proto::codes::Code;
use marchland_router_core::SignInToken;
use marchland_types::limits::LINGER_MS;
use marchland_types::seam::Clock;
use marchland_types::{CommandSeq, ItemId, RegionId, ReplySeq, Tick};
use prost::Message;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use tokio::time::{Instant, interval, sleep, timeout};

use super::node::{EDGE_ADDRESS, WORLD, signer};
use crate::fact::{ClientId, Fact, digest, tell};
use crate::net::SimStream;
use crate::oracle::{self, Violation};
use crate::trace_line;
use crate::world::Boot;

/// Between two inputs.
const INPUT_EVERY_MS: u32 = 100;
/// Time within which a connection must be made and joined; the edge has its own, shorter deadlines.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);
/// A session without a client lingers for longer than this.
const SESSION_LASTS: Duration = Duration::from_millis(LINGER_MS - 3_000);
/// Between two attempts.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// What driver and player tell each other.
#[derive(Default)]
pub(super) struct Notes {
    /// The player only looks on.
    pub(super) rests: Cell<bool>,
    /// Who it is in facts: its number and the epoch of its session.
    pub(super) client: Cell<Option<ClientId>>,
    pub(super) frames: Cell<u64>,
    pub(super) sign_ins: Cell<u64>,
    pub(super) resumed: Cell<u64>,
    pub(super) items: Cell<u64>,
    /// Longest time between two frames of one session.
    pub(super) blackout: Cell<Duration>,
    /// Commands that are not known to be applied.
    pub(super) unacked: Cell<usize>,
    last_frame: Cell<Option<Instant>>,
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

struct Player {
    person: u64,
    notes: Rc<Notes>,
    random: RefCell<Pcg64Mcg>,
    /// What each action that was sent is.
    sent: RefCell<BTreeMap<u64, u32>>,
    bag: RefCell<Vec<u64>>,
    heading: Cell<Option<(f32, Instant)>>,
    stood_at: Cell<([f32; 2], Option<Instant>)>,
}

/// Plays until the run ends.
pub(super) async fn play(person: u64, boot: Boot, notes: Rc<Notes>, random: Pcg64Mcg) -> anyhow::Result<()> {
    let expires_ms = boot.hardware.clock.wall_ms() + 3_600_000;
    let token = signer().mint(&SignInToken { world: WORLD, account: format!("account-{person}"), expires_ms })?;
    let player = Player {
        person,
        notes,
        random: RefCell::new(random),
        sent: RefCell::default(),
        bag: RefCell::default(),
        heading: Cell::new(None),
        stood_at: Cell::default(),
    };
    let sign_in = Login::SignIn { token, character_name: name_of(person) };
    let mut login = sign_in.clone();
    loop {
        let options = ClientOptions { tls: None, client_name: "simulation".to_owned() };
        let connecting = PlayerClient::connect(&boot.transport, EDGE_ADDRESS, &options, &login);
        let refused = match timeout(CONNECT_WITHIN, connecting).await {
            Ok(Ok(mut client)) => {
                let error = player.session(&mut client).await;
                login = Login::Resume(client.resume_key());
                error.code()
            }
            Ok(Err(error)) => {
                trace_line!("not connected: {error}");
                error.code()
            }
            Err(_) => {
                trace_line!("not connected within {CONNECT_WITHIN:?}");
                None
            }
        };
        match (&mut login, refused) {
            (_, Some(code @ (Code::BadResume | Code::Superseded))) => {
                player.session_lost(code);
                login = sign_in.clone();
            }
            (Login::Resume(key), _) => key.attach_number += 1,
            (Login::SignIn { .. }, _) => {}
        }
        sleep(RETRY_AFTER).await;
    }
}

impl Player {
    /// Plays over one connection; returns why it ended.
    async fn session(&self, client: &mut PlayerClient<SimStream>) -> ClientError {
        let (epoch, attach) = (client.welcome().session_epoch, client.welcome().attach_number);
        let who = client_of(self.person, epoch);
        trace_line!("{who} joined with attach {attach}, next command {}", client.next_seq());
        let joined = if self.notes.client.replace(Some(who)) == Some(who) { &self.notes.resumed } else { &self.notes.sign_ins };
        joined.set(joined.get() + 1);
        let mut pulse = interval(Duration::from_millis(u64::from(INPUT_EVERY_MS)));
        pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let error = loop {
            let heard = tokio::select! {
                biased;
                heard = client.next() => Some(heard),
                _ = pulse.tick() => None,
            };
            let done = match heard {
                Some(Ok(Heard::Frame(_))) => {
                    self.saw(who, client);
                    Ok(())
                }
                Some(Ok(Heard::Pong { .. })) => Ok(()),
                Some(Err(error)) => Err(error),
                None => self.act(client).await,
            };
            self.notes.unacked.set(client.unacked());
            if let Err(error) = done {
                break error;
            }
        };
        trace_line!("{who} lost its connection: {error}");
        error
    }

    /// A session lasts longer than any fault of a plan: nobody may have to sign in again.
    fn session_lost(&self, code: Code) {
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
        let what = self.sent.borrow_mut().remove(&reply.command_seq);
        if what != Some(action::GATHER) || reply.code != Code::Ok as u32 {
            return;
        }
        match Gathered::decode(&*reply.body) {
            Ok(gathered) => {
                self.bag.borrow_mut().push(gathered.item);
                self.notes.items.set(self.notes.items.get() + 1);
                tell(&Fact::Given { client, item: ItemId(gathered.item) });
            }
            Err(error) => oracle::report(Violation::new("replies-readable", format!("{client}: {error}"))),
        }
    }

    /// Sends the next input: a step, and now and then an action.
    async fn act(&self, client: &mut PlayerClient<SimStream>) -> Result<(), ClientError> {
        if self.notes.rests.get() {
            return client.flush().await;
        }
        let (heading, at_ore) = self.heading(client);
        let (z, x) = heading.sin_cos();
        let speed = if at_ore { 0.0 } else { 1.0 };
        let step = Move { x: x * speed, z: z * speed, yaw: (heading.rem_euclid(TAU) / TAU * 256.0) as u32 & 255 };
        let action = self.next_action(at_ore);
        // A full window is the sign of a region without an owner: nothing more is sent until it is served again.
        match client.input(What::Move(step), INPUT_EVERY_MS) {
            Ok(_) | Err(ClientError::Window) => {}
            Err(error) => return Err(error),
        }
        if let Some(Action { code, .. }) = action
            && let Some(action) = action_input(action)
        {
            match client.input(action, 0) {
                Ok(seq) => {
                    self.sent.borrow_mut().insert(seq, code);
                }
                Err(ClientError::Window) => {}
                Err(error) => return Err(error),
            }
        }
        client.flush().await
    }

    /// Where to walk, and whether ore is within reach. Whoever stands still without meaning to takes another way for a while.
    fn heading(&self, client: &PlayerClient<SimStream>) -> (f32, bool) {
        let own = client.view.own();
        let ore = client.view.others().filter(|(_, other)| other.kind == kind::ORE);
        let nearest = ore
            .map(|(_, other)| {
                let [x, _, z] = other.position();
                (x - own.x, z - own.z)
            })
            .min_by(|a, b| a.0.hypot(a.1).total_cmp(&b.0.hypot(b.1)));
        let now = Instant::now();
        if let Some((dx, dz)) = nearest
            && dx.hypot(dz) < 1.5
        {
            return (dz.atan2(dx), true);
        }
        if let Some((heading, until)) = self.heading.get()
            && now < until
        {
            return (heading, false);
        }
        let (place, since) = self.stood_at.get();
        if (own.x - place[0]).hypot(own.z - place[1]) > 0.3 || since.is_none() {
            self.stood_at.set(([own.x, own.z], Some(now)));
        } else if since.is_some_and(|since| now - since > Duration::from_millis(600)) || nearest.is_none() {
            let detour = self.random.borrow_mut().random_range(0.0..TAU);
            self.heading.set(Some((detour, now + Duration::from_millis(1_200))));
            self.stood_at.set(([own.x, own.z], None));
            return (detour, false);
        }
        (nearest.map_or(0.0, |(dx, dz)| dz.atan2(dx)), false)
    }

    fn next_action(&self, at_ore: bool) -> Option<Action> {
        let mut random = self.random.borrow_mut();
        if at_ore && random.random_bool(0.2) {
            return Some(Action { code: action::GATHER, body: Gather {}.encode_to_vec().into() });
        }
        if random.random_bool(0.03)
            && let Some(item) = self.bag.borrow_mut().pop()
        {
            return Some(Action { code: action::DROP, body: Drop { item }.encode_to_vec().into() });
        }
        random.random_bool(0.03).then(|| Action { code: action::PICK_UP, body: PickUp {}.encode_to_vec().into() })
    }
}

fn action_input(action: Option<Action>) -> Option<What> {
    action.map(What::Action)
}
