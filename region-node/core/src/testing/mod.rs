//! For tests of games: tells whether rules are deterministic and whether their state survives a restart.
//!
//! [`restore_midway`] gives one log to two replicas. One lives through it; the other is encoded and restored at the points
//! that the caller names. After every entry their hashes must be equal; when they are not, the first part that differs is
//! named. What breaks this test breaks a running world: a replica that restarts would be thrown out of its group. An entry at which
//! the game's tick panics is met as a running world meets it: both replicas go back to before it, and skip it.
//! [`Script`] writes such logs. [`Country`] has several regions side by side, and what borders do.

mod country;
mod script;

use std::collections::BTreeSet;
use std::sync::Arc;

use marchland_types::LogIndex;

use crate::effects::Effects;
use crate::game::Game;
use crate::region::{ApplyFault, Region};
use crate::view::RegionView;

pub use self::country::Country;
pub use self::script::{BEGIN_MS, Script, WORLD};

/// Where two replicas first differ, or what else went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// A part of the state differs.
    #[error("after entry {index} the replicas differ in {part}: {lived:#018x} and {restored:#018x}")]
    State {
        /// After which entry.
        index: LogIndex,
        /// The first part that differs.
        part: &'static str,
        /// Its hash in the replica that lived through everything.
        lived: u64,
        /// Its hash in the replica that was restored.
        restored: u64,
    },
    /// The state is equal, but the replicas would tell the world different things.
    #[error("after entry {index} the replicas have different effects")]
    Effects {
        /// After which entry.
        index: LogIndex,
    },
    /// One replica faults at an entry and the other does not, or differently.
    #[error("at entry {index} one replica says {lived} and the other {restored}")]
    Faults {
        /// At which entry.
        index: LogIndex,
        /// What the replica says that lived through everything.
        lived: String,
        /// What the replica says that was restored.
        restored: String,
    },
    /// The state did not survive being encoded and restored.
    #[error("after entry {index} the state can not be restored: {reason}")]
    Restore {
        /// After which entry.
        index: LogIndex,
        /// Why.
        reason: String,
    },
    /// The state is one that can not be.
    #[error("after entry {index}: {reason}")]
    Invariant {
        /// After which entry.
        index: LogIndex,
        /// What is broken.
        reason: String,
    },
}

/// Applies `log` (encoded entries, the genesis first; indexes count from 1) to two replicas, one of which is restored after
/// each entry in `restore_after`. Checks equality after every entry, and all invariants at each restore and at the end.
pub fn restore_midway<G: Game>(
    game: impl Fn() -> G,
    log: &[Vec<u8>],
    restore_after: &BTreeSet<usize>,
) -> Result<Region<G>, Difference> {
    restore_midway_with(game, log, restore_after, |_, _| {})
}

/// The same, with a hook that may damage the restored replica: so that a test of the test can see it fail.
pub fn restore_midway_with<G: Game>(
    game: impl Fn() -> G,
    log: &[Vec<u8>],
    restore_after: &BTreeSet<usize>,
    mut tamper: impl FnMut(usize, &mut Vec<u8>),
) -> Result<Region<G>, Difference> {
    let mut lived = Region::new(Arc::new(game()));
    let mut restored = Region::new(Arc::new(game()));
    for (at, entry) in log.iter().enumerate() {
        let index = LogIndex(at as u64 + 1);
        let mut other = entry.clone();
        tamper(at, &mut other);
        let before = (lived.view(), restored.view());
        match (lived.apply(index, entry), restored.apply(index, &other)) {
            (Ok(ours), Ok(theirs)) if !same_effects(&ours, &theirs) => {
                compare(index, &lived, &restored)?;
                return Err(Difference::Effects { index });
            }
            (Ok(_), Ok(_)) => {}
            (Err(ours @ ApplyFault::Panicked { .. }), Err(theirs)) if ours == theirs => {
                lived = back(index, &before.0, &game)?;
                restored = back(index, &before.1, &game)?;
                for (replica, entry) in [(&mut lived, entry), (&mut restored, &other)] {
                    let skipped = replica.skip(index, entry);
                    skipped.map_err(|fault| Difference::Restore { index, reason: format!("not skipped: {fault}") })?;
                }
            }
            (Err(ours), Err(theirs)) if ours == theirs => {}
            (ours, theirs) => {
                let text = |result: Result<Effects<G>, _>| {
                    result.map_or_else(|fault: ApplyFault| fault.to_string(), |_| "that it was applied".into())
                };
                return Err(Difference::Faults { index, lived: text(ours), restored: text(theirs) });
            }
        }
        compare(index, &lived, &restored)?;
        if restore_after.contains(&at) {
            restored = restore(index, &restored, &game)?;
            compare(index, &lived, &restored)?;
            check(index, &restored)?;
        }
    }
    check(LogIndex(log.len() as u64), &lived)?;
    Ok(lived)
}

fn back<G: Game>(index: LogIndex, view: &RegionView<G>, game: &impl Fn() -> G) -> Result<Region<G>, Difference> {
    Region::decode(Arc::new(game()), &view.encode()).map_err(|error| Difference::Restore { index, reason: error.to_string() })
}

fn restore<G: Game>(index: LogIndex, region: &Region<G>, game: &impl Fn() -> G) -> Result<Region<G>, Difference> {
    let bytes = region.view().encode();
    let copy = back(index, &region.view(), game)?;
    if copy.view().encode() == bytes {
        Ok(copy)
    } else {
        Err(Difference::Restore { index, reason: "it is encoded otherwise after being restored".into() })
    }
}

fn check<G: Game>(index: LogIndex, region: &Region<G>) -> Result<(), Difference> {
    region.check().map_err(|violation| Difference::Invariant { index, reason: violation.to_string() })
}

fn compare<G: Game>(index: LogIndex, lived: &Region<G>, restored: &Region<G>) -> Result<(), Difference> {
    if lived.state_hash() == restored.state_hash() {
        return Ok(());
    }
    let pairs = lived.component_hashes().into_iter().zip(restored.component_hashes());
    let first = pairs.into_iter().find(|((_, ours), (_, theirs))| ours != theirs);
    let ((part, ours), (_, theirs)) = first.unwrap_or((("the whole", lived.state_hash()), ("", restored.state_hash())));
    Err(Difference::State { index, part, lived: ours, restored: theirs })
}

fn same_effects<G: Game>(ours: &Effects<G>, theirs: &Effects<G>) -> bool {
    ours.applied == theirs.applied
        && ours.tick == theirs.tick
        && ours.now_ms == theirs.now_ms
        && ours.appeared == theirs.appeared
        && ours.looks == theirs.looks
        && ours.vanished == theirs.vanished
        && ours.moved == theirs.moved
        && ours.own == theirs.own
        && ours.replies == theirs.replies
        && ours.area_events == theirs.area_events
        && ours.attached == theirs.attached
        && ours.ended == theirs.ended
        && ours.handed == theirs.handed
        && ours.sessions_moved == theirs.sessions_moved
        && ours.arrived == theirs.arrived
        && ours.outbox_changed == theirs.outbox_changed
        && ours.gaps == theirs.gaps
        && ours.cuts.iter().map(|cut| cut.number).eq(theirs.cuts.iter().map(|cut| cut.number))
}
