//! Reads checkpoints and finished segments of the log again, slowly, in the background: rot is found while there are others to repair it
//! from.
//!
//! - A rotten checkpoint is put aside, and the group's state is made durable anew.
//! - A rotten segment that raft may still need: what lives in it is in memory, and is written anew; the segment becomes journal.
//! - A rotten journal is reported: replay will miss that part.
//!
//! What can not be read for another reason is not called rot, and looked at again in the next round.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use marchland_raft::RaftNode;
use marchland_region::Executor;
use marchland_storage::checkpoint::{CheckpointError, CheckpointInfo, CheckpointReader, Checkpoints};
use marchland_storage::disk::Disk;
use marchland_storage::log::{OpenError, SegmentFile, SegmentScrub, SharedLog, finished_segments};
use marchland_types::GroupId;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// Bytes read a second.
const BYTES_PER_SECOND: u64 = 1024 * 1024;
/// Bytes read at once.
const STEP_BYTES: u64 = 64 * 1024;
/// To open a file costs as much as so many bytes of it, however small it is: there may be thousands of small ones.
const OPEN_BYTES: u64 = 256 * 1024;
/// Pause between two rounds over everything.
const ROUND_PAUSE: Duration = Duration::from_secs(10);
/// How long a rotten segment's content may take to be written anew before that is tried again.
const SUPERSEDE_WITHIN: Duration = Duration::from_secs(30);

/// How often rot was found since the start.
#[derive(Clone, Default)]
pub(super) struct RotFound(Arc<AtomicU64>);

impl RotFound {
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What looks for rot on one node.
pub(super) struct Scrubber<D: Disk, X> {
    pub(super) disk: D,
    pub(super) log_dir: PathBuf,
    pub(super) log: SharedLog,
    pub(super) checkpoints: Checkpoints<D>,
    pub(super) raft: RaftNode,
    /// Reading is work for its background.
    pub(super) executor: X,
    pub(super) found: RotFound,
}

/// What one look at a file came to.
enum Look {
    Sound,
    Rot(String),
    /// It could not be read, or the node is stopping.
    Unknown(String),
}

impl<D: Disk, X: Executor> Scrubber<D, X> {
    /// Runs until it is dropped.
    pub(super) async fn run(self) {
        // Journals stay where they are: each is told once.
        let mut told = BTreeSet::new();
        loop {
            sleep(ROUND_PAUSE).await;
            match self.checkpoints.list() {
                Ok(infos) => {
                    for info in infos {
                        self.checkpoint(info).await;
                    }
                }
                Err(error) => tracing::warn!(%error, "checkpoints can not be looked at"),
            }
            match finished_segments(&self.disk, &self.log_dir) {
                Ok(segments) => {
                    for at in 0..segments.len() {
                        if !told.contains(&segments[at].number) {
                            self.segment(&segments, at, &mut told).await;
                        }
                    }
                    told.retain(|number| segments.iter().any(|segment| segment.number == *number));
                }
                Err(error) => tracing::warn!(%error, "the log can not be looked at"),
            }
        }
    }

    fn rotten(&self, what: &'static str, reason: &str) {
        self.found.0.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("marchland_rot_found_total", "in" => what).increment(1);
        tracing::error!(%reason, "rot: data that was written well has changed on the disk");
    }

    /// Runs a step in the background, and then pauses for as long as what it read costs.
    async fn step<T: Send + 'static>(&self, job: impl FnOnce() -> (u64, T) + Send + 'static) -> Option<T> {
        let (done, result) = oneshot::channel();
        let job = Box::new(move || {
            // Whoever waits may have gone.
            let _ = done.send(job());
        });
        self.executor.submit_background(GroupId(0), job).ok()?;
        let (bytes, value) = result.await.ok()?;
        pause_after(bytes).await;
        Some(value)
    }

    async fn checkpoint(&self, info: CheckpointInfo) {
        let look = self.look_at_checkpoint(&info).await;
        match look {
            Look::Sound => {}
            Look::Unknown(reason) => tracing::debug!(path = %info.path.display(), reason, "checkpoint was not looked at"),
            Look::Rot(reason) => {
                self.rotten("checkpoint", &reason);
                match self.checkpoints.set_one_aside(&info, "rotten") {
                    Ok(to) => tracing::warn!(to = %to.display(), "the rotten checkpoint is put aside"),
                    Err(error) => return tracing::error!(%error, "the rotten checkpoint can not be put aside"),
                }
                let Some(group) = self.raft.group(info.group) else { return };
                match group.persist_now().await {
                    Ok(durable) => tracing::warn!(group = %info.group, ?durable, "a new checkpoint is written"),
                    Err(error) => tracing::error!(group = %info.group, %error, "no new checkpoint could be written"),
                }
            }
        }
    }

    async fn look_at_checkpoint(&self, info: &CheckpointInfo) -> Look {
        pause_after(OPEN_BYTES).await;
        let opened = self.checkpoints.read(info);
        let mut reader: CheckpointReader<D::File> = match opened {
            Ok(reader) => reader,
            Err(error) => return of_checkpoint(error),
        };
        loop {
            let read = self.step(move || {
                let chunk = reader.next_chunk();
                let bytes = chunk.as_ref().ok().and_then(Option::as_ref).map_or(0, bytes::Bytes::len);
                (bytes as u64, (reader, chunk.map(|chunk| chunk.is_some())))
            });
            match read.await {
                Some((again, Ok(true))) => reader = again,
                Some((_, Ok(false))) => return Look::Sound,
                Some((_, Err(error))) => return of_checkpoint(error),
                None => return Look::Unknown("the node is stopping".into()),
            }
        }
    }

    async fn segment(&self, segments: &[SegmentFile], at: usize, told: &mut BTreeSet<u64>) {
        let segment = &segments[at];
        match self.look_at_segment(segments, at).await {
            Look::Sound => {}
            Look::Unknown(reason) => tracing::debug!(path = %segment.path.display(), reason, "segment was not looked at"),
            Look::Rot(reason) => {
                self.rotten(if segment.live { "log" } else { "journal" }, &reason);
                if segment.live {
                    self.supersede(segment).await;
                } else {
                    told.insert(segment.number);
                }
            }
        }
    }

    async fn look_at_segment(&self, segments: &[SegmentFile], at: usize) -> Look {
        let last = self.log_dir.join(format!("{:012}.log", segments.last().map_or(0, |last| last.number + 1)));
        let mut scrub = match SegmentScrub::begin(&self.disk, segments, at, &last) {
            Ok(Some(scrub)) => scrub,
            Ok(None) => return Look::Unknown("it went meanwhile".into()),
            Err(error) => return of_segment(error),
        };
        loop {
            let read = self.step(move || {
                let read = scrub.read(STEP_BYTES);
                (read.as_ref().map_or(0, |bytes| *bytes), (scrub, read))
            });
            match read.await {
                Some((_, Ok(0))) => return Look::Sound,
                Some((again, Ok(_))) => scrub = again,
                Some((_, Err(error))) => return of_segment(error),
                None => return Look::Unknown("the node is stopping".into()),
            }
        }
    }

    /// Has what lives in the segment written anew.
    async fn supersede(&self, segment: &SegmentFile) {
        self.log.supersede(segment.number);
        let pause = Duration::from_millis(100);
        let mut left = SUPERSEDE_WITHIN.as_millis() / pause.as_millis();
        while self.disk.exists(&segment.path).unwrap_or(true) {
            if left == 0 {
                tracing::error!(path = %segment.path.display(), "the rotten segment is still needed: looked at again");
                return;
            }
            left -= 1;
            sleep(pause).await;
        }
        tracing::warn!(path = %segment.path.display(), "what lived in the rotten segment is written anew; it is needed no more");
    }
}

/// What so many bytes cost.
async fn pause_after(bytes: u64) {
    sleep(Duration::from_millis(bytes * 1000 / BYTES_PER_SECOND)).await;
}

fn of_checkpoint(error: CheckpointError) -> Look {
    match error {
        CheckpointError::Damaged { .. } => Look::Rot(error.to_string()),
        CheckpointError::Io { .. } | CheckpointError::Full { .. } | CheckpointError::NewerVersion { .. } => {
            Look::Unknown(error.to_string())
        }
    }
}

fn of_segment(error: OpenError) -> Look {
    let reason = error.to_string();
    if matches!(error, OpenError::Rot { .. }) { Look::Rot(reason) } else { Look::Unknown(reason) }
}
