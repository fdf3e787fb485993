//! How fast this machine reads memory: what an answer's tokens would take if computing cost nothing.

use crate::cli::Stopwatch;

/// The most that is read, bytes: beyond it no cache plays a part.
const BYTES_MAX: u64 = 1 << 30;

/// Less than this is in the caches nearest to the cores, and no weights are.
const BYTES_MIN: u64 = 1 << 20;

/// How often it is read; the fastest counts.
const RUNS: u32 = 7;

/// Sums kept apart, so that adding waits for memory and not for the sum before.
const SUMS: usize = 32;

/// Bytes a second that so many threads read of as much memory as a token's weights take.
pub(super) fn read_bytes_per_s(bytes: u64, threads: usize) -> f64 {
    let words = (bytes.clamp(BYTES_MIN, BYTES_MAX) / 8) as usize;
    let memory: Vec<u64> = (0..words as u64).collect();
    let share = words.div_ceil(threads.max(1));
    let read = || {
        let clock = Stopwatch::start();
        std::thread::scope(|scope| {
            for part in memory.chunks(share) {
                scope.spawn(|| std::hint::black_box(sum(part)));
            }
        });
        (words * 8) as f64 / clock.seconds()
    };
    (0..RUNS).map(|_| read()).fold(0.0, f64::max)
}

fn sum(words: &[u64]) -> u64 {
    let mut sums = [0u64; SUMS];
    let (chunks, rest) = words.as_chunks::<SUMS>();
    for chunk in chunks {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*word);
        }
    }
    rest.iter().chain(&sums).fold(0, |sum, word| sum.wrapping_add(*word))
}
