//! The keyed groups: a world's directory (who is called what, where every character is, and who may enter) and its vaults
//! (characters that are logged out), and the realm of the whole deployment (its worlds, and the incarnations of its nodes).
//!
//! Pure: no clock, entropy, files or tasks. The state is a set of keyed records ([`Key`]), far too many for memory, so a
//! transition reads them through [`Read`] and gives back the writes. A record that is not at hand stops the transition with
//! [`Stop::Missing`]; the caller fetches it and runs the transition again, which is the same computation with more known:
//!
//! ```text
//! caller                                    apply
//!   entry, {}                 ───────────▶  reads counters, world      ─▶ Missing [counters, world]
//!   entry, {counters, world}  ───────────▶  reads name, account        ─▶ Missing [name, account]
//!   entry, {… name, account}  ───────────▶  …                          ─▶ Transition { writes, answer, posted }
//! ```
//!
//! What always holds of a directory ([`check`]): a folded name belongs to one character and a character to one account; session epochs
//! and move numbers only grow; a channel's unacknowledged messages are consecutive and within their bound; a retried order
//! gives the same answer; the state hash is the sum over the records.
//!
//! And of a vault ([`check_vault`]): a character that is kept has no stub; a record that came in is kept, set aside, or in a
//! channel to a region.
//!
//! And of the realm ([`check_realm`]): no incarnation of a node belongs to two folders; a node belongs to one world, and each world
//! has a name of its own and the plan of its directory.
//!
//! [`apply`], [`apply_vault`] and [`apply_realm`] take committed entries alone. What comes from peers and clients is checked before it is proposed, and again
//! here: an order that can not be carried out is answered with a code and changes nothing.

mod accounts;
mod check;
mod directory;
mod group;
mod keys;
mod map;
#[cfg(test)]
mod model;
mod names;
mod realm;
mod records;
#[cfg(test)]
mod testing;
mod token;
mod txn;
mod vault;

pub use accounts::{ACCOUNT_MAX_BYTES, BadAccount, CHARACTERS_PER_ACCOUNT_MAX, check_account};
pub use check::{Violation, check, check_realm, check_vault};
pub use directory::{REQUESTS_KEPT, SEED_COUNT_MAX, SIGN_IN_CHANNEL_MESSAGES_MAX, VAULTS_MAX, apply, check_entry, encode_entry};
pub use group::inbox::SET_ASIDE_MAX;
pub use group::{ApplyFault, Stop, Transition};
pub use keys::{BadKey, Key, RequestDigest};
pub use map::{BadChange, BadMap, MapRegion, NEIGHBOURS_WITHIN_M, RegionMap, grid};
pub use names::{BadName, FOLDED_NAME_MAX_BYTES, Name};
pub use realm::{WORLD_NODES_MAX, apply_realm, encode_realm_entry};
pub use records::{KEYED_FORMAT, record_hash};
pub use token::{BadToken, SignInToken, TOKEN_MAX_BYTES, TokenSigner, TokenVerifier};
pub use txn::{Lookup, Read};
pub use vault::{UNDO_MAX, VaultAtCut, apply_vault, encode_vault_entry, taken_at};
