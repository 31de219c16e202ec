//! The players of `crowd`: they walk as the measurement prescribes, and hand in what they were shown.

use std::f32::consts::TAU;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use marchland_edge::client::{ClientOptions, Heard, Login, PlayerClient};
use marchland_proto::client::{Move, input::What};
use marchland_proto::net::TokioTransport;
use marchland_proto::records::quantize;
use marchland_types::seam::Clock;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::truth::Shown;
use crate::seams::SystemClock;

/// Between two commands: 10 Hz.
const EVERY: Duration = Duration::from_millis(100);

/// What players count while `measuring` is set.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) measuring: AtomicBool,
    pub(super) joined: AtomicU64,
    pub(super) frames: AtomicU64,
    pub(super) frame_bytes: AtomicU64,
    pub(super) visible: AtomicU64,
    /// Times that frames began to be another region's.
    pub(super) crossings: AtomicU64,
    pub(super) ended: AtomicU64,
    /// What was shown and could not be handed in because the judge was behind.
    pub(super) unjudged: AtomicU64,
}

pub(super) struct Walker {
    pub(super) number: usize,
    pub(super) address: String,
    pub(super) options: ClientOptions,
    pub(super) token: String,
    pub(super) side_m: f32,
    pub(super) clock: SystemClock,
    pub(super) counts: Arc<Counts>,
    pub(super) judge: mpsc::Sender<Shown>,
}

impl Walker {
    /// Plays until it is aborted. Returns only when something went wrong.
    pub(super) async fn run(self, times: Arc<std::sync::Mutex<Histogram<u64>>>) -> anyhow::Result<()> {
        let result = self.play(times).await;
        self.counts.ended.fetch_add(1, Ordering::Relaxed);
        result
    }

    async fn play(&self, times: Arc<std::sync::Mutex<Histogram<u64>>>) -> anyhow::Result<()> {
        let login = Login::SignIn { token: self.token.clone(), character_name: format!("crowd-{}", self.number) };
        let mut client = PlayerClient::connect(&TokioTransport, &self.address, &self.options, &login).await?;
        self.counts.joined.fetch_add(1, Ordering::Relaxed);
        let own = client.welcome().self_entity;
        let mut rng = SmallRng::seed_from_u64(self.number as u64);
        let mut heading = rng.random_range(0.0..TAU);
        let mut steps_left = rng.random_range(10..=30);
        let mut next = Instant::now() + EVERY.mul_f64(rng.random_range(0.0..1.0));
        let mut region = None;
        loop {
            match timeout_at(next, client.next()).await {
                Ok(Ok(Heard::Frame(info))) => {
                    let crossed = region.replace(info.region).is_some_and(|before| before != info.region);
                    if !self.counts.measuring.load(Ordering::Relaxed) {
                        continue;
                    }
                    self.counts.frames.fetch_add(1, Ordering::Relaxed);
                    self.counts.frame_bytes.fetch_add(info.size_bytes as u64, Ordering::Relaxed);
                    self.counts.visible.fetch_add(info.visible as u64, Ordering::Relaxed);
                    self.counts.crossings.fetch_add(u64::from(crossed), Ordering::Relaxed);
                    let behind_ms = self.clock.wall_ms().saturating_sub(info.server_ms);
                    if let Ok(mut times) = times.lock() {
                        let _ = times.record(behind_ms);
                    }
                    let others = client.view.others().map(|(_, o)| (o.entity, [o.at[0], o.at[2]])).collect();
                    if self.judge.try_send(Shown { region: info.region, tick: info.tick, own, others }).is_err() {
                        self.counts.unjudged.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(Ok(Heard::Pong { .. })) => {}
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => {
                    next += EVERY;
                    let own = client.view.own();
                    if steps_left == 0 {
                        (steps_left, heading) = (rng.random_range(10..=30), rng.random_range(0.0..TAU));
                    }
                    steps_left -= 1;
                    heading = reflect(heading + rng.random_range(-0.2..0.2), [own.x, own.z], self.side_m);
                    let yaw = (heading.rem_euclid(TAU) / TAU * 256.0) as u32 & 255;
                    let what = What::Move(Move { x: heading.cos(), z: heading.sin(), yaw });
                    client.input(what, EVERY.as_millis() as u32)?;
                    client.flush().await?;
                }
            }
        }
    }
}

/// The heading after the walls of the square had their say.
fn reflect(heading: f32, at: [f32; 2], side_m: f32) -> f32 {
    let margin_m = 1.0;
    let (mut x, mut z) = (heading.cos(), heading.sin());
    for (way, at) in [(&mut x, at[0]), (&mut z, at[1])] {
        if at < margin_m {
            *way = way.abs();
        } else if at > side_m - margin_m {
            *way = -way.abs();
        }
    }
    z.atan2(x)
}

/// Side of the square in which about 40 others lie within 50 m.
pub(super) fn side_m(players: usize) -> f32 {
    (players.max(50) as f32 * std::f32::consts::PI * 2500.0 / 40.0).sqrt()
}

/// A command of the usual size, for the baseline.
pub(super) fn sample_command_bytes() -> usize {
    use marchland_proto::client::{ClientMessage, Commands, Input, client_message::Body};
    use prost::Message;
    let what = What::Move(Move { x: 0.6, z: 0.8, yaw: quantize(2.0) as u32 });
    let input = Input { seq: 1000, client_tick: 100_000, duration_ms: 100, what: Some(what) };
    let commands = Commands { inputs: vec![input], acked_reply_seq: 0 };
    ClientMessage { body: Some(Body::Commands(commands)) }.encoded_len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walls_reflect() {
        assert!(reflect(TAU / 2.0, [0.5, 50.0], 100.0).cos() > 0.0);
        assert!(reflect(0.1, [99.5, 50.0], 100.0).cos() < 0.0);
        assert!((reflect(1.0, [50.0, 50.0], 100.0) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn density_is_forty_within_sight() {
        let side = side_m(1000);
        let within = 1000.0 / (side * side) * std::f32::consts::PI * 2500.0;
        assert!((within - 40.0).abs() < 0.1, "{within}");
    }
}
