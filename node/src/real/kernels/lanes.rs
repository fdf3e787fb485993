//! Sixteen f32 at a time, at each level: what kernels that are no integer products are written over.

use super::halves::half;

/// Lanes of a vector.
pub(in crate::real) const LANES: usize = 16;

/// Sixteen f32 of one SIMD level. Each operation is the same on every lane; `fma` rounds once where the level has it.
///
/// # Safety
/// All methods: only on a processor that has the level; pointers must be good for sixteen elements.
pub(super) trait Lanes: Copy {
    /// Vectors of a row that a kernel keeps in registers for four rows.
    const TILES: usize;

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn load_f16(from: *const u16) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn fma(self, by: Self, plus: Self) -> Self;
}

/// The compiler's own vectors.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; LANES]);

impl Lanes for Portable {
    const TILES: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { from.cast::<[f32; LANES]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: the caller's.
        let bits = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        let mut wide = [0.0; LANES];
        for (wide, bits) in wide.iter_mut().zip(bits) {
            *wide = half(bits);
        }
        Self(wide)
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(self.0) };
    }

    #[inline(always)]
    unsafe fn fma(self, by: Self, plus: Self) -> Self {
        let mut out = plus.0;
        for ((out, value), by) in out.iter_mut().zip(self.0).zip(by.0) {
            // Without the instruction `mul_add` is a call into the mathematical library.
            *out = if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
                value.mul_add(by, *out)
            } else {
                value * by + *out
            };
        }
        Self(out)
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use self::x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Lanes;

    #[derive(Clone, Copy)]
    pub(in crate::real::kernels) struct Avx512(__m512);

    impl Lanes for Avx512 {
        const TILES: usize = 4;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: the caller has the level.
            Self(unsafe { _mm512_set1_ps(value) })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller has the level, and sixteen elements there.
            Self(unsafe { _mm512_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn load_f16(from: *const u16) -> Self {
            // SAFETY: the caller has the level, and sixteen elements there.
            Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller has the level, and room for sixteen elements there.
            unsafe { _mm512_storeu_ps(to, self.0) };
        }

        #[inline(always)]
        unsafe fn fma(self, by: Self, plus: Self) -> Self {
            // SAFETY: the caller has the level.
            Self(unsafe { _mm512_fmadd_ps(self.0, by.0, plus.0) })
        }
    }

    #[derive(Clone, Copy)]
    pub(in crate::real::kernels) struct Avx2(__m256, __m256);

    impl Lanes for Avx2 {
        const TILES: usize = 1;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: the caller has the level.
            unsafe { Self(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller has the level, and sixteen elements there.
            unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
        }

        #[inline(always)]
        unsafe fn load_f16(from: *const u16) -> Self {
            // SAFETY: the caller has the level, and sixteen elements there.
            unsafe {
                let (low, high) = (_mm_loadu_si128(from.cast()), _mm_loadu_si128(from.add(8).cast()));
                Self(_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
            }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller has the level, and room for sixteen elements there.
            unsafe {
                _mm256_storeu_ps(to, self.0);
                _mm256_storeu_ps(to.add(8), self.1);
            }
        }

        #[inline(always)]
        unsafe fn fma(self, by: Self, plus: Self) -> Self {
            // SAFETY: the caller has the level.
            unsafe { Self(_mm256_fmadd_ps(self.0, by.0, plus.0), _mm256_fmadd_ps(self.1, by.1, plus.1)) }
        }
    }
}

/// Defines a function that runs the same inlined body compiled for each level.
macro_rules! at_each_level {
    ($(#[$doc:meta])* $visible:vis fn $name:ident($($arg:ident: $kind:ty),* $(,)?) $(-> $out:ty)? = $body:path) => {
        $(#[$doc])*
        $visible fn $name(level: $crate::real::kernels::Level, $($arg: $kind),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
                fn avx512($($arg: $kind),*) $(-> $out)? {
                    $body($($arg),*)
                }
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($arg: $kind),*) $(-> $out)? {
                    $body($($arg),*)
                }
                match level.available() {
                    // SAFETY: the level is available.
                    $crate::real::kernels::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: the level is available.
                    $crate::real::kernels::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::real::kernels::Level::Portable => {}
                }
            }
            let _ = level;
            $body($($arg),*)
        }
    };
}
pub(in crate::real) use at_each_level;
