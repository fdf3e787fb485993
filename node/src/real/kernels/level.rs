//! Which instructions the kernels may use.

use std::fmt;

/// A set of instructions, from the one every machine has to the widest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// What every processor of the target has: SSE2 on x86-64, NEON on 64-bit Arm (with its dot products where there are
    /// any), elsewhere what the compiler makes of plain Rust.
    Portable,
    /// AVX2 with FMA and F16C: x86 since about 2013.
    Avx2,
    /// AVX-512 with VNNI (F, BW, VL and VNNI): servers since 2019, AMD since Zen 4.
    Avx512,
}

impl Level {
    /// All levels, from the least to the widest.
    pub const ALL: [Level; 3] = [Level::Portable, Level::Avx2, Level::Avx512];

    /// The widest level of this machine.
    pub fn best() -> Self {
        if avx512() {
            Level::Avx512
        } else if avx2() {
            Level::Avx2
        } else {
            Level::Portable
        }
    }

    /// This level, or the machine's best where that is less: what is not there cannot be forced.
    pub fn available(self) -> Self {
        self.min(Self::best())
    }
}

#[cfg(target_arch = "x86_64")]
fn avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
fn avx512() -> bool {
    avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

#[cfg(not(target_arch = "x86_64"))]
fn avx2() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn avx512() -> bool {
    false
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        })
    }
}
