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

/// Time of the processor after which a child is ended: a loop that never yields would last for ever. A seed takes about one.
const CPU_MAX_S: libc::rlim_t = 120;
/// Wall time after which it is ended all the same, should it wait for what never comes. Machines are suspended, so it is long.
const WALL_MAX_S: u32 = 1_200;

struct Child {
    pid: libc::pid_t,
    /// Number of its job, from 0.
    number: usize,
    seed: Seed,
    report: File,
}

/// One process's work.
#[derive(Clone)]
pub struct Job {
    /// What is simulated.
    pub scenario: &'static Scenario,
    /// Under which seed.
    pub seed: Seed,
    /// How.
    pub options: RunOptions,
}

/// Runs seeds, each in its own process, and gives their reports as they come.
pub struct Pool {
    at_once: usize,
    children: Vec<Child>,
}

impl Pool {
    /// A pool that runs at most so many processes at a time.
    #[must_use]
    pub fn new(at_once: usize) -> Self {
        Self { at_once: at_once.max(1), children: Vec::new() }
    }

    /// Runs all jobs. `done` gets the number of each job, from 0, and its report, when its process has ended; it may say `false` to
    /// start no more.
    ///
    /// # Errors
    /// A process could not be started, or not be waited for.
    pub fn run(mut self, jobs: impl IntoIterator<Item = Job>, mut done: impl FnMut(usize, SeedReport) -> bool) -> io::Result<()> {
        let mut going_on = true;
        let mut jobs = jobs.into_iter().enumerate();
        loop {
            while going_on && self.children.len() < self.at_once {
                match jobs.next() {
                    Some((number, job)) => self.start(number, job)?,
                    None => going_on = false,
                }
            }
            if self.children.is_empty() {
                return Ok(());
            }
            let (number, report) = self.reap()?;
            going_on &= done(number, report);
        }
    }

    fn start(&mut self, number: usize, job: Job) -> io::Result<()> {
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
                let code = child(job, answer);
                // SAFETY: ends the child without running what the parent registered.
                unsafe { libc::_exit(code) }
            }
            pid => {
                drop(answer);
                self.children.push(Child { pid, number, seed: job.seed, report });
                Ok(())
            }
        }
    }

    /// Waits for whichever child ends first. A report fits in the pipe, so a child never waits for its parent.
    fn reap(&mut self) -> io::Result<(usize, SeedReport)> {
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
        let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
        let report = match (serde_json::from_slice(&text), signal) {
            (Ok(report), _) => report,
            (Err(_), Some(libc::SIGXCPU)) => broken(format!("no end within {CPU_MAX_S} s of the processor's time")),
            (Err(_), Some(libc::SIGALRM)) => broken(format!("no end within {WALL_MAX_S} s of wall time")),
            (Err(_), Some(signal)) => broken(format!("ended by signal {signal}")),
            (Err(error), None) => broken(format!("exit code {}, no report: {error}", libc::WEXITSTATUS(status))),
        };
        Ok((child.number, report))
    }
}

/// Longest text of a violation in a report: the whole report must fit in a pipe's buffer of 64 KiB.
const WHAT_MAX_BYTES: usize = 8 * 1024;

fn child(job: Job, mut answer: File) -> libc::c_int {
    let limit = libc::rlimit { rlim_cur: CPU_MAX_S, rlim_max: CPU_MAX_S + 1 };
    // SAFETY: `limit` is readable. No handlers are installed: the default ones end this process.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CPU, &limit);
        libc::alarm(WALL_MAX_S);
    }
    let mut report = match run(job.scenario, job.seed, job.options) {
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
