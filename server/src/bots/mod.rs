//! Headless players: the load of `up --bots`, and a check of what players are told.

mod player;
mod report;
mod token;
mod truth;
mod walk;
mod ways;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use marchland_edge::client::ClientOptions;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::player::Player;
pub use self::report::{Counters, Report, Times, Window};
use self::report::{LongestGap, Shared};
pub(crate) use self::token::fetch as fetch_token;
pub(crate) use self::truth::histogram;
use crate::seams::SystemClock;
use crate::up::ready::{ReadyFile, ReadyNode};

/// How long players may take to ask their last questions and leave.
const STOP_WITHIN: Duration = Duration::from_secs(12);

/// What players do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Behaviour {
    /// Walk about.
    Wander,
    /// Walk from vein to vein and gather ore.
    Gather,
    /// Walk as the crowd measurement prescribes.
    Crowd,
    /// Walk over the nearest border into another region, and back again, over and over.
    Cross,
}

/// Arguments of `marchland bots`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Example: marchland bots --url ws://127.0.0.1:7301,ws://127.0.0.1:7302 --count 100 --seconds 30 --json\n\n\
    Exit code 0: nothing was lost, doubled or taken back. 1: something was, or nobody could play."
)]
pub struct BotsArgs {
    /// Edges to spread over.
    #[arg(long, value_delimiter = ',', required_unless_present = "ready_file")]
    pub url: Vec<String>,
    /// Take the edges from the ready file of `marchland up` instead.
    #[arg(long, conflicts_with = "url")]
    pub ready_file: Option<PathBuf>,
    /// World of the ready file; needed when there are several.
    #[arg(long, value_name = "NAME", requires = "ready_file")]
    pub world: Option<String>,
    /// Pages of the nodes, which give out tokens, in the order of --url. Default: port 100 below the edge's, as with `up`.
    #[arg(long, value_delimiter = ',', requires = "url")]
    pub http: Vec<String>,
    /// Number of players.
    #[arg(long)]
    pub count: usize,
    /// How long they play.
    #[arg(long)]
    pub seconds: u64,
    /// What they do.
    #[arg(long, value_enum, default_value = "wander")]
    pub behaviour: Behaviour,
    /// Beginning of the players' names.
    #[arg(long, default_value = "bot")]
    pub name: String,
    /// Print one JSON document and nothing else.
    #[arg(long)]
    pub json: bool,
}

/// An edge, and where its tokens come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `host:port` of the edge.
    pub address: String,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// `http://host:port` of the pages.
    pub http: String,
}

impl Target {
    /// From `ws://host:port` or `wss://host:port`.
    pub fn parse(url: &str, http: Option<&str>) -> anyhow::Result<Self> {
        let (tls, address) = match (url.strip_prefix("ws://"), url.strip_prefix("wss://")) {
            (Some(address), _) => (false, address),
            (_, Some(address)) => (true, address),
            _ => bail!("{url:?} is neither ws://host:port nor wss://host:port"),
        };
        let address = address.trim_end_matches('/').to_owned();
        let http = match http {
            Some(http) => http.trim_end_matches('/').to_owned(),
            None => {
                let (host, port) = address.rsplit_once(':').with_context(|| format!("{url:?} names no port"))?;
                let port: u16 = port.parse().with_context(|| format!("{url:?} names no port"))?;
                format!("http://{host}:{}", port.checked_sub(100).context("say --http: there is no port 100 below")?)
            }
        };
        Ok(Self { address, tls, http })
    }

    /// Of a node in a ready file.
    pub fn of(node: &ReadyNode) -> anyhow::Result<Self> {
        Self::parse(&node.ws, Some(&node.http))
    }
}

/// What a run of players is made from.
#[derive(Clone, Debug)]
pub struct BotOptions {
    /// Number of players.
    pub count: usize,
    /// Edges; player k begins at the k-th, round and round.
    pub targets: Vec<Target>,
    /// Certificate that edges with TLS are checked against, PEM file.
    pub authority: Option<PathBuf>,
    /// What they do.
    pub behaviour: Behaviour,
    /// Beginning of their names.
    pub name: String,
}

impl Default for BotOptions {
    fn default() -> Self {
        Self { count: 0, targets: Vec::new(), authority: None, behaviour: Behaviour::Gather, name: "bot".into() }
    }
}

/// Players that are playing.
pub struct Bots {
    shared: Arc<Shared>,
    clock: SystemClock,
    count: usize,
    stop: watch::Sender<bool>,
    running: tokio::task::JoinHandle<()>,
}

impl Bots {
    /// Starts players, a few at a time.
    pub fn start(options: BotOptions) -> anyhow::Result<Self> {
        if options.targets.is_empty() {
            bail!("no edge was named");
        }
        let shared = Arc::new(Shared::default());
        let clock = SystemClock::start();
        let (stop, stopped) = watch::channel(false);
        let targets: Arc<[Target]> = options.targets.clone().into();
        let tls = match (targets.iter().any(|t| t.tls), &options.authority) {
            (false, _) => None,
            (true, Some(authority)) => Some(crate::cluster::player_tls(authority)?),
            (true, None) => bail!("an edge speaks TLS, but no authority was named"),
        };
        let ways = Arc::default();
        let players = (0..options.count).map(|number| Player {
            number,
            name: format!("{}-{number}", options.name),
            targets: targets.clone(),
            options: ClientOptions { tls: tls.clone(), client_name: "marchland bots".into() },
            behaviour: options.behaviour,
            clock,
            shared: shared.clone(),
            stop: stopped.clone(),
            longest_gap: LongestGap::default(),
            ways: Arc::clone(&ways),
        });
        let players: Vec<_> = players.collect();
        let running = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            player::start_all(players, &mut tasks).await;
            while let Some(ended) = tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a player's task failed");
                }
            }
        });
        Ok(Self { shared, clock, count: options.count, stop, running })
    }

    /// Live figures.
    pub fn counters(&self) -> Counters {
        Counters::new(self.shared.clone(), self.clock)
    }

    /// Waits until all of them are connected.
    pub async fn until_here(&self, within: Duration) -> anyhow::Result<()> {
        let (counters, began) = (self.counters(), Instant::now());
        while counters.here() < self.count as u64 {
            if began.elapsed() > within {
                bail!("not all of {} players after {} s: {}", self.count, within.as_secs(), counters.line());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Measures from here on, until the next window begins, how long each player waits for a frame at most.
    pub fn begin_window(&self, window: Window) {
        self.shared.begin_window(window);
    }

    /// What was measured in all windows of a kind that have ended, in milliseconds.
    pub fn gaps(&self, window: Window) -> Times {
        self.shared.gaps(window)
    }

    /// Lets every player ask its last question and leave.
    pub async fn stop(self) -> Report {
        self.stop.send_replace(true);
        if tokio::time::timeout(STOP_WITHIN, self.running).await.is_err() {
            tracing::warn!("some players did not leave in time; what they know is not in the report");
        }
        self.shared.report(self.count)
    }
}

/// Runs `marchland bots`.
pub async fn run(args: BotsArgs) -> anyhow::Result<ExitCode> {
    let (targets, authority) = match &args.ready_file {
        Some(path) => {
            let ready = ReadyFile::read(path)?;
            let nodes = ready.one_world(args.world.as_deref())?;
            (nodes.into_iter().map(Target::of).collect::<anyhow::Result<Vec<_>>>()?, Some(ready.authority))
        }
        None => {
            if !args.http.is_empty() && args.http.len() != args.url.len() {
                bail!("--http names {} pages for {} edges", args.http.len(), args.url.len());
            }
            let pair = |(i, url): (usize, &String)| Target::parse(url, args.http.get(i).map(String::as_str));
            (args.url.iter().enumerate().map(pair).collect::<anyhow::Result<Vec<_>>>()?, None)
        }
    };
    let options = BotOptions { count: args.count, targets, authority, behaviour: args.behaviour, name: args.name.clone() };
    let bots = Bots::start(options)?;
    let counters = bots.counters();
    let mut stop = std::pin::pin!(crate::signals::stop_requested()?);
    let bar = if args.json { ProgressBar::hidden() } else { ProgressBar::new(args.seconds) };
    let end = Instant::now() + Duration::from_secs(args.seconds);
    while Instant::now() < end {
        tokio::select! {
            () = &mut stop => break,
            () = sleep(Duration::from_secs(1).min(end - Instant::now())) => {}
        }
        bar.inc(1);
        bar.set_message(counters.line());
    }
    bar.finish_and_clear();
    let report = bots.stop().await;
    match args.json {
        true => println!("{}", serde_json::to_string(&report)?),
        false => println!("{report}"),
    }
    Ok(if report.sound() && report.frames > 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_find_their_pages() {
        let target = Target::parse("ws://127.0.0.1:7302", None).unwrap();
        assert_eq!((target.address.as_str(), target.http.as_str()), ("127.0.0.1:7302", "http://127.0.0.1:7202"));
        assert!(Target::parse("wss://h:1/", Some("http://h:2")).unwrap().tls);
        assert!(Target::parse("http://127.0.0.1:7302", None).is_err());
        assert!(Target::parse("ws://127.0.0.1", None).is_err());
    }
}
