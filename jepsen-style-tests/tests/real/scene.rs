//! What every test starts with: the binary, a folder, and a load of players.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, ensure};
use marchland_jepsen::checker::{Verdict, check};
use marchland_jepsen::cluster::{Binary, Cluster};
use marchland_jepsen::history::{Fact, History};
use marchland_jepsen::player::{Door, Phase, play};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// A test under way.
pub type Running<'a> = Pin<Box<dyn Future<Output = anyhow::Result<Outcome>> + 'a>>;

/// How a test ended that did not fail.
pub enum Outcome {
    /// It showed this.
    Shown(String),
    /// The machine does not permit it.
    Skipped(String),
}

/// A test's surroundings.
pub struct Scene {
    pub binary: Binary,
    pub folder: PathBuf,
}

impl Scene {
    pub fn new(built: &str, folder: PathBuf) -> anyhow::Result<Self> {
        Ok(Self { binary: Binary::find(built)?, folder })
    }

    pub fn cluster(&self, options: &[&str]) -> anyhow::Result<Cluster> {
        Cluster::new(&self.binary, &self.folder, options)
    }
}

/// A number from the environment.
pub fn setting(name: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text} is not a number")),
        Err(_) => Ok(default),
    }
}

/// Players at work.
pub struct Load {
    pub history: History,
    phase: watch::Sender<Phase>,
    players: JoinSet<anyhow::Result<()>>,
}

/// Longest time for players to come to rest, a sign-in and an election included.
const SETTLE_WITHIN: Duration = Duration::from_secs(60);
/// Longest time for players to get on with it.
const HAPPENS_WITHIN: Duration = Duration::from_secs(60);

impl Load {
    /// `count` players spread over all edges.
    pub fn start(cluster: &Cluster, count: usize, history: &Path) -> anyhow::Result<Self> {
        let doors: Vec<Door> = cluster
            .ready()?
            .nodes
            .iter()
            .map(|node| Door { players: node.players().to_owned(), http: node.http.clone() })
            .collect();
        let history = History::create(history)?;
        let (phase, told) = watch::channel(Phase::Play);
        let mut players = JoinSet::new();
        for number in 0..count as u64 {
            let name = format!("player-{number:03}");
            players.spawn(play(name, number + 1, doors.clone(), history.clone(), told.clone(), SETTLE_WITHIN));
        }
        Ok(Self { history, phase, players })
    }

    /// Notes a fault.
    pub fn fault(&self, what: &str) {
        self.history.note("nemesis", Fact::Fault { what: what.to_owned() });
    }

    /// Notes that the cluster serves again.
    pub fn healed(&self) {
        self.history.note("nemesis", Fact::Healed);
    }

    /// Waits until the players noted `more` facts of some sort beyond those of now. How long that takes is the machine's affair; that
    /// it happens is the cluster's.
    pub async fn until(&self, what: &str, more: usize, sort: impl Fn(&Fact) -> bool) -> anyhow::Result<()> {
        let (begun, enough) = (Instant::now(), self.history.count(&sort) + more);
        while self.history.count(&sort) < enough {
            ensure!(begun.elapsed() < HAPPENS_WITHIN, "not within {HAPPENS_WITHIN:?}: {what}");
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Waits until `more` acknowledgements came.
    pub async fn until_acknowledged(&self, more: usize) -> anyhow::Result<()> {
        self.until("players are acknowledged something", more, |fact| matches!(fact, Fact::Applied { .. })).await
    }

    /// Lets every player come to rest.
    pub async fn settle(&mut self) -> anyhow::Result<()> {
        self.phase.send_replace(Phase::Settle);
        while let Some(ended) = self.players.join_next().await {
            ended.context("a player panicked")??;
        }
        Ok(())
    }

    /// Compares what the players noted with the world as it is, and all replicas with each other.
    pub async fn judge(&self, cluster: &Cluster, required: &[&'static str]) -> anyhow::Result<Verdict> {
        let report = cluster.verify().await?;
        ensure!(report.sound(), "verify: {}", serde_json::to_string_pretty(&report)?);
        let verdict = check(&self.history.events(), &cluster.at_the_end().await?, required);
        ensure!(verdict.violations.is_empty(), "{} violations:\n{}", verdict.violations.len(), verdict.violations.join("\n"));
        Ok(verdict)
    }
}
