//! One seed for everything random, forked by name. Who draws more never moves what others draw.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// A source of randomness with a name. The same name under the same seed gives the same draws on every machine and in
/// every version of this crate: the mixing below is fixed, not borrowed from a hasher that may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seed(u64);

impl Seed {
    /// The seed of a whole run.
    pub fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number itself, for what takes a plain one.
    pub fn value(self) -> u64 {
        self.0
    }

    /// The seed of the part called `name`.
    #[must_use]
    pub fn fork(&self, name: &str) -> Seed {
        let hash =
            name.bytes().fold(FNV_OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME));
        Seed(mix(self.0 ^ mix(hash)))
    }

    /// The seed of the `index`-th of many equal parts.
    #[must_use]
    pub fn fork_index(&self, index: u64) -> Seed {
        Seed(mix(self.0 ^ mix(index.wrapping_add(GOLDEN))))
    }

    /// A generator to draw from.
    pub fn rng(&self) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.0)
    }

    /// A generator of eight bytes, for the places that need one each in the million (links of large meshes).
    pub fn draws(&self) -> Draws {
        Draws(self.0)
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): one word of state.
#[derive(Debug, Clone, Copy)]
pub struct Draws(u64);

impl Draws {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Exponential with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }
}

/// SplitMix64's finaliser: every bit of the input moves every bit of the output.
pub(crate) fn mix(value: u64) -> u64 {
    let z = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 2^64 divided by the golden ratio: SplitMix64's increment.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// Start of the 64-bit FNV-1a hash.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
/// Its multiplier.
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;

    #[test]
    fn forks_of_the_same_name_agree_and_others_differ() {
        let seed = Seed::new(7);
        assert_eq!(seed.fork("links"), seed.fork("links"));
        assert_ne!(seed.fork("links"), seed.fork("faults"));
        assert_ne!(seed.fork("links"), Seed::new(8).fork("links"));
        assert_ne!(seed.fork_index(0), seed.fork_index(1));
        assert_ne!(seed.fork_index(0), seed);
    }

    #[test]
    fn forks_are_pinned_to_their_values() {
        // A change here would change what every recorded seed replays.
        assert_eq!(Seed::new(1).fork("links").value(), 7_483_944_944_607_110_563);
        assert_eq!(Seed::new(1).fork("links").draws().bits(), 12_840_544_478_736_201_098);
    }

    #[test]
    fn draws_have_the_means_they_promise() {
        let mut draws = Seed::new(3).fork("test").draws();
        let n = 200_000;
        let unit = (0..n).map(|_| draws.unit()).sum::<f64>() / f64::from(n);
        let exponential = (0..n).map(|_| draws.exponential()).sum::<f64>() / f64::from(n);
        assert!((unit - 0.5).abs() < 0.005, "{unit}");
        assert!((exponential - 1.0).abs() < 0.01, "{exponential}");
    }

    #[test]
    fn generators_of_one_seed_draw_the_same() {
        let (mut a, mut b) = (Seed::new(5).rng(), Seed::new(5).rng());
        assert_eq!(a.random::<u64>(), b.random::<u64>());
    }
}
