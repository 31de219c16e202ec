//! `marchland verify` and `marchland admin`: arguments, tables, JSON.
//!
//! With `--json` one JSON document goes to the output and nothing else. The outcome tells the exit code: a verdict that is
//! not sound, and a cluster that is not healthy, are failures of the command.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use marchland_proto::net::{ClusterSecurity, TlsFiles, TokioTransport};
use marchland_types::{LogIndex, NodeId, RegionId};
use serde::Serialize;

use crate::client::{AdminCluster, AdminEndpoint, ClusterView, EndpointError, NodeAnswer, Worlds, cluster_status};
use crate::map::{MapError, WorldMap, change_map, move_border, world_map};
use crate::relocate::{MoveError, Moved, move_owner};
use crate::seed::{SeedError, Seeded, seed};
use crate::skip::{SkipError, Skipped, skip_entry};
use crate::verify::{VerifyError, VerifyReport, verify};

/// Why a command could not say anything. Exit code 1.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The nodes can not be asked.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A region was not moved.
    #[error("not moved: {0}")]
    Move(#[from] MoveError),
    /// A region did not go on.
    #[error("not skipped: {0}")]
    Skip(#[from] SkipError),
    /// Not all characters were made.
    #[error("not all were made: {0}")]
    Seed(#[from] SeedError),
    /// There is no map, or it was not changed.
    #[error(transparent)]
    Map(#[from] MapError),
    /// There is no verdict.
    #[error("could not verify: {0}")]
    Verify(#[from] VerifyError),
    /// The output is closed.
    #[error("can not write the answer: {0}")]
    Output(#[from] std::io::Error),
}

/// How far a long command is.
const BAR: &str = "{bar:40} {pos}/{len} {per_sec}, {eta} to go";

/// How a command ended, when it could say something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is well: exit code 0.
    Well,
    /// Something is wrong, and was printed: exit code 1.
    Wrong,
}

/// Arguments of `marchland verify`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  marchland verify --ready-file r.json --json\n\n\
    Exit code 0: replicas agree, no item is missing or doubled. 1: something is wrong, or a replica did not answer.")]
pub struct VerifyArgs {
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Print one JSON document and nothing else.
    #[arg(long)]
    json: bool,
    /// How long to wait for owners and replicas, in seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout_s: u64,
}

/// Arguments of `marchland admin`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  marchland admin --ready-file r.json cluster status\n  \
    marchland admin --endpoint 10.0.0.1:7101 --authority ca.pem --certificate admin.pem --key admin.key \\\n    \
    --token-file admin.token --json cluster status")]
pub struct AdminArgs {
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Print one JSON document and nothing else.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum AdminCommand {
    /// The cluster as a whole.
    Cluster {
        #[command(subcommand)]
        command: ClusterCommand,
    },
    /// Characters.
    Character {
        #[command(subcommand)]
        command: CharacterCommand,
    },
    /// One region.
    Region {
        #[command(subcommand)]
        command: RegionCommand,
    },
    /// Which ground each region has. With `--change` or `--border`, give the regions other ground, together the same as before, and wait
    /// until all of them go by it. Players keep their connections.
    #[command(after_help = "Examples:\n  marchland admin --ready-file r.json map --border 5,6 --by 40\n  \
        marchland admin --ready-file r.json map --json > map.json\n  \
        marchland admin --ready-file r.json map --change map.json\n\n\
        Exit code 0: every region goes by the new map. 1: not changed, or it is not known, or some regions take it later.")]
    Map(MapArgs),
}

#[derive(Clone, Debug, Args)]
struct MapArgs {
    /// File with the new map: what `map --json` printed, with other edges. Refused when the map was changed since it was printed.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["border", "by"])]
    change: Option<PathBuf>,
    /// Two regions that share a whole edge. That edge is moved, each time that the command is given.
    #[arg(long, value_name = "REGION,REGION", value_parser = two_regions, requires = "by")]
    border: Option<[RegionId; 2]>,
    /// How far, in metres: to the east or south, or to the west or north if it is negative.
    #[arg(long, value_name = "METRES", requires = "border", allow_negative_numbers = true)]
    by: Option<f32>,
    /// How long to wait for regions to take a new map, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout_s: u64,
}

/// Two region numbers with a comma between them.
fn two_regions(text: &str) -> Result<[RegionId; 2], String> {
    let numbers = text.split_once(',').and_then(|(a, b)| Some([a.trim().parse().ok()?, b.trim().parse().ok()?]));
    numbers.map(|numbers| numbers.map(RegionId)).ok_or_else(|| "two regions are written 5,6".to_owned())
}

#[derive(Clone, Debug, Subcommand)]
enum CharacterCommand {
    /// Make many characters that are logged out, for tests of size. Character n is called PREFIXn, and so is its account.
    #[command(after_help = "Example:\n  marchland admin --ready-file r.json character seed --count 1000000\n\n\
        Exit code 0: all were made. 1: not all, and those that were stay.")]
    Seed {
        /// How many.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
        count: u64,
        /// Beginning of their names: ASCII letters.
        #[arg(long, default_value = "sleeper")]
        prefix: String,
    },
}

#[derive(Clone, Debug, Subcommand)]
enum RegionCommand {
    /// Have another node own a region. It stands still for a moment, and players keep their connections.
    #[command(after_help = "Example:\n  marchland admin --ready-file r.json region move --region 1 --to 3\n\n\
        Exit code 0: that node owns it. 1: it does not, or it is not known.")]
    Move {
        /// The region's number.
        #[arg(long)]
        region: u32,
        /// The node that is to own it; any other than now unless given.
        #[arg(long)]
        to: Option<u32>,
    },
    /// Have a region that halts at an entry go on without it. What the entry brought has no effect: commands are answered `Internal`,
    /// messages are set aside. It can not be taken back.
    #[command(
        after_help = "Example:\n  marchland admin --ready-file r.json region skip-entry --region 1 --index 4711 --reason 'panics'\n\n\
        Which entry it is, `cluster status` says. Exit code 0: skipped, and the region went on. 1: not skipped, or it is not known."
    )]
    SkipEntry {
        /// The region's number.
        #[arg(long)]
        region: u32,
        /// The entry at which it halts.
        #[arg(long)]
        index: u64,
        /// Why, for the audit; at most 256 bytes are kept.
        #[arg(long, default_value = "")]
        reason: String,
    },
}

#[derive(Clone, Debug, Subcommand)]
enum ClusterCommand {
    /// Every node and replica: roles, terms, ticks, what is applied and what is durable.
    #[command(after_help = "Example:\n  marchland admin --ready-file r.json cluster status\n\n\
        Exit code 0: every node answered and is ready. 1: one is not.")]
    Status,
}

/// Which cluster, and as whom. Secrets are read from files, never from the command line.
#[derive(Clone, Debug, Args)]
struct EndpointArgs {
    /// File that `marchland up --ready-file` wrote.
    #[arg(long, value_name = "PATH", required_unless_present = "endpoint", conflicts_with = "endpoint")]
    ready_file: Option<PathBuf>,
    /// World of the ready file. Needed when there are several; the status of the cluster is that of all of them.
    #[arg(long, value_name = "NAME", requires = "ready_file", conflicts_with = "endpoint")]
    world: Option<String>,
    /// Cluster address of a node; once for each node, all of one world.
    #[arg(long, value_name = "HOST:PORT", requires_all = ["authority", "certificate", "key", "token_file"])]
    endpoint: Vec<String>,
    /// Certificate of the cluster's authority, PEM.
    #[arg(long, value_name = "PATH", requires = "endpoint")]
    authority: Option<PathBuf>,
    /// Certificate with the role `admin`, PEM.
    #[arg(long, value_name = "PATH", requires = "endpoint")]
    certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "PATH", requires = "endpoint")]
    key: Option<PathBuf>,
    /// File with the admin token.
    #[arg(long, value_name = "PATH", requires = "endpoint")]
    token_file: Option<PathBuf>,
}

impl EndpointArgs {
    /// Clients of the nodes of the world that is named; `unnamed` are those that are meant otherwise.
    fn connect(&self, unnamed: Worlds<'static>) -> Result<AdminCluster, EndpointError> {
        let worlds = self.world.as_deref().map_or(unnamed, Worlds::Named);
        let endpoint = match (&self.ready_file, &self.authority, &self.certificate, &self.key, &self.token_file) {
            (Some(path), ..) => AdminEndpoint::from_ready_file(path, worlds)?,
            (None, Some(authority), Some(certificate), Some(key), Some(token_file)) => AdminEndpoint {
                addresses: self.endpoint.clone(),
                security: ClusterSecurity::load(&TlsFiles {
                    authority: authority.clone(),
                    certificate: certificate.clone(),
                    key: key.clone(),
                })?,
                token: std::fs::read_to_string(token_file)
                    .map_err(|error| EndpointError::Unreadable { path: token_file.clone(), error })?,
            },
            // clap has asked for all of them together.
            _ => return Err(EndpointError::NoAddress),
        };
        endpoint.connect(&TokioTransport)
    }
}

impl VerifyArgs {
    /// Verifies the cluster and prints the verdict.
    pub async fn run(&self, out: &mut impl Write) -> Result<Outcome, CommandError> {
        let cluster = self.endpoint.connect(Worlds::Only)?;
        let report = verify(&cluster, Duration::from_secs(self.timeout_s)).await?;
        put(out, self.json, &report, verdict)?;
        Ok(if report.sound() { Outcome::Well } else { Outcome::Wrong })
    }
}

impl AdminArgs {
    /// Runs the command and prints its answer.
    pub async fn run(&self, out: &mut impl Write) -> Result<Outcome, CommandError> {
        let cluster = self.endpoint.connect(match &self.command {
            AdminCommand::Cluster { .. } => Worlds::All,
            AdminCommand::Character { .. } | AdminCommand::Region { .. } | AdminCommand::Map(_) => Worlds::Only,
        })?;
        match &self.command {
            AdminCommand::Cluster { command: ClusterCommand::Status } => {
                let view = cluster_status(&cluster).await;
                put(out, self.json, &view, overview)?;
                Ok(if view.healthy() { Outcome::Well } else { Outcome::Wrong })
            }
            AdminCommand::Character { command: CharacterCommand::Seed { count, prefix } } => {
                let bar = bar(self.json, *count);
                let seeded = seed(&cluster, *count, prefix, |made| bar.set_position(made)).await?;
                bar.finish_and_clear();
                put(out, self.json, &seeded, made)?;
                Ok(Outcome::Well)
            }
            AdminCommand::Region { command: RegionCommand::Move { region, to } } => {
                let moved = move_owner(&cluster, RegionId(*region), to.map(NodeId)).await?;
                put(out, self.json, &moved, went)?;
                Ok(Outcome::Well)
            }
            AdminCommand::Region { command: RegionCommand::SkipEntry { region, index, reason } } => {
                let skipped = skip_entry(&cluster, RegionId(*region), LogIndex(*index), reason).await?;
                put(out, self.json, &skipped, told)?;
                Ok(Outcome::Well)
            }
            AdminCommand::Map(args) => {
                let (map, changed) = args.run(&cluster, self.json).await?;
                put(out, self.json, &map, ground)?;
                Ok(if changed && map.waiting > 0 { Outcome::Wrong } else { Outcome::Well })
            }
        }
    }
}

impl MapArgs {
    /// The map in force, and whether it is one that was asked for.
    async fn run(&self, cluster: &AdminCluster, json: bool) -> Result<(WorldMap, bool), MapError> {
        let new = match (&self.change, self.border, self.by) {
            (Some(path), ..) => WorldMap::from_file(path)?,
            (None, Some([a, b]), Some(by_m)) => move_border(&world_map(cluster).await?, a, b, by_m)?,
            _ => return Ok((world_map(cluster).await?, false)),
        };
        let regions = new.regions.len() as u64;
        let bar = bar(json, regions);
        let waits = |waiting: u32| bar.set_position(regions.saturating_sub(waiting.into()));
        let changed = change_map(cluster, &new, Duration::from_secs(self.timeout_s), waits).await;
        bar.finish_and_clear();
        Ok((changed?, true))
    }
}

/// What a long command shows while it works; nothing beside a JSON document.
fn bar(json: bool, length: u64) -> ProgressBar {
    let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(length) };
    bar.with_style(ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn put<T: Serialize>(out: &mut impl Write, json: bool, answer: &T, people: fn(&T) -> String) -> std::io::Result<()> {
    if json {
        serde_json::to_writer_pretty(&mut *out, answer).map_err(std::io::Error::other)?;
        writeln!(out)?;
    } else {
        out.write_all(people(answer).as_bytes())?;
    }
    out.flush()
}

/// Characters that were made, for people.
fn made(seeded: &Seeded) -> String {
    let Seeded { first, count, prefix } = seeded;
    format!("{count} characters are in the vaults: {prefix}{first} to {prefix}{}\n", first + count - 1)
}

/// A region that was moved, for people.
fn went(moved: &Moved) -> String {
    let Moved { group, from, to } = moved;
    format!("{group} is owned by node {to}, and was by node {from}\n")
}

/// A skipped entry for people.
fn told(skipped: &Skipped) -> String {
    let Skipped { group, index, order_index, tick, node } = skipped;
    format!("{group} skipped entry {index} by the order in entry {order_index}, and is at tick {tick} (node {node})\n")
}

/// A world's regions for people.
fn ground(map: &WorldMap) -> String {
    let mut rows = table(&["region", "west", "north", "east", "south"]);
    for ground in &map.regions {
        let edges = [ground.min_x, ground.min_z, ground.max_x, ground.max_z].map(|edge_m| edge_m.to_string());
        rows.add_row([ground.region.to_string()].into_iter().chain(edges));
    }
    let waiting = match map.waiting {
        0 => "every region goes by it".to_owned(),
        1 => "1 region has not taken it yet, but will".to_owned(),
        several => format!("{several} regions have not taken it yet, but will"),
    };
    format!("{rows}\n\nmap epoch {}: {waiting}\n", map.epoch)
}

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.iter().copied());
    table
}

/// The verdict for people.
fn verdict(report: &VerifyReport) -> String {
    let mut rows =
        table(&["regions", "replicas", "divergent", "items", "duplicated", "missing", "unexplained", "in two places", "nowhere"]);
    rows.add_row([
        report.regions,
        report.replicas,
        report.divergent,
        report.items,
        report.duplicated_items,
        report.missing_items,
        report.unexplained_items,
        report.characters_in_two_places,
        report.characters_missing,
    ]);
    let mut text = format!("{rows}\n");
    for divergence in &report.divergences {
        let differs = divergence.components.join(", ");
        // Writing to a String can not fail, here and below.
        let _ = writeln!(text, "replica {} of {} differs in: {differs}", divergence.replica, divergence.group);
    }
    for (what, ids) in [
        ("items present more than once", &report.duplicated_item_ids),
        ("characters present more than once", &report.doubled_character_ids),
        ("characters that are nowhere", &report.missing_character_ids),
    ] {
        if !ids.is_empty() {
            let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
            let _ = writeln!(text, "{what}: {}", ids.join(", "));
        }
    }
    text.push_str(if report.sound() { "sound\n" } else { "NOT SOUND\n" });
    text
}

/// The cluster for people.
fn overview(view: &ClusterView) -> String {
    let mut nodes = table(&["node", "address", "state", "players", "up", "version"]);
    let mut groups =
        table(&["group", "replica", "role", "term", "tick", "rate", "sessions", "entities", "applied", "durable", "remarks"]);
    for NodeAnswer { address, status, error } in &view.nodes {
        let Some(status) = status else {
            let error = error.as_deref().unwrap_or("no answer");
            nodes.add_row(["?", address, error, "", "", ""]);
            continue;
        };
        let state = match (status.ready, status.not_ready_because.as_str()) {
            (true, _) => "ready",
            (false, "") => "not ready",
            (false, reason) => reason,
        };
        nodes.add_row([
            &status.node.to_string(),
            address,
            state,
            &status.clients.to_string(),
            &format!("{} s", status.uptime_ms / 1000),
            &status.version,
        ]);
        for group in &status.groups {
            let ticks = group.time_rate > 0;
            let mut remarks: Vec<&str> = Vec::new();
            remarks.extend(group.owner.then_some("owner"));
            remarks.extend(group.asleep.then_some("asleep"));
            remarks.extend(group.diverged.then_some("DIVERGED"));
            remarks.extend((!group.fault.is_empty()).then_some(group.fault.as_str()));
            let halted = format!("HALTED at entry {}: {}", group.halted_index, group.halted_because);
            remarks.extend((group.halted_index != 0).then_some(halted.as_str()));
            let counts = [
                (group.panics, "panics of rules"),
                (group.dead_letters, "set aside"),
                (group.skipped_entries, "entries skipped"),
            ];
            let counts: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
            remarks.extend(counts.iter().map(String::as_str));
            groups.add_row([
                &group.group,
                &group.replica,
                &group.role,
                &group.term.to_string(),
                &if ticks { group.tick.to_string() } else { "–".into() },
                &if ticks { format!("{} %", group.time_rate) } else { "–".into() },
                &group.sessions.to_string(),
                &group.entities.to_string(),
                &group.applied_index.to_string(),
                &group.durable_index.to_string(),
                &remarks.join(", "),
            ]);
        }
    }
    format!("{nodes}\n\n{groups}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::RegionGround;
    use clap::Parser;

    #[derive(Debug, Parser)]
    enum Cli {
        Verify(VerifyArgs),
        Admin(AdminArgs),
    }

    #[test]
    fn arguments_are_taken_together_or_not_at_all() {
        let parses = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        assert!(parses("x verify --ready-file r.json --json"));
        assert!(parses("x admin --ready-file r.json cluster status --json"));
        assert!(parses(
            "x admin --endpoint a:1 --endpoint b:1 --authority a --certificate b --key c --token-file d cluster status"
        ));
        assert!(parses("x admin --ready-file r.json region skip-entry --region 1 --index 7 --json"));
        assert!(!parses("x admin --ready-file r.json region skip-entry --region 1"));
        assert!(parses("x admin --ready-file r.json region move --region 1 --to 3 --json"));
        assert!(!parses("x admin --ready-file r.json region move --to 3"));
        assert!(parses("x admin --ready-file r.json map --json"));
        assert!(parses("x admin --ready-file r.json map --change map.json --timeout-s 5"));
        assert!(parses("x admin --ready-file r.json map --border 5,6 --by -40.5"));
        for wrong in ["--change a --border 5,6 --by 4", "--border 5,6", "--by 4", "--change a --by 4", "--border 5 --by 4"] {
            assert!(!parses(&format!("x admin --ready-file r.json map {wrong}")), "{wrong}");
        }
        assert!(parses("x verify --ready-file r.json --world a"));
        assert!(!parses("x verify --endpoint a:1 --authority a --certificate b --key c --token-file d --world a"));
        assert!(!parses("x verify"));
        assert!(!parses("x verify --endpoint a:1"));
        assert!(!parses("x verify --ready-file r.json --timeout-s 0"));
        assert!(!parses("x admin --ready-file r.json cluster"));
        for sub in ["verify", "admin", "admin map"] {
            let help = Cli::try_parse_from(format!("x {sub} --help").split(' ')).unwrap_err().to_string();
            assert!(help.contains("Example"), "{help}");
        }
    }

    #[test]
    fn a_map_is_shown_to_people_and_as_a_document_to_edit() {
        let region = |region, min_x, max_x| RegionGround { region, min_x, min_z: -0.5, max_x, max_z: 100.0 };
        let mut map = WorldMap { epoch: 3, waiting: 0, regions: vec![region(1, 0.0, 40.1), region(2, 40.1, 80.0)] };
        let text = ground(&map);
        assert!(text.contains("40.1") && text.ends_with("\nmap epoch 3: every region goes by it\n"), "{text}");
        map.waiting = 2;
        assert!(ground(&map).ends_with("2 regions have not taken it yet, but will\n"));
        let json = serde_json::to_string(&map).unwrap();
        let first = r#"{"epoch":3,"waiting":2,"regions":[{"region":1,"min_x":0.0,"min_z":-0.5,"max_x":40.1,"max_z":100.0},"#;
        assert!(json.starts_with(first), "{json}");
        assert_eq!(serde_json::from_str::<WorldMap>(&json).unwrap(), map);
    }

    #[test]
    fn a_verdict_names_what_is_wrong() {
        let mut report = VerifyReport { regions: 1, replicas: 3, items: 5, ..VerifyReport::default() };
        assert!(verdict(&report).ends_with("\nsound\n"));
        report.duplicated_items = 1;
        report.duplicated_item_ids = vec![4711];
        let text = verdict(&report);
        assert!(text.contains("items present more than once: 4711") && text.ends_with("NOT SOUND\n"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        for key in ["regions", "replicas", "divergent", "items", "duplicated_items", "missing_items", "characters_in_two_places"]
        {
            assert!(json[key].is_u64(), "{key}");
        }
    }
}
