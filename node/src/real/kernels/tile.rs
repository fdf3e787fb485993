//! What a packed matrix is made of: tiles of 16 rows.
//!
//! A tile holds one block of the file's format (32 or 256 columns) of 16 rows, in as many bytes, but turned around: where
//! a row's block lay together in the file, here the 16 rows lie side by side, so that a vector register has one lane a
//! row and no sum ever runs across lanes. The columns go four by four, since the integer dot product instructions sum
//! four bytes into a lane: 16 rows by 4 columns are a [`Group`], 8 groups are 32 columns.
//!
//! Each format is a way to store codes ([`codes`](super::codes)), unsigned integers of at most 8 bits, and a way to
//! store what makes weights of them ([`scales`](super::scales)).

use bytemuck::Zeroable;

/// Rows of a tile: the 32-bit lanes of a 512-bit register.
pub(super) const ROWS: usize = 16;

/// Columns that share a scale of the activations.
pub(super) const COLUMNS: usize = 32;

/// 4 columns of 16 rows: byte `4 * row + column`.
pub(super) type Group = [u8; 4 * ROWS];

/// Groups of a block of [`COLUMNS`].
pub(super) const GROUPS: usize = COLUMNS / 4;

/// A block of 16 rows by `BLOCKS * 32` columns.
#[derive(Clone, Copy, Zeroable)]
#[repr(C)]
pub(super) struct Tile<C, S, const BLOCKS: usize> {
    pub(super) scales: S,
    pub(super) codes: [C; BLOCKS],
}

/// How codes are stored: unsigned integers, of which a weight is a multiple plus an offset.
pub(super) trait Codes: Zeroable + Copy + Send + Sync + 'static {
    /// What stands for zero is `1 << MIDDLE_LOG2`, in formats without a minimum.
    const MIDDLE_LOG2: u32;
    /// The largest code.
    const MAX: u8;

    /// Stores the codes of 32 columns of a row.
    fn set(&mut self, row: usize, codes: &[u8; COLUMNS]);

    /// All codes.
    fn groups(&self) -> [Group; GROUPS];
}

/// What a format's scales are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scaling {
    /// One scale for 32 columns; codes are off by the middle.
    Whole,
    /// One scale and one minimum for 32 columns.
    WholeMin,
    /// One scale, times a small integer for each 16 columns; codes are off by the middle.
    Halves,
    /// As before, and a minimum, times a small integer for each 16 columns.
    HalvesMin,
}

/// How scales are stored.
pub(super) trait Scales: Zeroable + Copy + Send + Sync + 'static {
    /// Which of the [`Factors`] there are.
    const SCALING: Scaling;

    /// The factors of a block of 32 columns, by row.
    fn factors(&self, block: usize) -> Factors<[f32; ROWS]>;
}

/// What codes are multiplied by; a lane a row. With `c` the codes, `x` the activations, `d` the activations' scale,
/// and sums over 32 columns (`Whole*`) or over each 16 of them (`Halves*`), a block adds to a row
///
/// * `Whole`: `scale * d * sum((c - middle) * x)`
/// * `WholeMin`: `scale * d * sum(c * x) + min * d * sum(x)`
/// * `Halves`: `scale * d * (half[0] * sum0((c - middle) * x) + half[1] * sum1((c - middle) * x))`
/// * `HalvesMin`: `scale * d * (half[0] * sum0(c * x) + half[1] * sum1(c * x))
///   - min * d * (half_min[0] * sum0(x) + half_min[1] * sum1(x))`
///
/// `half` and `half_min` are integers of at most 8 bits, so that what is in brackets is below 2^24 and exact in f32.
#[derive(Clone, Copy)]
pub(super) struct Factors<V> {
    pub(super) scale: V,
    pub(super) min: V,
    pub(super) half: [V; 2],
    pub(super) half_min: [V; 2],
}

impl<V: Copy> Factors<V> {
    /// Factors of [`Scaling::Whole`].
    #[inline(always)]
    pub(super) fn whole(scale: V) -> Self {
        Self::whole_min(scale, scale)
    }

    /// Factors of [`Scaling::WholeMin`].
    #[inline(always)]
    pub(super) fn whole_min(scale: V, min: V) -> Self {
        Self { scale, min, half: [scale; 2], half_min: [scale; 2] }
    }

    /// Factors of [`Scaling::Halves`].
    #[inline(always)]
    pub(super) fn halves(scale: V, half: [V; 2]) -> Self {
        Self { scale, min: scale, half, half_min: half }
    }
}
