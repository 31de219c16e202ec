//! Snapshots on their way between nodes: begin, chunks with a CRC each, an end with size and CRC of everything.
//!
//! A receiver collects a snapshot in memory, up to a limit, and hands it to its state machine only when it is whole: a
//! connection that breaks half-way changes nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use marchland_proto::cluster::raft_transport_client::RaftTransportClient;
use marchland_proto::cluster::snapshot_chunk::Body as Chunk;
use marchland_proto::cluster::{RaftError, SnapshotBegin, SnapshotChunk, SnapshotData, SnapshotEnd, SnapshotRequest};
use marchland_proto::net::ClusterClient;
use marchland_types::limits::SNAPSHOT_CHUNK_BYTES;
use marchland_types::{GroupId, ReplicaId, point};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use crate::api::{Applied, BoxFuture, MachineFault, Snapshot, SnapshotBody};
use crate::link::LinkError;
use crate::options::Timings;
use crate::record;
use crate::types::Vote;
use crate::wire::{self, Refusal};

/// Chunks that wait for the connection.
const CHUNKS_AHEAD: usize = 2;

/// A snapshot's envelope.
pub(crate) struct Outgoing {
    pub(crate) group: GroupId,
    pub(crate) from: ReplicaId,
    pub(crate) to: ReplicaId,
    /// The leader's vote; none for one that was asked for.
    pub(crate) vote: Option<Vote>,
    pub(crate) timings: Timings,
}

/// Sends a snapshot and returns the receiver's vote, once it is installed.
pub(crate) async fn send(channel: Channel, outgoing: Outgoing, snapshot: Snapshot) -> Result<Vote, LinkError> {
    let (out, chunks) = mpsc::channel(CHUNKS_AHEAD);
    let mut client = RaftTransportClient::over(channel);
    let install = Duration::from_millis(outgoing.timings.install_ms);
    let answer = tokio::time::timeout(install, client.snapshot(ReceiverStream::new(chunks)));
    let produce = async {
        let result = produce(&outgoing, snapshot, &out).await;
        drop(out);
        result
    };
    tokio::pin!(answer, produce);
    // A receiver that refuses answers before it was sent everything.
    let answered = tokio::select! {
        biased;
        answered = &mut answer => answered,
        produced = &mut produce => {
            produced.map_err(LinkError::Unreachable)?;
            answer.await
        }
    };
    let answer = match answered {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return Err(LinkError::Unreachable(status.to_string())),
        Err(_) => return Err(LinkError::Timeout(install)),
    };
    match answer.error {
        Some(error) => Err(LinkError::Refused(error)),
        None => wire::vote_in(&answer.vote).map_err(|e| LinkError::Refused(e.into())),
    }
}

/// Cuts a snapshot into chunks. The receiving end learns of a failure by the absence of an end.
pub(crate) async fn produce(
    outgoing: &Outgoing,
    mut snapshot: Snapshot,
    out: &mpsc::Sender<SnapshotChunk>,
) -> Result<(), String> {
    let pause = Duration::from_millis(outgoing.timings.chunk_ms);
    let put = async |chunk: Chunk| match tokio::time::timeout(pause, out.send(SnapshotChunk { body: Some(chunk) })).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err("receiver has gone".to_owned()),
        Err(_) => Err(format!("receiver took no chunk within {pause:?}")),
    };
    put(Chunk::Begin(SnapshotBegin {
        group: outgoing.group.0,
        from: outgoing.from.0,
        to: outgoing.to.0,
        vote: outgoing.vote.as_ref().map(wire::vote_out),
        last: snapshot.applied.position.map(|p| wire::id_out(&crate::types::log_id(p))),
        membership: snapshot.applied.membership.clone(),
    }))
    .await?;
    point!("raft.snapshot_begun");
    let mut whole = crc32fast::Hasher::new();
    let mut size_bytes = 0;
    while let Some(mut bytes) = snapshot.body.next().await.map_err(|fault| fault.to_string())? {
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(SNAPSHOT_CHUNK_BYTES));
            whole.update(&part);
            size_bytes += part.len() as u64;
            put(Chunk::Data(SnapshotData { crc: crc32fast::hash(&part), bytes: part })).await?;
            point!("raft.chunk_sent");
        }
    }
    put(Chunk::End(SnapshotEnd { size_bytes, crc: whole.finalize() })).await
}

/// A snapshot that arrived whole.
pub(crate) struct Received {
    pub(crate) begin: SnapshotBegin,
    pub(crate) snapshot: Snapshot,
}

/// The chunks of a received snapshot.
struct Collected {
    chunks: std::vec::IntoIter<Bytes>,
}

impl SnapshotBody for Collected {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, MachineFault>> {
        Box::pin(std::future::ready(Ok(self.chunks.next())))
    }
}

fn damaged<T>(reason: impl Into<String>) -> Result<T, RaftError> {
    Err(Refusal::Damaged.with(reason))
}

async fn next_chunk<S>(stream: &mut S, pause: Duration) -> Result<Chunk, RaftError>
where
    S: Stream<Item = Result<SnapshotChunk, Status>> + Unpin,
{
    match tokio::time::timeout(pause, stream.next()).await {
        Err(_) => damaged(format!("no chunk within {pause:?}")),
        Ok(None) => damaged("ended early"),
        Ok(Some(Err(status))) => damaged(status.to_string()),
        Ok(Some(Ok(SnapshotChunk { body: Some(chunk) }))) => Ok(chunk),
        Ok(Some(Ok(SnapshotChunk { body: None }))) => Err(Refusal::Malformed.with("empty chunk")),
    }
}

/// Receives the head of a snapshot, so that it can be refused before anything is held.
pub(crate) async fn receive_begin<S>(stream: &mut S, timings: &Timings) -> Result<SnapshotBegin, RaftError>
where
    S: Stream<Item = Result<SnapshotChunk, Status>> + Unpin,
{
    match next_chunk(stream, Duration::from_millis(timings.chunk_ms)).await? {
        Chunk::Begin(begin) => Ok(begin),
        Chunk::Data(_) | Chunk::End(_) => Err(Refusal::Malformed.with("snapshot without a beginning")),
    }
}

/// Receives the rest. At most `limit_bytes` are held.
pub(crate) async fn receive_rest<S>(
    stream: &mut S,
    begin: SnapshotBegin,
    timings: &Timings,
    limit_bytes: usize,
) -> Result<Received, RaftError>
where
    S: Stream<Item = Result<SnapshotChunk, Status>> + Unpin,
{
    let pause = Duration::from_millis(timings.chunk_ms);
    let mut chunks = Vec::new();
    let mut whole = crc32fast::Hasher::new();
    let mut size = 0;
    loop {
        match next_chunk(stream, pause).await? {
            Chunk::Begin(_) => return Err(Refusal::Malformed.with("snapshot begins twice")),
            Chunk::Data(data) => {
                if data.bytes.len() > SNAPSHOT_CHUNK_BYTES {
                    return Err(Refusal::Malformed.with(format!("chunk of {} bytes", data.bytes.len())));
                }
                if crc32fast::hash(&data.bytes) != data.crc {
                    return damaged(format!("chunk at byte {size} does not match its CRC"));
                }
                whole.update(&data.bytes);
                size += data.bytes.len();
                if size > limit_bytes {
                    return Err(Refusal::Busy.with(format!("snapshot exceeds {limit_bytes} bytes")));
                }
                chunks.push(data.bytes);
                point!("raft.chunk_received");
            }
            Chunk::End(end) => {
                if end.size_bytes != size as u64 || end.crc != whole.finalize() {
                    return damaged(format!("{size} bytes received, {} sent, or CRC differs", end.size_bytes));
                }
                break;
            }
        }
    }
    point!("raft.snapshot_received");
    record::to_membership(&begin.membership).map_err(|e| Refusal::Malformed.with(e.to_string()))?;
    let Some(last) = &begin.last else { return Err(Refusal::Malformed.with("snapshot of nothing")) };
    let last = wire::id_in(last)?;
    let applied = Applied { position: Some(crate::types::position(&last)), membership: begin.membership.clone() };
    Ok(Received { snapshot: Snapshot { applied, body: Box::new(Collected { chunks: chunks.into_iter() }) }, begin })
}

/// Asks a peer for a snapshot of a group.
pub(crate) async fn fetch(
    channel: Channel,
    group: GroupId,
    from: ReplicaId,
    to: ReplicaId,
    timings: &Timings,
    limit_bytes: usize,
) -> Result<Snapshot, LinkError> {
    let chunk = Duration::from_millis(timings.chunk_ms);
    let mut client = RaftTransportClient::over(channel);
    let request = SnapshotRequest { group: group.0, from: from.0, to: to.0 };
    let mut stream = match tokio::time::timeout(chunk, client.fetch_snapshot(request)).await {
        Ok(Ok(stream)) => stream.into_inner(),
        Ok(Err(status)) => return Err(LinkError::Unreachable(status.to_string())),
        Err(_) => return Err(LinkError::Timeout(chunk)),
    };
    let begin = receive_begin(&mut stream, timings).await.map_err(LinkError::Refused)?;
    if begin.group != group.0 || begin.to != from.0 {
        return Err(LinkError::Refused(Refusal::Malformed.with("snapshot of another group, or for another replica")));
    }
    let received = receive_rest(&mut stream, begin, timings, limit_bytes).await.map_err(LinkError::Refused)?;
    Ok(received.snapshot)
}

/// Answers [`fetch`]: the chunks, made in a task of their own while the peer takes them.
pub(crate) fn serve(
    outgoing: Outgoing,
    snapshot: Snapshot,
    turn: tokio::sync::OwnedSemaphorePermit,
) -> impl Stream<Item = Result<SnapshotChunk, Status>> + Send + 'static {
    let (out, chunks) = mpsc::channel(CHUNKS_AHEAD);
    let outgoing = Arc::new(outgoing);
    tokio::spawn(async move {
        let _turn = turn;
        if let Err(reason) = produce(&outgoing, snapshot, &out).await {
            tracing::warn!(group = %outgoing.group, to = %outgoing.to, %reason, "snapshot was not fetched");
        }
    });
    ReceiverStream::new(chunks).map(Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use marchland_types::{LogIndex, Position, Term};

    fn snapshot(chunks: Vec<Vec<u8>>) -> Snapshot {
        let chunks: Vec<Bytes> = chunks.into_iter().map(Bytes::from).collect();
        Snapshot {
            applied: Applied { position: Some(Position { term: Term(1), index: LogIndex(9) }), membership: Bytes::new() },
            body: Box::new(Collected { chunks: chunks.into_iter() }),
        }
    }

    async fn chunks_of(snapshot: Snapshot) -> Vec<Result<SnapshotChunk, Status>> {
        let (out, mut chunks) = mpsc::channel(1000);
        let outgoing =
            Outgoing { group: GroupId(1), from: ReplicaId(1), to: ReplicaId(2), vote: None, timings: Timings::default() };
        produce(&outgoing, snapshot, &out).await.unwrap();
        drop(out);
        let mut all = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            all.push(Ok(chunk));
        }
        all
    }

    async fn receive(chunks: Vec<Result<SnapshotChunk, Status>>, limit: usize) -> Result<Vec<u8>, RaftError> {
        let mut stream = futures::stream::iter(chunks);
        let begin = receive_begin(&mut stream, &Timings::default()).await?;
        let mut received = receive_rest(&mut stream, begin, &Timings::default(), limit).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = received.snapshot.body.next().await.unwrap() {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    #[tokio::test]
    async fn a_snapshot_arrives_as_it_was_sent_in_chunks_of_the_allowed_size() {
        let big = vec![7u8; SNAPSHOT_CHUNK_BYTES * 2 + 5];
        let chunks = chunks_of(snapshot(vec![big.clone(), vec![1, 2, 3]])).await;
        assert_eq!(chunks.len(), 1 + 3 + 1 + 1);
        let bytes = receive(chunks, 1 << 30).await.unwrap();
        assert_eq!(bytes.len(), big.len() + 3);
        assert_eq!(&bytes[big.len()..], [1, 2, 3]);
    }

    #[tokio::test]
    async fn damage_loss_excess_and_disorder_are_refused() {
        let make = || async { chunks_of(snapshot(vec![vec![1; 100], vec![2; 100]])).await };
        let code = |refusal: Refusal| refusal as u32;

        let mut flipped = make().await;
        if let Some(Chunk::Data(data)) = &mut flipped[1].as_mut().unwrap().body {
            data.bytes = Bytes::from(vec![3; 100]);
        }
        assert_eq!(receive(flipped, 1 << 20).await.unwrap_err().code, code(Refusal::Damaged));

        let mut lost = make().await;
        drop(lost.remove(1));
        assert_eq!(receive(lost, 1 << 20).await.unwrap_err().code, code(Refusal::Damaged));

        let mut torn = make().await;
        drop(torn.pop());
        assert_eq!(receive(torn, 1 << 20).await.unwrap_err().code, code(Refusal::Damaged));

        assert_eq!(receive(make().await, 150).await.unwrap_err().code, code(Refusal::Busy));

        let mut headless = make().await;
        drop(headless.remove(0));
        assert_eq!(receive(headless, 1 << 20).await.unwrap_err().code, code(Refusal::Malformed));
    }
}
