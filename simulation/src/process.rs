//! A forked process for each seed, several at a time.
//!
//! Process-wide counters (task ids, call sites) start from the same point in a batch as alone, a run that aborts or hangs takes
//! nobody with it, and a fork costs a millisecond. The parent has one thread, so the child is whole.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::FromRawFd;

use crate::oracle::Violation;
use crate::report::SeedReport;
use crate::run::{RunOptions, run};
use crate::scenario::Scenario;
use crate::seed::Seed;

/// Wall time after which a child is ended: a loop that never yields would last for ever.
const CHILD_MAX_S: u32 = 300;

struct Child {
    pid: libc::pid_t,
    seed: Seed,
    report: File,
}

/// Runs seeds, each in its own process, and gives their reports as they come.
pub struct Pool {
    scenario: &'static Scenario,
    options: RunOptions,
    jobs: usize,
    children: Vec<Child>,
}

impl Pool {
    /// A pool that runs at most `jobs` processes at a time.
    #[must_use]
    pub fn new(scenario: &'static Scenario, options: RunOptions, jobs: usize) -> Self {
        Self { scenario, options, jobs: jobs.max(1), children: Vec::new() }
    }

    /// Runs all seeds. `done` gets each report when its process has ended; it may say `false` to start no more.
    ///
    /// # Errors
    /// A process could not be started, or not be waited for.
    pub fn run(mut self, seeds: impl IntoIterator<Item = Seed>, mut done: impl FnMut(SeedReport) -> bool) -> io::Result<()> {
        let mut going_on = true;
        let mut seeds = seeds.into_iter();
        loop {
            while going_on && self.children.len() < self.jobs {
                match seeds.next() {
                    Some(seed) => self.start(seed)?,
                    None => going_on = false,
                }
            }
            if self.children.is_empty() {
                return Ok(());
            }
            let report = self.reap()?;
            going_on &= done(report);
        }
    }

    fn start(&mut self, seed: Seed) -> io::Result<()> {
        let mut ends = [0; 2];
        // SAFETY: `ends` has room for two descriptors.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: both descriptors were just made and belong to nobody else.
        let (report, answer) = unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) };
        // SAFETY: this process has one thread, so nothing that the child needs is held by another.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                drop(report);
                let code = child(self.scenario, seed, self.options.clone(), answer);
                // SAFETY: ends the child without running what the parent registered.
                unsafe { libc::_exit(code) }
            }
            pid => {
                drop(answer);
                self.children.push(Child { pid, seed, report });
                Ok(())
            }
        }
    }

    /// Waits for whichever child ends first. A report fits in the pipe, so a child never waits for its parent.
    fn reap(&mut self) -> io::Result<SeedReport> {
        let mut status = 0;
        // SAFETY: `status` is writable.
        let pid = unsafe { libc::waitpid(-1, &mut status, 0) };
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        let Some(position) = self.children.iter().position(|child| child.pid == pid) else {
            return Err(io::Error::other(format!("process {pid} is none of ours")));
        };
        let mut child = self.children.swap_remove(position);
        let mut text = Vec::new();
        child.report.read_to_end(&mut text)?;
        let broken = |what: String| SeedReport {
            seed: child.seed.0,
            violation: Some(Violation::new("process-lives", what)),
            ..SeedReport::default()
        };
        Ok(match serde_json::from_slice(&text) {
            Ok(report) => report,
            Err(_) if libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGALRM => {
                broken(format!("no end within {CHILD_MAX_S} s of wall time"))
            }
            Err(_) if libc::WIFSIGNALED(status) => broken(format!("ended by signal {}", libc::WTERMSIG(status))),
            Err(error) => broken(format!("exit code {}, no report: {error}", libc::WEXITSTATUS(status))),
        })
    }
}

/// Longest text of a violation in a report: the whole report must fit in a pipe's buffer of 64 KiB.
const WHAT_MAX_BYTES: usize = 8 * 1024;

fn child(scenario: &'static Scenario, seed: Seed, options: RunOptions, mut answer: File) -> libc::c_int {
    // SAFETY: no handler is installed; the default one ends this process.
    unsafe { libc::alarm(CHILD_MAX_S) };
    let mut report = match run(scenario, seed, options) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("trace: {error}");
            return 1;
        }
    };
    if let Some(violation) = &mut report.violation {
        let cut = violation.what.floor_char_boundary(WHAT_MAX_BYTES.min(violation.what.len()));
        violation.what.truncate(cut);
    }
    let written = serde_json::to_vec(&report).map_err(io::Error::other).and_then(|text| answer.write_all(&text));
    if let Err(error) = written {
        eprintln!("report: {error}");
        return 1;
    }
    0
}
