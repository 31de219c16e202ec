//! The next write or sync of a machine's disk fails with EIO. Its node must stop, and must not write on as if nothing had happened; a
//! later start finds a disk that works.

use std::time::Duration;

use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::{Befalls, Begun, FaultKind};
use crate::machine::MachineName;
use crate::oracle::{self, Violation};
use crate::trace_line;
use crate::world::World;

/// A node whose raft log has failed stops within this.
const STOPS_WITHIN: Duration = Duration::from_millis(500);

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailsOn {
    /// The next write.
    Write,
    /// The next sync of a file: what it should have written is lost, though it can still be read.
    Sync,
}

/// A disk that fails once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailingDisk {
    /// When.
    pub on: FailsOn,
}

impl FaultKind for FailingDisk {
    const NAME: &'static str = "failing-disk";
    const BEFALLS: Befalls = Befalls::Node;

    fn draw(random: &mut Pcg64Mcg) -> Self {
        Self { on: if random.random() { FailsOn::Write } else { FailsOn::Sync } }
    }

    fn begin(&self, world: &mut World, target: &MachineName) -> Begun {
        if !world.is_running(target) {
            return Begun::Nothing;
        }
        trace_line!("FAILING DISK of {target}: the next {:?}", self.on);
        world.excuse(target);
        let disk = world.hardware(target).disk;
        let before = disk.failures();
        match self.on {
            FailsOn::Write => disk.fail_writes(1),
            FailsOn::Sync => disk.fail_syncs(1),
        }
        let target = target.clone();
        Begun::armed(move |world| {
            let disk = world.hardware(&target).disk;
            let failed = disk.failures() > before;
            disk.fail_writes(0);
            disk.fail_syncs(0);
            if let Some(at) = disk.log_failed_at()
                && world.is_running(&target)
                && world.elapsed() > at + STOPS_WITHIN
            {
                let found =
                    format!("{target} still runs, its raft log failed at {at:?}, expected to stop within {STOPS_WITHIN:?}");
                oracle::report(Violation::new("failed-log-stops", found));
            }
            world.excuse_no_more(&target, failed);
            world.start(&target);
            failed
        })
    }
}
