//! Matrices of floats: a tile is a column of 16 rows, the activations stay f32.
//!
//! Even and odd columns have sums of their own, which are added at the end of each stretch of columns: twice as many
//! additions under way at a time. The stretches are the same for any number of tokens.

use bytemuck::{Pod, Zeroable};

use super::tile::ROWS;
use super::vector::Lanes;

/// How a weight is stored.
pub(super) trait Weight: Zeroable + Copy + Send + Sync + 'static {
    /// Bytes in the file.
    const BYTES: usize;
    /// From the file.
    fn read(bytes: &[u8]) -> Self;
    /// The values of a part of the rows.
    fn load<L: Lanes>(any: L, weights: &[Self; ROWS], part: usize) -> L;
}

/// An f16's bits.
#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(transparent)]
pub(super) struct Half(pub(super) u16);

/// A bf16's bits.
#[derive(Clone, Copy, Zeroable, Pod)]
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
    fn load<L: Lanes>(any: L, weights: &[Self; ROWS], part: usize) -> L {
        any.load(weights, part)
    }
}

impl Weight for Half {
    const BYTES: usize = 2;

    #[inline(always)]
    fn read(bytes: &[u8]) -> Self {
        Self(u16::from_le_bytes(*bytes.first_chunk().expect("a whole weight")))
    }

    #[inline(always)]
    fn load<L: Lanes>(any: L, weights: &[Self; ROWS], part: usize) -> L {
        any.load_half(bytemuck::cast_ref(weights), part)
    }
}

impl Weight for Brain {
    const BYTES: usize = 2;

    #[inline(always)]
    fn read(bytes: &[u8]) -> Self {
        Self(u16::from_le_bytes(*bytes.first_chunk().expect("a whole weight")))
    }

    #[inline(always)]
    fn load<L: Lanes>(any: L, weights: &[Self; ROWS], part: usize) -> L {
        any.load_brain(bytemuck::cast_ref(weights), part)
    }
}
