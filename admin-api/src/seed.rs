//! `marchland admin character seed`: many characters at once, dormant in their vaults, for tests of size.
//!
//! The directory names them first, a thousand at a time, for it gives out ids; then every vault makes those that are its own. Each part may
//! be given again, and is, until it is done: a leader that changes meanwhile costs a repetition.

use futures::future::try_join_all;
use marchland_proto::cluster::{SeedCharactersReply, SeedCharactersRequest};
use marchland_proto::codes::Code;
use marchland_types::{GroupId, GroupKind};
use serde::Serialize;
use std::time::Duration;

use crate::client::{AdminCluster, CallError};

/// Characters of one part.
const PART: u32 = 1_000;
/// How often a part is given before that is an error: as long as an election takes, and then some.
const ATTEMPTS: usize = 40;
const PAUSE: Duration = Duration::from_millis(250);

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seeded {
    /// Id of the first one.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// Character n is called this, with n behind it; so is its account.
    pub prefix: String,
}

/// Why not all were made. Those that were stay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeedError {
    /// No node that answers knows a directory with vaults.
    #[error("no node that answers has a directory and vaults")]
    NoVaults,
    /// A group refuses.
    #[error("{group} refuses after {made} characters: {reason}")]
    Refused {
        /// Which.
        group: GroupId,
        /// How many were made before.
        made: u64,
        /// Why.
        reason: String,
    },
    /// A group did not do its part in time.
    #[error("{group} has no leader that answers: {reason}")]
    NoLeader {
        /// Which.
        group: GroupId,
        /// What was heard last.
        reason: String,
    },
}

/// Makes `count` characters, and tells how many there are after each part.
pub async fn seed(cluster: &AdminCluster, count: u64, prefix: &str, mut made: impl FnMut(u64)) -> Result<Seeded, SeedError> {
    let (directory, vaults) = groups(cluster).await.ok_or(SeedError::NoVaults)?;
    // Nobody has this id: the directory says which is the next one.
    let (mut first, mut done) = (0, 0);
    let mut begin = None;
    while done < count {
        let part = u64::from(PART).min(count - done) as u32;
        let request = SeedCharactersRequest {
            group: directory.0,
            first,
            count: part,
            prefix: prefix.to_owned(),
            vaults: vaults.len() as u32,
        };
        let reply = give(cluster, &request).await?;
        match Code::from_u32(reply.code) {
            Some(Code::Ok) => {}
            // It says with which id to begin.
            Some(Code::Refused) if reply.next_character > first && begin.is_none() => {
                first = reply.next_character;
                continue;
            }
            _ => return Err(SeedError::Refused { group: directory, made: done, reason: reply.reason }),
        }
        begin.get_or_insert(first);
        let parts = vaults.iter().map(async |vault| {
            let reply = give(cluster, &SeedCharactersRequest { group: vault.0, ..request.clone() }).await?;
            match Code::from_u32(reply.code) {
                Some(Code::Ok) => Ok(()),
                _ => Err(SeedError::Refused { group: *vault, made: done, reason: reply.reason }),
            }
        });
        try_join_all(parts).await?;
        done += u64::from(part);
        first += u64::from(part);
        made(done);
    }
    Ok(Seeded { first: begin.unwrap_or(first), count: done, prefix: prefix.to_owned() })
}

/// The directory and the vaults, as any node knows them.
async fn groups(cluster: &AdminCluster) -> Option<(GroupId, Vec<GroupId>)> {
    for node in &cluster.nodes {
        let Ok(status) = node.status().await else { continue };
        let all = || status.groups.iter().map(|group| GroupId(group.group));
        let of = |kind| all().filter(move |group| group.kind() == Some(kind));
        let vaults: Vec<_> = of(GroupKind::Vault).collect();
        if let (Some(directory), false) = (of(GroupKind::Directory).next(), vaults.is_empty()) {
            return Some((directory, vaults));
        }
    }
    None
}

/// Gives a part to whoever leads its group; the reply is that one's.
async fn give(cluster: &AdminCluster, request: &SeedCharactersRequest) -> Result<SeedCharactersReply, SeedError> {
    let mut reason = "nobody was asked".to_owned();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        for node in &cluster.nodes {
            match node.seed(request.clone()).await {
                Ok(reply) => match Code::from_u32(reply.code) {
                    Some(Code::NotLeader | Code::Unavailable) => reason = reply.reason,
                    _ => return Ok(reply),
                },
                Err(error @ CallError::Refused { .. }) => {
                    return Err(SeedError::NoLeader { group: GroupId(request.group), reason: error.to_string() });
                }
                Err(error) => reason = error.to_string(),
            }
        }
    }
    Err(SeedError::NoLeader { group: GroupId(request.group), reason })
}
