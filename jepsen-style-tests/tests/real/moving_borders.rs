//! Borders between regions move while players walk over them, first in a healthy cluster, then while the node that leads the directory is
//! killed. Players lose nothing, and in the healthy one nobody's connection ends and nobody waits for long.

use std::time::Duration;

use anyhow::{Context, ensure};
use marchland_jepsen::cluster::DIRECTORY;
use serde_json::Value;
use tokio::time::sleep;

use crate::failover::{all_here, end_bots, start_bots};
use crate::scene::{Outcome, Scene};

const PLAYERS: usize = 40;
/// An operator's command, which waits until every region knows the map.
const CHANGED_WITHIN: Duration = Duration::from_secs(60);
/// Between two changes. Whoever stands beyond goes over meanwhile.
const REST: Duration = Duration::from_millis(2_000);
/// The longest that anybody may wait while no node is away, in milliseconds: as for an owner that hands over, times three for a build for
/// tests, times two for machines that do other work.
const WAIT_MAX_MS: u64 = 1_200;
/// How far a border moves, in metres: many stand farther behind it than a region may ever have somebody.
const BY_M: f64 = 60.0;

pub async fn run(scene: &Scene) -> anyhow::Result<Outcome> {
    let mut cluster = scene.cluster(&["--grid", "2x2"])?;
    cluster.start_by_hand().await?;
    let operator = Operator { scene, ready_file: cluster.ready_file().display().to_string() };
    let first = operator.map(&[]).await?;
    ensure!(first["epoch"] == 1 && first["regions"].as_array().is_some_and(|all| all.len() == 4), "{first}");

    let mut bots = start_bots(scene, &cluster, "cross", PLAYERS)?;
    all_here(&cluster, PLAYERS).await?;
    sleep(REST).await;
    for (border, by_m) in [("1,2", BY_M), ("3,4", -BY_M), ("1,2", -2.0 * BY_M), ("3,4", BY_M)] {
        operator.map(&["--border", border, "--by", &by_m.to_string()]).await?;
        sleep(REST).await;
    }
    all_here(&cluster, PLAYERS).await?;
    let quiet = end_bots(&mut bots).await?;
    let acked = judge(&quiet)?;
    let wait_max = quiet["blackout_ms"]["max"].as_u64().context("no blackouts in the report")?;
    ensure!(quiet["disconnects"] == 0, "connections ended: {quiet}");
    ensure!(wait_max <= WAIT_MAX_MS, "somebody waited for {wait_max} ms, at most {WAIT_MAX_MS} expected: {quiet}");

    let mut bots = start_bots(scene, &cluster, "cross", PLAYERS)?;
    all_here(&cluster, PLAYERS).await?;
    for by_m in [BY_M, -BY_M] {
        let leader = cluster.leader(DIRECTORY).await?;
        let by_m = by_m.to_string();
        let arguments = ["--border", "3,4", "--by", &by_m];
        let order = operator.map(&arguments);
        let kill = async {
            sleep(Duration::from_millis(30)).await;
            cluster.kill_node(leader).await?;
            sleep(REST).await;
            cluster.start_node(leader)
        };
        let (ordered, killed) = tokio::join!(order, kill);
        killed?;
        ordered?;
        cluster.node_ready(leader).await?;
        all_here(&cluster, PLAYERS).await?;
        sleep(REST).await;
    }
    let killed = end_bots(&mut bots).await?;
    let acked = acked + judge(&killed)?;

    // All the way back, by a file.
    let now = operator.map(&[]).await?;
    let file = scene.folder.join("map.json");
    let back = serde_json::json!({ "epoch": now["epoch"], "regions": first["regions"] });
    std::fs::write(&file, back.to_string())?;
    let last = operator.map(&["--change", &file.display().to_string()]).await?;
    ensure!(last["regions"] == first["regions"] && last["epoch"] == 8, "{last}");
    operator.refused(&["--border", "1,4", "--by", "5"], "do not share a whole edge").await?;
    operator.refused(&["--border", "1,2", "--by", "1e9"], "no ground").await?;

    let verified = cluster.verify().await?;
    ensure!(verified.sound(), "verify: {}", serde_json::to_string_pretty(&verified)?);
    cluster.unharmed()?;
    cluster.stop_all().await?;
    Ok(Outcome::Shown(format!(
        "7 maps, {PLAYERS} players, 2 nodes killed: {acked} commands acknowledged, 0 lost, 0 doubled, 0 rollbacks; without kills nobody \
         waited for more than {wait_max} ms"
    )))
}

/// Nothing was lost, doubled or taken back. Returns how many commands were acknowledged.
fn judge(report: &Value) -> anyhow::Result<u64> {
    let complaints = serde_json::to_string_pretty(&report["complaints"])?;
    for name in ["commands_lost", "commands_duplicated", "rollbacks"] {
        ensure!(report[name] == 0, "{name} {}: {complaints}", report[name]);
    }
    let of = |name: &str| report[name].as_u64().with_context(|| format!("the report has no {name}: {report}"));
    ensure!(of("handoffs")? > 0, "nobody crossed a border: {report}");
    of("commands_acked")
}

struct Operator<'a> {
    scene: &'a Scene,
    ready_file: String,
}

impl Operator<'_> {
    async fn run(&self, arguments: &[&str]) -> anyhow::Result<(bool, String)> {
        let all: Vec<&str> =
            ["admin", "--ready-file", &self.ready_file, "--json", "map"].into_iter().chain(arguments.iter().copied()).collect();
        let (status, text) = self.scene.binary.run(&all, CHANGED_WITHIN).await?;
        Ok((status.success(), text))
    }

    /// Asks for the map, or changes it; every region knows it then.
    async fn map(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let (well, text) = self.run(arguments).await?;
        ensure!(well, "{arguments:?}: {text}");
        let map: Value = serde_json::from_str(&text).with_context(|| format!("not one JSON document: {text}"))?;
        ensure!(map["waiting"] == 0, "{map}");
        Ok(map)
    }

    async fn refused(&self, arguments: &[&str], because: &str) -> anyhow::Result<()> {
        let (well, text) = self.run(arguments).await?;
        ensure!(!well && text.contains(because) && text.lines().count() == 1, "{arguments:?}: {text}");
        Ok(())
    }
}
