//! An operator, who verifies the world at any moment, or moves the borders between its regions, by the code and over the wire of
//! `marchland verify` and `marchland admin map`.
//!
//! No answer is no violation: nodes are down, regions have no owner. An answer that something is wrong is one, and so is a map that is older
//! than one that was in force.

use std::rc::Rc;
use std::time::Duration;

use marchland_admin::client::{AdminCluster, AdminEndpoint};
use marchland_admin::map::{MapError, RegionGround, WorldMap, change_map, world_map};
use marchland_admin::verify::verify;
use marchland_proto::net::Role;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use tokio::time::sleep;

use super::SHARDS;
use super::node::{ADMIN_TOKEN, OPERATOR, Stage, security};
use crate::oracle::{self, Violation};
use crate::trace_line;
use crate::world::Boot;

/// Longest pause between two looks.
const PAUSE_MAX_MS: u64 = 3_000;
/// Given up after this long.
const VERIFY_WITHIN: Duration = Duration::from_secs(3);
/// Time for the driver to see that the operator is at work.
const NOTICE: Duration = Duration::from_millis(20);

/// A change of the map is waited for this long.
const CHANGED_WITHIN: Duration = Duration::from_secs(3);
/// Longest pause between two changes of the map.
const SURVEY_MAX_MS: u64 = 2_000;

fn connect(boot: &Boot) -> anyhow::Result<AdminCluster> {
    let endpoint = AdminEndpoint {
        addresses: (1..=SHARDS).map(|n| format!("n{n}:7100")).collect(),
        security: security(OPERATOR, Role::Admin),
        token: ADMIN_TOKEN.to_owned(),
    };
    Ok(endpoint.connect(&boot.transport)?)
}

/// Verifies until the run ends.
pub(super) async fn verify_now_and_then(boot: Boot, stage: Rc<Stage>, mut random: Pcg64Mcg) -> anyhow::Result<()> {
    let cluster = connect(&boot)?;
    loop {
        stage.operating.set(false);
        sleep(NOTICE + Duration::from_millis(random.random_range(0..PAUSE_MAX_MS))).await;
        if stage.operator_rests.get() {
            continue;
        }
        stage.operating.set(true);
        match verify(&cluster, VERIFY_WITHIN).await {
            Ok(report) => {
                trace_line!("verified: {} replicas, {} items, sound {}", report.replicas, report.items, report.sound());
                stage.verified.set(stage.verified.get() + 1);
                if !report.sound() {
                    oracle::report(Violation::new("verify-sound", format!("{report:?}")));
                }
            }
            Err(error) => {
                trace_line!("not verified: {error}");
                stage.unverified.set(stage.unverified.get() + 1);
            }
        }
    }
}

/// Moves the borders of a world of four regions until the run ends.
pub(super) async fn move_borders_now_and_then(boot: Boot, stage: Rc<Stage>, mut random: Pcg64Mcg) -> anyhow::Result<()> {
    let cluster = connect(&boot)?;
    let mut newest = 0;
    loop {
        stage.operating.set(false);
        sleep(NOTICE + Duration::from_millis(random.random_range(0..SURVEY_MAX_MS))).await;
        if stage.operator_rests.get() {
            continue;
        }
        stage.operating.set(true);
        match survey(&cluster, &mut random).await {
            Ok(map) => {
                trace_line!("borders moved: epoch {}, {} regions do not know it yet", map.epoch, map.waiting);
                stage.moved.set(stage.moved.get() + 1);
                if map.epoch <= newest {
                    let what = format!("the map of epoch {} was ordered after one of epoch {newest} was in force", map.epoch);
                    oracle::report(Violation::new("map-forward", what));
                }
                newest = map.epoch;
            }
            Err(error) => {
                trace_line!("borders not moved: {error}");
                stage.unmoved.set(stage.unmoved.get() + 1);
            }
        }
    }
}

/// Asks for the map, and orders another one.
async fn survey(cluster: &AdminCluster, random: &mut Pcg64Mcg) -> Result<WorldMap, MapError> {
    let map = world_map(cluster).await?;
    let next = WorldMap { epoch: map.epoch, waiting: 0, regions: quarter(&map.regions, random) };
    change_map(cluster, &next, CHANGED_WITHIN, |_| ()).await
}

/// Four regions on the ground that they have: two strips, east and west or north and south, each of two regions.
fn quarter(regions: &[RegionGround], random: &mut Pcg64Mcg) -> Vec<RegionGround> {
    let low =
        [regions.iter().map(|r| r.min_x).fold(f32::MAX, f32::min), regions.iter().map(|r| r.min_z).fold(f32::MAX, f32::min)];
    let high =
        [regions.iter().map(|r| r.max_x).fold(f32::MIN, f32::max), regions.iter().map(|r| r.max_z).fold(f32::MIN, f32::max)];
    let across = usize::from(random.random_bool(0.5));
    let mut cut = |axis: usize| low[axis] + (high[axis] - low[axis]) * random.random_range(0.25..0.75);
    let (border, within) = (cut(across), [cut(1 - across), cut(1 - across)]);
    let ground = |region: &RegionGround| {
        // Region 1 is in the north-west, 2 in the north-east, 3 and 4 south of them.
        let (east, south) = ((region.region - 1) % 2, (region.region - 1) / 2);
        let at = [east, south].map(|side| side as usize);
        let (mut min, mut max) = (low, high);
        let mut keep = |axis: usize, border: f32| if at[axis] == 0 { max[axis] = border } else { min[axis] = border };
        keep(across, border);
        keep(1 - across, within[at[across]]);
        RegionGround { region: region.region, min_x: min[0], min_z: min[1], max_x: max[0], max_z: max[1] }
    };
    regions.iter().map(ground).collect()
}
