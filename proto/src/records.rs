//! Fixed little-endian records that travel as `bytes` inside the envelopes.
//!
//! They exist because a protobuf message per moving entity and tick would cost more than everything else: these are
//! copied, not parsed. All positions are in quanta of 1/64 m ([`marchland_types::limits::QUANTA_PER_M`]).
//!
//! ```text
//! between owner and edge (a RegionBatch):
//!   Motion    20 B  slot u32 · x i32 · y i32 · z i32 · dx i8 · dy i8 · dz i8 · yaw u8
//!                   dx, dy, dz lead here from the tick before; all three -128: they can not, send absolute
//!   OwnState  64 B  character u64 · applied_seq u64 · move_seq u64 · x y z vx vy vz f32 · discontinuity u32 ·
//!                   move_left_ms u16 · flags u16 · slot u32 · yaw u8 · 3 B zero
//!
//! between edge and client (Frame.motion): runs of
//!   kind u8 · count u8 · count records
//!   kind 0  4 B  alias u8 · dx i8 · dz i8 · yaw u8                     since the tick before, which this client was sent
//!   kind 1  5 B  alias u8 · dx i8 · dy i8 · dz i8 · yaw u8             likewise, with height
//!   kind 2  8 B  alias u8 · x i24 · z i24 · yaw u8                     absolute, height unchanged
//!   kind 3 10 B  alias u8 · x i24 · y i16 · z i24 · yaw u8             absolute
//! ```

use bytes::{Buf, BufMut};
use marchland_types::limits::QUANTA_PER_M;

/// Rounds metres to quanta. Out of range saturates, NaN is 0.
#[must_use]
pub fn quantize(metres: f32) -> i32 {
    (metres * QUANTA_PER_M).round() as i32
}

/// Quanta as metres.
#[must_use]
pub fn metres(quanta: i32) -> f32 {
    quanta as f32 / QUANTA_PER_M
}

/// A record was cut short or a run declares more than follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("packed records end after {found} bytes, {expected} expected")]
pub struct Truncated {
    /// Bytes that the records need.
    pub expected: usize,
    /// Bytes that are there.
    pub found: usize,
}

/// Where an entity is after a tick, and how it came there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Motion {
    /// The owner's dense number of the entity.
    pub slot: u32,
    /// East, in quanta.
    pub x: i32,
    /// Up, in quanta.
    pub y: i32,
    /// South, in quanta.
    pub z: i32,
    /// Change since the tick before, `(x, y, z)` in quanta; `None` when it does not fit or there was no tick before.
    pub delta: Option<[i8; 3]>,
    /// Facing, 256 steps a turn.
    pub yaw: u8,
}

impl Motion {
    /// Encoded size.
    pub const SIZE: usize = 20;
    const NO_DELTA: [i8; 3] = [i8::MIN; 3];

    /// The delta between two positions, if it fits in a record.
    #[must_use]
    pub fn delta_between(from: [i32; 3], to: [i32; 3]) -> Option<[i8; 3]> {
        let mut delta = [0; 3];
        for axis in 0..3 {
            let step = i64::from(to[axis]) - i64::from(from[axis]);
            if !(-127..=127).contains(&step) {
                return None;
            }
            delta[axis] = step as i8;
        }
        Some(delta)
    }

    /// Appends the record.
    pub fn put(&self, out: &mut impl BufMut) {
        out.put_u32_le(self.slot);
        out.put_i32_le(self.x);
        out.put_i32_le(self.y);
        out.put_i32_le(self.z);
        for step in self.delta.unwrap_or(Self::NO_DELTA) {
            out.put_i8(step);
        }
        out.put_u8(self.yaw);
    }

    /// All records of `bytes`. Refuses a length that is no multiple of the size.
    pub fn iter(bytes: &[u8]) -> Result<impl Iterator<Item = Motion> + '_, Truncated> {
        check_multiple(bytes, Self::SIZE)?;
        Ok(bytes.chunks_exact(Self::SIZE).map(|mut b| {
            let (slot, x, y, z) = (b.get_u32_le(), b.get_i32_le(), b.get_i32_le(), b.get_i32_le());
            let delta = [b.get_i8(), b.get_i8(), b.get_i8()];
            Motion { slot, x, y, z, delta: (delta != Self::NO_DELTA).then_some(delta), yaw: b.get_u8() }
        }))
    }
}

/// A session's own state after a tick: what its client needs to predict and reconcile.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OwnState {
    /// Whose it is.
    pub character: u64,
    /// Every input up to here is committed.
    pub applied_seq: u64,
    /// Input whose movement time was used last.
    pub move_seq: u64,
    /// Metres.
    pub position: [f32; 3],
    /// Metres a second.
    pub velocity: [f32; 3],
    /// Changes when the position jumped.
    pub discontinuity: u32,
    /// Movement time of `move_seq` that is still to come.
    pub move_left_ms: u16,
    /// The game's.
    pub flags: u16,
    /// The owner's dense number of the character's entity.
    pub slot: u32,
    /// Facing, 256 steps a turn.
    pub yaw: u8,
}

impl OwnState {
    /// Encoded size.
    pub const SIZE: usize = 64;

    /// Appends the record.
    pub fn put(&self, out: &mut impl BufMut) {
        out.put_u64_le(self.character);
        out.put_u64_le(self.applied_seq);
        out.put_u64_le(self.move_seq);
        for v in self.position.into_iter().chain(self.velocity) {
            out.put_f32_le(v);
        }
        out.put_u32_le(self.discontinuity);
        out.put_u16_le(self.move_left_ms);
        out.put_u16_le(self.flags);
        out.put_u32_le(self.slot);
        out.put_u8(self.yaw);
        out.put_bytes(0, 3);
    }

    /// All records of `bytes`. Refuses a length that is no multiple of the size.
    pub fn iter(bytes: &[u8]) -> Result<impl Iterator<Item = OwnState> + '_, Truncated> {
        check_multiple(bytes, Self::SIZE)?;
        Ok(bytes.chunks_exact(Self::SIZE).map(|mut b| OwnState {
            character: b.get_u64_le(),
            applied_seq: b.get_u64_le(),
            move_seq: b.get_u64_le(),
            position: [b.get_f32_le(), b.get_f32_le(), b.get_f32_le()],
            velocity: [b.get_f32_le(), b.get_f32_le(), b.get_f32_le()],
            discontinuity: b.get_u32_le(),
            move_left_ms: b.get_u16_le(),
            flags: b.get_u16_le(),
            slot: b.get_u32_le(),
            yaw: b.get_u8(),
        }))
    }
}

fn check_multiple(bytes: &[u8], size: usize) -> Result<(), Truncated> {
    match bytes.len() % size {
        0 => Ok(()),
        rest => Err(Truncated { expected: bytes.len() - rest + size, found: bytes.len() }),
    }
}

/// One record of `Frame.motion`, as a client reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientMotion {
    /// Moved by `(x, y, z)` quanta since the tick before.
    Delta {
        /// The client's name for the entity.
        alias: u8,
        /// Change in quanta.
        by: [i8; 3],
        /// Facing.
        yaw: u8,
    },
    /// Is at a position, in quanta; `y` is `None` when the height did not change.
    Absolute {
        /// The client's name for the entity.
        alias: u8,
        /// East.
        x: i32,
        /// Up.
        y: Option<i16>,
        /// South.
        z: i32,
        /// Facing.
        yaw: u8,
    },
}

/// Kind of a run of [`ClientMotion`] records; the discriminants are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MotionRun {
    /// 4 B: alias, dx, dz, yaw.
    Delta = 0,
    /// 5 B: alias, dx, dy, dz, yaw.
    DeltaHeight = 1,
    /// 8 B: alias, x, z, yaw.
    Absolute = 2,
    /// 10 B: alias, x, y, z, yaw.
    AbsoluteHeight = 3,
}

impl MotionRun {
    /// Every kind.
    pub const ALL: [MotionRun; 4] = [Self::Delta, Self::DeltaHeight, Self::Absolute, Self::AbsoluteHeight];

    /// Size of one record.
    #[must_use]
    pub const fn record_bytes(self) -> usize {
        match self {
            Self::Delta => 4,
            Self::DeltaHeight => 5,
            Self::Absolute => 8,
            Self::AbsoluteHeight => 10,
        }
    }
}

/// Appends the low 24 bits of `value`, little-endian, two's complement. Saturates.
pub fn put_i24(out: &mut impl BufMut, value: i32) {
    let value = value.clamp(-(1 << 23), (1 << 23) - 1);
    out.put_slice(&value.to_le_bytes()[..3]);
}

/// Reads what [`put_i24`] wrote.
#[must_use]
pub fn get_i24(bytes: [u8; 3]) -> i32 {
    i32::from_le_bytes([0, bytes[0], bytes[1], bytes[2]]) >> 8
}

/// Appends one record without its run header; `kind` must be the run's.
pub fn put_client_motion(out: &mut impl BufMut, motion: &ClientMotion) -> MotionRun {
    match *motion {
        ClientMotion::Delta { alias, by: [dx, 0, dz], yaw } => {
            out.put_slice(&[alias, dx as u8, dz as u8, yaw]);
            MotionRun::Delta
        }
        ClientMotion::Delta { alias, by: [dx, dy, dz], yaw } => {
            out.put_slice(&[alias, dx as u8, dy as u8, dz as u8, yaw]);
            MotionRun::DeltaHeight
        }
        ClientMotion::Absolute { alias, x, y, z, yaw } => {
            out.put_u8(alias);
            put_i24(out, x);
            if let Some(y) = y {
                out.put_i16_le(y);
            }
            put_i24(out, z);
            out.put_u8(yaw);
            if y.is_some() { MotionRun::AbsoluteHeight } else { MotionRun::Absolute }
        }
    }
}

/// Reads `Frame.motion`.
pub fn client_motions(mut bytes: &[u8], mut each: impl FnMut(ClientMotion)) -> Result<(), Truncated> {
    while !bytes.is_empty() {
        if bytes.len() < 2 {
            return Err(Truncated { expected: 2, found: bytes.len() });
        }
        let (kind, count) = (bytes[0], bytes[1] as usize);
        bytes = &bytes[2..];
        let Some(run) = MotionRun::ALL.get(kind as usize) else {
            return Err(Truncated { expected: usize::MAX, found: bytes.len() });
        };
        let size = run.record_bytes() * count;
        if bytes.len() < size {
            return Err(Truncated { expected: size, found: bytes.len() });
        }
        for b in bytes[..size].chunks_exact(run.record_bytes()) {
            each(match run {
                MotionRun::Delta => ClientMotion::Delta { alias: b[0], by: [b[1] as i8, 0, b[2] as i8], yaw: b[3] },
                MotionRun::DeltaHeight => {
                    ClientMotion::Delta { alias: b[0], by: [b[1] as i8, b[2] as i8, b[3] as i8], yaw: b[4] }
                }
                MotionRun::Absolute => ClientMotion::Absolute {
                    alias: b[0],
                    x: get_i24([b[1], b[2], b[3]]),
                    y: None,
                    z: get_i24([b[4], b[5], b[6]]),
                    yaw: b[7],
                },
                MotionRun::AbsoluteHeight => ClientMotion::Absolute {
                    alias: b[0],
                    x: get_i24([b[1], b[2], b[3]]),
                    y: Some(i16::from_le_bytes([b[4], b[5]])),
                    z: get_i24([b[6], b[7], b[8]]),
                    yaw: b[9],
                },
            });
        }
        bytes = &bytes[size..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_records_round_trip() {
        let motion = Motion { slot: 7, x: -5, y: 3, z: i32::MAX, delta: Some([-127, 0, 127]), yaw: 200 };
        let jump = Motion { delta: None, ..motion };
        let mut out = Vec::new();
        motion.put(&mut out);
        jump.put(&mut out);
        assert_eq!(out.len(), 2 * Motion::SIZE);
        assert_eq!(Motion::iter(&out).unwrap().collect::<Vec<_>>(), [motion, jump]);
        assert!(Motion::iter(&out[1..]).is_err());

        let own = OwnState {
            character: 1,
            applied_seq: 2,
            move_seq: 3,
            position: [1.0, 2.0, 3.0],
            velocity: [4.0, 5.0, 6.0],
            discontinuity: 7,
            move_left_ms: 8,
            flags: 9,
            slot: 10,
            yaw: 11,
        };
        let mut out = Vec::new();
        own.put(&mut out);
        assert_eq!(out.len(), OwnState::SIZE);
        assert_eq!(OwnState::iter(&out).unwrap().collect::<Vec<_>>(), [own]);
    }

    #[test]
    fn deltas_fit_or_are_refused() {
        assert_eq!(Motion::delta_between([0, 0, 0], [127, -127, 1]), Some([127, -127, 1]));
        assert_eq!(Motion::delta_between([0, 0, 0], [128, 0, 0]), None);
        assert_eq!(Motion::delta_between([i32::MIN, 0, 0], [i32::MAX, 0, 0]), None);
    }

    #[test]
    fn client_records_round_trip() {
        let all = [
            ClientMotion::Delta { alias: 1, by: [-3, 0, 4], yaw: 5 },
            ClientMotion::Delta { alias: 2, by: [-3, 1, 4], yaw: 5 },
            ClientMotion::Absolute { alias: 3, x: -70_000, y: None, z: 70_000, yaw: 6 },
            ClientMotion::Absolute { alias: 127, x: -1, y: Some(-300), z: 8_388_607, yaw: 255 },
        ];
        let mut out = Vec::new();
        for motion in &all {
            let mut record = Vec::new();
            let kind = put_client_motion(&mut record, motion);
            assert_eq!(record.len(), kind.record_bytes());
            out.extend([kind as u8, 1]);
            out.extend(record);
        }
        let mut read = Vec::new();
        client_motions(&out, |m| read.push(m)).unwrap();
        assert_eq!(read, all);
        for cut in 1..out.len() {
            // Either refused or a prefix of whole runs: never a panic.
            let _ = client_motions(&out[..cut], |_| {});
        }
    }
}
