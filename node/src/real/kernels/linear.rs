//! The product of an input with several matrices.

use std::cell::Cell;
use std::ops::Range;

use super::activations::panels;
use super::erased::Shares;
use super::matrix::Matrix;
use super::packed::{Input, Inputs, Sums};
use super::tile::ROWS;
use crate::real::pool::Pool;

/// Columns that are gone through before the next rows or tokens: what a panel and a tile take of so many stays in the
/// first cache. Sums of floats are cut here, so it must not depend on anything.
const STRETCH: usize = 1024;

/// Rows of tiles that are gone through with one panel before the next: what they take of a stretch stays in the second
/// cache.
const TILE_ROWS: usize = 8;

/// Parts for each thread, with one token and with several: who is held up leaves the rest to others.
const PARTS_PER_THREAD: [usize; 2] = [12, 12];

thread_local! {
    /// Room for the input of the products that this thread asks for, kept from one to the next: fresh memory for a prompt
    /// would take about as long as filling it.
    static INPUTS: Cell<Inputs> = Cell::default();
}

/// Bytes of weights below which a part is not worth handing out: a microsecond of work or two.
const PART_BYTES: usize = 32 << 10;

/// `y = x * W^T` for each of `outs`: `x` is `[n][cols]`, and each `y` is `[n][rows]` of its matrix. All matrices have as
/// many columns; all threads of `pool` work, and are called together once (twice, for many tokens).
///
/// What a row gives for a token depends on that row and that token only: not on `n`, on the other tokens, or on how many
/// threads there are. It does depend on the matrix's level, within rounding.
///
/// # Panics
/// Where lengths are not those of the shapes.
pub fn linear(pool: &Pool, x: &[f32], n: usize, outs: &mut [(&Matrix, &mut [f32])]) {
    let Some(columns) = outs.first().map(|(matrix, _)| matrix.cols()) else { return };
    assert_eq!(x.len(), n * columns, "the input of {n} tokens by {columns} columns");
    for (matrix, out) in &*outs {
        assert_eq!(matrix.cols(), columns, "matrices with one input have as many columns");
        assert_eq!(out.len(), n * matrix.rows(), "the output of {n} tokens by {} rows", matrix.rows());
    }
    let mut inputs = INPUTS.take();
    fill(&mut inputs, pool, x, n, columns, outs);
    let products: Vec<Product> = outs.iter_mut().map(|(matrix, out)| Product::new(matrix, n, out)).collect();
    let parts = parts(&products, pool.threads(), n);
    pool.run(parts.len(), &|part| {
        let (product, tile_rows) = &parts[part];
        products[*product].run(tile_rows.clone(), &inputs);
    });
    INPUTS.set(inputs);
}

/// Puts the input into the forms that the matrices want.
fn fill(
    inputs: &mut Inputs,
    pool: &Pool,
    x: &[f32],
    n: usize,
    columns: usize,
    outs: &[(&Matrix, &mut [f32])],
) {
    let wanted = |input| outs.iter().find(|(matrix, _)| matrix.packed.input() == input);
    if let Some((matrix, _)) = wanted(Input::Quantised) {
        inputs.quantised.fill(pool, matrix.level(), x, n, columns);
    }
    if wanted(Input::Plain).is_some() {
        inputs.plain.fill(pool, x, n, columns);
    }
}

/// Cuts the rows of tiles into parts of about as many bytes.
fn parts(products: &[Product<'_>], threads: usize, n: usize) -> Vec<(usize, Range<usize>)> {
    let bytes: usize = products.iter().map(|product| product.matrix.bytes()).sum();
    let (least, each) = if n == 1 { (PART_BYTES, PARTS_PER_THREAD[0]) } else { (0, PARTS_PER_THREAD[1]) };
    let part_bytes = (bytes / (threads * each)).max(least);
    let mut parts = Vec::new();
    for (number, product) in products.iter().enumerate() {
        let tile_rows = product.matrix.rows().div_ceil(ROWS);
        let each = (part_bytes * tile_rows / product.matrix.bytes().max(1)).max(1);
        parts.extend((0..tile_rows).step_by(each).map(|first| (number, first..tile_rows.min(first + each))));
    }
    parts
}

/// One matrix and where its product goes.
struct Product<'a> {
    matrix: &'a Matrix,
    n: usize,
    out: Shares<'a, f32>,
}

impl<'a> Product<'a> {
    fn new(matrix: &'a Matrix, n: usize, out: &'a mut [f32]) -> Self {
        Self { matrix, n, out: Shares::new(out) }
    }

    fn run(&self, tile_rows: Range<usize>, inputs: &Inputs) {
        // With one token there is nothing to keep in a cache, and weights are best read as they lie.
        let together = if self.n == 1 { 1 } else { TILE_ROWS };
        for first in tile_rows.clone().step_by(together) {
            let group = first..tile_rows.end.min(first + together);
            for from in (0..self.matrix.cols()).step_by(STRETCH) {
                let stretch = from..self.matrix.cols().min(from + STRETCH);
                for (number, tokens) in panels(self.n).enumerate() {
                    for tile_row in group.clone() {
                        self.add(tile_row, stretch.clone(), inputs, number, &tokens);
                    }
                }
            }
        }
    }

    /// Adds what a stretch gives for a row of tiles and a panel.
    fn add(
        &self,
        tile_row: usize,
        stretch: Range<usize>,
        inputs: &Inputs,
        panel: usize,
        tokens: &Range<usize>,
    ) {
        let rows = tile_row * ROWS..self.matrix.rows().min((tile_row + 1) * ROWS);
        let mut sums: Sums = [[0.0; ROWS]; 8];
        if stretch.start > 0 {
            for (token, sums) in tokens.clone().zip(&mut sums) {
                self.out_of(token, &rows, |out| copy(out, &mut sums[..out.len()]));
            }
        }
        self.matrix.packed.multiply(self.matrix.level(), tile_row, stretch, inputs, panel, &mut sums);
        for (token, sums) in tokens.clone().zip(&sums) {
            self.out_of(token, &rows, |out| copy(&sums[..out.len()], out));
        }
    }

    /// Outputs `rows` of a token. Parts have different rows, so no two threads touch the same.
    fn out_of(&self, token: usize, rows: &Range<usize>, f: impl FnOnce(&mut [f32])) {
        let start = token * self.matrix.rows();
        self.out.with(start + rows.start..start + rows.end, f);
    }
}

/// Copies up to a tile's rows; all of them, which is the rule, without asking how many.
#[inline(always)]
fn copy(from: &[f32], to: &mut [f32]) {
    match (from.first_chunk::<ROWS>(), to.first_chunk_mut::<ROWS>()) {
        (Some(from), Some(to)) => *to = *from,
        _ => to.copy_from_slice(from),
    }
}
