//! The bytes of one client's frame, written straight into a buffer.
//!
//! A frame is made from tables that the tick has filled already; what did not change costs nothing. Records are deltas only if
//! this client was sent the tick before; else absolute, so that a frame after a skipped one is complete by itself. Making a
//! frame *is* sending it: the caller must have found the socket writable, and must close the connection if it then fails.

use bytes::BytesMut;
use marchland_proto::records::{MotionRun, OwnState, put_i24};
use marchland_types::limits::{QUANTA_PER_M, VISIBLE_MAX};

use crate::interest::{Changes, InterestConfig, PickScratch, Standing, Viewer};
use crate::replies::Replies;
use crate::view::{NO_DELTA, RegionView};
use crate::wire::{put_bytes, put_float, put_length_delimited, put_message, put_sint, put_uint};

/// Bytes of replies in one frame; a longer single one goes alone.
pub const REPLY_BYTES_PER_FRAME: usize = 8 * 1024;
/// Area events in one frame. They are best effort.
pub const EVENTS_PER_FRAME_MAX: usize = 32;
/// Bytes of area events in one frame.
const EVENT_BYTES_PER_FRAME: usize = 4 * 1024;

/// What one client's session has of its own movement.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnView {
    state: OwnState,
    /// It came at least once.
    known: bool,
    /// Its movement changed since it was sent.
    changed: bool,
}

impl OwnView {
    /// Takes a tick's record.
    pub fn take(&mut self, state: OwnState) {
        let before = OwnState { applied_seq: state.applied_seq, slot: state.slot, ..self.state };
        self.changed |= !self.known || before != state;
        self.known = true;
        self.state = state;
    }

    /// The newest record, once there was one.
    #[must_use]
    pub fn state(&self) -> Option<&OwnState> {
        self.known.then_some(&self.state)
    }
}

/// Writes frames, one after the other, with the same working memory for all clients of a loop.
#[derive(Debug, Default)]
pub struct FrameWriter {
    scratch: PickScratch,
    changes: Changes,
    runs: [Vec<u8>; 4],
    out: Vec<u8>,
}

impl FrameWriter {
    /// Appends to `out` the `ServerMessage` with the newest tick of `view` for this viewer. `false`, and nothing is written,
    /// as long as the client's own state has not come.
    pub fn write(
        &mut self,
        view: &RegionView,
        config: &InterestConfig,
        viewer: &mut Viewer,
        own: &mut OwnView,
        replies: &mut Replies,
        out: &mut BytesMut,
    ) -> bool {
        if !own.known {
            return false;
        }
        let full = viewer.sent.is_none();
        let quanta = |m: f32| (m * QUANTA_PER_M) as i32;
        let at = [quanta(own.state.position[0]), quanta(own.state.position[1]), quanta(own.state.position[2])];
        viewer.refresh(view, config, Standing { slot: own.state.slot, at }, &mut self.scratch, &mut self.changes);
        self.out.clear();
        let Self { changes, runs, out: body, .. } = self;
        put_message(body, 2, |body| {
            put_uint(body, 1, u64::from(view.region()));
            put_uint(body, 2, view.tick());
            put_uint(body, 3, view.server_ms());
            if view.time_rate() != 100 {
                put_uint(body, 4, u64::from(view.time_rate()));
            }
            put_uint(body, 5, own.state.applied_seq);
            if own.changed || full {
                put_self(body, &own.state);
            }
            put_enters(body, view, viewer, changes);
            if !full {
                put_bytes(body, 8, &changes.leaves);
            }
            put_motion(body, view, viewer, changes, runs);
            put_looks(body, view, viewer, changes);
            put_replies(body, replies);
            put_uint(body, 12, u64::from(full));
            put_events(body, view, viewer, config, at);
        });
        own.changed = false;
        viewer.sent = Some(view.revision());
        out.extend_from_slice(body);
        true
    }
}

fn put_self(out: &mut Vec<u8>, own: &OwnState) {
    put_message(out, 6, |out| {
        for (axis, value) in own.position.into_iter().chain(own.velocity).enumerate() {
            put_float(out, 1 + axis as u8, value);
        }
        put_uint(out, 7, u64::from(own.yaw));
        put_uint(out, 8, u64::from(own.flags));
        put_uint(out, 9, u64::from(own.discontinuity));
        put_uint(out, 10, own.move_seq);
        put_uint(out, 11, u64::from(own.move_left_ms));
    });
}

fn put_enters(out: &mut Vec<u8>, view: &RegionView, viewer: &Viewer, changes: &Changes) {
    for seen in &viewer.seen[changes.enters_from..] {
        let (hot, facts) = (&view.hot[seen.slot as usize], &view.facts[seen.slot as usize]);
        put_message(out, 7, |out| {
            put_uint(out, 1, u64::from(seen.alias));
            put_uint(out, 2, facts.entity);
            put_uint(out, 3, u64::from(facts.kind));
            put_bytes(out, 4, facts.name.as_bytes());
            put_bytes(out, 5, &facts.look);
            for (axis, value) in hot.at.into_iter().enumerate() {
                put_sint(out, 6 + axis as u8, value);
            }
            put_uint(out, 9, u64::from(hot.yaw));
        });
    }
}

fn put_motion(out: &mut Vec<u8>, view: &RegionView, viewer: &Viewer, changes: &Changes, runs: &mut [Vec<u8>; 4]) {
    let Some(sent) = viewer.sent else { return };
    let follows = view.deltas_follow(sent);
    for run in runs.iter_mut() {
        run.clear();
    }
    for seen in &viewer.seen[..changes.enters_from] {
        let hot = &view.hot[seen.slot as usize];
        if hot.moved <= sent {
            continue;
        }
        let [x, y, z] = hot.at;
        if follows && hot.delta != NO_DELTA {
            let [dx, dy, dz] = hot.delta;
            if dy == 0 {
                runs[MotionRun::Delta as usize].extend_from_slice(&[seen.alias, dx as u8, dz as u8, hot.yaw]);
            } else {
                let record = [seen.alias, dx as u8, dy as u8, dz as u8, hot.yaw];
                runs[MotionRun::DeltaHeight as usize].extend_from_slice(&record);
            }
        } else {
            let rose = hot.rose > sent;
            let run = &mut runs[if rose { MotionRun::AbsoluteHeight } else { MotionRun::Absolute } as usize];
            run.push(seen.alias);
            put_i24(run, x);
            if rose {
                let height = y.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
                run.extend_from_slice(&height.to_le_bytes());
            }
            put_i24(run, z);
            run.push(hot.yaw);
        }
    }
    let len: usize = runs.iter().filter(|run| !run.is_empty()).map(|run| 2 + run.len()).sum();
    if len == 0 {
        return;
    }
    put_length_delimited(out, 9, len);
    for (kind, run) in MotionRun::ALL.into_iter().zip(runs.iter()) {
        if !run.is_empty() {
            out.push(kind as u8);
            out.push((run.len() / kind.record_bytes()) as u8);
            out.extend_from_slice(run);
        }
    }
}

const _: () = assert!(VISIBLE_MAX <= u8::MAX as usize, "a run counts its records in one byte");

fn put_looks(out: &mut Vec<u8>, view: &RegionView, viewer: &Viewer, changes: &Changes) {
    let Some(sent) = viewer.sent else { return };
    for seen in &viewer.seen[..changes.enters_from] {
        if view.hot[seen.slot as usize].looked > sent {
            put_message(out, 10, |out| {
                put_uint(out, 1, u64::from(seen.alias));
                put_bytes(out, 2, &view.facts[seen.slot as usize].look);
            });
        }
    }
}

fn put_replies(out: &mut Vec<u8>, replies: &mut Replies) {
    let (mut room, mut first) = (REPLY_BYTES_PER_FRAME, true);
    while let Some(reply) = replies.take(room, first) {
        put_message(out, 11, |out| {
            put_uint(out, 1, reply.reply_seq);
            put_uint(out, 2, reply.command_seq);
            put_uint(out, 3, u64::from(reply.code));
            put_bytes(out, 4, &reply.body);
        });
        // What a reply costs beside its body.
        room = room.saturating_sub(reply.body.len() + 16);
        first = false;
        if room == 0 {
            return;
        }
    }
}

fn put_events(out: &mut Vec<u8>, view: &RegionView, viewer: &Viewer, config: &InterestConfig, at: [i32; 3]) {
    if view.events.is_empty() {
        return;
    }
    let radius = config.radius_m * QUANTA_PER_M;
    let (mut left, mut room) = (EVENTS_PER_FRAME_MAX, EVENT_BYTES_PER_FRAME);
    for event in &view.events {
        let (dx, dz) = (event.x as f32 - at[0] as f32, event.z as f32 - at[2] as f32);
        let entitled = event.audience.as_ref().is_none_or(|list| list.binary_search(&viewer.character()).is_ok());
        if !entitled || dx * dx + dz * dz > radius * radius || event.body.len() > room {
            continue;
        }
        put_message(out, 13, |out| {
            put_uint(out, 1, u64::from(event.kind));
            put_sint(out, 2, event.x);
            put_sint(out, 3, event.z);
            put_bytes(out, 4, &event.body);
        });
        room -= event.body.len();
        left -= 1;
        if left == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
