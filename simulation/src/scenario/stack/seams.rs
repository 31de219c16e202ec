//! What stands in a node's seams when its machine is a simulated one.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use marchland_edge::{EdgeWorker, run_worker};
use marchland_region::InlineExecutor;
use marchland_server::seams::{Seams, WriterEnd};
use marchland_storage::keyed::{KeyedError, KeyedOptions, SimKeyed, SimKeyedNode};
use marchland_storage::log::LogWriter;

use crate::disk::MachineDisk;
use crate::net::SimTransport;
use crate::seams::{SimClock, SimEntropy};
use crate::world::Boot;

/// The seams of one boot of a machine.
#[derive(Clone)]
pub(super) struct SimSeams {
    transport: SimTransport,
    disk: MachineDisk,
    clock: SimClock,
    entropy: SimEntropy,
    keyed: Arc<OnceLock<SimKeyedNode<MachineDisk>>>,
}

impl SimSeams {
    pub(super) fn new(boot: &Boot) -> Self {
        Self {
            transport: boot.transport.clone(),
            disk: boot.hardware.disk.clone(),
            clock: boot.hardware.clock.clone(),
            entropy: boot.entropy.clone(),
            keyed: Arc::default(),
        }
    }

    /// The keyed store, once it is open.
    pub(super) fn keyed(&self) -> Option<&SimKeyedNode<MachineDisk>> {
        self.keyed.get()
    }
}

impl Seams for SimSeams {
    type Transport = SimTransport;
    type Disk = MachineDisk;
    type Keyed = SimKeyed<MachineDisk>;
    type KeyedNode = SimKeyedNode<MachineDisk>;
    type Clock = SimClock;
    type Entropy = SimEntropy;
    type Executor = InlineExecutor;

    fn transport(&self) -> SimTransport {
        self.transport.clone()
    }

    fn disk(&self) -> MachineDisk {
        self.disk.clone()
    }

    fn clock(&self) -> SimClock {
        self.clock.clone()
    }

    fn entropy(&self) -> SimEntropy {
        self.entropy.clone()
    }

    fn executor(&self) -> InlineExecutor {
        InlineExecutor
    }

    async fn open_keyed(&self, dir: &Path, _options: KeyedOptions) -> Result<Self::KeyedNode, KeyedError> {
        let disk = self.disk.clone();
        let node = SimKeyedNode::open(self.disk.clone(), dir, Some(Arc::new(move || disk.latency())))?;
        // A node opens it once.
        Ok(self.keyed.get_or_init(|| node).clone())
    }

    fn run_log_writer(&self, writer: LogWriter<MachineDisk>) -> std::io::Result<WriterEnd> {
        let disk = self.disk.clone();
        let task = tokio::task::spawn_local(writer.run_task(move || disk.latency()));
        Ok(Box::pin(async move {
            // An error is the runtime's end: then the writer has ended as well.
            let _ = task.await;
        }))
    }

    fn run_edge(&self, workers: Vec<EdgeWorker<SimTransport, SimClock, SimEntropy>>) -> std::io::Result<WriterEnd> {
        let tasks: Vec<_> = workers.into_iter().map(|worker| tokio::task::spawn_local(run_worker(worker))).collect();
        Ok(Box::pin(async move {
            for task in tasks {
                let _ = task.await;
            }
        }))
    }
}
