//! What a node can tell about itself, as the server implements it.
//!
//! Object-safe, so that pages and services need no type parameter for the whole node. Every answer must come in bounded
//! time: callers give up after [`crate::http::RESPOND_WITHIN`] (pages) or their own deadline (gRPC).

use std::future::Future;
use std::pin::Pin;

use marchland_proto::cluster::{
    ChangeMapReply, ChangeMapRequest, InspectReply, MoveOwnerReply, SeedCharactersReply, SeedCharactersRequest, SkipEntryReply,
    StatusReply, TakeCutReply,
};
use marchland_types::{CutNumber, GroupId, LogIndex, NodeId};
use serde::Serialize;

/// An answer that is on its way.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A sign-in token for the browser client, with what it needs to use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MintedToken {
    /// The signed token.
    pub token: String,
    /// Name of the world that it is for.
    pub world: String,
    /// Where to connect, `ws://host:port` or `wss://host:port`.
    pub ws: String,
}

/// Where another node of the cluster shows its pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberPages {
    /// Its number.
    pub node: u32,
    /// `http://host:port`, without a path.
    pub http: String,
}

/// One node, as far as operators may look into it.
pub trait AdminBackend: Send + Sync + 'static {
    /// The node and every replica on it.
    fn status(&self) -> Answer<'_, StatusReply>;

    /// Commits a cut in `group`, which this node must own; number 0 is the next one. A group that has taken this number or a
    /// higher one already answers with the highest. The reply's code is a [`marchland_proto::codes::Code`].
    fn take_cut(&self, group: GroupId, number: CutNumber) -> Answer<'_, TakeCutReply>;

    /// What this node's replica of `group` looked like at `cut`; cut 0 is now.
    fn inspect(&self, group: GroupId, cut: CutNumber) -> Answer<'_, InspectReply>;

    /// Has a region that halts at entry `index` go on without it; this node must lead its group. Answered when the region went on here.
    /// The reply's code is a [`marchland_proto::codes::Code`].
    fn skip_entry(&self, group: GroupId, index: LogIndex, reason: &str, actor: &str) -> Answer<'_, SkipEntryReply>;

    /// Hands a region that this node owns to the replica of `node`, or to the one that is furthest. Answered when that one leads.
    /// The reply's code is a [`marchland_proto::codes::Code`].
    fn move_owner(&self, group: GroupId, node: Option<NodeId>) -> Answer<'_, MoveOwnerReply>;

    /// Does a part of making many characters: names them in a directory, or makes them in a vault, that this node leads.
    /// The reply's code is a [`marchland_proto::codes::Code`].
    fn seed(&self, request: SeedCharactersRequest) -> Answer<'_, SeedCharactersReply>;

    /// Tells the region map (map epoch 0), or gives the regions of a world other rectangles; this node must lead the directory. The same
    /// order again changes nothing. The reply's code is a [`marchland_proto::codes::Code`].
    fn change_map(&self, request: ChangeMapRequest) -> Answer<'_, ChangeMapReply>;

    /// Whether the node serves players; otherwise why not.
    fn ready(&self) -> Result<(), String>;

    /// Every metric, in the text format of Prometheus.
    fn metrics_text(&self) -> String;

    /// The world's ground for the browser client, as JSON.
    fn map_json(&self) -> String;

    /// Signs a token for `account`. `None` unless this is a development cluster.
    fn mint_token(&self, account: &str) -> Option<MintedToken>;

    /// Pages of every node that is known, this one included, so that one dashboard shows all. May be empty.
    fn members(&self) -> Vec<MemberPages>;
}
