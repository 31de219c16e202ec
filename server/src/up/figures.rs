//! What `up` shows while the cluster runs: one line, renewed in place on a terminal, a line every five seconds elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::bots::Counters;
use crate::cluster::Cluster;

/// The running figures.
pub struct Figures {
    cluster: Cluster,
    bots: Vec<Counters>,
    every: Interval,
    line: Option<ProgressBar>,
}

impl Figures {
    /// Figures of a cluster, and of the players that `up` itself runs, by world.
    pub fn new(cluster: Cluster, bots: Vec<Counters>) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let line = terminal.then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar
        });
        let mut every = interval(Duration::from_secs(if terminal { 1 } else { 5 }));
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { cluster, bots, every, line }
    }

    /// Waits until the next figures are due, and shows them. Cancel-safe.
    pub async fn next(&mut self) {
        self.every.tick().await;
        let mut text = self.cluster.figures().await;
        for bots in &self.bots {
            text.push_str(&format!(" | bots {}", bots.line()));
        }
        match &self.line {
            Some(bar) => bar.set_message(text),
            None => println!("{text}"),
        }
    }

    /// Shows something that stays.
    pub fn say(&self, text: &str) {
        match &self.line {
            Some(bar) => bar.println(text),
            None => println!("{text}"),
        }
    }

    /// Ends the renewed line.
    pub fn finish(&self) {
        if let Some(bar) = &self.line {
            bar.abandon();
        }
    }
}
