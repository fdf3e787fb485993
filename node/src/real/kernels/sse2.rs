//! The plain level on x86-64: SSE2, which every such processor has. Compilers make the same sums of plain code, but with
//! several times the instructions.

use std::arch::x86_64::*;

use super::halves::{brain, half};
use super::tile::{COLUMNS, Group, ROWS};
use super::vector::{Lanes, Vector};

/// Vectors of 16 rows.
const QUARTERS: usize = 4;

/// 16 rows of bytes.
#[derive(Clone, Copy)]
pub(super) struct Bytes128([__m128i; QUARTERS]);

/// 16 rows of floats.
#[derive(Clone, Copy)]
pub(super) struct Floats128([__m128; QUARTERS]);

impl Bytes128 {
    /// A first value.
    #[inline(always)]
    pub(super) fn zero() -> Self {
        // SAFETY: the target has SSE2.
        Self([unsafe { _mm_setzero_si128() }; QUARTERS])
    }

    /// Codes in 16 bits: columns 0 and 2 of each row, and 1 and 3.
    #[inline(always)]
    fn by_parity(self) -> [[__m128i; 2]; QUARTERS] {
        // SAFETY: the target has SSE2.
        unsafe {
            let mut wide = [[self.0[0]; 2]; QUARTERS];
            for (wide, bytes) in wide.iter_mut().zip(self.0) {
                *wide = [_mm_and_si128(bytes, _mm_set1_epi16(255)), _mm_srli_epi16::<8>(bytes)];
            }
            wide
        }
    }
}

impl Floats128 {
    /// A first value.
    #[inline(always)]
    pub(super) fn zero() -> Self {
        // SAFETY: the target has SSE2.
        Self([unsafe { _mm_setzero_ps() }; QUARTERS])
    }
}

/// The 4 quants of group `first + i` of 16, each repeated for 4 rows: those of columns 0 and 2, and of 1 and 3.
#[inline(always)]
fn repeated(quants: &[i8; 16]) -> [[__m128i; 2]; 4] {
    // SAFETY: the target has SSE2; there are the 16 bytes that are read.
    unsafe {
        let quants = _mm_loadu_si128(quants.as_ptr().cast());
        let even = _mm_srai_epi16::<8>(_mm_slli_epi16::<8>(quants));
        let odd = _mm_srai_epi16::<8>(quants);
        [
            [_mm_shuffle_epi32::<0x00>(even), _mm_shuffle_epi32::<0x00>(odd)],
            [_mm_shuffle_epi32::<0x55>(even), _mm_shuffle_epi32::<0x55>(odd)],
            [_mm_shuffle_epi32::<0xaa>(even), _mm_shuffle_epi32::<0xaa>(odd)],
            [_mm_shuffle_epi32::<0xff>(even), _mm_shuffle_epi32::<0xff>(odd)],
        ]
    }
}

impl Vector for Bytes128 {
    type Lanes = Floats128;
    const PARTS: usize = 1;

    #[inline(always)]
    fn load(self, group: &Group, _part: usize) -> Self {
        let mut out = self;
        for (out, bytes) in out.0.iter_mut().zip(group.as_chunks::<16>().0) {
            // SAFETY: the target has SSE2; there are the 16 bytes that are read.
            *out = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
        }
        out
    }

    #[inline(always)]
    fn and(self, mask: u8) -> Self {
        let mut out = self;
        for bytes in &mut out.0 {
            // SAFETY: the target has SSE2.
            *bytes = unsafe { _mm_and_si128(*bytes, _mm_set1_epi8(mask as i8)) };
        }
        out
    }

    #[inline(always)]
    fn and_or(self, mask: u8, other: Self) -> Self {
        let mut out = self.and(mask);
        for (bytes, other) in out.0.iter_mut().zip(other.0) {
            // SAFETY: the target has SSE2.
            *bytes = unsafe { _mm_or_si128(*bytes, other) };
        }
        out
    }

    #[inline(always)]
    fn lower<const BITS: u32>(self) -> Self {
        let mut out = self;
        for bytes in &mut out.0 {
            // SAFETY: the target has SSE2.
            *bytes = unsafe { _mm_srl_epi16(*bytes, _mm_cvtsi32_si128(BITS as i32)) };
        }
        out
    }

    #[inline(always)]
    fn raise<const BITS: u32>(self) -> Self {
        let mut out = self;
        for bytes in &mut out.0 {
            // SAFETY: the target has SSE2.
            *bytes = unsafe { _mm_sll_epi16(*bytes, _mm_cvtsi32_si128(BITS as i32)) };
        }
        out
    }

    #[inline(always)]
    fn look_up(self, table: &[u8; 16]) -> Self {
        let mut out = Self::zero();
        // SSE2 has no instruction for it: each entry is put where its number stands.
        for (number, entry) in table.iter().enumerate() {
            for (out, bytes) in out.0.iter_mut().zip(self.0) {
                // SAFETY: the target has SSE2.
                *out = unsafe {
                    let here = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(number as i8));
                    _mm_or_si128(*out, _mm_and_si128(here, _mm_set1_epi8(*entry as i8)))
                };
            }
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
        _max: u8,
    ) -> [Floats128; T] {
        let mut wide = [[[groups[0].0[0]; 2]; QUARTERS]; N];
        for (wide, group) in wide.iter_mut().zip(groups) {
            *wide = group.by_parity();
        }
        let mut out = [Floats128::zero(); T];
        for (token, out) in out.iter_mut().enumerate() {
            // SAFETY: the target has SSE2.
            unsafe {
                let mut sums = [_mm_set1_epi32(starts[token] << shift); QUARTERS];
                for (four, quants) in wide.chunks_exact(4).zip(quants[token][from..].as_chunks::<16>().0) {
                    for (wide, quants) in four.iter().zip(repeated(quants)) {
                        for (sum, codes) in sums.iter_mut().zip(wide) {
                            let even = _mm_madd_epi16(codes[0], quants[0]);
                            let odd = _mm_madd_epi16(codes[1], quants[1]);
                            *sum = _mm_add_epi32(*sum, _mm_add_epi32(even, odd));
                        }
                    }
                }
                for (out, sum) in out.0.iter_mut().zip(sums) {
                    *out = _mm_cvtepi32_ps(sum);
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
        // SAFETY: the target has SSE2.
        Self([unsafe { _mm_set1_ps(value) }; QUARTERS])
    }

    #[inline(always)]
    fn load(self, values: &[f32; ROWS], _part: usize) -> Self {
        let mut out = self;
        for (out, values) in out.0.iter_mut().zip(values.as_chunks::<4>().0) {
            // SAFETY: the target has SSE2; there are the 4 floats that are read.
            *out = unsafe { _mm_loadu_ps(values.as_ptr()) };
        }
        out
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; ROWS], _part: usize) {
        for (values, lanes) in values.as_chunks_mut::<4>().0.iter_mut().zip(self.0) {
            // SAFETY: the target has SSE2; there is room for the 4 floats that are written.
            unsafe { _mm_storeu_ps(values.as_mut_ptr(), lanes) };
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
            // SAFETY: the target has SSE2.
            *value = unsafe { _mm_add_ps(*value, other) };
        }
        out
    }

    #[inline(always)]
    fn times(self, other: Self) -> Self {
        let mut out = self;
        for (value, other) in out.0.iter_mut().zip(other.0) {
            // SAFETY: the target has SSE2.
            *value = unsafe { _mm_mul_ps(*value, other) };
        }
        out
    }

    #[inline(always)]
    fn times_plus(self, factor: Self, addend: Self) -> Self {
        self.times(factor).plus(addend)
    }
}
