//! What operators and scripts see of a cluster: the admin service, the pages of a node, and the command line's side of both.
//!
//! - [`AdminBackend`]: what a node can tell about itself. The server implements it; everything here is built on it alone.
//! - [`AdminService`]: the gRPC service. Callers prove the role `admin` by certificate and carry the token.
//! - [`http`]: health, metrics, dashboard and the browser client. GET only, bounded, tells nothing secret.
//! - [`client`]: asks the nodes of a cluster, as operators' tools do.
//! - [`verify`]: whether replicas agree and no item is missing or doubled; [`verify::judge`] is pure.
//! - [`command`]: arguments and output of `marchland verify` and `marchland admin`.
//! - [`seed`]: many characters at once.
//! - [`map`]: which ground each region has, and how borders are moved.
//!
//! Nothing in this crate changes a region: cuts, and orders to skip an entry, are all that it asks its group to commit. Who owns a region
//! is changed by the group itself, which is asked to; what ground it has, by the directory.

mod backend;
pub mod client;
pub mod command;
pub mod http;
pub mod leader;
pub mod map;
pub mod relocate;
pub mod seed;
mod service;
pub mod skip;
pub mod status;
mod token;
pub mod verify;

pub use backend::{AdminBackend, Answer, MemberPages, MintedToken};
pub use service::AdminService;
pub use token::AdminToken;
