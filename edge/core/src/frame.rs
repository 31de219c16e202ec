//! The bytes of one client's frame, written straight into a buffer.
//!
//! A frame is made from tables that the tick has filled already; what did not change costs nothing. Records are deltas only if
//! this client was sent the tick before; else absolute, so that a frame after a skipped one is complete by itself. Making a
//! frame *is* sending it: the caller must have found the socket writable, and must close the connection if it then fails.
//!
//! A frame is a tick of the client's own region, with the newest that is known of the others that it sees. Deltas are only in
//! frames that follow upon another of the same region, whichever region's entity they are of: a client need not know whose it is.

use bytes::BytesMut;
use marchland_proto::records::{MotionRun, OwnState, put_i24};
use marchland_types::limits::{QUANTA_PER_M, VISIBLE_MAX};

use crate::interest::{Changes, InterestConfig, PickScratch, Seen, Standing, Viewer};
use crate::replies::Replies;
use crate::view::{Hot, NO_DELTA, RegionView};
use crate::views::{ViewId, Views};
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
    terms: Vec<Terms>,
    out: Vec<u8>,
}

/// On which terms a client is sent what one region has.
#[derive(Clone, Copy, Debug)]
struct Terms {
    view: ViewId,
    /// Revision that it was sent last; 0 if none.
    sent: u32,
    /// It may be sent deltas.
    follows: bool,
}

impl FrameWriter {
    /// Appends to `out` the `ServerMessage` with the newest tick of the viewer's own region. `false`, and nothing is written, as long
    /// as it follows none or the client's own state has not come.
    pub fn write(
        &mut self,
        views: &Views,
        config: &InterestConfig,
        viewer: &mut Viewer,
        own: &mut OwnView,
        replies: &mut Replies,
        out: &mut BytesMut,
    ) -> bool {
        let Some(view) = viewer.parts.first().map(|part| &views[part.view]).filter(|_| own.known) else { return false };
        let full = viewer.is_new;
        let quanta = |m: f32| (m * QUANTA_PER_M) as i32;
        let at = [quanta(own.state.position[0]), quanta(own.state.position[1]), quanta(own.state.position[2])];
        viewer.refresh(views, config, Standing { at, slot: own.state.slot }, &mut self.scratch, &mut self.changes);
        // Regions go by the clocks of their owners; what a client is shown does not go back.
        viewer.server_ms = viewer.server_ms.max(view.server_ms());
        let follows = !viewer.came && viewer.parts[0].sent.is_some_and(|sent| view.deltas_follow(sent));
        self.terms.clear();
        self.terms.extend(viewer.parts.iter().map(|part| Terms {
            view: part.view,
            sent: part.sent.unwrap_or(0),
            follows: follows && part.sent.is_some_and(|sent| views[part.view].deltas_follow(sent)),
        }));
        self.out.clear();
        let Self { changes, runs, terms, out: body, .. } = self;
        put_message(body, 2, |body| {
            put_uint(body, 1, u64::from(view.region()));
            put_uint(body, 2, view.tick());
            put_uint(body, 3, viewer.server_ms);
            if view.time_rate() != 100 {
                put_uint(body, 4, u64::from(view.time_rate()));
            }
            put_uint(body, 5, own.state.applied_seq);
            if own.changed || full {
                put_self(body, &own.state);
            }
            for seen in &viewer.seen[changes.enters_from..] {
                put_enter(body, &views[terms[usize::from(seen.part)].view], seen);
            }
            if !full {
                put_bytes(body, 8, &changes.leaves);
                // The loops of a client that sees one region are as tight as can be.
                if let [terms] = terms[..] {
                    put_others(body, viewer, changes, runs, |_| (view, terms));
                } else {
                    put_others(body, viewer, changes, runs, |seen| {
                        let terms = terms[usize::from(seen.part)];
                        (&views[terms.view], terms)
                    });
                }
            }
            put_replies(body, replies);
            put_uint(body, 12, u64::from(full));
            put_events(body, views, viewer, config, at);
        });
        own.changed = false;
        (viewer.is_new, viewer.came) = (false, false);
        for part in &mut viewer.parts {
            part.sent = Some(views[part.view].revision());
        }
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

fn put_enter(out: &mut Vec<u8>, view: &RegionView, seen: &Seen) {
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

/// Motion and looks of those that were in view before. `terms_of` says which region has one, and what the client knows of it.
fn put_others<'a>(
    out: &mut Vec<u8>,
    viewer: &Viewer,
    changes: &Changes,
    runs: &mut [Vec<u8>; 4],
    terms_of: impl Fn(&Seen) -> (&'a RegionView, Terms),
) {
    for run in runs.iter_mut() {
        run.clear();
    }
    for seen in &viewer.seen[..changes.crossed_from] {
        let (view, Terms { sent, follows, .. }) = terms_of(seen);
        let hot = &view.hot[seen.slot as usize];
        if hot.moved <= sent {
            continue;
        }
        if follows && hot.delta != NO_DELTA {
            let [dx, dy, dz] = hot.delta;
            if dy == 0 {
                runs[MotionRun::Delta as usize].extend_from_slice(&[seen.alias, dx as u8, dz as u8, hot.yaw]);
            } else {
                let record = [seen.alias, dx as u8, dy as u8, dz as u8, hot.yaw];
                runs[MotionRun::DeltaHeight as usize].extend_from_slice(&record);
            }
        } else {
            put_absolute(runs, seen.alias, hot, hot.rose > sent);
        }
    }
    // Of another region than before: nothing that the client was sent is of use.
    for seen in &viewer.seen[changes.crossed_from..changes.enters_from] {
        put_absolute(runs, seen.alias, &terms_of(seen).0.hot[seen.slot as usize], true);
    }
    put_runs(out, runs);
    for seen in &viewer.seen[..changes.crossed_from] {
        let (view, terms) = terms_of(seen);
        if view.hot[seen.slot as usize].looked > terms.sent {
            put_look(out, view, seen);
        }
    }
    for seen in &viewer.seen[changes.crossed_from..changes.enters_from] {
        put_look(out, terms_of(seen).0, seen);
    }
}

fn put_look(out: &mut Vec<u8>, view: &RegionView, seen: &Seen) {
    put_message(out, 10, |out| {
        put_uint(out, 1, u64::from(seen.alias));
        put_bytes(out, 2, &view.facts[seen.slot as usize].look);
    });
}

fn put_absolute(runs: &mut [Vec<u8>; 4], alias: u8, hot: &Hot, with_height: bool) {
    let [x, y, z] = hot.at;
    let run = &mut runs[if with_height { MotionRun::AbsoluteHeight } else { MotionRun::Absolute } as usize];
    run.push(alias);
    put_i24(run, x);
    if with_height {
        let height = y.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
        run.extend_from_slice(&height.to_le_bytes());
    }
    put_i24(run, z);
    run.push(hot.yaw);
}

fn put_runs(out: &mut Vec<u8>, runs: &[Vec<u8>; 4]) {
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

fn put_events(out: &mut Vec<u8>, views: &Views, viewer: &Viewer, config: &InterestConfig, at: [i32; 3]) {
    let radius = config.radius_m * QUANTA_PER_M;
    let (mut left, mut room) = (EVENTS_PER_FRAME_MAX, EVENT_BYTES_PER_FRAME);
    for part in &viewer.parts {
        let view = &views[part.view];
        let newest = view.revision().wrapping_sub(1);
        for event in view.events_after(part.sent.unwrap_or(newest)) {
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
}

#[cfg(test)]
mod tests;
