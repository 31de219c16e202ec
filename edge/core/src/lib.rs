//! What an edge decides, without sockets, clocks or tasks.
//!
//! - [`session`]: one connection's life from `Hello` to the end; every output is an [`Effect`].
//! - [`view`]: what is known of one region, in tables by the owner's slots, and which cells are subscribed to.
//! - [`views`]: the regions that are followed ([`Views`]).
//! - [`interest`]: which entities of all of them one client is shown ([`Viewer`]).
//! - [`frame`]: the bytes of one client's frame ([`FrameWriter`]).
//! - [`map`]: the world's regions on its ground ([`RegionMap`]).
//! - [`uplink`]: what goes to a region's owner, gathered into one message.
//!
//! Time is an argument everywhere; randomness is given at construction. Nothing here trusts a length or a number that a
//! client or an owner declares, and nothing grows without a bound that stands beside it.

pub mod frame;
pub mod interest;
pub mod map;
pub mod rate;
pub mod replies;
pub mod session;
#[cfg(test)]
mod test_owner;
pub mod uplink;
pub mod view;
pub mod views;
mod wire;

pub use frame::{FrameWriter, OwnView};
pub use interest::{InterestConfig, Viewer};
pub use map::RegionMap;
pub use session::{Effect, Session, SessionConfig};
pub use uplink::Uplink;
pub use view::{Applied, RegionView};
pub use views::{ViewId, Views};

use sha2::{Digest, Sha256};

/// SHA-256 of a resume secret: what directory and region keep of it.
#[must_use]
pub fn secret_hash(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}
