//! What all players together counted: live, and as a report.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use marchland_types::seam::Clock;
use serde::Serialize;

use super::truth::{Figures, histogram};
use crate::seams::SystemClock;

/// Counters that players raise as they go.
#[derive(Default)]
pub(super) struct Shared {
    here: AtomicU64,
    frames: AtomicU64,
    bytes: AtomicU64,
    sent: AtomicU64,
    gathered: AtomicU64,
    failed: AtomicU64,
    last_failure: Mutex<String>,
    finished: Mutex<Figures>,
    /// Number of the window that is being measured, if one is.
    window: AtomicU64,
    gaps: Mutex<BTreeMap<Window, Histogram<u64>>>,
}

/// A stretch of time for which every player's longest gap between two frames is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Window {
    /// Nothing happens.
    Quiet,
    /// Something does.
    Struck,
}

/// The longest gap of one player in the present window.
#[derive(Default)]
pub(super) struct LongestGap {
    window: u64,
    longest: Duration,
}

impl LongestGap {
    /// A frame came so long after the one before. A gap belongs to the window in which it ends.
    pub(super) fn note(&mut self, shared: &Shared, gap: Duration) {
        let window = shared.window.load(Ordering::Relaxed);
        if window != self.window {
            shared.gap(self);
            *self = Self { window, longest: Duration::ZERO };
        }
        self.longest = self.longest.max(gap);
    }
}

impl Shared {
    pub(super) fn joined(&self) {
        self.here.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn left(&self) {
        self.here.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn frame(&self, size_bytes: usize) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(size_bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn gathered(&self) {
        self.gathered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, reason: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        reason.clone_into(&mut self.last_failure.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Windows follow each other: whichever was measured before ends.
    pub(super) fn begin_window(&self, window: Window) {
        // Quiet ones are even, and none is 0.
        let next = |now: u64| {
            let next = now + 1;
            Some(next + u64::from(next.is_multiple_of(2) != (window == Window::Quiet)))
        };
        // Never refuses.
        let _ = self.window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    fn gap(&self, longest: &LongestGap) {
        let window = match longest.window {
            0 => return,
            even if even.is_multiple_of(2) => Window::Quiet,
            _ => Window::Struck,
        };
        let mut gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = gaps.entry(window).or_insert_with(histogram).record(longest.longest.as_millis() as u64);
    }

    /// The longest gap of each player in each window of a kind that has ended.
    pub(super) fn gaps(&self, window: Window) -> Times {
        let gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        gaps.get(&window).map_or_else(|| Times::of(&histogram()), Times::of)
    }

    pub(super) fn finish(&self, figures: &Figures) {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner).add(figures);
    }

    pub(super) fn report(&self, count: usize) -> Report {
        let figures = self.finished.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Report::new(count, self.failed.load(Ordering::Relaxed), figures)
    }
}

/// Live figures. Cheap to clone.
#[derive(Clone)]
pub struct Counters {
    shared: Arc<Shared>,
    clock: SystemClock,
    last: Arc<Mutex<(Duration, u64, u64, u64)>>,
}

impl Counters {
    pub(super) fn new(shared: Arc<Shared>, clock: SystemClock) -> Self {
        Self { shared, clock, last: Arc::default() }
    }

    /// Players that are connected.
    pub fn here(&self) -> u64 {
        self.shared.here.load(Ordering::Relaxed)
    }

    /// Rates since the last call, in words.
    pub fn line(&self) -> String {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let now = (self.clock.monotonic(), get(&self.shared.frames), get(&self.shared.bytes), get(&self.shared.sent));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = (now.0 - last.0).as_secs_f64().max(0.001);
        let rate = |new: u64, old: u64| (new - old) as f64 / seconds;
        let text = format!(
            "{} here, {:.0} frames/s, {:.0} kB/s, {:.0} commands/s, {} gathered",
            self.here(),
            rate(now.1, last.1),
            rate(now.2, last.2) / 1000.0,
            rate(now.3, last.3),
            get(&self.shared.gathered)
        );
        let failed = get(&self.shared.failed);
        *last = now;
        match failed {
            0 => text,
            _ => format!(
                "{text}, {failed} failed attempts (last: {})",
                self.shared.last_failure.lock().unwrap_or_else(PoisonError::into_inner)
            ),
        }
    }
}

/// Percentiles of a time, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Times {
    /// How many were measured.
    pub count: u64,
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Largest.
    pub max: u64,
}

impl Times {
    fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            max: histogram.max(),
        }
    }
}

/// What a run of players counted. The names are stable: scripts rely on them.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Players.
    pub players: usize,
    /// Sessions that were begun or resumed.
    pub connected: u64,
    /// Attempts to connect that failed.
    pub failed_attempts: u64,
    /// Connections that ended without their players' doing.
    pub disconnects: u64,
    /// Inputs sent.
    pub commands_sent: u64,
    /// Inputs known to be applied.
    pub commands_acked: u64,
    /// Acknowledged inputs, or items, that a later answer did not know.
    pub commands_lost: u64,
    /// Inputs that took effect twice.
    pub commands_duplicated: u64,
    /// Frames received.
    pub frames: u64,
    /// Times that a character came into another region.
    pub handoffs: u64,
    /// Items gathered.
    pub gathered: u64,
    /// From a tick's region time to its frame.
    pub tick_to_client_ms: Times,
    /// From an input to the frame that acknowledges it.
    pub ack_ms: Times,
    /// Gaps between frames of the own region above 200 ms.
    pub blackout_ms: Times,
    /// Gaps between two frames of one region.
    pub frame_gap_ms: Times,
    /// Gaps between the last frame of a region and the first one of the next.
    pub crossing_ms: Times,
    /// Bytes of frames for one player in one second.
    pub bytes_per_player_s: u64,
    /// Times that something that was shown was taken back.
    pub rollbacks: u64,
    /// The first contradictions and losses, in words.
    pub complaints: Vec<String>,
}

impl Report {
    fn new(players: usize, failed_attempts: u64, figures: Figures) -> Self {
        Self {
            players,
            connected: figures.connected,
            failed_attempts,
            disconnects: figures.disconnects,
            commands_sent: figures.sent,
            commands_acked: figures.acked,
            commands_lost: figures.lost,
            commands_duplicated: figures.duplicated,
            frames: figures.frames,
            handoffs: figures.handoffs,
            gathered: figures.gathered,
            tick_to_client_ms: Times::of(&figures.tick_to_client_ms),
            ack_ms: Times::of(&figures.ack_ms),
            blackout_ms: Times::of(&figures.blackout_ms),
            frame_gap_ms: Times::of(&figures.frame_gap_ms),
            crossing_ms: Times::of(&figures.crossing_ms),
            bytes_per_player_s: (figures.frame_bytes * 1000).checked_div(figures.connected_ms).unwrap_or(0),
            rollbacks: figures.rollbacks,
            complaints: figures.complaints,
        }
    }

    /// Whether nothing that must never happen did.
    pub fn sound(&self) -> bool {
        self.commands_lost == 0 && self.commands_duplicated == 0 && self.rollbacks == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} players: {} commands sent, {} acknowledged, {} lost, {} duplicated, {} rollbacks, {} disconnects",
            self.players,
            self.commands_sent,
            self.commands_acked,
            self.commands_lost,
            self.commands_duplicated,
            self.rollbacks,
            self.disconnects
        )?;
        write!(
            f,
            "{} frames, {} B per player and second, {} items gathered; tick to client p50 {} ms p99 {} ms, acknowledged p50 {} ms p99 {} ms",
            self.frames,
            self.bytes_per_player_s,
            self.gathered,
            self.tick_to_client_ms.p50,
            self.tick_to_client_ms.p99,
            self.ack_ms.p50,
            self.ack_ms.p99
        )?;
        if self.handoffs > 0 {
            let (crossing, gap) = (self.crossing_ms, self.frame_gap_ms);
            write!(
                f,
                "\n{} times in another region: p50 {} ms p99 {} ms from frame to frame, within a region p50 {} ms p99 {} ms",
                self.handoffs, crossing.p50, crossing.p99, gap.p50, gap.p99
            )?;
        }
        for complaint in &self.complaints {
            write!(f, "\n  {complaint}")?;
        }
        Ok(())
    }
}
