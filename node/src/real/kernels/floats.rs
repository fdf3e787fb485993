//! Matrices of floats: a tile is a column of 16 rows, the activations stay f32.
//!
//! Even and odd columns have sums of their own, which are added at the end of each stretch of columns: twice as many
//! additions under way at a time. The stretches are the same for any number of tokens.

use bytemuck::Zeroable;

use super::halves::{brain, half};
use super::portable::multiply_add;
use super::tile::ROWS;

/// How a weight is stored.
pub(super) trait Weight: Zeroable + Copy + Send + Sync + 'static {
    /// Bytes in the file.
    const BYTES: usize;
    /// From the file.
    fn read(bytes: &[u8]) -> Self;
    /// Its value.
    fn value(self) -> f32;
}

/// An f16's bits.
#[derive(Clone, Copy, Zeroable)]
#[repr(transparent)]
pub(super) struct Half(pub(super) u16);

/// A bf16's bits.
#[derive(Clone, Copy, Zeroable)]
#[repr(transparent)]
pub(super) struct Brain(pub(super) u16);

/// One column of 16 rows.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(32))]
pub(super) struct Column<W>(pub(super) [W; ROWS]);

impl Weight for f32 {
    const BYTES: usize = 4;

    #[inline(always)]
    fn read(bytes: &[u8]) -> Self {
        f32::from_le_bytes(*bytes.first_chunk().expect("a whole weight"))
    }

    #[inline(always)]
    fn value(self) -> f32 {
        self
    }
}

impl Weight for Half {
    const BYTES: usize = 2;

    #[inline(always)]
    fn read(bytes: &[u8]) -> Self {
        Self(u16::from_le_bytes(*bytes.first_chunk().expect("a whole weight")))
    }

    #[inline(always)]
    fn value(self) -> f32 {
        half(self.0)
    }
}

impl Weight for Brain {
    const BYTES: usize = 2;

    #[inline(always)]
    fn read(bytes: &[u8]) -> Self {
        Self(u16::from_le_bytes(*bytes.first_chunk().expect("a whole weight")))
    }

    #[inline(always)]
    fn value(self) -> f32 {
        brain(self.0)
    }
}

/// Adds the products of one row of tiles with a panel to `sums`.
#[inline(always)]
pub(super) fn multiply<W: Weight, const T: usize>(
    columns: &[Column<W>],
    panel: &[[f32; T]],
    sums: &mut [[f32; ROWS]; T],
) {
    let mut apart = [[[0.0; ROWS]; T]; 2];
    for (number, (column, x)) in columns.iter().zip(panel).enumerate() {
        let weights = column.0.map(Weight::value);
        for (sums, x) in apart[number % 2].iter_mut().zip(x) {
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = multiply_add(weight, *x, *sum);
            }
        }
    }
    for (token, sums) in sums.iter_mut().enumerate() {
        for (row, sum) in sums.iter_mut().enumerate() {
            *sum += apart[0][token][row] + apart[1][token][row];
        }
    }
}
