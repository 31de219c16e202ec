//! Who issues the incarnations of a world's nodes.

use marchland_proto::storage::RealmNode;
use marchland_raft::BoxFuture;
use marchland_types::Incarnation;

use crate::realm_client::RealmError;

/// The realm, as a directory's service asks it.
pub trait Issuer: Send + Sync + 'static {
    /// The incarnation of a folder: the one that it was issued before, or the next. In bounded time.
    fn issue(&self, node: RealmNode) -> BoxFuture<'_, Result<Incarnation, RealmError>>;
}
