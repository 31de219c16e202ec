//! What went wrong with the rules, as part of the state: what was set aside because its handler panicked or its entry was skipped, and
//! which entries were skipped.
//!
//! Bounded: what is set aside is kept to be looked at, so the newest is kept and the oldest goes, counted. Every replica has the same.

use std::collections::VecDeque;
use std::sync::Arc;

use marchland_proto::storage::{DeadLetter, SkippedEntry, Troubles, dead_letter};
use prost::Message;

use crate::codec::CodecError;
use crate::hash::{hash, mix};

/// Messages, orders and timers that are kept.
pub const DEAD_LETTERS_MAX: usize = 64;
/// Bytes of them, encoded: room for the largest messages there are, and small beside a region.
pub const DEAD_LETTERS_MAX_BYTES: usize = 256 * 1024;
/// Skipped entries that are remembered. An order to skip one follows it closely.
pub const SKIPPED_MAX: usize = 64;

/// [`DeadLetter::cause`]: its handler panicked.
pub const CAUSE_PANIC: u32 = 1;
/// [`DeadLetter::cause`]: its entry was skipped.
pub const CAUSE_SKIPPED: u32 = 2;

#[derive(Clone, Debug)]
struct Kept {
    letter: DeadLetter,
    hash: u64,
    bytes: usize,
}

/// What went wrong so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trouble {
    letters: Arc<VecDeque<Kept>>,
    bytes: usize,
    pub(crate) skipped: Arc<VecDeque<SkippedEntry>>,
    /// All that were ever set aside.
    pub(crate) set_aside: u64,
}

impl Trouble {
    pub(crate) fn is_empty(&self) -> bool {
        self.set_aside == 0 && self.letters.is_empty() && self.skipped.is_empty()
    }

    pub(crate) fn set_aside(&mut self, letter: DeadLetter) {
        self.set_aside += 1;
        self.keep(letter);
    }

    fn keep(&mut self, letter: DeadLetter) {
        let encoded = letter.encode_to_vec();
        let kept = Kept { hash: hash(18, &encoded), bytes: encoded.len(), letter };
        self.bytes += kept.bytes;
        let letters = Arc::make_mut(&mut self.letters);
        letters.push_back(kept);
        while letters.len() > DEAD_LETTERS_MAX || (self.bytes > DEAD_LETTERS_MAX_BYTES && letters.len() > 1) {
            let Some(oldest) = letters.pop_front() else { return };
            self.bytes -= oldest.bytes;
        }
    }

    pub(crate) fn skipped(&mut self, entry: SkippedEntry) {
        let skipped = Arc::make_mut(&mut self.skipped);
        skipped.push_back(entry);
        if skipped.len() > SKIPPED_MAX {
            skipped.pop_front();
        }
    }

    pub(crate) fn letters(&self) -> impl Iterator<Item = &DeadLetter> {
        self.letters.iter().map(|kept| &kept.letter)
    }

    /// 0 while there is none, so that a region without trouble has the hash that it always had.
    pub(crate) fn sum(&self, state: u64) -> u64 {
        if self.is_empty() {
            return state;
        }
        let letters = self.letters.iter().fold(mix(state, self.set_aside), |state, kept| mix(state, kept.hash));
        self.skipped.iter().fold(letters, |state, entry| mix(state, hash(19, &entry.encode_to_vec())))
    }

    pub(crate) fn put(&self) -> Troubles {
        Troubles {
            letters: self.letters().cloned().collect(),
            skipped: self.skipped.iter().cloned().collect(),
            set_aside: self.set_aside,
        }
    }

    pub(crate) fn take(stored: Troubles) -> Result<Self, CodecError> {
        if stored.letters.len() > DEAD_LETTERS_MAX || stored.skipped.len() > SKIPPED_MAX {
            return Err(CodecError::Invalid("more is set aside than is kept"));
        }
        let mut trouble = Self { skipped: Arc::new(stored.skipped.into()), set_aside: stored.set_aside, ..Self::default() };
        let count = stored.letters.len();
        stored.letters.into_iter().for_each(|letter| trouble.keep(letter));
        if trouble.letters.len() != count {
            return Err(CodecError::Invalid("what is set aside is larger than what is kept"));
        }
        Ok(trouble)
    }
}

/// What of an entry or message is set aside.
pub(crate) type What = dead_letter::What;

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use marchland_proto::storage::AdminOrder;

    fn letter(index: u64, size: usize) -> DeadLetter {
        let order = AdminOrder { id: index, body: Bytes::from(vec![1; size]), ..AdminOrder::default() };
        DeadLetter { index, tick: index, cause: CAUSE_PANIC, what: Some(What::Order(order)) }
    }

    #[test]
    fn the_newest_are_kept_within_count_and_bytes() {
        let mut trouble = Trouble::default();
        (0..200).for_each(|index| trouble.set_aside(letter(index, 10)));
        assert_eq!((trouble.letters().count(), trouble.set_aside), (DEAD_LETTERS_MAX, 200));
        assert_eq!(trouble.letters().last().unwrap().index, 199);
        (200..210).for_each(|index| trouble.set_aside(letter(index, 60_000)));
        assert!(trouble.bytes <= DEAD_LETTERS_MAX_BYTES && trouble.letters().count() == 4, "{}", trouble.letters().count());
        // One that is larger than all is kept alone.
        trouble.set_aside(letter(300, DEAD_LETTERS_MAX_BYTES));
        assert_eq!(trouble.letters().map(|letter| letter.index).collect::<Vec<_>>(), [300]);
        let copy = Trouble::take(trouble.put()).unwrap();
        assert_eq!((copy.sum(1), copy.put()), (trouble.sum(1), trouble.put()));
    }

    #[test]
    fn no_trouble_leaves_the_hash_alone() {
        assert_eq!(Trouble::default().sum(42), 42);
        let mut trouble = Trouble::default();
        trouble.skipped(SkippedEntry { index: 1, ..SkippedEntry::default() });
        assert_ne!(trouble.sum(42), 42);
    }

    #[test]
    fn more_than_is_kept_is_refused() {
        let letters = vec![letter(1, 1); DEAD_LETTERS_MAX + 1];
        assert!(Trouble::take(Troubles { letters, ..Troubles::default() }).is_err());
        let letters = vec![letter(1, DEAD_LETTERS_MAX_BYTES / 2); 3];
        assert!(Trouble::take(Troubles { letters, ..Troubles::default() }).is_err());
    }
}
