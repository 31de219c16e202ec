//! What a character may be called, and which names count as the same.
//!
//! The rules lean on Unicode tables, which change with the toolchain. So they are applied once, before an order is proposed;
//! the order carries the folded name, and replicas only compare bytes.

use marchland_types::limits::NAME_MAX_BYTES;

/// Longest folded name: lower case may take more bytes than upper case, at most three times as many.
pub const FOLDED_NAME_MAX_BYTES: usize = 3 * NAME_MAX_BYTES;

/// A character's name: 1 to [`NAME_MAX_BYTES`] bytes, printable, trimmed, words separated by single spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    shown: String,
    folded: String,
}

/// Why a text can not be a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Nothing, or nothing but space.
    #[error("name is empty")]
    Empty,
    /// More than [`NAME_MAX_BYTES`].
    #[error("name of {found} bytes, at most {NAME_MAX_BYTES} are allowed")]
    TooLong {
        /// Bytes found, after trimming.
        found: usize,
    },
    /// A character that is not printed, or that only changes how its neighbours are: control, format, space other than U+0020,
    /// private use, not a character.
    #[error("name contains U+{0:04X}, which names may not have")]
    Character(u32),
    /// Two spaces in a row, which look like one.
    #[error("name contains two spaces in a row")]
    DoubleSpace,
}

impl Name {
    /// Trims and checks a name.
    ///
    /// ```
    /// use marchland_router_core::Name;
    /// let name = Name::parse(" Ásta of Vík ").unwrap();
    /// assert_eq!((name.shown(), name.folded()), ("Ásta of Vík", "ásta of vík"));
    /// assert!(Name::parse("\u{202e}atsÁ").is_err());
    /// ```
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let shown = text.trim();
        if shown.is_empty() {
            return Err(BadName::Empty);
        }
        if shown.len() > NAME_MAX_BYTES {
            return Err(BadName::TooLong { found: shown.len() });
        }
        if let Some(c) = shown.chars().find(|&c| invisible(c)) {
            return Err(BadName::Character(c as u32));
        }
        if shown.contains("  ") {
            return Err(BadName::DoubleSpace);
        }
        // Character by character: the lower case of a whole string depends on the neighbours (final sigma).
        let folded: String = shown.chars().flat_map(char::to_lowercase).collect();
        debug_assert!(folded.len() <= FOLDED_NAME_MAX_BYTES);
        Ok(Self { shown: shown.to_owned(), folded })
    }

    /// As players see it.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// As it is compared: no two characters of a world have the same.
    #[must_use]
    pub fn folded(&self) -> &str {
        &self.folded
    }
}

/// Whether a character has no picture of its own. Combining accents (U+0300–U+036F) count: with them one picture has two
/// spellings, and two spellings would be two names.
fn invisible(c: char) -> bool {
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c as u32,
            0x00AD | 0x0300..=0x036F | 0x061C | 0x115F..=0x1160 | 0x17B4..=0x17B5 | 0x180B..=0x180F
            | 0x200B..=0x200F | 0x202A..=0x202E | 0x2060..=0x206F | 0x2800 | 0x3164 | 0xE000..=0xF8FF
            | 0xFDD0..=0xFDEF | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0 | 0xFFF0..=0xFFFF | 0x1D173..=0x1D17A
            | 0xE0000..=0xE0FFF | 0xF0000..=0x10FFFF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_names_may_not_be() {
        for (text, expected) in [
            ("", BadName::Empty),
            (" \t ", BadName::Empty),
            (&"é".repeat(17), BadName::TooLong { found: 34 }),
            ("a\u{7}b", BadName::Character(7)),
            ("a\u{a0}b", BadName::Character(0xa0)),
            ("a\u{200b}b", BadName::Character(0x200b)),
            ("e\u{301}", BadName::Character(0x301)),
            ("a\u{feff}", BadName::Character(0xfeff)),
            ("a  b", BadName::DoubleSpace),
        ] {
            assert_eq!(Name::parse(text), Err(expected), "{text:?}");
        }
        assert_eq!(Name::parse(&"x".repeat(32)).unwrap().shown().len(), 32);
    }

    #[test]
    fn case_and_outer_space_do_not_make_another_name() {
        let names = ["Ödön", " ödön", "ÖDÖN ", "öDöN"].map(|n| Name::parse(n).unwrap());
        assert!(names.iter().all(|n| n.folded() == names[0].folded()));
        assert_ne!(Name::parse("Odon").unwrap().folded(), names[0].folded());
        assert_ne!(Name::parse("\u{fb00}").unwrap().folded(), Name::parse("FF").unwrap().folded(), "a ligature is a letter");
    }

    proptest! {
        #[test]
        fn folding_is_bounded_and_parsing_what_is_shown_changes_nothing(text in "\\PC{0,40}") {
            if let Ok(name) = Name::parse(&text) {
                prop_assert!(name.folded().len() <= FOLDED_NAME_MAX_BYTES);
                prop_assert_eq!(&Name::parse(name.shown()).unwrap(), &name);
                let upper: String = name.shown().chars().flat_map(char::to_uppercase).collect();
                // Beyond ASCII upper case may be another name: the ligature "ﬀ" becomes "FF".
                if name.shown().is_ascii() {
                    let again = Name::parse(&upper).unwrap();
                    prop_assert_eq!(again.folded(), name.folded());
                }
            }
        }

        #[test]
        fn no_text_breaks_the_rules_of_a_name(text in any::<String>()) {
            if let Ok(name) = Name::parse(&text) {
                prop_assert!(!name.shown().is_empty() && name.shown().len() <= NAME_MAX_BYTES);
                prop_assert!(name.shown().chars().all(|c| !c.is_control()));
                prop_assert_eq!(name.shown().trim(), name.shown());
            }
        }
    }
}
