//! Every crash point of the code, with the roles in which a machine can meet it once players are in the world.
//!
//! Whoever leads a group of its own meets a point as `owner`, another node as `follower`. A point that only one of them passes is
//! said so here, and a test compares the names with the code.

use crate::point::Role;

/// A crash point.
#[derive(Clone, Copy, Debug)]
pub(in crate::scenario) struct CrashPoint {
    /// As in the code.
    pub(in crate::scenario) name: &'static str,
    /// Who can meet it.
    pub(super) roles: &'static [Role],
    /// How often.
    pub(super) met: Met,
    /// How much likelier than others it is drawn, so that it strikes as often as they do.
    pub(super) weight: usize,
}

impl CrashPoint {
    /// With another weight.
    const fn times(self, weight: usize) -> Self {
        Self { weight, ..self }
    }
}

/// How often a crash point is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// Some times a second.
    Often,
    /// A few times in a run.
    Rarely,
    /// Only when somebody was away for so long that a snapshot of the region must be sent.
    AfterAbsence,
    /// The same of the directory, which has an entry now and then.
    AfterLongAbsence,
}

impl Met {
    /// Whether somebody must have been away.
    pub(super) fn needs_absence(self) -> bool {
        matches!(self, Self::AfterAbsence | Self::AfterLongAbsence)
    }
}

const NODES: &[Role] = &[Role::Owner, Role::Follower];
const OWNER: &[Role] = &[Role::Owner];
const FOLLOWER: &[Role] = &[Role::Follower];
const EDGE: &[Role] = &[Role::Edge];

const fn often(name: &'static str, roles: &'static [Role]) -> CrashPoint {
    CrashPoint { name, roles, met: Met::Often, weight: 1 }
}

const fn rarely(name: &'static str, roles: &'static [Role]) -> CrashPoint {
    CrashPoint { name, roles, met: Met::Rarely, weight: 1 }
}

const fn after_absence(name: &'static str, roles: &'static [Role]) -> CrashPoint {
    CrashPoint { name, roles, met: Met::AfterAbsence, weight: 4 }
}

const fn after_long_absence(name: &'static str, roles: &'static [Role]) -> CrashPoint {
    CrashPoint { name, roles, met: Met::AfterLongAbsence, weight: 18 }
}

/// Every crash point.
pub(super) const POINTS: &[CrashPoint] = &[
    // The way of a command.
    often("edge.before_uplink", EDGE),
    often("edge.uplink_sent", EDGE),
    // A stream's end is heard by a node after it has lost the region as well, but a tick is its owner's.
    often("region.inputs_heard", OWNER),
    often("region.tick_built", OWNER),
    often("raft.append_submitted", NODES),
    often("log.before_write", NODES),
    often("log.written", NODES),
    often("log.synced", NODES),
    often("raft.applied", NODES),
    often("region.applied", NODES),
    often("region.reply_kept", NODES),
    often("region.before_publish", OWNER),
    often("region.published", OWNER),
    often("edge.batch_heard", EDGE),
    often("edge.before_frame", EDGE),
    // Signing in, attaching, leaving.
    rarely("edge.before_sign_in", EDGE).times(2),
    rarely("edge.signed_in", EDGE).times(2),
    rarely("edge.attach", EDGE),
    rarely("edge.attached", EDGE),
    rarely("edge.before_welcome", EDGE),
    rarely("edge.detach", EDGE),
    rarely("edge.owner_gone", EDGE).times(2),
    rarely("region.attached", NODES),
    rarely("directory.before_apply", NODES),
    rarely("directory.before_store", NODES),
    rarely("directory.stored", NODES),
    rarely("pump.before_deliver", NODES),
    rarely("region.messages_heard", OWNER),
    rarely("pump.before_trim", NODES),
    // Elections.
    rarely("raft.vote_saved", NODES).times(2),
    // The log's segments.
    rarely("log.segment_rolled", NODES),
    rarely("log.copy_forward", NODES).times(4),
    rarely("log.before_delete", NODES).times(4),
    // Checkpoints, and the keyed store.
    rarely("raft.persist", NODES),
    rarely("region.checkpoint_encoded", NODES),
    rarely("checkpoint.written", NODES),
    rarely("checkpoint.synced", NODES),
    rarely("checkpoint.renamed", NODES),
    rarely("checkpoint.durable", NODES),
    rarely("raft.persisted", NODES),
    rarely("region.cut", NODES),
    rarely("keyed.before_apply", NODES),
    rarely("keyed.applied", NODES),
    rarely("keyed.persisted", NODES),
    // A snapshot for whoever was away for too long: of the region its owner sends it; the directory's leader may be anyone.
    after_absence("raft.snapshot_begun", NODES),
    after_absence("raft.chunk_sent", NODES),
    after_absence("raft.chunk_received", FOLLOWER),
    after_absence("raft.snapshot_received", FOLLOWER),
    after_absence("raft.install", FOLLOWER),
    after_absence("region.snapshot_durable", FOLLOWER),
    after_absence("raft.installed", FOLLOWER),
    after_long_absence("directory.before_install", FOLLOWER),
    after_long_absence("keyed.filled", FOLLOWER).times(24),
    after_long_absence("keyed.switched", FOLLOWER),
    after_long_absence("directory.installed", FOLLOWER),
];

/// Points that are met where characters go from region to region.
pub(in crate::scenario) const BORDER_POINTS: &[CrashPoint] = &[
    rarely("region.handed_off", NODES).times(3),
    rarely("region.took_over", NODES).times(3),
    rarely("edge.moved", EDGE).times(2),
    often("pump.before_deliver", NODES),
    often("pump.before_trim", NODES),
    often("region.messages_heard", OWNER),
    often("log.written", NODES),
    often("region.applied", NODES),
    often("region.before_publish", OWNER),
    often("region.published", OWNER),
    rarely("raft.vote_saved", NODES).times(2),
    rarely("region.checkpoint_encoded", NODES),
    rarely("checkpoint.renamed", NODES),
    after_absence("raft.install", FOLLOWER),
];

/// Points that are met where regions fall asleep and wake, and their groups rest.
pub(in crate::scenario) const SLEEP_POINTS: &[CrashPoint] = &[
    rarely("region.fell_asleep", NODES).times(3),
    rarely("raft.before_rest", OWNER).times(3),
    rarely("raft.rests", NODES).times(3),
    rarely("raft.wakes", NODES).times(3),
    rarely("region.handed_off", NODES),
    rarely("region.took_over", NODES),
    often("region.applied", NODES),
    often("log.written", NODES),
    often("region.before_publish", OWNER),
    rarely("pump.before_deliver", NODES),
    rarely("pump.before_trim", NODES),
    rarely("raft.vote_saved", NODES),
    rarely("region.checkpoint_encoded", NODES),
    after_absence("raft.install", FOLLOWER),
];

/// Points that nobody meets in this scenario once players are in the world: a node's folder is made when it first starts.
#[cfg(test)]
const BEFORE: [&str; 2] = ["folder.before_save", "folder.moving"];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Names in `point!("…")` of every source file below a folder.
    fn collect(folder: &Path, names: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("the workspace's folders can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                let skipped = ["target", ".git", "node_modules", "simulation"];
                if !skipped.iter().any(|name| path.ends_with(name)) {
                    collect(&path, names);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("UTF-8");
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                for line in code {
                    let mut rest = line;
                    while let Some((_, after)) = rest.split_once("point!(\"") {
                        let (name, end) = after.split_once('"').expect("a name ends");
                        names.insert(name.to_owned());
                        rest = end;
                    }
                }
            }
        }
    }

    #[test]
    fn the_list_names_the_points_of_the_code_and_no_others() {
        let mut found = BTreeSet::new();
        collect(Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace"), &mut found);
        let standard: BTreeSet<&str> = POINTS.iter().map(|point| point.name).chain(BEFORE).collect();
        assert_eq!(POINTS.len() + BEFORE.len(), standard.len(), "a name is listed twice");
        let borders = BORDER_POINTS.iter().map(|point| point.name);
        let sleep = SLEEP_POINTS.iter().map(|point| point.name);
        assert_eq!(found, standard.into_iter().chain(borders).chain(sleep).map(str::to_owned).collect());
    }
}
