//! Regions show each other what stands near their borders: from this node's owners to those of their neighbours.
//!
//! Outside of the channels: nothing waits for an answer, nothing is sent again. What is lost or late is stood in for by the next showing, a
//! tenth of a second later. One message goes to each node at a time, with what all regions here show to all regions there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use marchland_proto::cluster::regions_client::RegionsClient;
use marchland_proto::cluster::{GhostAnswer, GhostPost, GhostRequest};
use marchland_proto::net::{ClusterClient, Transport};
use marchland_raft::RaftNode;
use marchland_region::{GhostPosts, RegionsService};
use marchland_router::Peers;
use marchland_types::{GroupId, NodeId, ReplicaId};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long showings are gathered: the regions of a node tick at different moments.
const GATHER: Duration = Duration::from_millis(10);
/// How long a node may take to answer. By then two newer showings wait.
const SHOW_WITHIN: Duration = Duration::from_millis(250);

/// Sends what this node's regions show.
pub(super) struct Neighbours<T> {
    pub(super) raft: RaftNode,
    pub(super) regions: RegionsService,
    pub(super) peers: Peers<T>,
    pub(super) members: BTreeMap<NodeId, String>,
    pub(super) posts: GhostPosts,
}

impl<T: Transport> Neighbours<T> {
    /// Runs until it is dropped.
    pub(super) async fn run(self) {
        let this = Arc::new(self);
        // Who owns a group that has no replica here, as others said.
        let mut told: BTreeMap<GroupId, NodeId> = BTreeMap::new();
        // By node: a message is under way.
        let mut under_way: JoinSet<(NodeId, Option<GhostAnswer>)> = JoinSet::new();
        let mut busy: BTreeSet<NodeId> = BTreeSet::new();
        loop {
            tokio::select! {
                () = this.posts.some() => {}
                Some(ended) = under_way.join_next(), if !under_way.is_empty() => {
                    // One that panicked has said so; its node is shown no more until this one restarts.
                    let Ok((node, answer)) = ended else { continue };
                    busy.remove(&node);
                    for owner in answer.into_iter().flat_map(|answer| answer.elsewhere) {
                        told.remove(&GroupId(owner.group));
                        if owner.leader != 0 {
                            told.insert(GroupId(owner.group), ReplicaId(owner.leader).node());
                        }
                    }
                    continue;
                }
            }
            sleep(GATHER).await;
            let mut by_node: BTreeMap<NodeId, Vec<GhostPost>> = BTreeMap::new();
            for post in this.posts.take() {
                if let Some(node) = this.show_here(&post, &told) {
                    by_node.entry(node).or_default().push(post);
                }
            }
            for (node, posts) in by_node {
                let Some(address) = this.members.get(&node) else { continue };
                // A node that has not answered yet is shown the next ones.
                if busy.contains(&node) {
                    continue;
                }
                busy.insert(node);
                let (this, address) = (this.clone(), address.clone());
                under_way.spawn(async move { (node, this.send(&address, posts).await) });
            }
        }
    }

    /// Shows it to the owner if that is here; else tells which node to try.
    fn show_here(&self, post: &GhostPost, told: &BTreeMap<GroupId, NodeId>) -> Option<NodeId> {
        let group = GroupId(post.to_group);
        let batch = post.batch.clone()?;
        if let Some(region) = self.regions.region(group) {
            return match region.shown(batch) {
                Ok(()) => None,
                // The raft group knows best; nobody leads at the moment otherwise.
                Err(leader) => {
                    let leads = leader.or_else(|| self.raft.group(group).and_then(|group| group.status().leader));
                    leads.map(ReplicaId::node).filter(|node| *node != self.raft.replica().node())
                }
            };
        }
        told.get(&group).copied().or_else(|| self.members.keys().copied().find(|node| *node != self.raft.replica().node()))
    }

    async fn send(&self, address: &str, posts: Vec<GhostPost>) -> Option<GhostAnswer> {
        let mut client = RegionsClient::over(self.peers.channel(address));
        match timeout(SHOW_WITHIN, client.show_ghosts(GhostRequest { posts })).await {
            Ok(Ok(answer)) => Some(answer.into_inner()),
            Ok(Err(status)) => {
                tracing::debug!(%address, %status, "ghosts were not taken");
                None
            }
            Err(_) => None,
        }
    }
}
