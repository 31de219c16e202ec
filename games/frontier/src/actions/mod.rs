//! What players can do, one file each. A refusal's body says why, in a few words of English.

mod drop;
mod gather;
mod inventory;
mod pick_up;
mod say;

pub(crate) use self::drop::drop;
pub(crate) use self::gather::gather;
pub(crate) use self::inventory::inventory;
pub(crate) use self::pick_up::pick_up;
pub(crate) use self::say::say;
