//! Where regions run: worker threads fed by crossbeam channels, or inline in the simulator.
//!
//! A region is pinned to one worker by its group id, so its jobs run one after the other in the order of their submission
//! and its state never moves between cores. Work that may take long without the region's state (encoding and writing a
//! checkpoint) goes to a background worker, so that it never delays a tick.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use marchland_types::GroupId;

/// Something to run on a worker.
pub type Job = Box<dyn FnOnce() + Send>;

/// Jobs that may wait for one worker. A region has at most a handful under way (an apply, a tick, messages of each edge), so
/// this is room for hundreds of regions on a worker; a full queue means that the worker hangs.
const JOBS_MAX: usize = 4096;

/// A job was not taken: the worker has gone, or its queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecutorError {
    /// More jobs wait than a live worker would ever let pile up.
    #[error("region worker has {JOBS_MAX} jobs waiting")]
    Full,
    /// The executor was shut down.
    #[error("region worker is gone")]
    Gone,
}

/// Runs jobs of regions.
pub trait Executor: Clone + Send + Sync + 'static {
    /// Runs a job after all earlier ones of the same group.
    fn submit(&self, group: GroupId, job: Job) -> Result<(), ExecutorError>;

    /// Runs a job that touches no region's state, in order with others of the same group, aside from the ticks.
    fn submit_background(&self, group: GroupId, job: Job) -> Result<(), ExecutorError>;
}

/// Runs every job at once, on the caller: for the simulator, which has no threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct InlineExecutor;

impl Executor for InlineExecutor {
    fn submit(&self, _group: GroupId, job: Job) -> Result<(), ExecutorError> {
        job();
        Ok(())
    }

    fn submit_background(&self, _group: GroupId, job: Job) -> Result<(), ExecutorError> {
        job();
        Ok(())
    }
}

/// Worker threads. Dropping the last clone ends them after the jobs that wait.
#[derive(Clone)]
pub struct ThreadExecutor {
    workers: Arc<[Sender<Job>]>,
    background: Sender<Job>,
}

impl ThreadExecutor {
    /// Starts `workers` threads for regions and one for background work. Fails when the system gives no thread.
    pub fn start(workers: usize) -> std::io::Result<Self> {
        let start = |name: String| {
            let (sender, receiver) = bounded::<Job>(JOBS_MAX);
            std::thread::Builder::new().name(name).spawn(move || work(&receiver)).map(|_| sender)
        };
        Ok(Self {
            workers: (0..workers.max(1)).map(|i| start(format!("region-{i}"))).collect::<Result<_, _>>()?,
            background: start("checkpoint".to_owned())?,
        })
    }
}

fn work(jobs: &Receiver<Job>) {
    for job in jobs {
        // A job that panics must not take the worker's other regions with it. The job's own answer channel is dropped, which
        // its region sees as a fault and stops, alone.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
            tracing::error!("a region's job panicked; that region stops");
        }
    }
}

impl Executor for ThreadExecutor {
    fn submit(&self, group: GroupId, job: Job) -> Result<(), ExecutorError> {
        send(&self.workers[group.0 as usize % self.workers.len()], job)
    }

    fn submit_background(&self, _group: GroupId, job: Job) -> Result<(), ExecutorError> {
        send(&self.background, job)
    }
}

fn send(worker: &Sender<Job>, job: Job) -> Result<(), ExecutorError> {
    worker.try_send(job).map_err(|e| match e {
        TrySendError::Full(_) => ExecutorError::Full,
        TrySendError::Disconnected(_) => ExecutorError::Gone,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use marchland_types::{RegionId, WorldId};

    #[test]
    fn jobs_of_a_group_run_in_order_and_a_panic_stops_no_other() {
        let executor = ThreadExecutor::start(2).unwrap();
        let group = GroupId::region(WorldId(1), RegionId(1));
        let (sender, receiver) = bounded(200);
        for i in 0..100 {
            let sender = sender.clone();
            executor
                .submit(
                    group,
                    Box::new(move || {
                        sender.send(i).unwrap();
                        assert!(i != 50, "planted");
                    }),
                )
                .unwrap();
        }
        let seen: Vec<i32> = (0..100).map(|_| receiver.recv_timeout(std::time::Duration::from_secs(5)).unwrap()).collect();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }
}
