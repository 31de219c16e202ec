//! The trace as text: a line of the file for each event, in columns, and what would come by the hundred in summaries.
//!
//! It is written as the run goes on, so that a run whose process is ended leaves what it had told until then.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use super::{About, Detail, Entry, Mark};
use crate::fact::Fact;

/// A gap between two frames that is told as a blackout.
pub const BLACKOUT: Duration = Duration::from_millis(200);
/// How much time a summary is about.
const SUMMARY_EVERY: Duration = Duration::from_secs(1);

/// Kind of the lines that tell of frames.
const FRAMES: &str = "frame";

/// Writes a trace to a file.
pub(super) struct TextTrace {
    out: BufWriter<File>,
    detail: Detail,
    floods: BTreeMap<(String, &'static str), Flood>,
    violation: Option<(Duration, String)>,
    last: Duration,
}

/// Lines of one kind on one lane that were not written.
struct Flood {
    since: Duration,
    last: Duration,
    count: u64,
    newest: String,
}

fn ms(at: Duration) -> f64 {
    at.as_secs_f64() * 1000.0
}

impl TextTrace {
    pub(super) fn create(path: &Path, about: &About, detail: Detail) -> io::Result<Self> {
        let mut out = BufWriter::new(File::create(path)?);
        writeln!(out, "# scenario  {}: {}", about.scenario, about.purpose)?;
        writeln!(out, "# seed      {}", about.seed)?;
        writeln!(out, "# repeat    {}", about.command)?;
        writeln!(out, "#")?;
        writeln!(out, "#     time  lane   kind      what")?;
        Ok(Self { out, detail, floods: BTreeMap::new(), violation: None, last: Duration::ZERO })
    }

    pub(super) fn write(&mut self, entry: &Entry) -> io::Result<()> {
        self.last = entry.at;
        if let Mark::Violation { .. } = entry.mark {
            self.violation.get_or_insert_with(|| (entry.at, entry.text.clone()));
            writeln!(self.out, "#")?;
        }
        if let Mark::Fact(Fact::Joined { resumed: false, .. }) = entry.mark {
            // Whoever left and came anew was not kept waiting.
            let key = (entry.lane.clone(), FRAMES);
            if let Some(flood) = self.floods.remove(&key) {
                self.summary(entry.at, &entry.lane, FRAMES, &flood)?;
            }
        }
        if self.detail == Detail::Domain && entry.mark.is_flood() {
            return self.gather(entry);
        }
        self.line(entry.at, &entry.lane, entry.mark.kind(), &entry.text)
    }

    fn line(&mut self, at: Duration, lane: &str, kind: &str, text: &str) -> io::Result<()> {
        // One event is one line, so that every tool for lines works.
        let text = text.replace('\n', " ⏎ ");
        writeln!(self.out, "{:>10.3}  {lane:<6} {kind:<9} {text}", ms(at))
    }

    fn gather(&mut self, entry: &Entry) -> io::Result<()> {
        let kind = entry.mark.kind();
        let key = (entry.lane.clone(), kind);
        let Some(flood) = self.floods.get_mut(&key) else {
            let flood = Flood { since: entry.at, last: entry.at, count: 0, newest: entry.text.clone() };
            self.floods.insert(key, flood);
            return self.line(entry.at, &entry.lane, kind, &entry.text);
        };
        let gap = entry.at.saturating_sub(flood.last);
        let dark = gap > BLACKOUT && matches!(entry.mark, Mark::Fact(Fact::Shown { .. }));
        if dark || entry.at.saturating_sub(flood.since) >= SUMMARY_EVERY {
            let summary = std::mem::replace(flood, Flood { since: entry.at, last: entry.at, count: 0, newest: String::new() });
            self.summary(entry.at, &entry.lane, kind, &summary)?;
        }
        if let Some(flood) = self.floods.get_mut(&key) {
            flood.count += 1;
            flood.last = entry.at;
            flood.newest.clone_from(&entry.text);
        }
        if dark {
            self.line(entry.at, &entry.lane, "BLACKOUT", &format!("no frame for {:.0} ms, then: {}", ms(gap), entry.text))?;
        }
        Ok(())
    }

    fn summary(&mut self, now: Duration, lane: &str, kind: &str, flood: &Flood) -> io::Result<()> {
        if flood.count == 0 {
            return Ok(());
        }
        let (from, to) = (ms(flood.since), ms(flood.last));
        let text = format!("… {} more from {from:.0} to {to:.0} ms, the last: {}", flood.count, flood.newest);
        self.line(now, lane, kind, &text)
    }

    /// Writes what is left and the verdict.
    pub(super) fn finish(mut self, hash: &str, lines: u64) -> io::Result<()> {
        for ((lane, kind), flood) in std::mem::take(&mut self.floods) {
            self.summary(self.last, &lane, kind, &flood)?;
        }
        writeln!(self.out, "#")?;
        match &self.violation {
            Some((at, text)) => writeln!(self.out, "# verdict   at {:.3} ms: {text}", ms(*at))?,
            None => writeln!(self.out, "# verdict   every invariant held for {:.0} ms", ms(self.last))?,
        }
        writeln!(self.out, "# trace     {hash} of {lines} lines")?;
        self.out.flush()
    }
}
