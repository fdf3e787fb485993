//! How fast this machine reads memory: what decoding, which reads every weight once for a token, cannot exceed.

use std::hint::black_box;
use std::time::Instant;

/// Passes over the buffer; the best counts.
const PASSES: u32 = 7;

/// Bytes per second at which `threads` threads read a buffer of `bytes` bytes again and again, as weights are read.
#[allow(clippy::disallowed_methods, reason = "a bench measures the wall clock")]
pub(super) fn bytes_per_second(bytes: u64, threads: usize) -> f64 {
    let words = vec![1u64; bytes as usize / size_of::<u64>()];
    let part = words.len().div_ceil(threads);
    let pass = || {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for part in words.chunks(part) {
                scope.spawn(move || black_box(sum(part)));
            }
        });
        started.elapsed()
    };
    let best = (0..PASSES).map(|_| pass()).min().unwrap_or_default();
    bytes as f64 / best.as_secs_f64()
}

/// Sixteen sums at once, so that adding never waits.
fn sum(words: &[u64]) -> u64 {
    let mut sums = [0u64; 16];
    for words in words.chunks_exact(16) {
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().fold(0, |all, sum| all.wrapping_add(*sum))
}
