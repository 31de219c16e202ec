//! Judges what players were shown, beside them, as the committed state comes in.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use marchland_edge::InterestConfig;
use marchland_types::limits::TICK_MS;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::truth::{Rule, Shown, World};

/// Fastest that two players come towards each other, in m/s.
const CLOSING_M_S: f32 = 10.0;

/// How frames are judged in a world of so many regions. What another region than a player's own shows may be a tick older, for no two
/// tick at the same moment.
fn rule(regions: usize) -> Rule {
    let interest = InterestConfig::default();
    let ticks = u64::from(interest.repick_every_ticks) + u64::from(regions > 1);
    Rule {
        radius_m: interest.radius_m,
        visible_max: interest.visible_max,
        slack_m: interest.hysteresis_m + CLOSING_M_S * (ticks * TICK_MS) as f32 / 1000.0,
        off_m: 0.1,
    }
}

/// Judges every frame once the observers have its tick. Returns how many were right, and what was wrong with the others.
pub(super) async fn judge_all(
    mut shown: mpsc::Receiver<Shown>,
    world: Arc<Mutex<World>>,
    regions: usize,
) -> (u64, BTreeMap<String, u64>) {
    let rule = rule(regions);
    let (mut right, mut wrong) = (0, BTreeMap::new());
    let (mut waiting, mut distances) = (Vec::new(), Vec::new());
    let mut open = true;
    while open || !waiting.is_empty() {
        if open {
            open = shown.recv_many(&mut waiting, 4096).await > 0;
        }
        // Frames overtake the observers' batches by a little, never by much.
        sleep(Duration::from_millis(20)).await;
        let world = world.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|frame: &Shown| {
            if open && !world.has(frame) {
                return true;
            }
            match world.judge(frame, rule, &mut distances) {
                Ok(()) => right += 1,
                Err(what) => *wrong.entry(format!("{what:?}").to_lowercase()).or_insert(0) += 1,
            }
            false
        });
    }
    (right, wrong)
}
