//! A checksum of a reply, by which the parent sees that it has not been written over since it was published.
//!
//! Runs in: both ends of a link. It does not protect against malice: a child that lies about its results has the right checksum.
//!
//! A task that writes where it must not may hit a reply that the parent has not taken yet. In a head, this is noticed by
//! what a head has to be; in a payload, it would be a wrong result of another call. The sum is that of a hash table rather
//! than of cryptography: four lanes of multiplication and rotation, with reversible steps only, so that a change of one
//! word is always noticed, and one of many is missed once in 2^32 times. It costs about 0.2 ns a byte on each side.
//!
//! Why the sum is made of what was to be written, and not of what stands in the ring by then: a task may have written
//! over it in between.

use super::frame::HEAD;

/// Where the sum stands in a head.
const PLACE: std::ops::Range<usize> = 28..32;

const START: [u64; 4] = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 0xd6e8_feb8_6659_fd93];

/// Puts the sum of `head` and `payload` into `head`.
pub(crate) fn write(head: &mut [u8; HEAD], payload: &[u8]) {
    head[PLACE].fill(0);
    let sum = sum(head, payload);
    head[PLACE].copy_from_slice(&sum.to_le_bytes());
}

/// Whether `head` holds the sum of both.
pub(crate) fn verify(head: &[u8; HEAD], payload: &[u8]) -> bool {
    let mut expected = *head;
    write(&mut expected, payload);
    expected == *head
}

fn sum(head: &[u8; HEAD], payload: &[u8]) -> u32 {
    let mut lanes = START;
    let mut mix = |block: &[u8; HEAD]| {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
            *lane = (*lane ^ u64::from_le_bytes(*word)).wrapping_mul(START[0]).rotate_left(29);
        }
    };
    mix(head);
    let (blocks, rest) = payload.as_chunks();
    blocks.iter().for_each(&mut mix);
    if !rest.is_empty() {
        let mut last = [0; HEAD];
        last[..rest.len()].copy_from_slice(rest);
        mix(&last);
    }
    let [a, b, c, d] = lanes;
    let folded = (a ^ b.rotate_left(16) ^ c.rotate_left(32) ^ d.rotate_left(48)).wrapping_mul(START[1]);
    (folded >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksummed(payload: &[u8]) -> [u8; HEAD] {
        let mut head = [7; HEAD];
        write(&mut head, payload);
        head
    }

    #[test]
    fn every_single_changed_bit_is_noticed() {
        for len in [0, 1, 31, 32, 33, 200] {
            let payload: Vec<u8> = (0..len).map(|n| u8::try_from(n).unwrap()).collect();
            let head = checksummed(&payload);
            assert!(verify(&head, &payload));
            for bit in 0..8 * HEAD {
                let mut changed = head;
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(!verify(&changed, &payload), "bit {bit} of the head");
            }
            for bit in 0..8 * payload.len() {
                let mut changed = payload.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(!verify(&head, &changed), "bit {bit} of {len} bytes");
            }
        }
    }

    #[test]
    fn garbage_has_hardly_ever_the_right_sum() {
        let mut random = 1u64;
        let head = checksummed(&[0; 64]);
        for _ in 0..if cfg!(miri) { 100 } else { 100_000 } {
            let mut payload = [0u8; 64];
            for word in payload.as_chunks_mut::<8>().0 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                *word = random.to_le_bytes();
            }
            assert!(!verify(&head, &payload));
        }
    }
}
