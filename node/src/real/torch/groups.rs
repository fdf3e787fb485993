//! Weights as libtorch's 4-bit products take them: 4-bit codes, with a scale and a zero for 32 columns.
//!
//! A weight is `scale * (code - 8) + zero`, scale and zero in bf16. Q4_0, Q4_1 and Q4_K are that already. A format of more
//! bits is two such matrices side by side, one for the upper bits of its codes and one for the lower, which are multiplied
//! with the input twice: 10 bits a weight where bf16 takes 16. Formats whose scales are for fewer than 32 columns, or whose
//! codes are not evenly spaced, are rounded to 8 bits for that, by 1/254 of the group's largest weight at most.

use half::{bf16, f16};
use planner::model::ggml::GgmlType;

use crate::real::formats::k_quants::six_bit;
use crate::real::formats::{UnknownFormat, dequantise};
use crate::real::pool::Pool;

/// Columns that share a scale.
pub(super) const GROUP: usize = 32;

/// Rows that one thread takes at a time.
const ROWS: usize = 64;

/// A matrix in groups.
pub(super) struct Groups {
    /// `[rows][times * cols]`, 0 to 15.
    pub(super) codes: Vec<u8>,
    /// Scale and zero, `[times * cols / 32][rows][2]`.
    pub(super) scales_and_zeros: Vec<bf16>,
    /// How many times the columns stand side by side.
    pub(super) times: usize,
}

/// 32 weights: `factor * code + offset`.
struct Group {
    codes: [u8; GROUP],
    factor: f32,
    offset: f32,
}

/// How codes are cut into four bits each: the lower part of a code is what is below `1 << shift`.
#[derive(Clone, Copy)]
enum Cut {
    Whole,
    Two { shift: u32 },
}

impl Cut {
    fn of(kind: GgmlType) -> Self {
        match kind {
            GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Q4_K => Cut::Whole,
            GgmlType::Q5_0 | GgmlType::Q5_1 | GgmlType::Q5_K => Cut::Two { shift: 1 },
            _ => Cut::Two { shift: 4 },
        }
    }

    fn times(self) -> usize {
        match self {
            Cut::Whole => 1,
            Cut::Two { .. } => 2,
        }
    }
}

/// Whether a format is kept in groups: those of whole numbers are, those of floats are not.
pub(super) fn is_grouped(kind: GgmlType) -> bool {
    !matches!(kind, GgmlType::F32 | GgmlType::F16 | GgmlType::BF16)
}

/// Turns rows of whole blocks into groups.
///
/// # Errors
/// [`UnknownFormat`].
pub(super) fn groups(
    pool: &Pool,
    kind: GgmlType,
    rows: usize,
    cols: usize,
    bytes: &[u8],
) -> Result<Groups, UnknownFormat> {
    dequantise(kind, &[], &mut [])?;
    let cut = Cut::of(kind);
    let (times, row_bytes) = (cut.times(), bytes.len() / rows);
    let mut codes = vec![0; rows * times * cols];
    let mut by_row = vec![bf16::ZERO; rows * times * (cols / GROUP) * 2];
    let per_row = by_row.len() / rows;
    let pieces: Vec<_> = codes
        .chunks_mut(ROWS * times * cols)
        .zip(by_row.chunks_mut(ROWS * per_row))
        .zip(bytes.chunks(ROWS * row_bytes))
        .collect();
    pool.each(pieces, |((codes, pairs), bytes): ((&mut [u8], &mut [bf16]), &[u8])| {
        let rows = codes.chunks_exact_mut(times * cols).zip(pairs.chunks_exact_mut(per_row));
        for ((codes, pairs), bytes) in rows.zip(bytes.chunks_exact(row_bytes)) {
            put_row(kind, cut, bytes, codes, pairs);
        }
    });
    Ok(Groups { codes, scales_and_zeros: by_group(&by_row, rows), times })
}

/// From `[rows][groups][2]` to `[groups][rows][2]`.
fn by_group(by_row: &[bf16], rows: usize) -> Vec<bf16> {
    let groups = by_row.len() / rows / 2;
    let mut out = Vec::with_capacity(by_row.len());
    for group in 0..groups {
        for row in 0..rows {
            let at = (row * groups + group) * 2;
            out.extend_from_slice(&by_row[at..at + 2]);
        }
    }
    out
}

fn put_row(kind: GgmlType, cut: Cut, bytes: &[u8], codes: &mut [u8], pairs: &mut [bf16]) {
    let cols = codes.len() / cut.times();
    let mut put = |index: usize, group: &Group| {
        let Group { factor, offset, .. } = *group;
        let at = index * GROUP;
        match cut {
            Cut::Whole => {
                codes[at..at + GROUP].copy_from_slice(&group.codes);
                put_pair(pairs, index, factor, offset + 8.0 * factor);
            }
            Cut::Two { shift } => {
                let (upper, lower) = codes.split_at_mut(cols);
                let steps = (1 << shift) as f32;
                for (i, code) in group.codes.iter().enumerate() {
                    upper[at + i] = code >> shift;
                    lower[at + i] = code & ((1 << shift) - 1);
                }
                put_pair(pairs, index, steps * factor, offset + 8.0 * steps * factor);
                put_pair(pairs, cols / GROUP + index, factor, 8.0 * factor);
            }
        }
    };
    match kind {
        GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Q5_0 | GgmlType::Q5_1 | GgmlType::Q8_0 => {
            let block_bytes = bytes.len() * GROUP / cols;
            bytes.chunks_exact(block_bytes).enumerate().for_each(|(i, block)| put(i, &per_32(kind, block)));
        }
        GgmlType::Q4_K | GgmlType::Q5_K => {
            let block_bytes = bytes.len() * 256 / cols;
            for (i, block) in bytes.chunks_exact(block_bytes).enumerate() {
                (0..8).for_each(|sub| put(8 * i + sub, &of_256(kind, block, sub)));
            }
        }
        _ => {
            let mut values = vec![0.0; cols];
            // The format was found known before.
            let _ = dequantise(kind, bytes, &mut values);
            values.chunks_exact(GROUP).enumerate().for_each(|(i, values)| put(i, &rounded(values)));
        }
    }
}

fn put_pair(pairs: &mut [bf16], index: usize, scale: f32, zero: f32) {
    pairs[2 * index] = bf16::from_f32(scale);
    pairs[2 * index + 1] = bf16::from_f32(zero);
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Nibbles: the first 16 weights are the lower ones.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    bytes[i % 16] >> (4 * (i / 16)) & 15
}

fn per_32(kind: GgmlType, block: &[u8]) -> Group {
    let factor = half_at(block, 0);
    let fifth = |at: usize, i: usize| (block[at + i / 8] >> (i % 8) & 1) << 4;
    let (codes, offset): ([u8; GROUP], f32) = match kind {
        GgmlType::Q4_0 => (std::array::from_fn(|i| nibble(&block[2..], i)), -8.0 * factor),
        GgmlType::Q4_1 => (std::array::from_fn(|i| nibble(&block[4..], i)), half_at(block, 2)),
        GgmlType::Q5_0 => (std::array::from_fn(|i| nibble(&block[6..], i) | fifth(2, i)), -16.0 * factor),
        GgmlType::Q5_1 => (std::array::from_fn(|i| nibble(&block[8..], i) | fifth(4, i)), half_at(block, 2)),
        _ => (std::array::from_fn(|i| block[2 + i] ^ 0x80), -128.0 * factor),
    };
    Group { codes, factor, offset }
}

/// Sub-block `sub` of a block of Q4_K or Q5_K.
fn of_256(kind: GgmlType, block: &[u8], sub: usize) -> Group {
    let (factor, minimum) = six_bit::factors(block)[sub];
    let at = if kind == GgmlType::Q5_K { six_bit::HEAD + 32 } else { six_bit::HEAD } + sub / 2 * GROUP;
    let codes = std::array::from_fn(|i| {
        let four = block[at + i] >> (4 * (sub % 2)) & 15;
        if kind == GgmlType::Q5_K { four | (block[six_bit::HEAD + i] >> sub & 1) << 4 } else { four }
    });
    Group { codes, factor, offset: -minimum }
}

/// Any weights, in 8 bits.
fn rounded(values: &[f32]) -> Group {
    let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let factor = largest / 127.0;
    let steps = if factor > 0.0 { 1.0 / factor } else { 0.0 };
    let code = |value: f32| ((value * steps).round_ties_even() + 128.0) as u8;
    Group { codes: std::array::from_fn(|i| code(values[i])), factor, offset: -128.0 * factor }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use super::*;
    use crate::real::formats::{KNOWN, quantise};

    /// The weights that the groups stand for.
    fn weights(groups: &Groups, rows: usize, cols: usize) -> Vec<f32> {
        let mut out = vec![0.0; rows * cols];
        for row in 0..rows {
            for col in 0..groups.times * cols {
                let at = (col / GROUP * rows + row) * 2;
                let [scale, zero] = [at, at + 1].map(|at| groups.scales_and_zeros[at].to_f32());
                let code = f32::from(groups.codes[row * groups.times * cols + col]);
                out[row * cols + col % cols] += scale * (code - 8.0) + zero;
            }
        }
        out
    }

    #[test]
    fn groups_stand_for_the_weights_of_the_file() {
        let (rows, cols) = (70, 512);
        let wave = |i: usize| ((i * i) as f32 * 0.37).sin() * (1.0 + (i / 600) as f32) + 0.2;
        let values: Vec<f32> = (0..rows * cols).map(wave).collect();
        for kind in KNOWN.into_iter().filter(|kind| is_grouped(*kind)) {
            let mut bytes = Vec::new();
            quantise(kind, &values, &mut bytes).unwrap();
            let mut expected = vec![0.0; rows * cols];
            dequantise(kind, &bytes, &mut expected).unwrap();
            let made = groups(&Pool::new(2), kind, rows, cols, &bytes).unwrap();
            let found = weights(&made, rows, cols);
            for (found, expected) in found.chunks(GROUP).zip(expected.chunks(GROUP)) {
                let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
                for (found, expected) in found.iter().zip(expected) {
                    // bf16 keeps 8 bits of scale and zero.
                    assert!((found - expected).abs() <= 0.009 * largest, "{kind}: {found} for {expected}");
                }
            }
        }
    }
}
