//! Rows of f32 rounded to what 16 bits can hold, in place: plain loops, which the compiler turns into each level's
//! vectors. Every level gives the same bits, and what is rounded already stays as it is.

use super::lanes::at_each_level;

/// Bits of a magnitude.
const MAGNITUDE: u32 = 0x7fff_ffff;

/// The bits of infinity; magnitudes beyond are not numbers.
const INFINITY: i32 = f32::INFINITY.to_bits() as i32;

/// Exponents that a row of [`round_to_halves`] can have, as f32 stores them: a row below 2^-63 is rounded as if it were
/// that large, so that neither steps nor scales leave f32's range.
pub(in crate::real) const ROW_EXPONENTS: std::ops::RangeInclusive<u8> = 64..=254;

/// The nearest value whose lowest `BITS` bits are zero, ties to even.
#[inline(always)]
fn nearest<const BITS: u32>(value: f32) -> f32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add((1 << (BITS - 1)) - 1 + (bits >> BITS & 1));
    f32::from_bits(rounded & !((1 << BITS) - 1))
}

#[inline(always)]
fn brains_body(values: &mut [f32]) {
    for value in values {
        *value = if value.is_nan() { f32::NAN } else { nearest::<16>(*value) };
    }
}

/// The bits of the largest magnitude; not-a-number is above all.
#[inline(always)]
fn largest_magnitude(row: &[f32]) -> u32 {
    row.iter().fold(0, |largest: i32, value| largest.max((value.to_bits() & MAGNITUDE) as i32)) as u32
}

/// The exponent, as f32 stores it, that the largest magnitude of a row has once it is rounded to 11 bits.
#[inline(always)]
fn exponent_body(row: &[f32]) -> u8 {
    let rounded = nearest::<13>(f32::from_bits(largest_magnitude(row).min(f32::INFINITY.to_bits())));
    let exponent = (rounded.to_bits() >> 23) as u8;
    exponent.clamp(*ROW_EXPONENTS.start(), *ROW_EXPONENTS.end())
}

#[inline(always)]
fn halves_body(values: &mut [f32], width: usize) {
    for row in values.chunks_exact_mut(width) {
        let exponent = u32::from(exponent_body(row));
        // What is 2^28 times smaller than the row's largest power of two has the same step as what is there; adding this
        // leaves multiples of that step.
        let least = ((exponent - 28) << 23) as i32;
        let magic = f32::from_bits((exponent - 38 + 23) << 23 | 1 << 22);
        for value in row {
            let magnitude = (value.to_bits() & MAGNITUDE) as i32;
            let (normal, small) = (nearest::<13>(*value), (*value + magic) - magic);
            let rounded = if magnitude >= least { normal } else { small };
            *value = if magnitude > INFINITY { f32::NAN } else { rounded };
        }
    }
}

at_each_level! {
    /// Rounds to bf16.
    pub(in crate::real) fn round_to_brains(values: &mut [f32]) = brains_body
}
at_each_level! {
    /// Rounds rows of `width` to f16 times a power of two, the row's own: the largest magnitude becomes 2^14 to 2^15 of
    /// f16, so that nothing overflows, and only what is 2^28 times smaller has fewer than f16's 11 bits.
    pub(in crate::real) fn round_to_halves(values: &mut [f32], width: usize) = halves_body
}
at_each_level! {
    /// The power of two of a row of [`round_to_halves`], as f32 stores exponents; the same before and after rounding.
    pub(in crate::real) fn row_exponent(row: &[f32]) -> u8 = exponent_body
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::super::Level;
    use super::*;

    /// Any float, most of them of ordinary size.
    fn value() -> impl Strategy<Value = f32> {
        prop_oneof![
            8 => -300f32..300.0,
            2 => (-1f32..1.0, -30i32..30).prop_map(|(mantissa, power)| mantissa * 2f32.powi(power)),
            1 => any::<u32>().prop_map(f32::from_bits),
        ]
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    proptest! {
        #[test]
        fn every_level_gives_the_same_bits_and_rounding_again_changes_nothing(
            values in prop::collection::vec(value(), 1..150),
        ) {
            let [brains, halves] = [0, 1].map(|kind| {
                let round = |level, values: &mut Vec<f32>| {
                    let width = values.len();
                    if kind == 0 { round_to_brains(level, values) } else { round_to_halves(level, values, width) }
                };
                let mut once = values.clone();
                round(Level::Portable, &mut once);
                for level in Level::ALL {
                    let (mut other, mut twice) = (values.clone(), once.clone());
                    round(level, &mut other);
                    round(level, &mut twice);
                    assert_eq!(bits(&other), bits(&once), "{level}");
                    assert_eq!(bits(&twice), bits(&once), "{level}");
                }
                once
            });
            prop_assert_eq!(row_exponent(Level::best(), &values), row_exponent(Level::best(), &halves));
            for (brain, value) in brains.iter().zip(&values) {
                let expected = bf16::from_f32(*value).to_f32();
                prop_assert!(brain.to_bits() == expected.to_bits() || brain.is_nan() && expected.is_nan());
            }
        }

        #[test]
        fn halves_are_f16_times_the_rows_power_of_two(values in prop::collection::vec(-3e4f32..3e4, 1..60)) {
            let mut rounded = values.clone();
            round_to_halves(Level::best(), &mut rounded, values.len());
            let unit = 2f32.powi(i32::from(row_exponent(Level::best(), &values)) - 127 - 14);
            for (rounded, value) in rounded.iter().zip(&values) {
                // Zero has no sign here.
                let expected = f16::from_f32(*value / unit).to_f32() * unit + 0.0;
                prop_assert_eq!(rounded.to_bits(), expected.to_bits(), "{} in units of {}", value, unit);
            }
        }
    }

    #[test]
    fn what_is_not_finite_stays_so_and_what_is_stays_finite_beside_it() {
        let mut row = [f32::INFINITY, -f32::NAN, 3e38, f32::NEG_INFINITY, f32::MAX];
        round_to_halves(Level::best(), &mut row, 5);
        assert_eq!(row[0], f32::INFINITY);
        assert_eq!(row[1].to_bits(), f32::NAN.to_bits());
        assert!((row[2] / 3e38 - 1.0).abs() < 1e-3);
        assert_eq!(row[3], f32::NEG_INFINITY);
    }

    #[test]
    fn rows_do_not_touch_each_other() {
        let mut rows = [1e-3, 2e-3, 1e30, 1e3];
        round_to_halves(Level::best(), &mut rows, 2);
        let mut alone = [1e-3, 2e-3];
        round_to_halves(Level::best(), &mut alone, 2);
        assert_eq!(rows[..2], alone);
        assert_eq!(rows[3], 0.0);
    }
}
