//! Sign-in tokens: who somebody is, signed for one world, until a moment.
//!
//! A token is compact text, safe in URLs:
//!
//! ```text
//! ml1.BASE64URL                unpadded; of
//!   world       u32 LE
//!   expires_ms  u64 LE         milliseconds since 1970-01-01 UTC; valid before, refused from it on
//!   account     1..=64 bytes   UTF-8, without control characters
//!   signature   64 bytes       Ed25519 over "marchland sign-in token v1\0" and all of the above
//! ```
//!
//! One token has one spelling: text with other trailing bits or padding is refused. Verification is strict (RFC 8032 with
//! small-order keys refused), so a token can not be altered into another that also verifies. There is nothing to revoke:
//! tokens are short-lived, and every sign-in with one raises the session epoch.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use marchland_types::WorldId;

use crate::accounts::{ACCOUNT_MAX_BYTES, BadAccount, check_account};

const PREFIX: &str = "ml1.";
const CONTEXT: &[u8] = b"marchland sign-in token v1\0";
const FIXED_BYTES: usize = 4 + 8;
const SIGNATURE_BYTES: usize = 64;
/// Longest text of a token.
pub const TOKEN_MAX_BYTES: usize = PREFIX.len() + (FIXED_BYTES + ACCOUNT_MAX_BYTES + SIGNATURE_BYTES).div_ceil(3) * 4;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignInToken {
    /// The world it is for.
    pub world: WorldId,
    /// Who holds it.
    pub account: String,
    /// It is refused from this moment on, in milliseconds since 1970-01-01 UTC.
    pub expires_ms: u64,
}

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// Not the text of a token.
    #[error("not a sign-in token: {0}")]
    Malformed(&'static str),
    /// Signed by somebody else, or altered.
    #[error("sign-in token is not signed by this world's key")]
    Signature,
    /// For another world.
    #[error("sign-in token is for world {found}, this is {expected}")]
    OtherWorld {
        /// The token's.
        found: WorldId,
        /// Ours.
        expected: WorldId,
    },
    /// Too old.
    #[error("sign-in token expired {} ms ago", now_ms - expires_ms)]
    Expired {
        /// When it did.
        expires_ms: u64,
        /// What the time is.
        now_ms: u64,
    },
    /// Names an account that can not be.
    #[error(transparent)]
    Account(#[from] BadAccount),
    /// The key is no Ed25519 public key.
    #[error("not an Ed25519 public key")]
    Key,
}

/// Signs tokens. Holds the world's private key.
pub struct TokenSigner {
    key: SigningKey,
}

impl TokenSigner {
    /// The signer with this private key: 32 random bytes.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self { key: SigningKey::from_bytes(seed) }
    }

    /// The public key, as it stands in the world's genesis.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// A token for `account` in `world`.
    pub fn mint(&self, token: &SignInToken) -> Result<String, BadAccount> {
        check_account(&token.account)?;
        let mut bytes = Vec::with_capacity(FIXED_BYTES + token.account.len() + SIGNATURE_BYTES);
        bytes.extend_from_slice(&token.world.0.to_le_bytes());
        bytes.extend_from_slice(&token.expires_ms.to_le_bytes());
        bytes.extend_from_slice(token.account.as_bytes());
        let signature = self.key.sign(&signed(&bytes));
        bytes.extend_from_slice(&signature.to_bytes());
        Ok(format!("{PREFIX}{}", base64url(&bytes)))
    }
}

impl std::fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenSigner(..)")
    }
}

/// Verifies the tokens of one world.
#[derive(Clone, Debug)]
pub struct TokenVerifier {
    key: VerifyingKey,
    world: WorldId,
}

impl TokenVerifier {
    /// For the tokens of `world` that the holder of this public key signs.
    pub fn new(world: WorldId, public_key: &[u8]) -> Result<Self, BadToken> {
        let bytes: &[u8; 32] = public_key.try_into().map_err(|_| BadToken::Key)?;
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| BadToken::Key)?;
        if key.is_weak() {
            return Err(BadToken::Key);
        }
        Ok(Self { key, world })
    }

    /// What a token says, if it is genuine, for this world, and has not expired at `now_ms`.
    pub fn verify(&self, text: &str, now_ms: u64) -> Result<SignInToken, BadToken> {
        if text.len() > TOKEN_MAX_BYTES {
            return Err(BadToken::Malformed("too long"));
        }
        let encoded = text.strip_prefix(PREFIX).ok_or(BadToken::Malformed("does not begin with ml1."))?;
        let bytes = from_base64url(encoded).ok_or(BadToken::Malformed("not base64url"))?;
        let payload_bytes = bytes
            .len()
            .checked_sub(SIGNATURE_BYTES)
            .filter(|&size| size > FIXED_BYTES)
            .ok_or(BadToken::Malformed("too short"))?;
        let (payload, signature) = bytes.split_at(payload_bytes);
        let signature = Signature::from_slice(signature).map_err(|_| BadToken::Signature)?;
        self.key.verify_strict(&signed(payload), &signature).map_err(|_| BadToken::Signature)?;
        // Genuine from here on; the rest tells the holder what is wrong with it.
        let (world, rest) = payload.split_at(4);
        let (expires, account) = rest.split_at(8);
        let world = WorldId(u32::from_le_bytes(world.try_into().map_err(|_| BadToken::Malformed("too short"))?));
        let expires_ms = u64::from_le_bytes(expires.try_into().map_err(|_| BadToken::Malformed("too short"))?);
        let account = std::str::from_utf8(account).map_err(|_| BadToken::Malformed("account is not UTF-8"))?;
        check_account(account)?;
        if world != self.world {
            return Err(BadToken::OtherWorld { found: world, expected: self.world });
        }
        if now_ms >= expires_ms {
            return Err(BadToken::Expired { expires_ms, now_ms });
        }
        Ok(SignInToken { world, account: account.to_owned(), expires_ms })
    }
}

fn signed(payload: &[u8]) -> Vec<u8> {
    [CONTEXT, payload].concat()
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn base64url(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, &b| group << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        for i in 0..=chunk.len() {
            out.push(char::from(ALPHABET[(group >> (18 - 6 * i)) as usize & 63]));
        }
    }
    out
}

/// Inverse of [`base64url`]: `None` for anything that it would not have written.
fn from_base64url(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.as_bytes().chunks(4) {
        let mut group = 0u32;
        for &c in chunk {
            let value = match c {
                b'A'..=b'Z' => c - b'A',
                b'a'..=b'z' => c - b'a' + 26,
                b'0'..=b'9' => c - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return None,
            };
            group = group << 6 | u32::from(value);
        }
        let (size, spare_bits) = match chunk.len() {
            4 => (3, 0),
            3 => (2, 2),
            2 => (1, 4),
            _ => return None,
        };
        if group & ((1 << spare_bits) - 1) != 0 {
            return None;
        }
        let group = group >> spare_bits;
        out.extend_from_slice(&group.to_be_bytes()[4 - size..]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn signer() -> TokenSigner {
        TokenSigner::from_seed(&[7; 32])
    }

    fn token(account: &str) -> SignInToken {
        SignInToken { world: WorldId(3), account: account.into(), expires_ms: 1_000 }
    }

    fn verifier() -> TokenVerifier {
        TokenVerifier::new(WorldId(3), &signer().public_key()).unwrap()
    }

    #[test]
    fn the_text_form_is_stable() {
        // Changing it invalidates every token that was handed out.
        let text = signer().mint(&token("anna")).unwrap();
        assert!(text.starts_with("ml1.AwAAAOgDAAAAAAAAYW5uY"), "{text}");
        assert_eq!(text.len(), 4 + (12usize + 4 + 64).div_ceil(3) * 4 - 1);
        assert!(signer().mint(&token(&"x".repeat(64))).unwrap().len() <= TOKEN_MAX_BYTES);
    }

    #[test]
    fn refusals_name_the_reason() {
        let text = signer().mint(&token("anna")).unwrap();
        assert_eq!(verifier().verify(&text, 999), Ok(token("anna")));
        assert_eq!(verifier().verify(&text, 1_000), Err(BadToken::Expired { expires_ms: 1_000, now_ms: 1_000 }));
        let other_world = TokenVerifier::new(WorldId(4), &signer().public_key()).unwrap();
        assert_eq!(other_world.verify(&text, 0), Err(BadToken::OtherWorld { found: WorldId(3), expected: WorldId(4) }));
        let other_key = TokenVerifier::new(WorldId(3), &TokenSigner::from_seed(&[8; 32]).public_key()).unwrap();
        assert_eq!(other_key.verify(&text, 0), Err(BadToken::Signature));
        assert_eq!(signer().mint(&token("")), Err(BadAccount::Length { found: 0 }));
        for text in ["", "ml1.", "ml2.AAAA", "ml1.A", "ml1.====", &"ml1.A".repeat(100)] {
            assert!(matches!(verifier().verify(text, 0), Err(BadToken::Malformed(_))), "{text:?}");
        }
        assert!(matches!(TokenVerifier::new(WorldId(3), &[0; 31]), Err(BadToken::Key)));
        assert!(matches!(TokenVerifier::new(WorldId(3), &[0; 32]), Err(BadToken::Key)), "a key of small order");
        assert!(!format!("{:?}", signer()).contains('7'));
    }

    proptest! {
        #[test]
        fn base64_round_trips_and_has_one_spelling(bytes in proptest::collection::vec(any::<u8>(), 0..40), text in "[A-Za-z0-9_-]{0,12}") {
            prop_assert_eq!(from_base64url(&base64url(&bytes)), Some(bytes));
            if let Some(bytes) = from_base64url(&text) {
                prop_assert_eq!(base64url(&bytes), text);
            }
        }

        #[test]
        fn any_altered_character_is_refused(account in "[a-z@.]{1,64}", at in any::<prop::sample::Index>(), by in 1u8..=255) {
            let text = signer().mint(&token(&account)).unwrap();
            prop_assert_eq!(verifier().verify(&text, 0).unwrap().account, account);
            let mut bytes = text.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            if let Ok(altered) = String::from_utf8(bytes) {
                prop_assert!(verifier().verify(&altered, 0).is_err(), "{}", altered);
            }
        }

        #[test]
        fn rubbish_is_refused(text in any::<String>()) {
            prop_assert!(verifier().verify(&text, 0).is_err());
        }
    }
}
