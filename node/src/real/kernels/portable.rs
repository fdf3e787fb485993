//! The kernels in plain Rust: what the others are tested against, and what machines without their instructions run.

use super::activations::Block;
use super::tile::{Codes, Factors, GROUPS, Group, ROWS, Scales, Scaling, Tile};

/// `a * b + c`; in one rounding where the machine can do that fast.
#[inline(always)]
pub(super) fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) { a.mul_add(b, c) } else { a * b + c }
}

/// Adds the products of one row of tiles with a panel to `sums`.
#[inline(always)]
pub(super) fn multiply<C: Codes, S: Scales, const BLOCKS: usize, const T: usize>(
    tiles: &[Tile<C, S, BLOCKS>],
    panel: &[Block<T>],
    sums: &mut [[f32; ROWS]; T],
) {
    for (tile, blocks) in tiles.iter().zip(panel.as_chunks::<BLOCKS>().0) {
        for (number, (codes, block)) in tile.codes.iter().zip(blocks).enumerate() {
            let (groups, factors) = (codes.groups(), tile.scales.factors(number));
            debug_assert!(groups.iter().flatten().all(|code| *code <= C::MAX));
            for (token, sums) in sums.iter_mut().enumerate() {
                add_block::<C, S, T>(&groups, &factors, block, token, sums);
            }
        }
    }
}

/// Adds a block's part to the sums of a token: see [`Factors`].
#[inline(always)]
fn add_block<C: Codes, S: Scales, const T: usize>(
    groups: &[Group; GROUPS],
    factors: &Factors<[f32; ROWS]>,
    block: &Block<T>,
    token: usize,
    sums: &mut [f32; ROWS],
) {
    let quants = &block.quants[token];
    let dots = [0, 1].map(|half| dot(&groups[4 * half..], &quants[16 * half..]));
    let middle = |half: usize| block.negated_halves[half][token] << C::MIDDLE_LOG2;
    let scale = block.scale[token];
    for (row, sum) in sums.iter_mut().enumerate() {
        let (first, last) = (dots[0][row], dots[1][row]);
        let of_halves = |first: i32, last: i32, by: &[[f32; ROWS]; 2]| {
            multiply_add(by[1][row], last as f32, by[0][row] * first as f32)
        };
        let dot = match S::SCALING {
            Scaling::Whole => (first + last + middle(0) + middle(1)) as f32,
            Scaling::WholeMin => (first + last) as f32,
            Scaling::Halves => of_halves(first + middle(0), last + middle(1), &factors.half),
            Scaling::HalvesMin => of_halves(first, last, &factors.half),
        };
        *sum = multiply_add(factors.scale[row] * scale, dot, *sum);
        match S::SCALING {
            Scaling::WholeMin => *sum = multiply_add(factors.min[row], block.scaled_sum[token], *sum),
            Scaling::HalvesMin => {
                let [first, last] = [0, 1].map(|half| block.negated_halves[half][token]);
                let min = of_halves(first, last, &factors.half_min);
                *sum = multiply_add(factors.min[row] * scale, min, *sum);
            }
            Scaling::Whole | Scaling::Halves => {}
        }
    }
}

/// The products of 4 groups with 16 quants, summed by row.
#[inline(always)]
fn dot(groups: &[Group], quants: &[i8]) -> [i32; ROWS] {
    let mut sums = [0; ROWS];
    for (group, quants) in groups.iter().take(4).zip(quants.as_chunks::<4>().0) {
        for (sum, codes) in sums.iter_mut().zip(group.as_chunks::<4>().0) {
            *sum += codes
                .iter()
                .zip(quants)
                .map(|(&code, &quant)| i32::from(code) * i32::from(quant))
                .sum::<i32>();
        }
    }
    sums
}
