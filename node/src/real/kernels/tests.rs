//! Each kernel against the file's own values, and against itself for other batches and threads.

use planner::model::ggml::GgmlType;
use proptest::prelude::*;

use super::{KernelError, Level, Matrix, Precision, linear};
use crate::real::formats::{self, dequantise, quantise};
use crate::real::pool::Pool;

/// Rows of values and their bytes in a format.
struct Tensor {
    kind: GgmlType,
    rows: usize,
    cols: usize,
    bytes: Vec<u8>,
    values: Vec<f32>,
}

impl Tensor {
    fn of(kind: GgmlType, rows: usize, cols: usize, bytes: Vec<u8>) -> Self {
        let mut values = vec![0.0; rows * cols];
        dequantise(kind, &bytes, &mut values).expect("a known format");
        Self { kind, rows, cols, bytes, values }
    }

    /// Values that a model might have, quantised.
    fn likely(kind: GgmlType, rows: usize, cols: usize, seed: u64) -> Self {
        let mut bytes = Vec::new();
        for row in numbers(seed, rows * cols).chunks(cols) {
            quantise(kind, row, &mut bytes).expect("a known format");
        }
        Self::of(kind, rows, cols, bytes)
    }

    /// Any bytes at all, but for scales that are not numbers.
    fn any(kind: GgmlType, rows: usize, cols: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let len = kind.tensor_bytes(&[cols as u64, rows as u64]).expect("whole blocks") as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        for block in bytes.chunks_mut(kind.block_bytes() as usize) {
            tame(kind, block, &mut random);
        }
        Self::of(kind, rows, cols, bytes)
    }

    fn pack(&self, level: Level, precision: Precision) -> Matrix {
        Matrix::pack(self.kind, self.rows, self.cols, &self.bytes, level, precision).expect("whole and known")
    }

    /// The product of a row, in f64, and the sum of its terms' magnitudes.
    fn product(&self, row: usize, x: &[f32]) -> (f64, f64) {
        let terms = self.values[row * self.cols..][..self.cols]
            .iter()
            .zip(x)
            .map(|(weight, x)| f64::from(*weight) * f64::from(*x));
        terms.fold((0.0, 0.0), |(sum, magnitude), term| (sum + term, magnitude + term.abs()))
    }
}

/// Puts scales of moderate size where random bytes might have made an infinity.
fn tame(kind: GgmlType, block: &mut [u8], random: &mut Random) {
    let halves: &[usize] = match kind {
        GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q4_K | GgmlType::Q5_K => &[0, 2],
        GgmlType::Q4_0 | GgmlType::Q5_0 | GgmlType::Q8_0 => &[0],
        GgmlType::F16 | GgmlType::IQ4_NL | GgmlType::IQ4_XS => &[0],
        GgmlType::Q2_K => &[80, 82],
        GgmlType::Q3_K => &[108],
        GgmlType::Q6_K => &[208],
        GgmlType::BF16 => &[0],
        GgmlType::F32 => &[2],
        GgmlType::MXFP4 => {
            block[0] = 100 + block[0] % 50;
            return;
        }
        _ => &[],
    };
    for &at in halves {
        // Subnormals and large f16s are among these; as the upper half of a float they are moderate.
        let high = if matches!(kind, GgmlType::BF16 | GgmlType::F32) {
            0x3a + random.next() % 8
        } else {
            random.next() % 0x70
        };
        block[at + 1] = (random.next() & 0x80) as u8 | high as u8;
    }
}

/// A small generator, so that a case is told by its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ mixed >> 27
    }

    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// Numbers around zero of differing size, some of them zero.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut random = Random(seed);
    (0..count)
        .map(|_| match random.next() % 16 {
            0 => 0.0,
            1 => random.unit() * 8.0,
            _ => random.unit(),
        })
        .collect()
}

fn products(pool: &Pool, matrix: &Matrix, x: &[f32], n: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; n * matrix.rows()];
    linear(pool, x, n, &mut [(matrix, &mut out)]);
    out
}

fn any_kind() -> impl Strategy<Value = GgmlType> {
    proptest::sample::select(&formats::KNOWN[..])
}

/// Columns that the format allows: whole blocks, and for floats anything.
fn columns(kind: GgmlType, blocks: usize) -> usize {
    match kind.block_elements() as usize {
        1 => 1 + 37 * blocks,
        32 => 32 * blocks,
        elements => elements * blocks.div_ceil(4),
    }
}

/// How far a product may be off, as a part of the sum of its terms' magnitudes: 8 bits for the largest activation of
/// 32, and rounding.
fn tolerance(kind: GgmlType, precision: Precision) -> f64 {
    let plain = precision == Precision::F32 || kind.block_elements() == 1;
    if plain { 1e-6 } else { 0.1 }
}

/// How far a level may be from the portable one, as a part of the sum of the terms' magnitudes.
const LEVELS_APART: f64 = 1e-5;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn products_are_those_of_the_files_values(
        kind in any_kind(), rows in 1usize..70, blocks in 1usize..40, n in 1usize..4, seed: u64, likely: bool,
    ) {
        let cols = columns(kind, blocks);
        let tensor = if likely { Tensor::likely(kind, rows, cols, seed) } else { Tensor::any(kind, rows, cols, seed) };
        let x = numbers(seed ^ 1, n * cols);
        let pool = Pool::new(1);
        for precision in [Precision::Quantised, Precision::F32] {
            let portable = products(&pool, &tensor.pack(Level::Portable, precision), &x, n);
            for level in Level::ALL {
                let matrix = tensor.pack(level, precision);
                let out = products(&pool, &matrix, &x, n);
                for (token, x) in x.chunks(cols).enumerate() {
                    for row in 0..rows {
                        let (sum, magnitude) = tensor.product(row, x);
                        let found = f64::from(out[token * rows + row]);
                        prop_assert!(
                            (found - sum).abs() <= tolerance(kind, precision) * magnitude,
                            "{kind} {precision:?} {level}: {found} for {sum} of {magnitude}"
                        );
                        // The integers are the same at every level: only rounding differs.
                        let plain = f64::from(portable[token * rows + row]);
                        prop_assert!(
                            (found - plain).abs() <= LEVELS_APART * magnitude,
                            "{kind} {precision:?} {level}: {found}, but {plain} portably"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_batch_and_the_threads_cannot_be_seen(
        kind in any_kind(), rows in 1usize..150, blocks in 1usize..80, n in 2usize..28, threads in 1usize..4, seed: u64,
        precision in proptest::sample::select(vec![Precision::Quantised, Precision::F32]),
    ) {
        let cols = columns(kind, blocks);
        let tensor = Tensor::any(kind, rows, cols, seed);
        let x = numbers(seed ^ 1, n * cols);
        let (alone, together) = (Pool::new(1), Pool::new(threads));
        for level in Level::ALL {
            let matrix = tensor.pack(level, precision);
            let all = products(&together, &matrix, &x, n);
            for (token, x) in x.chunks(cols).enumerate() {
                let one = products(&alone, &matrix, x, 1);
                let same = one.iter().zip(&all[token * rows..]).all(|(a, b)| a.to_bits() == b.to_bits());
                prop_assert!(same, "{kind} {precision:?} {level}: token {token} of {n}");
            }
        }
    }
}

#[test]
fn several_matrices_share_an_input() {
    let (first, second) =
        (Tensor::likely(GgmlType::Q4_0, 40, 64, 1), Tensor::likely(GgmlType::F16, 20, 64, 2));
    let (a, b) =
        (first.pack(Level::best(), Precision::Quantised), second.pack(Level::best(), Precision::Quantised));
    let (pool, x) = (Pool::new(2), numbers(3, 3 * 64));
    let (mut out_a, mut out_b) = (vec![0.0; 3 * 40], vec![0.0; 3 * 20]);
    linear(&pool, &x, 3, &mut [(&a, &mut out_a), (&b, &mut out_b)]);
    assert_eq!(out_a, products(&pool, &a, &x, 3));
    assert_eq!(out_b, products(&pool, &b, &x, 3));
}

#[test]
fn nothing_asked_for_is_nothing_done() {
    let pool = Pool::new(2);
    linear(&pool, &[], 0, &mut []);
    let matrix = Tensor::likely(GgmlType::Q8_0, 3, 32, 0).pack(Level::best(), Precision::Quantised);
    assert_eq!(products(&pool, &matrix, &[], 0), Vec::<f32>::new());
    let empty =
        Matrix::pack(GgmlType::Q8_0, 0, 32, &[], Level::best(), Precision::Quantised).expect("no rows");
    assert_eq!(products(&pool, &empty, &[1.0; 32], 1), Vec::<f32>::new());
}

#[test]
fn what_is_not_a_number_stays_so_and_hurts_nobody_else() {
    let tensor = Tensor::likely(GgmlType::Q4_K, 16, 512, 4);
    let mut x = numbers(5, 2 * 512);
    x[700] = f32::NAN;
    for level in Level::ALL {
        let out = products(&Pool::new(1), &tensor.pack(level, Precision::Quantised), &x, 2);
        assert!(out[..16].iter().all(|y| y.is_finite()), "{level}");
        assert!(out[16..].iter().all(|y| y.is_nan()), "{level}");
    }
}

#[test]
fn tiny_and_huge_activations_do_not_overflow() {
    let tensor = Tensor::likely(GgmlType::Q8_0, 16, 64, 6);
    for size in [1e-44, 1e-39, 1e-30, 1e30] {
        let x: Vec<f32> = numbers(7, 64).iter().map(|x| x * size).collect();
        for level in Level::ALL {
            let out = products(&Pool::new(1), &tensor.pack(level, Precision::Quantised), &x, 1);
            assert!(out.iter().all(|y| y.is_finite()), "{level}: {size}");
        }
    }
}

#[test]
fn held_memory_is_that_of_the_file() {
    for kind in formats::KNOWN {
        let tensor = Tensor::likely(kind, 32, 512, 8);
        let held = tensor.pack(Level::best(), Precision::Quantised).bytes() as f64;
        let ratio = held / tensor.bytes.len() as f64;
        assert!((1.0..=1.04).contains(&ratio), "{kind}: {ratio}");
    }
}

#[test]
fn wrong_shapes_and_formats_are_told() {
    let pack = |kind, rows, cols, bytes: &[u8]| {
        Matrix::pack(kind, rows, cols, bytes, Level::Portable, Precision::Quantised)
            .map(|_| ())
            .expect_err("wrong")
    };
    let size = pack(GgmlType::Q8_0, 2, 32, &[0; 67]);
    assert!(matches!(size, KernelError::Size { needed: 68, found: 67, .. }), "{size}");
    let absurd = pack(GgmlType::Q8_0, usize::MAX, 32, &[0; 34]);
    assert!(matches!(absurd, KernelError::Size { .. }), "{absurd}");
    let ragged = pack(GgmlType::Q4_K, 1, 128, &[]);
    assert!(matches!(ragged, KernelError::Ragged { columns: 128, .. }), "{ragged}");
    let format = pack(GgmlType::IQ1_S, 1, 256, &[0; 50]);
    assert!(matches!(format, KernelError::Format(_)), "{format}");
}
