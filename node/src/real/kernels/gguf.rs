//! From the blocks of a GGUF file, a row at a time, into lanes of tiles.
//!
//! Source of the layouts: `block_*` in llama.cpp's `ggml-common.h`, and `dequantize_row_*` in `ggml-quants.c` for which
//! bits belong to which column.

use super::codes::{Bytes, Fives, Looked, Nibbles, NonLinear, Sixes, SmallFloat, Threes, Twos};
use super::scales::{BySixteen, BySixteenMin, ByThirtyTwo, Halves, Packed, Power, Scale, ScaleMin};
use super::tile::{COLUMNS, Codes, Tile};

pub(super) type Q4_0 = Tile<Nibbles, Scale, 1>;
pub(super) type Q4_1 = Tile<Nibbles, ScaleMin, 1>;
pub(super) type Q5_0 = Tile<Fives, Scale, 1>;
pub(super) type Q5_1 = Tile<Fives, ScaleMin, 1>;
pub(super) type Q8_0 = Tile<Bytes, Scale, 1>;
pub(super) type Q2K = Tile<Twos, BySixteenMin, 8>;
pub(super) type Q3K = Tile<Threes, BySixteen, 8>;
pub(super) type Q4K = Tile<Nibbles, Packed, 8>;
pub(super) type Q5K = Tile<Fives, Packed, 8>;
pub(super) type Q6K = Tile<Sixes, BySixteen, 8>;
pub(super) type Iq4Nl = Tile<Looked<NonLinear>, Scale, 1>;
pub(super) type Iq4Xs = Tile<Looked<NonLinear>, ByThirtyTwo, 8>;
pub(super) type Mxfp4 = Tile<Looked<SmallFloat>, Power, 1>;

/// The next `N` bytes of a block, whose length the caller has checked against the format's.
#[inline(always)]
fn take<'a, const N: usize>(block: &mut &'a [u8]) -> &'a [u8; N] {
    let (taken, rest) = block.split_first_chunk().expect("a whole block");
    *block = rest;
    taken
}

#[inline(always)]
fn take_half(halves: &mut Halves, row: usize, block: &mut &[u8]) {
    halves[row] = u16::from_le_bytes(*take(block));
}

/// 16 bytes: columns 0 to 15 low, 16 to 31 high.
#[inline(always)]
fn nibbles(bytes: &[u8; 16]) -> [u8; COLUMNS] {
    let mut codes = [0; COLUMNS];
    for (i, byte) in bytes.iter().enumerate() {
        codes[i] = byte & 15;
        codes[i + 16] = byte >> 4;
    }
    codes
}

/// Some bits of each of the first 32 bytes: those of `mask`, after moving them down by `from`.
#[inline(always)]
fn bits(bytes: &[u8], from: u32, mask: u8) -> [u8; COLUMNS] {
    let mut codes: [u8; COLUMNS] = *bytes.first_chunk().expect("32 bytes of a block");
    for code in &mut codes {
        *code = (*code >> from) & mask;
    }
    codes
}

/// The low or the high half of each of 32 bytes.
#[inline(always)]
fn low_or_high(bytes: &[u8], high: bool) -> [u8; COLUMNS] {
    bits(bytes, if high { 4 } else { 0 }, 15)
}

/// Codes whose upper bits are `high`, from bit `from` on.
#[inline(always)]
fn joined(mut low: [u8; COLUMNS], high: [u8; COLUMNS], from: u32) -> [u8; COLUMNS] {
    for (code, high) in low.iter_mut().zip(high) {
        *code |= high << from;
    }
    low
}

/// Nibbles and a fifth bit each.
#[inline(always)]
fn fives(high: &[u8; 4], low: &[u8; 16]) -> [u8; COLUMNS] {
    let mut codes = nibbles(low);
    for (i, code) in codes.iter_mut().enumerate() {
        *code |= ((high[i / 8] >> (i % 8)) & 1) << 4;
    }
    codes
}

pub(super) fn q4_0(tile: &mut Q4_0, row: usize, mut block: &[u8]) {
    take_half(&mut tile.scales.scale, row, &mut block);
    tile.codes[0].set(row, &nibbles(take(&mut block)));
}

pub(super) fn q4_1(tile: &mut Q4_1, row: usize, mut block: &[u8]) {
    take_half(&mut tile.scales.scale, row, &mut block);
    take_half(&mut tile.scales.min, row, &mut block);
    tile.codes[0].set(row, &nibbles(take(&mut block)));
}

pub(super) fn q5_0(tile: &mut Q5_0, row: usize, mut block: &[u8]) {
    take_half(&mut tile.scales.scale, row, &mut block);
    let high = take(&mut block);
    tile.codes[0].set(row, &fives(high, take(&mut block)));
}

pub(super) fn q5_1(tile: &mut Q5_1, row: usize, mut block: &[u8]) {
    take_half(&mut tile.scales.scale, row, &mut block);
    take_half(&mut tile.scales.min, row, &mut block);
    let high = take(&mut block);
    tile.codes[0].set(row, &fives(high, take(&mut block)));
}

pub(super) fn q8_0(tile: &mut Q8_0, row: usize, mut block: &[u8]) {
    take_half(&mut tile.scales.scale, row, &mut block);
    // Signed to unsigned, by adding 128.
    tile.codes[0].set(row, &take::<COLUMNS>(&mut block).map(|byte| byte ^ 0x80));
}

pub(super) fn iq4_nl(tile: &mut Iq4Nl, row: usize, mut block: &[u8]) {
    take_half(&mut tile.scales.scale, row, &mut block);
    tile.codes[0].set(row, &nibbles(take(&mut block)));
}

pub(super) fn mxfp4(tile: &mut Mxfp4, row: usize, mut block: &[u8]) {
    tile.scales.exponent[row] = take::<1>(&mut block)[0];
    tile.codes[0].set(row, &nibbles(take(&mut block)));
}

pub(super) fn q2_k(tile: &mut Q2K, row: usize, mut block: &[u8]) {
    let (parts, low) = (take::<16>(&mut block), take::<64>(&mut block));
    take_half(&mut tile.scales.scale, row, &mut block);
    take_half(&mut tile.scales.min, row, &mut block);
    set_parts(&mut tile.scales.parts, row, parts);
    for (b, codes) in tile.codes.iter_mut().enumerate() {
        codes.set(row, &pairs(low, b));
    }
}

pub(super) fn q3_k(tile: &mut Q3K, row: usize, mut block: &[u8]) {
    let (high, low) = (take::<32>(&mut block), take::<64>(&mut block));
    set_parts(&mut tile.scales.parts, row, &q3_k_parts(take(&mut block)));
    take_half(&mut tile.scales.scale, row, &mut block);
    for (b, codes) in tile.codes.iter_mut().enumerate() {
        codes.set(row, &joined(pairs(low, b), bits(high, b as u32, 1), 2));
    }
}

/// The sixteen scales of a `Q3_K` block: the lower 4 bits of all, then the upper 2, less 32.
#[inline(always)]
fn q3_k_parts(bits: &[u8; 12]) -> [i8; 16] {
    std::array::from_fn(|i| {
        let low = if i < 8 { bits[i] & 15 } else { bits[i - 8] >> 4 };
        let high = (bits[8 + i % 4] >> (2 * (i / 4))) & 3;
        (low | high << 4) as i8 - 32
    })
}

pub(super) fn q4_k(tile: &mut Q4K, row: usize, mut block: &[u8]) {
    packed_scales(&mut tile.scales, row, &mut block);
    for (b, codes) in tile.codes.iter_mut().enumerate() {
        codes.set(row, &low_or_high(&block[32 * (b / 2)..][..32], b % 2 == 1));
    }
}

pub(super) fn q5_k(tile: &mut Q5K, row: usize, mut block: &[u8]) {
    packed_scales(&mut tile.scales, row, &mut block);
    let high = take::<32>(&mut block);
    for (b, codes) in tile.codes.iter_mut().enumerate() {
        let low = low_or_high(&block[32 * (b / 2)..][..32], b % 2 == 1);
        codes.set(row, &joined(low, bits(high, b as u32, 1), 4));
    }
}

#[inline(always)]
fn packed_scales(scales: &mut Packed, row: usize, block: &mut &[u8]) {
    take_half(&mut scales.scale, row, block);
    take_half(&mut scales.min, row, block);
    set_parts(&mut scales.parts, row, take::<12>(block));
}

pub(super) fn q6_k(tile: &mut Q6K, row: usize, mut block: &[u8]) {
    let (low, high) = (take::<128>(&mut block), take::<64>(&mut block));
    set_parts(&mut tile.scales.parts, row, &take::<16>(&mut block).map(|part| part as i8));
    take_half(&mut tile.scales.scale, row, &mut block);
    for (b, codes) in tile.codes.iter_mut().enumerate() {
        let (half, quarter) = (b / 4, b % 4);
        let low = low_or_high(&low[64 * half + 32 * (quarter % 2)..][..32], quarter >= 2);
        codes.set(row, &joined(low, pairs(high, b), 4));
    }
}

pub(super) fn iq4_xs(tile: &mut Iq4Xs, row: usize, mut block: &[u8]) {
    take_half(&mut tile.scales.scale, row, &mut block);
    let high = u16::from_le_bytes(*take(&mut block));
    let low = take::<4>(&mut block);
    for (b, codes) in tile.codes.iter_mut().enumerate() {
        let part = (low[b / 2] >> (4 * (b % 2))) & 15 | (((high >> (2 * b)) & 3) << 4) as u8;
        tile.scales.parts[b][row] = part as i8 - 32;
        codes.set(row, &nibbles(take(&mut block)));
    }
}

/// The 2 bits of each column of block `b`, which lie 4 blocks to 32 bytes.
#[inline(always)]
fn pairs(bytes: &[u8; 64], b: usize) -> [u8; COLUMNS] {
    bits(&bytes[32 * (b / 4)..], 2 * (b % 4) as u32, 3)
}

#[inline(always)]
fn set_parts<T: Copy, const N: usize>(lanes: &mut [[T; 16]; N], row: usize, parts: &[T; N]) {
    for (lane, part) in lanes.iter_mut().zip(parts) {
        lane[row] = *part;
    }
}
