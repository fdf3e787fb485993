//! The kernels: a row of tiles times a panel of tokens, for any level's vectors.
//!
//! Arrays of vectors are filled by loops. `map` and `from_fn` of arrays are functions that the compiler may leave out of
//! line, where the level's instructions are not enabled, and then every operation in them becomes a call: prefill was
//! half as fast.

use super::activations::Block;
use super::floats::{Column, Weight};
use super::tile::{Codes, Factors, GROUPS, ROWS, Scales, Scaling, Tile};
use super::vector::{Lanes, Vector};

/// Adds the products of one row of tiles with a panel to `sums`. `any` is any value of the level's vectors.
#[inline(always)]
pub(super) fn multiply<V: Vector, C: Codes, S: Scales, const BLOCKS: usize, const T: usize>(
    any: V,
    lanes: V::Lanes,
    tiles: &[Tile<C, S, BLOCKS>],
    panel: &[Block<T>],
    sums: &mut [[f32; ROWS]; T],
) {
    let kernel = |part| Integers { any, lanes, part };
    match V::PARTS {
        1 => kernel(0).run::<C, S, BLOCKS, T, 1>(tiles, panel, sums),
        // Both parts at once while their sums fit the registers.
        _ if T < 4 => kernel(0).run::<C, S, BLOCKS, T, 2>(tiles, panel, sums),
        _ => (0..2).for_each(|part| kernel(part).run::<C, S, BLOCKS, T, 1>(tiles, panel, sums)),
    }
}

/// A kernel for integers, over parts from `part`.
struct Integers<V: Vector> {
    any: V,
    lanes: V::Lanes,
    part: usize,
}

impl<V: Vector> Integers<V> {
    #[inline(always)]
    fn run<C: Codes, S: Scales, const BLOCKS: usize, const T: usize, const P: usize>(
        &self,
        tiles: &[Tile<C, S, BLOCKS>],
        panel: &[Block<T>],
        sums: &mut [[f32; ROWS]; T],
    ) {
        let part = |p: usize| self.part + p;
        let mut totals = [[self.lanes; P]; T];
        for (totals, sums) in totals.iter_mut().zip(&*sums) {
            for (p, total) in totals.iter_mut().enumerate() {
                *total = self.lanes.load(sums, part(p));
            }
        }
        for (tile, blocks) in tiles.iter().zip(panel.as_chunks::<BLOCKS>().0) {
            for (number, block) in blocks.iter().enumerate() {
                for p in 0..P {
                    let groups = tile.codes[number].groups(self.any, part(p));
                    let factors = tile.scales.factors(self.lanes, number, part(p));
                    let sums = self.sums::<C, S, T>(groups, &factors, block);
                    for (token, (totals, sum)) in totals.iter_mut().zip(sums).enumerate() {
                        totals[p] = sum.times_plus(self.lanes.all(block.scale[token]), totals[p]);
                    }
                }
            }
        }
        for (totals, sums) in totals.iter().zip(sums) {
            for (p, total) in totals.iter().enumerate() {
                total.store(sums, part(p));
            }
        }
    }

    /// What a block gives for each token, before the activations' scale: see [`Factors`].
    #[inline(always)]
    fn sums<C: Codes, S: Scales, const T: usize>(
        &self,
        groups: [V; GROUPS],
        factors: &Factors<V::Lanes>,
        block: &Block<T>,
    ) -> [V::Lanes; T] {
        let [a, b, c, d, e, f, g, h] = groups;
        let (whole, first, last) = (groups, [a, b, c, d], [e, f, g, h]);
        let [negated_first, negated_last] = block.negated_halves;
        let quants = &block.quants;
        match S::SCALING {
            Scaling::Whole => {
                let dots = V::dots(whole, quants, 0, block.negated_sum, C::MIDDLE_LOG2, C::MAX);
                self.scaled(dots, factors.scale[0])
            }
            Scaling::WholeMin => {
                let sums = self.outer(factors.min[0], &block.sum);
                let dots = V::dots(whole, quants, 0, [0; T], C::MIDDLE_LOG2, C::MAX);
                self.plus_scaled(sums, dots, factors.scale[0])
            }
            Scaling::Halves => {
                let dots = V::dots(first, quants, 0, negated_first, C::MIDDLE_LOG2, C::MAX);
                let sums = self.scaled(dots, factors.scale[0]);
                let dots = V::dots(last, quants, 16, negated_last, C::MIDDLE_LOG2, C::MAX);
                self.plus_scaled(sums, dots, factors.scale[1])
            }
            Scaling::HalvesMin => {
                let mut sums = [self.lanes; T];
                for (token, sum) in sums.iter_mut().enumerate() {
                    let all = |value: i32| self.lanes.all(value as f32);
                    let last = factors.min[1].times(all(negated_last[token]));
                    *sum = factors.min[0].times_plus(all(negated_first[token]), last);
                }
                let dots = V::dots(first, quants, 0, [0; T], C::MIDDLE_LOG2, C::MAX);
                let sums = self.plus_scaled(sums, dots, factors.scale[0]);
                let dots = V::dots(last, quants, 16, [0; T], C::MIDDLE_LOG2, C::MAX);
                self.plus_scaled(sums, dots, factors.scale[1])
            }
        }
    }

    #[inline(always)]
    fn scaled<const T: usize>(&self, mut dots: [V::Lanes; T], scale: V::Lanes) -> [V::Lanes; T] {
        for dot in &mut dots {
            *dot = dot.times(scale);
        }
        dots
    }

    #[inline(always)]
    fn plus_scaled<const T: usize>(
        &self,
        mut sums: [V::Lanes; T],
        dots: [V::Lanes; T],
        scale: V::Lanes,
    ) -> [V::Lanes; T] {
        for (sum, dot) in sums.iter_mut().zip(dots) {
            *sum = dot.times_plus(scale, *sum);
        }
        sums
    }

    /// A factor of the rows times one of each token.
    #[inline(always)]
    fn outer<const T: usize>(&self, rows: V::Lanes, tokens: &[f32; T]) -> [V::Lanes; T] {
        let mut products = [rows; T];
        for (product, token) in products.iter_mut().zip(tokens) {
            *product = rows.times(self.lanes.all(*token));
        }
        products
    }
}

/// Adds the products of one row of tiles of floats with a panel to `sums`. `lanes` is any value of the level's.
#[inline(always)]
pub(super) fn multiply_floats<L: Lanes, W: Weight, const T: usize>(
    lanes: L,
    columns: &[Column<W>],
    panel: &[[f32; T]],
    sums: &mut [[f32; ROWS]; T],
) {
    for part in 0..L::PARTS {
        // Even and odd columns.
        let mut totals = [[lanes.all(0.0); T]; 2];
        let (pairs, last) = columns.as_chunks::<2>();
        let (tokens, last_tokens) = panel.as_chunks::<2>();
        for (pair, tokens) in pairs.iter().zip(tokens) {
            for (parity, totals) in totals.iter_mut().enumerate() {
                add_column(lanes, &pair[parity], &tokens[parity], part, totals);
            }
        }
        for (column, tokens) in last.iter().zip(last_tokens) {
            add_column(lanes, column, tokens, part, &mut totals[0]);
        }
        for (token, sums) in sums.iter_mut().enumerate() {
            let total = totals[0][token].plus(totals[1][token]);
            lanes.load(sums, part).plus(total).store(sums, part);
        }
    }
}

#[inline(always)]
fn add_column<L: Lanes, W: Weight, const T: usize>(
    lanes: L,
    column: &Column<W>,
    tokens: &[f32; T],
    part: usize,
    totals: &mut [L; T],
) {
    let weights = W::load(lanes, &column.0, part);
    for (total, x) in totals.iter_mut().zip(tokens) {
        *total = weights.times_plus(lanes.all(*x), *total);
    }
}
