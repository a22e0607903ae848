// SPDX-License-Identifier: MIT OR Apache-2.0
//! SHA-256 (FIPS 180-4), by which a page says which style and script are its own. Not for secrets.

/// Square roots of the first primes, as the standard begins with.
const BEGIN: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// Returns 32 bits of the fraction of the cube root of each of the first 64 primes.
fn constants() -> [u32; 64] {
    let mut constants = [0; 64];
    let primes =
        (2_u128..).filter(|number| (2..*number).take_while(|by| by * by <= *number).all(|by| number % by != 0));
    for (constant, prime) in constants.iter_mut().zip(primes) {
        // The cube root of the prime times 2^96 is the root times 2^32.
        let (mut low, mut high) = (0_u128, 1 << 36);
        while low + 1 < high {
            let middle = (low + high) / 2;
            if middle * middle * middle <= prime << 96 {
                low = middle;
            } else {
                high = middle;
            }
        }
        *constant = low as u32;
    }
    constants
}

/// Returns the digest of `bytes`.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let constants = constants();
    let mut padded = bytes.to_vec();
    padded.push(0x80);
    padded.resize((padded.len() + 8).next_multiple_of(64) - 8, 0);
    padded.extend((bytes.len() as u64 * 8).to_be_bytes());
    let mut state = BEGIN;
    for block in padded.chunks_exact(64) {
        let mut words = [0_u32; 64];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = bytes.iter().fold(0, |word, &byte| word << 8 | u32::from(byte));
        }
        for at in 16..64 {
            let (two, fifteen) = (words[at - 2], words[at - 15]);
            let first = fifteen.rotate_right(7) ^ fifteen.rotate_right(18) ^ fifteen >> 3;
            let second = two.rotate_right(17) ^ two.rotate_right(19) ^ two >> 10;
            words[at] = words[at - 16].wrapping_add(first).wrapping_add(words[at - 7]).wrapping_add(second);
        }
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
        for (word, constant) in words.iter().zip(constants) {
            let turned = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
            let chosen = e & f ^ !e & g;
            let one = h.wrapping_add(turned).wrapping_add(chosen).wrapping_add(constant).wrapping_add(*word);
            let turned = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
            let two = turned.wrapping_add(a & b ^ a & c ^ b & c);
            (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(one), c, b, a, one.wrapping_add(two));
        }
        for (word, more) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *word = word.wrapping_add(more);
        }
    }
    let mut digest = [0; 32];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::sha256;

    /// The examples of the standard, and lengths around a block, by `sha256sum`.
    #[test]
    fn digests_are_those_of_the_standard() {
        let hex = |bytes: &[u8]| sha256(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hex(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let alphabet = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(hex(alphabet), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    }
}
