//! What a node's message does: tables first, then sessions and what follows from it, then one pass that flushes every client
//! whose frames follow the region.

use std::rc::Rc;
use std::time::Duration;

use marchland_edge_core::session::SessionKey;
use marchland_edge_core::{Applied, Effect, InterestConfig, RegionMap};
use marchland_proto::cluster::{NodeToEdge, RegionBatch};
use marchland_proto::net::Transport;
use marchland_proto::records::OwnState;
use marchland_types::seam::{Clock, Entropy};
use marchland_types::{AttachNumber, CharacterId, GroupId, LogIndex, NodeId, ReplicaId, SessionEpoch, planted, point};

use crate::connection::ConnRef;
use crate::stats::Flushed;
use crate::worker::{Region, State, Worker};

/// Effects of a pass over many connections, performed when the tables are free again.
type Pending<S> = Vec<(ConnRef<S>, Vec<Effect>)>;

impl<T: Transport, C: Clock, E: Entropy> Worker<T, C, E> {
    /// A message of a node's stream.
    pub(crate) fn handle_node(self: &Rc<Self>, node: NodeId, message: NodeToEdge) {
        self.state.borrow_mut().reach.heard(self.clock.monotonic(), node);
        for batch in &message.regions {
            self.handle_batch(node, batch);
        }
    }

    fn handle_batch(self: &Rc<Self>, node: NodeId, batch: &RegionBatch) {
        let now = self.clock.monotonic();
        let mut pending = Pending::new();
        let group = GroupId(batch.group);
        let applied = {
            let state = &mut *self.state.borrow_mut();
            if batch.gone.is_none() {
                self.group_named(group);
                self.map_named(batch.map_epoch);
                state.owners.heard(group, node, LogIndex(batch.index));
            }
            let Some(region) = state.regions.get_mut(&group) else { return };
            let view = &mut state.views[region.view];
            let believed = region.route.target() == Some(node) && region.subscribed;
            // Planted: whoever speaks is believed (see also the view).
            if !(believed || planted!("late-frame") && batch.gone.is_none()) {
                // Whoever was asked before may still speak; it is not believed. But a new owner says by itself that it is one,
                // and what it has committed is newer than all that came from the one before.
                let owns = batch.gone.is_none() && batch.index > view.index();
                if owns && region.route.target() != Some(node) {
                    region.subscribed = false;
                    region.route.announced(now, node);
                    self.sweep_soon.notify_one();
                }
                return;
            }
            if let Some(gone) = &batch.gone {
                point!("edge.owner_gone");
                region.subscribed = false;
                let leader = (gone.leader != 0).then(|| ReplicaId(gone.leader).node());
                region.route.lost(now, leader, &self.nodes);
                self.sweep_soon.notify_one();
                return;
            }
            point!("edge.batch_heard");
            region.route.heard(now);
            let applied = view.apply(batch);
            if applied == Applied::Tick {
                let next_in = batch.next_in_ms.checked_sub(1).map(|ms| Duration::from_millis(ms.into()));
                region.beat.heard(now, next_in, batch.time_rate);
            }
            for group in batch.cells.iter().flat_map(|part| &part.handed).map(|handed| handed.to_group) {
                self.group_named(GroupId(group));
            }
            self.tell_sessions(region, batch, applied, &mut pending);
            applied
        };
        // Whoever has just arrived here is sent this tick.
        for (conn, effects) in pending.drain(..) {
            self.perform(&conn, effects);
        }
        match applied {
            Applied::Tick => self.flush(group, batch.server_ms),
            Applied::Supplement => {}
            Applied::Stale => self.shared.counters.stale(),
        }
    }

    /// Sends a region's newest tick to every client whose frames follow it.
    fn flush(self: &Rc<Self>, group: GroupId, server_ms: u64) {
        let mut pending = Pending::new();
        {
            let state = &mut *self.state.borrow_mut();
            let flushed = flush(state, group, &self.map.borrow(), &self.shared.options.interest, &mut pending);
            let late_ms = self.clock.wall_ms().saturating_sub(server_ms);
            self.shared.counters.flushed(flushed, late_ms as f64);
            // Viewers may have begun to see other regions, and want or let go of their cells.
            self.add_seen(state);
            if state.regions.values().any(|region| state.views[region.view].has_changes()) {
                self.uplink_soon.notify_one();
            }
        }
        for (conn, effects) in pending {
            self.perform(&conn, effects);
        }
    }

    fn tell_sessions(
        &self,
        region: &mut Region<T::Stream>,
        batch: &RegionBatch,
        applied: Applied,
        pending: &mut Pending<T::Stream>,
    ) {
        let now = self.clock.monotonic();
        let config = &self.shared.options.session;
        let group = GroupId(batch.group);
        let mut after = |conn: &ConnRef<T::Stream>, effects: Vec<Effect>| {
            if !effects.is_empty() {
                pending.push((conn.clone(), effects));
            }
        };
        for answer in &batch.attached {
            let key = key_of(answer.character, answer.epoch, answer.attach);
            if let Some(conn) = region.sessions.get(&key) {
                point!("edge.attached");
                let mut effects = Vec::new();
                conn.borrow_mut().session.handle_attached(now, config, answer, &mut effects);
                after(conn, effects);
            }
        }
        // The region has committed what this says, whichever tick it stands in; only motion must not go back.
        for session in &batch.sessions {
            if let Some(conn) = region.newest_session(session.character) {
                let mut effects = Vec::new();
                let conn_mut = &mut *conn.borrow_mut();
                conn_mut.session.handle_batch(now, group, session, &mut effects);
                if conn_mut.session.is_at(group) {
                    match &mut conn_mut.viewer {
                        Some(viewer) => viewer.pin(&session.pinned),
                        None => session.pinned.clone_into(&mut conn_mut.pinned),
                    }
                }
                after(conn, effects);
            }
        }
        if applied != Applied::Stale {
            match OwnState::iter(&batch.own) {
                Ok(states) => {
                    for own in states {
                        if let Some(conn) = region.newest_session(own.character) {
                            let mut effects = Vec::new();
                            let conn_mut = &mut *conn.borrow_mut();
                            if !conn_mut.session.is_at(group) {
                                continue;
                            }
                            conn_mut.own.take(own);
                            conn_mut.session.handle_own_state(now, group, &own, &mut effects);
                            after(conn, effects);
                        }
                    }
                }
                Err(error) => tracing::warn!(group = %GroupId(batch.group), %error, "own states are not readable"),
            }
        }
        for moved in &batch.moved {
            if let Some(conn) = region.newest_session(moved.character) {
                point!("edge.moved");
                let mut effects = Vec::new();
                conn.borrow_mut().session.handle_moved(now, moved, &mut effects);
                after(conn, effects);
            }
        }
        for end in &batch.ended {
            if let Some(conn) = region.sessions.get(&key_of(end.character, end.epoch, end.attach)) {
                let mut effects = Vec::new();
                conn.borrow_mut().session.handle_ended(end, &mut effects);
                after(conn, effects);
            }
        }
    }
}

fn key_of(character: u64, epoch: u64, attach: u32) -> SessionKey {
    SessionKey { character: CharacterId(character), epoch: SessionEpoch(epoch), attach: AttachNumber(attach) }
}

/// Sends the newest tick to every client of the region that can take it.
fn flush<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    state: &mut State<S>,
    group: GroupId,
    map: &RegionMap,
    interest: &InterestConfig,
    pending: &mut Pending<S>,
) -> Flushed {
    let mut flushed = Flushed::default();
    let State { regions, views, writer, out, .. } = state;
    let Some(Region { players, .. }) = regions.get(&group) else { return flushed };
    for conn in players.values() {
        let conn_mut = &mut *conn.borrow_mut();
        let Some(own) = conn_mut.own.state().copied() else { continue };
        if conn_mut.viewer.is_none() || !conn_mut.session.is_playing() {
            continue;
        }
        let sent = match conn_mut.is_writable() {
            Ok(true) => {
                let (Some(viewer), Some(replies)) = (&mut conn_mut.viewer, conn_mut.session.replies_mut()) else { continue };
                viewer.hold_cells(views, map, interest, own.position[0], own.position[2]);
                if !writer.write(views, interest, viewer, &mut conn_mut.own, replies, out) {
                    continue;
                }
                let frame = out.split().freeze();
                flushed.frames += 1;
                flushed.bytes += frame.len() as u64;
                point!("edge.before_frame");
                conn_mut.send(frame)
            }
            Ok(false) => {
                flushed.skipped += 1;
                Ok(())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            tracing::debug!(character = own.character, %error, "player: socket lost");
            let mut effects = Vec::new();
            conn_mut.session.handle_socket_lost(&mut effects);
            pending.push((conn.clone(), effects));
        }
    }
    flushed
}
