//! The seams of a node, and what stands in them in production.
//!
//! The node's code is generic over one [`Seams`] type; `main` chooses [`Production`], the simulator its own. There is no
//! `cfg` anywhere: what is tested is what runs.

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use marchland_edge::{EdgeWorker, run_worker};
use marchland_proto::net::{TokioTransport, Transport};
use marchland_region::{Executor, ThreadExecutor};
use marchland_storage::disk::{Disk, RealDisk};
use marchland_storage::keyed::{DiskKeyed, DiskKeyedNode, KeyedError, KeyedNode, KeyedOptions, KeyedStore};
use marchland_storage::log::LogWriter;
use marchland_types::seam::{Clock, Entropy};

use crate::pace::pace;

/// The system's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the production seam")]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    #[allow(clippy::disallowed_methods, reason = "this is the production seam")]
    fn wall_ms(&self) -> u64 {
        // A clock before 1970 reads as 1970: region time only grows and will catch up.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    }
}

/// The system's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[allow(clippy::disallowed_methods, reason = "this is the production seam")]
    fn fill(&self, out: &mut [u8]) {
        use rand::Rng;
        rand::rng().fill_bytes(out);
    }
}

/// Everything that differs between production and the simulator.
pub trait Seams: Clone + Send + Sync + 'static {
    /// Byte streams.
    type Transport: Transport;
    /// Files.
    type Disk: Disk;
    /// A namespace of the keyed store.
    type Keyed: KeyedStore;
    /// The keyed store of a node.
    type KeyedNode: KeyedNode<Store = Self::Keyed>;
    /// Clocks.
    type Clock: Clock;
    /// Randomness.
    type Entropy: Entropy;
    /// Where regions run.
    type Executor: Executor;

    /// Byte streams.
    fn transport(&self) -> Self::Transport;
    /// Files.
    fn disk(&self) -> Self::Disk;
    /// Clocks.
    fn clock(&self) -> Self::Clock;
    /// Randomness.
    fn entropy(&self) -> Self::Entropy;
    /// Where regions run.
    fn executor(&self) -> Self::Executor;

    /// Opens the keyed store of a node. Called once in a node's life.
    fn open_keyed(&self, dir: &Path, options: KeyedOptions) -> impl Future<Output = Result<Self::KeyedNode, KeyedError>> + Send;

    /// Runs the log's writer until every handle of the log is dropped. The returned future resolves when it has ended.
    fn run_log_writer(&self, writer: LogWriter<Self::Disk>) -> std::io::Result<WriterEnd>;

    /// Runs an edge's loops. The returned future resolves when all have ended.
    fn run_edge(&self, workers: Vec<EdgeWorker<Self::Transport, Self::Clock, Self::Entropy>>) -> std::io::Result<WriterEnd>;
}

/// Resolves when something that a seam runs has ended.
pub type WriterEnd = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// What runs on a real machine.
#[derive(Clone)]
pub struct Production {
    clock: SystemClock,
    executor: ThreadExecutor,
}

impl Production {
    /// Starts the worker threads: one for regions on a small machine, up to half of the cores on a large one.
    pub fn start() -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self { clock: SystemClock::start(), executor: ThreadExecutor::start((cores / 2).max(1))? })
    }
}

impl Seams for Production {
    type Transport = TokioTransport;
    type Disk = RealDisk;
    type Keyed = DiskKeyed;
    type KeyedNode = DiskKeyedNode;
    type Clock = SystemClock;
    type Entropy = SystemEntropy;
    type Executor = ThreadExecutor;

    fn transport(&self) -> TokioTransport {
        TokioTransport
    }

    fn disk(&self) -> RealDisk {
        RealDisk
    }

    fn clock(&self) -> SystemClock {
        self.clock
    }

    fn entropy(&self) -> SystemEntropy {
        SystemEntropy
    }

    fn executor(&self) -> ThreadExecutor {
        self.executor.clone()
    }

    async fn open_keyed(&self, dir: &Path, options: KeyedOptions) -> Result<DiskKeyedNode, KeyedError> {
        let opened = DiskKeyedNode::open(dir, options)?;
        if let Some(path) = opened.set_aside {
            tracing::error!(path = %path.display(), "keyed store could not be opened and was set aside; its groups are rebuilt");
        }
        Ok(opened.node)
    }

    fn run_log_writer(&self, writer: LogWriter<RealDisk>) -> std::io::Result<WriterEnd> {
        let thread = writer.run_thread()?;
        let (ended, end) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name("raft-log-end".into()).spawn(move || {
            thread.join();
            let _ = ended.send(());
        })?;
        Ok(Box::pin(async move {
            let _ = end.await;
        }))
    }

    fn run_edge(&self, workers: Vec<EdgeWorker<TokioTransport, SystemClock, SystemEntropy>>) -> std::io::Result<WriterEnd> {
        let mut ends = Vec::new();
        for (number, worker) in workers.into_iter().enumerate() {
            let (ended, end) = tokio::sync::oneshot::channel::<()>();
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = pace(builder.enable_all(), self.clock).build()?;
            std::thread::Builder::new().name(format!("edge-{number}")).spawn(move || {
                tokio::task::LocalSet::new().block_on(&runtime, run_worker(worker));
                // Dropped when the loop panics, too: either way it has ended.
                let _ = ended.send(());
            })?;
            ends.push(end);
        }
        Ok(Box::pin(async move {
            for end in ends {
                let _ = end.await;
            }
        }))
    }
}
