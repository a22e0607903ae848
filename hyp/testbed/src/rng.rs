// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Random numbers that a seed and a case number give back, on any machine.

/// A generator: SplitMix64, which has no bad seeds.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Returns the generator of one case, so that a case can be repeated without those before it.
    #[must_use]
    pub const fn of_case(seed: u64, case: u32) -> Self {
        Self(mix(seed.wrapping_add(0x632b_e59b_d9b4_e019)) ^ mix(case as u64))
    }

    /// Returns 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Returns a number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The bias is below 2^-40 for the small ends used here.
        self.bits() % end
    }

    /// Returns true in `percent` of a hundred cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Returns one of `values`, which is not empty.
    pub fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }
}

const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_cases_repeat_and_differ() {
        assert_eq!(Rng::of_case(1, 7).bits(), Rng::of_case(1, 7).bits());
        assert_ne!(Rng::of_case(1, 7).bits(), Rng::of_case(1, 8).bits());
        assert_ne!(Rng::of_case(1, 7).bits(), Rng::of_case(2, 7).bits());
    }

    #[test]
    fn good_percent_is_near() {
        let mut rng = Rng::of_case(1, 0);
        let hits = (0..10_000).filter(|_| rng.percent(20)).count();
        assert!((1_800..2_200).contains(&hits), "{hits}");
    }
}
