//! What one player knows for certain, and what contradicts it.
//!
//! A player that was told that its input is applied, or that was given an item, may rely on it for ever: through crashes,
//! other edges, other regions and restarts. Whatever it is told later is held against that. Ticks and region times are of one region:
//! those of the next one may be lower.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use hdrhistogram::Histogram;
use marchland_edge::client::{Fault, PlayerView};

/// Gaps between frames of the own region above this are blackouts: three ticks, and room for a busy machine.
const BLACKOUT: Duration = Duration::from_millis(200);

/// Milliseconds, to three digits.
pub(super) fn histogram() -> Histogram<u64> {
    // Valid by construction: three significant digits is within the library's range.
    Histogram::new(3).expect("three significant digits")
}

/// Counts and times of one player or of many together.
#[derive(Clone)]
pub struct Figures {
    /// Sessions that were begun or resumed.
    pub connected: u64,
    /// Connections that ended without this player's doing.
    pub disconnects: u64,
    /// Inputs sent.
    pub sent: u64,
    /// Inputs known to be applied.
    pub acked: u64,
    /// Acknowledged inputs or items that a later answer does not know.
    pub lost: u64,
    /// Inputs that took effect twice.
    pub duplicated: u64,
    /// Frames.
    pub frames: u64,
    /// Bytes of them.
    pub frame_bytes: u64,
    /// Times that the own character came into another region.
    pub handoffs: u64,
    /// Times that something that was shown was taken back.
    pub rollbacks: u64,
    /// Items gathered.
    pub gathered: u64,
    /// Time that players were connected, in milliseconds, all together.
    pub connected_ms: u64,
    /// From a tick's region time to its frame, in milliseconds.
    pub tick_to_client_ms: Histogram<u64>,
    /// From an input to the frame that acknowledges it, in milliseconds.
    pub ack_ms: Histogram<u64>,
    /// Gaps between frames above 200 ms, in milliseconds.
    pub blackout_ms: Histogram<u64>,
    /// Gaps between two frames of one region, in milliseconds.
    pub frame_gap_ms: Histogram<u64>,
    /// Gaps between the last frame of a region and the first one of the next, in milliseconds.
    pub crossing_ms: Histogram<u64>,
    /// The first contradictions, in words.
    pub complaints: Vec<String>,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            connected: 0,
            disconnects: 0,
            sent: 0,
            acked: 0,
            lost: 0,
            duplicated: 0,
            frames: 0,
            frame_bytes: 0,
            handoffs: 0,
            rollbacks: 0,
            gathered: 0,
            connected_ms: 0,
            tick_to_client_ms: histogram(),
            ack_ms: histogram(),
            blackout_ms: histogram(),
            frame_gap_ms: histogram(),
            crossing_ms: histogram(),
            complaints: Vec::new(),
        }
    }
}

/// Complaints that are kept.
const COMPLAINTS_MAX: usize = 20;

impl Figures {
    /// Adds what another player counted.
    pub fn add(&mut self, other: &Figures) {
        for (sum, part) in [
            (&mut self.connected, other.connected),
            (&mut self.disconnects, other.disconnects),
            (&mut self.sent, other.sent),
            (&mut self.acked, other.acked),
            (&mut self.lost, other.lost),
            (&mut self.duplicated, other.duplicated),
            (&mut self.frames, other.frames),
            (&mut self.frame_bytes, other.frame_bytes),
            (&mut self.handoffs, other.handoffs),
            (&mut self.rollbacks, other.rollbacks),
            (&mut self.gathered, other.gathered),
            (&mut self.connected_ms, other.connected_ms),
        ] {
            *sum += part;
        }
        for (sum, part) in [
            (&mut self.tick_to_client_ms, &other.tick_to_client_ms),
            (&mut self.ack_ms, &other.ack_ms),
            (&mut self.blackout_ms, &other.blackout_ms),
            (&mut self.frame_gap_ms, &other.frame_gap_ms),
            (&mut self.crossing_ms, &other.crossing_ms),
        ] {
            // Same settings everywhere, and they resize themselves.
            let _ = sum.add(part);
        }
        for complaint in &other.complaints {
            self.complain(complaint.clone());
        }
    }

    /// Keeps a contradiction in words.
    pub fn complain(&mut self, text: String) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(text);
        }
    }

    /// Whether nothing that must never happen did.
    #[cfg(test)]
    fn sound(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.rollbacks == 0
    }
}

/// One player's knowledge of its character.
#[derive(Default)]
pub(super) struct Truth {
    /// Counts and times.
    pub(super) figures: Figures,
    epoch: u64,
    acked_seq: u64,
    /// When each input that is not acknowledged was sent.
    waiting: VecDeque<(u64, Duration)>,
    items: BTreeSet<u64>,
    /// Which command gave which item, within this session.
    given: BTreeMap<u64, u64>,
    last_frame: Option<Duration>,
    region: Option<u32>,
    faults: usize,
}

impl Truth {
    /// A session was begun or resumed; `next_seq` is what the server expects next.
    pub(super) fn joined(&mut self, epoch: u64, next_seq: u64) {
        self.figures.connected += 1;
        if epoch == self.epoch {
            if next_seq <= self.acked_seq {
                let (acked, lost) = (self.acked_seq, self.acked_seq + 1 - next_seq);
                self.figures.lost += lost;
                self.figures.complain(format!("input {acked} was acknowledged, the server expects {next_seq}"));
            }
        } else {
            if epoch < self.epoch {
                self.figures.rollbacks += 1;
                self.figures.complain(format!("session epoch {epoch} after {}", self.epoch));
            }
            (self.epoch, self.acked_seq) = (epoch, 0);
            self.waiting.clear();
            self.given.clear();
        }
        self.faults = 0;
    }

    /// An input was sent.
    pub(super) fn sent(&mut self, seq: u64, now: Duration) {
        self.figures.sent += 1;
        self.waiting.push_back((seq, now));
    }

    /// A frame came and was applied to `view`. `behind_ms` is its age by the wall clock.
    /// Returns how long there was none before, if there was one.
    pub(super) fn frame(
        &mut self,
        view: &PlayerView,
        size_bytes: usize,
        region: u32,
        behind_ms: u64,
        now: Duration,
    ) -> Option<Duration> {
        let figures = &mut self.figures;
        figures.frames += 1;
        figures.frame_bytes += size_bytes as u64;
        let _ = figures.tick_to_client_ms.record(behind_ms);
        let gap = self.last_frame.replace(now).map(|last| now - last);
        if let Some(gap) = gap.filter(|gap| *gap > BLACKOUT) {
            let _ = figures.blackout_ms.record(gap.as_millis() as u64);
        }
        let crossed = self.region.replace(region).is_some_and(|before| before != region);
        figures.handoffs += u64::from(crossed);
        if let Some(gap) = gap {
            let times = if crossed { &mut figures.crossing_ms } else { &mut figures.frame_gap_ms };
            let _ = times.record(gap.as_millis() as u64);
        }
        let applied = view.applied_seq();
        while let Some((seq, at)) = self.waiting.front().copied()
            && seq <= applied
        {
            self.waiting.pop_front();
            figures.acked += 1;
            let _ = figures.ack_ms.record((now - at).as_millis() as u64);
        }
        self.acked_seq = self.acked_seq.max(applied);
        let faults = view.faults();
        for fault in &faults[self.faults.min(faults.len())..] {
            if crossed && matches!(fault, Fault::TimeWentBack) {
                continue;
            }
            figures.rollbacks += 1;
            figures.complain(format!("{fault:?}"));
        }
        self.faults = faults.len();
        gap
    }

    /// The connection ended, not by this player's doing.
    pub(super) fn disconnected(&mut self) {
        self.figures.disconnects += 1;
    }

    /// A command gave an item.
    pub(super) fn gathered(&mut self, command: u64, item: u64) {
        self.figures.gathered += 1;
        if !self.items.insert(item) {
            self.figures.duplicated += 1;
            self.figures.complain(format!("item {item} was given twice"));
        }
        if let Some(other) = self.given.insert(command, item) {
            self.figures.duplicated += 1;
            self.figures.complain(format!("command {command} gave item {other} and item {item}"));
        }
    }

    /// The whole inventory, as the server says: everything that was given must be in it, once.
    pub(super) fn inventory(&mut self, items: &[u64]) {
        let held: BTreeSet<u64> = items.iter().copied().collect();
        if held.len() != items.len() {
            self.figures.duplicated += (items.len() - held.len()) as u64;
            self.figures.complain("an item is twice in the inventory".into());
        }
        let missing: Vec<_> = self.items.difference(&held).collect();
        if !missing.is_empty() {
            self.figures.lost += missing.len() as u64;
            self.figures.complain(format!("items {missing:?} were given and are gone"));
        }
        self.items.extend(held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use marchland_proto::client::Frame;
    use prost::Message as _;

    #[test]
    fn an_acknowledged_input_that_is_forgotten_is_lost() {
        let mut truth = Truth { acked_seq: 7, epoch: 1, ..Truth::default() };
        truth.joined(1, 8);
        assert!(truth.figures.sound());
        truth.joined(1, 6);
        assert_eq!(truth.figures.lost, 2);
        truth.joined(2, 1);
        assert_eq!(truth.figures.lost, 2, "a new session counts anew");
        truth.joined(1, 1);
        assert_eq!(truth.figures.rollbacks, 1);
    }

    #[test]
    fn another_region_has_a_time_of_its_own() {
        let (mut truth, mut view) = (Truth::default(), PlayerView::default());
        let mut now = Duration::ZERO;
        // Region, tick, region time, time since the last frame, and whether that is a rollback.
        for (region, tick, server_ms, after_ms, rollbacks) in [
            (1, 900, 5_000, 0, 0),
            (1, 901, 5_050, 50, 0),
            (2, 7, 4_990, 80, 0),
            (2, 8, 5_040, 60, 0),
            (2, 8, 5_040, 50, 1),
            (2, 9, 4_000, 50, 2),
        ] {
            now += Duration::from_millis(after_ms);
            let frame = Frame { region, tick, server_ms, ..Frame::default() };
            let info = view.apply(&frame.encode_to_vec()).unwrap();
            truth.frame(&view, info.size_bytes, info.region, 0, now);
            assert_eq!(truth.figures.rollbacks, rollbacks, "region {region} tick {tick}");
        }
        let figures = &truth.figures;
        assert_eq!((figures.handoffs, figures.crossing_ms.len(), figures.crossing_ms.max()), (1, 1, 80));
        assert_eq!((figures.frame_gap_ms.len(), figures.frame_gap_ms.max()), (4, 60));
    }

    #[test]
    fn items_are_neither_lost_nor_doubled() {
        let mut truth = Truth::default();
        truth.gathered(1, 100);
        truth.gathered(2, 101);
        truth.inventory(&[100, 101]);
        assert!(truth.figures.sound());
        truth.inventory(&[100]);
        assert_eq!((truth.figures.lost, truth.figures.duplicated), (1, 0));
        truth.gathered(3, 100);
        truth.inventory(&[100, 101, 101]);
        assert_eq!(truth.figures.duplicated, 2);
    }
}
