//! The operations that kernels are written in, and their plain implementation; `x86` has those with instructions.
//!
//! A value of a vector type exists only where its instructions do: the first one is made by a function that is compiled
//! for them, and all others from one that is there. So operations are methods, also those that need no operand.

use super::halves::{brain, half};
use super::tile::{COLUMNS, Group, ROWS};

/// Bytes of some of the 16 rows: 4 columns each.
pub(super) trait Vector: Copy {
    /// As many floats as there are rows.
    type Lanes: Lanes;
    /// How many of these make 16 rows.
    const PARTS: usize;

    /// The rows of a part.
    fn load(self, group: &Group, part: usize) -> Self;

    /// The bits of every byte that are set in `mask`.
    fn and(self, mask: u8) -> Self;

    /// The bits of every byte that are set in `mask`, and those of `other`.
    fn and_or(self, mask: u8, other: Self) -> Self;

    /// Every byte shifted to lower bits; what comes in from above may be anything.
    fn lower<const BITS: u32>(self) -> Self;

    /// Every byte shifted to higher bits; what comes in from below may be anything.
    fn raise<const BITS: u32>(self) -> Self;

    /// The bytes of `table` that the bytes number, which are below 16.
    fn look_up(self, table: &[u8; 16]) -> Self;

    /// For each token and row, its `start`, shifted to the left by `shift` bits, plus the products of the codes of
    /// `groups` with the token's quants from `from` on (4 for each group), which is within 2^24. Codes are at most `max`;
    /// where that is above 127, what the starts make must be -128 times the sums of the quants.
    fn dots<const N: usize, const T: usize>(
        groups: [Self; N],
        quants: &[[i8; COLUMNS]; T],
        from: usize,
        starts: [i32; T],
        shift: u32,
        max: u8,
    ) -> [Self::Lanes; T];
}

/// A float of some of the 16 rows.
pub(super) trait Lanes: Copy {
    /// How many of these make 16 rows.
    const PARTS: usize;

    /// The same value for all rows.
    fn all(self, value: f32) -> Self;

    /// The rows of a part.
    fn load(self, values: &[f32; ROWS], part: usize) -> Self;

    /// Stores the rows of a part.
    fn store(self, values: &mut [f32; ROWS], part: usize);

    /// The rows of a part, from f16s.
    fn load_half(self, halves: &[u16; ROWS], part: usize) -> Self;

    /// The rows of a part, from bf16s.
    fn load_brain(self, brains: &[u16; ROWS], part: usize) -> Self;

    /// The rows of a part, from integers.
    fn load_bytes(self, bytes: &[u8; ROWS], part: usize) -> Self;

    /// The rows of a part, from signed integers.
    fn load_signed(self, bytes: &[i8; ROWS], part: usize) -> Self;

    /// The sum.
    fn plus(self, other: Self) -> Self;

    /// The product.
    fn times(self, other: Self) -> Self;

    /// The product, and `addend` added: in one rounding, where the machine can do that fast.
    fn times_plus(self, factor: Self, addend: Self) -> Self;
}

impl Vector for Group {
    type Lanes = [f32; ROWS];
    const PARTS: usize = 1;

    #[inline(always)]
    fn load(self, group: &Group, _part: usize) -> Self {
        *group
    }

    #[inline(always)]
    fn and(self, mask: u8) -> Self {
        let mut out = self;
        for byte in &mut out {
            *byte &= mask;
        }
        out
    }

    #[inline(always)]
    fn and_or(self, mask: u8, other: Self) -> Self {
        let mut out = self;
        for (byte, other) in out.iter_mut().zip(other) {
            *byte = *byte & mask | other;
        }
        out
    }

    #[inline(always)]
    fn lower<const BITS: u32>(self) -> Self {
        let mut out = self;
        for byte in &mut out {
            *byte >>= BITS;
        }
        out
    }

    #[inline(always)]
    fn raise<const BITS: u32>(self) -> Self {
        let mut out = self;
        for byte in &mut out {
            *byte <<= BITS;
        }
        out
    }

    #[inline(always)]
    fn look_up(self, table: &[u8; 16]) -> Self {
        self.map(|byte| table[usize::from(byte & 15)])
    }

    #[inline(always)]
    fn dots<const N: usize, const T: usize>(
        groups: [Self; N],
        quants: &[[i8; COLUMNS]; T],
        from: usize,
        starts: [i32; T],
        shift: u32,
        _max: u8,
    ) -> [Self::Lanes; T] {
        let mut out = [[0.0; ROWS]; T];
        for (token, out) in out.iter_mut().enumerate() {
            // Two products beside each other make one sum, over all groups: what compilers know an instruction for.
            let mut pairs = [0i32; 2 * ROWS];
            for (group, quants) in groups.iter().zip(quants[token][from..].as_chunks::<4>().0) {
                let mut repeated = [0i16; 4 * ROWS];
                for four in repeated.as_chunks_mut::<4>().0 {
                    *four = [
                        i16::from(quants[0]),
                        i16::from(quants[1]),
                        i16::from(quants[2]),
                        i16::from(quants[3]),
                    ];
                }
                let mut codes = [0i16; 4 * ROWS];
                for (wide, code) in codes.iter_mut().zip(group) {
                    *wide = i16::from(*code);
                }
                for (i, pair) in pairs.iter_mut().enumerate() {
                    *pair += i32::from(codes[2 * i]) * i32::from(repeated[2 * i])
                        + i32::from(codes[2 * i + 1]) * i32::from(repeated[2 * i + 1]);
                }
            }
            let start = starts[token] << shift;
            for (row, out) in out.iter_mut().enumerate() {
                *out = (start + pairs[2 * row] + pairs[2 * row + 1]) as f32;
            }
        }
        out
    }
}

impl Lanes for [f32; ROWS] {
    const PARTS: usize = 1;

    #[inline(always)]
    fn all(self, value: f32) -> Self {
        [value; ROWS]
    }

    #[inline(always)]
    fn load(self, values: &[f32; ROWS], _part: usize) -> Self {
        *values
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; ROWS], _part: usize) {
        *values = self;
    }

    #[inline(always)]
    fn load_half(self, halves: &[u16; ROWS], _part: usize) -> Self {
        halves.map(half)
    }

    #[inline(always)]
    fn load_brain(self, brains: &[u16; ROWS], _part: usize) -> Self {
        brains.map(brain)
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; ROWS], _part: usize) -> Self {
        bytes.map(f32::from)
    }

    #[inline(always)]
    fn load_signed(self, bytes: &[i8; ROWS], _part: usize) -> Self {
        bytes.map(f32::from)
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        let mut out = self;
        for (value, other) in out.iter_mut().zip(other) {
            *value += other;
        }
        out
    }

    #[inline(always)]
    fn times(self, other: Self) -> Self {
        let mut out = self;
        for (value, other) in out.iter_mut().zip(other) {
            *value *= other;
        }
        out
    }

    #[inline(always)]
    fn times_plus(self, factor: Self, addend: Self) -> Self {
        // Without the instruction `mul_add` would be a call.
        let fused = cfg!(any(target_feature = "fma", target_arch = "aarch64"));
        let mut out = addend;
        for (row, value) in out.iter_mut().enumerate() {
            *value =
                if fused { self[row].mul_add(factor[row], *value) } else { self[row] * factor[row] + *value };
        }
        out
    }
}
