//! A session whose character moves between regions, or whose region does not have it.
//!
//! ```text
//!  here ──moved, to a higher number──> on the way ──SessionBatch of at least that number──> here
//!    │                                   │   ^
//!    └─────── NotAdmitted ──> lost ──────┘   └── asked again each second; the directory, if it is not there either
//! ```
//!
//! What always holds: move numbers only grow; a notice that is not news changes nothing; inputs of the client are taken and kept
//! all the while, and given to nobody until a region has shown that it has the session.

use std::time::Duration;

use marchland_proto::cluster::SessionMoved;
use marchland_types::GroupId;

use super::{Effect, Playing, Whereabouts};

/// How soon a region is asked for a session that it has not shown.
const ASK_AFTER: Duration = Duration::from_secs(1);

/// Of a session that no region has shown to have.
#[derive(Debug)]
pub(super) struct Transit {
    /// Until when it is no wonder that the region does not have it yet.
    patient_until: Duration,
    /// When that is asked for it, with an attach.
    ask_at: Duration,
    /// Since when it is nowhere.
    lost_since: Option<Duration>,
    /// The directory was asked, and has not answered.
    locating: bool,
}

impl Transit {
    fn new(now: Duration) -> Self {
        Self { patient_until: now + ASK_AFTER, ask_at: now + ASK_AFTER, lost_since: None, locating: false }
    }

    /// The region was asked just now.
    pub(super) fn asked(&mut self, now: Duration) {
        self.ask_at = now + ASK_AFTER;
    }

    /// For tests: its patience begins anew.
    #[cfg(test)]
    pub(super) fn forgive(&mut self, now: Duration) {
        self.lost_since = self.lost_since.map(|_| now);
    }

    /// Whether it has been nowhere for too long.
    pub(super) fn is_lost(&self, now: Duration, most: Duration) -> bool {
        self.lost_since.is_some_and(|since| now.saturating_sub(since) >= most)
    }
}

impl Playing {
    pub(super) fn is_at(&self, group: GroupId) -> bool {
        self.group == group && self.transit.is_none()
    }

    /// A region shows the session under a move number. `true` if it is the one that has it.
    pub(super) fn shown(&mut self, group: GroupId, move_number: u64) -> bool {
        let is_new = move_number >= self.move_number;
        if group != self.group || (self.transit.is_some() && !is_new) {
            return false;
        }
        self.move_number = self.move_number.max(move_number);
        true
    }

    /// A region says where the character went.
    pub(super) fn moved(&mut self, now: Duration, moved: &SessionMoved, out: &mut Vec<Effect>) {
        if moved.move_number > self.move_number {
            self.go(GroupId(moved.group), moved.move_number);
            self.transit = Some(Transit::new(now));
            out.push(Effect::Watch { group: self.group, key: self.key });
        }
    }

    fn go(&mut self, group: GroupId, move_number: u64) {
        self.group = group;
        self.move_number = move_number;
    }

    /// The region does not have the session. While its character is still on its way there, that is as it should be.
    pub(super) fn not_admitted(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let transit = self.transit.get_or_insert_with(|| Transit { patient_until: now, ..Transit::new(now) });
        if now < transit.patient_until {
            return;
        }
        transit.lost_since.get_or_insert(now);
        if !std::mem::replace(&mut transit.locating, true) {
            out.push(Effect::Locate { character: self.key.character });
        }
    }

    /// The directory's answer to that.
    pub(super) fn located(&mut self, now: Duration, found: Whereabouts, out: &mut Vec<Effect>) {
        let Some(transit) = &mut self.transit else { return };
        if !std::mem::take(&mut transit.locating) {
            return;
        }
        // Wherever it is, it is asked for there; where it was not found just now, after a pause.
        transit.asked(now);
        if let Whereabouts::At(at) = found
            && at.move_number > self.move_number
        {
            self.go(at.group, at.move_number);
            out.push(self.attach_effect());
        }
    }

    /// Time passed without the region's word.
    pub(super) fn look_for(&mut self, now: Duration, out: &mut Vec<Effect>) {
        if let Some(transit) = &mut self.transit
            && !transit.locating
            && now >= transit.ask_at
        {
            transit.asked(now);
            out.push(self.attach_effect());
        }
    }
}
