//! `marchland replay`: re-runs a part of a region's log, exactly as it ran, out of a node's data folder.
//!
//! It begins with a checkpoint, applies the committed entries behind it by the very code that the cluster runs, and compares every
//! state hash that the cluster recorded. Nothing in the folder is changed, and its node may run meanwhile. What it refuses: rules or content
//! that this build does not have, gaps, damage where it would have to read, and to call anything exact that is not.

mod engine;
mod filter;
mod output;
mod report;
mod source;
mod tell;

use std::io::{BufWriter, ErrorKind, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use marchland_region_core::{Game, Region};
use marchland_types::ItemId;

use self::engine::{Engine, Wanted};
pub use self::filter::EntityChoice;
use self::filter::Filter;
use self::output::{Header, Json, Output, Text};
use self::report::{Hash, Summary};
use self::source::{Source, Start};
use crate::config::{GridConfig, GroundConfig, WorldConfig};
use crate::seams::SystemClock;
use crate::served::Serve;

/// Arguments of `marchland replay`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  \
    marchland replay --data marchland-data/node-1 --region 1 --summary\n  \
    marchland replay --data marchland-data/node-1 --region 1 --from 4000 --to 4200 --entity Ada")]
pub struct ReplayArgs {
    /// A node's folder: the one with its data, or the one of `up` in which that lies. Its node may run.
    #[arg(long)]
    pub data: PathBuf,
    /// Number of the region.
    #[arg(long)]
    pub region: u32,
    /// First tick that is printed; without it, the earliest from which the log goes on to its end.
    #[arg(long)]
    pub from: Option<u64>,
    /// Last tick; without it, the last one that is known to be committed.
    #[arg(long)]
    pub to: Option<u64>,
    /// Print only what concerns this entity: its number, or the name of a character.
    #[arg(long)]
    pub entity: Option<EntityChoice>,
    /// Print only what concerns this item, by its number.
    #[arg(long)]
    pub item: Option<u64>,
    /// Print nothing but the end: whether every recorded hash agrees.
    #[arg(long, conflicts_with_all = ["entity", "item"])]
    pub summary: bool,
    /// One JSON document on standard output, without a progress bar.
    #[arg(long)]
    pub json: bool,
}

/// Runs `marchland replay` with a game's rules.
///
/// # Errors
/// Whatever keeps the replay from being exact, for a person to read.
pub fn main<G: Game>(args: &ReplayArgs, serve: Serve<G>) -> anyhow::Result<ExitCode> {
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from > to
    {
        eprintln!("marchland: --from {from} comes after --to {to}");
        return Ok(ExitCode::from(2));
    }
    let out = BufWriter::new(std::io::stdout().lock());
    let run = if args.json { run(args, serve, &mut Json::new(out)) } else { run(args, serve, &mut Text(out)) };
    match run {
        Ok(summary) => match failure(&summary) {
            None => Ok(ExitCode::SUCCESS),
            Some(reason) => Err(anyhow::anyhow!(reason)),
        },
        // Whoever read it has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(|io| io.kind() == ErrorKind::BrokenPipe)
}

fn failure(summary: &Summary) -> Option<String> {
    if let Some(mismatch) = &summary.mismatch {
        let (tick, recorded, replayed) = (mismatch.tick, mismatch.recorded, mismatch.replayed);
        let component = mismatch.component.as_deref().unwrap_or("not known");
        return Some(format!(
            "replay differs after tick {tick}: recorded {recorded}, replayed {replayed}; first part that differs: {component}"
        ));
    }
    summary.error.clone().or_else(|| summary.damage.first().map(|damage| format!("the folder is damaged: {damage}")))
}

fn run<G: Game>(args: &ReplayArgs, serve: Serve<G>, output: &mut dyn Output) -> anyhow::Result<Summary> {
    let clock = SystemClock::start();
    let mut source = Source::open(&args.data, args.region)?;
    let world = source.group.world();
    // What a world is made from stands in its log; only the rules are asked for.
    // What its regions are made from stands in each one's genesis.
    let grid = GridConfig::default();
    let config = WorldConfig { id: world.0, name: "replay".into(), seed: 0, ground: GroundConfig::default(), grid, animals: 0 };
    let game = serve(&config)?.game;
    let filter = Filter { entity: args.entity.clone(), item: args.item };
    let wanted = Wanted { from: args.from, to: args.to, summary: args.summary, filter };
    let (folder, node) = (source.folder.display().to_string(), source.owner.node.0);
    let (engine, start) = Engine::new(&mut source, game, wanted)?;
    let stored = match &start {
        Start::Checkpoint(stored) => Some(stored),
        Start::Nothing => None,
    };
    let game = engine.region().game();
    output.begin(&Header {
        region: args.region,
        world: world.0,
        node,
        folder,
        rules_version: game.rules_version(),
        content_hash: Hash(game.content_hash()),
        checkpoint: stored.map(|stored| stored.info.path.display().to_string()),
        start_tick: start.tick(),
        build: stored.map(|stored| stored.header.build.clone()),
        item: args.item.map(|item| whereabouts(engine.region(), ItemId(item))),
    })?;
    let summary = engine.run(&start, output, &bar(args), &clock)?;
    output.end(&summary)?;
    Ok(summary)
}

fn bar(args: &ReplayArgs) -> ProgressBar {
    // Lines and a bar on one terminal would write over each other.
    if args.json || !args.summary && std::io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("replaying {wide_bar} {pos} of {len} entries, {eta} left") {
        bar.set_style(style);
    }
    bar
}

/// Who holds an item.
fn whereabouts<G: Game>(region: &Region<G>, item: ItemId) -> String {
    let world = region.world();
    let holder = world.entities().find(|view| world.item(view.identity.entity, item).is_some());
    if let Some(view) = holder {
        let (entity, name, [x, y, z]) = (view.identity.entity, &view.identity.name, view.body.position);
        let name = if name.is_empty() { format!("kind {}", view.identity.kind) } else { name.to_string() };
        return format!("item {item} is held by entity {entity} ({name}) at {x:.3} {y:.3} {z:.3}");
    }
    let held = region.view().inspect();
    match held.sessions.iter().find(|session| session.items.contains(&item.0)) {
        Some(session) => {
            let (character, name) = (session.character, &session.name);
            format!("item {item} is held by character {character} ({name}), who is not in the world")
        }
        None => format!("item {item} is nowhere"),
    }
}
