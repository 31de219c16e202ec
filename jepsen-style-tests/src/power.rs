//! Power cuts: an ext4 file system in a file, shut down by the kernel in an instant, without flushing anything.
//!
//! What was not synced is gone, as with a real cut, while the rest of the machine goes on. It takes root, loop devices and ext4;
//! where one of them is missing, [`permitted`] says which, and the test is reported as skipped.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::run::unmount_below;

/// `EXT4_IOC_SHUTDOWN`.
const SHUTDOWN: libc::c_ulong = 0x8004_587d;
/// Stop at once; the journal is not flushed either.
const NO_LOG_FLUSH: u32 = 2;
/// Sparse: takes only what is written.
const SIZE_BYTES: u64 = 1 << 30;

/// A file system that can lose its power.
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

/// Whether this machine allows power cuts; otherwise why not. `folder` is used for the trial.
pub fn permitted(folder: &Path) -> Result<(), String> {
    // SAFETY: plain system call without arguments.
    if unsafe { libc::geteuid() } != 0 {
        return Err("needs root".into());
    }
    let disk = Disk::make(&folder.join("trial.img"), &folder.join("trial")).map_err(|e| format!("{e:#}"))?;
    disk.cut().map_err(|e| format!("{e:#}"))?;
    drop(disk);
    std::fs::remove_file(folder.join("trial.img")).map_err(|e| e.to_string())
}

impl Disk {
    /// Makes a file system in `image` and mounts it on `mount`, whose contents it takes along.
    pub fn make(image: &Path, mount: &Path) -> anyhow::Result<Self> {
        File::create(image)?.set_len(SIZE_BYTES)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image))?;
        let aside = mount.with_extension("before");
        let taken = mount.exists();
        if taken {
            std::fs::rename(mount, &aside)?;
        }
        std::fs::create_dir_all(mount)?;
        let disk = Self { image: image.to_owned(), mount: mount.to_owned() };
        disk.mount()?;
        if taken {
            run(Command::new("cp").arg("-a").arg(aside.join(".")).arg(mount))?;
            run(Command::new("sync").arg("-f").arg(mount))?;
            std::fs::remove_dir_all(&aside)?;
        }
        Ok(disk)
    }

    fn mount(&self) -> anyhow::Result<()> {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.mount))
    }

    /// Cuts the power. From now on every access fails, until [`Disk::restore`].
    pub fn cut(&self) -> anyhow::Result<()> {
        let folder = File::open(&self.mount)?;
        // SAFETY: the request takes a pointer to 32 bits, which lives over the call.
        let failed = unsafe { libc::ioctl(folder.as_raw_fd(), SHUTDOWN, &NO_LOG_FLUSH) } != 0;
        ensure!(!failed, "can not cut the power of {}: {}", self.mount.display(), std::io::Error::last_os_error());
        Ok(())
    }

    /// Fills the disk but for `left_bytes`. It is as full as if somebody had written that much.
    pub fn fill(&self, left_bytes: u64) -> anyhow::Result<()> {
        self.drain()?;
        let folder = std::ffi::CString::new(self.mount.as_os_str().as_bytes())?;
        // SAFETY: a plain structure of numbers, filled by the call; the string ends with a zero and lives over it.
        let free_bytes = unsafe {
            let mut stat: libc::statvfs = std::mem::zeroed();
            ensure!(libc::statvfs(folder.as_ptr(), &mut stat) == 0, "statvfs: {}", std::io::Error::last_os_error());
            stat.f_bavail * stat.f_frsize
        };
        let take_bytes = free_bytes.checked_sub(left_bytes).context("the disk is fuller already")?;
        let filler = File::create(self.filler())?;
        // SAFETY: plain system call on a file that is open.
        let failed = unsafe { libc::fallocate(filler.as_raw_fd(), 0, 0, take_bytes as libc::off_t) } != 0;
        ensure!(!failed, "can not fill {}: {}", self.mount.display(), std::io::Error::last_os_error());
        Ok(())
    }

    /// Makes room again.
    pub fn drain(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(self.filler()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// On the disk, beside the data folder, which takes nothing that is not its own.
    fn filler(&self) -> PathBuf {
        self.mount.join("lost+found").join("filler")
    }

    /// Power is back: the file system is mounted anew and replays its journal. Whoever had files open must be gone.
    pub fn restore(&self) -> anyhow::Result<()> {
        run(Command::new("umount").arg(&self.mount))?;
        self.mount()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount_below(&self.mount);
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
