//! The directory and the vaults of a world as they run, and the realm that all worlds share: keyed raft groups, their services,
//! the clients of directory and realm, and the pump that delivers channels between groups.
//!
//! ```text
//! new folder ────────────────▶ DirectoryService ── RealmClient ─▶ RealmSlot ─▶ RealmService ─▶ the same
//! edge ── DirectoryClient ──▶ Directories ─▶ DirectoryService ─▶ Group::propose ─▶ raft ─▶ KeyedMachine ─▶ KeyedStore
//!         PeerDelivery ────▶ Vaults ─────▶ VaultService ──────┘                             │ posted
//!         region's owner  ◀── PeerDelivery ◀── ChannelPump (only while this replica leads) ◀┘
//! ```
//!
//! What always holds:
//!
//! - Whatever an entry changes is written in one batch with the position of the entry: a crash leaves the state of some
//!   entry, whole.
//! - A sign-in is answered from committed state. One whose outcome is unknown is tried again with the same request id, here
//!   and by the client, and takes effect once.
//! - Where a character is, is read after a barrier; the map may be older than the newest, and carries its epoch.
//! - An incarnation is issued by the realm, and recorded by the node's directory before anybody is told. A node whose data folder was lost has a new incarnation, and whoever leads a group puts the new replica into the place of
//!   the old one.
//!
//! - What a vault held at a cut is told exactly, while entries go on being applied.
//!
//! The pump knows nothing of directories: regions deliver with it, too.

mod asking;
mod client;
mod delivery;
mod directory;
mod group;
mod inspect;
mod issuer;
mod machine;
mod members;
mod options;
mod orders;
mod outbox;
mod peers;
mod pump;
mod realm;
mod realm_client;
mod realm_service;
mod realm_told;
mod records;
mod registry;
mod server;
mod service;
mod snapshot;
mod vault;
mod vault_service;
mod vaults;
mod view;

pub use client::{DirectoryClient, DirectoryError};
pub use delivery::{Deliver, DeliverError, PeerDelivery, Routes};
pub use directory::{Directory, OpenDirectoryError};
pub use group::KeyedGroup;
pub use inspect::Audited;
pub use issuer::Issuer;
pub use machine::KeyedMachine;
pub use marchland_router_core as core;
pub use members::keep_members;
pub use options::{BadOptions, ClientOptions, DirectoryOptions, PumpOptions};
pub use orders::OrderError;
pub use outbox::{KeyedOutbox, KeyedService};
pub use peers::Peers;
pub use pump::{ChannelPump, Outbox, OutboxError};
pub use realm::Realm;
pub use realm_client::{RealmClient, RealmError};
pub use realm_service::{RealmService, RealmSlot};
pub use realm_told::keep_realm_told;
pub use records::{ReadError, Records};
pub use registry::Registry;
pub use server::Directories;
pub use service::DirectoryService;
pub use vault::Vault;
pub use vault_service::VaultService;
pub use vaults::Vaults;
pub use view::{DirectoryView, RealmView};
