//! What an account may be called, and how many characters it may have.

/// Longest name of an account, in bytes of UTF-8. Long enough for an address or another system's id.
pub const ACCOUNT_MAX_BYTES: usize = 64;
/// Characters of one account in one world. Bounds the account's record, and what one token holder can claim of the names.
pub const CHARACTERS_PER_ACCOUNT_MAX: usize = 32;

/// Why a text can not be an account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAccount {
    /// Empty, or more than [`ACCOUNT_MAX_BYTES`].
    #[error("account of {found} bytes, 1 to {ACCOUNT_MAX_BYTES} expected")]
    Length {
        /// Bytes found.
        found: usize,
    },
    /// A control character.
    #[error("account contains the control character U+{0:04X}")]
    Control(u32),
}

/// Refuses what can not be an account. Accounts are compared byte for byte.
pub fn check_account(account: &str) -> Result<(), BadAccount> {
    if account.is_empty() || account.len() > ACCOUNT_MAX_BYTES {
        return Err(BadAccount::Length { found: account.len() });
    }
    match account.chars().find(|c| c.is_control()) {
        Some(c) => Err(BadAccount::Control(c as u32)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_control_characters_are_checked() {
        assert_eq!(check_account("anna@example.org"), Ok(()));
        assert_eq!(check_account(""), Err(BadAccount::Length { found: 0 }));
        assert_eq!(check_account(&"x".repeat(65)), Err(BadAccount::Length { found: 65 }));
        assert_eq!(check_account("a\nb"), Err(BadAccount::Control(10)));
    }
}
