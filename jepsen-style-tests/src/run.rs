//! The folder of one run, and the sweeping of what earlier runs left behind.
//!
//! A run holds a lock on its folder for as long as it lives. A folder whose lock is free belongs to a run that is gone: the processes
//! that name it on their command line are ended by id, what is mounted below it is unmounted, and it is removed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

const LOCK: &str = "lock";

/// One run of the tests.
pub struct Run {
    folder: PathBuf,
    _lock: File,
}

impl Run {
    /// Sweeps what earlier runs left and makes a folder for this one.
    pub fn begin() -> anyhow::Result<Self> {
        // SAFETY: plain system call without arguments.
        let user = unsafe { libc::getuid() };
        let root = std::env::temp_dir().join(format!("marchland-jepsen-{user}"));
        std::fs::create_dir_all(&root).with_context(|| format!("can not make {}", root.display()))?;
        // One at a time: a folder whose run has not yet locked it must not be taken for an abandoned one.
        let sweeping = File::create(root.join(LOCK))?;
        sweeping.lock().with_context(|| format!("can not lock {}", root.display()))?;
        for entry in std::fs::read_dir(&root)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                sweep(&entry.path());
            }
        }
        let folder = root.join(format!("run-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let lock = File::create(folder.join(LOCK))?;
        lock.try_lock().with_context(|| format!("{} is in use", folder.display()))?;
        Ok(Self { folder, _lock: lock })
    }

    /// A new folder below this run's.
    pub fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Removes the run's folder, after everything went well; otherwise it stays to be looked at until the next run.
    pub fn finish(self, keep: bool) {
        if keep {
            println!("what the nodes left is in {}", self.folder.display());
        } else {
            end_processes(&self.folder);
            unmount_below(&self.folder);
            remove(&self.folder);
        }
    }
}

fn sweep(folder: &Path) {
    let free = match File::open(folder.join(LOCK)) {
        Ok(lock) => lock.try_lock().is_ok(),
        // Made, but never locked: the run ended in between.
        Err(_) => true,
    };
    if free {
        end_processes(folder);
        unmount_below(folder);
        remove(folder);
    }
}

fn remove(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder) {
        eprintln!("can not remove {}: {error}", folder.display());
    }
}

/// Processes whose command line names something below `folder`.
fn processes_below(folder: &Path) -> Vec<i32> {
    let needle = format!("{}/", folder.display());
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let own = std::process::id() as i32;
    ids.filter(|id| *id != own)
        .filter(|id| {
            let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&needle)
        })
        .collect()
}

fn end_processes(folder: &Path) {
    for _ in 0..50 {
        let ids = processes_below(folder);
        if ids.is_empty() {
            return;
        }
        for id in ids {
            // SAFETY: plain system call. The process names this run's folder, which nobody else does.
            unsafe { libc::kill(id, libc::SIGKILL) };
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    eprintln!("processes of {} do not end", folder.display());
}

/// Unmounts whatever is mounted below `folder`.
pub(crate) fn unmount_below(folder: &Path) {
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mounts") else { return };
    let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new).filter(|t| t.starts_with(folder));
    for target in targets {
        let Ok(path) = std::ffi::CString::new(target.as_os_str().as_encoded_bytes()) else { continue };
        // SAFETY: the string ends with a zero and lives over the call.
        if unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) } != 0 {
            eprintln!("can not unmount {}: {}", target.display(), std::io::Error::last_os_error());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::{Command, Stdio};

    #[test]
    fn leftovers_of_a_dead_run_are_ended_and_those_of_a_live_one_are_not() {
        let root = tempfile::tempdir().unwrap();
        let sleeper = |folder: &Path| {
            // The shell's command line names the folder, as a node's does. Linux lets the parent go on before the new program's
            // command line can be read, so it is found for certain only after it has said something.
            let script = format!("echo started; sleep 60; : {}/node.toml", folder.display());
            let mut child = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
            let mut said = [0; 8];
            child.stdout.take().unwrap().read_exact(&mut said).unwrap();
            child
        };
        let (dead, live) = (root.path().join("run-1"), root.path().join("run-2"));
        for folder in [&dead, &live] {
            std::fs::create_dir(folder).unwrap();
            File::create(folder.join(LOCK)).unwrap();
        }
        let lock = File::open(live.join(LOCK)).unwrap();
        lock.try_lock().unwrap();
        let (mut of_dead, mut of_live) = (sleeper(&dead), sleeper(&live));
        // It is not ours to wait for in earnest: reap it as it ends, or it would be found for ever.
        let reaper = std::thread::scope(|scope| {
            let reaped = scope.spawn(|| of_dead.wait().unwrap());
            sweep(&dead);
            sweep(&live);
            reaped.join().unwrap()
        });
        assert!(!reaper.success() && !dead.exists());
        assert!(live.exists() && of_live.try_wait().unwrap().is_none());
        of_live.kill().unwrap();
        of_live.wait().unwrap();
    }
}
