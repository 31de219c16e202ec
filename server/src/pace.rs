//! Keeps a busy loop from being woken for every packet.
//!
//! An edge's loop serves hundreds of players, each of whom sends ten small messages a second at a moment of its own. To be woken for
//! each costs more than the message, above all on a virtual machine. As network cards do with their interrupts, a loop that
//! is woken again and again looks at its sockets only every few milliseconds; one that has little to do is woken at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use marchland_types::seam::Clock;
use tokio::runtime::Builder;

/// Between two looks of a busy loop: what a message or a frame waits at most. Inputs are gathered for longer than that anyway.
const PACE: Duration = Duration::from_millis(3);
/// A loop is busy when it was woken again within this time.
const BUSY: Duration = Duration::from_millis(5);

/// Makes the loop of a current-thread runtime pace itself.
pub(crate) fn pace<C: Clock>(builder: &mut Builder, clock: C) -> &mut Builder {
    let woken = std::sync::Arc::new(Woken::default());
    let (on_wake, now) = (woken.clone(), clock.clone());
    builder
        .on_thread_unpark(move || on_wake.wake(now.monotonic()))
        .on_thread_park(move || std::thread::sleep(woken.rest(clock.monotonic())))
}

/// When the loop was woken, in nanoseconds.
#[derive(Default)]
struct Woken {
    last: AtomicU64,
    busy_until: AtomicU64,
}

impl Woken {
    fn wake(&self, now: Duration) {
        let now = now.as_nanos() as u64;
        let before = self.last.swap(now, Ordering::Relaxed);
        if now.saturating_sub(before) < BUSY.as_nanos() as u64 {
            self.busy_until.store(now + PACE.as_nanos() as u64, Ordering::Relaxed);
        }
    }

    /// How long to rest before the next look.
    fn rest(&self, now: Duration) -> Duration {
        Duration::from_nanos(self.busy_until.load(Ordering::Relaxed).saturating_sub(now.as_nanos() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_loop_rests_when_it_is_woken_often_and_only_then() {
        let woken = Woken::default();
        woken.wake(MS(100));
        assert_eq!(woken.rest(MS(100)), Duration::ZERO, "the first wake after a pause");
        woken.wake(MS(101));
        assert_eq!(woken.rest(MS(102)), MS(2), "until 3 ms after it was woken");
        woken.wake(MS(104));
        assert_eq!(woken.rest(MS(104)), MS(3));
        woken.wake(MS(120));
        assert_eq!(woken.rest(MS(120)), Duration::ZERO, "it was quiet in between");
    }
}
