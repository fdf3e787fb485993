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

use super::vector::{Lanes, Vector};

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

    /// All codes of a part of the rows.
    fn groups<V: Vector>(&self, any: V, part: usize) -> [V; GROUPS];
}

/// What a format's scales are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scaling {
    /// One scale for 32 columns; codes are off by the middle.
    Whole,
    /// One scale and one minimum for 32 columns.
    WholeMin,
    /// A scale for each 16 columns; codes are off by the middle.
    Halves,
    /// A scale and a minimum for each 16 columns.
    HalvesMin,
}

/// How scales are stored.
pub(super) trait Scales: Zeroable + Copy + Send + Sync + 'static {
    /// Which of the [`Factors`] there are.
    const SCALING: Scaling;

    /// The factors of a block of 32 columns, for a part of the rows.
    fn factors<L: Lanes>(&self, any: L, block: usize, part: usize) -> Factors<L>;
}

/// What codes are multiplied by; a lane a row. With `c` the codes, `x` the quantised activations, and sums over 32 columns
/// (`Whole*`) or over each 16 of them (`Halves*`), a block adds to a row, times the activations' scale,
///
/// * `Whole`: `scale[0] * sum((c - middle) * x)`
/// * `WholeMin`: `scale[0] * sum(c * x) + min[0] * sum(x)`
/// * `Halves`: `scale[0] * sum0((c - middle) * x) + scale[1] * sum1((c - middle) * x)`
/// * `HalvesMin`: `scale[0] * sum0(c * x) + scale[1] * sum1(c * x) - min[0] * sum0(x) - min[1] * sum1(x)`
#[derive(Clone, Copy)]
pub(super) struct Factors<L> {
    pub(super) scale: [L; 2],
    pub(super) min: [L; 2],
}

impl<L: Copy> Factors<L> {
    /// Factors of [`Scaling::Whole`].
    #[inline(always)]
    pub(super) fn whole(scale: L) -> Self {
        Self { scale: [scale; 2], min: [scale; 2] }
    }

    /// Factors of [`Scaling::WholeMin`].
    #[inline(always)]
    pub(super) fn whole_min(scale: L, min: L) -> Self {
        Self { scale: [scale; 2], min: [min; 2] }
    }

    /// Factors of [`Scaling::Halves`].
    #[inline(always)]
    pub(super) fn halves(scale: [L; 2]) -> Self {
        Self { scale, min: scale }
    }
}
