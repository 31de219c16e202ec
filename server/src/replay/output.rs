//! The forms in which a replay is printed: lines for people, one JSON document for scripts. Both are written as the replay goes.

use std::io::Write;

use anyhow::Context;
use serde::Serialize;

use super::report::{EntryReport, Hash, ItemReport, Summary};

/// What is replayed, told before it begins.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Header {
    /// The region.
    pub region: u32,
    /// Its world.
    pub world: u32,
    /// Whose folder it is.
    pub node: u32,
    /// The folder.
    pub folder: String,
    /// Rules in force.
    pub rules_version: u64,
    /// Content in force.
    pub content_hash: Hash,
    /// Checkpoint from which it begins; none: before the world was made.
    pub checkpoint: Option<String>,
    /// The tick of that state.
    pub start_tick: u64,
    /// Version of the build that wrote the checkpoint.
    pub build: Option<String>,
    /// Where the item that is asked for is at the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
}

/// Takes what a replay shows.
pub(super) trait Output {
    fn begin(&mut self, header: &Header) -> anyhow::Result<()>;
    fn entry(&mut self, report: &EntryReport) -> anyhow::Result<()>;
    fn end(&mut self, summary: &Summary) -> anyhow::Result<()>;
}

const UNWRITTEN: &str = "can not write to standard output";

/// Lines for people.
pub(super) struct Text<W>(pub W);

impl<W: Write> Output for Text<W> {
    fn begin(&mut self, header: &Header) -> anyhow::Result<()> {
        let Header { region, world, node, folder, rules_version, content_hash, .. } = header;
        let from = match &header.checkpoint {
            Some(path) => format!("the state after tick {} in {path}", header.start_tick),
            None => "the beginning of the world".to_owned(),
        };
        writeln!(self.0, "region {region} of world {world}, from the folder of node {node}, {folder}").context(UNWRITTEN)?;
        writeln!(self.0, "rules {rules_version}, content {content_hash}; begins with {from}").context(UNWRITTEN)?;
        match &header.item {
            Some(item) => writeln!(self.0, "there, {item}").context(UNWRITTEN),
            None => Ok(()),
        }
    }

    fn entry(&mut self, report: &EntryReport) -> anyhow::Result<()> {
        lines(&mut self.0, report).context(UNWRITTEN)
    }

    fn end(&mut self, summary: &Summary) -> anyhow::Result<()> {
        sum(&mut self.0, summary).and_then(|()| self.0.flush()).context(UNWRITTEN)
    }
}

fn lines(out: &mut impl Write, report: &EntryReport) -> std::io::Result<()> {
    match report.tick {
        Some(tick) => write!(out, "tick {tick}")?,
        None => write!(out, "{}", report.kind)?,
    }
    if report.tick.is_some() && report.kind != "tick" {
        write!(out, " ({})", report.kind)?;
    }
    write!(out, "  entry {}", report.entry)?;
    if report.now_ms > 0 {
        write!(out, "  {}", utc(report.now_ms))?;
    }
    if let Some(hash) = report.hash {
        write!(out, "  hash {hash}")?;
        match report.recorded {
            Some(recorded) if recorded == hash => write!(out, " as recorded")?,
            Some(recorded) => write!(out, " BUT RECORDED {recorded}")?,
            None => {}
        }
    }
    for (count, what) in [
        (report.moves, "movement inputs"),
        (report.commands_sent, "commands"),
        (report.moved, "moved"),
        (report.replies, "replies"),
        (report.area_events, "events"),
    ] {
        if count > 0 {
            write!(out, "  {what} {count}")?;
        }
    }
    writeln!(out)?;
    for command in &report.commands {
        let (name, entity, seq) = (&command.name, command.entity, command.seq);
        writeln!(out, "  {name} (entity {entity}), command {seq}: {} → {}", command.what, command.answer)?;
        items(out, &command.items)?;
    }
    for deed in &report.deeds {
        writeln!(out, "  {}: {}", deed.handler, deed.outcome)?;
        items(out, &deed.items)?;
    }
    for session in &report.sessions {
        let (character, epoch, attach) = (session.character, session.epoch, session.attach);
        writeln!(out, "  character {character}, session {epoch}, attach {attach}: {} ({})", session.what, session.why)?;
    }
    for (entities, what) in [(&report.appeared, "appears"), (&report.changed, "looks different"), (&report.vanished, "leaves")] {
        for entity in entities {
            writeln!(out, "  {} (entity {}) {what}", entity.name, entity.entity)?;
        }
    }
    for cut in &report.cuts {
        writeln!(out, "  cut {cut}")?;
    }
    if let Some(position) = &report.position {
        let place = |place: Option<[f32; 3]>| {
            place.map_or_else(|| "not in the world".to_owned(), |[x, y, z]| format!("{x:.3} {y:.3} {z:.3}"))
        };
        write!(out, "  entity {}: {} → {}", position.entity, place(position.from), place(position.to))?;
        for input in &position.inputs {
            write!(out, "  (input {}: {:.2} {:.2} for {} ms)", input.seq, input.x, input.z, input.duration_ms)?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn items(out: &mut impl Write, items: &[ItemReport]) -> std::io::Result<()> {
    items.iter().try_for_each(|item| {
        writeln!(out, "    item {} of kind {}: from {} to {}", item.item, item.kind, item.from.name, item.to.name)
    })
}

fn sum(out: &mut impl Write, summary: &Summary) -> std::io::Result<()> {
    let span = match (summary.first_tick, summary.last_tick) {
        (Some(first), Some(last)) => format!("ticks {first} to {last}"),
        _ => "no tick".to_owned(),
    };
    writeln!(
        out,
        "{span}: {} entries, {:.1} s of world time in {:.2} s, {:.0} times as fast",
        summary.entries, summary.world_s, summary.wall_s, summary.speed
    )?;
    writeln!(
        out,
        "hashes: {} of {} that were recorded agree (ticks without one of their own: {}); {} checkpoints compared",
        summary.hashes_equal, summary.hashes_compared, summary.ticks_not_recorded, summary.checkpoints_compared
    )?;
    if let Some(item) = &summary.item {
        writeln!(out, "at the end, {item}")?;
    }
    if summary.undecided > 0 {
        writeln!(out, "{} entries behind the end are not known here to be committed", summary.undecided)?;
    }
    if let Some(mismatch) = &summary.mismatch {
        let (tick, recorded, replayed) = (mismatch.tick, mismatch.recorded, mismatch.replayed);
        writeln!(out, "DIFFERS after tick {tick}: recorded {recorded} in {}, replayed {replayed}", mismatch.recorded_in)?;
        let component = mismatch.component.as_deref().unwrap_or("not known: no checkpoint follows");
        writeln!(out, "first part that differs: {component}")?;
    }
    summary.damage.iter().try_for_each(|damage| writeln!(out, "damage: {damage}"))
}

/// One JSON document: `{"replay": …, "entries": […], "summary": …}`.
pub(super) struct Json<W> {
    out: W,
    any: bool,
}

impl<W: Write> Json<W> {
    pub fn new(out: W) -> Self {
        Self { out, any: false }
    }

    fn value(&mut self, before: &str, value: &impl Serialize, after: &str) -> anyhow::Result<()> {
        self.out.write_all(before.as_bytes()).context(UNWRITTEN)?;
        serde_json::to_writer(&mut self.out, value).map_err(std::io::Error::from).context(UNWRITTEN)?;
        self.out.write_all(after.as_bytes()).context(UNWRITTEN)
    }
}

impl<W: Write> Output for Json<W> {
    fn begin(&mut self, header: &Header) -> anyhow::Result<()> {
        self.value("{\"replay\":", header, ",\"entries\":[")
    }

    fn entry(&mut self, report: &EntryReport) -> anyhow::Result<()> {
        let before = if std::mem::replace(&mut self.any, true) { ",\n" } else { "\n" };
        self.value(before, report, "")
    }

    fn end(&mut self, summary: &Summary) -> anyhow::Result<()> {
        self.value("\n],\"summary\":", summary, "}\n")?;
        self.out.flush().context(UNWRITTEN)
    }
}

/// A moment as people write it, in UTC.
fn utc(ms: u64) -> String {
    let (days, of_day) = (ms / 86_400_000, ms % 86_400_000);
    // Civil date of a day since 1970, by eras of 400 years that begin in March.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (h, m, s, rest) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60, of_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{rest:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_civil() {
        assert_eq!(utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(utc(1_795_238_705_123), "2026-11-21T05:25:05.123Z");
    }

    #[test]
    fn json_is_one_document_with_and_without_entries() {
        let header = Header {
            region: 1,
            world: 1,
            node: 2,
            folder: "f".into(),
            rules_version: 1,
            content_hash: Hash(u64::MAX),
            checkpoint: None,
            start_tick: 0,
            build: None,
            item: None,
        };
        for entries in 0..3 {
            let mut bytes = Vec::new();
            let mut json = Json::new(&mut bytes);
            json.begin(&header).unwrap();
            for _ in 0..entries {
                json.entry(&EntryReport { hash: Some(Hash(1)), ..EntryReport::default() }).unwrap();
            }
            json.end(&Summary::default()).unwrap();
            let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(value["entries"].as_array().map(Vec::len), Some(entries));
            assert_eq!(value["replay"]["content_hash"], "0xffffffffffffffff");
            assert_eq!(value["summary"]["agrees"], false);
        }
    }
}
