//! The vectors of x86, and the kernels compiled for them.
//!
//! Nothing outside this file makes a vector type's first value, and the kernels do so only once the level is known to be
//! there.

use std::arch::x86_64::*;

use super::activations::{Block, quantise_rows};
use super::floats::{Column, Weight};
use super::multiply;
use super::tile::{COLUMNS, Codes, Group, ROWS, Scales, Tile};
use super::vector::{Lanes, Vector};

/// 8 rows of bytes.
#[derive(Clone, Copy)]
pub(super) struct Bytes256(__m256i);

/// 16 rows of bytes.
#[derive(Clone, Copy)]
pub(super) struct Bytes512(__m512i);

/// 8 rows of floats.
#[derive(Clone, Copy)]
pub(super) struct Floats256(__m256);

/// 16 rows of floats.
#[derive(Clone, Copy)]
pub(super) struct Floats512(__m512);

/// 4 quants, as the 32 bits that are broadcast to all rows.
#[inline(always)]
fn four(quants: &[i8; COLUMNS], from: usize) -> i32 {
    let byte = |i: usize| quants[from + i] as u8;
    i32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])
}

/// Starts, shifted to the left: of several tokens together and in memory, from where a load can broadcast them. Left in
/// registers, each would take two more instructions of the units that multiply.
#[inline(always)]
fn shifted<const T: usize>(mut starts: [i32; T], shift: u32) -> [i32; T] {
    for start in &mut starts {
        *start <<= shift;
    }
    if T == 1 { starts } else { std::hint::black_box(starts) }
}

/// The lower or upper half of what is stored for 16 rows.
#[inline(always)]
fn part_of<T, const N: usize>(rows: &[T], part: usize) -> &[T; N] {
    rows[part * N..].first_chunk().expect("two parts are 16 rows")
}

impl Vector for Bytes512 {
    type Lanes = Floats512;
    const PARTS: usize = 1;

    #[inline(always)]
    fn load(self, group: &Group, _part: usize) -> Self {
        // SAFETY: AVX-512 is there, since `self` is; a group has the 64 bytes that are read.
        Self(unsafe { _mm512_loadu_si512(group.as_ptr().cast()) })
    }

    #[inline(always)]
    fn and(self, mask: u8) -> Self {
        // SAFETY: AVX-512 is there, since `self` is.
        Self(unsafe { _mm512_and_si512(self.0, _mm512_set1_epi8(mask as i8)) })
    }

    #[inline(always)]
    fn and_or(self, mask: u8, other: Self) -> Self {
        // Of the three operands' truth table: (a and b) or c.
        const AND_OR: i32 = 0b1110_1010;
        // SAFETY: AVX-512 is there, since `self` is.
        Self(unsafe { _mm512_ternarylogic_epi32::<AND_OR>(self.0, _mm512_set1_epi8(mask as i8), other.0) })
    }

    #[inline(always)]
    fn lower<const BITS: u32>(self) -> Self {
        // SAFETY: AVX-512 is there, since `self` is.
        Self(unsafe { _mm512_srli_epi16::<BITS>(self.0) })
    }

    #[inline(always)]
    fn raise<const BITS: u32>(self) -> Self {
        // SAFETY: AVX-512 is there, since `self` is.
        Self(unsafe { _mm512_slli_epi16::<BITS>(self.0) })
    }

    #[inline(always)]
    fn look_up(self, table: &[u8; 16]) -> Self {
        // SAFETY: AVX-512 is there, since `self` is; the table has the 16 bytes that are read.
        Self(unsafe {
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            _mm512_shuffle_epi8(table, self.0)
        })
    }

    #[inline(always)]
    fn dots<const N: usize, const T: usize>(
        groups: [Self; N],
        quants: &[[i8; COLUMNS]; T],
        from: usize,
        starts: [i32; T],
        shift: u32,
        _max: u8,
    ) -> [Floats512; T] {
        // SAFETY: AVX-512 with VNNI is there, since a group is.
        unsafe {
            let starts = shifted(starts, shift);
            let mut sums = [_mm512_setzero_si512(); T];
            for (sum, start) in sums.iter_mut().zip(starts) {
                *sum = _mm512_set1_epi32(start);
            }
            // Tokens innermost: their sums do not wait for each other.
            for (number, group) in groups.iter().enumerate() {
                for (sum, quants) in sums.iter_mut().zip(quants) {
                    *sum = _mm512_dpbusd_epi32(
                        *sum,
                        group.0,
                        _mm512_set1_epi32(four(quants, from + 4 * number)),
                    );
                }
            }
            let mut floats = [Floats512(_mm512_setzero_ps()); T];
            for (float, sum) in floats.iter_mut().zip(sums) {
                *float = Floats512(_mm512_cvtepi32_ps(sum));
            }
            floats
        }
    }
}

impl Lanes for Floats512 {
    const PARTS: usize = 1;

    #[inline(always)]
    fn all(self, value: f32) -> Self {
        // SAFETY: AVX-512 is there, since `self` is.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    fn load(self, values: &[f32; ROWS], _part: usize) -> Self {
        // SAFETY: AVX-512 is there, since `self` is; there are the 16 floats that are read.
        Self(unsafe { _mm512_loadu_ps(values.as_ptr()) })
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; ROWS], _part: usize) {
        // SAFETY: AVX-512 is there, since `self` is; there is room for the 16 floats that are written.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn load_half(self, halves: &[u16; ROWS], _part: usize) -> Self {
        // SAFETY: AVX-512 is there, since `self` is; there are the 32 bytes that are read.
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(halves.as_ptr().cast())) })
    }

    #[inline(always)]
    fn load_brain(self, brains: &[u16; ROWS], _part: usize) -> Self {
        // SAFETY: AVX-512 is there, since `self` is; there are the 32 bytes that are read.
        Self(unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(brains.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        })
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; ROWS], _part: usize) -> Self {
        // SAFETY: AVX-512 is there, since `self` is; there are the 16 bytes that are read.
        Self(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.as_ptr().cast()))) })
    }

    #[inline(always)]
    fn load_signed(self, bytes: &[i8; ROWS], _part: usize) -> Self {
        // SAFETY: AVX-512 is there, since `self` is; there are the 16 bytes that are read.
        Self(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(bytes.as_ptr().cast()))) })
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        // SAFETY: AVX-512 is there, since `self` is.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn times(self, other: Self) -> Self {
        // SAFETY: AVX-512 is there, since `self` is.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn times_plus(self, factor: Self, addend: Self) -> Self {
        // SAFETY: AVX-512 is there, since `self` is.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
    }
}

impl Bytes256 {
    /// Products of 4 codes each with 4 quants, in lanes of 16 bits: two products in each.
    #[inline(always)]
    fn pairs(self, quants: i32, max: u8) -> __m256i {
        // SAFETY: AVX2 is there, since `self` is.
        unsafe {
            let quants = _mm256_set1_epi32(quants);
            if max <= 127 {
                return _mm256_maddubs_epi16(self.0, quants);
            }
            // Less 128, these are signed; their magnitudes are multiplied, and the quants get their signs.
            let signed = _mm256_xor_si256(self.0, _mm256_set1_epi8(-128));
            _mm256_maddubs_epi16(_mm256_abs_epi8(signed), _mm256_sign_epi8(quants, signed))
        }
    }
}

impl Vector for Bytes256 {
    type Lanes = Floats256;
    const PARTS: usize = 2;

    #[inline(always)]
    fn load(self, group: &Group, part: usize) -> Self {
        // SAFETY: AVX2 is there, since `self` is; half a group has the 32 bytes that are read.
        Self(unsafe { _mm256_loadu_si256(part_of::<u8, 32>(group, part).as_ptr().cast()) })
    }

    #[inline(always)]
    fn and(self, mask: u8) -> Self {
        // SAFETY: AVX2 is there, since `self` is.
        Self(unsafe { _mm256_and_si256(self.0, _mm256_set1_epi8(mask as i8)) })
    }

    #[inline(always)]
    fn and_or(self, mask: u8, other: Self) -> Self {
        // SAFETY: AVX2 is there, since `self` is.
        Self(unsafe { _mm256_or_si256(self.and(mask).0, other.0) })
    }

    #[inline(always)]
    fn lower<const BITS: u32>(self) -> Self {
        // SAFETY: AVX2 is there, since `self` is.
        Self(unsafe { _mm256_srl_epi16(self.0, _mm_cvtsi32_si128(BITS as i32)) })
    }

    #[inline(always)]
    fn raise<const BITS: u32>(self) -> Self {
        // SAFETY: AVX2 is there, since `self` is.
        Self(unsafe { _mm256_sll_epi16(self.0, _mm_cvtsi32_si128(BITS as i32)) })
    }

    #[inline(always)]
    fn look_up(self, table: &[u8; 16]) -> Self {
        // SAFETY: AVX2 is there, since `self` is; the table has the 16 bytes that are read.
        Self(unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_shuffle_epi8(table, self.0)
        })
    }

    #[inline(always)]
    fn dots<const N: usize, const T: usize>(
        groups: [Self; N],
        quants: &[[i8; COLUMNS]; T],
        from: usize,
        starts: [i32; T],
        shift: u32,
        max: u8,
    ) -> [Floats256; T] {
        // How many pairs of products a lane of 16 bits can add up; of signed codes one.
        let room = (i32::from(i16::MAX) / (2 * 127 * i32::from(max))).max(1) as usize;
        // SAFETY: AVX2 is there, since a group is.
        unsafe {
            let mut sums = [_mm256_setzero_si256(); T];
            for (sum, start) in sums.iter_mut().zip(starts) {
                *sum = _mm256_set1_epi32(if max > 127 { 0 } else { start << shift });
            }
            let mut pairs = [_mm256_setzero_si256(); T];
            for (number, group) in groups.iter().enumerate() {
                for token in 0..T {
                    let more = group.pairs(four(&quants[token], from + 4 * number), max);
                    let first = number % room == 0;
                    pairs[token] = if first { more } else { _mm256_add_epi16(pairs[token], more) };
                    if number % room == room - 1 || number == N - 1 {
                        let wide = _mm256_madd_epi16(pairs[token], _mm256_set1_epi16(1));
                        sums[token] = _mm256_add_epi32(sums[token], wide);
                    }
                }
            }
            let mut floats = [Floats256(_mm256_setzero_ps()); T];
            for (float, sum) in floats.iter_mut().zip(sums) {
                *float = Floats256(_mm256_cvtepi32_ps(sum));
            }
            floats
        }
    }
}

impl Lanes for Floats256 {
    const PARTS: usize = 2;

    #[inline(always)]
    fn all(self, value: f32) -> Self {
        // SAFETY: AVX2 is there, since `self` is.
        Self(unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    fn load(self, values: &[f32; ROWS], part: usize) -> Self {
        // SAFETY: AVX2 is there, since `self` is; half of them are the 8 floats that are read.
        Self(unsafe { _mm256_loadu_ps(part_of::<f32, 8>(values, part).as_ptr()) })
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; ROWS], part: usize) {
        let values: &mut [f32; 8] = values[8 * part..].first_chunk_mut().expect("two parts are 16 rows");
        // SAFETY: AVX2 is there, since `self` is; half of them are the 8 floats that are written.
        unsafe { _mm256_storeu_ps(values.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn load_half(self, halves: &[u16; ROWS], part: usize) -> Self {
        // SAFETY: AVX2 and F16C are there, since `self` is; half of them are the 16 bytes that are read.
        Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(part_of::<u16, 8>(halves, part).as_ptr().cast())) })
    }

    #[inline(always)]
    fn load_brain(self, brains: &[u16; ROWS], part: usize) -> Self {
        // SAFETY: AVX2 is there, since `self` is; half of them are the 16 bytes that are read.
        Self(unsafe {
            let brains = _mm_loadu_si128(part_of::<u16, 8>(brains, part).as_ptr().cast());
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(brains)))
        })
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; ROWS], part: usize) -> Self {
        // SAFETY: AVX2 is there, since `self` is; half of them are the 8 bytes that are read.
        Self(unsafe {
            let bytes = _mm_loadl_epi64(part_of::<u8, 8>(bytes, part).as_ptr().cast());
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes))
        })
    }

    #[inline(always)]
    fn load_signed(self, bytes: &[i8; ROWS], part: usize) -> Self {
        // SAFETY: AVX2 is there, since `self` is; half of them are the 8 bytes that are read.
        Self(unsafe {
            let bytes = _mm_loadl_epi64(part_of::<i8, 8>(bytes, part).as_ptr().cast());
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))
        })
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        // SAFETY: AVX2 is there, since `self` is.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn times(self, other: Self) -> Self {
        // SAFETY: AVX2 is there, since `self` is.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn times_plus(self, factor: Self, addend: Self) -> Self {
        // SAFETY: AVX2 and FMA are there, since `self` is.
        Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, addend.0) })
    }
}

/// The kernels, compiled for a level's instructions.
macro_rules! compiled_for {
    ($level:ident, $features:literal, $bytes:expr, $floats:expr) => {
        pub(super) mod $level {
            use super::*;

            #[target_feature(enable = $features)]
            pub(in super::super) fn multiply<C: Codes, S: Scales, const BLOCKS: usize, const T: usize>(
                tiles: &[Tile<C, S, BLOCKS>],
                panel: &[Block<T>],
                sums: &mut [[f32; ROWS]; T],
            ) {
                multiply::multiply($bytes, $floats, tiles, panel, sums);
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn multiply_floats<W: Weight, const T: usize>(
                columns: &[Column<W>],
                panel: &[[f32; T]],
                sums: &mut [[f32; ROWS]; T],
            ) {
                multiply::multiply_floats($floats, columns, panel, sums);
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn quantise<const T: usize>(rows: &[f32], records: &mut [Block<T>]) {
                quantise_rows(rows, records);
            }
        }
    };
}

compiled_for!(avx2, "avx2,fma,f16c", Bytes256(_mm256_setzero_si256()), Floats256(_mm256_setzero_ps()));
compiled_for!(
    avx512,
    "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c",
    Bytes512(_mm512_setzero_si512()),
    Floats512(_mm512_setzero_ps())
);
