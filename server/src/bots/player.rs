//! One headless player: signs in, walks, gathers, comes back when it was thrown out, and never forgets.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use frontier::{Gathered, Items, action, kind};
use marchland_edge::client::{ClientError, ClientOptions, Heard, Login, PlayerClient, ResumeKey};
use marchland_proto::client::{Action, Move, Reply, input::What};
use marchland_proto::codes::Code;
use marchland_proto::net::TokioTransport;
use marchland_types::seam::Clock;
use prost::Message;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::report::{LongestGap, Shared};
use super::token;
use super::truth::Truth;
use super::walk::Walk;
use super::ways::Ways;
use super::{Behaviour, Target};
use crate::seams::SystemClock;

/// Between two commands.
const EVERY: Duration = Duration::from_millis(100);
/// A sign-in that is not answered is tried again.
const SIGN_IN_WITHIN: Duration = Duration::from_secs(10);
/// A session is resumed within this, or else elsewhere: an edge that stands still takes connections and says nothing.
const RESUME_WITHIN: Duration = Duration::from_millis(1_500);
/// Pause between two attempts. The first after a lost connection is made at once.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Without a frame for so long, the edge is asked whether it is there.
const QUIET: Duration = Duration::from_millis(200);
/// Between two such questions: the server takes five a second.
const PING_EVERY: Duration = Duration::from_millis(250);
/// After so much silence, answers to pings included, the edge counts as lost. An edge whose region has no owner does answer.
const EDGE_SILENCE: Duration = Duration::from_millis(600);
/// After so long without a frame the connection counts as lost, whatever else was heard.
const SILENCE: Duration = Duration::from_secs(5);
/// How long the last questions may take when the run ends.
const FINISH_WITHIN: Duration = Duration::from_secs(5);
/// Veins within this are worth stopping for, in metres.
const REACH_M: f32 = 1.5;

type Client = PlayerClient<tokio::net::TcpStream>;

pub(super) struct Player {
    pub(super) number: usize,
    pub(super) name: String,
    pub(super) targets: Arc<[Target]>,
    pub(super) options: ClientOptions,
    pub(super) behaviour: Behaviour,
    pub(super) clock: SystemClock,
    pub(super) shared: Arc<Shared>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) longest_gap: LongestGap,
    /// The map, for those who cross borders; asked for once for all players.
    pub(super) ways: Arc<OnceCell<Option<Ways>>>,
}

/// Why a connection was left.
enum End {
    Stopped,
    Lost(ClientError),
}

fn silent(time: Duration, what: &str) -> End {
    End::Lost(ClientError::Lost(format!("{what} for {} ms", time.as_millis())))
}

impl Player {
    pub(super) async fn run(mut self) {
        let mut truth = Truth::default();
        let mut rng = SmallRng::seed_from_u64(self.number as u64 + 1);
        let mut resume: Option<ResumeKey> = None;
        let mut target = self.number;
        while !*self.stop.borrow() {
            let within = if resume.is_some() { RESUME_WITHIN } else { SIGN_IN_WITHIN };
            // Another edge may be alive. Whichever: all players of one that died must not come to the same.
            let mut next = target + rng.random_range(1..self.targets.len().max(2));
            let mut pause = RETRY_PAUSE;
            match timeout(within, self.connect(target, resume.as_ref())).await {
                Ok(Ok(mut client)) => {
                    let welcome = client.welcome();
                    truth.joined(welcome.session_epoch, welcome.next_seq);
                    let since = self.clock.monotonic();
                    self.shared.joined();
                    let end = self.play(&mut client, &mut truth, &mut rng).await;
                    truth.figures.connected_ms += (self.clock.monotonic() - since).as_millis() as u64;
                    self.shared.left();
                    match end {
                        End::Stopped => break,
                        End::Lost(error) => {
                            truth.disconnected();
                            truth.figures.complain(format!("{}: connection lost: {error}", self.name));
                            next = self.named(&error).unwrap_or(next);
                            resume = Some(client.resume_key());
                            pause = Duration::ZERO;
                        }
                    }
                }
                Ok(Err(error)) => {
                    self.shared.failed(&error.to_string());
                    if let Some(key) = &mut resume {
                        key.attach_number += 1;
                    }
                    let refused = error.downcast_ref::<ClientError>();
                    next = refused.and_then(|refused| self.named(refused)).unwrap_or(next);
                    if refused.and_then(ClientError::code) == Some(Code::BadResume) {
                        resume = None;
                    }
                }
                Err(_) => {
                    self.shared.failed("no connection in time");
                    if let Some(key) = &mut resume {
                        key.attach_number += 1;
                    }
                }
            }
            target = next;
            let _ = timeout(pause, self.stop.wait_for(|stop| *stop)).await;
        }
        self.shared.finish(&truth.figures);
    }

    /// The edge that the server named instead of itself.
    fn named(&self, error: &ClientError) -> Option<usize> {
        let named = Target::parse(error.other_edge()?, Some("")).ok()?;
        self.targets.iter().position(|target| target.address == named.address)
    }

    async fn connect(&self, target: usize, resume: Option<&ResumeKey>) -> anyhow::Result<Client> {
        let target = &self.targets[target % self.targets.len()];
        if self.behaviour == Behaviour::Cross {
            self.ways.get_or_init(|| learn_ways(&target.http)).await;
        }
        let login = match resume {
            Some(key) => Login::Resume(key.clone()),
            None => Login::SignIn { token: token::fetch(&target.http, &self.name).await?, character_name: self.name.clone() },
        };
        Ok(PlayerClient::connect(&TokioTransport, &target.address, &self.options, &login).await?)
    }

    /// Plays until the run ends or the connection does.
    async fn play(&mut self, client: &mut Client, truth: &mut Truth, rng: &mut SmallRng) -> End {
        let mut walk = Walk::new(rng, self.number);
        // Phases are spread, so that a thousand players do not speak at once.
        let mut next = Instant::now() + EVERY.mul_f64(rng.random_range(0.0..1.0));
        let (mut heard_at, mut frame_at, mut pinged_at) = (Instant::now(), Instant::now(), Instant::now());
        let mut stopping: Option<(Instant, u64)> = None;
        loop {
            let wait = timeout_at(next, client.next());
            let heard = tokio::select! {
                heard = wait => heard,
                _ = self.stop.changed(), if stopping.is_none() => {
                    // The last questions: is everything still there that we were given?
                    let asked = ask(client, truth, self.clock.monotonic(), action::INVENTORY, Bytes::new());
                    match asked {
                        Ok(seq) => stopping = Some((Instant::now() + FINISH_WITHIN, seq)),
                        Err(_) => return End::Stopped,
                    }
                    if client.flush().await.is_err() {
                        return End::Stopped;
                    }
                    continue;
                }
            };
            match heard {
                Ok(Ok(Heard::Frame(info))) => {
                    heard_at = Instant::now();
                    frame_at = heard_at;
                    let behind_ms = self.clock.wall_ms().saturating_sub(info.server_ms);
                    let now = self.clock.monotonic();
                    if let Some(gap) = truth.frame(&client.view, info.size_bytes, info.region, behind_ms, now) {
                        self.longest_gap.note(&self.shared, gap);
                    }
                    self.shared.frame(info.size_bytes);
                    for reply in client.view.take_replies() {
                        self.reply(truth, &reply);
                        if stopping.is_some_and(|(_, seq)| seq == reply.command_seq) {
                            let _ = client.goodbye().await;
                            return End::Stopped;
                        }
                    }
                    drop(client.view.take_area_events());
                }
                Ok(Ok(Heard::Pong { .. })) => heard_at = Instant::now(),
                Ok(Err(error)) => return End::Lost(error),
                Err(_) => {
                    next = (next + EVERY).max(Instant::now());
                    if let Some((deadline, _)) = stopping {
                        if Instant::now() > deadline {
                            truth.figures.complain(format!("{}: no answer to the last question", self.name));
                            return End::Stopped;
                        }
                        continue;
                    }
                    if frame_at.elapsed() > SILENCE {
                        return silent(SILENCE, "no frame");
                    }
                    if heard_at.elapsed() > EDGE_SILENCE {
                        return silent(EDGE_SILENCE, "nothing heard");
                    }
                    let asks = frame_at.elapsed() > QUIET && pinged_at.elapsed() > PING_EVERY;
                    let asked = if asks {
                        pinged_at = Instant::now();
                        client.ping(0).await
                    } else {
                        Ok(())
                    };
                    let done = match asked {
                        Ok(()) => self.act(client, truth, &mut walk, rng).await,
                        Err(error) => Err(error),
                    };
                    match done {
                        // With a full window nothing more can be sent before something is acknowledged: wait.
                        Ok(()) | Err(ClientError::Window) => {}
                        Err(error) => return End::Lost(error),
                    }
                }
            }
        }
    }

    fn reply(&self, truth: &mut Truth, reply: &Reply) {
        if reply.code != Code::Ok as u32 {
            return;
        }
        if let Ok(gathered) = Gathered::decode(reply.body.clone())
            && gathered.item != 0
        {
            truth.gathered(reply.command_seq, gathered.item);
            self.shared.gathered();
        } else if let Ok(items) = Items::decode(reply.body.clone()) {
            truth.inventory(&items.items.iter().map(|i| i.id).collect::<Vec<_>>());
        }
    }

    /// One command: a step, or a grab at ore.
    async fn act(&self, client: &mut Client, truth: &mut Truth, walk: &mut Walk, rng: &mut SmallRng) -> Result<(), ClientError> {
        let now = self.clock.monotonic();
        let own = client.view.own();
        let here = [own.x, own.z];
        let vein = match self.behaviour {
            Behaviour::Gather => nearest_vein(client, here),
            Behaviour::Wander | Behaviour::Crowd | Behaviour::Cross => None,
        };
        match vein {
            Some((_, distance_m)) if distance_m < REACH_M && walk.may_gather() => {
                ask(client, truth, now, action::GATHER, Bytes::new())?;
            }
            _ => {
                match self.behaviour {
                    Behaviour::Cross => {
                        let region = client.view.newest().region;
                        let known = self.ways.get().and_then(Option::as_ref);
                        if !known.is_some_and(|ways| walk.cross_by(ways, here, region)) {
                            walk.cross(rng, here, region);
                        }
                    }
                    Behaviour::Wander | Behaviour::Gather | Behaviour::Crowd => {
                        walk.step(rng, here, vein.filter(|(_, d)| *d >= REACH_M).map(|(at, _)| at));
                    }
                }
                let [x, z] = walk.direction();
                let what = What::Move(Move { x, z, yaw: walk.yaw() });
                let seq = client.input(what, EVERY.as_millis() as u32)?;
                truth.sent(seq, now);
            }
        }
        self.shared.sent();
        client.flush().await
    }
}

/// The map, or nothing: then one finds the way without it.
async fn learn_ways(http: &str) -> Option<Ways> {
    let map = token::fetch_map(http).await.and_then(|json| Ways::parse(&json));
    map.inspect_err(|error| tracing::warn!(%error, "players cross borders without a map")).ok()
}

fn ask(client: &mut Client, truth: &mut Truth, now: Duration, code: u32, body: Bytes) -> Result<u64, ClientError> {
    let seq = client.input(What::Action(Action { code, body }), 0)?;
    truth.sent(seq, now);
    Ok(seq)
}

fn nearest_vein(client: &Client, here: [f32; 2]) -> Option<([f32; 2], f32)> {
    let veins = client.view.others().filter(|(_, other)| other.kind == kind::ORE);
    veins
        .map(|(_, other)| {
            let [x, _, z] = other.position();
            ([x, z], (x - here[0]).hypot(z - here[1]))
        })
        .min_by(|a, b| a.1.total_cmp(&b.1))
}

/// Starts players a few at a time, so that their sign-ins do not stand in each other's way.
pub(super) async fn start_all(players: Vec<Player>, tasks: &mut tokio::task::JoinSet<()>) {
    for (index, player) in players.into_iter().enumerate() {
        tasks.spawn(player.run());
        if index % 10 == 9 {
            sleep(Duration::from_millis(10)).await;
        }
    }
}
