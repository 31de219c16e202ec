//! Players of the demo world: they walk to the ore they see, gather, lay things down and pick them up, and note everything.
//!
//! A player that loses its socket goes on over another edge with its secret; when its session is gone, it signs in again. It keeps no
//! opinion of what the server should do: that is the checker's.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail};
use frontier::{Drop as DropItem, Gathered, Items, action, kind};
use marchland_edge::client::{ClientError, ClientOptions, Heard, Login, PlayerClient, ResumeKey};
use marchland_proto::client::input::What;
use marchland_proto::client::{Action, Move};
use marchland_proto::codes::Code;
use marchland_proto::net::TokioTransport;
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::history::{Fact, History, Op};
use crate::web;

/// Between two commands of a player.
const COMMAND_EVERY: Duration = Duration::from_millis(100);
/// Longest time for a connection to be attached.
const ATTACH_WITHIN: Duration = Duration::from_secs(12);
/// Longest time for what was written to leave.
const SEND_WITHIN: Duration = Duration::from_secs(2);
/// A connection on which nothing comes for this long is given up.
const SILENT_MAX: Duration = Duration::from_secs(5);
/// Pause before another attempt to connect.
const PAUSE: Duration = Duration::from_millis(150);
/// From here on, gathering succeeds.
const REACH_M: f32 = frontier::REACH_M - 0.3;

/// What the players are told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Play.
    Play,
    /// Send nothing new, wait until everything is answered, ask for the inventory, note it, and end.
    Settle,
}

/// Where an edge is, and where it hands out tokens.
#[derive(Clone, Debug)]
pub struct Door {
    /// `host:port` for players.
    pub players: String,
    /// `http://host:port`.
    pub http: String,
}

/// Plays as `name` until it has settled. `number` tells players apart in what they choose.
pub async fn play(
    name: String,
    number: u64,
    doors: Vec<Door>,
    history: History,
    phase: watch::Receiver<Phase>,
    settle_within: Duration,
) -> anyhow::Result<()> {
    let mut player = Player {
        name,
        chance: number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        doors,
        history,
        phase,
        door: number as usize,
        key: None,
        held: BTreeSet::new(),
        noted_applied: 0,
        questions: BTreeSet::new(),
        inventory_told: 0,
        heading: (0.0, 0.0),
    };
    let mut must_settle_by = None;
    loop {
        if *player.phase.borrow() == Phase::Settle {
            let end = *must_settle_by.get_or_insert_with(|| Instant::now() + settle_within);
            if Instant::now() > end {
                bail!("{} did not settle within {settle_within:?}", player.name);
            }
        }
        let client = match player.connect().await {
            Ok(client) => client,
            Err(error) => {
                tracing_line(&player.name, &error);
                sleep(PAUSE).await;
                continue;
            }
        };
        if player.stay(client, must_settle_by.map(|end| end + SILENT_MAX)).await? {
            return Ok(());
        }
    }
}

/// Refused connections are usual while nodes are down: shown only on request.
fn tracing_line(name: &str, error: &anyhow::Error) {
    if std::env::var_os("MARCHLAND_VERBOSE").is_some() {
        eprintln!("{name}: {error:#}");
    }
}

type Client = PlayerClient<TcpStream>;

struct Player {
    name: String,
    chance: u64,
    doors: Vec<Door>,
    history: History,
    phase: watch::Receiver<Phase>,
    door: usize,
    key: Option<ResumeKey>,
    held: BTreeSet<u64>,
    noted_applied: u64,
    /// Numbers of commands that ask for the inventory, in the session's epoch.
    questions: BTreeSet<u64>,
    /// The newest of them that was answered.
    inventory_told: u64,
    heading: (f32, f32),
}

impl Player {
    fn note(&self, fact: Fact) {
        self.history.note(&self.name, fact);
    }

    /// A number below `limit`, from the player's own generator (xorshift).
    fn below(&mut self, limit: u64) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance % limit
    }

    async fn connect(&mut self) -> anyhow::Result<Client> {
        self.door += 1;
        let door = self.doors[self.door % self.doors.len()].clone();
        let resumed = self.key.is_some();
        let login = match &self.key {
            Some(key) => Login::Resume(key.clone()),
            None => {
                let (code, body) = web::get(&door.http, &format!("/play/token?name={}", self.name)).await?;
                anyhow::ensure!(code == 200, "no token: {code} {body}");
                let answer: serde_json::Value = serde_json::from_str(&body)?;
                let token = answer["token"].as_str().context("an answer without a token")?.to_owned();
                Login::SignIn { token, character_name: self.name.clone() }
            }
        };
        // Counted before the attempt: one that got no answer may have been taken.
        if let Some(key) = &mut self.key {
            key.attach_number += 1;
        }
        let options = ClientOptions { client_name: "jepsen".into(), ..ClientOptions::default() };
        let attempt = PlayerClient::connect(&TokioTransport, &door.players, &options, &login);
        let client = match timeout(ATTACH_WITHIN, attempt).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => {
                if matches!(error.code(), Some(Code::BadResume | Code::Superseded)) {
                    self.key = None;
                }
                return Err(error).with_context(|| format!("at {}", door.players));
            }
            Err(_) => bail!("no Welcome from {} within {ATTACH_WITHIN:?}", door.players),
        };
        let welcome = client.welcome();
        if !resumed {
            self.noted_applied = 0;
            self.inventory_told = 0;
            self.questions.clear();
        }
        self.note(Fact::Attached {
            edge: door.players,
            character: welcome.character_id,
            epoch: welcome.session_epoch,
            attach: welcome.attach_number,
            next_seq: welcome.next_seq,
            resumed,
        });
        Ok(client)
    }

    /// Plays over one connection. Tells whether the player has settled; else the connection is lost.
    async fn stay(&mut self, mut client: Client, settle_by: Option<Instant>) -> anyhow::Result<bool> {
        let reason = match self.converse(&mut client, settle_by).await {
            Ok(()) => return Ok(true),
            Err(reason) => reason,
        };
        self.note(Fact::Lost { reason: reason.to_string(), tick: client.view.tick() });
        for fault in client.view.faults() {
            self.note(Fact::Broken { what: format!("{fault:?}") });
        }
        let ended = matches!(
            reason,
            ClientError::Refused(ref refused)
                if matches!(Code::from_u32(refused.code), Some(Code::Superseded | Code::BadResume | Code::Goodbye))
        );
        self.key = (!ended).then(|| client.resume_key());
        if settle_by.is_some_and(|end| Instant::now() > end) {
            bail!("{} did not settle: {reason}", self.name);
        }
        Ok(false)
    }

    async fn converse(&mut self, client: &mut Client, settle_by: Option<Instant>) -> Result<(), ClientError> {
        let mut due = interval(COMMAND_EVERY);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut shown, mut asked) = (false, None);
        let mut heard_at = Instant::now();
        // What a resumed session has unacknowledged goes out at once.
        send(client).await?;
        loop {
            tokio::select! {
                heard = client.next() => {
                    heard_at = Instant::now();
                    if let Heard::Frame(info) = heard? {
                        if !shown {
                            shown = true;
                            self.note(Fact::Shown { tick: info.tick });
                        }
                        self.look(client);
                    }
                }
                _ = due.tick() => {
                    if heard_at.elapsed() > SILENT_MAX {
                        return Err(ClientError::Lost(format!("silent for {SILENT_MAX:?}")));
                    }
                    if settle_by.is_some_and(|end| Instant::now() > end) {
                        return Err(ClientError::Lost("did not settle in time".into()));
                    }
                    let phase = *self.phase.borrow();
                    match phase {
                        Phase::Play => {
                            let (op, what, duration_ms) = self.choose(client);
                            match client.input(what, duration_ms) {
                                Ok(seq) => self.invoked(client, seq, op),
                                Err(ClientError::Window) => {}
                                Err(error) => return Err(error),
                            }
                        }
                        Phase::Settle if client.unacked() > 0 => {}
                        Phase::Settle => match asked {
                            None => asked = Some(self.ask_inventory(client)?),
                            Some(seq) if self.inventory_told >= seq => {
                                let (epoch, applied) = (client.welcome().session_epoch, client.view.applied_seq());
                                self.note(Fact::Settled { epoch, applied, items: self.held.iter().copied().collect() });
                                for fault in client.view.faults() {
                                    self.note(Fact::Broken { what: format!("{fault:?}") });
                                }
                                return Ok(());
                            }
                            Some(_) => {}
                        },
                    }
                    send(client).await?;
                }
            }
        }
    }

    fn ask_inventory(&mut self, client: &mut Client) -> Result<u64, ClientError> {
        let seq = client.input(What::Action(Action { code: action::INVENTORY, body: Vec::new().into() }), 0)?;
        self.invoked(client, seq, Op::Inventory);
        Ok(seq)
    }

    fn invoked(&mut self, client: &Client, seq: u64, op: Op) {
        if op == Op::Inventory {
            self.questions.insert(seq);
        }
        self.note(Fact::Invoke { epoch: client.welcome().session_epoch, seq, op });
    }

    /// Notes what a frame brought.
    fn look(&mut self, client: &mut Client) {
        let epoch = client.welcome().session_epoch;
        for reply in client.view.take_replies() {
            let items = items_of(&reply.body);
            if self.questions.remove(&reply.command_seq) {
                self.inventory_told = reply.command_seq;
                self.held.clear();
            }
            if reply.code == 0 {
                self.held.extend(items.iter().copied());
            }
            self.note(Fact::Reply { epoch, reply_seq: reply.reply_seq, command_seq: reply.command_seq, code: reply.code, items });
        }
        let applied = client.view.applied_seq();
        if applied > self.noted_applied {
            self.noted_applied = applied;
            self.note(Fact::Applied { epoch, upto: applied });
        }
    }

    /// The next command: mostly towards ore and gathering it, sometimes anything else.
    fn choose(&mut self, client: &Client) -> (Op, What, u32) {
        let act = |op: Op, code: u32, body: Vec<u8>| (op, What::Action(Action { code, body: body.into() }), 0);
        let dice = self.below(100);
        if dice < 2 {
            return act(Op::Inventory, action::INVENTORY, Vec::new());
        }
        if dice < 6 {
            return act(Op::PickUp, action::PICK_UP, Vec::new());
        }
        if dice < 9
            && let Some(item) = self.held.pop_first()
        {
            return act(Op::Drop { item }, action::DROP, DropItem { item }.encode_to_vec());
        }
        let own = client.view.own();
        let ore = client.view.others().filter(|(_, other)| other.kind == kind::ORE).map(|(_, other)| other.position());
        let nearest = ore.map(|[x, _, z]| (x - own.x, z - own.z)).min_by(|a, b| length(*a).total_cmp(&length(*b)));
        match nearest {
            Some(way) if length(way) < REACH_M && dice < 60 => return act(Op::Gather, action::GATHER, Vec::new()),
            // Straight at it three times of four, else on as before: walls are walked around by chance.
            Some(way) if length(way) >= REACH_M && dice < 80 => self.heading = (way.0 / length(way), way.1 / length(way)),
            _ if dice.is_multiple_of(10) => {
                let turn = self.below(628) as f32 / 100.0;
                self.heading = (turn.cos(), turn.sin());
            }
            _ => {}
        }
        let walk = Move { x: self.heading.0, z: self.heading.1, yaw: 0 };
        (Op::Move, What::Move(walk), COMMAND_EVERY.as_millis() as u32)
    }
}

fn length((x, z): (f32, f32)) -> f32 {
    x.hypot(z).max(f32::MIN_POSITIVE)
}

async fn send(client: &mut Client) -> Result<(), ClientError> {
    timeout(SEND_WITHIN, client.flush()).await.unwrap_or_else(|_| Err(ClientError::Lost("the socket takes nothing".into())))
}

/// Items that a reply's body names. The bodies of the demo world are told apart by the command they answer; for items alone, both
/// forms read alike.
fn items_of(body: &[u8]) -> Vec<u64> {
    match Items::decode(body) {
        Ok(list) if !list.items.is_empty() => list.items.into_iter().map(|item| item.id).collect(),
        _ => {
            Gathered::decode(body).ok().filter(|gathered| gathered.item != 0).map(|gathered| gathered.item).into_iter().collect()
        }
    }
}
