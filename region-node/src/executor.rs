//! Where regions run: worker threads fed by crossbeam channels, or inline in the simulator.
//!
//! A region is pinned to one worker by its group id, so its jobs run one after the other in the order of their submission
//! and its state never moves between cores. A worker whose job takes long is replaced by a fresh one, which goes on with the jobs that
//! wait; when it does not end at all, the thread is left behind at the lowest priority, for a thread can not be ended from outside. Work that may take long without the region's state (encoding and writing a
//! checkpoint) goes to a background worker, so that it never delays a tick.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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

    /// The job of this group that runs now takes long: others, which wait for the same worker, must not wait for it any longer.
    fn replace(&self, _group: GroupId) {}

    /// That job will not end. Whatever runs it gets the least that there is.
    fn leave_behind(&self, _group: GroupId) {}
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
    workers: Arc<[Worker]>,
    background: Sender<Job>,
    /// Threads that were replaced, by the group that kept them busy; the last one of each.
    busy: Arc<Mutex<BTreeMap<GroupId, i32>>>,
}

struct Worker {
    name: String,
    jobs: Sender<Job>,
    waiting: Receiver<Job>,
    /// Which thread's turn it is, and held while that one waits for a job.
    turn: Arc<Turn>,
}

struct Turn {
    thread: Mutex<u64>,
    /// The system's id of that thread.
    id: AtomicI32,
}

impl Worker {
    fn start(name: String) -> std::io::Result<Self> {
        let (jobs, waiting) = bounded(JOBS_MAX);
        let turn = Arc::new(Turn { thread: Mutex::new(0), id: AtomicI32::new(0) });
        let worker = Self { name, jobs, waiting, turn };
        worker.spawn(0)?;
        Ok(worker)
    }

    fn spawn(&self, number: u64) -> std::io::Result<()> {
        let (waiting, turn) = (self.waiting.clone(), self.turn.clone());
        std::thread::Builder::new().name(self.name.clone()).spawn(move || work(&waiting, &turn, number)).map(drop)
    }

    /// Returns the system's id of the thread that is busy.
    fn replace(&self) -> Option<i32> {
        // A thread that waits for a job, and so holds the turn, is not busy.
        let mut thread = self.turn.thread.try_lock().ok()?;
        let busy = self.turn.id.load(Ordering::Relaxed);
        match self.spawn(*thread + 1) {
            Ok(()) => {
                *thread += 1;
                Some(busy)
            }
            // It goes on by itself when its job ends.
            Err(error) => {
                tracing::error!(%error, "a region's worker is busy for long, and no other can be started");
                None
            }
        }
    }
}

/// Gives a thread the least of the processor's time that there is.
fn yield_to_all(thread: i32) {
    if thread > 0 {
        // SAFETY: plain system call. The thread is one of ours; one that has ended is not found.
        let failed = unsafe { libc::setpriority(libc::PRIO_PROCESS, thread as libc::id_t, 19) } != 0;
        if failed {
            tracing::warn!(error = %std::io::Error::last_os_error(), "a thread that was left behind keeps its priority");
        }
    }
}

impl ThreadExecutor {
    /// Starts `workers` threads for regions and one for background work. Fails when the system gives no thread.
    pub fn start(workers: usize) -> std::io::Result<Self> {
        Ok(Self {
            workers: (0..workers.max(1)).map(|i| Worker::start(format!("region-{i}"))).collect::<Result<_, _>>()?,
            background: Worker::start("checkpoint".to_owned())?.jobs,
            busy: Arc::default(),
        })
    }
}

fn work(jobs: &Receiver<Job>, turn: &Turn, number: u64) {
    loop {
        let job = {
            let thread = turn.thread.lock().unwrap_or_else(PoisonError::into_inner);
            if *thread != number {
                return;
            }
            // SAFETY: plain system call without arguments.
            turn.id.store(unsafe { libc::gettid() }, Ordering::Relaxed);
            let Ok(job) = jobs.recv() else { return };
            job
        };
        // A job that panics must not take the worker's other regions with it. The job's own answer channel is dropped, which
        // its region sees as a fault and stops, alone.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
            tracing::error!("a region's job panicked; that region stops");
        }
    }
}

impl Executor for ThreadExecutor {
    fn submit(&self, group: GroupId, job: Job) -> Result<(), ExecutorError> {
        send(&self.workers[group.0 as usize % self.workers.len()].jobs, job)
    }

    fn submit_background(&self, _group: GroupId, job: Job) -> Result<(), ExecutorError> {
        send(&self.background, job)
    }

    fn replace(&self, group: GroupId) {
        if let Some(busy) = self.workers[group.0 as usize % self.workers.len()].replace() {
            self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(group, busy);
        }
    }

    fn leave_behind(&self, group: GroupId) {
        if let Some(busy) = self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&group) {
            yield_to_all(busy);
        }
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

    #[test]
    fn a_worker_whose_job_does_not_end_is_replaced_and_its_jobs_go_on_in_order() {
        let executor = ThreadExecutor::start(1).unwrap();
        let group = GroupId::region(WorldId(1), RegionId(1));
        let (free, waits) = bounded::<()>(0);
        let (sender, receiver) = bounded(200);
        let (begun, begins) = bounded(0);
        executor
            .submit(
                group,
                Box::new(move || {
                    begun.send(()).unwrap();
                    waits.recv().unwrap();
                }),
            )
            .unwrap();
        begins.recv_timeout(std::time::Duration::from_secs(5)).unwrap();
        let say = |i: i32| {
            let sender = sender.clone();
            executor.submit(group, Box::new(move || sender.send((i, std::thread::current().id())).unwrap())).unwrap();
        };
        (0..50).for_each(&say);
        assert!(receiver.recv_timeout(std::time::Duration::from_millis(100)).is_err(), "nothing passes it before");
        executor.replace(group);
        let seen: Vec<_> = (0..50).map(|_| receiver.recv_timeout(std::time::Duration::from_secs(5)).unwrap()).collect();
        assert_eq!(seen.iter().map(|(i, _)| *i).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
        // The first one returns at last: it is not needed any more, and takes nothing.
        free.send(()).unwrap();
        (50..100).for_each(&say);
        let more: Vec<_> = (0..50).map(|_| receiver.recv_timeout(std::time::Duration::from_secs(5)).unwrap()).collect();
        assert!(more.iter().all(|(_, thread)| *thread == seen[0].1), "two threads for one worker");
        // One that is not stuck is not replaced.
        executor.replace(group);
        say(100);
        assert_eq!(receiver.recv_timeout(std::time::Duration::from_secs(5)).unwrap().1, seen[0].1);
    }
}
