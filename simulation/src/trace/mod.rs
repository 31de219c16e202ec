//! The record of a run: every line is hashed, and written to a file if one was asked for.
//!
//! At [`Detail::Domain`] it holds what a person wants to read: faults, boots, leaders, acknowledgements, what the oracle saw, and
//! what the code under test logs at INFO or above. At [`Detail::Everything`] it also holds every event and span of
//! every library: two runs with equal hashes there did the same things in the same order.
//!
//! A line is `seconds.nanoseconds lane text`. The lane is the machine that was running, or `-` for the driver.

mod subscriber;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::{interpose, machine};

pub use subscriber::TraceSubscriber;

/// How much is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Detail {
    /// What a person wants to read.
    #[default]
    Domain,
    /// Every event of every library as well.
    Everything,
}

struct Sink {
    hash: Sha256,
    lines: u64,
    line: String,
    out: Option<BufWriter<File>>,
    failed: Option<io::Error>,
}

thread_local! {
    static SINK: RefCell<Option<Sink>> = const { RefCell::new(None) };
}

/// What a finished trace amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// First 16 bytes of the SHA-256 of all lines, in hexadecimal.
    pub hash: String,
    /// How many lines.
    pub lines: u64,
}

/// Begins this thread's trace.
pub fn begin(file: Option<&Path>) -> io::Result<()> {
    let out = file.map(File::create).transpose()?.map(BufWriter::new);
    let sink = Sink { hash: Sha256::new(), lines: 0, line: String::new(), out, failed: None };
    SINK.with(|slot| *slot.borrow_mut() = Some(sink));
    Ok(())
}

/// Ends this thread's trace. An error is that of the file: the hash does not depend on it.
pub fn end() -> (Fingerprint, io::Result<()>) {
    let sink = SINK.with(|slot| slot.borrow_mut().take());
    let Some(mut sink) = sink else {
        return (Fingerprint { hash: String::new(), lines: 0 }, Ok(()));
    };
    let mut hash = String::with_capacity(32);
    for byte in sink.hash.finalize().iter().take(16) {
        let _ = write!(hash, "{byte:02x}");
    }
    let flushed = match (sink.failed, &mut sink.out) {
        (Some(error), _) => Err(error),
        (None, Some(out)) => out.flush(),
        (None, None) => Ok(()),
    };
    (Fingerprint { hash, lines: sink.lines }, flushed)
}

/// Adds a line of the machine that runs now. Does nothing on a thread without a trace.
pub fn line(text: std::fmt::Arguments<'_>) {
    write_line(|out| {
        let _ = out.write_fmt(text);
    });
}

fn write_line(fill: impl FnOnce(&mut String)) {
    let now = interpose::now();
    let lane = machine::current_name();
    SINK.with(|slot| {
        // A value whose `Debug` traces in turn would come here again: its line is left out, alike in every run.
        let Ok(mut slot) = slot.try_borrow_mut() else { return };
        let Some(sink) = slot.as_mut() else { return };
        sink.line.clear();
        let _ = write!(sink.line, "{:>4}.{:09} {lane:<6} ", now.as_secs(), now.subsec_nanos());
        fill(&mut sink.line);
        sink.line.push('\n');
        sink.hash.update(sink.line.as_bytes());
        sink.lines += 1;
        if let Some(out) = &mut sink.out
            && let Err(error) = out.write_all(sink.line.as_bytes())
        {
            sink.failed.get_or_insert(error);
            sink.out = None;
        }
    });
}

/// Adds a line to the trace, as [`format!`] makes it.
#[macro_export]
macro_rules! trace_line {
    ($($text:tt)*) => {
        $crate::trace::line(format_args!($($text)*))
    };
}
