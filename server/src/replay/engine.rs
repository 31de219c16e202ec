//! Re-runs the entries of a region's log through the code that the cluster ran, and compares every hash that was recorded.
//!
//! A tick's hash stands in a later entry, so a tick is reported when that entry was met. Hashes of checkpoints that are passed are
//! compared as well. After the first difference nothing more is reported; the replay goes on to the next checkpoint, for only there the
//! parts of the state can be compared one by one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::Context;
use indicatif::ProgressBar;
use marchland_proto::storage::{RegionEntry, TickEntry, region_entry};
use marchland_raft::{Payload, logged_entry};
use marchland_region_core::{ApplyFault, Deed, Effects, Game, Region, skipped_by};
use marchland_types::seam::Clock;
use marchland_types::{ItemId, LogIndex, Tick};
use prost::Message;

use super::filter::Filter;
use super::output::Output;
use super::report::{EntryReport, Hash, Mismatch, Summary};
use super::source::{Source, Start};
use super::tell::Teller;

/// Hashes of past ticks that are kept to be compared; an owner has at most a few ticks in flight.
const HASHES_KEPT: usize = 64;
/// Entries behind the last tick asked for that are looked at for what they say of it.
const LOOK_AHEAD: u64 = 4;
/// Entries between two steps of the progress bar.
const BAR_STEP: u64 = 100;

/// What is asked for.
pub(super) struct Wanted {
    /// The first tick that is printed.
    pub from: Option<u64>,
    /// The last tick that is replayed.
    pub to: Option<u64>,
    /// Nothing is printed but the end.
    pub summary: bool,
    /// What is printed.
    pub filter: Filter,
}

/// A replay in progress.
pub(super) struct Engine<'a, G: Game> {
    source: &'a mut Source,
    game: Arc<G>,
    wanted: Wanted,
    region: Region<G>,
    effects: Effects<G>,
    /// Entries that were ordered to be skipped.
    skipped: BTreeSet<LogIndex>,
    /// Hashes after ticks that were replayed.
    hashes: BTreeMap<u64, u64>,
    /// Reports whose recorded hash has not been met.
    waiting: VecDeque<EntryReport>,
    last_compared: u64,
    ticks_compared: u64,
    teller: Teller,
    summary: Summary,
    began_ms: Option<u64>,
}

impl<'a, G: Game> Engine<'a, G> {
    /// Puts a region at the start. A checkpoint that is damaged is passed over for an older one.
    pub fn new(source: &'a mut Source, game: Arc<G>, wanted: Wanted) -> anyhow::Result<(Self, Start)> {
        let (region, start) = begin(source, &game, wanted.from)?;
        let mut engine = Self {
            source,
            game,
            wanted,
            region,
            effects: Effects::default(),
            skipped: BTreeSet::new(),
            hashes: BTreeMap::new(),
            waiting: VecDeque::new(),
            last_compared: 0,
            ticks_compared: 0,
            teller: Teller::default(),
            summary: Summary::default(),
            began_ms: None,
        };
        if !engine.wanted.summary {
            engine.region.trace();
        }
        engine.teller.meet_all(engine.region.world());
        Ok((engine, start))
    }

    /// The region as it is.
    pub fn region(&self) -> &Region<G> {
        &self.region
    }

    /// Replays from `start` to the end, or as far as it gets. Only trouble with the output is an error.
    /// `clock` began with the command.
    pub fn run(
        mut self,
        start: &Start,
        output: &mut dyn Output,
        bar: &ProgressBar,
        clock: &impl Clock,
    ) -> anyhow::Result<Summary> {
        let outcome = self.replay(start, output, bar);
        bar.finish_and_clear();
        while let Some(report) = self.waiting.pop_front() {
            self.put(&report, output)?;
        }
        let mut summary = self.summary;
        match outcome {
            Ok(()) => {}
            Err(Trouble::Output(error)) => return Err(error),
            Err(Trouble::Replay(error)) => summary.error = Some(format!("{error:#}")),
        }
        let world_ms = self.region.now_ms().saturating_sub(self.began_ms.unwrap_or_else(|| self.region.now_ms()));
        summary.world_s = world_ms as f64 / 1000.0;
        summary.wall_s = clock.monotonic().as_secs_f64();
        summary.speed = summary.world_s / summary.wall_s.max(1e-9);
        summary.undecided = self.source.history.undecided();
        summary.damage = self.source.damage.clone();
        summary.item = self.wanted.filter.item.map(|item| super::whereabouts(&self.region, ItemId(item)));
        summary.ticks_not_recorded = summary.ticks.saturating_sub(self.ticks_compared);
        if summary.error.is_none() {
            summary.error = beyond(&self.wanted, summary.last_tick.unwrap_or(start.tick()));
        }
        summary.agrees = summary.mismatch.is_none() && summary.error.is_none() && summary.damage.is_empty();
        Ok(summary)
    }

    fn replay(&mut self, start: &Start, output: &mut dyn Output, bar: &ProgressBar) -> Result<(), Trouble> {
        let Some(end) = self.source.history.committed() else { return Ok(()) };
        let first = start.first();
        bar.set_length((end.0 + 1).saturating_sub(first.0));
        // An order to skip an entry stands above it, and is obeyed by whoever has it in the log.
        for index in first.0..=end.0 {
            if let Some(entry) = self.source.history.entry(LogIndex(index)).map_err(anyhow::Error::from)?
                && let Payload::Command(body) = logged_entry(&entry).map_err(anyhow::Error::from)?.payload
                && let Some(about) = skipped_by(&body).filter(|about| about.0 < index)
            {
                self.skipped.insert(about);
            }
        }
        for index in (first.0..=end.0).map(LogIndex) {
            if self.entry(index, output)?.is_break() {
                return Ok(());
            }
            if index.0.is_multiple_of(BAR_STEP) {
                bar.set_position(index.0 - first.0);
            }
        }
        Ok(())
    }

    fn entry(&mut self, index: LogIndex, output: &mut dyn Output) -> Result<ControlFlow<()>, Trouble> {
        let Some(logged) = self.source.history.entry(index).map_err(anyhow::Error::from)? else {
            return Err(Trouble::Replay(self.gap(index)));
        };
        let entry = logged_entry(&logged).map_err(anyhow::Error::from)?;
        let (mut tick, mut body) = (None, None);
        let kind = match &entry.payload {
            Payload::Blank => "leader",
            Payload::Membership(_) => "members",
            Payload::Command(bytes) => {
                body = RegionEntry::decode(bytes.clone()).ok().and_then(|entry| entry.body);
                let is_tick = matches!(body, Some(region_entry::Body::Tick(_)));
                let is_over = is_tick && self.wanted.to.is_some_and(|to| self.region.tick().0 >= to);
                if is_over && self.summary.mismatch.is_none() {
                    self.look_ahead(index)?;
                }
                if is_over && self.summary.mismatch.is_none() {
                    return Ok(ControlFlow::Break(()));
                }
                self.teller.before(&self.wanted.filter, self.region.world());
                let kind = self.apply(index, bytes)?;
                tick = self.effects.tick;
                kind.unwrap_or(kind_of(body.as_ref()))
            }
        };
        self.summary.entries += 1;
        // Time begins with the first tick.
        if self.began_ms.is_none() && self.region.now_ms() > 0 {
            self.began_ms = Some(self.region.now_ms());
        }
        let told = match &body {
            Some(region_entry::Body::Tick(told)) => Some(told),
            _ => None,
        };
        if let Some(told) = told {
            self.compare(told, index);
        }
        if let Some(Tick(tick)) = tick {
            self.summary.ticks += 1;
            self.summary.first_tick.get_or_insert(tick);
            self.summary.last_tick = Some(tick);
            self.hashes.insert(tick, self.region.state_hash());
            if self.hashes.len() > HASHES_KEPT {
                self.hashes.pop_first();
            }
        }
        let deeds: Vec<Deed> = self.region.take_deeds();
        let shown = !self.wanted.summary
            && self.summary.mismatch.is_none()
            && self.wanted.from.is_none_or(|from| self.region.tick().0 >= from);
        self.teller.meet(&self.effects, self.region.world());
        if shown && matches!(entry.payload, Payload::Command(_)) {
            let mut report = self.teller.report(&self.region, &self.effects, told, deeds, &self.wanted.filter);
            (report.entry, report.term, report.kind) = (index.0, entry.position.term.0, kind);
            (report.tick, report.hash) = (tick.map(|tick| tick.0), Some(Hash(self.region.state_hash())));
            self.waiting.push_back(report);
        }
        self.effects.clear();
        self.settled(told.map_or(0, |told| told.checked_tick), output)?;
        Ok(self.checkpoint(index))
    }

    /// Applies a command; what it was, if not what it says.
    fn apply(&mut self, index: LogIndex, bytes: &[u8]) -> anyhow::Result<Option<&'static str>> {
        if self.skipped.contains(&index) {
            self.region.skip_into(index, bytes, &mut self.effects).with_context(|| format!("entry {index}, to be skipped"))?;
            return Ok(Some("skipped"));
        }
        match self.region.apply_into(index, bytes, &mut self.effects) {
            Ok(()) => Ok(None),
            // As the cluster does: the first one made the region.
            Err(ApplyFault::SecondGenesis { .. }) => {
                self.effects.clear();
                Ok(Some("second genesis"))
            }
            Err(fault) => Err(anyhow::Error::from(fault).context("the cluster can not have applied this and gone on")),
        }
    }

    /// Compares what an entry says of an earlier tick.
    fn compare(&mut self, told: &TickEntry, index: LogIndex) {
        let Some(own) = self.hashes.get(&told.checked_tick).copied().filter(|_| told.checked_hash != 0) else { return };
        self.summary.hashes_compared += 1;
        if told.checked_tick > self.last_compared {
            self.last_compared = told.checked_tick;
            self.ticks_compared += 1;
            let tick = self.waiting.iter_mut().find(|report| report.tick == Some(told.checked_tick));
            if let Some(report) = tick {
                report.recorded = Some(Hash(told.checked_hash));
            }
        }
        if own == told.checked_hash {
            self.summary.hashes_equal += 1;
        } else if self.summary.mismatch.is_none() {
            self.summary.mismatch = Some(Mismatch {
                tick: told.checked_tick,
                recorded: Hash(told.checked_hash),
                replayed: Hash(own),
                recorded_in: format!("entry {index}"),
                component: None,
            });
        }
    }

    /// Compares what the entries from `index` on say of the ticks before them, without applying them.
    fn look_ahead(&mut self, index: LogIndex) -> anyhow::Result<()> {
        for index in (index.0..index.0 + LOOK_AHEAD).map(LogIndex) {
            let Some(logged) = self.source.history.entry(index)? else { return Ok(()) };
            if let Payload::Command(bytes) = logged_entry(&logged)?.payload
                && let Some(region_entry::Body::Tick(told)) = RegionEntry::decode(bytes).ok().and_then(|entry| entry.body)
            {
                self.compare(&told, index);
            }
        }
        Ok(())
    }

    /// Prints what needs to wait no longer: entries up to the tick that was compared.
    fn settled(&mut self, upto: u64, output: &mut dyn Output) -> Result<(), Trouble> {
        while let Some(report) = self.waiting.front() {
            if report.tick.is_some_and(|tick| tick > upto) && self.waiting.len() < HASHES_KEPT {
                break;
            }
            if let Some(report) = self.waiting.pop_front() {
                self.put(&report, output).map_err(Trouble::Output)?;
            }
        }
        Ok(())
    }

    fn put(&self, report: &EntryReport, output: &mut dyn Output) -> anyhow::Result<()> {
        let beyond = self.summary.mismatch.as_ref().is_some_and(|m| report.tick.is_some_and(|tick| tick > m.tick));
        if beyond || (self.wanted.filter.is_set() && !report.has_events()) {
            return Ok(());
        }
        output.entry(report)
    }

    /// Compares with the checkpoint that was taken here, if one was. Ends the replay when a difference is explained as far as it can be.
    fn checkpoint(&mut self, index: LogIndex) -> ControlFlow<()> {
        let go_on = if self.summary.mismatch.is_some() && self.source.checkpoints.range(index..).next().is_none() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        };
        let Some(stored) = self.source.checkpoints.get(&index).cloned() else { return go_on };
        let recorded = stored.header.state_hash;
        let own = self.region.state_hash();
        if self.summary.mismatch.is_none() {
            self.summary.checkpoints_compared += 1;
            if recorded == own {
                self.source.check(&stored);
                return go_on;
            }
        }
        let mismatch = self.summary.mismatch.get_or_insert_with(|| Mismatch {
            tick: stored.header.tick,
            recorded: Hash(recorded),
            replayed: Hash(own),
            recorded_in: format!("checkpoint {}", stored.info.path.display()),
            component: None,
        });
        mismatch.component = match self.source.components(&stored, &self.game) {
            Ok(components) => {
                let differs = self.region.component_hashes().into_iter().find(|part| !components.contains(part));
                let tick = stored.header.tick;
                Some(differs.map_or_else(
                    || format!("none any more at the checkpoint of tick {tick}: the difference has passed"),
                    |(name, _)| format!("{name}, at the checkpoint of tick {tick}"),
                ))
            }
            Err(error) => Some(format!("not known: {error:#}")),
        };
        ControlFlow::Break(())
    }

    fn gap(&self, index: LogIndex) -> anyhow::Error {
        let missing = self.source.history.missing(index);
        let tick = self.region.tick().0;
        let on = match self.source.reached_behind(index) {
            Some(from) => format!("replayed up to tick {tick}; behind the gap a replay can begin with --from {from}"),
            None => format!("replayed up to tick {tick}"),
        };
        match self.source.history.damage().first() {
            Some(damage) => anyhow::anyhow!("{missing}: {damage} ({on})"),
            None => anyhow::anyhow!("{missing} ({on})"),
        }
    }
}

/// What stopped a replay.
enum Trouble {
    /// The folder, or the code.
    Replay(anyhow::Error),
    /// Nobody takes what is printed.
    Output(anyhow::Error),
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        Self::Replay(error)
    }
}

fn begin<G: Game>(source: &mut Source, game: &Arc<G>, from: Option<u64>) -> anyhow::Result<(Region<G>, Start)> {
    let mut start = source.start(from)?;
    loop {
        let Start::Checkpoint(stored) = &start else { return Ok((Region::new(game.clone()), start)) };
        source.check_rules(stored, &**game)?;
        match source.load(stored, game) {
            Ok(region) => return Ok((region, start)),
            Err(error) => {
                let index = stored.info.position.index;
                source.damage.push(format!("{error:#}"));
                source.checkpoints.remove(&index);
                start = source.start(from).map_err(|next| error.context(next))?;
            }
        }
    }
}

/// What is asked for and not there.
fn beyond(wanted: &Wanted, last: u64) -> Option<String> {
    let asked = wanted.from.max(wanted.to).filter(|asked| *asked > last)?;
    Some(format!("tick {asked} is not there: the last one that is known here to be committed is {last}"))
}

fn kind_of(body: Option<&region_entry::Body>) -> &'static str {
    match body {
        Some(region_entry::Body::Tick(_)) => "tick",
        Some(region_entry::Body::Cut(_)) => "cut",
        Some(region_entry::Body::Sleep(_)) => "sleep",
        Some(region_entry::Body::Skip(_)) => "order to skip",
        Some(region_entry::Body::Barrier(_)) => "barrier",
        Some(region_entry::Body::Genesis(_)) => "genesis",
        None => "unknown",
    }
}
