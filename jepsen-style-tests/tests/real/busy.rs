//! A machine that has much else to do: time dilates when it must, and no election is held without a cause.
//!
//! Beside the cluster and its players runs, for as long as they do, one process for every processor that does nothing but turn; or whatever
//! `MARCHLAND_BUSY_WITH` says to a shell, again and again. `MARCHLAND_BUSY_SECONDS` and `MARCHLAND_BUSY_PLAYERS` say for how long and with how
//! many.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use marchland_jepsen::cluster::{Cluster, DIRECTORY, REGION};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::failover::{all_here, end_bots, start_bots};
use crate::scene::{Outcome, Scene, setting};

/// How often is looked.
const EVERY: Duration = Duration::from_secs(1);

pub async fn run(scene: &Scene) -> anyhow::Result<Outcome> {
    let seconds = setting("MARCHLAND_BUSY_SECONDS", 20)?;
    let released = std::env::var_os("MARCHLAND_BIN").is_some();
    let players = setting("MARCHLAND_BUSY_PLAYERS", if released { 200 } else { 30 })? as usize;
    let mut cluster = scene.cluster(&[])?;
    cluster.start().await?;
    let mut bots = start_bots(scene, &cluster, "gather", players)?;
    all_here(&cluster, players).await?;
    let before = terms(&cluster).await?;
    let (with, work) = busy(scene)?;
    let (mut slowest, mut looks, mut unanswered) = (100, 0, 0);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        sleep(EVERY).await;
        looks += 1;
        match rate(&cluster).await {
            Ok(rate) => slowest = slowest.min(rate),
            // So busy is it; whether anybody was replaced is seen from the terms.
            Err(_) => unanswered += 1,
        }
    }
    drop(work);
    let after = terms(&cluster).await?;
    let report = end_bots(&mut bots).await?;
    ensure!(after == before, "elections without a cause: the terms of region and directory were {before:?}, and are {after:?}");
    for name in ["commands_lost", "commands_duplicated", "rollbacks", "disconnects"] {
        ensure!(report[name] == 0, "{name} {}: {}", report[name], report["complaints"]);
    }
    ensure!(report["commands_acked"].as_u64() > Some(players as u64 * seconds), "too little was acknowledged: {report}");
    ensure!(unanswered * 10 <= looks, "{unanswered} of {looks} times nobody said how fast time passes");
    let verified = cluster.verify().await?;
    ensure!(verified.sound(), "verify: {}", serde_json::to_string_pretty(&verified)?);
    cluster.stop().await?;
    Ok(Outcome::Shown(format!(
        "{seconds} s, {players} players beside {with}: 0 elections, time at {slowest} % or more, {} of {} commands acknowledged, ack p50 {} p99 {} ms, \
         blackouts {} at most {} ms",
        report["commands_acked"],
        report["commands_sent"],
        report["ack_ms"]["p50"],
        report["ack_ms"]["p99"],
        report["blackout_ms"]["count"],
        report["blackout_ms"]["max"]
    )))
}

/// Terms of region and directory, on each node.
async fn terms(cluster: &Cluster) -> anyhow::Result<Vec<(u64, u64)>> {
    let mut terms = Vec::new();
    for node in &cluster.ready()?.nodes {
        terms.push((cluster.replica(node.id, REGION).await?.term, cluster.replica(node.id, DIRECTORY).await?.term));
    }
    Ok(terms)
}

async fn rate(cluster: &Cluster) -> anyhow::Result<u32> {
    for node in &cluster.ready()?.nodes {
        let replica = cluster.replica(node.id, REGION).await?;
        if replica.owner {
            return Ok(replica.time_rate);
        }
    }
    anyhow::bail!("nobody owns the region")
}

/// Processes that keep the machine busy until they are dropped, and what they are.
fn busy(scene: &Scene) -> anyhow::Result<(String, Vec<Busy>)> {
    let cores = std::thread::available_parallelism()?.get();
    let (with, count, script) = match std::env::var("MARCHLAND_BUSY_WITH") {
        Ok(command) => (format!("{command:?}"), 1, format!("while :; do {command}; done")),
        Err(_) => (format!("{cores} processes that turn"), cores, "while :; do :; done".to_owned()),
    };
    let start = |_| {
        let mut command = Command::new("sh");
        // Names the folder, by which leftovers of a run that was killed are found.
        command
            .args(["-c", &script])
            .arg(scene.folder.join("busy"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.process_group(0).spawn().map(Busy).context("can not start a shell")
    };
    Ok((with, (0..count).map(start).collect::<anyhow::Result<_>>()?))
}

/// A process, and those that it started.
struct Busy(Child);

impl Drop for Busy {
    fn drop(&mut self) {
        // Its group bears its id.
        if let Some(id) = self.0.id()
            && let Err(error) = kill_group(id)
        {
            eprintln!("can not end process group {id}: {error:#}");
        }
    }
}

fn kill_group(id: u32) -> anyhow::Result<()> {
    // SAFETY: plain system call; the leader of the group is our child and not yet reaped, so the id is still its own.
    match unsafe { libc::kill(-(id as i32), libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}
