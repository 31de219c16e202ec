//! Questions to the world's directory: sign-in, and where a character is.
//!
//! Any node is asked; one that does not lead names the leader. A call whose outcome is unknown is made again with the same
//! request id until the deadline, which answers the same. The map is kept, so that resuming needs no directory as long as the
//! world has one region; it is asked for again when somebody names a region that is not on it, or goes by
//! a newer one.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use marchland_edge_core::map::MapRegion;
use marchland_edge_core::session::{Located, SignInRefused, Whereabouts};
use marchland_proto::cluster::directory_client::DirectoryClient;
use marchland_proto::cluster::{LocateReply, LocateRequest, SignInReply, SignInRequest};
use marchland_proto::codes::Code;
use marchland_proto::net::{ClusterClient, Transport};
use marchland_proto::storage::SignInAnswer;
use marchland_types::limits::JOIN_DEADLINE_MS;
use marchland_types::seam::{Clock, Entropy};
use marchland_types::{CharacterId, GroupId, GroupKind, NodeId, RegionId, ReplicaId};
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Channel;

use crate::worker::Worker;

/// One attempt. Longer than a commit, shorter than an election.
const ATTEMPT: Duration = Duration::from_millis(1_500);
/// Pause before the next node is asked.
const PAUSE: Duration = Duration::from_millis(50);
/// Pause before the map is asked for again.
const MAP_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause, when it was asked for again and again and said nothing new.
const MAP_PAUSE_MAX: Duration = Duration::from_secs(8);

/// What a directory's answer says about asking on.
trait Answer {
    fn code(&self) -> u32;
    fn leader(&self) -> u64;
    /// Why it does not do what was asked, if it says so.
    fn reason(&self) -> &str {
        ""
    }
}

impl Answer for SignInReply {
    fn reason(&self) -> &str {
        &self.reason
    }
    fn code(&self) -> u32 {
        self.code
    }
    fn leader(&self) -> u64 {
        self.leader
    }
}

impl Answer for LocateReply {
    fn code(&self) -> u32 {
        self.code
    }
    fn leader(&self) -> u64 {
        self.leader
    }
}

impl<T: Transport, C: Clock, E: Entropy> Worker<T, C, E> {
    /// Asks nodes in turn until one gives an answer that is not about itself, or nobody wants it any more. Why the leader last
    /// did not do what was asked is left in `told`.
    async fn ask<A: Answer, F: Future<Output = Result<tonic::Response<A>, Status>>>(
        self: &Rc<Self>,
        wanted: impl Fn() -> bool,
        told: &RefCell<String>,
        call: impl Fn(DirectoryClient<Channel>) -> F,
    ) -> Option<A> {
        let first = self.directory_at.get().unwrap_or(self.nodes[0]);
        let mut node = if self.is_reached(first) { first } else { self.next_reached(first) };
        while wanted() {
            let client = DirectoryClient::over(self.channel(node));
            let leader = match tokio::time::timeout(ATTEMPT, call(client)).await {
                Ok(Ok(answer)) => {
                    let answer = answer.into_inner();
                    let code = Code::from_u32(answer.code());
                    if !matches!(code, Some(Code::NotLeader | Code::Unavailable)) {
                        self.directory_at.set(Some(node));
                        return Some(answer);
                    }
                    if code == Some(Code::Unavailable) {
                        answer.reason().clone_into(&mut told.borrow_mut());
                    }
                    ReplicaId(answer.leader()).node()
                }
                Ok(Err(status)) => {
                    tracing::debug!(node = node.0, %status, "directory call failed");
                    NodeId(0)
                }
                Err(_) => NodeId(0),
            };
            if leader != node && self.nodes.contains(&leader) && self.is_reached(leader) {
                node = leader;
                tokio::time::sleep(PAUSE / 10).await;
            } else {
                node = self.next_reached(node);
                tokio::time::sleep(PAUSE).await;
            }
        }
        None
    }

    /// The node after this one to which there is a stream, or else this one; if there is none to any, the one after it.
    fn next_reached(&self, node: NodeId) -> NodeId {
        let at = self.nodes.iter().position(|&other| other == node).unwrap_or(0);
        let others = || (1..=self.nodes.len()).map(|step| self.nodes[(at + step) % self.nodes.len()]);
        others().find(|&other| self.is_reached(other)).or_else(|| others().next()).unwrap_or(node)
    }

    /// Admits a character, within the time that a `Hello` has. Not tried again once the client has gone: it may have come back over
    /// another edge, and a sign-in that is late would end the session that it has there.
    pub(crate) async fn sign_in(
        self: &Rc<Self>,
        request: SignInRequest,
        wanted: impl Fn() -> bool,
    ) -> Result<SignInAnswer, SignInRefused> {
        let told = RefCell::default();
        let asked = self.ask(wanted, &told, |mut client| {
            let request = request.clone();
            async move { client.sign_in(request).await }
        });
        let reply = tokio::time::timeout(Duration::from_millis(JOIN_DEADLINE_MS), asked).await;
        let Ok(Some(SignInReply { code, reason, answer, .. })) = reply else {
            let reason = match told.into_inner() {
                told if told.is_empty() => "the directory does not answer".to_owned(),
                told => format!("the directory takes nobody in at the moment: {told}"),
            };
            return Err(SignInRefused { code: Code::Unavailable as u32, reason });
        };
        match answer {
            Some(answer) if code == Code::Ok as u32 => Ok(answer),
            None if code == Code::Ok as u32 => {
                Err(SignInRefused { code: Code::Internal as u32, reason: "the directory answered without an answer".into() })
            }
            _ => Err(SignInRefused { code, reason }),
        }
    }

    /// Where a character is, by the map if that suffices.
    pub(crate) async fn locate(self: &Rc<Self>, character: CharacterId) -> Whereabouts {
        if let Some(only) = self.only_region() {
            return Whereabouts::At(only);
        }
        let request = LocateRequest { world: self.shared.options.world.0, character: character.0 };
        let told = RefCell::default();
        let asked = self.ask(|| true, &told, |mut client| async move { client.locate(request).await });
        let reply = tokio::time::timeout(Duration::from_millis(JOIN_DEADLINE_MS), asked).await;
        let Ok(Some(reply)) = reply else { return Whereabouts::Unknown };
        let (group, region) = (GroupId(reply.group), RegionId(reply.region));
        // A character that left the world is in a vault.
        if reply.code != Code::Ok as u32 || group.kind() != Some(GroupKind::Region) {
            return Whereabouts::Nowhere;
        }
        self.group_named(group);
        Whereabouts::At(Located { group, region, move_number: reply.move_number, is_only: false })
    }

    /// The region, if the world is known to have exactly one.
    pub(crate) fn only_region(&self) -> Option<Located> {
        let map = self.map.borrow();
        map.only().map(|only| Located { group: only.group, region: only.region, move_number: 0, is_only: true })
    }

    /// Somebody speaks of a group: if it is a region that the map does not have, the map is old.
    pub(crate) fn group_named(&self, group: GroupId) {
        let is_ours = group.kind() == Some(GroupKind::Region) && group.world() == self.shared.options.world;
        if is_ours && self.map.borrow().get(group).is_none() {
            self.map_soon.notify_one();
        }
    }

    /// A region goes by the map of an epoch: if that is newer than the known one, borders have moved.
    pub(crate) fn map_named(&self, epoch: u64) {
        if epoch > self.map.borrow().epoch() {
            self.map_soon.notify_one();
        }
    }

    /// Asks for the map until it is known, and then whenever it proves to be old.
    pub(crate) async fn learn_map(self: Rc<Self>) {
        let mut pause = MAP_PAUSE;
        loop {
            let request = LocateRequest { world: self.shared.options.world.0, character: 0 };
            let (told, asked) = (RefCell::default(), Instant::now());
            let Some(reply) = self.ask(|| true, &told, |mut client| async move { client.locate(request).await }).await else {
                return;
            };
            let regions = reply.map.iter().filter(|region| region.group != 0).map(|region| MapRegion {
                group: GroupId(region.group),
                region: RegionId(region.region),
                min: [region.min_x, region.min_z],
                max: [region.max_x, region.max_z],
            });
            let interest = &self.shared.options.interest;
            let view_m = interest.radius_m + interest.hysteresis_m;
            let is_new = self.map.borrow_mut().learn(reply.map_epoch, regions.collect(), view_m);
            pause = if is_new { MAP_PAUSE } else { (pause * 2).min(MAP_PAUSE_MAX) };
            if self.map.borrow().is_empty() {
                pause = MAP_PAUSE;
            } else {
                self.map_soon.notified().await;
            }
            tokio::time::sleep_until(asked + pause).await;
        }
    }
}
