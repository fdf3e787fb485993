//! The ways to store scales.

use bytemuck::Zeroable;

use super::tile::{Factors, ROWS, Scales, Scaling};
use super::vector::Lanes;

/// An f16 of each row.
pub(super) type Halves = [u16; ROWS];

/// `Q4_0 Q5_0 Q8_0 IQ4_NL`: an f16 scale.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(32))]
pub(super) struct Scale {
    pub(super) scale: Halves,
}

/// `Q4_1 Q5_1`: an f16 scale and an f16 minimum.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub(super) struct ScaleMin {
    pub(super) scale: Halves,
    pub(super) min: Halves,
}

/// `MXFP4`: a power of two.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(16))]
pub(super) struct Power {
    pub(super) exponent: [u8; ROWS],
}

/// `Q4_K Q5_K`: f16s of scale and minimum for 256 columns, and of each 32 columns 6 bits for both, packed as in the file.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Packed {
    pub(super) scale: Halves,
    pub(super) min: Halves,
    pub(super) parts: [[u8; ROWS]; 12],
}

/// `Q6_K Q3_K`: an f16 scale for 256 columns, and a signed integer for each 16.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(32))]
pub(super) struct BySixteen {
    pub(super) scale: Halves,
    pub(super) parts: [[i8; ROWS]; 16],
}

/// `Q2_K`: f16s of scale and minimum for 256 columns, and of each 16 columns 4 bits for both: scale low, minimum high.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub(super) struct BySixteenMin {
    pub(super) scale: Halves,
    pub(super) min: Halves,
    pub(super) parts: [[u8; ROWS]; 16],
}

/// `IQ4_XS`: an f16 scale for 256 columns, and a signed integer for each 32.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(32))]
pub(super) struct ByThirtyTwo {
    pub(super) scale: Halves,
    pub(super) parts: [[i8; ROWS]; 8],
}

impl Scales for Scale {
    const SCALING: Scaling = Scaling::Whole;

    #[inline(always)]
    fn factors<L: Lanes>(&self, any: L, _block: usize, part: usize) -> Factors<L> {
        Factors::whole(any.load_half(&self.scale, part))
    }
}

impl Scales for ScaleMin {
    const SCALING: Scaling = Scaling::WholeMin;

    #[inline(always)]
    fn factors<L: Lanes>(&self, any: L, _block: usize, part: usize) -> Factors<L> {
        Factors::whole_min(any.load_half(&self.scale, part), any.load_half(&self.min, part))
    }
}

impl Scales for Power {
    const SCALING: Scaling = Scaling::Whole;

    #[inline(always)]
    fn factors<L: Lanes>(&self, any: L, _block: usize, part: usize) -> Factors<L> {
        let mut scale = [0.0; ROWS];
        for (scale, exponent) in scale.iter_mut().zip(self.exponent) {
            *scale = half_power(exponent);
        }
        Factors::whole(any.load(&scale, part))
    }
}

/// Half of `2^(exponent - 127)`: half, because the codes are doubled.
#[inline(always)]
fn half_power(exponent: u8) -> f32 {
    let exponent = u32::from(exponent);
    f32::from_bits(if exponent < 2 { 0x20_0000 << exponent } else { (exponent - 1) << 23 })
}

impl Packed {
    /// The 6-bit scales and minimums of a block (`get_scale_min_k4` of llama.cpp, for 16 rows).
    #[inline(always)]
    fn of_block(&self, block: usize) -> ([u8; ROWS], [u8; ROWS]) {
        let part = |number: usize| &self.parts[number];
        let (mut scales, mut mins) = ([0; ROWS], [0; ROWS]);
        if block < 4 {
            let (scale, min) = (part(block), part(block + 4));
            for row in 0..ROWS {
                scales[row] = scale[row] & 63;
                mins[row] = min[row] & 63;
            }
        } else {
            let (low, scale, min) = (part(block + 4), part(block - 4), part(block));
            for row in 0..ROWS {
                scales[row] = low[row] & 15 | (scale[row] >> 6) << 4;
                mins[row] = low[row] >> 4 | (min[row] >> 6) << 4;
            }
        }
        (scales, mins)
    }
}

impl Scales for Packed {
    const SCALING: Scaling = Scaling::WholeMin;

    #[inline(always)]
    fn factors<L: Lanes>(&self, any: L, block: usize, part: usize) -> Factors<L> {
        let (scale, min) = self.of_block(block);
        let min = any.load_half(&self.min, part).times(any.load_bytes(&min, part));
        Factors::whole_min(
            any.load_half(&self.scale, part).times(any.load_bytes(&scale, part)),
            min.times(any.all(-1.0)),
        )
    }
}

impl Scales for BySixteen {
    const SCALING: Scaling = Scaling::Halves;

    #[inline(always)]
    fn factors<L: Lanes>(&self, any: L, block: usize, part: usize) -> Factors<L> {
        let scale = any.load_half(&self.scale, part);
        let half = |half: usize| scale.times(any.load_signed(&self.parts[2 * block + half], part));
        Factors::halves([half(0), half(1)])
    }
}

impl Scales for BySixteenMin {
    const SCALING: Scaling = Scaling::HalvesMin;

    #[inline(always)]
    fn factors<L: Lanes>(&self, any: L, block: usize, part: usize) -> Factors<L> {
        let (scale, min) = (any.load_half(&self.scale, part), any.load_half(&self.min, part));
        let (mut scales, mut mins) = ([scale; 2], [min; 2]);
        for half in 0..2 {
            let (mut low, mut high) = ([0; ROWS], [0; ROWS]);
            for (row, bits) in self.parts[2 * block + half].iter().enumerate() {
                low[row] = bits & 15;
                high[row] = bits >> 4;
            }
            scales[half] = scale.times(any.load_bytes(&low, part));
            mins[half] = min.times(any.load_bytes(&high, part));
        }
        Factors { scale: scales, min: mins }
    }
}

impl Scales for ByThirtyTwo {
    const SCALING: Scaling = Scaling::Whole;

    #[inline(always)]
    fn factors<L: Lanes>(&self, any: L, block: usize, part: usize) -> Factors<L> {
        Factors::whole(any.load_half(&self.scale, part).times(any.load_signed(&self.parts[block], part)))
    }
}
