//! The kernels for AVX-512 with VNNI.

use super::activations::{Block, quantise_rows};
use super::floats::{Column, Weight};
use super::tile::{Codes, ROWS, Scales, Tile};
use super::{floats, portable};

/// [`portable::multiply`] with wider registers.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn multiply<C: Codes, S: Scales, const BLOCKS: usize, const T: usize>(
    tiles: &[Tile<C, S, BLOCKS>],
    panel: &[Block<T>],
    sums: &mut [[f32; ROWS]; T],
) {
    portable::multiply(tiles, panel, sums);
}

/// [`floats::multiply`] with wider registers.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn multiply_floats<W: Weight, const T: usize>(
    columns: &[Column<W>],
    panel: &[[f32; T]],
    sums: &mut [[f32; ROWS]; T],
) {
    floats::multiply(columns, panel, sums);
}

/// [`quantise_rows`] with wider registers.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn quantise<const T: usize>(rows: &[f32], records: &mut [Block<T>]) {
    quantise_rows(rows, records);
}
