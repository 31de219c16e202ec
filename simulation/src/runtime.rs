//! A machine's own runtime, which only the world moves on: its clock stands still unless the machine is given time.
//!
//! So a machine can be made to stand still while the others go on (as `SIGSTOP` would, or a hypervisor), to wake up with a clock that
//! has jumped, and to live a little faster or slower than the rest.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::runtime::{Builder, RngSeed, Runtime, UnhandledPanic};
use tokio::task::LocalSet;

use crate::seed::Seed;
use crate::wire::Wire;

/// Runs the software of one boot. A panic of any of its tasks is a panic of whoever moves it on.
pub(crate) struct MachineRuntime {
    // The runtime goes first: its tasks may hold what local tasks have.
    runtime: Runtime,
    local: LocalSet,
}

impl MachineRuntime {
    /// Starts `software` at the driver's time; nothing runs before the first [`MachineRuntime::run`].
    pub(crate) fn start(seed: Seed, name: &str, boot: u32, software: impl Future<Output = ()> + 'static) -> Self {
        let scheduler = seed.number(&format!("scheduler {name} {boot}"));
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&scheduler.to_le_bytes()))
            .unhandled_panic(UnhandledPanic::ShutdownRuntime)
            .build()
            .expect("a runtime without threads and sockets needs nothing that could be missing");
        let mut local = LocalSet::new();
        local.unhandled_panic(UnhandledPanic::ShutdownRuntime);
        local.spawn_local(software);
        Self { runtime, local }
    }

    /// Gives it this much time; what it sends leaves from `now` on.
    pub(crate) fn run(&self, time: Duration, wire: &Wire, now: Duration) {
        self.runtime.block_on(async {
            wire.turn_begins(now);
            self.local.run_until(tokio::time::sleep(time)).await;
            wire.turn_ends();
        });
    }

    /// Time has passed in which nothing ran: whatever was due is overdue.
    pub(crate) fn skip(&self, time: Duration) {
        self.runtime.block_on(async { self.local.run_until(tokio::time::advance(time)).await });
    }
}

/// Lets time pass for the machine whose turn it is, between two of its statements.
pub(crate) fn skip_here(time: Duration) {
    // The clock moves when this is first polled; what remains of it only lets others have a turn.
    let _ = pin!(tokio::time::advance(time)).poll(&mut Context::from_waker(Waker::noop()));
}
