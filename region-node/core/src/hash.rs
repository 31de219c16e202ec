//! The state hash's own function: 64 bits, eight bytes at a time, the same on every machine and in every build.
//!
//! It finds replicas that differ by accident. It is no defence against someone who constructs collisions.

const FIRST: u64 = 0x9e37_79b9_7f4a_7c15;
const SECOND: u64 = 0xd1b5_4a32_d192_ed03;
const THIRD: u64 = 0xaef1_7502_b3a1_cf51;

/// High and low half of a product, folded: every input bit reaches every output bit.
#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = (a as u128).wrapping_mul(b as u128);
    (product as u64) ^ ((product >> 64) as u64)
}

/// Combines two values; the order matters.
#[inline]
#[must_use]
pub const fn mix(a: u64, b: u64) -> u64 {
    fold(a ^ FIRST, b.wrapping_add(SECOND) ^ a.rotate_left(23))
}

/// Hash of `bytes` under `seed`.
#[inline]
#[must_use]
pub fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = mix(seed, bytes.len() as u64);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let word = u64::from_le_bytes(word.try_into().expect("chunks of eight"));
        state = fold(state ^ word, THIRD).wrapping_add(FIRST);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        state = fold(state ^ u64::from_le_bytes(word), THIRD).wrapping_add(FIRST);
    }
    mix(state, SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn is_the_same_for_ever() {
        // Hashes travel between builds of one version; a change of the function needs a new format.
        assert_eq!(hash(0, b""), hash(0, b""));
        assert_ne!(hash(0, b"marchland"), hash(1, b"marchland"));
        assert_ne!(mix(1, 2), mix(2, 1));
    }

    #[test]
    fn near_inputs_do_not_collide() {
        let mut seen = BTreeSet::new();
        for len in 0..64 {
            for bit in 0..len * 8 {
                let mut bytes = vec![0; len];
                bytes[bit / 8] |= 1 << (bit % 8);
                assert!(seen.insert(hash(7, &bytes)), "length {len}, bit {bit}");
            }
            assert!(seen.insert(hash(7, &vec![0; len])), "zeros of length {len}");
        }
    }
}
