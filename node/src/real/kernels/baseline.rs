//! The kernels at the plain level: over the vectors that every processor of the target has, which need no asking, and
//! elsewhere over arrays, of which the compiler makes what it can.

use super::activations::Block;
use super::floats::{Column, Weight};
use super::multiply;
use super::tile::{Codes, ROWS, Scales, Tile};

/// Adds the products of one row of tiles with a panel to `sums`.
pub(super) fn multiply<C: Codes, S: Scales, const BLOCKS: usize, const T: usize>(
    tiles: &[Tile<C, S, BLOCKS>],
    panel: &[Block<T>],
    sums: &mut [[f32; ROWS]; T],
) {
    #[cfg(target_arch = "x86_64")]
    {
        use super::sse2::{Bytes128, Floats128};
        multiply::multiply(Bytes128::zero(), Floats128::zero(), tiles, panel, sums);
    }
    #[cfg(target_arch = "aarch64")]
    {
        use super::neon::{Bytes128, Floats128, has_dot_products};
        if has_dot_products() {
            // SAFETY: the machine has them.
            let any = unsafe { Bytes128::<true>::zero() };
            multiply::multiply(any, Floats128::zero(), tiles, panel, sums);
        } else {
            multiply::multiply(Bytes128::<false>::zero(), Floats128::zero(), tiles, panel, sums);
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    multiply::multiply([0; 4 * ROWS], [0.0; ROWS], tiles, panel, sums);
}

/// The same for tiles of floats.
pub(super) fn multiply_floats<W: Weight, const T: usize>(
    columns: &[Column<W>],
    panel: &[[f32; T]],
    sums: &mut [[f32; ROWS]; T],
) {
    #[cfg(target_arch = "x86_64")]
    multiply::multiply_floats(super::sse2::Floats128::zero(), columns, panel, sums);
    #[cfg(target_arch = "aarch64")]
    multiply::multiply_floats(super::neon::Floats128::zero(), columns, panel, sums);
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    multiply::multiply_floats([0.0; ROWS], columns, panel, sums);
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;
    use proptest::prelude::*;

    use super::super::codes::{Bytes, Fives, Looked, Nibbles, NonLinear, Sixes, Threes, Twos};
    use super::super::scales::{BySixteen, BySixteenMin, ByThirtyTwo, Packed, Scale, ScaleMin};
    use super::super::tile::COLUMNS;
    use super::*;

    /// A row of tiles with these bytes again and again, whose scales are numbers.
    fn tiles<C: Codes, S: Scales, const BLOCKS: usize>(bytes: &[u8]) -> [Tile<C, S, BLOCKS>; 3] {
        let mut tiles = [Tile::zeroed(); 3];
        // SAFETY: tiles are integers and arrays of them, without bytes between that are never set.
        let all =
            unsafe { std::slice::from_raw_parts_mut(tiles.as_mut_ptr().cast::<u8>(), size_of_val(&tiles)) };
        for (i, (byte, random)) in all.iter_mut().zip(bytes.iter().cycle()).enumerate() {
            *byte = random.wrapping_add((i / bytes.len()) as u8);
        }
        tiles
    }

    fn panel<const T: usize>(bytes: &[u8]) -> [Block<T>; 24] {
        let mut next = bytes.iter().cycle().copied();
        let mut panel = [Block::zeroed(); 24];
        for block in &mut panel {
            for token in 0..T {
                let mut halves = [0; 2];
                for column in 0..COLUMNS {
                    let quant = (next.next().unwrap_or(0) as i8).max(-127);
                    block.quants[token][column] = quant;
                    halves[column / 16] += i32::from(quant);
                }
                block.scale[token] = 0.01;
                block.negated_sum[token] = -(halves[0] + halves[1]);
                block.sum[token] = (halves[0] + halves[1]) as f32;
                block.negated_halves[0][token] = -halves[0];
                block.negated_halves[1][token] = -halves[1];
            }
        }
        panel
    }

    fn same<C: Codes, S: Scales, const BLOCKS: usize, const T: usize>(codes: &[u8], quants: &[u8]) {
        let (tiles, panel) = (tiles::<C, S, BLOCKS>(codes), panel::<T>(quants));
        let [mut ours, mut plain] = [[[0.5; ROWS]; T]; 2];
        multiply(&tiles, &panel[..3 * BLOCKS], &mut ours);
        multiply::multiply([0; 4 * ROWS], [0.0; ROWS], &tiles, &panel[..3 * BLOCKS], &mut plain);
        let bits = |sums: &[[f32; ROWS]; T]| {
            let canonical = |value: &f32| if value.is_nan() { f32::NAN } else { *value }.to_bits();
            sums.iter().flatten().map(canonical).collect::<Vec<_>>()
        };
        assert_eq!(bits(&ours), bits(&plain));
    }

    proptest! {
        #[test]
        fn the_targets_vectors_give_the_bits_of_plain_arrays(
            codes in prop::collection::vec(any::<u8>(), 100..400),
            quants in prop::collection::vec(any::<u8>(), 100..400),
        ) {
            same::<Nibbles, Scale, 1, 1>(&codes, &quants);
            same::<Nibbles, ScaleMin, 1, 8>(&codes, &quants);
            same::<Nibbles, Packed, 8, 4>(&codes, &quants);
            same::<Fives, Scale, 1, 2>(&codes, &quants);
            same::<Bytes, Scale, 1, 8>(&codes, &quants);
            same::<Bytes, Scale, 1, 1>(&codes, &quants);
            same::<Sixes, BySixteen, 8, 8>(&codes, &quants);
            same::<Twos, BySixteenMin, 8, 1>(&codes, &quants);
            same::<Threes, BySixteen, 8, 1>(&codes, &quants);
            same::<Looked<NonLinear>, ByThirtyTwo, 8, 4>(&codes, &quants);
        }
    }
}
