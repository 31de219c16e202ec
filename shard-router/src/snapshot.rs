//! A keyed group's state on its way to another replica.
//!
//! A stream of frames, cut into chunks without regard to their borders:
//!
//! ```text
//! frame     size u32 LE · CRC-32 of the payload u32 LE · payload
//! payload   0 · "MLDIRSNP" · format u32 LE · group u64 LE                     first
//!           1 · pairs: key size u32 LE · value size u32 LE · key · value      keys ascend over all frames
//!           2 · pairs in total u64 LE                                         last; nothing follows
//! ```
//!
//! The applied position is not among the pairs: it travels beside the snapshot and is written from there, so that there is
//! one truth. A reader refuses whatever is cut short, altered, out of order, another group's or a newer version's, and its
//! store keeps what it had.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use marchland_raft::{BoxFuture, MachineFault, SnapshotBody};
use marchland_router_core::{KEYED_FORMAT, Key};
use marchland_storage::keyed::{KeyedError, KeyedSnapshot};
use marchland_types::GroupId;
use marchland_types::limits::SNAPSHOT_CHUNK_BYTES;
use tokio::sync::OwnedMutexGuard;

const MAGIC: &[u8; 8] = b"MLDIRSNP";
const BEGIN: u8 = 0;
const PAIRS: u8 = 1;
const END: u8 = 2;
/// Pairs of one frame, in bytes: about half a chunk.
const FRAME_BYTES: usize = SNAPSHOT_CHUNK_BYTES / 2;
/// Largest frame that is read. No record comes near it; a declared size beyond is rot.
const FRAME_MAX_BYTES: usize = 16 * 1024 * 1024;
const HEAD_BYTES: usize = 8;

type Pair = (Bytes, Bytes);
type Pairs<'a> = Pin<Box<dyn Future<Output = Result<Vec<Pair>, KeyedError>> + Send + 'a>>;

/// The sending side: a view of the store as a stream of chunks.
pub(crate) struct Outgoing {
    group: GroupId,
    /// Never locked: a mutex only makes it shareable, as a body has to be.
    view: Mutex<Box<dyn KeyedSnapshot>>,
    buffer: BytesMut,
    pairs: u64,
    ended: bool,
    /// The store gives one view at a time; the next one waits for this.
    _turn: OwnedMutexGuard<()>,
}

impl Outgoing {
    pub(crate) fn new(group: GroupId, view: Box<dyn KeyedSnapshot>, turn: OwnedMutexGuard<()>) -> Self {
        let mut buffer = BytesMut::new();
        let mut begin = vec![BEGIN];
        begin.put_slice(MAGIC);
        begin.put_u32_le(KEYED_FORMAT);
        begin.put_u64_le(group.0);
        put_frame(&mut buffer, &begin);
        Self { group, view: Mutex::new(view), buffer, pairs: 0, ended: false, _turn: turn }
    }

    async fn fill(&mut self) -> Result<(), KeyedError> {
        let applied = Key::Applied.encode();
        while !self.ended && self.buffer.len() < SNAPSHOT_CHUNK_BYTES {
            let view = self.view.get_mut().unwrap_or_else(PoisonError::into_inner);
            let pairs = view.next(FRAME_BYTES).await?;
            let mut payload = Vec::with_capacity(FRAME_BYTES);
            if pairs.is_empty() {
                self.ended = true;
                payload.put_u8(END);
                payload.put_u64_le(self.pairs);
            } else {
                payload.put_u8(PAIRS);
                for (key, value) in pairs.into_iter().filter(|(key, _)| *key != applied) {
                    payload.put_u32_le(key.len() as u32);
                    payload.put_u32_le(value.len() as u32);
                    payload.put_slice(&key);
                    payload.put_slice(&value);
                    self.pairs += 1;
                }
            }
            put_frame(&mut self.buffer, &payload);
        }
        Ok(())
    }
}

fn put_frame(out: &mut BytesMut, payload: &[u8]) {
    out.put_u32_le(payload.len() as u32);
    out.put_u32_le(crc32fast::hash(payload));
    out.put_slice(payload);
}

impl SnapshotBody for Outgoing {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, MachineFault>> {
        Box::pin(async move {
            self.fill().await.map_err(|e| MachineFault { group: self.group, reason: format!("snapshot: {e}") })?;
            let size = self.buffer.len().min(SNAPSHOT_CHUNK_BYTES);
            Ok((size > 0).then(|| self.buffer.split_to(size).freeze()))
        })
    }
}

/// The receiving side: a stream of chunks as a source for the store.
pub(crate) struct Incoming {
    group: GroupId,
    body: Box<dyn SnapshotBody>,
    buffer: BytesMut,
    /// Written before the pairs: the first of all keys.
    applied: Option<Pair>,
    begun: bool,
    ended: bool,
    last_key: Option<Bytes>,
    pairs: u64,
}

impl Incoming {
    pub(crate) fn new(group: GroupId, body: Box<dyn SnapshotBody>, applied: Bytes) -> Self {
        let applied = Some((Key::Applied.encode(), applied));
        Self { group, body, buffer: BytesMut::new(), applied, begun: false, ended: false, last_key: None, pairs: 0 }
    }

    async fn next_pairs(&mut self, max_bytes: usize) -> Result<Vec<Pair>, KeyedError> {
        let mut out = Vec::new();
        let mut size = 0;
        while size < max_bytes.max(1) {
            match self.frame().await? {
                None if self.ended => break,
                None => return Err(bad("ends before its last frame")),
                Some(_) if self.ended => return Err(bad("goes on after its last frame")),
                Some(payload) => {
                    let begun = self.begun;
                    self.take(payload, &mut out)?;
                    if !begun && let Some(applied) = self.applied.take() {
                        out.push(applied);
                    }
                    size = out.iter().map(|(key, value)| key.len() + value.len()).sum();
                }
            }
        }
        Ok(out)
    }

    /// The next frame's payload, checked; `None` at the end of the stream.
    async fn frame(&mut self) -> Result<Option<Bytes>, KeyedError> {
        loop {
            if self.buffer.len() >= HEAD_BYTES {
                let mut head = &self.buffer[..HEAD_BYTES];
                let (size, crc) = (head.get_u32_le() as usize, head.get_u32_le());
                if size > FRAME_MAX_BYTES {
                    return Err(bad(&format!("declares a frame of {size} bytes")));
                }
                if self.buffer.len() >= HEAD_BYTES + size {
                    self.buffer.advance(HEAD_BYTES);
                    let payload = self.buffer.split_to(size).freeze();
                    if crc32fast::hash(&payload) != crc {
                        return Err(bad("has a frame with a wrong checksum"));
                    }
                    return Ok(Some(payload));
                }
            }
            match self.body.next().await.map_err(|e| KeyedError::Fault(e.to_string()))? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(bad("ends within a frame")),
            }
        }
    }

    fn take(&mut self, mut payload: Bytes, out: &mut Vec<Pair>) -> Result<(), KeyedError> {
        let kind = payload.try_get_u8().map_err(|_| bad("has an empty frame"))?;
        match (kind, self.begun) {
            (BEGIN, false) => {
                if payload.len() != MAGIC.len() + 12 || payload.split_to(MAGIC.len()) != MAGIC[..] {
                    return Err(bad("is no keyed group's"));
                }
                let format = payload.get_u32_le();
                if format == 0 || format > KEYED_FORMAT {
                    return Err(bad(&format!("has format {format}, this build knows up to {KEYED_FORMAT}")));
                }
                let group = GroupId(payload.get_u64_le());
                if group != self.group {
                    return Err(bad(&format!("is of {group}, {} expected", self.group)));
                }
                self.begun = true;
                Ok(())
            }
            (PAIRS, true) => {
                while payload.has_remaining() {
                    let pair = get_pair(&mut payload)?;
                    let key = Key::decode(&pair.0).map_err(|e| bad(&e.to_string()))?;
                    if key == Key::Applied || self.last_key.as_ref().is_some_and(|last| *last >= pair.0) {
                        return Err(bad(&format!("has the key {key:?} out of order")));
                    }
                    self.last_key = Some(pair.0.clone());
                    self.pairs += 1;
                    out.push(pair);
                }
                Ok(())
            }
            (END, true) => {
                let expected = payload.try_get_u64_le().map_err(|_| bad("has a short last frame"))?;
                if expected != self.pairs || payload.has_remaining() {
                    return Err(bad(&format!("holds {} pairs, {expected} expected", self.pairs)));
                }
                self.ended = true;
                Ok(())
            }
            (kind, _) => Err(bad(&format!("has a frame of kind {kind} out of place"))),
        }
    }
}

fn get_pair(payload: &mut Bytes) -> Result<Pair, KeyedError> {
    let short = || bad("has a short frame");
    let key_bytes = payload.try_get_u32_le().map_err(|_| short())? as usize;
    let value_bytes = payload.try_get_u32_le().map_err(|_| short())? as usize;
    // Both are at most 4 GiB, so the sum does not overflow where a usize has 64 bits.
    if payload.len() < key_bytes.saturating_add(value_bytes) {
        return Err(short());
    }
    Ok((payload.split_to(key_bytes), payload.split_to(value_bytes)))
}

fn bad(what: &str) -> KeyedError {
    KeyedError::Fault(format!("snapshot {what}"))
}

impl KeyedSnapshot for Incoming {
    fn next(&mut self, max_bytes: usize) -> Pairs<'_> {
        Box::pin(self.next_pairs(max_bytes))
    }
}
