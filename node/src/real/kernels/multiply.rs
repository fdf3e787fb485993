//! The kernels: a row of tiles times a panel of tokens, for any level's vectors.

use super::activations::Block;
use super::floats::{Column, Weight};
use super::tile::{Codes, Factors, GROUPS, ROWS, Scales, Scaling, Tile};
use super::vector::{Lanes, Vector};

/// How far ahead of what is read memory is asked for, in bytes.
const AHEAD: usize = 2048;

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
        let mut totals: [[V::Lanes; P]; T] =
            std::array::from_fn(|token| std::array::from_fn(|p| self.lanes.load(&sums[token], part(p))));
        for (tile, blocks) in tiles.iter().zip(panel.as_chunks::<BLOCKS>().0) {
            for (number, block) in blocks.iter().enumerate() {
                self.prefetch(tile, number);
                for p in 0..P {
                    let groups = tile.codes[number].groups(self.any, part(p));
                    let factors = tile.scales.factors(self.lanes, number, part(p));
                    for (token, totals) in totals.iter_mut().enumerate() {
                        totals[p] = self.add::<C, S, T>(&groups, &factors, block, token, totals[p]);
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

    /// Adds a block's part to the sums of a token: see [`Factors`].
    #[inline(always)]
    fn add<C: Codes, S: Scales, const T: usize>(
        &self,
        groups: &[V; GROUPS],
        factors: &Factors<V::Lanes>,
        block: &Block<T>,
        token: usize,
        total: V::Lanes,
    ) -> V::Lanes {
        let quants = &block.quants[token];
        let negated = |half: usize| block.negated_halves[half][token];
        let dot = |half: usize, start: i32| {
            self.any.dot(&groups[4 * half..][..4], &quants[16 * half..][..16], start, C::MAX)
        };
        let whole = |start: i32| self.any.dot(groups, quants, start, C::MAX);
        let both =
            |first: V::Lanes, last: V::Lanes, by: &[V::Lanes; 2]| by[1].times_plus(last, by[0].times(first));
        let scale = self.lanes.all(block.scale[token]);
        let sum = match S::SCALING {
            Scaling::Whole => whole(block.negated_sum[token] << C::MIDDLE_LOG2),
            Scaling::WholeMin => whole(0),
            Scaling::Halves => both(
                dot(0, negated(0) << C::MIDDLE_LOG2),
                dot(1, negated(1) << C::MIDDLE_LOG2),
                &factors.half,
            ),
            Scaling::HalvesMin => both(dot(0, 0), dot(1, 0), &factors.half),
        };
        let total = factors.scale.times(scale).times_plus(sum, total);
        match S::SCALING {
            Scaling::Whole | Scaling::Halves => total,
            Scaling::WholeMin => factors.min.times_plus(self.lanes.all(block.scaled_sum[token]), total),
            Scaling::HalvesMin => {
                let [first, last] = [0, 1].map(|half| self.lanes.all(negated(half) as f32));
                let min = both(first, last, &factors.half_min);
                factors.min.times(scale).times_plus(min, total)
            }
        }
    }

    /// Asks for what lies [`AHEAD`] of a block.
    #[inline(always)]
    fn prefetch<C, S, const BLOCKS: usize>(&self, tile: &Tile<C, S, BLOCKS>, block: usize) {
        let bytes = size_of::<Tile<C, S, BLOCKS>>() / BLOCKS;
        let start = std::ptr::from_ref(tile).cast::<u8>().wrapping_add(block * bytes + AHEAD);
        for line in 0..bytes.div_ceil(64) {
            self.lanes.prefetch(start.wrapping_add(64 * line));
        }
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
            lanes.prefetch(std::ptr::from_ref(pair).cast::<u8>().wrapping_add(AHEAD));
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
