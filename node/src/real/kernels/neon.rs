//! The plain level on 64-bit Arm: NEON, which every such processor has, and its dot products where the machine has them
//! (Apple's since M1, Arm's since Cortex-A76). The sums are of integers, so that both give the same bits.

use std::arch::aarch64::*;
use std::arch::asm;

use super::halves::{brain, half};
use super::tile::{COLUMNS, Group, ROWS};
use super::vector::{Lanes, Vector};

/// Vectors of 16 rows.
const QUARTERS: usize = 4;

/// 16 rows of bytes. With `DOT`, a value exists only where there are dot products.
#[derive(Clone, Copy)]
pub(super) struct Bytes128<const DOT: bool>([uint8x16_t; QUARTERS]);

/// 16 rows of floats.
#[derive(Clone, Copy)]
pub(super) struct Floats128([float32x4_t; QUARTERS]);

/// Whether the machine has dot products.
pub(super) fn has_dot_products() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod")
}

impl Bytes128<false> {
    /// A first value.
    #[inline(always)]
    pub(super) fn zero() -> Self {
        // SAFETY: the target has NEON.
        Self([unsafe { vdupq_n_u8(0) }; QUARTERS])
    }
}

impl Bytes128<true> {
    /// A first value.
    ///
    /// # Safety
    /// The machine has dot products.
    #[inline(always)]
    pub(super) unsafe fn zero() -> Self {
        // SAFETY: the target has NEON.
        Self([unsafe { vdupq_n_u8(0) }; QUARTERS])
    }
}

impl Floats128 {
    /// A first value.
    #[inline(always)]
    pub(super) fn zero() -> Self {
        // SAFETY: the target has NEON.
        Self([unsafe { vdupq_n_f32(0.0) }; QUARTERS])
    }
}

/// 4 quants, repeated for 4 rows.
#[inline(always)]
fn repeated(quants: [i8; 4]) -> int8x16_t {
    let bits = u32::from_le_bytes([quants[0] as u8, quants[1] as u8, quants[2] as u8, quants[3] as u8]);
    // SAFETY: the target has NEON.
    unsafe { vreinterpretq_s8_u32(vdupq_n_u32(bits)) }
}

/// Adds to each lane of 32 bits the products of its four bytes.
///
/// # Safety
/// The machine has dot products.
#[inline(always)]
unsafe fn dot(mut sums: int32x4_t, codes: int8x16_t, quants: int8x16_t) -> int32x4_t {
    // The intrinsic is not stable yet.
    // SAFETY: the caller's; it reads and writes nothing but these registers.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {sums:v}.4s, {codes:v}.16b, {quants:v}.16b",
            sums = inout(vreg) sums,
            codes = in(vreg) codes,
            quants = in(vreg) quants,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

impl<const DOT: bool> Vector for Bytes128<DOT> {
    type Lanes = Floats128;
    const PARTS: usize = 1;

    #[inline(always)]
    fn load(self, group: &Group, _part: usize) -> Self {
        let mut out = self;
        for (out, bytes) in out.0.iter_mut().zip(group.as_chunks::<16>().0) {
            // SAFETY: the target has NEON; there are the 16 bytes that are read.
            *out = unsafe { vld1q_u8(bytes.as_ptr()) };
        }
        out
    }

    #[inline(always)]
    fn and(self, mask: u8) -> Self {
        let mut out = self;
        for bytes in &mut out.0 {
            // SAFETY: the target has NEON.
            *bytes = unsafe { vandq_u8(*bytes, vdupq_n_u8(mask)) };
        }
        out
    }

    #[inline(always)]
    fn and_or(self, mask: u8, other: Self) -> Self {
        let mut out = self.and(mask);
        for (bytes, other) in out.0.iter_mut().zip(other.0) {
            // SAFETY: the target has NEON.
            *bytes = unsafe { vorrq_u8(*bytes, other) };
        }
        out
    }

    #[inline(always)]
    fn lower<const BITS: u32>(self) -> Self {
        let mut out = self;
        for bytes in &mut out.0 {
            // SAFETY: the target has NEON.
            *bytes = unsafe { vshlq_u8(*bytes, vdupq_n_s8(-(BITS as i8))) };
        }
        out
    }

    #[inline(always)]
    fn raise<const BITS: u32>(self) -> Self {
        let mut out = self;
        for bytes in &mut out.0 {
            // SAFETY: the target has NEON.
            *bytes = unsafe { vshlq_u8(*bytes, vdupq_n_s8(BITS as i8)) };
        }
        out
    }

    #[inline(always)]
    fn look_up(self, table: &[u8; 16]) -> Self {
        let mut out = self;
        for bytes in &mut out.0 {
            // SAFETY: the target has NEON; the table has the 16 bytes that are read.
            *bytes = unsafe { vqtbl1q_u8(vld1q_u8(table.as_ptr()), *bytes) };
        }
        out
    }

    #[inline(always)]
    fn dots<const N: usize, const T: usize>(
        groups: [Self; N],
        quants: &[[i8; COLUMNS]; T],
        from: usize,
        starts: [i32; T],
        shift: u32,
        max: u8,
    ) -> [Floats128; T] {
        // Codes above 127 become signed by taking 128 away, which is what their starts would have made good.
        let (flip, is_signed) = (if max > 127 { 128 } else { 0 }, max > 127);
        let mut out = [Floats128::zero(); T];
        for (token, out) in out.iter_mut().enumerate() {
            let start = if is_signed { 0 } else { starts[token] << shift };
            let quants = quants[token][from..].as_chunks::<4>().0;
            // SAFETY: the target has NEON, and the machine dot products where `DOT` says so.
            unsafe {
                let mut sums = [vdupq_n_s32(start); QUARTERS];
                if DOT {
                    for (group, quants) in groups.iter().zip(quants) {
                        for (sum, codes) in sums.iter_mut().zip(group.0) {
                            let codes = vreinterpretq_s8_u8(veorq_u8(codes, vdupq_n_u8(flip)));
                            *sum = dot(*sum, codes, repeated(*quants));
                        }
                    }
                } else {
                    // Two rows each, with two sums a row: products of two groups fit 16 bits.
                    let mut pairs = [[vdupq_n_s32(0); 2]; QUARTERS];
                    for (two, quants) in groups.as_chunks::<2>().0.iter().zip(quants.as_chunks::<2>().0) {
                        let [first, second] = [repeated(quants[0]), repeated(quants[1])];
                        for (quarter, [low, high]) in pairs.iter_mut().enumerate() {
                            let codes =
                                |i: usize| vreinterpretq_s8_u8(veorq_u8(two[i].0[quarter], vdupq_n_u8(flip)));
                            let (one, other) = (codes(0), codes(1));
                            let products = vmull_s8(vget_low_s8(one), vget_low_s8(first));
                            let products = vmlal_s8(products, vget_low_s8(other), vget_low_s8(second));
                            *low = vpadalq_s16(*low, products);
                            let products = vmull_high_s8(one, first);
                            let products = vmlal_high_s8(products, other, second);
                            *high = vpadalq_s16(*high, products);
                        }
                    }
                    for (sum, [low, high]) in sums.iter_mut().zip(pairs) {
                        *sum = vaddq_s32(*sum, vpaddq_s32(low, high));
                    }
                }
                for (out, sum) in out.0.iter_mut().zip(sums) {
                    *out = vcvtq_f32_s32(sum);
                }
            }
        }
        out
    }
}

impl Lanes for Floats128 {
    const PARTS: usize = 1;

    #[inline(always)]
    fn all(self, value: f32) -> Self {
        // SAFETY: the target has NEON.
        Self([unsafe { vdupq_n_f32(value) }; QUARTERS])
    }

    #[inline(always)]
    fn load(self, values: &[f32; ROWS], _part: usize) -> Self {
        let mut out = self;
        for (out, values) in out.0.iter_mut().zip(values.as_chunks::<4>().0) {
            // SAFETY: the target has NEON; there are the 4 floats that are read.
            *out = unsafe { vld1q_f32(values.as_ptr()) };
        }
        out
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; ROWS], _part: usize) {
        for (values, lanes) in values.as_chunks_mut::<4>().0.iter_mut().zip(self.0) {
            // SAFETY: the target has NEON; there is room for the 4 floats that are written.
            unsafe { vst1q_f32(values.as_mut_ptr(), lanes) };
        }
    }

    #[inline(always)]
    fn load_half(self, halves: &[u16; ROWS], part: usize) -> Self {
        let mut wide = [0.0; ROWS];
        for (wide, bits) in wide.iter_mut().zip(halves) {
            *wide = half(*bits);
        }
        self.load(&wide, part)
    }

    #[inline(always)]
    fn load_brain(self, brains: &[u16; ROWS], part: usize) -> Self {
        let mut wide = [0.0; ROWS];
        for (wide, bits) in wide.iter_mut().zip(brains) {
            *wide = brain(*bits);
        }
        self.load(&wide, part)
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; ROWS], part: usize) -> Self {
        let mut wide = [0.0; ROWS];
        for (wide, byte) in wide.iter_mut().zip(bytes) {
            *wide = f32::from(*byte);
        }
        self.load(&wide, part)
    }

    #[inline(always)]
    fn load_signed(self, bytes: &[i8; ROWS], part: usize) -> Self {
        let mut wide = [0.0; ROWS];
        for (wide, byte) in wide.iter_mut().zip(bytes) {
            *wide = f32::from(*byte);
        }
        self.load(&wide, part)
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        let mut out = self;
        for (value, other) in out.0.iter_mut().zip(other.0) {
            // SAFETY: the target has NEON.
            *value = unsafe { vaddq_f32(*value, other) };
        }
        out
    }

    #[inline(always)]
    fn times(self, other: Self) -> Self {
        let mut out = self;
        for (value, other) in out.0.iter_mut().zip(other.0) {
            // SAFETY: the target has NEON.
            *value = unsafe { vmulq_f32(*value, other) };
        }
        out
    }

    #[inline(always)]
    fn times_plus(self, factor: Self, addend: Self) -> Self {
        let mut out = addend;
        for (row, value) in out.0.iter_mut().enumerate() {
            // SAFETY: the target has NEON.
            *value = unsafe { vfmaq_f32(*value, self.0[row], factor.0[row]) };
        }
        out
    }
}
