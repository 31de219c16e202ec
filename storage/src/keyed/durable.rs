//! Makes sled wait for the disk.
//!
//! After each write to its file sled 0.34.7 calls `sync_file_range` and takes what it wrote for durable; on that it builds its decisions which
//! segments may be overwritten and how far its log reaches. The call says nothing of the kind: it flushes no disk cache and
//! leaves out the size and the newly allocated blocks of the file. An `fdatasync` after `flush()` closes the hole for what was
//! flushed, but not for what sled writes in between: one of 48 power cuts then left a store that could not be opened, because a
//! segment lay beyond the end of the file (`tests/power_cut.rs`, persisting every 40 batches). None of 96 did with what is here.
//!
//! Where the system has no `sync_file_range` (ENOSYS), sled syncs the file instead. So this process has none: the function below
//! takes the place of the C library's in everything that is linked with this crate. Nothing else here calls it. That sled
//! does is verified at each opening, see [`calls`].

use std::ffi::{c_int, c_uint};
use std::sync::atomic::{AtomicU64, Ordering};

static CALLS: AtomicU64 = AtomicU64::new(0);

/// Takes the place of the C library's function of this name and says that it does not exist.
///
/// # Safety
///
/// Has no preconditions: the arguments are not looked at.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sync_file_range(_fd: c_int, _offset: i64, _size_bytes: i64, _flags: c_uint) -> c_int {
    CALLS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the address is that of this thread's errno.
    unsafe { *libc::__errno_location() = libc::ENOSYS };
    -1
}

/// How often somebody asked. It must have grown after sled has written something; elsewhere than on Linux sled syncs anyway.
pub(super) fn calls() -> u64 {
    CALLS.load(Ordering::Relaxed)
}
