//! Power cuts of the real log and the real keyed store: an ext4 on a loop device is shut down without flushing its journal, the process is
//! killed, the file system mounted again. Everything acknowledged before the cut is there.
//!
//! Needs root and loop devices, and is run when `MARCHLAND_ROOT_TESTS` is set; reported as skipped otherwise.

mod worker;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use marchland_storage::keyed::KeyedEngine;
use worker::{Acknowledged, Worker, run_if_asked, verify};

/// `EXT4_IOC_SHUTDOWN`.
const SHUTDOWN: libc::c_ulong = 0x8004_587d;
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`.
static NO_LOG_FLUSH: u32 = 2;
const CUTS: u64 = 16;

#[test]
fn worker_process() {
    run_if_asked();
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// A mounted loop device, unmounted when dropped.
struct Mounted {
    image: PathBuf,
    at: PathBuf,
}

impl Mounted {
    fn new(dir: &Path) -> Result<Self, String> {
        let (image, at) = (dir.join("image"), dir.join("mounted"));
        std::fs::create_dir_all(&at).map_err(|error| error.to_string())?;
        File::create(&image).and_then(|file| file.set_len(256 << 20)).map_err(|error| error.to_string())?;
        let text = image.to_string_lossy().into_owned();
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", &text])?;
        let mounted = Self { image, at };
        mounted.mount()?;
        Ok(mounted)
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", &self.image.to_string_lossy(), &self.at.to_string_lossy()])
    }

    fn unmount(&self) -> Result<(), String> {
        let mut last = Ok(());
        for _ in 0..50 {
            last = run("umount", &[&self.at.to_string_lossy()]);
            if last.is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        last
    }

    /// Nothing reaches the device any more from now on.
    fn cut(&self) -> std::io::Result<()> {
        let root = File::open(&self.at)?;
        // SAFETY: the argument points to the flags for as long as the call lasts.
        if unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN as _, &raw const NO_LOG_FLUSH) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", &self.at.to_string_lossy()]);
    }
}

fn skip_reason() -> Option<&'static str> {
    // SAFETY: has no preconditions.
    let is_root = unsafe { libc::geteuid() } == 0;
    if std::env::var_os("MARCHLAND_ROOT_TESTS").is_none() {
        Some("MARCHLAND_ROOT_TESTS is not set")
    } else if !is_root {
        Some("needs root")
    } else if !Path::new("/dev/loop-control").exists() {
        Some("needs loop devices")
    } else {
        None
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_a_power_cut() {
    if let Some(reason) = skip_reason() {
        // Past the test harness, which shows nothing of a test that passes.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("power cuts: skipped: {reason}\n").as_bytes());
        return;
    }
    for engine in KeyedEngine::ALL {
        cut(engine);
    }
}

fn cut(engine: KeyedEngine) {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Mounted::new(dir.path()).expect("a loop device with ext4");
    let folder = mounted.at.join("node");
    let mut acknowledged = Acknowledged::default();
    for cut in 0..CUTS {
        let worker = Worker::start(&folder, engine, &acknowledged);
        let worker = worker.wait(Duration::from_micros(100_000 + cut * 7_919 % 400_000));
        acknowledged = worker.heard();
        mounted.cut().expect("shutdown");
        worker.kill();
        mounted.unmount().expect("unmount");
        mounted.mount().expect("mount again");
        verify(&folder, engine, &acknowledged);
    }
    println!("{engine}: {CUTS} power cuts, {} acknowledgements", acknowledged.lines);
}
