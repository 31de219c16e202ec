//! The directory of a world: who is called what, where every character is, and who may enter.
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
//! What always holds ([`check`]): a folded name belongs to one character and a character to one account; session epochs
//! and move numbers only grow; a channel's unacknowledged messages are consecutive and within their bound; a retried order
//! gives the same answer; the state hash is the sum over the records.
//!
//! [`apply`] takes committed entries alone. What comes from peers and clients is checked before it is proposed, and again
//! here: an order that can not be carried out is answered with a code and changes nothing.

mod accounts;
mod apply;
mod check;
mod keys;
mod map;
mod names;
mod records;
mod token;
mod txn;

pub use accounts::{ACCOUNT_MAX_BYTES, BadAccount, CHARACTERS_PER_ACCOUNT_MAX, check_account};
pub use apply::{
    ApplyFault, REQUESTS_KEPT, SET_ASIDE_MAX, SIGN_IN_CHANNEL_MESSAGES_MAX, Stop, Transition, apply, check_entry, encode_entry,
};
pub use check::{Violation, check};
pub use keys::{BadKey, Key, RequestDigest};
pub use map::{BadMap, MapRegion, RegionMap, grid};
pub use names::{BadName, FOLDED_NAME_MAX_BYTES, Name};
pub use records::{DIRECTORY_FORMAT, record_hash};
pub use token::{BadToken, SignInToken, TOKEN_MAX_BYTES, TokenSigner, TokenVerifier};
pub use txn::{Lookup, Read};
