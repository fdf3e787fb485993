//! Reading memory and doing next to nothing with it: what decoding, which reads every weight once for a token, cannot exceed.

use super::Level;
use super::lanes::at_each_level;
use super::matrix::KernelError;
use super::memory::Memory;
use crate::real::pool::Pool;

/// Words that are added side by side, so that adding waits for memory and not for the sum before.
const SUMS: usize = 64;

/// Parts for each thread.
const PARTS_PER_THREAD: usize = 8;

/// Memory to read, in pages as those of weights.
pub struct Roofline {
    words: Memory<u64>,
}

impl Roofline {
    /// Memory of about `bytes`.
    ///
    /// # Errors
    /// No memory.
    pub fn new(bytes: u64) -> Result<Self, KernelError> {
        let words = usize::try_from(bytes / 8).unwrap_or(usize::MAX).max(1);
        let mut words = Memory::zeroed(words, 1)?;
        // What was never written is one page of zeros, again and again.
        words.fill(1);
        Ok(Self { words })
    }

    /// How much there is to read.
    pub fn bytes(&self) -> u64 {
        8 * self.words.len() as u64
    }

    /// Reads everything once, on all threads of `pool`. To be timed.
    pub fn read(&self, pool: &Pool) {
        let part = self.words.len().div_ceil(pool.threads() * PARTS_PER_THREAD).next_multiple_of(SUMS);
        let parts: Vec<&[u64]> = self.words.chunks(part).collect();
        pool.run(parts.len(), &|number| {
            std::hint::black_box(sum(Level::best(), parts[number]));
        });
    }
}

#[inline(always)]
fn sum_body(words: &[u64]) -> u64 {
    let mut sums = [0u64; SUMS];
    let (chunks, rest) = words.as_chunks::<SUMS>();
    for chunk in chunks {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*word);
        }
    }
    rest.iter().chain(&sums).fold(0, |sum, word| sum.wrapping_add(*word))
}

at_each_level! {
    /// The sum of the words.
    fn sum(words: &[u64]) -> u64 = sum_body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read() {
        let words: Vec<u64> = (0..1_000).collect();
        for level in Level::ALL {
            assert_eq!(sum(level, &words), 999 * 1_000 / 2);
        }
        let roofline = Roofline::new(1 << 16).expect("some memory");
        assert_eq!((roofline.bytes(), roofline.words.iter().sum()), (1 << 16, 1u64 << 13));
    }
}
