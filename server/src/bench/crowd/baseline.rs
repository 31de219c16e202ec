//! The players of the bare server, which runs in a process of its own on the servers' processor.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use futures::{SinkExt, StreamExt};
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use marchland_types::seam::Clock;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_tungstenite::tungstenite::Message;

use super::load::{Counts, sample_command_bytes};
use super::measure::Scene;
use crate::bench::pass;
use crate::bench::process::cpu_us;
use crate::seams::SystemClock;

/// Port of the bare server.
const BARE_PORT: u16 = 17_400;

/// What the bare server took.
pub(super) struct Bare {
    pub(super) cpu_us_per_update: f64,
    pub(super) p50_ms: u64,
    pub(super) p99_ms: u64,
    pub(super) updates: u64,
}

/// Frames of the same size at the same rate from a bare server, to as many players.
pub(super) async fn bare(scene: &Scene, dir: &Path, frame_bytes: usize, talk: bool) -> anyhow::Result<Bare> {
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command
        .args(["bench", "bare", "--port", &BARE_PORT.to_string(), "--frame-bytes", &frame_bytes.to_string()])
        .arg("--sync")
        .arg(dir.join("bare"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    crate::up::pin_child(&mut command, scene.servers_on);
    let mut server = command.spawn().context("can not start the bare server")?;
    let pid = server.id().context("the bare server ended at once")?;
    sleep(Duration::from_millis(300)).await;
    let measured = bare_load(scene, pid, talk).await;
    server.kill().await.context("can not stop the bare server")?;
    measured
}

async fn bare_load(scene: &Scene, pid: u32, talk: bool) -> anyhow::Result<Bare> {
    let counts = Arc::new(Counts::default());
    let times = Arc::new(Mutex::new(Histogram::<u64>::new(3)?));
    let clock = SystemClock::start();
    let mut players = JoinSet::new();
    for number in 0..scene.players {
        let (counts, times) = (counts.clone(), times.clone());
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", BARE_PORT)).await.context("bare server")?;
        stream.set_nodelay(true)?;
        let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://127.0.0.1:{BARE_PORT}/"), stream).await?;
        players.spawn(async move {
            let every = Duration::from_millis(100);
            let command = vec![0x5a; sample_command_bytes()];
            let mut next = Instant::now() + every * (number as u32 % 100) / 100;
            loop {
                match timeout_at(next, socket.next()).await {
                    Ok(Some(Ok(Message::Binary(frame)))) if frame.len() >= 8 => {
                        if counts.measuring.load(Ordering::Relaxed) {
                            counts.frames.fetch_add(1, Ordering::Relaxed);
                            let mut sent = [0; 8];
                            sent.copy_from_slice(&frame[..8]);
                            if let Ok(mut times) = times.lock() {
                                let _ = times.record(clock.wall_ms().saturating_sub(u64::from_le_bytes(sent)));
                            }
                        }
                    }
                    Ok(Some(Ok(_))) => {}
                    Ok(Some(Err(_)) | None) => return,
                    Err(_) => {
                        next += every;
                        if socket.send(Message::Binary(command.clone().into())).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
    }
    let bar = if talk { ProgressBar::new(2 + scene.seconds) } else { ProgressBar::hidden() };
    pass(&bar, 2).await;
    let total = || cpu_us(pid).map(|threads| threads.values().sum::<f64>());
    let before = total()?;
    counts.measuring.store(true, Ordering::Relaxed);
    pass(&bar, scene.seconds).await;
    counts.measuring.store(false, Ordering::Relaxed);
    let cpu = total()? - before;
    bar.finish_and_clear();
    players.shutdown().await;
    let updates = counts.frames.load(Ordering::Relaxed);
    if updates == 0 {
        bail!("the bare server sent nothing");
    }
    let times = times.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Bare {
        cpu_us_per_update: cpu / updates as f64,
        p50_ms: times.value_at_quantile(0.5),
        p99_ms: times.value_at_quantile(0.99),
        updates,
    })
}
