//! The world as one player was shown it.
//!
//! What always holds after [`PlayerView::apply`]: positions are the owner's of the newest frame's tick, to the quantum; each
//! reply was taken once. It notes what must never happen (a frame that goes back, a delta without its tick before) as
//! [`PlayerView::faults`], for checkers.

use std::fmt;

use marchland_proto::client::{AreaEvent, Reply, SelfState};
use marchland_proto::records::{ClientMotion, client_motions, metres};
use prost::Message;

use super::decode::{BadFrame, Value, fields};

/// Aliases that there can be.
const ALIASES: usize = 128;

/// Another entity in view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Other {
    /// Its id, the same for every client.
    pub entity: u64,
    /// The game's.
    pub kind: u32,
    /// Shown over its head.
    pub name: String,
    /// The game's.
    pub look: Vec<u8>,
    /// Position in quanta of 1/64 m: east, up, south.
    pub at: [i32; 3],
    /// Facing, 256 steps a turn.
    pub yaw: u8,
}

impl Other {
    /// Position in metres: east, up, south.
    #[must_use]
    pub fn position(&self) -> [f32; 3] {
        self.at.map(metres)
    }
}

/// What one frame brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameInfo {
    /// Region of the frame.
    pub region: u32,
    /// Its tick.
    pub tick: u64,
    /// Its region time, in milliseconds since 1970.
    pub server_ms: u64,
    /// Entities in view after it.
    pub visible: usize,
    /// Bytes of the frame.
    pub size_bytes: usize,
    /// Everything was sent anew.
    pub full: bool,
}

/// Something that a correct server never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A tick of the same region that is not newer.
    TickWentBack {
        /// The tick before.
        from: u64,
        /// This one.
        to: u64,
    },
    /// Region time that went back.
    TimeWentBack,
    /// `applied_seq` that went back.
    AppliedWentBack,
    /// A record relative to a frame that was not sent.
    DeltaAfterGap,
    /// A record or a leave for an alias that is not in view.
    UnknownAlias(u8),
    /// An enter with an alias that is in view.
    AliasTaken(u8),
    /// A reply that is neither the next nor an old one.
    ReplyGap {
        /// Number that was due.
        expected: u64,
        /// Number that came.
        found: u64,
    },
}

/// A player's picture of the world.
pub struct PlayerView {
    others: Vec<Option<Other>>,
    visible: usize,
    info: FrameInfo,
    time_rate: u32,
    applied_seq: u64,
    own: SelfState,
    replies: Vec<Reply>,
    last_reply_seq: u64,
    area_events: Vec<AreaEvent>,
    faults: Vec<Fault>,
}

impl Default for PlayerView {
    fn default() -> Self {
        Self {
            others: vec![None; ALIASES],
            visible: 0,
            info: FrameInfo::default(),
            time_rate: 100,
            applied_seq: 0,
            own: SelfState::default(),
            replies: Vec::new(),
            last_reply_seq: 0,
            area_events: Vec::new(),
            faults: Vec::new(),
        }
    }
}

impl fmt::Debug for PlayerView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlayerView").field("frame", &self.info).field("faults", &self.faults).finish_non_exhaustive()
    }
}

/// Faults that are kept: one is enough to fail a run.
const FAULTS_MAX: usize = 64;

impl PlayerView {
    /// Newest tick shown.
    #[must_use]
    pub fn tick(&self) -> u64 {
        self.info.tick
    }

    /// The newest frame.
    #[must_use]
    pub fn newest(&self) -> FrameInfo {
        self.info
    }

    /// Percent of real time at which ticks come.
    #[must_use]
    pub fn time_rate(&self) -> u32 {
        self.time_rate
    }

    /// Every input up to here is committed.
    #[must_use]
    pub fn applied_seq(&self) -> u64 {
        self.applied_seq
    }

    /// The player's own movement.
    #[must_use]
    pub fn own(&self) -> &SelfState {
        &self.own
    }

    /// Others in view, with their aliases.
    pub fn others(&self) -> impl Iterator<Item = (u8, &Other)> {
        self.others.iter().enumerate().filter_map(|(alias, other)| Some((alias as u8, other.as_ref()?)))
    }

    /// Newest reply or event that was taken.
    #[must_use]
    pub fn last_reply_seq(&self) -> u64 {
        self.last_reply_seq
    }

    /// Replies and events since the last call, in order.
    pub fn take_replies(&mut self) -> Vec<Reply> {
        std::mem::take(&mut self.replies)
    }

    /// Area events since the last call.
    pub fn take_area_events(&mut self) -> Vec<AreaEvent> {
        std::mem::take(&mut self.area_events)
    }

    /// What a correct server never does, and this one did. At most a few are kept.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// A resumed session has replies up to here.
    pub(super) fn replies_known(&mut self, last_reply_seq: u64) {
        self.last_reply_seq = last_reply_seq;
    }

    /// Takes an encoded `Frame`.
    pub fn apply(&mut self, frame: &[u8]) -> Result<FrameInfo, BadFrame> {
        let mut info = FrameInfo { size_bytes: frame.len(), ..FrameInfo::default() };
        let (mut time_rate, mut applied_seq) = (100, 0);
        let (mut leaves, mut motion): (&[u8], &[u8]) = (&[], &[]);
        let mut some_enters = false;
        fields(frame, |field, value| {
            match field {
                1 => info.region = value.uint(field)? as u32,
                2 => info.tick = value.uint(field)?,
                3 => info.server_ms = value.uint(field)?,
                4 => time_rate = value.uint(field)? as u32,
                5 => applied_seq = value.uint(field)?,
                6 => self.own = own_state(value.bytes(field)?)?,
                7 => some_enters = true,
                8 => leaves = value.bytes(field)?,
                9 => motion = value.bytes(field)?,
                12 => info.full = value.uint(field)? != 0,
                _ => {}
            }
            Ok(())
        })?;
        self.check_order(&info, applied_seq);
        let follows = info.region == self.info.region && info.tick == self.info.tick + 1;
        (self.time_rate, self.applied_seq) = (time_rate, self.applied_seq.max(applied_seq));
        if info.full {
            self.others.fill(None);
            self.visible = 0;
        }
        for &alias in leaves {
            match self.others.get_mut(usize::from(alias)).and_then(Option::take) {
                Some(_) => self.visible -= 1,
                None => self.fault(Fault::UnknownAlias(alias)),
            }
        }
        if some_enters {
            fields(frame, |field, value| if field == 7 { self.enter(value.bytes(field)?) } else { Ok(()) })?;
        }
        client_motions(motion, |record| self.moved(record, follows)).map_err(|_| BadFrame::Records)?;
        fields(frame, |field, value| match field {
            10 => self.look(value.bytes(field)?),
            11 => self.reply(value.bytes(field)?),
            13 => {
                self.area_events.push(AreaEvent::decode(value.bytes(field)?).map_err(|_| BadFrame::Records)?);
                Ok(())
            }
            _ => Ok(()),
        })?;
        info.visible = self.visible;
        self.info = info;
        Ok(info)
    }

    fn check_order(&mut self, info: &FrameInfo, applied_seq: u64) {
        if info.region == self.info.region && info.tick <= self.info.tick {
            self.fault(Fault::TickWentBack { from: self.info.tick, to: info.tick });
        }
        if info.server_ms < self.info.server_ms {
            self.fault(Fault::TimeWentBack);
        }
        if applied_seq < self.applied_seq {
            self.fault(Fault::AppliedWentBack);
        }
    }

    fn fault(&mut self, fault: Fault) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }

    fn enter(&mut self, bytes: &[u8]) -> Result<(), BadFrame> {
        let (mut alias, mut other) = (0, Other::default());
        fields(bytes, |field, value| {
            match field {
                1 => alias = value.uint(field)?,
                2 => other.entity = value.uint(field)?,
                3 => other.kind = value.uint(field)? as u32,
                4 => {
                    let name = std::str::from_utf8(value.bytes(field)?).map_err(|_| BadFrame::Records)?;
                    name.clone_into(&mut other.name);
                }
                5 => other.look = value.bytes(field)?.to_vec(),
                6..=8 => other.at[field as usize - 6] = value.sint(field)?,
                9 => other.yaw = value.uint(field)? as u8,
                _ => {}
            }
            Ok(())
        })?;
        let place = usize::try_from(alias).ok().and_then(|at| self.others.get_mut(at)).ok_or(BadFrame::Records)?;
        if place.replace(other).is_some() {
            self.fault(Fault::AliasTaken(alias as u8));
        } else {
            self.visible += 1;
        }
        Ok(())
    }

    fn moved(&mut self, record: ClientMotion, follows: bool) {
        let (ClientMotion::Delta { alias, .. } | ClientMotion::Absolute { alias, .. }) = record;
        let Some(other) = self.others.get_mut(usize::from(alias)).and_then(Option::as_mut) else {
            return self.fault(Fault::UnknownAlias(alias));
        };
        match record {
            ClientMotion::Delta { by, yaw, .. } => {
                for (at, by) in other.at.iter_mut().zip(by) {
                    *at = at.wrapping_add(i32::from(by));
                }
                other.yaw = yaw;
                if !follows {
                    self.fault(Fault::DeltaAfterGap);
                }
            }
            ClientMotion::Absolute { x, y, z, yaw, .. } => {
                other.at = [x, y.map_or(other.at[1], i32::from), z];
                other.yaw = yaw;
            }
        }
    }

    fn look(&mut self, bytes: &[u8]) -> Result<(), BadFrame> {
        let (mut alias, mut look): (u64, &[u8]) = (0, &[]);
        fields(bytes, |field, value| {
            match field {
                1 => alias = value.uint(field)?,
                2 => look = value.bytes(field)?,
                _ => {}
            }
            Ok(())
        })?;
        match usize::try_from(alias).ok().and_then(|at| self.others.get_mut(at)).and_then(Option::as_mut) {
            Some(other) => other.look = look.to_vec(),
            None => self.fault(Fault::UnknownAlias(alias as u8)),
        }
        Ok(())
    }

    fn reply(&mut self, bytes: &[u8]) -> Result<(), BadFrame> {
        let reply = Reply::decode(bytes).map_err(|_| BadFrame::Records)?;
        let expected = self.last_reply_seq + 1;
        if reply.reply_seq > expected {
            self.fault(Fault::ReplyGap { expected, found: reply.reply_seq });
        } else if reply.reply_seq == expected {
            self.last_reply_seq = expected;
            self.replies.push(reply);
        }
        Ok(())
    }
}

fn own_state(bytes: &[u8]) -> Result<SelfState, BadFrame> {
    let mut own = SelfState::default();
    fields(bytes, |field, value: Value<'_>| {
        match field {
            1 => own.x = value.float(field)?,
            2 => own.y = value.float(field)?,
            3 => own.z = value.float(field)?,
            4 => own.vx = value.float(field)?,
            5 => own.vy = value.float(field)?,
            6 => own.vz = value.float(field)?,
            7 => own.yaw = value.uint(field)? as u32,
            8 => own.flags = value.uint(field)? as u32,
            9 => own.discontinuity = value.uint(field)? as u32,
            10 => own.move_seq = value.uint(field)?,
            11 => own.move_left_ms = value.uint(field)? as u32,
            _ => {}
        }
        Ok(())
    })?;
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rubbish_is_refused_or_skipped_but_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = PlayerView::default().apply(&bytes);
        }
    }

    #[test]
    fn faults_of_a_server_are_noticed() {
        use marchland_proto::client::{Enter, Frame};
        let mut view = PlayerView::default();
        let frame = |tick| Frame { region: 1, tick, server_ms: tick, ..Frame::default() };
        let enter = Enter { alias: 3, entity: 9, ..Enter::default() };
        view.apply(&Frame { full: true, enters: vec![enter], ..frame(5) }.encode_to_vec()).unwrap();
        // A delta for alias 3 in tick 7 without tick 6, and a leave of nobody.
        let moved = Frame { motion: vec![0, 1, 3, 1, 1, 0].into(), leaves: vec![4].into(), ..frame(7) };
        view.apply(&moved.encode_to_vec()).unwrap();
        view.apply(&frame(7).encode_to_vec()).unwrap();
        let late = Reply { reply_seq: 2, ..Reply::default() };
        view.apply(&Frame { replies: vec![late], ..frame(8) }.encode_to_vec()).unwrap();
        let faults = [
            Fault::UnknownAlias(4),
            Fault::DeltaAfterGap,
            Fault::TickWentBack { from: 7, to: 7 },
            Fault::ReplyGap { expected: 1, found: 2 },
        ];
        assert_eq!(view.faults(), faults);
    }

    #[test]
    fn another_region_has_ticks_of_its_own() {
        use marchland_proto::client::{Enter, Frame};
        let mut view = PlayerView::default();
        let frame = |region, tick, server_ms| Frame { region, tick, server_ms, ..Frame::default() };
        let enter = Enter { alias: 3, entity: 9, ..Enter::default() };
        view.apply(&Frame { full: true, enters: vec![enter], ..frame(1, 9_000, 50) }.encode_to_vec()).unwrap();
        let absolute = Frame { motion: vec![2, 1, 3, 64, 0, 0, 0, 0, 0, 7].into(), ..frame(2, 8, 50) };
        view.apply(&absolute.encode_to_vec()).unwrap();
        let delta = vec![0, 1, 3, 1, 1, 0];
        view.apply(&Frame { motion: delta.clone().into(), ..frame(2, 9, 100) }.encode_to_vec()).unwrap();
        assert_eq!(view.others().map(|(alias, other)| (alias, other.at)).collect::<Vec<_>>(), [(3, [65, 0, 1])]);
        assert_eq!(view.faults(), []);
        // Nothing is relative to another region's tick, even if it is the next number; and time is one for all.
        view.apply(&Frame { motion: delta.into(), ..frame(1, 10, 99) }.encode_to_vec()).unwrap();
        assert_eq!(view.faults(), [Fault::TimeWentBack, Fault::DeltaAfterGap]);
    }
}
