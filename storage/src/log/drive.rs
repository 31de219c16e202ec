//! Running the [`LogWriter`]: on a thread of its own in production, as a task in the simulator.

use std::io;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::writer::{LogWriter, Turn};
use crate::disk::Disk;

/// How often a full disk is looked at again.
const RETRY: Duration = Duration::from_millis(200);

/// Looks at the queue while a burst of operations comes in.
const GATHER_ROUNDS: u32 = 32;
/// Pauses of the processor between two looks: some three microseconds.
const GATHER_SPINS: u32 = 100;

/// Somebody who submits again as soon as he is answered does so within this; to be woken would take the writer about as long.
const SHORT_WAIT: Duration = Duration::from_micros(60);

/// The thread of a [`LogWriter`]. Dropping it does not stop the thread; dropping every
/// [`SharedLog`](super::SharedLog) does.
#[derive(Debug)]
pub struct LogThread(JoinHandle<()>);

impl LogThread {
    /// Waits until the writer has written everything and ended. Every [`SharedLog`](super::SharedLog) must be dropped first.
    pub fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the raft log's writer panicked");
        }
    }

    /// Whether the writer has ended.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<D: Disk> LogWriter<D> {
    /// Runs the writer on a thread of its own, until every [`SharedLog`](super::SharedLog) is dropped.
    pub fn run_thread(mut self) -> io::Result<LogThread> {
        let run = move || {
            let mut last_wait = Duration::MAX;
            loop {
                match self.turn() {
                    Turn::Wrote { .. } => {}
                    Turn::Stalled => std::thread::sleep(RETRY),
                    Turn::Closed => break,
                    Turn::Idle | Turn::Poisoned if self.is_short_of_room() => {
                        let _ = self.shared.bell_heard.recv_timeout(RETRY);
                    }
                    Turn::Idle | Turn::Poisoned => last_wait = self.wait(last_wait),
                }
            }
            self.seal();
        };
        std::thread::Builder::new().name("raft-log".to_owned()).spawn(run).map(LogThread)
    }

    /// Waits for work and for the rest of its burst. Stays awake for a moment if the last wait was short, which is when operations
    /// follow each other closely; a node with a few ticks a second sleeps at once. Returns how long it waited for the first.
    #[allow(clippy::disallowed_methods, reason = "decides how the thread waits, and nothing else; not run in the simulator")]
    fn wait(&self, last_wait: Duration) -> Duration {
        let began = Instant::now();
        if last_wait < SHORT_WAIT {
            while self.shared.bell_heard.is_empty() && began.elapsed() < SHORT_WAIT {
                spin();
            }
        }
        let _ = self.shared.bell_heard.recv();
        let waited = began.elapsed();
        self.gather();
        waited
    }

    /// Waits, a few microseconds, for as long as more keeps coming: the first operation of a burst rings the bell, and a sync
    /// for it alone would make the others wait for a second one.
    fn gather(&self) {
        let submitted = || self.shared.submitted.load(Ordering::Acquire);
        let mut seen = submitted();
        for _ in 0..GATHER_ROUNDS {
            spin();
            let now = submitted();
            if now == seen {
                return;
            }
            seen = now;
        }
    }

    /// Runs the writer as a task, for the simulator: before each turn it waits for as long as `pause` says the disk takes.
    pub async fn run_task(mut self, pause: impl Fn() -> Duration) {
        loop {
            if self.has_work() {
                tokio::time::sleep(pause()).await;
            }
            match self.turn() {
                Turn::Wrote { .. } => tokio::task::yield_now().await,
                Turn::Stalled => tokio::time::sleep(RETRY).await,
                Turn::Closed => break,
                Turn::Idle | Turn::Poisoned if self.is_short_of_room() => {
                    let _ = tokio::time::timeout(RETRY, self.shared.notify.notified()).await;
                }
                Turn::Idle | Turn::Poisoned => self.shared.notify.notified().await,
            }
        }
        self.seal();
    }
}

fn spin() {
    for _ in 0..GATHER_SPINS {
        std::hint::spin_loop();
    }
}
