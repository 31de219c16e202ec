//! The machine's clock, entropy and threads, taken away from one thread.
//!
//! Libraries read the clock and draw entropy without asking anyone: hash maps, timers, jitter. On a thread that has
//! [`enter`]ed a simulation, the C library's `clock_gettime` and `getrandom` answer from the simulated clock and from the seed,
//! and `pthread_create` ends the process: a thread would bring back the scheduler's own order. Every other thread sees
//! the real machine. The definitions below take precedence over the C library's because they are part of the executable.
//!
//! What always holds on such a thread: time is that of the simulated host that runs now, or the driver's
//! ([`set_driver_time`]) between hosts; it never depends on the real clock.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// 2023-11-14 22:13:20 UTC: when every simulation begins, in seconds since 1970.
pub const EPOCH_S: u64 = 1_700_000_000;

const NS_PER_S: u64 = 1_000_000_000;

thread_local! {
    // `const` and without `Drop`: reading them never allocates, and works while a thread is torn down.
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    static TAKEN: Cell<Taken> = const { Cell::new(Taken::EVERYTHING) };
    static ENTROPY: Cell<u64> = const { Cell::new(0) };
    static DRIVER_NS: Cell<u64> = const { Cell::new(0) };
    static ZERO: Cell<Option<Instant>> = const { Cell::new(None) };
    static ASKING_TOKIO: Cell<bool> = const { Cell::new(false) };
}

/// What is taken from the thread. Anything less than everything is for tests that show that it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// `clock_gettime`.
    pub clock: bool,
    /// `getrandom` and `getentropy`.
    pub entropy: bool,
}

impl Taken {
    /// As every real run has it.
    pub const EVERYTHING: Self = Self { clock: true, entropy: true };
}

impl Default for Taken {
    fn default() -> Self {
        Self::EVERYTHING
    }
}

/// Gives the thread its machine back when dropped.
#[derive(Debug)]
pub struct Guard(());

impl Drop for Guard {
    fn drop(&mut self) {
        ACTIVE.set(false);
    }
}

/// Takes the machine away from this thread. One simulation per thread: thread-local state of libraries is only fresh once.
#[allow(clippy::disallowed_methods)] // Reads zero of our own clock: the lines below define what it answers.
pub fn enter(seed: u64, taken: Taken) -> Guard {
    ENTROPY.set(seed ^ 0x5dee_ce66_d1ce_4e5b);
    DRIVER_NS.set(0);
    TAKEN.set(taken);
    ZERO.set(None);
    ACTIVE.set(true);
    ZERO.set(Some(Instant::now()));
    Guard(())
}

/// Time as seen outside any host. The driver sets it before each step.
pub fn set_driver_time(elapsed: Duration) {
    DRIVER_NS.set(elapsed.as_nanos() as u64);
}

/// What [`set_driver_time`] has set.
#[must_use]
pub fn driver_time() -> Duration {
    Duration::from_nanos(DRIVER_NS.get())
}

/// Simulated time since the simulation began: of the host that runs now, or else the driver's.
#[must_use]
pub fn now() -> Duration {
    Duration::from_nanos(monotonic_ns())
}

fn monotonic_ns() -> u64 {
    // Tokio's paused clock of the runtime that is entered. Without a runtime tokio falls back to the standard library's clock,
    // which lands here again: then it is the driver's time.
    let Some(zero) = ZERO.get() else { return DRIVER_NS.get() };
    if ASKING_TOKIO.replace(true) {
        return DRIVER_NS.get();
    }
    let now = tokio::time::Instant::now().into_std();
    ASKING_TOKIO.set(false);
    now.saturating_duration_since(zero).as_nanos() as u64
}

/// One step of splitmix64 (Steele, Lea and Flood 2014).
fn draw() -> u64 {
    let mut z = ENTROPY.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    ENTROPY.set(z);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// # Safety
/// As `clock_gettime(2)`: `out` points to a `timespec`.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(id: libc::clockid_t, out: *mut libc::timespec) -> libc::c_int {
    // A clock of CPU time measures the simulator itself, and nothing simulated reads one.
    let cpu = id == libc::CLOCK_PROCESS_CPUTIME_ID || id == libc::CLOCK_THREAD_CPUTIME_ID;
    if !ACTIVE.get() || !TAKEN.get().clock || cpu {
        return unsafe { libc::syscall(libc::SYS_clock_gettime, id, out) as libc::c_int };
    }
    let ns = monotonic_ns();
    let wall = id == libc::CLOCK_REALTIME || id == libc::CLOCK_REALTIME_COARSE;
    let seconds = ns / NS_PER_S + if wall { EPOCH_S } else { 0 };
    let time = libc::timespec { tv_sec: seconds as libc::time_t, tv_nsec: (ns % NS_PER_S) as _ };
    unsafe { out.write(time) };
    0
}

/// # Safety
/// As `getrandom(2)`: `out` points to `size` writable bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(out: *mut u8, size: usize, flags: u32) -> isize {
    if !ACTIVE.get() || !TAKEN.get().entropy {
        return unsafe { libc::syscall(libc::SYS_getrandom, out, size, flags) as isize };
    }
    let mut filled = 0;
    while filled < size {
        let bytes = draw().to_le_bytes();
        let part = bytes.len().min(size - filled);
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), out.add(filled), part) };
        filled += part;
    }
    size as isize
}

/// # Safety
/// As `getentropy(3)`: `out` points to `size` writable bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getentropy(out: *mut u8, size: usize) -> libc::c_int {
    if unsafe { getrandom(out, size, 0) } == size as isize { 0 } else { -1 }
}

type ThreadMain = extern "C" fn(*mut libc::c_void) -> *mut libc::c_void;
type PthreadCreate =
    unsafe extern "C" fn(*mut libc::pthread_t, *const libc::pthread_attr_t, ThreadMain, *mut libc::c_void) -> libc::c_int;

/// # Safety
/// As `pthread_create(3)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    main: ThreadMain,
    argument: *mut libc::c_void,
) -> libc::c_int {
    if ACTIVE.get() {
        ACTIVE.set(false);
        eprintln!("a thread was started inside the simulation:\n{}", std::backtrace::Backtrace::force_capture());
        std::process::abort();
    }
    let real = unsafe { libc::dlsym(libc::RTLD_NEXT, c"pthread_create".as_ptr()) };
    assert!(!real.is_null(), "the C library has no pthread_create");
    let real = unsafe { std::mem::transmute::<*mut libc::c_void, PthreadCreate>(real) };
    unsafe { real(thread, attributes, main, argument) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> (u128, u64) {
        #[allow(clippy::disallowed_methods)] // The very thing that is tested.
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        let mut bytes = [0; 8];
        let filled = unsafe { getrandom(bytes.as_mut_ptr(), bytes.len(), 0) };
        assert_eq!(filled, 8);
        (wall, u64::from_le_bytes(bytes))
    }

    #[test]
    fn a_thread_that_entered_sees_the_seed_and_the_driver_and_only_until_it_leaves() {
        let inside = |seed| {
            std::thread::Builder::new()
                .spawn(move || {
                    let guard = enter(seed, Taken::EVERYTHING);
                    set_driver_time(Duration::from_millis(1500));
                    let seen = (machine(), now());
                    drop(guard);
                    assert_ne!(machine(), seen.0, "the machine is given back");
                    seen
                })
                .unwrap()
                .join()
                .unwrap()
        };
        let ((wall, random), elapsed) = inside(7);
        assert_eq!(wall, (u128::from(EPOCH_S) * 1000 + 1500) * 1_000_000);
        assert_eq!(elapsed, Duration::from_millis(1500));
        assert_eq!(inside(7), ((wall, random), elapsed));
        assert_ne!(inside(8).0.1, random);
    }

    #[test]
    fn what_is_not_taken_is_real() {
        let seen = std::thread::Builder::new()
            .spawn(|| {
                let _guard = enter(7, Taken { clock: false, entropy: false });
                (machine(), machine())
            })
            .unwrap()
            .join()
            .unwrap();
        assert!(seen.0.0 > u128::from(EPOCH_S) * u128::from(NS_PER_S) && seen.0.1 != seen.1.1);
    }

    #[test]
    fn time_inside_a_paused_runtime_is_the_runtimes() {
        std::thread::Builder::new()
            .spawn(|| {
                let _guard = enter(7, Taken::EVERYTHING);
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
                runtime.block_on(async {
                    let before = now();
                    tokio::time::sleep(Duration::from_secs(90)).await;
                    assert_eq!(now() - before, Duration::from_secs(90));
                });
                assert_eq!(now(), Duration::ZERO, "outside it is the driver's");
            })
            .unwrap()
            .join()
            .unwrap();
    }
}
