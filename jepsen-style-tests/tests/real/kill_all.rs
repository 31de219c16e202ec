//! All three nodes are killed with `kill -9` at once under load and resumed, round after round.
//!
//! At the end every command that a player was told to be committed is there, what was shown was never taken back, replicas agree,
//! and items are neither missing nor doubled.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::ensure;
use marchland_jepsen::history::Fact;
use tokio::time::sleep;

use crate::scene::{Load, Outcome, Scene, setting};

const PLAYERS: usize = 12;

pub async fn run(scene: &Scene) -> anyhow::Result<Outcome> {
    let rounds = setting("MARCHLAND_ROUNDS", 2)?;
    let mut cluster = scene.cluster(&[])?;
    let first = cluster.start().await?;
    let mut load = Load::start(&cluster, PLAYERS, &scene.folder.join("history.jsonl"))?;
    load.until("somebody reaches ore", 3, got_something).await?;
    let mut summary = format!("ready after {:.1} s", first.as_secs_f32());
    for round in 1..=rounds {
        // Under load, and never at the same place of a tick or a checkpoint.
        load.until_acknowledged(4 * PLAYERS).await?;
        sleep(Duration::from_millis(500 + round * 337 % 1_000)).await;
        load.fault("kill -9 of all nodes");
        cluster.kill_all().await?;
        let again = cluster.start().await?;
        load.healed();
        write!(summary, ", {:.1}", again.as_secs_f32())?;
    }
    load.until_acknowledged(4 * PLAYERS).await?;
    load.settle().await?;
    cluster.unharmed()?;
    let verdict = load.judge(&cluster, &["move", "gather", "inventory"]).await?;
    ensure!(verdict.attached.1 >= rounds, "nobody resumed a session");
    cluster.stop().await?;
    Ok(Outcome::Shown(format!("{rounds} kills; {summary} s; {verdict}")))
}

/// An answer that names an item.
pub fn got_something(fact: &Fact) -> bool {
    matches!(fact, Fact::Reply { code: 0, items, .. } if !items.is_empty())
}
