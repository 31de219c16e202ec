//! The record of a run: every line is hashed, and written to a file if one was asked for.
//!
//! At [`Detail::Domain`] it holds what a person wants to read: faults, boots, leaders, acknowledgements, what the oracle saw, and
//! what the code under test logs at INFO or above. At [`Detail::Everything`] it also holds every event and span of
//! every library: two runs with equal hashes there did the same things in the same order.
//!
//! A line is a time, a lane (the machine that was running, or `-` for the driver), a text, and a [`Mark`] that says what it is about. Hashed
//! are time, lane and text, whether anybody writes them down or not. A file whose name ends in `.html` becomes a [`page`] to look at, any
//! other a time line in text.

mod mark;
pub mod page;
mod recording;
mod subscriber;
mod text;

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use self::text::TextTrace;
use crate::{interpose, machine};

pub use mark::{MachineState, Mark};
pub use recording::{About, Entry, Recording};
pub use subscriber::TraceSubscriber;
pub use text::BLACKOUT;

/// How much is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Detail {
    /// What a person wants to read.
    #[default]
    Domain,
    /// Every event of every library as well.
    Everything,
}

/// Where lines go.
enum Out {
    Text(TextTrace),
    Page(PathBuf, Recording),
}

impl Out {
    fn create(path: &Path, about: About, detail: Detail) -> io::Result<Self> {
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("html")) {
            let recording = Recording::of(about);
            // Should the process be ended, this page says so.
            page::write_unfinished(path, &recording)?;
            return Ok(Self::Page(path.to_owned(), recording));
        }
        Ok(Self::Text(TextTrace::create(path, &about, detail)?))
    }

    fn take(&mut self, entry: Entry) -> io::Result<()> {
        match self {
            Self::Text(text) => text.write(&entry),
            Self::Page(_, recording) => {
                if entry.mark != Mark::Library {
                    recording.entries.push(entry);
                }
                Ok(())
            }
        }
    }

    fn finish(self, fingerprint: &Fingerprint) -> io::Result<()> {
        match self {
            Self::Text(text) => text.finish(&fingerprint.hash, fingerprint.lines),
            Self::Page(path, mut recording) => {
                recording.hash.clone_from(&fingerprint.hash);
                page::write(&path, &recording)
            }
        }
    }
}

struct Sink {
    hash: Sha256,
    lines: u64,
    line: String,
    out: Option<Out>,
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

/// Begins this thread's trace, and its file if one is wanted.
///
/// # Errors
/// The file can not be written.
pub fn begin(file: Option<&Path>, about: About, detail: Detail) -> io::Result<()> {
    let out = file.map(|path| Out::create(path, about, detail)).transpose()?;
    let sink = Sink { hash: Sha256::new(), lines: 0, line: String::new(), out, failed: None };
    SINK.with(|slot| *slot.borrow_mut() = Some(sink));
    Ok(())
}

/// Ends this thread's trace. An error is that of the file: the hash does not depend on it.
pub fn end() -> (Fingerprint, io::Result<()>) {
    let sink = SINK.with(|slot| slot.borrow_mut().take());
    let Some(sink) = sink else {
        return (Fingerprint { hash: String::new(), lines: 0 }, Ok(()));
    };
    let mut hash = String::with_capacity(32);
    for byte in sink.hash.finalize().iter().take(16) {
        let _ = write!(hash, "{byte:02x}");
    }
    let fingerprint = Fingerprint { hash, lines: sink.lines };
    let written = match (sink.failed, sink.out) {
        (Some(error), _) => Err(error),
        (None, Some(out)) => out.finish(&fingerprint),
        (None, None) => Ok(()),
    };
    (fingerprint, written)
}

/// Adds a line of the machine that runs now. Does nothing on a thread without a trace.
pub fn line(text: fmt::Arguments<'_>) {
    event(|| Mark::Note, text);
}

/// Adds a line of the machine that runs now, and says what it is about. Does nothing on a thread without a trace.
pub fn event(mark: impl FnOnce() -> Mark, text: fmt::Arguments<'_>) {
    write_line(mark, |out| {
        let _ = out.write_fmt(text);
    });
}

/// Adds a property of the world that was drawn from the seed.
pub fn world(name: &str, value: impl fmt::Display) {
    let mark = || Mark::World { name: name.to_owned(), value: value.to_string() };
    event(mark, format_args!("WORLD {name}: {value}"));
}

fn write_line(mark: impl FnOnce() -> Mark, fill: impl FnOnce(&mut String)) {
    let now = interpose::now();
    let lane = machine::current_name();
    SINK.with(|slot| {
        // A value whose `Debug` traces in turn would come here again: its line is left out, alike in every run.
        let Ok(mut slot) = slot.try_borrow_mut() else { return };
        let Some(sink) = slot.as_mut() else { return };
        sink.line.clear();
        let _ = write!(sink.line, "{:>4}.{:09} {lane:<6} ", now.as_secs(), now.subsec_nanos());
        let begins = sink.line.len();
        fill(&mut sink.line);
        sink.line.push('\n');
        sink.hash.update(sink.line.as_bytes());
        sink.lines += 1;
        let Some(out) = &mut sink.out else { return };
        let text = sink.line[begins..].trim_end().to_owned();
        if let Err(error) = out.take(Entry { at: now, lane: lane.as_str().to_owned(), mark: mark(), text }) {
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
