//! Randomness that is part of the state: one small generator per system, seeded from the region's genesis.
//!
//! PCG-XSH-RR 64/32, written out here because its state must be stored, hashed and restored exactly; a test compares it
//! with the `rand_pcg` crate. Nothing in `step` may draw from anywhere else.

use crate::codec::{CodecError, Reader, Writer};
use crate::hash::mix;

/// A generator of the state. Its stream is a function of the region's seed and the system's number alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pcg {
    state: u64,
    increment: u64,
}

const MULTIPLIER: u64 = 6_364_136_223_846_793_005;

impl Pcg {
    /// The generator with this state and stream, as in the reference implementation.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        let increment = (stream << 1) | 1;
        let mut pcg = Self { state: seed.wrapping_add(increment), increment };
        pcg.advance();
        pcg
    }

    /// The generator of `system` in a region that was made with `seed`.
    #[must_use]
    pub fn of_system(seed: u64, system: u32) -> Self {
        Self::new(mix(seed, u64::from(system)), u64::from(system))
    }

    fn advance(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }

    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        let old = self.state;
        self.advance();
        let shifted = (((old >> 18) ^ old) >> 27) as u32;
        shifted.rotate_right((old >> 59) as u32)
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) | (u64::from(self.next_u32()) << 32)
    }

    /// A number from 0 (inclusive) to `bound` (exclusive); 0 for a bound of 0. The bias is below 2⁻³².
    pub fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(self.next_u32()) * u64::from(bound)) >> 32) as u32
    }

    /// A number from 0 (inclusive) to 1 (exclusive), a multiple of 2⁻²⁴.
    pub fn unit(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// A number from `low` (inclusive) to `high`.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    pub(crate) fn put(&self, out: &mut Writer) {
        out.u64(self.state);
        out.u64(self.increment);
    }

    pub(crate) fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (state, increment) = (input.u64()?, input.u64()?);
        if increment & 1 == 0 {
            return Err(CodecError::Invalid("a random stream's increment is even"));
        }
        Ok(Self { state, increment })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng as _;

    #[test]
    fn equals_the_reference() {
        let mut theirs = rand_pcg::Pcg32::new(42, 54);
        let mut ours = Pcg::new(42, 54);
        for _ in 0..1000 {
            assert_eq!(ours.next_u32(), theirs.next_u32());
        }
    }

    #[test]
    fn stays_within_bounds() {
        let mut pcg = Pcg::of_system(1, 2);
        assert_eq!(pcg.below(0), 0);
        for _ in 0..10_000 {
            assert!(pcg.below(7) < 7);
            let unit = pcg.unit();
            assert!((0.0..1.0).contains(&unit));
        }
    }
}
