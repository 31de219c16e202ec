//! What the kernel knows of a process: processor time of its threads, resident memory; and on which processors it runs.

use std::collections::BTreeMap;
use std::io;

/// Processor time of every thread of a process so far, in microseconds, by thread name.
pub(super) fn cpu_us(pid: u32) -> io::Result<BTreeMap<String, f64>> {
    let mut times = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = entry?.path();
        // A thread that ended between the two calls has no more to say.
        let (Ok(name), Ok(stat)) = (std::fs::read_to_string(path.join("comm")), std::fs::read_to_string(path.join("schedstat")))
        else {
            continue;
        };
        let ns: f64 = stat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0.0);
        *times.entry(name.trim().to_owned()).or_insert(0.0) += ns / 1000.0;
    }
    Ok(times)
}

/// Resident memory of a process, in bytes.
pub(super) fn rss_bytes(pid: u32) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kb = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .ok_or_else(|| io::Error::other(format!("/proc/{pid}/status names no VmRSS")))?;
    Ok(kb * 1024)
}

/// Keeps this process away from the servers: they get the first processor, it gets the others. Returns the servers'; with a single one they
/// share it, and there is nothing to pin. Once in a process, for what it counts is what it may use.
pub(super) fn pin_apart() -> io::Result<Option<usize>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        return Ok(None);
    }
    pin(&(1..cores).collect::<Vec<_>>())?;
    Ok(Some(0))
}

/// Keeps this whole process on some processors: all of its threads, and those that it starts later.
fn pin(cpus: &[usize]) -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/task")? {
        let thread: i32 = entry?.file_name().to_string_lossy().parse().map_err(io::Error::other)?;
        // SAFETY: `set` is plain data that lives through the call; a thread that has ended is an error, not a danger.
        let failed = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            for cpu in cpus {
                libc::CPU_SET(*cpu, &mut set);
            }
            libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &set) != 0
        };
        if failed {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
