//! Runs the tests against real processes, one after the other: each wants the machine for itself.
//!
//! A runner of its own, because a test that the machine does not permit must be reported as skipped. Takes the usual filter:
//! `cargo test -p marchland-jepsen --test real -- kill`. How much is done:
//!
//! - `MARCHLAND_ROUNDS`: kills, power cuts and failovers (2);
//! - `MARCHLAND_RUBBISH_BYTES`: random bytes for each port (65,536);
//! - `MARCHLAND_ROOT_TESTS=1`: power cuts, which mount file systems and need root;
//! - `MARCHLAND_STRICT=1`: players of a node that is asked to go wait no longer than promised, which is not held yet;
//! - `MARCHLAND_BIN`: another binary, for example one built for release;
//! - `MARCHLAND_KEEP=1`: keep what the nodes left;
//! - `MARCHLAND_VERBOSE=1`: print every attempt of a player that failed.

mod busy;
mod certificates;
mod dilation;
mod failover;
mod full_disk;
mod kill_all;
mod lost_folder;
mod lost_parts;
mod moving_borders;
mod odd_replica;
mod plants;
mod power_cut;
mod refusals;
mod rot;
mod rubbish;
mod rules;
mod scene;
mod stall;
mod take_over;

use std::process::ExitCode;

use failover::Fate;
use scene::{Outcome, Scene};
use tokio::time::Instant;

type Test = (&'static str, fn(&Scene) -> scene::Running<'_>);

const TESTS: &[Test] = &[
    ("refusals: bad starts are refused with a clear error", |scene| Box::pin(refusals::run(scene))),
    ("kill_all: nothing acknowledged is lost when every node is killed at once", |scene| Box::pin(kill_all::run(scene))),
    ("power_cut: nothing acknowledged is lost when every node loses power at once", |scene| Box::pin(power_cut::run(scene))),
    ("failover_kill: players go on within a second when the owner is killed", |scene| {
        Box::pin(failover::run(scene, Fate::Killed))
    }),
    ("failover_pause: players go on within a second when the owner stands still", |scene| {
        Box::pin(failover::run(scene, Fate::Stopped))
    }),
    ("failover_partition: players go on within a second when the owner is cut off", |scene| {
        Box::pin(failover::run(scene, Fate::CutOff))
    }),
    ("failover_stop: a node that is asked to go hands over, and nobody waits", |scene| {
        Box::pin(failover::run(scene, Fate::AskedToGo))
    }),
    ("failover_move: an operator moves a region, and nobody notices", |scene| Box::pin(failover::run(scene, Fate::Moved))),
    ("moving_borders: borders move, and nobody notices", |scene| Box::pin(moving_borders::run(scene))),
    ("lost_folder: a replica that lost its folder is replaced", |scene| Box::pin(lost_folder::run(scene))),
    ("lost_parts: a node that lost its store, its checkpoints or its log is rebuilt or rejoins", |scene| {
        Box::pin(lost_parts::run(scene))
    }),
    ("odd_replica: a replica whose state is not the majority's is rebuilt, leader or not", |scene| {
        Box::pin(odd_replica::run(scene))
    }),
    ("rot: what rots while nobody reads it is found and repaired", |scene| Box::pin(rot::run(scene))),
    ("planted_divergence: verify finds replicas that differ", |scene| Box::pin(plants::divergence(scene))),
    ("planted_duplicate: verify finds an item that is there twice", |scene| Box::pin(plants::duplicate(scene))),
    ("planted_rollback: players find a world that went back", |scene| Box::pin(plants::rollback(scene))),
    ("rules_panic: a rule that panics costs a command, a message, or a halt", |scene| Box::pin(rules::panics(scene))),
    ("rules_endless: a rule that does not return halts one region", |scene| Box::pin(rules::endless(scene))),
    ("dilation: time passes more slowly when replicas do not keep up", |scene| Box::pin(dilation::run(scene))),
    ("full_disk: what fills up refuses, hands over, and goes on when there is room", |scene| Box::pin(full_disk::run(scene))),
    ("busy: beside other work time dilates, and nobody is replaced", |scene| Box::pin(busy::run(scene))),
    ("take_over: of several clients with one character one stays", |scene| Box::pin(take_over::run(scene))),
    ("stall: a reader that stalls for five seconds is up to date when it returns", |scene| Box::pin(stall::run(scene))),
    ("certificates: wrong peers get nothing", |scene| Box::pin(certificates::run(scene))),
    ("rubbish: random bytes at every port crash nothing", |scene| Box::pin(rubbish::run(scene))),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let chosen: Vec<&Test> =
        TESTS.iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str()))).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests against real processes", chosen.len());
    match run(&chosen) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("can not run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(tests: &[&Test]) -> anyhow::Result<bool> {
    let run = marchland_jepsen::run::Run::begin()?;
    let mut failed = 0;
    let mut skipped = 0;
    for (at, (name, test)) in tests.iter().enumerate() {
        let scene = Scene::new(env!("CARGO_BIN_EXE_marchland-under-test"), run.folder(&format!("{at}"))?)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let begun = Instant::now();
        println!("test {name} ...");
        let outcome = runtime.block_on(test(&scene));
        // A task that hangs must not hang the others.
        runtime.shutdown_background();
        let seconds = begun.elapsed().as_secs_f32();
        match outcome {
            Ok(Outcome::Shown(what)) => println!("  ok ({seconds:.1} s): {what}"),
            Ok(Outcome::Skipped(why)) => {
                skipped += 1;
                println!("  SKIPPED: {why}");
            }
            Err(error) => {
                failed += 1;
                let name = name.split(':').next().unwrap_or(name);
                println!("  FAILED ({seconds:.1} s): {error:#}");
                println!("  again: cargo test -p marchland-jepsen --test real -- {name}");
            }
        }
    }
    println!("\n{} ok, {failed} failed, {skipped} skipped\n", tests.len() - failed - skipped);
    run.finish(failed > 0 || std::env::var_os("MARCHLAND_KEEP").is_some());
    Ok(failed == 0)
}
