//! One number from which everything random in a run follows.
//!
//! Every part draws from a stream of its own, named by a text: a part that draws more often, or is removed while a failing
//! plan is being shrunk, does not shift what the others see.

use std::fmt;

use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

/// The seed of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seed(pub u64);

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Seed {
    /// The stream of random numbers with this name.
    #[must_use]
    pub fn stream(self, name: &str) -> Pcg64Mcg {
        Pcg64Mcg::seed_from_u64(self.number(name))
    }

    /// One random number for this name.
    #[must_use]
    pub fn number(self, name: &str) -> u64 {
        // FNV-1a of the name over the seed. The generator's own seeding mixes the rest.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for byte in name.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        hash ^ (hash >> 29)
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;

    #[test]
    fn streams_repeat_and_do_not_resemble_each_other() {
        let draw = |seed: u64, name: &str| Seed(seed).stream(name).random::<u64>();
        assert_eq!(draw(1, "disk n1"), draw(1, "disk n1"));
        assert_ne!(draw(1, "disk n1"), draw(1, "disk n2"));
        assert_ne!(draw(1, "disk n1"), draw(2, "disk n1"));
    }
}
