//! The products of attention: a few rows of f32 against a block of the KV cache.
//!
//! Scores (queries against keys) and mixing (weights against values) are the same product, `c += a b`, because keys lie
//! transposed in tiles of sixteen positions. Each element of `c` is one chain of multiply-adds in the order of `b`'s
//! rows, whatever else is computed beside it: results do not depend on how many rows share a call.

use super::Level;
#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Avx512};
use super::lanes::{LANES, Lanes, Portable};

/// Elements of a KV cache.
#[derive(Debug, Clone, Copy)]
pub enum Cells<'a> {
    /// Bits of f16.
    F16(&'a [u16]),
    /// For the f32 path.
    F32(&'a [f32]),
}

impl Cells<'_> {
    fn len(&self) -> usize {
        match self {
            Cells::F16(cells) => cells.len(),
            Cells::F32(cells) => cells.len(),
        }
    }
}

/// `b` of the product: `tiles` tiles of sixteen columns, each with `depth` rows.
#[derive(Debug, Clone, Copy)]
pub struct Panel<'a> {
    /// The elements.
    pub cells: Cells<'a>,
    /// Rows, over which is summed.
    pub depth: usize,
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Tiles of sixteen columns.
    pub tiles: usize,
    /// Elements from one tile to the next.
    pub tile_stride: usize,
}

impl Panel<'_> {
    /// Elements from the first to one past the last.
    fn extent(&self) -> usize {
        if self.depth == 0 || self.tiles == 0 {
            return 0;
        }
        (self.depth - 1) * self.row_stride + (self.tiles - 1) * self.tile_stride + LANES
    }
}

/// `c[r] += a[r] b` for rows `a[r * a_stride..][..depth]` and `c[r * c_stride..][..tiles * 16]`.
///
/// # Panics
/// Where a slice is shorter than its shape.
pub fn multiply(
    level: Level,
    rows: usize,
    (a, a_stride): (&[f32], usize),
    b: &Panel<'_>,
    (c, c_stride): (&mut [f32], usize),
) {
    if rows == 0 || b.extent() == 0 {
        return;
    }
    assert!(a.len() >= (rows - 1) * a_stride + b.depth, "a has its rows");
    assert!(b.cells.len() >= b.extent(), "b has its tiles");
    assert!(c.len() >= (rows - 1) * c_stride + b.tiles * LANES, "c has its rows");
    let call = Call { rows, a: a.as_ptr(), a_stride, b: *b, c: c.as_mut_ptr(), c_stride };
    match level.available() {
        // SAFETY: the level is available, and the shapes were just held against the slices.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { multiply_avx512(&call) },
        // SAFETY: the same.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { multiply_avx2(&call) },
        // SAFETY: the shapes were just held against the slices.
        _ => unsafe { call.run::<Portable>() },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
unsafe fn multiply_avx512(call: &Call<'_>) {
    // SAFETY: the caller's.
    unsafe { call.run::<Avx512>() };
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply_avx2(call: &Call<'_>) {
    // SAFETY: the caller's.
    unsafe { call.run::<Avx2>() };
}

/// A call whose shapes are sound.
struct Call<'a> {
    rows: usize,
    a: *const f32,
    a_stride: usize,
    b: Panel<'a>,
    c: *mut f32,
    c_stride: usize,
}

impl Call<'_> {
    /// # Safety
    /// The processor has `L`, and the shapes lie within the slices.
    #[inline(always)]
    unsafe fn run<L: Lanes>(&self) {
        // SAFETY: the caller's; `pick` stays within the shape.
        unsafe {
            match self.b.cells {
                Cells::F16(cells) => self.pick::<L, u16>(cells.as_ptr(), |at| L::load_f16(at)),
                Cells::F32(cells) => self.pick::<L, f32>(cells.as_ptr(), |at| L::load(at)),
            }
        }
    }

    /// # Safety
    /// As [`run`](Self::run); `b` points to the panel's first element.
    #[inline(always)]
    unsafe fn pick<L: Lanes, T>(&self, b: *const T, load: impl Fn(*const T) -> L + Copy) {
        let mut row = 0;
        while row < self.rows {
            let mut tile = 0;
            let rows = (self.rows - row).min(4);
            while tile < self.b.tiles {
                let wide = L::TILES == 4 && self.b.tiles - tile >= 4;
                // SAFETY: the caller's, and rows and tiles of a piece lie within the shape.
                unsafe {
                    match (rows, wide) {
                        (1, true) => self.piece::<L, T, 1, 4>(row, tile, b, load),
                        (2, true) => self.piece::<L, T, 2, 4>(row, tile, b, load),
                        (3, true) => self.piece::<L, T, 3, 4>(row, tile, b, load),
                        (_, true) => self.piece::<L, T, 4, 4>(row, tile, b, load),
                        (1, false) => self.piece::<L, T, 1, 1>(row, tile, b, load),
                        (2, false) => self.piece::<L, T, 2, 1>(row, tile, b, load),
                        (3, false) => self.piece::<L, T, 3, 1>(row, tile, b, load),
                        (_, false) => self.piece::<L, T, 4, 1>(row, tile, b, load),
                    }
                }
                tile += if wide { 4 } else { 1 };
            }
            row += rows;
        }
    }

    /// `R` rows against `W` tiles, all sums in registers.
    ///
    /// # Safety
    /// As [`pick`](Self::pick); the piece lies within the shape.
    #[inline(always)]
    unsafe fn piece<L: Lanes, T, const R: usize, const W: usize>(
        &self,
        row: usize,
        tile: usize,
        b: *const T,
        load: impl Fn(*const T) -> L,
    ) {
        // SAFETY: the caller's: every offset is below the extent that was held against the slices.
        unsafe {
            let a = self.a.add(row * self.a_stride);
            let b = b.add(tile * self.b.tile_stride);
            let c = self.c.add(row * self.c_stride + tile * LANES);
            let mut sums = [[L::splat(0.0); W]; R];
            for (r, sums) in sums.iter_mut().enumerate() {
                for (w, sum) in sums.iter_mut().enumerate() {
                    *sum = L::load(c.add(r * self.c_stride + w * LANES));
                }
            }
            for k in 0..self.b.depth {
                let mut columns = [L::splat(0.0); W];
                for (w, column) in columns.iter_mut().enumerate() {
                    *column = load(b.add(k * self.b.row_stride + w * self.b.tile_stride));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let factor = L::splat(*a.add(r * self.a_stride + k));
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = factor.fma(column, *sum);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (w, sum) in sums.iter().enumerate() {
                    sum.store(c.add(r * self.c_stride + w * LANES));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;
    use proptest::prelude::*;

    use super::*;

    fn values(count: usize, seed: u32) -> Vec<f32> {
        (0..count as u32)
            .map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) % 2_003) as f32 / 500.0 - 2.0)
            .collect()
    }

    /// The definition, in f64.
    fn expected(rows: usize, a: &[f32], b: &Panel<'_>, value: impl Fn(usize) -> f32, c: &[f32]) -> Vec<f64> {
        let columns = b.tiles * LANES;
        let element = |r: usize, j: usize| {
            let at = |k: usize| k * b.row_stride + j / LANES * b.tile_stride + j % LANES;
            let products = (0..b.depth).map(|k| f64::from(a[r * b.depth + k]) * f64::from(value(at(k))));
            f64::from(c[r * columns + j]) + products.sum::<f64>()
        };
        (0..rows).flat_map(|r| (0..columns).map(move |j| (r, j))).map(|(r, j)| element(r, j)).collect()
    }

    proptest! {
        #[test]
        fn products_are_right_and_no_row_depends_on_its_neighbours(
            rows in 1usize..12, depth in 1usize..80, tiles in 1usize..10, seed in any::<u16>(),
            is_transposed in any::<bool>(), is_f16 in any::<bool>(),
        ) {
            let (row_stride, tile_stride) =
                if is_transposed { (LANES, depth * LANES) } else { (tiles * LANES, LANES) };
            let b = values(depth * tiles * LANES, seed.into());
            let narrow: Vec<u16> = b.iter().map(|v| f16::from_f32(*v).to_bits()).collect();
            let cells = if is_f16 { Cells::F16(&narrow) } else { Cells::F32(&b) };
            let value = |at: usize| if is_f16 { f16::from_bits(narrow[at]).to_f32() } else { b[at] };
            let panel = Panel { cells, depth, row_stride, tiles, tile_stride };
            let (a, c, columns) = (values(rows * depth, 7), values(rows * tiles * LANES, 9), tiles * LANES);
            let exact = expected(rows, &a, &panel, value, &c);
            for level in Level::ALL.map(Level::available) {
                let mut together = c.clone();
                multiply(level, rows, (&a, depth), &panel, (&mut together, columns));
                let mut alone = c.clone();
                for r in 0..rows {
                    multiply(level, 1, (&a[r * depth..], depth), &panel, (&mut alone[r * columns..], columns));
                }
                prop_assert_eq!(&together, &alone);
                for (ours, exact) in together.iter().zip(&exact) {
                    prop_assert!((f64::from(*ours) - exact).abs() < 1e-3, "{} for {}", ours, exact);
                }
            }
        }
    }
}
