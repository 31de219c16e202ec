//! Running the [`LogWriter`]: on a thread of its own in production, as a task in the simulator.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use super::writer::{LogWriter, Turn};
use crate::disk::Disk;

/// How often a full disk is looked at again.
const RETRY: Duration = Duration::from_millis(200);

/// Looks at the queue while a burst of operations comes in.
const GATHER_ROUNDS: u32 = 32;
/// Pauses of the processor between two looks: some three microseconds.
const GATHER_SPINS: u32 = 100;

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
            loop {
                match self.turn() {
                    Turn::Wrote { .. } => {}
                    Turn::Stalled => std::thread::sleep(RETRY),
                    Turn::Closed => break,
                    Turn::Idle | Turn::Poisoned if self.is_short_of_room() => {
                        let _ = self.shared.bell_heard.recv_timeout(RETRY);
                    }
                    Turn::Idle | Turn::Poisoned => {
                        let _ = self.shared.bell_heard.recv();
                        self.gather();
                    }
                }
            }
            self.seal();
        };
        std::thread::Builder::new().name("raft-log".to_owned()).spawn(run).map(LogThread)
    }

    /// Waits, a few microseconds, for as long as more keeps coming: the first operation of a burst rings the bell, and a sync
    /// for it alone would make the others wait for a second one.
    fn gather(&self) {
        let mut seen = self.queue_len();
        for _ in 0..GATHER_ROUNDS {
            for _ in 0..GATHER_SPINS {
                std::hint::spin_loop();
            }
            let now = self.queue_len();
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
