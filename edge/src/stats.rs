//! Counters of an edge: for its handle, and as metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use marchland_proto::codes::Code;

/// What an edge has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdgeStats {
    /// Clients that play now.
    pub clients: u64,
    /// Frames sent.
    pub frames: u64,
    /// Bytes of those, without WebSocket headers.
    pub frame_bytes: u64,
    /// Frames that were not made because the client's socket took nothing.
    pub frames_skipped: u64,
    /// Ticks that came from regions.
    pub ticks: u64,
    /// Batches that were dropped because they were not newer than what was known.
    pub stale_batches: u64,
    /// Messages from clients.
    pub messages: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections ended with a refusal.
    pub refused: u64,
}

/// The counters behind [`EdgeStats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    clients: AtomicU64,
    frames: AtomicU64,
    frame_bytes: AtomicU64,
    frames_skipped: AtomicU64,
    ticks: AtomicU64,
    stale_batches: AtomicU64,
    messages: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
}

/// What flushing one tick to all clients came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flushed {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    pub(crate) skipped: u64,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> EdgeStats {
        EdgeStats {
            clients: self.clients.load(Relaxed),
            frames: self.frames.load(Relaxed),
            frame_bytes: self.frame_bytes.load(Relaxed),
            frames_skipped: self.frames_skipped.load(Relaxed),
            ticks: self.ticks.load(Relaxed),
            stale_batches: self.stale_batches.load(Relaxed),
            messages: self.messages.load(Relaxed),
            accepted: self.accepted.load(Relaxed),
            refused: self.refused.load(Relaxed),
        }
    }

    pub(crate) fn client_came(&self) {
        self.clients.fetch_add(1, Relaxed);
        metrics::gauge!("marchland_edge_clients").increment(1.0);
    }

    pub(crate) fn client_went(&self) {
        self.clients.fetch_sub(1, Relaxed);
        metrics::gauge!("marchland_edge_clients").decrement(1.0);
    }

    /// Once per tick and region, not once per client.
    pub(crate) fn flushed(&self, flushed: Flushed, tick_to_flush_ms: f64) {
        self.ticks.fetch_add(1, Relaxed);
        self.frames.fetch_add(flushed.frames, Relaxed);
        self.frame_bytes.fetch_add(flushed.bytes, Relaxed);
        self.frames_skipped.fetch_add(flushed.skipped, Relaxed);
        metrics::counter!("marchland_edge_frames_total").increment(flushed.frames);
        metrics::counter!("marchland_edge_frame_bytes_total").increment(flushed.bytes);
        metrics::counter!("marchland_edge_frames_skipped_total").increment(flushed.skipped);
        metrics::histogram!("marchland_edge_tick_to_flush_ms").record(tick_to_flush_ms);
    }

    pub(crate) fn stale(&self) {
        self.stale_batches.fetch_add(1, Relaxed);
        metrics::counter!("marchland_edge_stale_batches_total").increment(1);
    }

    pub(crate) fn cut_off(&self) {
        metrics::counter!("marchland_edge_cut_off_total").increment(1);
    }

    pub(crate) fn message(&self) {
        self.messages.fetch_add(1, Relaxed);
    }

    pub(crate) fn accepted(&self) {
        self.accepted.fetch_add(1, Relaxed);
        metrics::counter!("marchland_edge_accepted_total").increment(1);
    }

    pub(crate) fn refused(&self, code: Code) {
        self.refused.fetch_add(1, Relaxed);
        metrics::counter!("marchland_edge_refusals_total", "code" => (code as u32).to_string()).increment(1);
    }
}
